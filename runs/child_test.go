package runs

import (
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

func n(v int64) *int64 { return &v }

func (r *room) create(by writ.Caller, parent writ.RunID, b RunBudget) writ.RunID {
	r.t.Helper()
	return body[RunView](r.t, r.must("run.create", by, &RunCreateArgs{Parent: parent, Budget: b})).RunID
}

func (r *room) meter(id writ.RunID, dim string) (used, held int64) {
	return r.Counter(writ.BudgetUsed(id, dim)), r.Counter(writ.BudgetHeld(id, dim))
}

// end ends a run as work would have, with nothing of it open.
func (r *room) end(id writ.RunID, to writ.RunState) {
	r.t.Helper()
	run := r.run(id)
	run.State = to
	r.Seed(writ.RunKey(id), writ.ObjectRun, run)
	r.SetIndex(writ.IndexTodo, writ.TodoSettle(id), r.Now)
}

func (r *room) settle(id writ.RunID) RunSettled {
	r.t.Helper()
	return body[RunSettled](r.t, r.must("run.settle", r.System(), &RunSettleArgs{RunID: id}))
}

func TestAChildDrawsFromItsParent(t *testing.T) {
	r := newRoom(t)
	parent := r.create(r.orc, "", RunBudget{Steps: 20, Money: n(1000), Memory: n(100)})
	child := r.create(r.orc, parent, RunBudget{Steps: 8, Money: n(300)})
	if used, held := r.meter(parent, writ.BudgetSteps); used != 8 || held != 8 {
		t.Fatalf("the parent has used %d steps and holds %d", used, held)
	}
	if used, held := r.meter(parent, writ.BudgetMoney); used != 300 || held != 300 {
		t.Fatalf("the parent has used %d and holds %d", used, held)
	}
	c := r.run(child)
	if c.Parent != parent || c.Root != parent || c.Depth != 1 || c.Budget[writ.BudgetMemory] != 100 || !r.run(parent).Nests {
		t.Fatalf("got %+v", c)
	}
	if open := r.Counter(writ.RunOpenTasks(parent)); open != 1 {
		t.Fatalf("the parent has %d open", open)
	}
	v := body[RunBudgetReport](t, r.must("run.budget", r.orc, &RunBudgetArgs{RunID: parent}))
	if len(v.Children) != 1 || v.Children[0].RunID != child || v.Lines[0].Reserved != 8 || v.Lines[0].Consumed != 0 || v.Lines[0].Remaining != 12 || v.Lines[0].Percent != 40 {
		t.Fatalf("got %+v", v)
	}

	r.SetCounter(writ.BudgetUsed(child, writ.BudgetSteps), 5)
	r.SetCounter(writ.RunOpenTasks(child), 1)
	r.end(child, writ.RunFailed)
	r.settle(child)
	if used, held := r.meter(parent, writ.BudgetSteps); used != 8 || held != 8 {
		t.Fatalf("settled under work: %d, %d", used, held)
	}
	r.SetCounter(writ.RunOpenTasks(child), 0)
	if got := r.settle(child); got.Returned[writ.BudgetSteps] != 3 || got.Returned[writ.BudgetMoney] != 300 {
		t.Fatalf("returned %v", got.Returned)
	}
	if used, held := r.meter(parent, writ.BudgetSteps); used != 5 || held != 0 {
		t.Fatalf("the parent has used %d and holds %d", used, held)
	}
	if open, bad := r.Counter(writ.RunOpenTasks(parent)), r.Counter(writ.RunBadTasks(parent)); open != 0 || bad != 1 {
		t.Fatalf("%d open, %d bad", open, bad)
	}
	facts := len(r.Facts)
	r.SetIndex(writ.IndexTodo, writ.TodoSettle(child), r.Now)
	if got := r.settle(child); len(got.Returned) != 0 || len(r.Facts) != facts {
		t.Fatal("settled twice")
	}
	if _, left := r.Index(writ.IndexTodo)[writ.TodoSettle(child)]; left {
		t.Fatal("the entry is left")
	}
}

func TestAChildMustFit(t *testing.T) {
	r := newRoom(t)
	parent := r.create(r.orc, "", RunBudget{Steps: 20, Money: n(1000), Children: n(2)})
	refused := func(code writ.Code, at string, b RunBudget) {
		t.Helper()
		_, _, err := r.Call(r.caps["run.create"], r.orc, &RunCreateArgs{Parent: parent, Budget: b})
		e := writ.AsError("", err)
		if err == nil || e.Code != code || at != "" && (len(e.Fields) == 0 || e.Fields[0].Pointer != at) {
			t.Fatalf("got %+v", e)
		}
	}
	refused(writ.CodeInputInvalid, "/budget/children", RunBudget{Steps: 1, Money: n(1)})
	refused(writ.CodeInputInvalid, "/budget/cost_microusd", RunBudget{Steps: 1, Children: n(0)})
	for name, c := range map[string]struct {
		b    RunBudget
		fits bool
	}{
		"all of it":         {RunBudget{Steps: 20, Money: n(1000), Children: n(1)}, true},
		"too many steps":    {RunBudget{Steps: 21, Money: n(0), Children: n(0)}, false},
		"too much money":    {RunBudget{Steps: 1, Money: n(1001), Children: n(0)}, false},
		"too many children": {RunBudget{Steps: 1, Money: n(0), Children: n(2)}, false}, // itself is one
	} {
		call := r.NewCall(r.caps["run.create"], r.orc, &RunCreateArgs{Parent: parent, Budget: c.b})
		p, err := r.Plan(r.caps["run.create"], call)
		if err != nil {
			t.Fatal(err)
		}
		if g := p.Subject.Grant; g == nil || !g.Child || g.Fits != c.fits {
			t.Errorf("%s: policy sees %+v", name, g)
		}
		// Whatever policy says, the commit counts.
		p.Tx.AddUpTo(writ.BudgetUsed(parent, writ.BudgetChildren), 1, 2)
		if _, err := r.Commit(p); (err == nil) != c.fits {
			t.Errorf("%s: committed: %v", name, err)
		}
		if c.fits { // give it back
			for dim := range r.run(parent).Budget {
				r.SetCounter(writ.BudgetUsed(parent, dim), 0)
			}
		}
	}
	r.must("run.seal", r.orc, &RunSealArgs{RunID: parent})
	refused(writ.CodeIllegal, "", RunBudget{Steps: 1, Money: n(0), Children: n(0)})
	if _, _, err := r.Call(r.caps["run.create"], r.other, &RunCreateArgs{Parent: parent, Budget: RunBudget{Steps: 1}}); writ.CodeOf(err) != writ.CodeNotFound {
		t.Fatalf("a stranger's parent: %v", err)
	}
}

func TestRunsNestSoDeep(t *testing.T) {
	r := newRoom(t)
	id := r.create(r.orc, "", RunBudget{Steps: 100})
	root := id
	for i := range writ.MaxRunDepth {
		id = r.create(r.orc, id, RunBudget{Steps: int64(90 - i)})
	}
	if got := r.run(id); got.Depth != writ.MaxRunDepth || got.Root != root {
		t.Fatalf("got %+v", got)
	}
	r.refused(writ.CodeInputInvalid, "run.create", r.orc, &RunCreateArgs{Parent: id, Budget: RunBudget{Steps: 1}})
}

// The child with which the last work of a sealed run ends, ends it.
func TestAParentEndsWithItsLastChild(t *testing.T) {
	for to, want := range map[writ.RunState]writ.RunState{writ.RunDone: writ.RunDone, writ.RunFailed: writ.RunFailed, writ.RunCancelled: writ.RunFailed} {
		r := newRoom(t)
		parent := r.create(r.orc, "", RunBudget{Steps: 20})
		one, two := r.create(r.orc, parent, RunBudget{Steps: 5}), r.create(r.orc, parent, RunBudget{Steps: 5})
		r.must("run.seal", r.orc, &RunSealArgs{RunID: parent})
		r.end(one, writ.RunDone)
		r.settle(one)
		if got := r.run(parent); got.State != writ.RunActive {
			t.Fatalf("ended before its last child: %+v", got)
		}
		r.end(two, to)
		r.settle(two)
		if got := r.run(parent); got.State != want {
			t.Fatalf("child %s: the parent is %s, want %s", to, got.State, want)
		}
	}
}

func TestChildrenEndWithTheirParent(t *testing.T) {
	r := newRoom(t)
	parent := r.create(r.orc, "", RunBudget{Steps: 100})
	var kids []writ.RunID
	for range cascadeBatch + 3 {
		kids = append(kids, r.create(r.orc, parent, RunBudget{Steps: 1}))
	}
	grandchild := r.create(r.orc, kids[0], RunBudget{Steps: 1})
	r.must("run.cancel", r.orc, &RunCancelArgs{RunID: parent})
	for round := 0; ; round++ {
		todo := r.Index(writ.IndexTodo)
		moved := false
		for m := range maps.Clone(todo) {
			switch kind, id := m[:len(m)-len(parent)-1], writ.RunID(m[len(m)-len(parent):]); kind {
			case "cascade":
				r.must("run.cascade", r.System(), &RunCascadeArgs{RunID: id})
				moved = true
			case "settle":
				r.settle(id)
				moved = true
			}
		}
		if !moved {
			break
		}
		if round > 20 {
			t.Fatalf("it does not end: %v", todo)
		}
	}
	for _, id := range append(kids, grandchild) {
		if got := r.run(id); got.State != writ.RunCancelled || got.Reason != reasonParent {
			t.Fatalf("%s is %s", id, got.State)
		}
	}
	if used, held := r.meter(parent, writ.BudgetSteps); used != 0 || held != 0 {
		t.Fatalf("the parent has used %d and holds %d", used, held)
	}
	if open := r.Counter(writ.RunOpenTasks(parent)); open != 0 {
		t.Fatalf("%d open", open)
	}
}

// However runs nest, spend and end, what a tree has spent and what it can still
// spend together are what its root was given.
func TestATreeConservesItsBudget(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRoom(t)
		limit := rapid.Int64Range(1, 60).Draw(rt, "limit")
		root := r.create(r.orc, "", RunBudget{Steps: limit})
		all := []writ.RunID{root}
		var spent int64
		for range rapid.IntRange(1, 40).Draw(rt, "moves") {
			id := rapid.SampledFrom(all).Draw(rt, "run")
			run := r.run(id)
			switch rapid.SampledFrom([]string{"nest", "spend", "end"}).Draw(rt, "move") {
			case "nest":
				args := &RunCreateArgs{Parent: id, Budget: RunBudget{Steps: rapid.Int64Range(1, 20).Draw(rt, "steps")}}
				reply, _, err := r.Call(r.caps["run.create"], r.orc, args)
				if err == nil {
					all = append(all, body[RunView](t, reply).RunID)
				}
			case "spend": // as the obligor does: no more than its own limit
				use := rapid.Int64Range(1, 5).Draw(rt, "use")
				used, _ := r.meter(id, writ.BudgetSteps)
				if run.State == writ.RunActive && used+use <= run.Limit(writ.BudgetSteps) {
					r.SetCounter(writ.BudgetUsed(id, writ.BudgetSteps), used+use)
					spent += use
				}
			case "end":
				if id != root && !writ.RunMoves.Terminal(run.State) {
					r.end(id, rapid.SampledFrom([]writ.RunState{writ.RunDone, writ.RunFailed}).Draw(rt, "state"))
				}
				r.settle(id)
			}
			left := int64(0)
			for _, x := range all {
				e, _, ok := writtest.Get[writ.Escrow](r.World, writ.EscrowKey(x))
				if x == root || ok && e.State == writ.EscrowHeld {
					used, _ := r.meter(x, writ.BudgetSteps)
					left += r.run(x).Limit(writ.BudgetSteps) - used
				}
			}
			if spent+left != limit {
				rt.Fatalf("%d spent and %d left of %d", spent, left, limit)
			}
			if used, held := r.meter(root, writ.BudgetSteps); used > limit || held < 0 || held > used {
				rt.Fatalf("the root has used %d of %d and holds %d", used, limit, held)
			}
		}
	})
}

func TestTimeRunsOut(t *testing.T) {
	r := newRoom(t)
	id := r.create(r.orc, "", RunBudget{Steps: 5, Wall: n(10_000)})
	due := writ.TodoOverrun(id)
	if at := r.Index(writ.IndexTodo)[due]; at != r.Now+10_000 {
		t.Fatalf("due at %d", at-r.Now)
	}
	child := r.create(r.orc, id, RunBudget{Steps: 1})
	if got := r.run(child).Budget[writ.BudgetWall]; got != 10_000 {
		t.Fatalf("the child may last %d", got)
	}
	look := func(d writ.Decision) RunExhausted {
		t.Helper()
		k := *r.caps["run.overrun"]
		plan := k.Plan
		k.Plan = func(c *writ.Call, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			return plan(c, s, d)
		}
		reply, _, err := r.Call(&k, r.System(), &RunOverrunArgs{RunID: id})
		if err != nil {
			t.Fatal(err)
		}
		return body[RunExhausted](t, reply)
	}
	hard := writ.Decision{Findings: []writ.Finding{{Rule: "budgets.hard_stop.wall_ms"}}}
	began := r.Now
	r.Now = began + 9_999
	if look(hard).Failed {
		t.Fatal("failed before its time")
	}
	// A pause moves the end.
	run := r.run(id)
	run.State, run.PausedAt = writ.RunPausedApproval, r.Now
	r.Seed(writ.RunKey(id), writ.ObjectRun, run)
	r.Now += 5_000
	if look(hard).Failed {
		t.Fatal("failed while it was paused")
	}
	run.State, run.PausedAt, run.PausedMs = writ.RunActive, 0, 5_000
	r.Seed(writ.RunKey(id), writ.ObjectRun, run)
	r.Now++
	if look(writ.Decision{}).Failed {
		t.Fatal("failed though policy only warns")
	}
	if at := r.Index(writ.IndexTodo)[due]; at <= r.Now {
		t.Fatal("nobody looks again")
	}
	if !look(hard).Failed || r.run(id).State != writ.RunFailed || r.run(id).Reason != reasonBudget {
		t.Fatalf("got %+v", r.run(id))
	}
	todo := r.Index(writ.IndexTodo)
	if _, left := todo[due]; left {
		t.Fatal("the entry is left")
	}
	for _, follows := range []string{writ.TodoCascade(id), todoReap(id)} {
		if _, ok := todo[follows]; !ok {
			t.Fatalf("%q does not follow", follows)
		}
	}
}
