package guard_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/budgets"
	"github.com/writ-gateway/writ/effects"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// actArgs ask for a test effect.
type actArgs struct {
	Run     writ.RunID `json:"run_id"`
	Up      int64      `json:"up,omitempty"`
	Timeout int64      `json:"timeout_ms,omitempty"`
	Note    string     `json:"note,omitempty"`

	Task   writ.TaskID  `json:"task_id,omitempty"` // what it is done for
	Lease  writ.LeaseID `json:"lease_id,omitempty"`
	Labels []writ.Label `json:"labels,omitempty"`
}

type actReply struct {
	Said  string `json:"said"`
	Token string `json:"token,omitempty" writ:"secret"`
}

// actor carries out test effects; what it does is set by the test.
type actor struct {
	mu  sync.Mutex
	do  func(context.Context, *writ.Acting) (writ.Reply, error)
	did []writ.EffectID
}

func (a *actor) Act(ctx context.Context, x *writ.Acting) (writ.Reply, error) {
	a.mu.Lock()
	a.did = append(a.did, x.Effect)
	do := a.do
	a.mu.Unlock()
	return do(ctx, x)
}

func (a *actor) times() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.did)
}

func (a *actor) set(do func(context.Context, *writ.Acting) (writ.Reply, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.do = do
}

func says(text string) func(context.Context, *writ.Acting) (writ.Reply, error) {
	return func(_ context.Context, x *writ.Acting) (writ.Reply, error) {
		_, err := io.Copy(io.Discard, x.Meter.Up(strings.NewReader(text)))
		return writ.Reply{Body: actReply{Said: text}}, err
	}
}

// While a test effect runs it holds this document to be as it was.
const standing writ.AgentID = "standing"

// lendArgs lease a task to a session, as a claim does; no lease takes it back.
type lendArgs struct {
	Task    writ.TaskID    `json:"task_id"`
	Session writ.SessionID `json:"session_id"`
	Lease   writ.LeaseID   `json:"lease_id,omitempty"`
	Ends    int64          `json:"ends,omitempty"`
	Labels  []writ.Label   `json:"labels,omitempty"`
	Parked  bool           `json:"parked"`
}

func lend() *writ.Capability {
	return writ.Define[lendArgs, thingView](writ.Capability{ID: "test.lend", Summary: "Lease a task.", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true}, writ.Verb[lendArgs]{
		Reads: func(_ *writ.Call, a *lendArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.TaskKey(a.Task), writ.GivenKey(a.Session)}, Counters: []writ.Counter{writ.TaskLease(a.Task)}}, nil
		},
		Plan: func(_ *writ.Call, a *lendArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			task := writ.Task{ID: a.Task, State: writ.TaskQueued}
			was := writ.TaskQueued
			if a.Lease != "" {
				task.State, task.Lease = writ.TaskRunning, &writ.Lease{ID: a.Lease, Session: a.Session}
			}
			if a.Parked {
				was, task.State = writ.TaskRunning, writ.TaskParked
			}
			tx.Move(writ.ObjectTask, string(a.Task), string(was), string(task.State))
			tx.Add(writ.TaskLease(a.Task), a.Ends-s.Counters[writ.TaskLease(a.Task)])
			if err := tx.Give(s, a.Session, a.Labels); err != nil {
				return tx, r, err
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone}, tx.PutDoc(s, writ.TaskKey(a.Task), writ.ObjectTask, task)
		},
	})
}

// acts are capabilities with effects, and one that makes a run with a budget.
func acts() []*writ.Capability {
	act := func(id writ.CapabilityID, idempotent bool) *writ.Capability {
		return writ.Define[actArgs, actReply](writ.Capability{
			ID: id, Summary: "Act.", Safety: writ.SafetyMutating, Class: writ.Effectful, Effects: []string{"test"}, Idempotent: idempotent,
		}, writ.Verb[actArgs]{
			Locks: func(_ *writ.Call, a *actArgs) []writ.Key { return []writ.Key{writ.RunKey(a.Run)} },
			Reads: func(_ *writ.Call, a *actArgs, _ writ.Snapshot) (writ.ReadSet, error) {
				return writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.Run), writ.AgentKey(standing)}}, nil
			},
			Describe: func(_ *writ.Call, a *actArgs, _ writ.Snapshot) (writ.Subject, error) {
				return writ.Subject{Run: &writ.RunFacts{ID: a.Run, State: writ.RunActive}, Charge: writ.Charge{writ.BudgetEgress: a.Up}}, nil
			},
			Plan: func(_ *writ.Call, a *actArgs, _ writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
				return writ.Tx{}, writ.Reply{Errand: &writ.Errand{
					TimeoutMs: a.Timeout, While: []writ.Key{writ.AgentKey(standing)}, Detail: a.Note, Task: a.Task, Lease: a.Lease, Labels: a.Labels,
					Secrets: []writ.SecretUse{{ID: "sec_01ARYZ6S410000000000000000", Version: 3}},
				}}, nil
			},
		})
	}
	return []*writ.Capability{
		act("test.act", false), act("test.again", true), lend(),
		writ.Define[writ.Agent, thingView](writ.Capability{ID: "test.halt", Summary: "Suspend an agent.", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true}, writ.Verb[writ.Agent]{
			Reads: func(_ *writ.Call, a *writ.Agent, _ writ.Snapshot) (writ.ReadSet, error) {
				return writ.ReadSet{Docs: []writ.Key{writ.AgentKey(a.ID)}}, nil
			},
			Plan: func(_ *writ.Call, a *writ.Agent, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
				is, _, _, err := writ.Get[writ.Agent](s, writ.AgentKey(a.ID))
				if err != nil {
					return tx, r, err
				}
				tx.Move(writ.ObjectAgent, string(a.ID), string(writ.AgentActive), string(writ.AgentSuspended))
				is.State = writ.AgentSuspended
				return tx, writ.Reply{Outcome: writ.OutcomeDone}, tx.PutDoc(s, writ.AgentKey(a.ID), "agent", is)
			},
		}),
		writ.Define[thingArgs, thingView](writ.Capability{ID: "test.budgeted", Summary: "Make a run.", Safety: writ.SafetyMutating}, writ.Verb[thingArgs]{
			Reads: func(_ *writ.Call, a *thingArgs, _ writ.Snapshot) (writ.ReadSet, error) {
				return writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.Run)}}, nil
			},
			Plan: func(c *writ.Call, a *thingArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
				run := writ.Run{ID: a.Run, State: writ.RunActive, Budget: map[string]int64{writ.BudgetEgress: 1000}, CreatedAt: s.Now, Receipt: writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))}
				tx.Move(writ.ObjectRun, string(a.Run), "", string(writ.RunActive))
				return tx, writ.Reply{Outcome: writ.OutcomeDone}, tx.PutDoc(s, writ.RunKey(a.Run), "run", run)
			},
		}),
	}
}

// stage is a world in which calls have effects.
type stage struct {
	*world
	actor *actor
}

// stageOn puts a stage on a store. Its replica looks after its effects only when a
// commit of its own asks for it, unless tune says otherwise.
func stageOn(t testing.TB, st store.Store, now *atomic.Int64, tune ...func(*guard.Config)) *stage {
	t.Helper()
	a := &actor{do: says("hello")}
	reg, err := writ.NewRegistry(append(append(append(guard.Capabilities(), things()...), acts()...), effects.Capabilities()...)...)
	if err != nil {
		t.Fatal(err)
	}
	first := func(c *guard.Config) {
		c.Registry, c.Obligors = reg, []guard.Obligor{budgets.New()}
		c.Effectors = map[writ.CapabilityID]guard.Effector{"test.act": a, "test.again": a}
		c.EffectWatch, c.EffectLease = time.Hour, 300*time.Millisecond
		c.Archive, c.DenialBurst = noArchive{}, 1000
	}
	return &stage{worldOn(t, st, now, append([]func(*guard.Config){first}, tune...)...), a}
}

// onStages runs a test on both stores. open makes another replica's stage on the same one.
func onStages(t *testing.T, f func(t *testing.T, open func(...func(*guard.Config)) *stage)) {
	t.Run("bolt", func(t *testing.T) {
		st, err := boltstore.Open(filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		now := &atomic.Int64{}
		now.Store(time.Now().UnixMilli())
		f(t, func(tune ...func(*guard.Config)) *stage { return stageOn(t, kept{st}, now, tune...) })
	})
	t.Run("redis", func(t *testing.T) {
		url := redistest.Start(t).URL()
		now := &atomic.Int64{}
		now.Store(time.Now().UnixMilli())
		f(t, func(tune ...func(*guard.Config)) *stage {
			st, err := redisstore.Open(t.Context(), redisstore.Options{URL: url})
			if err != nil {
				t.Fatal(err)
			}
			return stageOn(t, st, now, tune...)
		})
	})
}

// kept is a store several replicas of a test share: it is not closed by the first.
type kept struct{ store.Store }

func (kept) Close() error { return nil }

func (s *stage) run(n byte) writ.RunID {
	s.t.Helper()
	if _, _, err := s.door.System(s.t.Context(), shard, "test.budgeted", thingArgs{Run: runID(n)}, nil); err != nil {
		s.t.Fatal(err)
	}
	return runID(n)
}

func (s *stage) counter(c writ.Counter) int64 {
	s.t.Helper()
	snap, err := s.store.Read(s.t.Context(), shard, writ.ReadSet{Counters: []writ.Counter{c}})
	if err != nil {
		s.t.Fatal(err)
	}
	return snap.Counters[c]
}

// budget checks what a run has used and what is held of it.
func (s *stage) budget(run writ.RunID, used, held, under int64) {
	s.t.Helper()
	u, h, n := s.counter(writ.BudgetUsed(run, writ.BudgetEgress)), s.counter(writ.BudgetHeld(run, writ.BudgetEgress)), s.counter(writ.RunEffects(run))
	if u != used || h != held || n != under {
		s.t.Fatalf("used %d, held %d, under way %d, want %d, %d, %d", u, h, n, used, held, under)
	}
}

func (s *stage) intent(id writ.EffectID) (i writ.Intent) {
	s.t.Helper()
	snap, err := s.store.Read(s.t.Context(), shard, writ.ReadSet{Docs: []writ.Key{writ.IntentKey(id)}})
	if err != nil {
		s.t.Fatal(err)
	}
	if i, _, _, err = writ.Get[writ.Intent](snap, writ.IntentKey(id)); err != nil {
		s.t.Fatal(err)
	}
	return i
}

// expire has the sweeper's call made until nobody knows what became of an effect.
func (s *stage) expire(id writ.EffectID) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, _, err := s.door.System(s.t.Context(), shard, "effect.expire", effects.EffectArgs{ID: id}, nil); err != nil {
			s.t.Fatal(err)
		}
		if i := s.intent(id); i.State == writ.IntentUnknown || i.Late { // its replica may have been told by now
			return
		}
	}
	s.t.Fatalf("the effect is %+v", s.intent(id))
}

// effectFacts are the receipts of effects: move, and what is said of it.
func (s *stage) effectFacts() (out []string) {
	s.t.Helper()
	for _, f := range s.facts() {
		p := predicate(s.t, f)
		e, ok := p["effect"]
		if !ok {
			continue
		}
		said, _ := json.Marshal(e)
		for _, c := range p["changes"].([]any) {
			if m := c.(map[string]any); m["kind"] == writ.ObjectEffect {
				out = append(out, fmt.Sprintf("%s %s→%s %s", p["transition"], m["from"], m["to"], said))
			}
		}
	}
	return out
}

// hanging makes effects wait until they are told to go on, or to the end of their context.
func (s *stage) hanging() (began chan *writ.Acting, goOn chan error) {
	began, goOn = make(chan *writ.Acting, 16), make(chan error)
	s.actor.set(func(ctx context.Context, x *writ.Acting) (writ.Reply, error) {
		began <- x
		select {
		case err := <-goOn:
			return writ.Reply{Body: actReply{Said: "late"}}, err
		case <-ctx.Done():
			return writ.Reply{}, ctx.Err()
		}
	})
	return began, goOn
}

type answered struct {
	reply   writ.Reply
	receipt *writ.Receipt
	err     error
}

func (s *stage) callAside(c *writ.Credential, id writ.CapabilityID, args any, key string) chan answered {
	out := make(chan answered, 1)
	go func() {
		r, rec, err := s.call(c, id, args, key)
		out <- answered{r, rec, err}
	}()
	return out
}

func TestAnEffect(t *testing.T) {
	onStages(t, func(t *testing.T, open func(...func(*guard.Config)) *stage) {
		s := open()
		alice, run := s.session("alice"), s.run(1)
		var seen *writ.Acting
		s.actor.set(func(ctx context.Context, x *writ.Acting) (writ.Reply, error) {
			seen = x
			if writ.ActingIn(ctx) != x || !x.MayUse(writ.SecretUse{ID: "sec_01ARYZ6S410000000000000000", Version: 3}) || x.MayUse(writ.SecretUse{ID: "sec_01ARYZ6S410000000000000000", Version: 2}) {
				t.Error("the effect is not told what it may use")
			}
			s.budget(run, 100, 100, 1) // committed before anything is done
			if i := s.intent(x.Effect); i.State != writ.IntentUnderWay || i.Session != alice.Session || i.Receipt != x.Intent {
				t.Errorf("intended: %+v", i)
			}
			// No lock is held meanwhile.
			if _, _, err := s.call(alice, "test.bump", thingArgs{Run: run}, ""); err != nil {
				t.Error(err)
			}
			return says("hello")(ctx, x)
		})
		reply, receipt, err := s.call(alice, "test.act", actArgs{Run: run, Up: 100, Note: "n"}, "k")
		if err != nil || receipt == nil || string(reply.JSON) != `{"said":"hello"}` || reply.Effect != seen.Effect || reply.Intent != seen.Intent || seen.Detail != "n" {
			t.Fatalf("got %s, %+v, %v", reply.JSON, receipt, err)
		}
		s.budget(run, 5, 0, 0)
		i := s.intent(seen.Effect)
		if i.State != writ.IntentOK || i.Settled[writ.BudgetEgress] != 5 || i.Receipt != receipt.ID || i.Late {
			t.Errorf("settled: %+v", i)
		}
		want := []string{
			`test.act →intended {"attempt":1,"held":{"net_egress_bytes":100},"secrets":[{"id":"sec_01ARYZ6S410000000000000000","version":3}]}`,
			`effect.settle intended→ok {"attempt":1,"settled":{"net_egress_bytes":5}}`,
		}
		if got := s.effectFacts(); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("receipts:\n%s", strings.Join(got, "\n"))
		}
		facts := s.facts()
		p := predicate(t, facts[len(facts)-1])
		if got := fmt.Sprintln(p["budget"], p["parents"], p["run"]); got != fmt.Sprintf("map[net_egress_bytes:-95] [%s] %s\n", seen.Intent, run) {
			t.Errorf("outcome: %s", got)
		}

		again, receipt2, err := s.call(alice, "test.act", actArgs{Run: run, Up: 100, Note: "n"}, "k")
		if err != nil || !again.Replayed || string(again.JSON) != string(reply.JSON) || receipt2.ID != receipt.ID || receipt2.Seq != receipt.Seq || s.actor.times() != 1 {
			t.Fatalf("again: %s, %+v, %v, %d times", again.JSON, receipt2, err, s.actor.times())
		}
		if _, _, err := s.call(alice, "test.act", actArgs{Run: run, Up: 101, Note: "n"}, "k"); writ.CodeOf(err) != writ.CodeIdempotency {
			t.Errorf("another request: %v", err)
		}
	})
}

// What failed is said to have failed, to who asks again too, and what it came to is charged.
func TestAnEffectThatFails(t *testing.T) {
	onStages(t, func(t *testing.T, open func(...func(*guard.Config)) *stage) {
		s := open()
		alice, run := s.session("alice"), s.run(1)
		for n, tt := range []struct {
			name  string
			do    func(context.Context, *writ.Acting) (writ.Reply, error)
			code  writ.Code
			again writ.Code
			state writ.IntentState
		}{
			{"an error", func(context.Context, *writ.Acting) (writ.Reply, error) {
				return writ.Reply{}, errors.New("the far side's words")
			}, writ.CodeEffectFailed, writ.CodeEffectFailed, writ.IntentError},
			{"a refusal", func(context.Context, *writ.Acting) (writ.Reply, error) {
				return writ.Reply{}, writ.Refuse(writ.CodeEgress, "test", "not there", "")
			}, writ.CodeEgress, writ.CodeEgress, writ.IntentError},
			{"more than was reserved", func(_ context.Context, x *writ.Acting) (writ.Reply, error) {
				n, err := io.Copy(io.Discard, x.Meter.Up(bytes.NewReader(make([]byte, 500))))
				if n != 10 {
					t.Errorf("%d bytes were sent", n)
				}
				return writ.Reply{}, err
			}, writ.CodeBudget, writ.CodeBudget, writ.IntentError},
			{"nobody can tell", func(context.Context, *writ.Acting) (writ.Reply, error) {
				return writ.Reply{}, writ.Refuse(writ.CodeEffectUnknown, "test", "?", "")
			}, writ.CodeEffectUnknown, writ.CodeEffectUnknown, writ.IntentUnknown},
			{"no way to pass the answer on", func(context.Context, *writ.Acting) (writ.Reply, error) {
				return writ.Reply{}, &writ.Happened{Err: writ.Refuse(writ.CodeTooLarge, "test", "much", "")}
			}, writ.CodeTooLarge, writ.CodeTokenIssued, writ.IntentOK},
			{"an answer broken off", func(context.Context, *writ.Acting) (writ.Reply, error) {
				return writ.Reply{}, &writ.Happened{Err: errors.New("the far side's words")}
			}, writ.CodeEffectFailed, writ.CodeTokenIssued, writ.IntentOK},
			{"a panic", func(context.Context, *writ.Acting) (writ.Reply, error) { panic("oh") }, writ.CodeEffectUnknown, writ.CodeEffectUnknown, writ.IntentUnknown},
		} {
			t.Run(tt.name, func(t *testing.T) {
				s.actor.set(tt.do)
				key := fmt.Sprint("key ", n)
				_, _, err := s.call(alice, "test.act", actArgs{Run: run, Up: 10}, key)
				e := writ.AsError("", err)
				if e.Code != tt.code || e.Receipt == "" || strings.Contains(e.Msg+e.Hint, "words") {
					t.Fatalf("got %v, receipt %q", err, e.Receipt)
				}
				i := s.intent(writ.EffectID(e.Details["effect"]))
				if i.State != tt.state || i.Code != tt.code || i.SettledAt == 0 || i.Receipt != e.Receipt {
					t.Errorf("%+v", i)
				}
				before := s.actor.times()
				_, _, err = s.call(alice, "test.act", actArgs{Run: run, Up: 10}, key)
				if e2 := writ.AsError("", err); e2.Code != tt.again || e2.Receipt != e.Receipt || s.actor.times() != before {
					t.Errorf("again: %v", err)
				}
			})
		}
		s.budget(run, 11, 0, 0) // ten, and the one that was too much
	})
}

// Of callers with one key one has the effect; the others are told that it is under way,
// on another replica too, and get its reply once there is one.
func TestOneKeyOneEffect(t *testing.T) {
	onStages(t, func(t *testing.T, open func(...func(*guard.Config)) *stage) {
		s, other := open(), open()
		alice, run := s.session("alice"), s.run(1)
		began, goOn := s.hanging()
		other.actor.set(func(context.Context, *writ.Acting) (writ.Reply, error) { t.Error("twice"); return writ.Reply{}, nil })
		first := s.callAside(alice, "test.again", actArgs{Run: run, Up: 1}, "k")
		x := <-began
		for _, w := range []*stage{s, other} {
			_, _, err := w.call(alice, "test.again", actArgs{Run: run, Up: 1}, "k")
			if e := writ.AsError("", err); e.Code != writ.CodeInFlight || e.RetryMs == 0 || e.Details["effect"] != string(x.Effect) {
				t.Fatalf("got %v", err)
			}
		}
		goOn <- nil
		if got := <-first; got.err != nil {
			t.Fatal(got.err)
		}
		for _, w := range []*stage{s, other} {
			reply, _, err := w.call(alice, "test.again", actArgs{Run: run, Up: 1}, "k")
			if err != nil || !reply.Replayed || string(reply.JSON) != `{"said":"late"}` {
				t.Fatalf("got %s, %v", reply.JSON, err)
			}
		}
	})
}

// Twenty at once, ten on each replica.
func TestOneKeyOneEffectInARace(t *testing.T) {
	onStages(t, func(t *testing.T, open func(...func(*guard.Config)) *stage) {
		stages := []*stage{open(), open()}
		alice, run := stages[0].session("alice"), stages[0].run(1)
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				_, _, err := stages[n%2].call(alice, "test.act", actArgs{Run: run, Up: 10}, "k")
				if c := writ.CodeOf(err); c != "" && c != writ.CodeInFlight {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := stages[0].actor.times() + stages[1].actor.times(); n != 1 {
			t.Errorf("done %d times", n)
		}
		stages[0].budget(run, 5, 0, 0)
	})
}

// An effect ends with what it rests on.
func TestEffectsAreStopped(t *testing.T) {
	onStages(t, func(t *testing.T, open func(...func(*guard.Config)) *stage) {
		n := byte(0)
		for name, stop := range map[string]func(s, other *stage, who doing, run writ.RunID){
			"session": func(_, other *stage, who doing, _ writ.RunID) {
				other.system("test.session", sessionArgs{ID: who.cred.Session, Revoke: true})
			},
			"agent": func(_, other *stage, who doing, _ writ.RunID) {
				other.system("test.halt", writ.Agent{ID: who.agent})
			},
			"run": func(_, other *stage, _ doing, run writ.RunID) {
				other.system("test.finish-anyway", thingArgs{Run: run})
			},
			"changed": func(_, other *stage, _ doing, _ writ.RunID) {
				other.system("test.agent", writ.Agent{ID: standing})
			},
			"role": func(s, _ *stage, _ doing, _ writ.RunID) {
				s.law.mu.Lock()
				defer s.law.mu.Unlock()
				s.law.forbid["test.act"] = true
			},
			"timeout": nil,
			"caller":  nil,
		} {
			t.Run(name, func(t *testing.T) {
				n++
				s := open(func(c *guard.Config) { c.EffectWatch, c.EffectLease = time.Millisecond, 30*time.Second })
				other := open()
				doer := writ.AgentID(fmt.Sprintf("doer-%c", 'a'+n))
				s.system("test.agent", writ.Agent{ID: doer})
				s.system("test.agent", writ.Agent{ID: standing})
				who := s.sessionOf(doer, "1")
				run := s.run(100 + n)
				began, _ := s.hanging()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				args := actArgs{Run: run, Up: 10}
				if name == "timeout" {
					args.Timeout = 1
				}
				done := make(chan error, 1)
				go func() {
					raw, _ := json.Marshal(args)
					call := &writ.Call{Capability: "test.act", Credential: who, Raw: raw, IdempotencyKey: "k" + name}
					if err := s.door.Stamp(call); err != nil {
						t.Error(err)
					}
					_, _, err := s.door.Do(ctx, call)
					done <- err
				}()
				x := <-began
				switch {
				case name == "caller":
					cancel()
				case stop != nil:
					stop(s, other, doing{who, doer}, run)
				}
				e := writ.AsError("", <-done)
				if e.Code != writ.CodeEffectStopped || e.Details["reason"] != name || e.Receipt == "" {
					t.Fatalf("got %v, %v", e, e.Details)
				}
				if i := s.intent(x.Effect); i.State != writ.IntentError || i.Code != writ.CodeEffectStopped {
					t.Errorf("%+v", i)
				}
				s.budget(run, 0, 0, 0)
				s.law.mu.Lock()
				clear(s.law.forbid)
				s.law.mu.Unlock()
			})
		}
	})
}

// doing is who has an effect.
type doing struct {
	cred  *writ.Credential
	agent writ.AgentID
}

// An effect ends with the work it is done for: when its task is held no more, or by
// another lease, or not in time, and when its session is given data of a kind that nobody
// judged it for. That the session is given more of what it carries anyway ends nothing.
func TestEffectsEndWithTheirWork(t *testing.T) {
	onStages(t, func(t *testing.T, open func(...func(*guard.Config)) *stage) {
		n := byte(0)
		id := func(prefix string, n byte) string { return writ.MakeID(prefix, 1_767_225_600_000, [10]byte{n}) }
		for _, tt := range []struct {
			name, reason string
			then         func(lendArgs) lendArgs
		}{
			{"given back", "task", func(a lendArgs) lendArgs { a.Lease, a.Ends = "", 0; return a }},
			{"leased anew", "task", func(a lendArgs) lendArgs { a.Lease = writ.LeaseID(id(writ.PrefixLease, 200)); return a }},
			{"out of time", "task", func(a lendArgs) lendArgs { a.Ends = 1; return a }},
			{"people are asked", "", func(a lendArgs) lendArgs { a.Parked, a.Ends = true, 0; return a }},
			{"other data", "labels", func(a lendArgs) lendArgs {
				a.Task, a.Labels = writ.TaskID(id(writ.PrefixTask, 100+n)), []writ.Label{writ.LabelPIIAttachment}
				return a
			}},
			{"the same data", "", func(a lendArgs) lendArgs {
				a.Task, a.Labels = writ.TaskID(id(writ.PrefixTask, 100+n)), []writ.Label{writ.LabelPublic}
				return a
			}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				n++
				s := open(func(c *guard.Config) { c.EffectWatch, c.EffectLease = time.Millisecond, 30*time.Second })
				other := open()
				doer := writ.AgentID(fmt.Sprintf("doer-%c", 'a'+n))
				s.system("test.agent", writ.Agent{ID: doer})
				s.system("test.agent", writ.Agent{ID: standing})
				who, run := s.sessionOf(doer, "1"), s.run(100+n)
				lent := lendArgs{
					Task: writ.TaskID(id(writ.PrefixTask, n)), Session: who.Session, Lease: writ.LeaseID(id(writ.PrefixLease, n)), Ends: 4_000_000_000_000,
					Labels: []writ.Label{writ.LabelInternalSystem},
				}
				s.system("test.lend", lent)
				began, goOn := s.hanging()
				args := actArgs{Run: run, Up: 10, Task: lent.Task, Lease: lent.Lease, Labels: []writ.Label{writ.LabelInternalSystem, writ.LabelPublic}}
				answer := s.callAside(who, "test.act", args, "k"+tt.name)
				x := <-began
				other.system("test.lend", tt.then(lent))
				if tt.reason == "" {
					time.Sleep(20 * time.Millisecond) // some looks
					goOn <- nil
					if got := <-answer; got.err != nil {
						t.Fatal(got.err)
					}
					return
				}
				got := <-answer
				e := writ.AsError("", got.err)
				if e.Code != writ.CodeEffectStopped || e.Details["reason"] != tt.reason || e.Receipt == "" {
					t.Fatalf("got %v, %v", e, e.Details)
				}
				if i := s.intent(x.Effect); i.State != writ.IntentError || i.Code != writ.CodeEffectStopped {
					t.Errorf("%+v", i)
				}
			})
		}
	})
}

func (s *stage) system(id writ.CapabilityID, args any) {
	s.t.Helper()
	if _, _, err := s.door.System(s.t.Context(), shard, id, args, nil); err != nil {
		s.t.Fatal(err)
	}
}

// sessionOf is a session of an agent.
func (s *stage) sessionOf(agent writ.AgentID, n string) *writ.Credential {
	s.t.Helper()
	id := writ.SessionID(writ.MakeID(writ.PrefixSession, s.now.Load(), [10]byte([]byte((string(agent[5:]) + n + "__________")[:10]))))
	hash := sha256.Sum256([]byte("secret"))
	s.system("test.session", sessionArgs{ID: id, Hash: hex.EncodeToString(hash[:]), Principal: writ.PrincipalID(agent), Role: writ.RoleExecutor, Agent: agent})
	return &writ.Credential{Tenant: shard, Session: id, SecretHash: hash}
}
