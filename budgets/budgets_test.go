package budgets

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

func TestBands(t *testing.T) {
	for _, c := range []struct {
		used, cost, limit int64
		fits              bool
		band, lo, hi      int64
	}{
		{0, 1, 10, true, 0, 0, 3},
		{3, 1, 10, true, 0, 0, 3},
		{4, 1, 10, true, 50, 4, 6},
		{7, 1, 10, true, 80, 7, 8},
		{8, 1, 10, true, 80, 7, 8},
		{9, 1, 10, true, 100, 9, 9},
		{10, 1, 10, false, 100, 10, writ.MaxAmount},
		{10, 0, 10, true, 100, 10, writ.MaxAmount},
		{0, 1, 1, true, 100, 0, 0},
		{1, 1, 1, false, 100, 1, writ.MaxAmount},
		{0, 0, 0, true, 0, 0, 0},
		{0, 1, 0, false, 100, 0, writ.MaxAmount},
		{0, 1, 3, true, 0, 0, 0},
		{1, 1, 3, true, 50, 1, 1}, // 2 of 3 is 66 %
	} {
		f, lo, hi := judge(c.used, c.cost, c.limit)
		if f.Fits != c.fits || f.Band != c.band || lo != c.lo || hi != c.hi {
			t.Errorf("used %d, cost %d, limit %d: got fits %v band %d in [%d, %d], want %v %d in [%d, %d]",
				c.used, c.cost, c.limit, f.Fits, f.Band, lo, hi, c.fits, c.band, c.lo, c.hi)
		}
	}
}

// The guard is exactly the set of used that gives policy the same facts: every
// value in it does, its neighbours outside do not.
func TestBandIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(0, 1_000_000).Draw(t, "limit")
		if rapid.Bool().Draw(t, "small") {
			limit %= 30
		}
		cost := rapid.Int64Range(0, 3).Draw(t, "cost")
		used := rapid.Int64Range(0, limit+limit/2+5).Draw(t, "used")
		f, lo, hi := judge(used, cost, limit)
		if used < lo || used > hi {
			t.Fatalf("%d is outside [%d, %d]", used, lo, hi)
		}
		other := rapid.OneOf(
			rapid.Int64Range(0, limit*2+10),
			rapid.SampledFrom([]int64{max(0, lo-1), lo, hi, min(writ.MaxAmount, hi+1)}),
		).Draw(t, "other")
		g, _, _ := judge(other, cost, limit)
		if in := other >= lo && other <= hi; in != (f == g) {
			t.Fatalf("used %d in [%d, %d]: %v, but facts %+v and %+v", other, lo, hi, in, f, g)
		}
		// Said independently: the band in percent.
		total := used + cost
		var band int64
		for _, m := range []int64{50, 80, 100} {
			if total > 0 && total*100 >= m*limit {
				band = m
			}
		}
		if f.Band != band || f.Fits != (cost == 0 || total <= limit) {
			t.Fatalf("got %+v, want band %d", f, band)
		}
	})
}

// lab runs a call's budget part the way the door does.
type lab struct {
	*writtest.World
	run writ.RunID
	o   Obligor
}

func newLab(steps int64) *lab {
	w := writtest.New()
	return &lab{World: w, run: w.Run("orc", steps).ID, o: New()}
}

// read reads as the door does: until nothing new is asked for.
func (l *lab) read(c *writ.Call, k *writ.Capability, sub writ.Subject) writ.Snapshot {
	s := writ.Snapshot{}
	for {
		rs, err := l.o.Reads(c, k, s, sub)
		if err != nil {
			panic(err)
		}
		if s.Missing(rs).Empty() {
			return s
		}
		s = l.Snapshot(rs)
	}
}

func (l *lab) facts(t *testing.T, role writ.Role, steps int64) (*writ.Call, *writ.Capability, writ.Snapshot, writ.Subject) {
	t.Helper()
	c := &writ.Call{Caller: writ.Caller{Role: role}}
	k := &writ.Capability{Steps: steps}
	sub := writ.Subject{Run: &writ.RunFacts{ID: l.run, State: writ.RunActive}}
	s := l.read(c, k, sub)
	if err := l.o.Facts(c, k, s, func() bool { return true }, &sub); err != nil {
		t.Fatal(err)
	}
	return c, k, s, sub
}

// changing is a transaction that moves an object.
func changing() writ.Tx {
	var tx writ.Tx
	tx.Index("list/x", "m", 0)
	tx.Move(writ.ObjectTask, "tsk_1", "queued", "running")
	return tx
}

func TestOnlyWorkIsCharged(t *testing.T) {
	for _, c := range []struct {
		role    writ.Role
		steps   int64
		charged int64
	}{
		{writ.RoleExecutor, 1, 1},
		{writ.RoleExecutor, writ.StepsOfAttempt, 2},
		{writ.RoleVerifier, 1, 1},
		{writ.RoleExecutor, 0, 0},
		{writ.RoleOrchestrator, 2, 0},
		{writ.RoleOperator, 1, 0},
		{writ.RoleSystem, 1, 0},
	} {
		l := newLab(10)
		call, k, s, sub := l.facts(t, c.role, c.steps)
		tx := changing()
		got, _, err := l.o.Oblige(call, k, s, sub, &tx)
		if err != nil || got[writ.BudgetSteps] != c.charged {
			t.Fatalf("%+v: got %v, %v", c, got, err)
		}
		if err := l.Apply(tx); err != nil {
			t.Fatal(err)
		}
		if n := l.Counter(writ.BudgetUsed(l.run, writ.BudgetSteps)); n != c.charged {
			t.Fatalf("%+v: %d steps used", c, n)
		}
	}
}

func TestNothingDoneCostsNothing(t *testing.T) {
	l := newLab(10)
	call, k, s, sub := l.facts(t, writ.RoleExecutor, 1)
	var empty writ.Tx
	if got, _, err := l.o.Oblige(call, k, s, sub, &empty); got != nil || err != nil || len(empty.Guards)+len(empty.Ops) > 0 {
		t.Fatalf("got %v, %v, %+v", got, err, empty)
	}
	var parked writ.Tx // moves no object
	parked.Index("list/x", "m", 0)
	if got, _, err := l.o.Oblige(call, k, s, sub, &parked); got != nil || err != nil || len(parked.Ops) != 1 || len(parked.Guards) != 1 {
		t.Fatalf("got %v, %v, %+v", got, err, parked)
	}
	tx := changing()
	if got, _, err := l.o.Oblige(call, k, s, writ.Subject{}, &tx); got != nil || err != nil || len(tx.Guards) > 0 {
		t.Fatalf("outside a run: got %v, %v", got, err)
	}
	// A run that does not exist has no budget: the plan refuses it.
	l.run = writ.RunID(l.NewID(writ.PrefixRun))
	if _, _, _, sub := l.facts(t, writ.RoleExecutor, 1); sub.Budget != nil {
		t.Fatalf("got %+v", sub.Budget)
	}
}

// Calls that were judged at the same time cannot spend the same step, and none
// commits in another band than policy saw.
func TestRace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(1, 12).Draw(t, "limit")
		cost := rapid.Int64Range(1, writ.StepsOfAttempt).Draw(t, "cost")
		w := writtest.New()
		l := &lab{World: w, run: w.Run("orc", limit).ID}
		type waiting struct {
			tx    writ.Tx
			facts writ.BudgetFacts
			warns bool
			told  int64
		}
		var open []waiting
		var spent int64
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if len(open) == 0 || rapid.Bool().Draw(t, "plan") {
				call := &writ.Call{Caller: writ.Caller{Role: writ.RoleExecutor}}
				k := &writ.Capability{Steps: cost}
				sub := writ.Subject{Run: &writ.RunFacts{ID: l.run}}
				s := l.read(call, k, sub)
				if err := l.o.Facts(call, k, s, func() bool { return true }, &sub); err != nil {
					t.Fatal(err)
				}
				if !sub.Budget[0].Fits {
					continue // policy denies
				}
				tx := changing()
				_, warned, err := l.o.Oblige(call, k, s, sub, &tx)
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, waiting{tx, sub.Budget[0], len(warned) > 0, l.Counter(writ.BudgetWarned(l.run, writ.BudgetSteps))})
				continue
			}
			i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
			p := open[i]
			open = append(open[:i], open[i+1:]...)
			now, _, _ := judge(l.Counter(writ.BudgetUsed(l.run, writ.BudgetSteps)), cost, limit)
			now.Dimension = writ.BudgetSteps
			told := l.Counter(writ.BudgetWarned(l.run, writ.BudgetSteps))
			err := l.Apply(p.tx)
			// Of two that would warn of the same mark one goes back.
			if same := now == p.facts && (!p.warns || told == p.told); (err == nil) != same {
				t.Fatalf("judged on %+v, now %+v: %v", p.facts, now, err)
			}
			if err == nil {
				spent += cost
			}
		}
		if n := l.Counter(writ.BudgetUsed(l.run, writ.BudgetSteps)); n != spent || n > limit {
			t.Fatalf("%d steps used, %d charged, limit %d", n, spent, limit)
		}
	})
}

func TestDeniedFailsTheRun(t *testing.T) {
	hard := writ.Decision{Findings: []writ.Finding{{Rule: "lifecycle.x"}, {Rule: "budgets.hard_stop.steps"}}}
	for name, c := range map[string]struct {
		role writ.Role
		used int64
		d    writ.Decision
		due  bool
	}{
		"used up":         {writ.RoleExecutor, 3, hard, true},
		"another rule":    {writ.RoleExecutor, 3, writ.Decision{Findings: []writ.Finding{{Rule: "budgets.late_destructive"}}}, false},
		"other dimension": {writ.RoleExecutor, 3, writ.Decision{Findings: []writ.Finding{{Rule: "budgets.hard_stop.tokens"}}}, false},
		"not charged":     {writ.RoleOrchestrator, 3, hard, false},
		"over, uncharged": {writ.RoleOrchestrator, 4, hard, false},
		"fits":            {writ.RoleExecutor, 2, hard, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(3)
			l.SetCounter(writ.BudgetUsed(l.run, writ.BudgetSteps), c.used)
			call, _, s, sub := l.facts(t, c.role, 1)
			var tx writ.Tx
			l.o.Denied(call, s, sub, c.d, &tx)
			if err := l.Apply(tx); err != nil {
				t.Fatal(err)
			}
			if _, due := l.Index(writ.IndexTodo)[writ.TodoExhaust(l.run, writ.BudgetSteps, 1)]; due != c.due {
				t.Fatalf("got %v, want %v", due, c.due)
			}
			l.o.Denied(call, s, writ.Subject{}, c.d, &tx) // outside a run: nothing
		})
	}
}
