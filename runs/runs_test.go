package runs

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

type room struct {
	*writtest.World
	t          *testing.T
	caps       map[writ.CapabilityID]*writ.Capability
	ops        writ.Caller // operator
	orc, other writ.Caller // two orchestrators
	aud        writ.Caller // auditor
}

func newRoom(t *testing.T) *room {
	t.Helper()
	r := &room{World: writtest.New(), t: t, caps: map[writ.CapabilityID]*writ.Capability{}}
	for _, c := range Capabilities(Config{}) {
		if c.ID == "run.exhaust" { // policy says, where nothing else is tested, that limits are hard
			c = decided(c, writ.Decision{Packs: []writ.PackRef{{ID: "budgets"}}, Findings: []writ.Finding{{Rule: "budgets.hard_stop.steps"}}})
		}
		r.caps[c.ID] = c
	}
	r.ops = r.Open(writ.RoleOperator, "olivia", "")
	r.orc = r.Open(writ.RoleOrchestrator, "orc", "")
	r.other = r.Open(writ.RoleOrchestrator, "other", "")
	r.aud = r.Open(writ.RoleAuditor, "ada", "")
	return r
}

// decided is a capability that plans under a decision.
func decided(k *writ.Capability, d writ.Decision) *writ.Capability {
	c := *k
	c.Plan = func(call *writ.Call, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
		return k.Plan(call, s, d)
	}
	return &c
}

func (r *room) must(id writ.CapabilityID, by writ.Caller, args any) writ.Reply {
	r.t.Helper()
	reply, _, err := r.Call(r.caps[id], by, args)
	if err != nil {
		r.t.Fatalf("%s: %v", id, err)
	}
	return reply
}

func (r *room) refused(code writ.Code, id writ.CapabilityID, by writ.Caller, args any) {
	r.t.Helper()
	before := len(r.Facts)
	if _, _, err := r.Call(r.caps[id], by, args); writ.CodeOf(err) != code {
		r.t.Fatalf("%s: got %v, want %s", id, err, code)
	}
	if len(r.Facts) != before {
		r.t.Fatalf("%s: refused, but left a fact", id)
	}
}

func (r *room) run(id writ.RunID) writ.Run {
	r.t.Helper()
	run, _, ok := writtest.Get[writ.Run](r.World, writ.RunKey(id))
	if !ok {
		r.t.Fatalf("there is no run %s", id)
	}
	return run
}

func body[T any](t *testing.T, r writ.Reply) T {
	t.Helper()
	v, err := writtest.Body[T](r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *room) created(by writ.Caller, p writ.ClosePolicy) writ.RunID {
	r.t.Helper()
	return body[RunView](r.t, r.must("run.create", by, &RunCreateArgs{ClosePolicy: p, Budget: RunBudget{Steps: 10}})).RunID
}

// exhausted is what follows a claim that was refused for want of steps.
func exhausted(id writ.RunID) *RunExhaustArgs {
	return &RunExhaustArgs{RunID: id, Dimension: writ.BudgetSteps, Amount: writ.StepsOfAttempt}
}

func TestCreate(t *testing.T) {
	r := newRoom(t)
	reply := r.must("run.create", r.orc, &RunCreateArgs{Title: "Build", Goal: "a site", Budget: RunBudget{Steps: 7}})
	v := body[RunView](t, reply)
	if reply.Outcome != writ.OutcomeCreated || v.State != writ.RunActive || v.ClosePolicy != writ.CloseAuto || v.Owner != "orc" ||
		v.OwnerRole != writ.RoleOrchestrator || v.Budget[writ.BudgetSteps] != (RunMeter{Limit: 7, Remaining: 7}) || v.Version == 0 || reply.ETag != v.Version {
		t.Fatalf("got %+v", v)
	}
	if doc := r.run(v.RunID); doc.CreatedBy != r.orc.Session || doc.Receipt != r.Facts[0].Receipt {
		t.Fatalf("got %+v", doc)
	}
	if r.created(r.orc, "") == v.RunID {
		t.Fatal("two runs have one id")
	}
}

func TestRunEveryMove(t *testing.T) {
	states := []writ.RunState{writ.RunActive, writ.RunDone, writ.RunFailed, writ.RunCancelled}
	for _, v := range []struct {
		id   writ.CapabilityID
		to   writ.RunState
		args func(writ.RunID) any
	}{
		{"run.seal", writ.RunDone, func(id writ.RunID) any { return &RunSealArgs{RunID: id} }},
		{"run.cancel", writ.RunCancelled, func(id writ.RunID) any { return &RunCancelArgs{RunID: id, Reason: "mistake"} }},
		{"run.exhaust", writ.RunFailed, func(id writ.RunID) any { return exhausted(id) }},
	} {
		for _, from := range states {
			t.Run(fmt.Sprintf("%s from %s", v.id, from), func(t *testing.T) {
				r := newRoom(t)
				run := r.World.Run("orc", 5)
				run.State = from
				r.Seed(writ.RunKey(run.ID), writ.ObjectRun, run)
				by := r.orc
				if v.id == "run.exhaust" {
					by = r.System()
					r.SetCounter(writ.BudgetUsed(run.ID, writ.BudgetSteps), 5)
					r.SetIndex(writ.IndexTodo, writ.TodoExhaust(run.ID, writ.BudgetSteps, writ.StepsOfAttempt), r.Now)
				}
				switch {
				case writ.RunMoves.May(from, v.to):
					r.must(v.id, by, v.args(run.ID))
					if got := r.run(run.ID); got.State != v.to {
						t.Fatalf("got %s, want %s", got.State, v.to)
					}
					want := []writ.Change{{Kind: "run", ID: string(run.ID), From: string(from), To: string(v.to)}}
					if got := r.Facts[0].Changes; !slices.Equal(got, want) {
						t.Fatalf("got %v, want %v", got, want)
					}
					if _, due := r.Index(writ.IndexTodo)["run "+string(run.ID)]; due != (v.id != "run.seal") {
						t.Fatalf("tasks are to be cancelled: %v", due)
					}
				case v.id == "run.exhaust": // a mandate finds nothing to do
					r.must(v.id, by, v.args(run.ID))
					if len(r.Facts) != 0 || r.run(run.ID).State != from {
						t.Fatalf("got %+v", r.Facts)
					}
				default:
					r.refused(writ.CodeIllegal, v.id, by, v.args(run.ID))
				}
				if _, left := r.Index(writ.IndexTodo)[writ.TodoExhaust(run.ID, writ.BudgetSteps, writ.StepsOfAttempt)]; left {
					t.Fatal("the entry that triggered it is left")
				}
			})
		}
	}
}

func TestSealEndsAnAutomaticRun(t *testing.T) {
	for _, c := range []struct {
		policy    writ.ClosePolicy
		open, bad int64
		want      writ.RunState
		reason    string
	}{
		{writ.CloseAuto, 0, 0, writ.RunDone, ""},
		{writ.CloseAuto, 0, 2, writ.RunFailed, "task_failed"},
		{writ.CloseAuto, 1, 0, writ.RunActive, ""},
		{writ.CloseAuto, 1, 1, writ.RunActive, ""},
		{writ.CloseManual, 0, 0, writ.RunActive, ""},
		{writ.CloseManual, 0, 3, writ.RunActive, ""},
	} {
		r := newRoom(t)
		id := r.created(r.orc, c.policy)
		r.SetCounter(writ.RunOpenTasks(id), c.open)
		r.SetCounter(writ.RunBadTasks(id), c.bad)
		v := body[RunView](t, r.must("run.seal", r.orc, &RunSealArgs{RunID: id}))
		if v.State != c.want || v.Reason != c.reason || !v.Sealed || v.OpenTasks != c.open || v.BadTasks != c.bad {
			t.Errorf("%+v: got %+v", c, v)
		}
		if got := r.run(id); got.State != c.want || !got.Sealed {
			t.Errorf("%+v: got %+v", c, got)
		}
		if c.want == writ.RunActive {
			r.refused(writ.CodeIllegal, "run.seal", r.orc, &RunSealArgs{RunID: id})
		}
	}
}

// Of sealing and the end of the last task one sees the other: the seal does
// not commit when the counts it judged have changed their meaning.
func TestSealRace(t *testing.T) {
	for _, c := range []struct {
		open, bad, thenOpen, thenBad int64
		conflict                     bool
	}{
		{2, 0, 1, 0, false}, // still open
		{1, 0, 0, 0, true},  // the last one ended: the run must end now
		{0, 0, 1, 0, true},  // a task was added
		{0, 0, 0, 1, true},
		{0, 1, 0, 2, false}, // still failed
	} {
		r := newRoom(t)
		id := r.created(r.orc, writ.CloseAuto)
		r.SetCounter(writ.RunOpenTasks(id), c.open)
		r.SetCounter(writ.RunBadTasks(id), c.bad)
		k := r.caps["run.seal"]
		p, err := r.Plan(k, r.NewCall(k, r.orc, &RunSealArgs{RunID: id}))
		if err != nil {
			t.Fatal(err)
		}
		r.SetCounter(writ.RunOpenTasks(id), c.thenOpen)
		r.SetCounter(writ.RunBadTasks(id), c.thenBad)
		var conflict *writtest.Conflict
		if _, err := r.Commit(p); errors.As(err, &conflict) != c.conflict {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

func TestOwnership(t *testing.T) {
	r := newRoom(t)
	id := r.created(r.orc, writ.CloseManual)
	unknown := writ.RunID(r.NewID(writ.PrefixRun))
	for _, by := range []writ.Caller{r.ops, r.orc, r.aud} {
		r.must("run.get", by, &RunGetArgs{RunID: id})
		r.refused(writ.CodeNotFound, "run.get", by, &RunGetArgs{RunID: unknown})
	}
	r.refused(writ.CodeNotFound, "run.get", r.other, &RunGetArgs{RunID: id})
	for _, by := range []writ.Caller{r.other, r.aud} {
		r.refused(writ.CodeNotFound, "run.seal", by, &RunSealArgs{RunID: id})
		r.refused(writ.CodeNotFound, "run.cancel", by, &RunCancelArgs{RunID: id})
	}
	r.refused(writ.CodeNotFound, "run.cancel", r.ops, &RunCancelArgs{RunID: unknown})
	r.must("run.seal", r.ops, &RunSealArgs{RunID: id})
	v := body[RunView](t, r.must("run.cancel", r.orc, &RunCancelArgs{RunID: id}))
	if v.State != writ.RunCancelled || v.Reason != "requested" {
		t.Fatalf("got %+v", v)
	}
}

func TestIfMatch(t *testing.T) {
	r := newRoom(t)
	id := r.created(r.orc, writ.CloseManual)
	k := r.caps["run.cancel"]
	for _, c := range []struct {
		add  int64
		code writ.Code
	}{{1, writ.CodeVersion}, {0, ""}} {
		call := r.NewCall(k, r.orc, &RunCancelArgs{RunID: id})
		_, version, _ := writtest.Get[writ.Run](r.World, writ.RunKey(id))
		call.IfVersion = version + c.add
		if _, _, err := r.Do(k, call); writ.CodeOf(err) != c.code {
			t.Fatalf("got %v, want %q", err, c.code)
		}
	}
	judged, judge := r.judged()
	k = r.caps["run.close"]
	for _, c := range []struct {
		add  int64
		code writ.Code
	}{{-1, writ.CodeVersion}, {1, writ.CodeVersion}, {0, ""}} {
		call := r.NewCall(k, judge, r.verdict(judged, writ.VerdictAccept))
		_, version, _ := writtest.Get[writ.Run](r.World, writ.RunKey(judged))
		call.IfVersion = version + c.add
		if _, _, err := r.Do(k, call); writ.CodeOf(err) != c.code {
			t.Fatalf("run.close: got %v, want %q", err, c.code)
		}
	}
}

// What triggers a failure is an index entry: without a used-up budget it does
// nothing, and steps cannot be given back while it decides.
func TestExhaustLooksAgain(t *testing.T) {
	r := newRoom(t)
	id := r.created(r.orc, writ.CloseAuto)
	r.SetCounter(writ.BudgetUsed(id, writ.BudgetSteps), 8) // of 10: a claim fits
	r.SetIndex(writ.IndexTodo, writ.TodoExhaust(id, writ.BudgetSteps, writ.StepsOfAttempt), r.Now)
	v := body[RunExhausted](t, r.must("run.exhaust", r.System(), exhausted(id)))
	if _, due := r.Index(writ.IndexTodo)[writ.TodoExhaust(id, writ.BudgetSteps, writ.StepsOfAttempt)]; v.Failed || r.run(id).State != writ.RunActive || due {
		t.Fatalf("got %+v, due %v", v, due)
	}
	r.SetCounter(writ.BudgetUsed(id, writ.BudgetSteps), 9)
	v = body[RunExhausted](t, r.must("run.exhaust", r.System(), exhausted(id)))
	if got := r.run(id); !v.Failed || got.State != writ.RunFailed || got.Reason != "budget_exceeded" {
		t.Fatalf("got %+v", got)
	}
	facts := len(r.Facts)
	r.must("run.exhaust", r.System(), exhausted(id))
	gone := writ.RunID(r.NewID(writ.PrefixRun))
	r.must("run.exhaust", r.System(), exhausted(gone))
	if len(r.Facts) != facts {
		t.Fatal("failed twice")
	}
}

// Attempts under way are paid for: a run that is refused another claim does not
// end under them. What they give back may be enough to offer its tasks again.
func TestExhaustWaitsForAttemptsUnderWay(t *testing.T) {
	for name, c := range map[string]struct {
		used   int64 // when the attempt has ended
		failed bool
	}{"it was completed": {10, true}, "it gave back too little": {9, true}, "it was given back": {8, false}} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			id := r.created(r.orc, writ.CloseAuto)
			due := writ.TodoExhaust(id, writ.BudgetSteps, writ.StepsOfAttempt)
			r.SetCounter(writ.BudgetUsed(id, writ.BudgetSteps), 10)
			r.SetIndex(writ.RunTasksIn(id, writ.TaskRunning), "tsk_0", 0)
			r.SetIndex(writ.IndexTodo, due, r.Now)
			r.must("run.exhaust", r.System(), exhausted(id))
			if at := r.Index(writ.IndexTodo)[due]; at <= r.Now || r.run(id).State != writ.RunActive {
				t.Fatalf("the run is %s, due %d at %d", r.run(id).State, at, r.Now)
			}
			r.DropIndex(writ.RunTasksIn(id, writ.TaskRunning), "tsk_0")
			r.SetCounter(writ.BudgetUsed(id, writ.BudgetSteps), c.used)
			v := body[RunExhausted](t, r.must("run.exhaust", r.System(), exhausted(id)))
			_, again := r.Index(writ.IndexTodo)["offer "+string(id)]
			if _, left := r.Index(writ.IndexTodo)[due]; left || v.Failed != c.failed || again == c.failed {
				t.Fatalf("failed %v, offered again %v, due %v", v.Failed, again, left)
			}
		})
	}
}

func TestListPages(t *testing.T) {
	r := newRoom(t)
	var mine, all, active []string
	for i := range 12 {
		by := r.orc
		if i%3 == 0 {
			by = r.other
		}
		r.Advance(1)
		id := r.created(by, writ.CloseManual)
		all = append(all, string(id))
		if i%3 != 0 {
			mine = append(mine, string(id))
		}
		if i%4 == 0 {
			r.must("run.cancel", by, &RunCancelArgs{RunID: id})
		} else {
			active = append(active, string(id))
		}
	}
	for _, c := range []struct {
		by    writ.Caller
		state writ.RunState
		want  []string
	}{
		{r.ops, "", all}, {r.aud, "", all}, {r.orc, "", mine}, {r.ops, writ.RunActive, active}, {r.ops, writ.RunDone, nil},
	} {
		for _, limit := range []int64{0, 1, 3, 5, 200} {
			var got []string
			after, pages := writ.RunID(""), 0
			for {
				p := body[RunList](t, r.must("run.list", c.by, &RunListArgs{After: after, Limit: limit, State: c.state}))
				for _, v := range p.Runs {
					got = append(got, string(v.RunID))
				}
				if c.state == "" && p.Next != "" && int64(len(p.Runs)) != limit {
					t.Fatalf("%s: a short page of %d before the last", c.by.Role, len(p.Runs))
				}
				if p.Next == "" {
					break
				}
				if pages++; pages > 20 {
					t.Fatal("the list does not end")
				}
				after = writ.RunID(p.Next)
			}
			if !slices.Equal(got, c.want) {
				t.Fatalf("%s %q limit %d:\ngot  %q\nwant %q", c.by.Role, c.state, limit, got, c.want)
			}
		}
	}
}

func TestViewCounts(t *testing.T) {
	r := newRoom(t)
	id := r.created(r.orc, writ.CloseAuto)
	r.SetCounter(writ.BudgetUsed(id, writ.BudgetSteps), 4)
	r.SetCounter(writ.RunOpenTasks(id), 2)
	v := body[RunView](t, r.must("run.get", r.orc, &RunGetArgs{RunID: id}))
	if v.Budget[writ.BudgetSteps] != (RunMeter{Limit: 10, Used: 4, Remaining: 6}) || v.OpenTasks != 2 {
		t.Fatalf("got %+v", v)
	}
}

// Before the caller is known, nothing of anybody's runs is read.
func TestListReadsNothingForNobody(t *testing.T) {
	r := newRoom(t)
	k := r.caps["run.list"]
	rs, err := k.Reads(r.NewCall(k, writ.Caller{Tenant: r.Tenant}, &RunListArgs{}), writ.Snapshot{})
	if err != nil || !rs.Empty() {
		t.Fatalf("got %+v, %v", rs, err)
	}
}
