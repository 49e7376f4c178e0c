package effects

import (
	"fmt"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// lab is a world with this room and effects in it.
type lab struct {
	*writtest.World
	t    *testing.T
	caps map[writ.CapabilityID]*writ.Capability
	op   writ.Caller
	run  writ.Run
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{World: writtest.New(), t: t, caps: map[writ.CapabilityID]*writ.Capability{}}
	for _, k := range Capabilities() {
		l.caps[k.ID] = k
	}
	l.op = l.Open(writ.RoleOperator, "operator", "")
	l.run = l.World.Run("planner", 100)
	return l
}

// begin puts an effect in place, as the door does.
func (l *lab) begin(n int, state writ.IntentState) writ.EffectID {
	l.t.Helper()
	id := writ.EffectID(writ.MakeID(writ.PrefixEffect, l.Now, [10]byte{9: byte(n)}))
	i := writ.Intent{ID: id, Capability: "egress.fetch", State: state, Attempt: 1, Session: l.op.Session, Principal: "operator", Run: l.run.ID, Held: map[string]int64{writ.BudgetSteps: 10}, CreatedAt: l.Now, Receipt: "rcp_01ARYZ6S410000000000000000"}
	l.Seed(writ.IntentKey(id), writ.ObjectEffect, i)
	l.SetIndex(writ.IndexEffects, string(id), 0)
	if state == writ.IntentUnknown {
		l.SetIndex(writ.IndexUnknown, string(id), 0)
		return id
	}
	l.SetIndex(writ.IndexEffectLeases, string(id), l.Now+1000)
	l.SetCounter(writ.EffectLease(id), l.Now+1000)
	l.SetCounter(writ.RunEffects(l.run.ID), l.Counter(writ.RunEffects(l.run.ID))+1)
	l.SetCounter(writ.BudgetHeld(l.run.ID, writ.BudgetSteps), l.Counter(writ.BudgetHeld(l.run.ID, writ.BudgetSteps))+10)
	l.SetCounter(writ.BudgetUsed(l.run.ID, writ.BudgetSteps), l.Counter(writ.BudgetUsed(l.run.ID, writ.BudgetSteps))+10)
	return id
}

func (l *lab) do(by writ.Caller, id writ.CapabilityID, args any) (writ.Reply, writ.Tx, error) {
	k := l.caps[id]
	return l.Do(k, l.NewCall(k, by, args))
}

func TestListAndGet(t *testing.T) {
	l := newLab(t)
	var all []writ.EffectID
	for n := range 5 {
		state := writ.IntentUnderWay
		if n%2 == 1 {
			state = writ.IntentUnknown
		}
		all = append(all, l.begin(n, state))
	}
	for state, want := range map[writ.IntentState][]writ.EffectID{"": all, writ.IntentUnderWay: {all[0], all[2], all[4]}, writ.IntentUnknown: {all[1], all[3]}} {
		var got []writ.EffectID
		for a := (EffectListArgs{State: state, Limit: 2}); ; {
			r, _, err := l.do(l.op, "effect.list", &a)
			if err != nil {
				t.Fatal(err)
			}
			page := r.Body.(EffectList)
			for _, v := range page.Effects {
				got = append(got, v.ID)
				if (v.LeaseEnds != "") != (v.State == writ.IntentUnderWay) {
					t.Errorf("%+v", v)
				}
			}
			if a.After = page.Next; a.After == "" {
				break
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: %v, want %v", state, got, want)
		}
	}
	r, _, err := l.do(l.op, "effect.get", &EffectArgs{ID: all[0]})
	if v := r.Body.(EffectView); err != nil || v.ID != all[0] || v.Held[writ.BudgetSteps] != 10 || v.Settled != nil {
		t.Errorf("%+v, %v", v, err)
	}
	if _, _, err := l.do(l.op, "effect.get", &EffectArgs{ID: "eff_01ARYZ6S410000000000000000"}); writ.CodeOf(err) != writ.CodeNotFound {
		t.Errorf("none: %v", err)
	}
}

// What became of an attempt is taken once: the same outcome again is the same, another one,
// or one of another attempt, is not.
func TestOutcomesAreTakenOnce(t *testing.T) {
	l := newLab(t)
	id := l.begin(1, writ.IntentUnderWay)
	settle := func(by writ.CallID, attempt int64, used int64) (writ.EffectSettled, int) {
		t.Helper()
		r, tx, err := l.do(l.System(), writ.EffectSettle, &writ.EffectSettleArgs{Effect: id, Attempt: attempt, By: by, State: writ.IntentOK, Used: map[string]int64{writ.BudgetSteps: used}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := writtest.Body[writ.EffectSettled](r)
		if err != nil {
			t.Fatal(err)
		}
		return out, len(tx.Changes)
	}
	const one, two writ.CallID = "cll_01ARYZ6S410000000000000000", "cll_01ARYZ6S410000000000000001"
	if out, n := settle(two, 2, 99); out.Taken || n != 0 {
		t.Errorf("of an attempt there was not: %+v", out)
	}
	first, n := settle(one, 1, 4)
	if !first.Taken || n != 1 || first.State != writ.IntentOK {
		t.Fatalf("%+v, %d", first, n)
	}
	if again, n := settle(one, 1, 4); !again.Taken || n != 0 || again.Receipt != first.Receipt {
		t.Errorf("again: %+v", again)
	}
	if other, n := settle(two, 1, 7); other.Taken || n != 0 {
		t.Errorf("another: %+v", other)
	}
	if used, held, under := l.Counter(writ.BudgetUsed(l.run.ID, writ.BudgetSteps)), l.Counter(writ.BudgetHeld(l.run.ID, writ.BudgetSteps)), l.Counter(writ.RunEffects(l.run.ID)); used != 4 || held != 0 || under != 0 {
		t.Errorf("used %d, held %d, under way %d", used, held, under)
	}
	if left := append(l.Members(writ.IndexEffects), l.Members(writ.IndexEffectLeases)...); len(left) != 0 {
		t.Errorf("left on lists: %q", left)
	}
}

// A person who names the version means the effect as it was seen.
func TestResolvingIsConditional(t *testing.T) {
	l := newLab(t)
	id := l.begin(1, writ.IntentUnknown)
	k := l.caps["effect.resolve"]
	call := l.NewCall(k, l.op, &EffectResolveArgs{ID: id, As: FoundOK})
	call.IfVersion = 9999
	if _, _, err := l.Do(k, call); writ.CodeOf(err) != writ.CodeVersion {
		t.Errorf("got %v", err)
	}
	if _, _, err := l.do(l.op, "effect.resolve", &EffectResolveArgs{ID: l.begin(2, writ.IntentUnderWay), As: FoundOK}); writ.CodeOf(err) != writ.CodeIllegal {
		t.Errorf("of one under way: %v", err)
	}
}
