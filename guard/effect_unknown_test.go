package guard_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/effects"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// unknown leaves an effect unknown while its replica still carries it out.
func unknown(t *testing.T, s, other *stage, who *writ.Credential, id writ.CapabilityID, run writ.RunID) (x *writ.Acting, goOn chan error, answer chan answered) {
	t.Helper()
	began := make(chan *writ.Acting, 1)
	goOn = make(chan error)
	s.actor.set(func(_ context.Context, x *writ.Acting) (writ.Reply, error) {
		x.Meter.Add(writ.BudgetEgress, 70)
		began <- x
		return writ.Reply{Body: actReply{Said: "late"}}, <-goOn // whatever its context says
	})
	answer = s.callAside(who, id, actArgs{Run: run, Up: 50}, "k")
	x = <-began
	other.expire(x.Effect)
	other.budget(run, 50, 0, 0) // stays charged, and is waited for by nobody
	return x, goOn, answer
}

// What is said late holds, and is charged once: what it came to, which is more than was held.
func TestALateOutcome(t *testing.T) {
	onStages(t, func(t *testing.T, open func(...func(*guard.Config)) *stage) {
		s, other := open(), open()
		alice, run := s.session("alice"), s.run(1)
		x, goOn, answer := unknown(t, s, other, alice, "test.act", run)
		if _, _, err := other.call(alice, "test.act", actArgs{Run: run, Up: 50}, "k"); writ.CodeOf(err) != writ.CodeEffectUnknown {
			t.Fatalf("while it is unknown: %v", err)
		}
		goOn <- nil
		got := <-answer
		if got.err != nil || string(got.reply.JSON) != `{"said":"late"}` {
			t.Fatalf("got %s, %v", got.reply.JSON, got.err)
		}
		if i := s.intent(x.Effect); i.State != writ.IntentOK || !i.Late || i.Receipt != got.receipt.ID {
			t.Errorf("%+v", i)
		}
		s.budget(run, 70, 0, 0)
		want := `effect.settle unknown→ok {"attempt":1,"late":true,"settled":{"net_egress_bytes":70}}`
		if f := s.effectFacts(); len(f) != 3 || f[1] != `effect.expire intended→unknown {"attempt":1}` || f[2] != want {
			t.Errorf("receipts:\n%s", strings.Join(f, "\n"))
		}
		if reply, _, err := other.call(alice, "test.act", actArgs{Run: run, Up: 50}, "k"); err != nil || !reply.Replayed {
			t.Errorf("again: %v", err)
		}
	})
}

// An idempotent effect is attempted again under the same key; what the first attempt says
// after that is not taken.
func TestAnotherAttempt(t *testing.T) {
	onStages(t, func(t *testing.T, open func(...func(*guard.Config)) *stage) {
		s, other := open(), open()
		alice, run := s.session("alice"), s.run(1)
		x, goOn, answer := unknown(t, s, other, alice, "test.again", run)
		reply, _, err := other.call(alice, "test.again", actArgs{Run: run, Up: 50}, "k")
		if err != nil || reply.Replayed || reply.Effect != x.Effect || string(reply.JSON) != `{"said":"hello"}` {
			t.Fatalf("got %s, %v", reply.JSON, err)
		}
		other.budget(run, 55, 0, 0)
		goOn <- nil
		if got := <-answer; writ.CodeOf(got.err) != writ.CodeEffectStopped {
			t.Errorf("the first attempt: %v", got.err)
		}
		other.budget(run, 55, 0, 0)
		if i := s.intent(x.Effect); i.Attempt != 2 || i.State != writ.IntentOK || i.Late || i.Settled[writ.BudgetEgress] != 5 {
			t.Errorf("%+v", i)
		}
	})
}

// What is unknown and not idempotent waits for a person.
func TestAPersonSays(t *testing.T) {
	onStages(t, func(t *testing.T, open func(...func(*guard.Config)) *stage) {
		for n, as := range []effects.Found{effects.FoundOK, effects.FoundError, effects.FoundRepeat} {
			t.Run(string(as), func(t *testing.T) {
				s, other := open(), open()
				alice, run := s.session(fmt.Sprint("alice", n)), s.run(byte(10+n))
				x, goOn, answer := unknown(t, s, other, alice, "test.act", run)
				list, _, err := s.call(alice, "effect.list", effects.EffectListArgs{State: writ.IntentUnknown, Limit: 10}, "")
				if err != nil || !strings.Contains(string(list.JSON), string(x.Effect)) {
					t.Fatalf("%s, %v", list.JSON, err)
				}
				if _, _, err := other.call(alice, "effect.resolve", effects.EffectResolveArgs{ID: x.Effect, As: as}, ""); err != nil {
					t.Fatal(err)
				}
				if _, _, err := other.call(alice, "effect.resolve", effects.EffectResolveArgs{ID: x.Effect, As: as}, ""); writ.CodeOf(err) != writ.CodeIllegal {
					t.Errorf("twice: %v", err)
				}
				_, _, err = other.call(alice, "test.act", actArgs{Run: run, Up: 50}, "k")
				want := map[effects.Found]writ.Code{effects.FoundOK: writ.CodeTokenIssued, effects.FoundError: writ.CodeEffectFailed, effects.FoundRepeat: ""}[as]
				if writ.CodeOf(err) != want {
					t.Errorf("asked again: %v", err)
				}
				goOn <- nil
				if got := <-answer; writ.CodeOf(got.err) != writ.CodeEffectStopped {
					t.Errorf("what comes after a person has said: %v", got.err)
				}
				used := int64(50)
				if as == effects.FoundRepeat {
					used += 5
				}
				s.budget(run, used, 0, 0)
			})
		}
	})
}

// As long as its replica renews the lease an effect is under way, whoever looks.
func TestLeasesOfEffectsAreRenewed(t *testing.T) {
	onStages(t, func(t *testing.T, open func(...func(*guard.Config)) *stage) {
		s := open(func(c *guard.Config) { c.EffectWatch, c.EffectLease = time.Millisecond, 3*time.Second })
		s.actor.set(func(ctx context.Context, x *writ.Acting) (writ.Reply, error) {
			first := s.counter(writ.EffectLease(x.Effect))
			for s.counter(writ.EffectLease(x.Effect)) == first {
				if ctx.Err() != nil {
					return writ.Reply{}, context.Cause(ctx)
				}
				s.now.Add(1)
			}
			return writ.Reply{Body: actReply{}}, nil
		})
		alice, run := s.session("alice"), s.run(1)
		if _, _, err := s.call(alice, "test.act", actArgs{Run: run}, "k"); err != nil {
			t.Fatal(err)
		}
	})
}

// A replica that is told that its effect is unknown by now stops it.
func TestAReplicaThatIsLateStops(t *testing.T) {
	now := &atomic.Int64{}
	now.Store(1_767_225_600_000)
	st, err := boltstore.Open(filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{NoSync: true, Now: now.Load})
	if err != nil {
		t.Fatal(err)
	}
	s := stageOn(t, kept{st}, now, func(c *guard.Config) { c.EffectWatch, c.EffectLease = time.Millisecond, 30*time.Second })
	other := stageOn(t, st, now)
	alice, run := s.session("alice"), s.run(1)
	began, _ := s.hanging()
	answer := s.callAside(alice, "test.act", actArgs{Run: run, Up: 10}, "k")
	x := <-began
	now.Add(30_000)
	other.system("effect.expire", effects.EffectArgs{ID: x.Effect})
	if i := s.intent(x.Effect); i.State != writ.IntentUnderWay {
		t.Fatalf("while it is leased: %+v", i)
	}
	now.Add(1)
	other.expire(x.Effect)
	got := <-answer
	if e := writ.AsError("", got.err); e.Code != writ.CodeEffectStopped || e.Details["reason"] != "lease" {
		t.Fatalf("got %v", got.err)
	}
	if i := s.intent(x.Effect); i.State != writ.IntentError || !i.Late {
		t.Errorf("%+v", i)
	}
	s.budget(run, 0, 0, 0)
}

// deaf is a store that does not answer when it is told so.
type deaf struct {
	store.Store
	down atomic.Bool
}

var errDeaf = errors.New("no answer")

func (d *deaf) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	if d.down.Load() {
		return writ.Committed{}, errDeaf
	}
	return d.Store.Commit(ctx, shard, tx)
}

func (d *deaf) Read(ctx context.Context, shard writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error) {
	if d.down.Load() {
		return writ.Snapshot{}, errDeaf
	}
	return d.Store.Read(ctx, shard, rs)
}

// A replica whose lease has ended by its own clock stops, without being told; what became
// of the effect is said when the store answers again.
func TestAReplicaThatIsCutOffStops(t *testing.T) {
	d := &deaf{}
	st, err := boltstore.Open(filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	s := stageOn(t, st, &atomic.Int64{}, func(c *guard.Config) {
		d.Store, c.Store = c.Store, d
		c.EffectWatch, c.EffectLease = time.Millisecond, 50*time.Millisecond
	})
	alice, run := s.session("alice"), s.run(1)
	s.actor.set(func(ctx context.Context, _ *writ.Acting) (writ.Reply, error) {
		d.down.Store(true)
		<-ctx.Done()
		d.down.Store(false)
		return writ.Reply{}, ctx.Err()
	})
	_, _, err = s.call(alice, "test.act", actArgs{Run: run, Up: 10}, "k")
	if e := writ.AsError("", err); e.Code != writ.CodeEffectStopped || e.Details["reason"] != "lease" || e.Receipt == "" {
		t.Fatalf("got %v, %v", err, e.Details)
	}
	s.budget(run, 0, 0, 0)
}

// Without the receipt of the intent nothing is done outside.
func TestNothingIsDoneWithoutAReceipt(t *testing.T) {
	s := stageOn(t, mustBolt(t), &atomic.Int64{})
	alice, run := s.session("alice"), s.run(1)
	s.actor.set(func(context.Context, *writ.Acting) (writ.Reply, error) { t.Error("done"); return writ.Reply{}, nil })
	s.seal.broken.Store(true)
	_, _, err := s.call(alice, "test.act", actArgs{Run: run, Up: 10}, "k")
	if writ.CodeOf(err) != writ.CodeReceiptPending {
		t.Fatalf("got %v", err)
	}
	s.seal.broken.Store(false)
	s.door.StopEffects(t.Context()) // what became of it is said aside
	if _, _, err := s.call(alice, "test.act", actArgs{Run: run, Up: 10}, "k"); writ.CodeOf(err) != writ.CodeReceiptPending {
		t.Errorf("again: %v", err)
	}
	s.budget(run, 0, 0, 0)
	if f := s.effectFacts(); len(f) != 2 || !strings.HasPrefix(f[1], "effect.settle intended→error") {
		t.Errorf("receipts: %q", f)
	}
}

func mustBolt(t testing.TB) store.Store {
	t.Helper()
	st, err := boltstore.Open(filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// A gateway that stops begins no effect, stops those under way and says so of each.
func TestStopping(t *testing.T) {
	s := stageOn(t, mustBolt(t), &atomic.Int64{})
	alice, run := s.session("alice"), s.run(1)
	began, _ := s.hanging()
	answer := s.callAside(alice, "test.act", actArgs{Run: run, Up: 10}, "k")
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.door.StopEffects(ctx)
	got := <-answer
	if e := writ.AsError("", got.err); e.Code != writ.CodeEffectStopped || e.Details["reason"] != "stopping" || e.Receipt == "" {
		t.Fatalf("got %v", got.err)
	}
	if _, _, err := s.call(alice, "test.act", actArgs{Run: run, Up: 10}, "k2"); writ.CodeOf(err) != writ.CodeNotReady {
		t.Errorf("one more: %v", err)
	}
	s.budget(run, 0, 0, 0)
}

// One session has a share of the places for effects, and waits for none of the door.
func TestPlacesOfEffects(t *testing.T) {
	s := stageOn(t, mustBolt(t), &atomic.Int64{}, func(c *guard.Config) { c.MaxEffects, c.MaxInflight = 8, 8 })
	alice, bob, run := s.session("alice"), s.session("bob"), s.run(1)
	began, goOn := s.hanging()
	var answers []chan answered
	for n := range 4 {
		answers = append(answers, s.callAside(alice, "test.act", actArgs{Run: run}, fmt.Sprint("k", n)))
		<-began
	}
	if _, _, err := s.call(alice, "test.act", actArgs{Run: run}, "k9"); writ.CodeOf(err) != writ.CodeBackpressure {
		t.Errorf("a fifth: %v", err)
	}
	if _, _, err := s.call(alice, "test.look", thingArgs{Run: run}, ""); err != nil {
		t.Errorf("another call: %v", err)
	}
	answers = append(answers, s.callAside(bob, "test.act", actArgs{Run: run}, "k"))
	<-began
	for _, a := range answers {
		goOn <- nil
		_ = a
	}
	for _, a := range answers {
		if got := <-a; got.err != nil {
			t.Error(got.err)
		}
	}
}

// An effect needs approval as any call does, and policy may deny it; neither begins it.
func TestEffectsAreJudged(t *testing.T) {
	s := stageOn(t, mustBolt(t), &atomic.Int64{})
	alice, run := s.session("alice"), s.run(1)
	s.law.deny["test.act"] = writ.Finding{Rule: "p.rule", Effect: writ.EffectDeny, Code: "egress_denied"}
	if _, _, err := s.call(alice, "test.act", actArgs{Run: run, Up: 10}, "k"); writ.CodeOf(err) != writ.CodeEgress {
		t.Fatalf("got %v", err)
	}
	s.system("test.finish-anyway", thingArgs{Run: run})
	clear(s.law.deny)
	if _, _, err := s.call(alice, "test.act", actArgs{Run: run, Up: 10}, "k"); writ.CodeOf(err) != writ.CodeIllegal {
		t.Errorf("of a run that has ended: %v", err)
	}
	if s.actor.times() != 0 || len(s.effectFacts()) != 0 {
		t.Error("it was begun")
	}
}

const dying = "WRIT_TEST_DYING_REPLICA"

// The replica that the next test kills.
func TestDyingReplica(t *testing.T) {
	where := os.Getenv(dying)
	if where == "" {
		return // it is a process of TestKillBetweenIntentAndOutcome
	}
	st, err := openAt(where)
	if err != nil {
		t.Fatal(err)
	}
	now := &atomic.Int64{}
	now.Store(time.Now().UnixMilli())
	s := stageOn(t, st, now)
	alice, run := s.session("alice"), s.run(1)
	s.actor.set(func(_ context.Context, x *writ.Acting) (writ.Reply, error) {
		fmt.Printf("\nbegan %s %s %x\n", x.Effect, alice.Session, alice.SecretHash)
		select {}
	})
	_, _, err = s.call(alice, writ.CapabilityID(os.Getenv(dying+"_CALL")), actArgs{Run: run, Up: 50}, "k")
	t.Fatal("it came back: ", err)
}

// openAt opens the store of a path or a URL.
func openAt(where string) (store.Store, error) {
	if strings.HasPrefix(where, "unix:") {
		return redisstore.Open(context.Background(), redisstore.Options{URL: where})
	}
	return boltstore.Open(where, boltstore.Options{})
}

// A gateway dies with kill -9 after the intent and before the outcome. The next one finds
// the effect unknown; what follows depends on whether it is idempotent. Nothing is charged
// twice and nothing is held for ever.
func TestKillBetweenIntentAndOutcome(t *testing.T) {
	for name, at := range map[string]func(t *testing.T) string{
		"bolt":  func(t *testing.T) string { return filepath.Join(t.TempDir(), "writ.db") },
		"redis": func(t *testing.T) string { return redistest.Start(t).URL() },
	} {
		for _, call := range []writ.CapabilityID{"test.act", "test.again"} {
			t.Run(name+" "+string(call), func(t *testing.T) {
				where := at(t)
				cmd := exec.Command(os.Args[0], "-test.run=^TestDyingReplica$")
				cmd.Env = append(os.Environ(), dying+"="+where, dying+"_CALL="+string(call))
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				var id, session, hash string
				for lines := bufio.NewScanner(out); id == ""; {
					if !lines.Scan() {
						_ = cmd.Wait()
						t.Fatal("the replica ended by itself")
					}
					_, _ = fmt.Sscanf(lines.Text(), "began %s %s %s", &id, &session, &hash)
				}
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()

				st, err := openAt(where)
				if err != nil {
					t.Fatal(err)
				}
				now := &atomic.Int64{}
				now.Store(time.Now().UnixMilli())
				s := stageOn(t, st, now)
				who, run := &writ.Credential{Tenant: shard, Session: writ.SessionID(session)}, runID(1)
				raw, err := hex.DecodeString(hash)
				if err != nil {
					t.Fatal(err)
				}
				copy(who.SecretHash[:], raw)
				s.budget(run, 50, 50, 1)
				effect := writ.EffectID(id)
				if _, _, err := s.call(who, call, actArgs{Run: run, Up: 50}, "k"); writ.CodeOf(err) != writ.CodeInFlight && s.intent(effect).State == writ.IntentUnderWay {
					t.Fatalf("before its lease has ended: %v", err)
				}
				s.expire(effect)
				s.budget(run, 50, 0, 0)
				reply, _, err := s.call(who, call, actArgs{Run: run, Up: 50}, "k")
				if call == "test.act" {
					if writ.CodeOf(err) != writ.CodeEffectUnknown || s.actor.times() != 0 {
						t.Fatalf("got %v", err)
					}
					s.budget(run, 50, 0, 0)
					return
				}
				if err != nil || reply.Effect != effect || s.actor.times() != 1 {
					t.Fatalf("got %v", err)
				}
				s.budget(run, 55, 0, 0)
			})
		}
	}
}

// Whatever happens to effects, in whatever order, on two replicas: each attempt is charged
// once, at what it came to if that was said and at what was held if not, and nothing is held
// of what is not under way.
func TestSettledOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := &atomic.Int64{}
		now.Store(1_767_225_600_000)
		dir, err := os.MkdirTemp("", "settled")
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		st, err := boltstore.Open(filepath.Join(dir, "writ.db"), boltstore.Options{NoSync: true, Now: now.Load})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = st.Close() }()
		s := stageOn(t, kept{st}, now, func(c *guard.Config) { c.EffectLease = 30 * time.Second })
		alice, run := s.session("alice"), s.run(1)

		// model is what must be charged.
		type attempt struct {
			effect      writ.EffectID
			n           int64
			held, spent int64
			goOn        chan error
			answer      chan answered
			said        bool // by its replica
		}
		var all []*attempt
		state := map[writ.EffectID]writ.IntentState{}
		last := map[writ.EffectID]int64{}
		keys := map[string]writ.EffectID{}
		settledAt := map[*attempt]int64{} // what it is charged
		began := make(chan *writ.Acting, 1)
		next := make(chan struct {
			spent int64
			goOn  chan error
		}, 1)
		s.actor.set(func(_ context.Context, x *writ.Acting) (writ.Reply, error) {
			how := <-next
			x.Meter.Add(writ.BudgetEgress, how.spent)
			began <- x
			return writ.Reply{Body: actReply{}}, <-how.goOn
		})
		running := func() (out []*attempt) {
			for _, a := range all {
				if !a.said {
					out = append(out, a)
				}
			}
			return out
		}
		defer func() {
			for _, a := range running() {
				a.goOn <- nil
				<-a.answer
			}
		}()
		check := func() {
			var used, held, under int64
			for _, a := range all {
				used += settledAt[a]
				if a.n == last[a.effect] && state[a.effect] == writ.IntentUnderWay {
					held += a.held
					under++
				}
			}
			s.budget(run, used, held, under)
			s.follows(rt, run, last)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"call": func(rt *rapid.T) {
				if len(running()) >= 6 {
					return
				}
				key := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "key")
				a := &attempt{held: 20, spent: rapid.Int64Range(0, 40).Draw(rt, "spent"), goOn: make(chan error, 1)}
				next <- struct {
					spent int64
					goOn  chan error
				}{a.spent, a.goOn}
				a.answer = s.callAside(alice, "test.again", actArgs{Run: run, Up: a.held}, key)
				select {
				case x := <-began:
					if id := keys[key]; id != "" && (id != x.Effect || state[id] != writ.IntentUnknown) {
						rt.Fatalf("%s was %s and is attempted as %s", id, state[id], x.Effect)
					}
					a.effect, a.n, keys[key] = x.Effect, x.Attempt, x.Effect
					state[x.Effect], last[x.Effect], settledAt[a] = writ.IntentUnderWay, x.Attempt, a.held
					all = append(all, a)
				case <-a.answer: // refused, or replayed
					<-next
					if st := state[keys[key]]; st == "" || st == writ.IntentUnknown {
						rt.Fatalf("not begun while it is %q", st)
					}
				}
			},
			"end": func(rt *rapid.T) {
				list := running()
				if len(list) == 0 {
					return
				}
				a := rapid.SampledFrom(list).Draw(rt, "which")
				err := rapid.SampledFrom([]error{nil, errors.New("no"), writ.Refuse(writ.CodeEffectUnknown, "test", "?", "")}).Draw(rt, "how")
				a.said = true
				a.goOn <- err
				<-a.answer
				if open := state[a.effect].Open(); !open || last[a.effect] != a.n {
					return // a person has said, or another attempt was begun
				}
				is := s.intent(a.effect)
				if is.SettledAt == 0 {
					rt.Fatalf("not settled: %+v", is)
				}
				if writ.CodeOf(err) == writ.CodeEffectUnknown {
					if state[a.effect] == writ.IntentUnderWay {
						state[a.effect], settledAt[a] = writ.IntentUnknown, a.spent
					} else if is.Settled[writ.BudgetEgress] == a.spent {
						settledAt[a] = a.spent
					}
					return
				}
				if is.DecidedBy == "" {
					settledAt[a] = a.spent
				}
				state[a.effect] = is.State
			},
			"expire": func(rt *rapid.T) {
				now.Add(31_000)
				for id, st := range state {
					if _, _, err := s.door.System(t.Context(), shard, "effect.expire", effects.EffectArgs{ID: id}, nil); err != nil {
						rt.Fatal(err)
					}
					if st == writ.IntentUnderWay {
						state[id] = writ.IntentUnknown
					}
				}
			},
			"resolve": func(rt *rapid.T) {
				for id, st := range state {
					if st != writ.IntentUnknown {
						continue
					}
					as := rapid.SampledFrom([]effects.Found{effects.FoundOK, effects.FoundError, effects.FoundRepeat}).Draw(rt, "as")
					_, _, err := s.call(alice, "effect.resolve", effects.EffectResolveArgs{ID: id, As: as}, "")
					if err != nil && writ.CodeOf(err) != writ.CodeIllegal {
						rt.Fatal(err)
					}
					state[id] = s.intent(id).State
					return
				}
			},
		})
	})
}

// follows checks that lists, alarms and counters hold what the documents of effects say.
func (s *stage) follows(t *rapid.T, run writ.RunID, ids map[writ.EffectID]int64) {
	f, sums := effects.Follower(), map[writ.Counter]int64{writ.RunEffects(run): 0, writ.BudgetHeld(run, writ.BudgetEgress): 0}
	for id := range ids {
		rs, err := f.Reads(string(id), writ.Snapshot{})
		if err != nil {
			t.Fatal(err)
		}
		rs.Docs = append(rs.Docs, writ.IntentKey(id))
		for _, i := range []writ.Index{writ.IndexEffects, writ.IndexUnknown, writ.IndexEffectLeases} {
			rs.Ranges = append(rs.Ranges, writ.Entry{Index: i, Member: string(id)}.Range())
		}
		snap, err := s.store.Read(context.Background(), shard, rs)
		if err != nil {
			t.Fatal(err)
		}
		wrong, err := f.Sound(string(id), snap)
		if err != nil || wrong != "" {
			t.Fatal(wrong, err)
		}
		implied, err := f.Implies(string(id), snap)
		if err != nil || len(implied) != 3 {
			t.Fatal(implied, err)
		}
		for _, i := range implied {
			if !i.Holds(snap) {
				t.Fatalf("%s of %s: %s", i.Index, id, i.Why)
			}
		}
		counts, err := f.Counts(string(id), snap)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range counts {
			sums[c.Counter] += c.N
		}
	}
	for c, n := range sums {
		if has := s.counter(c); has != n {
			t.Fatalf("%v is %d, and documents add up to %d", c, has, n)
		}
	}
}
