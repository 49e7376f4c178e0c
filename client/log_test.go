package client

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/checkpoint"
)

// tree is a log in memory.
type tree struct {
	signer note.Signer
	key    string
	hashes []tlog.Hash
	size   int64
}

func newTree(t *testing.T) *tree {
	t.Helper()
	secret, key, err := note.GenerateKey(nil, "writ.local")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return &tree{signer: signer, key: key}
}

func (l *tree) ReadHashes(at []int64) (out []tlog.Hash, err error) {
	for _, i := range at {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

// grow adds leaves of a kind.
func (l *tree) grow(t *testing.T, n int, kind string) *tree {
	t.Helper()
	for range n {
		h, err := tlog.StoredHashes(l.size, fmt.Appendf(nil, "%s %d", kind, l.size), l)
		if err != nil {
			t.Fatal(err)
		}
		l.hashes = append(l.hashes, h...)
		l.size++
	}
	return l
}

// fork is another log with the same beginning and key.
func (l *tree) fork() *tree {
	c := *l
	c.hashes = append([]tlog.Hash(nil), l.hashes...)
	return &c
}

func (l *tree) checkpoint(t *testing.T) string {
	t.Helper()
	root, err := tlog.TreeHash(l.size, l)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("writ.local\n%d\n%s\n", l.size, base64.StdEncoding.EncodeToString(root[:]))}, l.signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

// logged is a gateway with a log: what its replies carry, and what log.head answers,
// may be of two.
type logged struct {
	t       *testing.T
	mu      sync.Mutex
	carries string // the checkpoint of replies
	answers *tree
	asked   int
	refuses int    // status of log.head, 0: it answers
	older   bool   // it does not know until
	hangs   bool   // log.head does not answer
	head    string // in place of the latest checkpoint
	first   func() // what happens before the next answer of log.head
	content string
}

func (g *logged) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Method == http.MethodGet { // of an artifact
		w.Header().Set("Writ-Checkpoint", base64.StdEncoding.EncodeToString([]byte(g.carries)))
		fmt.Fprint(w, g.content)
		return
	}
	var sent struct {
		Capability writ.CapabilityID
		Args       struct{ Since, Until int64 }
	}
	if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
		g.t.Error(err)
	}
	if g.carries != "" {
		w.Header().Set("Writ-Checkpoint", base64.StdEncoding.EncodeToString([]byte(g.carries)))
	}
	if sent.Capability != "log.head" {
		ok("done", `{}`)(w, r)
		return
	}
	g.asked++
	if f := g.first; f != nil {
		g.first = nil
		f()
	}
	if g.hangs {
		g.mu.Unlock()
		<-r.Context().Done()
		g.mu.Lock()
		return
	}
	l, since, until := g.answers, sent.Args.Since, sent.Args.Until
	if g.refuses != 0 {
		problem(g.refuses, `{"code":"not_found","detail":"the log is written by another replica"}`)(w, r)
		return
	}
	if g.older && until > 0 {
		problem(422, `{"code":"input_invalid","detail":"unknown","errors":[{"pointer":"/until","detail":"x"}]}`)(w, r)
		return
	}
	if since > l.size || until > l.size {
		problem(422, `{"code":"input_invalid","detail":"the log has not had this size yet","details":{"log_size":"6"}}`)(w, r)
		return
	}
	head := logHead{Checkpoint: cmp.Or(g.head, l.checkpoint(g.t)), Key: l.key}
	if until == 0 {
		until = l.size
	}
	if since > 0 {
		proof, err := tlog.ProveTree(until, since, l)
		if err != nil {
			g.t.Error(err)
		}
		for _, h := range proof {
			head.Consistency = append(head.Consistency, h[:])
		}
	}
	b, err := json.Marshal(head)
	if err != nil {
		g.t.Error(err)
	}
	ok("done", string(b))(w, r)
}

func (g *logged) show(carries string, answers *tree) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.carries, g.answers = carries, answers
}

func (g *logged) requests() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked
}

// memory keeps what was seen, as a file would.
type memory struct {
	mu   sync.Mutex
	seen LogSeen
	err  error
}

func (m *memory) Load() (LogSeen, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen, nil
}

func (m *memory) Update(_ context.Context, change func(LogSeen) LogSeen) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.seen = change(m.seen)
	}
	return m.err
}

func newLogged(t *testing.T, cfg LogConfig) (*Client, *logged) {
	t.Helper()
	g := &logged{t: t}
	srv := httptest.NewServer(g)
	t.Cleanup(srv.Close)
	c, err := New(Config{URL: srv.URL, Token: token, Retries: -1, Log: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, g
}

// call makes a call, of which only the log matters.
func (g *logged) call(c *Client) error {
	_, err := c.Invoke(g.t.Context(), "run.list", nil, nil)
	return err
}

// A log that grows is believed, costs no request but those that are asked for, and what
// was proven goes along.
func TestALogThatGrows(t *testing.T) {
	c, g := newLogged(t, LogConfig{Every: -1})
	l := newTree(t).grow(t, 5, "a")
	for range 4 {
		g.show(l.checkpoint(t), l)
		if err := g.call(c); err != nil {
			t.Fatal(err)
		}
		l.grow(t, 3, "a")
	}
	if g.requests() != 0 {
		t.Errorf("%d requests that nobody asked for", g.requests())
	}
	g.show(l.checkpoint(t), l) // 17
	if err := c.CheckLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := c.LogSeen()
	if seen.Key != l.key || sizeOf(seen.Proven) != 17 || seen.Shown != "" || seen.Others != nil || g.requests() != 5 { // what there is, and 5, 8, 11 and 14 in it
		t.Errorf("%d requests, seen %+v", g.requests(), seen)
	}
	// A replica that is behind shows an older one, which is of this log.
	old := l.fork()
	l.grow(t, 20, "a")
	g.show(old.checkpoint(t), l)
	if err := errors.Join(g.call(c), c.CheckLog(t.Context())); err != nil || sizeOf(c.LogSeen().Proven) != 37 {
		t.Errorf("%v, %+v", err, c.LogSeen())
	}
	if c.LogError() != nil {
		t.Error(c.LogError())
	}
}

// Calls ask by themselves once the log has grown, as often as they were told to.
func TestCallsAskForAProof(t *testing.T) {
	c, g := newLogged(t, LogConfig{Every: time.Hour})
	l := newTree(t).grow(t, 5, "a")
	g.show(l.checkpoint(t), l)
	for range 5 {
		if err := g.call(c); err != nil {
			t.Fatal(err)
		}
		l.grow(t, 1, "a")
		g.show(l.checkpoint(t), l)
	}
	if g.requests() != 1 {
		t.Errorf("%d requests in an hour", g.requests())
	}
	c.logMu.Lock()
	c.log.seen.Checked -= time.Hour.Milliseconds()
	c.logMu.Unlock()
	for i, want := range []int{5, 6, 6} { // each of 6 to 10, four at a call
		if err := g.call(c); err != nil || g.requests() != want || sizeOf(c.LogSeen().Proven) != int64(min(9+i, 10)) {
			t.Errorf("%v, %d requests, %+v", err, g.requests(), c.LogSeen())
		}
	}
}

// Whatever a gateway does with its log, who kept a checkpoint of it finds out, is told
// both checkpoints, and sends nothing any more.
func TestALogThatWasChanged(t *testing.T) {
	good := newTree(t).grow(t, 9, "a")
	kept := good.checkpoint(t)
	longer := good.fork().grow(t, 4, "a")
	forked := good.fork()
	forked.size, forked.hashes = 6, forked.hashes[:tlog.StoredHashIndex(0, 6)]
	short := forked.fork()
	forked.grow(t, 7, "b")
	same := short.fork().grow(t, 3, "b")
	other := newTree(t).grow(t, 12, "a")
	forged := strings.Replace(longer.checkpoint(t), "\n13\n", "\n14\n", 1)

	for _, v := range []struct {
		name    string
		carries string
		answers *tree
		want    string
		shown   string
	}{
		{"forked and longer", forked.checkpoint(t), forked, "does not prove", forked.checkpoint(t)},
		{"forked, and answers as before", forked.checkpoint(t), longer, "does not prove", forked.checkpoint(t)},
		{"forked, and carries nothing", "", forked, "does not prove", forked.checkpoint(t)},
		{"the same size", same.checkpoint(t), same, "same size", same.checkpoint(t)},
		{"cut off", short.checkpoint(t), short, "shorter", ""},
		{"cut off, and carries nothing", "", short, "shorter", ""},
		{"another key", "", other, "another key", other.checkpoint(t)},
		{"carries one of another key", other.checkpoint(t), other, "did not sign", other.checkpoint(t)},
		{"forged", forged, longer, "did not sign", forged},
	} {
		t.Run(v.name, func(t *testing.T) {
			keep := &memory{}
			var told error
			c, g := newLogged(t, LogConfig{Keep: keep, Found: func(err error) { told = err }})
			g.show(kept, good)
			if err := errors.Join(g.call(c), c.CheckLog(t.Context())); err != nil {
				t.Fatal(err)
			}
			g.show(v.carries, v.answers)
			first := g.call(c)
			err := c.CheckLog(t.Context())
			e, ok := errors.AsType[*LogError](err)
			if first != nil || !ok || !strings.Contains(err.Error(), v.want) || e.Kept != kept || e.Shown != v.shown {
				t.Fatalf("the call says %v, the check %v", first, err)
			}
			w, _ := errors.AsType[*writ.Error](err)
			if w == nil || w.Hint == "" || !strings.HasPrefix(w.Details["kept"], "writ.local, 9 receipts, root ") || (v.shown != "") != strings.Contains(w.Details["shown"], "receipts, root ") {
				t.Errorf("it does not say what to do: %+v", w)
			}
			if v.shown != "" && keep.seen.Shown != v.shown || keep.seen.Proven != kept {
				t.Errorf("kept is %+v", keep.seen)
			}
			if told == nil || !errors.Is(told, c.LogError()) {
				t.Errorf("told %v", told)
			}
			before := g.requests()
			if err := g.call(c); !errors.Is(err, c.LogError()) || g.requests() != before {
				t.Errorf("it goes on: %v", err)
			}
			// Whoever comes next with what was kept knows it, and finds the same.
			again, g2 := newLogged(t, LogConfig{Keep: keep})
			if e, ok := errors.AsType[*LogError](again.LogSeen().Wrong()); !ok || e.Kept != kept || e.Shown != v.shown || !strings.Contains(e.Why, v.want) {
				t.Errorf("the next one knows %v", e)
			}
			g2.show(v.carries, v.answers)
			_ = g2.call(again)
			if err := again.CheckLog(t.Context()); again.LogError() == nil {
				t.Errorf("forgotten: %v", err)
			}
			// It stays until all that was shown is proven, which of two logs is never so.
			third, g3 := newLogged(t, LogConfig{Keep: keep})
			g3.show(longer.checkpoint(t), longer)
			_ = g3.call(third)
			if third.LogSeen().Wrong() == nil || keep.seen.Found == nil {
				t.Error("a call that goes well has it forgotten")
			}
			err = third.CheckLog(t.Context())
			if healed := v.shown == ""; healed != (err == nil) || healed != (third.LogSeen().Wrong() == nil) || healed != (keep.seen.Found == nil) {
				t.Errorf("the right log again: %v, kept is %+v", err, keep.seen.Found)
			}
		})
	}
}

// A log that was shown once is not forgotten for another that is shown after it, nor when a
// program ends between the two: every checkpoint must be proven.
func TestALogThatWasShownOnce(t *testing.T) {
	for _, every := range []time.Duration{-1, 0, time.Hour} {
		for _, v := range []struct {
			name   string
			proven int   // the size of the log at the first look, 0: there is none
			then   []int // the sizes that are shown after the fork, which leaves the log at 5 and has 8
		}{
			{"between two that are proven", 5, []int{9}},
			{"and others", 5, []int{6, 7, 9, 10, 20}},
			{"a size the log has, too", 5, []int{6, 7, 8, 9}},
			{"shorter than what is proven", 9, []int{9, 11}},
			{"before anything is proven", 0, []int{9}},
		} {
			t.Run(fmt.Sprint(v.name, " ", every), func(t *testing.T) {
				keep := &memory{}
				c, g := newLogged(t, LogConfig{Every: every, Keep: keep})
				l := newTree(t).grow(t, 5, "a")
				fork := l.fork().grow(t, 3, "b")
				if v.proven > 0 {
					l.grow(t, v.proven-5, "a")
					g.show(l.checkpoint(t), l)
					if err := errors.Join(g.call(c), c.CheckLog(t.Context())); err != nil {
						t.Fatal(err)
					}
				}
				g.show(fork.checkpoint(t), l)
				if err := g.call(c); err != nil {
					t.Fatal(err)
				}
				for _, size := range v.then {
					l.grow(t, size-int(l.size), "a")
					g.show(l.checkpoint(t), l)
					_ = g.call(c) // of one size with the fork, it is found here
				}
				again, g2 := newLogged(t, LogConfig{Every: every, Keep: keep})
				g2.show(l.checkpoint(t), l)
				err := again.CheckLog(t.Context())
				e, ok := errors.AsType[*LogError](err)
				if !ok || e.Kept != fork.checkpoint(t) && e.Shown != fork.checkpoint(t) {
					t.Errorf("the fork is forgotten: %v, %+v", err, again.LogSeen())
				}
				if seen := again.LogSeen(); !strings.Contains(fmt.Sprint(seen.unproven()), fork.checkpoint(t)) {
					t.Errorf("the evidence is not kept: %+v", seen)
				}
			})
		}
	}
}

// Of many checkpoints calls ask for the proofs as they go, one each; where there is no answer
// they stop asking, and keep the first and the newest of them.
func TestManyCheckpointsBetweenTwoLooks(t *testing.T) {
	c, g := newLogged(t, LogConfig{})
	l := newTree(t).grow(t, 5, "a")
	step := func() {
		g.show(l.checkpoint(t), l)
		if err := g.call(c); err != nil {
			t.Fatal(err)
		}
		l.grow(t, 1, "a")
	}
	for range 100 {
		step()
	}
	if n := len(c.LogSeen().Others); n > manyUnproven || g.requests() > 100 || sizeOf(c.LogSeen().Proven) < 80 {
		t.Errorf("%d are kept, after %d requests: %+v", n, g.requests(), c.LogSeen())
	}
	g.refuses = http.StatusNotFound
	before := g.requests()
	fork := l.fork().grow(t, 1, "b")
	g.show(fork.checkpoint(t), l)
	if err := g.call(c); err != nil {
		t.Fatal(err)
	}
	l.grow(t, 5, "a")
	for range 100 {
		step()
	}
	if seen := c.LogSeen(); len(seen.Others) != mostUnproven || sizeOf(seen.Shown) != l.size-1 || g.requests() > before+1 {
		t.Errorf("%d requests, seen %+v", g.requests()-before, seen)
	}
	g.refuses = 0
	if err := c.CheckLog(t.Context()); c.LogError() == nil {
		t.Errorf("the fork is forgotten: %v", err)
	}
}

// Where more checkpoints are shown than are kept, at whatever place the fork is: the log is
// never said to be good again, by no client after this one either, until somebody takes the
// count out.
func TestMoreCheckpointsThanAreKept(t *testing.T) {
	for _, v := range []struct {
		name   string
		every  time.Duration
		size   int // of the fork
		others int // checkpoints that are shown before it
	}{
		{"at place 34, while proofs are refused", 0, 48, mostUnproven + 1},
		{"at place 34, smaller than the others", 0, 6, mostUnproven + 1},
		{"at place 34, of who asks himself", -1, 48, mostUnproven + 1},
		{"at place 33, of who asks himself", -1, 48, mostUnproven},
	} {
		t.Run(v.name, func(t *testing.T) {
			keep := &memory{}
			c, g := newLogged(t, LogConfig{Every: v.every, Keep: keep})
			l := newTree(t).grow(t, 5, "a")
			g.show(l.checkpoint(t), l)
			if err := errors.Join(g.call(c), c.CheckLog(t.Context())); err != nil {
				t.Fatal(err)
			}
			fork := l.fork().grow(t, v.size-5, "b")
			g.refuses = http.StatusNotFound
			l.grow(t, 5, "a")
			step := func() {
				g.show(l.grow(t, 1, "a").checkpoint(t), l)
				if err := g.call(c); err != nil {
					t.Fatal(err)
				}
			}
			for range v.others {
				step()
			}
			g.show(fork.checkpoint(t), l)
			if err := g.call(c); err != nil {
				t.Fatal(err)
			}
			l.grow(t, 10, "a")
			step()
			step()
			g.refuses = 0
			again, g2 := newLogged(t, LogConfig{Every: v.every, Keep: keep})
			g2.show(l.checkpoint(t), l)
			for range 2 {
				err := again.CheckLog(t.Context())
				d, ok := errors.AsType[LogDropped](err)
				if !ok || d.Count < 2 || d.Smallest > int64(v.size) || d.Largest < int64(v.size) || again.LogSeen().Shown != "" || again.LogError() != nil {
					t.Fatalf("%v, %+v", err, again.LogSeen())
				}
				if w, _ := errors.AsType[*writ.Error](err); w == nil || w.Hint == "" {
					t.Errorf("it does not say what to do: %v", err)
				}
			}
			keep.seen.Dropped = LogDropped{}
			again, g2 = newLogged(t, LogConfig{Every: v.every, Keep: keep})
			g2.show(l.checkpoint(t), l)
			if err := again.CheckLog(t.Context()); err != nil {
				t.Errorf("somebody took it out: %v", err)
			}
		})
	}
}

// A log that is slow to answer makes no good call fail, and holds none for long.
func TestALogThatHangs(t *testing.T) {
	t.Parallel()
	start := func() (*Client, *logged) {
		c, g := newLogged(t, LogConfig{})
		l := newTree(t).grow(t, 5, "a")
		g.show(l.checkpoint(t), l)
		g.hangs, g.content = true, strings.Repeat("x", 1<<20)
		return c, g
	}
	c, g := start()
	sum := sha256.Sum256([]byte(g.content))
	for range 2 { // the caller's deadline is no refusal: the second asks, too
		before := g.requests()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		n, err := c.ReadArtifact(ctx, "tsk_1", "sha256:"+hex.EncodeToString(sum[:]), io.Discard)
		if err != nil || n != 1<<20 || ctx.Err() != nil || g.requests() != before+1 || c.LogSeen().NoAnswer {
			t.Errorf("%d, %v, %v, %d requests", n, err, ctx.Err(), g.requests()-before)
		}
		cancel()
	}
	c, g = start()
	for range 3 { // it has had all the time there is: the next do not ask
		began := time.Now()
		if err := g.call(c); err != nil || time.Since(began) > 5*time.Second || g.requests() != 1 || !c.LogSeen().NoAnswer {
			t.Errorf("%v, after %v, %d requests, %+v", err, time.Since(began), g.requests(), c.LogSeen())
		}
	}
}

// A call that is tried again asks at its end, once.
func TestACallThatIsTriedAgainAsksOnce(t *testing.T) {
	l := newTree(t).grow(t, 40, "a")
	g := &logged{t: t, answers: l}
	var tries atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := tries.Add(1); n <= 3 {
			part := l.fork()
			part.size = 10 + n
			w.Header().Set("Writ-Checkpoint", base64.StdEncoding.EncodeToString([]byte(part.checkpoint(t))))
			problem(503, `{"code":"not_ready","detail":"starting"}`)(w, r)
			return
		}
		g.ServeHTTP(w, r)
	}))
	defer srv.Close()
	c, err := New(Config{URL: srv.URL, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := g.call(c); err != nil || tries.Load() != 4+4 || g.requests() != 4 || c.LogSeen().Shown != "" {
		t.Errorf("%v, %d requests, %+v", err, g.requests(), c.LogSeen())
	}
}

// Several clients keep what they see in one place, and none takes out what another has put
// there, but what it has proven itself.
func TestClientsThatKeepTogether(t *testing.T) {
	type world struct {
		keep     *memory
		a, b     *Client
		l        *tree // 9 receipts are proven to both
		gateways map[*Client]*logged
		show     func(c *Client, carries, answers *tree)
	}
	start := func(t *testing.T) *world {
		w := &world{keep: &memory{}, l: newTree(t).grow(t, 9, "a"), gateways: map[*Client]*logged{}}
		w.show = func(c *Client, carries, answers *tree) {
			w.gateways[c].show(carries.checkpoint(t), answers)
			if err := w.gateways[c].call(c); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []**Client{&w.a, &w.b} {
			client, g := newLogged(t, LogConfig{Every: -1, Keep: w.keep})
			w.gateways[client], *c = g, client
			w.show(client, w.l, w.l)
			if err := client.CheckLog(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return w
	}
	check := func(t *testing.T, keep *memory, answers *tree) error {
		c, g := newLogged(t, LogConfig{Every: -1, Keep: keep})
		g.show("", answers)
		return c.CheckLog(t.Context())
	}
	t.Run("a fork that one of them saw", func(t *testing.T) {
		w := start(t)
		w.show(w.b, w.l.fork().grow(t, 3, "b"), w.l)
		for range 3 {
			w.show(w.a, w.l.grow(t, 5, "a"), w.l)
		}
		for _, err := range []error{check(t, w.keep, w.l), w.a.CheckLog(t.Context())} {
			if _, ok := errors.AsType[*LogError](err); !ok {
				t.Errorf("the fork is forgotten: %v, %+v", err, w.keep.seen)
			}
		}
	})
	t.Run("one log is proven to each", func(t *testing.T) {
		w := start(t)
		fork := w.l.fork().grow(t, 3, "b")
		w.keep.err = errors.New("no space left") // so that neither sees the other's
		w.show(w.b, fork, fork)
		w.show(w.a, w.l.grow(t, 5, "a"), w.l)
		if err := w.b.CheckLog(t.Context()); !errors.Is(err, w.keep.err) {
			t.Fatal(err)
		}
		if err := w.a.CheckLog(t.Context()); !errors.Is(err, w.keep.err) {
			t.Fatal(err)
		}
		w.keep.err = nil
		w.show(w.b, fork.grow(t, 1, "b"), fork)
		w.show(w.a, w.l.grow(t, 5, "a"), w.l)
		if err := errors.Join(w.b.KeepLog(t.Context()), w.a.KeepLog(t.Context())); err != nil {
			t.Fatal(err)
		}
		for _, answers := range []*tree{w.l, fork} {
			if _, ok := errors.AsType[*LogError](check(t, &memory{seen: w.keep.seen}, answers)); !ok {
				t.Errorf("the fork is forgotten: %+v", w.keep.seen)
			}
		}
	})
	t.Run("what is proven is taken out, once", func(t *testing.T) {
		w := start(t)
		for range 3 {
			w.show(w.a, w.l.grow(t, 1, "a"), w.l)
			w.show(w.b, w.l.grow(t, 1, "a"), w.l)
		}
		if err := errors.Join(w.a.CheckLog(t.Context()), w.b.CheckLog(t.Context()), w.a.CheckLog(t.Context())); err != nil {
			t.Fatal(err)
		}
		if seen := w.keep.seen; seen.Shown != "" || len(seen.Others) > 0 || sizeOf(seen.Proven) != 15 {
			t.Errorf("%+v", seen)
		}
	})
	t.Run("what is dropped is counted once", func(t *testing.T) {
		w := start(t)
		for range mostUnproven + 3 {
			w.show(w.a, w.l.grow(t, 1, "a"), w.l)
		}
		w.show(w.b, w.l.grow(t, 1, "a"), w.l) // has not seen the others
		w.show(w.b, w.l.grow(t, 1, "a"), w.l)
		w.show(w.a, w.l.grow(t, 1, "a"), w.l)
		if d := w.keep.seen.Dropped; d != (LogDropped{5, 42, 46}) || len(w.keep.seen.Others) != mostUnproven {
			t.Error(d, len(w.keep.seen.Others))
		}
		w.keep.seen.Dropped = LogDropped{} // somebody takes them out
		if err := errors.Join(w.b.CheckLog(t.Context()), w.a.CheckLog(t.Context())); err != nil {
			t.Error(err)
		}
	})
	t.Run("one asks and the other never does", func(t *testing.T) {
		w := start(t)
		for range 3 * mostUnproven {
			w.show(w.a, w.l.grow(t, 1, "a"), w.l)
			if err := w.b.CheckLog(t.Context()); err != nil {
				t.Fatal(err)
			}
			if a, b := w.a.LogSeen(), w.keep.seen; len(a.unproven()) > 2 || len(b.unproven()) > 0 || a.Dropped.Count > 0 {
				t.Fatalf("%d and %d wait, %v", len(a.unproven()), len(b.unproven()), a.Dropped)
			}
		}
	})
	t.Run("what the other had proven makes room", func(t *testing.T) {
		w := start(t)
		for range mostUnproven + 1 {
			w.show(w.a, w.l.grow(t, 1, "a"), w.l)
		}
		w.show(w.b, w.l.grow(t, 1, "a"), w.l)
		w.keep.seen.Dropped = LogDropped{} // of that one
		if err := w.b.CheckLog(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.show(w.a, w.l.grow(t, 1, "a"), w.l)
		if seen := w.a.LogSeen(); seen.Dropped.Count > 0 || len(seen.unproven()) != 1 || sizeOf(seen.Proven) != 43 {
			t.Errorf("%+v", seen)
		}
	})
	t.Run("another log is proven to one while the other asks", func(t *testing.T) {
		for _, size := range []int{2, 6} { // smaller than the fork, and larger
			w := start(t)
			fork := w.l.fork().grow(t, 4, "b")
			w.show(w.a, w.l.grow(t, size, "a"), w.l)
			w.keep.seen.Shown = "" // so that the other does not see it
			w.gateways[w.b].show(fork.checkpoint(t), fork)
			w.gateways[w.a].first = func() {
				if err := errors.Join(w.b.CheckLog(t.Context()), w.a.update(t.Context(), true)); err != nil {
					t.Error(err)
				}
			}
			if err := w.a.CheckLog(t.Context()); w.a.LogError() == nil {
				t.Errorf("the fork is forgotten: %v, %+v", err, w.keep.seen)
			}
		}
	})
	t.Run("what was kept is gone, or was restored", func(t *testing.T) {
		for _, back := range []bool{false, true} {
			w := start(t)
			old := w.keep.seen
			fork := w.l.fork().grow(t, 3, "b")
			w.show(w.a, w.l.grow(t, 9, "a"), w.l)
			if err := w.a.CheckLog(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.show(w.a, fork, w.l)
			if w.keep.seen = (LogSeen{}); back {
				w.keep.seen = old
			}
			w.show(w.a, w.l.grow(t, 1, "a"), w.l)
			if _, ok := errors.AsType[*LogError](check(t, w.keep, w.l)); !ok {
				t.Errorf("the fork is forgotten: %+v", w.keep.seen)
			}
		}
	})
	t.Run("all at once", func(t *testing.T) {
		w := start(t)
		fork, answers := w.l.fork().grow(t, 20, "b"), w.l.fork().grow(t, 30, "a")
		var wg sync.WaitGroup
		for i := range 4 {
			c, g := newLogged(t, LogConfig{Keep: w.keep, Every: time.Nanosecond})
			l := w.l.fork()
			wg.Go(func() {
				for n := range 20 {
					g.show(l.grow(t, 1, "a").checkpoint(t), answers)
					if i == 2 && n == 10 {
						g.show(fork.checkpoint(t), answers)
					}
					_ = g.call(c)
				}
			})
		}
		wg.Wait()
		if err := check(t, w.keep, answers); err == nil {
			t.Errorf("the fork is forgotten: %+v", w.keep.seen)
		}
	})
}

// Who is told what is wrong may ask the client about it, whoever found it.
func TestFoundMayAskTheClient(t *testing.T) {
	for _, v := range []struct {
		name string
		same bool // a fork of one size, which the call finds; else the proof finds it
	}{{"by the call", true}, {"by the proof", false}} {
		t.Run(v.name, func(t *testing.T) {
			var c *Client
			told := 0
			c, g := newLogged(t, LogConfig{Every: time.Nanosecond, Keep: &memory{}, Found: func(err error) {
				told++
				_, call := c.Invoke(t.Context(), "run.list", nil, nil)
				if c.LogSeen().Shown == "" || !errors.Is(call, err) || !errors.Is(c.CheckLog(t.Context()), err) || c.KeepLog(t.Context()) != nil {
					t.Errorf("%v, %+v", call, c.LogSeen())
				}
			}})
			l := newTree(t).grow(t, 5, "a")
			g.show(l.checkpoint(t), l)
			if err := g.call(c); err != nil {
				t.Fatal(err)
			}
			other := l.fork()
			if v.same {
				other.size, other.hashes = 4, other.hashes[:tlog.StoredHashIndex(0, 4)]
			}
			fork := other.grow(t, 1, "b")
			g.show(fork.checkpoint(t), l)
			done := make(chan error, 1)
			go func() { done <- g.call(c) }()
			select {
			case err := <-done:
				if err != nil || told != 1 {
					t.Errorf("%v, told %d times", err, told)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the call does not end")
			}
		})
	}
}

// What was shown while the keeper failed is tried again when the program ends, and is not
// forgotten unsaid.
func TestAKeeperThatFails(t *testing.T) {
	keep := &memory{}
	c, g := newLogged(t, LogConfig{Every: -1, Keep: keep})
	l := newTree(t).grow(t, 5, "a")
	g.show(l.checkpoint(t), l)
	if err := errors.Join(g.call(c), c.CheckLog(t.Context())); err != nil {
		t.Fatal(err)
	}
	fork := l.fork().grow(t, 4, "b")
	keep.err = errors.New("no space left")
	g.show(fork.checkpoint(t), fork)
	for range 2 {
		if err := g.call(c); err != nil || c.LogError() != nil {
			t.Errorf("a call says so: %v, %v", err, c.LogError())
		}
	}
	if err := c.KeepLog(t.Context()); !errors.Is(err, ErrNotKept) || !errors.Is(err, keep.err) {
		t.Errorf("it is forgotten, and nobody says so: %v", err)
	}
	keep.err = nil
	if err := errors.Join(c.KeepLog(t.Context()), c.KeepLog(t.Context())); err != nil {
		t.Error(err)
	}
	again, g2 := newLogged(t, LogConfig{Every: -1, Keep: keep})
	g2.show(l.grow(t, 5, "a").checkpoint(t), l)
	if err := errors.Join(g2.call(again), again.CheckLog(t.Context())); again.LogError() == nil {
		t.Errorf("the fork is forgotten: %v", err)
	}
}

// held is a keeper that another program has, until it is freed.
type held struct {
	memory
	free  chan struct{}
	asked atomic.Int64
}

func (h *held) Update(ctx context.Context, change func(LogSeen) LogSeen) error {
	h.asked.Add(1)
	select {
	case <-h.free:
		return h.memory.Update(ctx, change)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A keeper that others have makes no call late, is let be for a while, and has in the end what
// all calls were shown meanwhile.
func TestAKeeperThatIsHeld(t *testing.T) {
	t.Parallel()
	l := newTree(t).grow(t, 5, "a")
	var mu sync.Mutex
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		text := l.grow(t, 1, "a").checkpoint(t)
		mu.Unlock()
		w.Header().Set("Writ-Checkpoint", base64.StdEncoding.EncodeToString([]byte(text)))
		ok("done", `{}`)(w, r)
	}))
	defer srv.Close()
	keep := &held{free: make(chan struct{})}
	c, err := New(Config{URL: srv.URL, Token: token, Log: LogConfig{Every: -1, Key: l.key, Keep: keep}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	calls := func() {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if _, err := c.Invoke(ctx, "run.list", nil, nil); err != nil || ctx.Err() != nil {
					t.Errorf("%v, %v", err, ctx.Err())
				}
			})
		}
		wg.Wait()
	}
	calls()
	calls()
	if n := keep.asked.Load(); n != 1 {
		t.Errorf("the keeper is asked %d times in a row", n)
	}
	close(keep.free)
	if err := c.KeepLog(t.Context()); err != nil || len(keep.seen.unproven()) != 20 || keep.asked.Load() != 2 {
		t.Errorf("%v, after %d it has %d", err, keep.asked.Load(), len(keep.seen.unproven()))
	}
}

// While one call has the keeper no other waits for it, and what they were shown goes with it.
func TestOneCallHasTheKeeper(t *testing.T) {
	keep := &held{free: make(chan struct{})}
	c, g := newLogged(t, LogConfig{Every: -1, Keep: keep})
	l := newTree(t).grow(t, 5, "a")
	g.show(l.checkpoint(t), l)
	first := make(chan error)
	go func() { first <- g.call(c) }()
	for keep.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 3 {
		g.show(l.grow(t, 1, "a").checkpoint(t), l)
		if err := g.call(c); err != nil {
			t.Error(err)
		}
	}
	close(keep.free)
	if err := <-first; err != nil || len(keep.seen.unproven()) != 4 || keep.asked.Load() != 2 {
		t.Errorf("%v, after %d it has %d", err, keep.asked.Load(), len(keep.seen.unproven()))
	}
}

// What is kept and cannot be what clients kept is no reason to begin anew.
func TestWhatIsKeptIsDamaged(t *testing.T) {
	l := newTree(t).grow(t, 3, "a")
	good := l.checkpoint(t)
	for i, seen := range []LogSeen{
		{Proven: good},
		{Proven: good, Key: newTree(t).key},
		{Proven: good[:len(good)/2], Key: l.key},
		{Proven: strings.Replace(good, "\n3\n", "\n2\n", 1), Key: l.key},
		{Proven: good, Key: l.key, Others: []string{good}},
		{Proven: good, Key: l.key, Dropped: LogDropped{Count: -1}},
		{Proven: good, Key: l.key, Shown: "garbage"},
		{Proven: good, Key: l.key, Shown: good, Others: []string{good, ""}},
		{Proven: good, Key: l.key, Shown: good, Others: []string{strings.Replace(good, "\n3\n", "\n03\n", 1)}},
		{Shown: good, Key: "garbage"},
	} {
		if _, err := New(Config{URL: "http://h", Token: token, Log: LogConfig{Keep: &memory{seen: seen}}}); err == nil {
			t.Errorf("%d is taken", i)
		}
	}
}

// One that is kept and that the key did not sign may be what the gateway showed, or damage:
// what is said of it leaves that open. What cannot be read is not kept.
func TestWhatIsKeptWasNotSigned(t *testing.T) {
	l := newTree(t).grow(t, 3, "a")
	proven := l.checkpoint(t)
	changed := strings.Replace(l.grow(t, 3, "a").checkpoint(t), "\n6\n", "\n7\n", 1)
	keep := &memory{seen: LogSeen{Key: l.key, Proven: proven, Shown: changed}}
	c, g := newLogged(t, LogConfig{Keep: keep})
	l.grow(t, 3, "a")
	g.show("", l)
	if err := c.CheckLog(t.Context()); c.LogError() == nil || !strings.Contains(err.Error(), "or what is kept was changed") {
		t.Error(err)
	}
	keep = &memory{}
	c, g = newLogged(t, LogConfig{Keep: keep, Key: l.key})
	g.show("", l)
	g.head = "garbage"
	if err := c.CheckLog(t.Context()); c.LogError() == nil || !keep.seen.Valid() {
		t.Errorf("%v, %+v", err, keep.seen)
	}
}

// A caller who does not wait for a proof has not been refused one: the next call asks.
func TestACallerWhoDoesNotWait(t *testing.T) {
	c, g := newLogged(t, LogConfig{})
	l := newTree(t).grow(t, 5, "a")
	g.show(l.checkpoint(t), l)
	if err := c.CheckLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range manyUnproven + 1 {
		c.show(l.grow(t, 1, "a").checkpoint(t))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.CheckLog(ctx); err == nil {
		t.Fatal("nothing was asked")
	}
	before := g.requests()
	if err := g.call(c); err != nil || g.requests() == before {
		t.Errorf("%v, %d requests, %+v", err, g.requests()-before, c.LogSeen())
	}
}

// The key that was given counts, whatever the gateway says at the first look.
func TestTheKeyOfTheLogCanBeGiven(t *testing.T) {
	l, other := newTree(t).grow(t, 3, "a"), newTree(t).grow(t, 3, "a")
	c, g := newLogged(t, LogConfig{Key: l.key})
	g.show("", other)
	if err := c.CheckLog(t.Context()); c.LogError() == nil {
		t.Errorf("another log is believed: %v", err)
	}
	c, g = newLogged(t, LogConfig{Key: l.key})
	g.show(other.checkpoint(t), l)
	if err := g.call(c); err != nil || c.LogError() == nil {
		t.Errorf("a checkpoint of another key is kept: %v", err)
	}
	if _, err := New(Config{URL: "http://h", Token: token, Log: LogConfig{Key: l.key, Keep: &memory{seen: LogSeen{Key: other.key}}}}); err == nil {
		t.Error("what was kept is of another key")
	}
}

// No proof is no accusation: another replica may write the log, or the network be gone.
func TestNoProofForNow(t *testing.T) {
	c, g := newLogged(t, LogConfig{Every: time.Nanosecond})
	l := newTree(t).grow(t, 3, "a")
	g.show(l.checkpoint(t), l)
	g.refuses = http.StatusNotFound
	if err := g.call(c); err != nil || c.LogError() != nil {
		t.Errorf("%v, %v", err, c.LogError())
	}
	if err := c.CheckLog(t.Context()); err == nil || c.LogError() != nil {
		t.Errorf("%v, %v", err, c.LogError())
	}
	g.refuses = 0
	if err := c.CheckLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.grow(t, 2, "a")
	g.show(l.checkpoint(t), l)
	g.older = true
	if err := g.call(c); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckLog(t.Context()); err == nil || c.LogError() != nil {
		t.Errorf("an older gateway is taken for a forked log: %v, %v", err, c.LogError())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.CheckLog(ctx); err == nil || c.LogError() != nil {
		t.Errorf("%v, %v", err, c.LogError())
	}
	for _, bad := range []string{"", "x", "a\n1\n\n", strings.Repeat("x", checkpoint.MaxText+1), "a\n01\nAAAA\n\n— x y\n"} {
		g.show(bad, l)
		if err := g.call(c); err != nil || c.LogError() != nil {
			t.Errorf("%q: %v, %v", bad, err, c.LogError())
		}
	}
}

// What clients keep is read by those that come after them, so its form stays.
func TestWhatIsKeptHasOneForm(t *testing.T) {
	for want, s := range map[string]LogSeen{
		`{}`: {},
		`{"verifier_key":"k","proven":"p","shown":"s","others":["o"],"no_answer":true,"checked_ms":1,"dropped":{"count":2,"smallest":3,"largest":4},"found":{"kept":"a","shown":"b","why":"c","at_ms":5}}`: {
			Key: "k", Proven: "p", Shown: "s", Others: []string{"o"}, NoAnswer: true, Checked: 1, Dropped: LogDropped{2, 3, 4}, Found: &LogError{"a", "b", "c", 5},
		},
	} {
		got, err := json.Marshal(s)
		if err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
		var back LogSeen
		if err := json.Unmarshal([]byte(want), &back); err != nil || !reflect.DeepEqual(back, s) {
			t.Errorf("%s is read as %+v, %v", want, back, err)
		}
	}
	if (LogSeen{Found: &LogError{}}).Valid() {
		t.Error("something was found, and nobody says what")
	}
}

// Of what several clients found, and had disproven, nothing new is lost, and what was taken out stays out.
func TestWhatWasFoundIsMerged(t *testing.T) {
	x, again, y := &LogError{Why: "x", At: 1}, &LogError{Why: "x", At: 1}, &LogError{Why: "x", At: 2}
	for _, v := range []struct{ seen, base, kept, want *LogError }{
		{nil, nil, nil, nil},
		{nil, nil, x, x},
		{x, nil, nil, x},
		{x, again, x, x},
		{x, again, nil, nil},
		{x, again, y, y},
		{nil, x, again, nil},
		{nil, x, y, y},
		{nil, x, nil, nil},
		{y, x, nil, y},
		{y, x, again, y},
	} {
		got := LogSeen{Found: v.seen}.merge(LogSeen{Found: v.base}, LogSeen{Found: v.kept}, mostUnproven).Found
		if !got.is(v.want) {
			t.Errorf("seen %v, of %v, kept %v: got %v, want %v", v.seen, v.base, v.kept, got, v.want)
		}
	}
}

// What a client finds while another has what was found before proven to be wrong is kept, and what it finds while it
// looks itself is what it says. A fork with both signatures needs no answer.
func TestFoundMeanwhile(t *testing.T) {
	good := newTree(t).grow(t, 9, "a")
	longer := good.fork().grow(t, 3, "a")
	forked := good.fork().grow(t, 3, "b")
	short := newTree(t).grow(t, 4, "a")
	keep := &memory{}
	first, g := newLogged(t, LogConfig{Keep: keep})
	g.show(good.checkpoint(t), good)
	if err := errors.Join(g.call(first), first.CheckLog(t.Context())); err != nil {
		t.Fatal(err)
	}
	g.show("", short)
	if err := first.CheckLog(t.Context()); err == nil || keep.seen.Found == nil {
		t.Fatalf("a log that was cut off: %v", err)
	}
	long, gl := newLogged(t, LogConfig{Keep: keep, Every: -1}) // which has what was found
	other, g3 := newLogged(t, LogConfig{Keep: keep})
	g3.show(good.checkpoint(t), good)
	if err := other.CheckLog(t.Context()); err != nil || keep.seen.Found != nil {
		t.Fatalf("the right log again: %v, kept %v", err, keep.seen.Found)
	}
	gl.show(longer.checkpoint(t), longer)
	_ = gl.call(long)
	gl.show(forked.checkpoint(t), forked)
	_ = gl.call(long)
	if err := long.KeepLog(t.Context()); err != nil || long.LogError() == nil || keep.seen.Found == nil {
		t.Fatalf("what was found later is forgotten: %v, %v, kept %v", err, long.LogError(), keep.seen.Found)
	}
	// What a reply shows while another has proofs given is what the check says, and is not forgotten with what was before.
	busy := &memory{seen: LogSeen{Key: good.key, Proven: longer.checkpoint(t), Found: &LogError{Kept: longer.checkpoint(t), Why: "it is shorter"}}}
	checks, g4 := newLogged(t, LogConfig{Keep: busy, Every: -1})
	g4.show("", longer)
	g4.first = func() {
		checks.noteLog(http.Header{headerCheckpoint: {base64.StdEncoding.EncodeToString([]byte(forked.checkpoint(t)))}})
	}
	if _, ok := errors.AsType[*LogError](checks.CheckLog(t.Context())); !ok || busy.seen.Found == nil || busy.seen.Found.Why != "the gateway shows two logs of the same size: it has forked its log" {
		t.Errorf("found while it was checked: %v, kept %v", checks.LogError(), busy.seen.Found)
	}
	// Where there was no room for what was shown, the finding has it, and it is asked for again.
	twelve := forked.checkpoint(t)
	lost := &memory{seen: LogSeen{Key: good.key, Proven: good.checkpoint(t), Found: &LogError{Kept: good.checkpoint(t), Shown: twelve, Why: "it is not proven"}}}
	asks, g5 := newLogged(t, LogConfig{Keep: lost})
	g5.show("", good.fork().grow(t, 5, "a"))
	if err := asks.CheckLog(t.Context()); err == nil || lost.seen.Found == nil {
		t.Errorf("what there was no room for is forgotten: %v", err)
	}
	last, gone := newLogged(t, LogConfig{Keep: keep})
	before := gone.requests()
	if _, ok := errors.AsType[*LogError](last.CheckLog(t.Context())); !ok || gone.requests() != before || keep.seen.Found == nil {
		t.Errorf("of two signed logs of one size it wants an answer: %d requests, kept %v", gone.requests()-before, keep.seen.Found)
	}
}
