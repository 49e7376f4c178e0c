package webhooks

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
)

// A started courier delivers by itself, an endpoint that hangs holds up no
// other, and Stop leaves nothing running.
func TestStartAndStop(t *testing.T) {
	before := goleak.IgnoreCurrent()
	taken := make(chan string, 100)
	good := newReceiver(t, func(_ http.ResponseWriter, req *http.Request) { taken <- req.Header.Get("webhook-id") })
	hung := newReceiver(t, func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
	l := newLab(t, hung.URL, good.URL)
	l.cfg.Every = time.Millisecond
	l.tell(0, 1000)
	want := map[string]bool{}
	for _, n := range l.tell(1, 100) {
		want[n.ID()] = true
	}
	l.Start()
	for range 100 {
		delete(want, <-taken)
	}
	l.Stop()
	if len(want) != 0 {
		t.Errorf("%d were not delivered", len(want))
	}
	if l.queue.holder[l.targets[1].id] != "" {
		t.Error("a stopped courier still holds its endpoint")
	}
	if left := len(l.queue.waiting(l.targets[0].id)); left != 1000 {
		t.Errorf("%d wait for the endpoint that hangs", left)
	}
	good.Close()
	hung.Close()
	goleak.VerifyNone(t, before)
	New(Config{Queue: l.queue, Log: l.cfg.Log, Observer: l.count}).Stop() // never started
}

// Of two replicas one delivers; when it lets go the other goes on.
func TestTwoReplicas(t *testing.T) {
	r := newReceiver(t, nil)
	one, two := newLab(t, r.URL), newLab(t, r.URL)
	shared := &queue{clock: one.clock, me: "r-2", members: one.queue.members, holder: one.queue.holder}
	two.cfg.Queue, two.queue = shared, shared
	first := one.tell(0, 20)
	one.turn(0)
	second := one.tell(0, 1)[0]
	two.turn(0)
	if r.got(t, first[3]) != 1 || r.got(t, second) != 0 {
		t.Fatal("the replica that does not hold the endpoint delivered")
	}
	if err := one.queue.Release(t.Context(), one.targets[0].id); err != nil {
		t.Fatal(err)
	}
	two.turn(0)
	if r.got(t, second) != 1 || r.requests() != 21 {
		t.Errorf("%d requests for 21 notices", r.requests())
	}
}

// The store may go away at any time: nothing is counted as tried then, the log
// says it once, and what was delivered without a note comes again as the same.
func TestStoreGoesAway(t *testing.T) {
	r := newReceiver(t, nil)
	l := newLab(t, r.URL)
	n := l.tell(0, 1)[0]
	l.queue.set(func(q *queue) { q.down = true })
	for range 3 {
		l.turn(0)
	}
	if r.requests() != 0 || strings.Count(l.log.String(), "until the store answers") != 1 {
		t.Errorf("%d requests\n%s", r.requests(), l.log)
	}
	l.queue.set(func(q *queue) { q.down, q.lost = false, true })
	l.turn(0)
	l.queue.set(func(q *queue) { q.lost = false })
	l.turn(0)
	if got := r.got(t, n); got != 2 || len(l.queue.waiting(l.targets[0].id)) != 0 {
		t.Errorf("came %d times, waiting %v", got, l.queue.waiting(l.targets[0].id))
	}
}

// A notice about nothing is given up, and not in the way of others.
func TestAboutNothing(t *testing.T) {
	r := newReceiver(t, nil)
	l := newLab(t, r.URL)
	l.queue.missing = true
	l.tell(0, 1)
	n := writ.Notice{Event: writ.EventPolicyNotify, Receipt: "rcp_1", At: l.clock.now(), Capability: "run.create"}
	l.queue.put(l.targets[0].id, n.Member(), n.At)
	l.turn(0)
	if r.requests() != 1 || r.got(t, n) != 1 || l.count.of(outcomeGivenUp) != 1 || len(l.queue.waiting(l.targets[0].id)) != 0 {
		t.Errorf("%d requests, counted %v, waiting %v", r.requests(), l.count.n, l.queue.waiting(l.targets[0].id))
	}
}

// The operator's test is signed like everything else and says what came back.
func TestProbe(t *testing.T) {
	var code atomic.Int64
	code.Store(http.StatusNoContent)
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(code.Load())) })
	s, err := parseSecrets(secretB + "\n" + secretA)
	if err != nil {
		t.Fatal(err)
	}
	e := Endpoint{URL: r.URL, Secrets: s}
	if err := Probe(t.Context(), e, "test-1"); err != nil {
		t.Fatal(err)
	}
	if b := r.bodies["test-1"]; len(b) != 1 || !strings.Contains(b[0], `"type":"webhook.test"`) {
		t.Errorf("sent %q", b)
	}
	for status, want := range map[int64]string{500: "answered 500", 410: "answered 410", 302: "redirects"} {
		code.Store(status)
		if err := Probe(t.Context(), e, "test-2"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// What is dropped is counted and said; an endpoint only another replica has is
// said once.
func TestTidied(t *testing.T) {
	l := newLab(t, "https://here.example.org/")
	l.queue.abandoned = []writ.Notice{{Event: writ.EventApprovalRequested}, {Event: writ.EventApprovalRequested}, {}}
	l.queue.holder["elsewhere"], l.queue.holder[l.targets[0].id] = "r-2", "r-1"
	known := map[writ.EndpointID]bool{l.targets[0].id: true}
	for range 3 {
		l.tidy(t.Context(), known)
	}
	if l.count.of(outcomeGivenUp) != 2 || l.count.n["other given_up"] != 1 {
		t.Errorf("counted %v", l.count.n)
	}
	log := l.log.String()
	if strings.Count(log, "notices=3") != 1 || strings.Count(log, "another replica tells") != 1 || !strings.Contains(log, "endpoint=elsewhere") {
		t.Errorf("the log:\n%s", log)
	}
}
