package guard_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
)

// claims puts a queue of the smallest kind behind a dispatcher: task.claim
// without a task polls every lane, with one it makes a run document; task.refuse
// notes who was refused.
type claimArgs struct {
	Task writ.TaskID `json:"task_id,omitempty"`
	Wait int64       `json:"wait_s,omitempty"`
}

type refuseArgs struct {
	Task  writ.TaskID    `json:"task_id"`
	Agent writ.AgentID   `json:"agent_id"`
	By    writ.SessionID `json:"session_id,omitempty"`
	Lane  writ.Lane      `json:"lane,omitempty"`
}

const testLane writ.Lane = "5/site.build/web"

func claims(agent func(*writ.Call) writ.AgentID) []*writ.Capability {
	list := writ.Refused("site.build", "web")
	run := func(id writ.TaskID) writ.RunID { return writ.RunID("run_" + string(id[4:])) }
	return []*writ.Capability{
		writ.Define[claimArgs, thingView](writ.Capability{ID: "task.claim", Summary: "Claim.", Safety: writ.SafetyMutating}, writ.Verb[claimArgs]{
			Reads: func(_ *writ.Call, a *claimArgs, _ writ.Snapshot) (rs writ.ReadSet, _ error) {
				if a.Task != "" {
					rs.Docs = []writ.Key{writ.RunKey(run(a.Task))}
				}
				return rs, nil
			},
			Plan: func(c *writ.Call, a *claimArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
				if a.Task == "" {
					poll := &writ.Poll{
						Agent: agent(c), Lanes: func(writ.Lane) bool { return true }, Refused: []writ.Index{list}, WaitMs: a.Wait * 1000, AgainMs: 400,
					}
					if len(c.Caller.Claims) > 0 {
						poll.Claims = c.Caller.Session
					}
					return tx, writ.Reply{Poll: poll}, nil
				}
				if c.Entry != nil {
					tx.Ack(*c.Entry)
				}
				if _, _, taken, _ := writ.Get[writ.Run](s, writ.RunKey(run(a.Task))); taken {
					return tx, writ.Reply{Outcome: writ.OutcomeEmpty}, nil
				}
				tx.Unindex(list, string(a.Task))
				tx.Unindex(writ.WaitingOn(c.Caller.Session), string(a.Task)+" "+string(testLane))
				tx.Move(writ.ObjectRun, string(run(a.Task)), "", string(writ.RunActive))
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: thingView{Run: run(a.Task)}}, tx.PutDoc(s, writ.RunKey(run(a.Task)), "run", writ.Run{State: writ.RunActive})
			},
		}),
		writ.Define[refuseArgs, thingView](writ.Capability{ID: "task.refuse", Summary: "Refuse.", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true}, writ.Verb[refuseArgs]{
			Plan: func(c *writ.Call, a *refuseArgs, _ writ.Snapshot, d writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
				if c.Entry != nil {
					tx.Ack(*c.Entry)
				}
				tx.Index(list, string(a.Task), 0)
				tx.Index(writ.Refusers(a.Task), writ.RefuserAs(a.Agent, a.By, d.PolicyRevision), 0)
				return tx, writ.Reply{Outcome: writ.OutcomeDone}, nil
			},
		}),
		writ.Define[refuseArgs, thingView](writ.Capability{ID: "task.reoffer", Summary: "Reoffer.", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true}, writ.Verb[refuseArgs]{
			Plan: func(_ *writ.Call, a *refuseArgs, _ writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
				tx.Unindex(list, string(a.Task))
				tx.Push(testLane, string(a.Task))
				return tx, writ.Reply{Outcome: writ.OutcomeDone}, nil
			},
		}),
	}
}

func newDispatcher(t *testing.T, tune ...func(*guard.Config)) (*world, *guard.Dispatcher) {
	t.Helper()
	w := newWorld(t, append([]func(*guard.Config){func(c *guard.Config) {
		reg, err := writ.NewRegistry(append(append(guard.Capabilities(), things()...), claims(func(c *writ.Call) writ.AgentID {
			return writ.AgentID(c.Caller.Principal)
		})...)...)
		if err != nil {
			t.Fatal(err)
		}
		c.Registry = reg
	}}, tune...)...)
	d := guard.NewDispatcher(w.door, "r-1")
	d.Start(shard)
	t.Cleanup(d.Stop)
	return w, d
}

func (w *world) push(n byte) writ.TaskID {
	w.t.Helper()
	id := writ.TaskID(writ.MakeID(writ.PrefixTask, 1_767_225_600_000, [10]byte{n}))
	call := &writ.Call{}
	if err := w.door.Stamp(call); err != nil {
		w.t.Fatal(err)
	}
	tx := writ.Tx{Call: call.ID}
	tx.Push(testLane, string(id))
	if _, err := w.store.Commit(w.t.Context(), shard, tx); err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) poll(d *guard.Dispatcher, c *writ.Credential, wait int64, key string) (writ.Reply, *writ.Receipt, error) {
	raw, err := json.Marshal(claimArgs{Wait: wait})
	if err != nil {
		return writ.Reply{}, nil, err
	}
	call := &writ.Call{Capability: "task.claim", Credential: c, Raw: raw, IdempotencyKey: key}
	if err := w.door.Stamp(call); err != nil {
		return writ.Reply{}, nil, err
	}
	return d.Do(context.Background(), call)
}

func (w *world) waiting() int64 {
	w.t.Helper()
	lanes, err := w.store.Lanes(w.t.Context(), shard)
	if err != nil {
		w.t.Fatal(err)
	}
	var n int64
	for _, l := range lanes {
		n += l.Count
	}
	return n
}

func TestPollWaitsForWork(t *testing.T) {
	w, d := newDispatcher(t)
	alice := w.session("alice")
	if reply, receipt, err := w.poll(d, alice, 0, ""); err != nil || receipt != nil || reply.Outcome != writ.OutcomeEmpty {
		t.Fatalf("an empty queue: %+v, %v", reply, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if reply, receipt, err := w.poll(d, alice, 20, ""); err != nil || receipt == nil || reply.Outcome != writ.OutcomeDone {
			t.Errorf("got %+v, %v", reply, err)
		}
	})
	for w.heard.calls.Load() < 4 { // the poll has been judged
		time.Sleep(time.Millisecond)
	}
	w.push(1)
	wg.Wait()
	if w.waiting() != 0 {
		t.Error("the entry is still in its lane")
	}
}

func TestManyPollsShareTheWork(t *testing.T) {
	w, d := newDispatcher(t)
	const n = 32
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for i := range n {
		c := w.session("worker-" + string(rune('a'+i%26)) + string(rune('a'+i/26)))
		wg.Go(func() {
			reply, receipt, err := w.poll(d, c, 20, "")
			if err != nil || receipt == nil {
				t.Errorf("got %+v, %v", reply, err)
				return
			}
			mu.Lock()
			got[string(reply.JSON)]++
			mu.Unlock()
		})
	}
	for i := range n {
		w.push(byte(i + 1))
	}
	wg.Wait()
	if len(got) != n {
		t.Errorf("%d tasks for %d workers: %v", len(got), n, got)
	}
}

func TestOnePollPerSession(t *testing.T) {
	w, d := newDispatcher(t)
	alice := w.session("alice")
	before := w.heard.calls.Load()
	var wg sync.WaitGroup
	wg.Go(func() { _, _, _ = w.poll(d, alice, 20, "") })
	for w.heard.calls.Load() == before {
		time.Sleep(time.Millisecond)
	}
	// The first poll may not be registered yet; at the latest the second try
	// meets it.
	for {
		_, receipt, err := w.poll(d, alice, 0, "")
		if writ.CodeOf(err) == writ.CodeBackpressure {
			break
		}
		if err != nil || receipt != nil {
			t.Fatalf("%v, %v", receipt, err)
		}
	}
	d.Stop()
	wg.Wait()
}

// A task refused to one agent is offered to another, without being offered to
// the first again; under new policies the first is asked again.
func TestRefusedTaskGoesToAnother(t *testing.T) {
	w, d := newDispatcher(t)
	alice, bob := w.session("alice"), w.session("bob")
	id := w.push(1)
	w.law.judge = func(in writ.PolicyInput) *writ.Finding {
		if a, ok := in.Call.Args.(*claimArgs); ok && a.Task != "" && in.Call.Caller.Principal == "alice" {
			return &writ.Finding{Rule: "p.not-alice", Effect: writ.EffectDeny, Code: "policy_denied"}
		}
		return nil
	}
	denials := func() int {
		n := 0
		for _, f := range w.facts() {
			if predicate(t, f)["outcome"] == "denial" {
				n++
			}
		}
		return n
	}
	for range 5 {
		if _, receipt, err := w.poll(d, alice, 0, ""); err != nil || receipt != nil {
			t.Fatalf("%v, %v", receipt, err)
		}
	}
	if n := denials(); n != 1 {
		t.Fatalf("alice was refused %d times", n)
	}
	w.law.mu.Lock()
	w.law.policy = "policy-2"
	w.law.mu.Unlock()
	w.gate()
	if _, receipt, err := w.poll(d, alice, 0, ""); err != nil || receipt != nil {
		t.Fatalf("%v, %v", receipt, err)
	}
	if n := denials(); n != 2 {
		t.Fatalf("under new policies alice was refused %d times in all, want 2", n)
	}
	reply, receipt, err := w.poll(d, bob, 0, "")
	if err != nil || receipt == nil {
		t.Fatalf("bob: %+v, %v", reply, err)
	}
	var v thingView
	if json.Unmarshal(reply.JSON, &v) != nil || string(v.Run[4:]) != string(id[4:]) {
		t.Fatalf("bob got %s, want %s", reply.JSON, id)
	}
}

func TestPollIsReplayedUnderItsKey(t *testing.T) {
	w, d := newDispatcher(t)
	alice := w.session("alice")
	w.push(1)
	w.push(2)
	first, a, err := w.poll(d, alice, 0, "k")
	if err != nil || a == nil {
		t.Fatal(err)
	}
	again, b, err := w.poll(d, alice, 0, "k")
	if err != nil || b == nil || a.ID != b.ID || !again.Replayed || string(first.JSON) != string(again.JSON) {
		t.Fatalf("%s replayed as %s, %v", first.JSON, again.JSON, err)
	}
	if w.waiting() != 1 {
		t.Errorf("%d entries wait, want the second", w.waiting())
	}
}

// A store that refuses must not swallow the entry.
func TestEntryIsGivenBackWhenTheCallFails(t *testing.T) {
	w, d := newDispatcher(t)
	alice := w.session("alice")
	w.push(1)
	w.law.judge = func(in writ.PolicyInput) *writ.Finding {
		w.law.failing = in.Call.Capability == "task.claim" && in.Call.Entry != nil
		return nil
	}
	if _, _, err := w.poll(d, alice, 0, ""); writ.CodeOf(err) != writ.CodePolicyDown {
		t.Fatalf("got %v", err)
	}
	if w.waiting() != 1 {
		t.Fatalf("%d entries wait", w.waiting())
	}
	w.law.judge, w.law.failing = nil, false
	if _, receipt, err := w.poll(d, alice, 0, ""); err != nil || receipt == nil {
		t.Fatal(err)
	}
}

// refusedTo has policy refuse tasks to a principal, and says of other claims what
// a test wants.
func (w *world) refusedTo(p writ.PrincipalID, tasks []writ.TaskID, others func(writ.TaskID) *writ.Finding) {
	w.law.judge = func(in writ.PolicyInput) *writ.Finding {
		w.law.failing = false
		a, ok := in.Call.Args.(*claimArgs)
		switch {
		case !ok || a.Task == "":
			return nil
		case in.Call.Caller.Principal != p:
			return others(a.Task)
		case slices.Contains(tasks, a.Task):
			return &writ.Finding{Rule: "p.not-this-one", Effect: writ.EffectDeny, Code: "policy_denied"}
		}
		return nil
	}
}

// got is the task a poll was answered with, "" for none.
func (w *world) got(d *guard.Dispatcher, c *writ.Credential) writ.TaskID {
	w.t.Helper()
	reply, receipt, err := w.poll(d, c, 0, "")
	if err != nil {
		w.t.Fatalf("the poll fails: %v", err)
	}
	if receipt == nil {
		return ""
	}
	var v thingView
	if err := json.Unmarshal(reply.JSON, &v); err != nil {
		w.t.Fatal(err)
	}
	return writ.TaskID("tsk_" + string(v.Run[4:]))
}

// A task that was set aside and cannot be judged, now or ever, keeps an agent
// neither from the tasks in its lanes nor from others that were set aside.
func TestASetAsideTaskThatFailsStandsBeforeNoOthers(t *testing.T) {
	for name, fails := range map[string]func(w *world) *writ.Finding{
		"an obligation the store cannot meet": func(*world) *writ.Finding {
			return &writ.Finding{Rule: "p.logged", Effect: writ.EffectAllow, Duties: writ.Duties{Durability: writ.DurabilityLogged}}
		},
		"a policy without an answer": func(w *world) *writ.Finding { w.law.failing = true; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			w, d := newDispatcher(t, func(c *guard.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			alice, bob := w.session("alice"), w.session("bob")
			bad, fine := w.push(1), w.push(2)
			tries := 0
			w.refusedTo("alice", []writ.TaskID{bad, fine}, func(task writ.TaskID) *writ.Finding {
				if task != bad {
					return nil
				}
				tries++
				return fails(w)
			})
			if got := w.got(d, alice); got != "" {
				t.Fatalf("alice got %s", got)
			}
			next := w.push(3)
			if got := w.got(d, bob); got != next {
				t.Errorf("bob got %q, want what lies in his lane, %s", got, next)
			}
			if got := w.got(d, bob); got != fine {
				t.Errorf("bob got %q, want the other one that was set aside, %s", got, fine)
			}
			for range 5 {
				if got := w.got(d, bob); got != "" {
					t.Errorf("bob got %q", got)
				}
			}
			if n := strings.Count(log.String(), string(bad)); tries != 1 || n != 1 {
				t.Errorf("it was judged %d times with %d lines of log, want 1 and 1:\n%s", tries, n, log.String())
			}
		})
	}
}

// failing is a store that does not commit some transactions.
type failing struct {
	store.Store
	when atomic.Pointer[func(writ.Tx) bool]
	says error // errGone when nil
}

func (f *failing) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	if when := f.when.Load(); when != nil && (*when)(tx) {
		return writ.Committed{}, cmp.Or(f.says, error(errGone))
	}
	return f.Store.Commit(ctx, shard, tx)
}

func pushes(tx writ.Tx, task writ.TaskID) bool {
	return slices.ContainsFunc(tx.Ops, func(o writ.Op) bool { return o.Kind == writ.OpPush && o.Entry == string(task) })
}

// Nor does one that cannot be offered again.
func TestATaskThatIsNotOfferedAgainStandsBeforeNoOthers(t *testing.T) {
	st := &failing{}
	w, d := newDispatcher(t, func(c *guard.Config) { st.Store, c.Store = c.Store, st })
	alice, bob := w.session("alice"), w.session("bob")
	stuck, fine := w.push(1), w.push(2)
	w.refusedTo("alice", []writ.TaskID{stuck, fine}, func(writ.TaskID) *writ.Finding { return nil })
	if got := w.got(d, alice); got != "" {
		t.Fatalf("alice got %s", got)
	}
	w.law.mu.Lock()
	w.law.policy = "policy-2" // both were refused under policies of the past
	w.law.mu.Unlock()
	w.gate()
	when := func(tx writ.Tx) bool { return pushes(tx, stuck) }
	st.when.Store(&when)
	if got := w.got(d, bob); got != fine {
		t.Errorf("bob got %q, want %s", got, fine)
	}
	next := w.push(3)
	if got := w.got(d, bob); got != next {
		t.Errorf("bob got %q, want %s", got, next)
	}
}

// Trouble that is not the task's is over for the task soon after it is over, however
// long it was. While it lasts the lanes are looked at.
func TestASetAsideTaskIsTriedSoonAfterTrouble(t *testing.T) {
	for name, trouble := range map[string]func(w *world, st *failing, c *crowded, on bool){
		"the store": func(_ *world, st *failing, _ *crowded, on bool) {
			when := func(tx writ.Tx) bool { return on && tx.Fact != nil }
			st.when.Store(&when)
		},
		"the policies": func(w *world, _ *failing, _ *crowded, on bool) {
			w.law.mu.Lock()
			defer w.law.mu.Unlock()
			w.law.judge = func(in writ.PolicyInput) *writ.Finding {
				a, ok := in.Call.Args.(*claimArgs)
				w.law.failing = on && ok && a.Task != ""
				return nil
			}
		},
		"the signer": func(w *world, _ *failing, _ *crowded, on bool) { w.seal.unusable.Store(on) },
		"too little room": func(w *world, _ *failing, c *crowded, on bool) {
			c.head.Store(nil)
			if on {
				c.head.Store(&store.Head{Trimmed: -1, Backlog: guard.MaxBacklog + 1})
			}
			if err := w.door.Watch(w.t.Context(), shard); err != nil {
				w.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st, c := &failing{}, &crowded{}
				w, d := newDispatcher(t, func(cfg *guard.Config) {
					c.Store = cfg.Store
					st.Store, cfg.Store = c, st
				})
				alice, bob := w.session("alice"), w.session("bob")
				task := w.push(1)
				w.refusedTo("alice", []writ.TaskID{task}, func(writ.TaskID) *writ.Finding { return nil })
				if got := w.got(d, alice); got != "" {
					t.Fatalf("alice got %s", got)
				}
				trouble(w, st, c, true)
				for range 60 {
					if got := w.got(d, bob); got != "" {
						t.Fatalf("bob got %s", got)
					}
					time.Sleep(time.Second)
				}
				next := w.push(2)
				if _, _, err := w.poll(d, bob, 0, ""); err == nil {
					t.Error("what lies in a lane is not looked at")
				}
				trouble(w, st, c, false)
				if got := w.got(d, bob); got != next {
					t.Errorf("bob got %q, want what lies in his lane, %s", got, next)
				}
				time.Sleep(5 * time.Second)
				if got := w.got(d, bob); got != task {
					t.Errorf("bob got %q five seconds after the trouble, want %s", got, task)
				}
			})
		})
	}
}

// However many tasks fail and however often they are tried, the others among them
// have their turn.
func TestSetAsideTasksHaveTheirTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newDispatcher(t)
		alice, bob := w.session("alice"), w.session("bob")
		var all []writ.TaskID
		for i := range byte(9) {
			all = append(all, w.push(i+1))
		}
		fine, outage := all[8], true
		w.refusedTo("alice", all, func(task writ.TaskID) *writ.Finding {
			w.law.failing = outage || task != fine
			return nil
		})
		for range 2 { // one poll is refused eight
			if got := w.got(d, alice); got != "" {
				t.Fatalf("alice got %s", got)
			}
		}
		poll := func() writ.TaskID {
			time.Sleep(time.Second)
			return w.got(d, bob)
		}
		for range 30 {
			if got := poll(); got != "" {
				t.Fatalf("bob got %s", got)
			}
		}
		outage = false
		for i := range all {
			if got := poll(); got == fine {
				return
			} else if i == len(all)-1 {
				t.Errorf("bob got %q after %d polls, want %s", got, len(all), fine)
			}
		}
	})
}

// What succeeded is not put off for longer the next time it fails.
func TestATaskThatWasOfferedAgainStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &failing{says: writ.Fault(writ.CodeInternal, "test", errors.New("a defect"))}
		w, d := newDispatcher(t, func(c *guard.Config) { st.Store, c.Store = c.Store, st })
		alice, bob := w.session("alice"), w.session("bob")
		task := w.push(1)
		w.refusedTo("alice", []writ.TaskID{task}, func(writ.TaskID) *writ.Finding { return nil })
		tries, stuck := 0, true
		when := func(tx writ.Tx) bool {
			if !pushes(tx, task) {
				return false
			}
			tries++
			return stuck
		}
		st.when.Store(&when)
		for i, waits := range []int{4, 1} { // 0, 5, 15 and 35 s; and anew
			if got := w.got(d, alice); got != "" {
				t.Fatalf("alice got %s", got)
			}
			w.law.mu.Lock()
			w.law.policy = fmt.Sprint("policy-", i+2)
			w.law.mu.Unlock()
			w.gate()
			tries, stuck = 0, true
			for tries < waits {
				if got := w.got(d, bob); got != "" {
					t.Fatalf("bob got %s", got)
				}
				time.Sleep(time.Second)
			}
			stuck = false
			start := time.Now()
			for w.waiting() == 0 {
				w.reoffered(d, bob)
				time.Sleep(time.Second)
			}
			if took := time.Since(start); i == 0 && took < 30*time.Second || i == 1 && took > 6*time.Second {
				t.Errorf("offered again %s after failure %d in round %d", took, waits, i+1)
			}
		}
	})
}

// reoffered has a poll put tasks back into their lanes, and gives back what it
// finds there.
func (w *world) reoffered(d *guard.Dispatcher, c *writ.Credential) {
	w.t.Helper()
	w.law.mu.Lock()
	judge := w.law.judge
	w.law.judge = func(in writ.PolicyInput) *writ.Finding {
		a, ok := in.Call.Args.(*claimArgs)
		w.law.failing = ok && a.Task != ""
		return nil
	}
	w.law.mu.Unlock()
	_, _, _ = w.poll(d, c, 0, "")
	w.law.mu.Lock()
	w.law.judge, w.law.failing = judge, false
	w.law.mu.Unlock()
}

// Who may not claim any more hears it, also when that shows at a task that was
// set aside.
func TestPollOfASessionThatEndsAtASetAsideTask(t *testing.T) {
	w, d := newDispatcher(t)
	alice, bob := w.session("alice"), w.session("bob")
	id := w.push(1)
	w.refusedTo("alice", []writ.TaskID{id}, func(writ.TaskID) *writ.Finding { return nil })
	if got := w.got(d, alice); got != "" {
		t.Fatalf("alice got %s", got)
	}
	var once first
	w.reads.before = func(rs writ.ReadSet) {
		if len(rs.Ranges) > 0 && strings.HasPrefix(string(rs.Ranges[0].Index), string(writ.Refusers(id))) {
			once.do(func() {
				if _, _, err := w.door.System(t.Context(), shard, "test.session", sessionArgs{ID: bob.Session, Revoke: true}, nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if _, _, err := w.poll(d, bob, 0, ""); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Fatalf("got %v", err)
	}
}

// A session that ends while its claim waits hears why.
func TestPollSaysThatTheSessionEnded(t *testing.T) {
	w, d := newDispatcher(t)
	alice := w.session("alice")
	done := make(chan error, 1)
	before := w.heard.calls.Load()
	go func() {
		_, _, err := w.poll(d, alice, 1, "")
		done <- err
	}()
	for w.heard.calls.Load() == before {
		time.Sleep(time.Millisecond)
	}
	if _, _, err := w.door.System(t.Context(), shard, "test.session", sessionArgs{ID: alice.Session, Revoke: true}, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-done; writ.CodeOf(err) != writ.CodeUnauthenticated || !strings.Contains(writ.AsError("", err).Hint, "new session") {
		t.Fatalf("got %v", err)
	}
}

// A long wait makes the call again, so that its session is seen to live.
func TestPollIsMadeAgainWhileItWaits(t *testing.T) {
	w, d := newDispatcher(t)
	alice := w.session("alice")
	before := w.heard.calls.Load()
	if reply, receipt, err := w.poll(d, alice, 2, ""); err != nil || receipt != nil || reply.Outcome != writ.OutcomeEmpty {
		t.Fatalf("got %+v, %v", reply, err)
	}
	if n := w.heard.calls.Load() - before; n < 5 {
		t.Fatalf("the call was made %d times in two seconds, every 400 ms", n)
	}
}

// What waits for what a session claims is offered to it first, the most urgent first; what
// it is refused is left alone for a moment and the lanes follow.
func TestWhatWaitsForASessionIsOfferedToIt(t *testing.T) {
	w, d := newDispatcher(t)
	owner, other := w.sessionOn("alice", "1", writ.RoleOperator, "fs:repo/"), w.session("bob")
	id := func(n byte) writ.TaskID {
		return writ.TaskID(writ.MakeID(writ.PrefixTask, 1_767_225_600_000, [10]byte{n}))
	}
	urgent, denied, later := id(1), id(2), id(3)
	tx := writ.Tx{}
	for task, score := range map[writ.TaskID]int64{urgent: 0, denied: 4, later: 9} {
		tx.Index(writ.WaitingOn(owner.Session), string(task)+" "+string(testLane), score)
	}
	if _, err := w.store.Commit(t.Context(), shard, tx); err != nil {
		t.Fatal(err)
	}
	w.refusedTo("alice", []writ.TaskID{denied}, func(writ.TaskID) *writ.Finding { return nil })
	if got := w.got(d, other); got != "" {
		t.Errorf("somebody else got %s", got)
	}
	lane := w.push(4)
	for _, want := range []writ.TaskID{urgent, lane, later, ""} { // the lane's, since what came before it was refused
		if got := w.got(d, owner); got != want {
			t.Errorf("the session got %q, want %q", got, want)
		}
	}
}

// What a session with claims is refused other sessions of its agent are not, and it is
// asked once.
func TestARefusalOfASessionWithClaimsIsItsOwn(t *testing.T) {
	w, d := newDispatcher(t)
	narrow, wide := w.sessionOn("alice", "1", writ.RoleOperator, "fs:repo/"), w.sessionAs("alice", "2", writ.RoleOperator)
	asked := 0
	w.law.judge = func(in writ.PolicyInput) *writ.Finding {
		if a, ok := in.Call.Args.(*claimArgs); ok && a.Task != "" && len(in.Call.Caller.Claims) > 0 {
			asked++
			return &writ.Finding{Rule: "p.unclaimed", Effect: writ.EffectDeny, Code: "scope_denied"}
		}
		return nil
	}
	id := w.push(1)
	for range 3 {
		if got := w.got(d, narrow); got != "" {
			t.Fatalf("it got %s", got)
		}
	}
	if got := w.got(d, wide); got != id || asked != 1 {
		t.Errorf("another session got %q, want %s; the first was asked %d times", got, id, asked)
	}
}
