package webhooks

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// lab is a courier with a queue in memory and a clock of its own. Time passes
// only when a test says so.
type lab struct {
	*testing.T
	*Courier
	queue *queue
	log   *logged
	count *counts
	clock *clock
}

// newLab delivers to endpoints that want everything.
func newLab(t *testing.T, urls ...string) *lab {
	t.Helper()
	l := &lab{T: t, clock: &clock{at: 1_767_225_600_000}, log: &logged{}, count: &counts{}}
	l.queue = &queue{clock: l.clock, members: map[writ.EndpointID]map[string]int64{}, holder: map[writ.EndpointID]string{}, me: "r-1"}
	cfg := Config{
		Queue: l.queue, Public: "https://writ.example.org/", Observer: l.count, Log: slog.New(slog.NewTextHandler(l.log, nil)),
		Timeout: 5 * time.Second, Now: l.clock.time, Spread: func() float64 { return .5 }, Transport: newTransport(),
	}
	for _, u := range urls {
		s, err := parseSecrets(secretA)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Endpoints = append(cfg.Endpoints, Endpoint{URL: u, Secrets: s})
	}
	l.Courier = New(cfg)
	t.Cleanup(cfg.Transport.CloseIdleConnections)
	return l
}

// turn lets the i-th endpoint have its turn until it has nothing more to do.
func (l *lab) turn(i int) {
	l.Helper()
	for l.step(l.Context(), l.targets[i]) {
	}
}

// tell queues n notices for the i-th endpoint, due now.
func (l *lab) tell(i, n int) (out []writ.Notice) {
	for range n {
		l.queue.made++
		notice := writ.Notice{
			Event: writ.EventApprovalRequested, Receipt: writ.ReceiptID(writ.MakeID(writ.PrefixReceipt, l.clock.now(), [10]byte{byte(l.queue.made >> 8), byte(l.queue.made)})),
			At: l.clock.now(), Approval: "apr_01ARYZ6S410000000000000000", State: writ.ApprovalPending,
		}
		l.queue.put(l.targets[i].id, notice.Member(), notice.At)
		out = append(out, notice)
	}
	return out
}

type clock struct {
	mu sync.Mutex
	at int64
}

func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) time() time.Time { return time.UnixMilli(c.now()) }

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at += d.Milliseconds()
}

// queue is a Queue in memory.
type queue struct {
	clock *clock
	me    string
	made  int

	mu      sync.Mutex
	members map[writ.EndpointID]map[string]int64
	holder  map[writ.EndpointID]string
	down    bool // nothing answers
	lost    bool // settling does not
	missing bool // the approval is not there

	abandoned []writ.Notice // what the next Tidy drops
}

var errDown = errors.New("the store is gone")

func (q *queue) put(e writ.EndpointID, member string, at int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.members[e] == nil {
		q.members[e] = map[string]int64{}
	}
	q.members[e][member] = at
}

func (q *queue) waiting(e writ.EndpointID) map[string]int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.members[e])
}

// set changes what goes wrong.
func (q *queue) set(f func(q *queue)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f(q)
}

func (q *queue) Hold(_ context.Context, e writ.EndpointID, _ time.Duration) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.down {
		return false, errDown
	}
	if q.holder[e] == "" {
		q.holder[e] = q.me
	}
	return q.holder[e] == q.me, nil
}

func (q *queue) Release(_ context.Context, e writ.EndpointID) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.holder, e)
	return nil
}

func (q *queue) Due(_ context.Context, e writ.EndpointID, limit int) (int64, []writ.Notice, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.down {
		return 0, nil, errDown
	}
	var out []writ.Notice
	for m, at := range q.members[e] {
		if n, ok := writ.ParseNotice(writ.Member{Name: m, Score: at}); ok && at <= q.clock.now() {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b writ.Notice) int {
		if a.Due != b.Due {
			return int(a.Due - b.Due)
		}
		return bytes.Compare([]byte(a.Receipt), []byte(b.Receipt))
	})
	return q.clock.now(), out[:min(len(out), limit)], nil
}

func (q *queue) Approval(context.Context, writ.ApprovalID) (writ.Approval, bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.down {
		return writ.Approval{}, false, errDown
	}
	return approval(), !q.missing, nil
}

func (q *queue) Settle(_ context.Context, e writ.EndpointID, off, on []writ.Notice) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.down || q.lost {
		return errDown
	}
	for _, n := range off {
		delete(q.members[e], n.Member())
	}
	for _, n := range on {
		q.members[e][n.Member()] = n.Due
	}
	return nil
}

func (q *queue) Tidy(context.Context) ([]writ.Notice, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.abandoned
	q.abandoned = nil
	return out, nil
}

func (q *queue) Served(context.Context) ([]writ.EndpointID, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Keys(q.holder)), nil
}

type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) Delivery(event, outcome string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[event+" "+outcome]++
}

// of is how often an approval.requested had an outcome.
func (c *counts) of(outcome string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n["approval.requested "+outcome]
}

type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// receiver is an endpoint that verifies what it gets as a receiver would, with
// the library of Standard Webhooks, and answers as it is told.
type receiver struct {
	*httptest.Server
	answer http.HandlerFunc

	mu     sync.Mutex
	bodies map[string][]string // by webhook-id
	order  []string
}

func newReceiver(t *testing.T, answer http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{answer: answer, bodies: map[string][]string{}}
	wh, err := standardwebhooks.NewWebhook(secretA)
	if err != nil {
		t.Fatal(err)
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		if err := wh.VerifyIgnoringTimestamp(b, req.Header); err != nil {
			t.Errorf("a receiver would not take it: %v", err)
		}
		if req.Method != "POST" || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s of %s", req.Method, req.Header.Get("Content-Type"))
		}
		id := req.Header.Get("webhook-id")
		r.mu.Lock()
		r.bodies[id], r.order = append(r.bodies[id], string(b)), append(r.order, id)
		r.mu.Unlock()
		if r.answer != nil {
			r.answer(w, req)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// got is how often a notice came; every time it must have been the same.
func (r *receiver) got(t *testing.T, n writ.Notice) int {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.bodies[n.ID()]
	for _, b := range all {
		if b != all[0] {
			t.Errorf("%s came as %s and as %s", n.ID(), all[0], b)
		}
	}
	return len(all)
}

func (r *receiver) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.order)
}

// status answers with a status.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// approval is one that holds everything that must not be told.
func approval() writ.Approval {
	return writ.Approval{
		ID: "apr_01ARYZ6S410000000000000000", State: writ.ApprovalConsumed, Scope: writ.ScopeTask, Capability: "task.claim", Version: "1", Subject: "canary.subject",
		Needs: []writ.Need{
			{Rule: "approvals.destructive", Kind: writ.ApproveEffect, Approvers: 2, Roles: []writ.Role{writ.RoleOperator, writ.RoleApprover}, Schema: writ.RawObject(`{"canary":"schema"}`)},
			{Rule: "ask.more", Kind: writ.ApprovePolicyException, Approvers: 1, Roles: []writ.Role{writ.RoleApprover}},
		},
		Args: writ.RawObject(`{"canary":"args"}`), Request: "canary-digest", Response: writ.RawObject(`{"canary":"response"}`),
		Run: "run_01ARYZ6S410000000000000000", Task: "tsk_01ARYZ6S410000000000000000",
		Requester: writ.Requester{Session: "ses_canary", Principal: "canary-principal", Agent: "canary-agent"}, Excluded: []writ.PrincipalID{"canary-excluded"},
		Votes:     []writ.Vote{{Principal: "canary-voter", Reason: "canary-reason"}},
		ExpiresAt: 1_767_229_200_000, CreatedAt: 1, UpdatedAt: 2, Receipt: "rcp_canary",
	}
}
