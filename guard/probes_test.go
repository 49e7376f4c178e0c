package guard_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/agents"
	"github.com/writ-gateway/writ/guard"
)

// tester registers and activates an agent with one endpoint.
func (w *world) tester() {
	w.t.Helper()
	for _, c := range []struct {
		id   writ.CapabilityID
		args any
	}{
		{"agent.register", agents.AgentRegisterArgs{
			AgentID: "tester", Archetypes: []writ.Role{writ.RoleExecutor}, Domain: "web", Tools: []writ.Tool{{Name: "site.test", Safety: writ.SafetyReadOnly}},
			Endpoints: map[string]agents.AgentEndpoint{"api": {URL: "https://tester.example/health", IntervalSeconds: 3600}},
		}},
		{"agent.activate", agents.AgentActivateArgs{AgentID: "tester"}},
	} {
		if _, _, err := w.door.System(w.t.Context(), shard, c.id, c.args, nil); err != nil {
			w.t.Fatal(err)
		}
	}
}

func onStoresWithAgents(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	onStores(t, func(t *testing.T, w *world) {
		reg, err := writ.NewRegistry(append(guard.Capabilities(), agents.Capabilities(agents.Config{})...)...)
		if err != nil {
			t.Fatal(err)
		}
		f(t, worldOn(t, w.store, w.now, func(c *guard.Config) { c.Registry = reg }))
	})
}

func due(t *testing.T, p *guard.Probes) []writ.ProbeJob {
	t.Helper()
	jobs, err := p.Due(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

// However many replicas see that an endpoint is due, one has it; what it finds
// is known to all, and is a fact only when the status changes.
func TestADueProbeIsMadeOnce(t *testing.T) {
	onStoresWithAgents(t, func(t *testing.T, w *world) {
		w.tester()
		p := w.door.Probes(shard)
		jobs := due(t, p)
		if len(jobs) != 1 || !jobs[0].Known || jobs[0].Endpoint.URL != "https://tester.example/health" || jobs[0].Since == 0 {
			t.Fatalf("due: %+v", jobs)
		}
		var wg sync.WaitGroup
		var taken atomic.Int64
		for range 16 {
			wg.Go(func() {
				ok, err := w.door.Probes(shard).Take(t.Context(), jobs[0])
				if err != nil {
					t.Error(err)
				}
				if ok {
					taken.Add(1)
				}
			})
		}
		wg.Wait()
		if taken.Load() != 1 || len(due(t, p)) != 0 {
			t.Fatalf("taken %d times, and due: %v", taken.Load(), due(t, p))
		}
		open, err := p.Open(t.Context(), []writ.AgentID{"tester", "nobody"})
		if err != nil || len(open) != 1 {
			t.Fatalf("open: %v, %v", open, err)
		}
		head := func() int64 {
			h, err := w.store.Head(t.Context(), shard)
			if err != nil {
				t.Fatal(err)
			}
			return h.Seq
		}
		before := head()
		for range 3 {
			job := jobs[0]
			job.Now += 1000 // a look that began later than the last was recorded
			if err := p.Record(t.Context(), job, writ.ProbeResult{Code: 200, LatencyMs: 3}); err != nil {
				t.Fatal(err)
			}
		}
		if got := head(); got != before+1 {
			t.Errorf("%d facts for three looks that found the same", got-before)
		}
		if open, err = p.Open(t.Context(), []writ.AgentID{"tester"}); err != nil || len(open) != 0 {
			t.Errorf("open: %v, %v", open, err)
		}
		if at, err := p.Checked(t.Context(), jobs[0]); err != nil || at <= jobs[0].Seen {
			t.Errorf("looked at %d, %v", at, err)
		}
	})
}

// Whatever a look finds, the next is due one interval after it began, and no later the
// longer an endpoint is not well: so it is seen within one interval that it is well again.
func TestABadLookPutsOffNothing(t *testing.T) {
	onStoresWithAgents(t, func(t *testing.T, w *world) {
		w.tester()
		p := w.door.Probes(shard)
		job := due(t, p)[0]
		next := writ.Range{Index: writ.IndexProbes, Limit: 2}
		for n := range 3 {
			if ok, err := p.Take(t.Context(), job); err != nil || !ok {
				t.Fatalf("look %d: taken %v, %v", n, ok, err)
			}
			if err := p.Record(t.Context(), job, writ.ProbeResult{Reason: writ.ReasonConnect}); err != nil {
				t.Fatal(err)
			}
			s, err := w.store.Read(t.Context(), shard, writ.ReadSet{Ranges: []writ.Range{next}})
			if err != nil {
				t.Fatal(err)
			}
			want := job.Now + job.Endpoint.IntervalSeconds*1000
			if m := s.Ranges[next].Members; len(m) != 1 || m[0].Score != want {
				t.Fatalf("after look %d: due %v, want %d", n, m, want)
			}
			job.Due, job.Now = want, want // as the one who finds it due then
		}
	})
}

// A claim that wants to know has nobody ask who is being asked, by whichever replica;
// what a replica took that died is asked once that must be over.
func TestWhatIsUnderWayIsNotTakenAgain(t *testing.T) {
	onStoresWithAgents(t, func(t *testing.T, w *world) {
		w.tester()
		p := w.door.Probes(shard)
		take := func(later int64, want bool) {
			t.Helper()
			open, err := p.Open(t.Context(), []writ.AgentID{"tester"})
			if err != nil || len(open) != 1 {
				t.Fatalf("open: %v, %v", open, err)
			}
			open[0].Now += later
			if ok, err := p.Take(t.Context(), open[0]); ok != want || err != nil {
				t.Errorf("taken: %v, %v", ok, err)
			}
		}
		take(0, true)
		take(0, false)
		take(4000, true) // its timeout, and a second
	})
}

// What is due and is no endpoint of an active agent is due no more.
func TestWhatIsNoEndpointIsNotDue(t *testing.T) {
	onStoresWithAgents(t, func(t *testing.T, w *world) {
		w.tester()
		call := &writ.Call{}
		if err := w.door.Stamp(call); err != nil {
			t.Fatal(err)
		}
		tx := writ.Tx{Call: call.ID}
		tx.Index(writ.IndexProbes, "ghost api", 1)
		tx.Index(writ.IndexProbes, "tester old", 1)
		if _, err := w.store.Commit(t.Context(), shard, tx); err != nil {
			t.Fatal(err)
		}
		p := w.door.Probes(shard)
		for _, job := range due(t, p) {
			if job.Known != (job.Endpoint.Name == "api" && job.Agent == "tester") {
				t.Errorf("got %+v", job)
			}
			if !job.Known {
				if err := p.Record(t.Context(), job, writ.ProbeResult{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if left := due(t, p); len(left) != 1 || left[0].Endpoint.Name != "api" {
			t.Errorf("due: %+v", left)
		}
	})
}

func TestNothingIsDueWithoutAStore(t *testing.T) {
	onStoresWithAgents(t, func(t *testing.T, w *world) {
		p := w.door.Probes(shard)
		if err := w.store.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := p.Due(t.Context(), 10)
		if e, ok := errors.AsType[*writ.Error](err); !ok || e.Code != writ.CodeStore {
			t.Errorf("got %v", err)
		}
	})
}

// hanging is a prober whose endpoints say nothing.
type hanging struct{ looks int }

func (h *hanging) Refresh(ctx context.Context, _ writ.Tenant, _ []writ.AgentID) {
	h.looks++
	<-ctx.Done()
}

// However many tasks want agents looked at that do not answer, a poll takes no longer
// for it than one look may.
func TestAPollEndsWhoeverIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *guard.Config) {
			caps := append(guard.Capabilities(), things()...)
			for _, k := range claims(func(*writ.Call) writ.AgentID { return "tester" }) {
				plan := k.Plan
				k.Plan = func(c *writ.Call, s writ.Snapshot, dec writ.Decision) (writ.Tx, writ.Reply, error) {
					a, ok := c.Args.(*claimArgs)
					switch {
					case !ok || a.Task == "":
						return plan(c, s, dec)
					case !c.Probed:
						return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeEmpty, Probe: []writ.AgentID{"tester"}}, nil
					}
					return writ.Tx{}, writ.Reply{}, writ.Refuse(writ.CodePreflight, "test", "an agent the task needs is not healthy", "try again")
				}
				caps = append(caps, k)
			}
			reg, err := writ.NewRegistry(caps...)
			if err != nil {
				t.Fatal(err)
			}
			c.Registry = reg
		})
		h, d := &hanging{}, guard.NewDispatcher(w.door, "r-1")
		d.Probing(h)
		alice := w.session("alice")
		for i := range byte(5) {
			w.push(i + 1)
		}
		begun := time.Now()
		if reply, _, err := w.poll(d, alice, 2, ""); err != nil || reply.Outcome != writ.OutcomeEmpty {
			t.Errorf("%+v, %v", reply, err)
		}
		if took := time.Since(begun); h.looks != 5 || took < 11*time.Second || took > 14*time.Second {
			t.Errorf("%d looks in %s", h.looks, took)
		}
	})
}
