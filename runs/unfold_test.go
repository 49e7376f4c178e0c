package runs

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// flowRoom is a room that takes every workflow but one, for one of three steps.
func flowRoom(t *testing.T) *room {
	t.Helper()
	r := newRoom(t)
	for _, c := range Capabilities(Config{Workflow: func(graph writ.RawObject, budget map[string]int64) (int64, []writ.RunOutput, []writ.FieldError) {
		if strings.Contains(string(graph), "wrong") || budget[writ.BudgetSteps] < 6 {
			return 0, nil, []writ.FieldError{{Pointer: "/workflow/steps/aa", Msg: "is wrong"}, {Pointer: "/workflow/steps/bb", Msg: "too"}}
		}
		return 3, []writ.RunOutput{{Name: "site", Step: "aa", Artifact: "site"}}, nil
	}}) {
		if c.ID == "run.create" {
			r.caps[c.ID] = c
		}
	}
	return r
}

func (r *room) flow(more func(*RunCreateArgs)) writ.RunID {
	r.t.Helper()
	a := RunCreateArgs{Budget: RunBudget{Steps: 9}, Workflow: writ.RawObject(`{"steps":{}}`)}
	if more != nil {
		more(&a)
	}
	return r.must("run.create", r.orc, &a).Body.(RunView).RunID
}

func (r *room) unfold(a RunUnfoldArgs) writ.Run {
	r.t.Helper()
	r.must("run.unfold", r.System(), &a)
	return r.run(a.RunID)
}

func (r *room) listed(id writ.RunID) (due, held bool) {
	w := r.run(id).Workflow
	return slices.Contains(r.Members(writ.IndexUnfold), string(id)), slices.Contains(r.Members(writ.BlobHolders(strings.TrimPrefix(w.Digest, "sha256:"))), string(id))
}

// A workflow is checked, held until every step is a task, and the run is sealed then.
func TestAWorkflowUnfolds(t *testing.T) {
	r := flowRoom(t)
	r.refused(writ.CodeInputInvalid, "run.create", r.orc, &RunCreateArgs{Budget: RunBudget{Steps: 9}, Workflow: writ.RawObject(`{"wrong":1}`)})
	r.refused(writ.CodeInputInvalid, "run.create", r.orc, &RunCreateArgs{Budget: RunBudget{Steps: 9}, Open: true})
	r.refused(writ.CodeInputInvalid, "run.create", r.orc, &RunCreateArgs{Budget: RunBudget{Steps: 5}, Workflow: writ.RawObject(`{"steps":{}}`)})

	id := r.flow(nil)
	run := r.run(id)
	if w := run.Workflow; !run.Unfolding() || run.Begins() || run.Sealed || w.Steps != 3 || w.Digest != writ.DigestOf([]byte(`{"steps":{}}`)) {
		t.Fatalf("got %+v", run)
	}
	if due, held := r.listed(id); !due || !held {
		t.Errorf("due %v, held %v", due, held)
	}
	r.refused(writ.CodeIllegal, "run.seal", r.orc, &RunSealArgs{RunID: id})

	// Nothing new, of others, or of steps there are not: nobody is heard.
	facts := len(r.Facts)
	for _, a := range []RunUnfoldArgs{{From: 0, Made: 0}, {From: 1, Made: 2}, {From: 0, Made: 4}, {From: 2, Made: 1}} {
		a.RunID = id
		r.unfold(a)
	}
	if len(r.Facts) != facts {
		t.Errorf("%d facts", len(r.Facts)-facts)
	}
	run = r.unfold(RunUnfoldArgs{RunID: id, From: 0, Made: 1, Step: "bb", Code: writ.CodeQuota})
	if !run.Unfolding() || run.Workflow.Step != "bb" || run.Workflow.Code != writ.CodeQuota || r.Counter(writ.RunUnfolded(id)) != 1 {
		t.Errorf("got %+v", run.Workflow)
	}
	r.SetCounter(writ.RunOpenTasks(id), 3)
	r.unfold(RunUnfoldArgs{RunID: id, From: 0, Made: 3}) // late
	run = r.unfold(RunUnfoldArgs{RunID: id, From: 1, Made: 3})
	if run.Unfolding() || !run.Begins() || !run.Sealed || run.Workflow.Step != "" || run.Workflow.Code != "" {
		t.Errorf("got %+v", run)
	}
	if due, held := r.listed(id); due || held || !slices.Contains(r.Members(writ.IndexTodo), todoOffer(id)) {
		t.Errorf("due %v, held %v, %v", due, held, r.Members(writ.IndexTodo))
	}
}

// A run that is open takes more tasks; one whose tasks have all ended by then ends
// with the last step.
func TestTheEndOfUnfolding(t *testing.T) {
	r := flowRoom(t)
	open := r.flow(func(a *RunCreateArgs) { a.Open = true })
	if run := r.unfold(RunUnfoldArgs{RunID: open, Made: 3}); run.Sealed || !run.Begins() {
		t.Errorf("got %+v", run)
	}
	over := r.flow(nil)
	r.SetCounter(writ.RunBadTasks(over), 1)
	if run := r.unfold(RunUnfoldArgs{RunID: over, Made: 3}); run.State != writ.RunFailed || run.Reason != writ.ReasonTaskFailed {
		t.Errorf("got %+v", run)
	}
	judged := r.flow(func(a *RunCreateArgs) { a.ClosePolicy = writ.CloseVerifier })
	if run := r.unfold(RunUnfoldArgs{RunID: judged, Made: 3}); run.State != writ.RunVerifying {
		t.Errorf("got %+v", run)
	}
}

// Who waits is put behind the others, the longer it has waited the further, and says
// what it was first refused with; who is let go on is next.
func TestUnfoldingWaits(t *testing.T) {
	r := flowRoom(t)
	id := r.flow(nil)
	next := func() int64 { return r.Index(writ.IndexUnfold)[string(id)] - r.Now }
	waits := RunUnfoldArgs{RunID: id, Step: "aa", Code: writ.CodeQuota, Denial: "rcp_first"}
	r.unfold(waits)
	if next() != 5000 {
		t.Errorf("next in %d", next())
	}
	facts := len(r.Facts)
	for _, tt := range []struct{ after, next int64 }{{8, 5000}, {72, 10_000}, {7000, 30_000}} {
		r.Advance(tt.after)
		waits.Denial = "rcp_other"
		if run := r.unfold(waits); run.Workflow.Denial != "rcp_first" || next() != tt.next {
			t.Errorf("it says %+v, next in %d, not %d", run.Workflow, next(), tt.next)
		}
	}
	if len(r.Facts) != facts {
		t.Error("waiting leaves facts")
	}
	waits.Made, waits.Step = 1, "bb"
	if r.unfold(waits); next() != 5000 {
		t.Errorf("at another step: next in %d", next())
	}

	run := r.run(id)
	run.State, run.WaitsFor, run.UpdatedAt = writ.RunPausedApproval, "apr_x", r.Now
	r.Seed(writ.RunKey(id), writ.ObjectRun, run)
	r.Advance(80)
	if r.unfold(RunUnfoldArgs{RunID: id, From: 1, Made: 1}); next() != 10_000 || len(r.Facts) != facts+1 {
		t.Errorf("paused: next in %d", next())
	}
	agreed := writ.Approval{ID: "apr_x", Run: id, State: writ.ApprovalApproved, Needs: []writ.Need{{Kind: writ.ApproveBudgetExtension, Dimension: writ.BudgetSteps, Add: 1}}}
	rs, err := Pausing{}.Reads(agreed, writ.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	var tx writ.Tx
	if err := (Pausing{}).Wake(r.NewCall(r.caps["run.unfold"], r.System(), &RunUnfoldArgs{RunID: id}), r.Snapshot(rs), agreed, &tx); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(tx.Ops, func(o writ.Op) bool { return o.Index == writ.IndexUnfold && o.Member == string(id) && o.Score == r.Now }) {
		t.Errorf("let go on, it is not next: %+v", tx.Ops)
	}
}

// A step that is never made fails the run, which says what is wrong with it; however a
// run ends, nobody wants its bytes any more.
func TestUnfoldingEndsEarly(t *testing.T) {
	r := flowRoom(t)
	failed := r.flow(nil)
	wrong := []writ.FieldError{{Pointer: "/args", Msg: "is wrong"}}
	run := r.unfold(RunUnfoldArgs{RunID: failed, Made: 1, Step: "bb", Code: writ.CodePolicy, Ends: true, Denial: "rcp_x", Wrong: wrong})
	if run.State != writ.RunFailed || run.Reason != reasonWorkflow || run.Unfolding() || run.Workflow.Denial != "rcp_x" || !slices.Equal(run.Workflow.Wrong, wrong) {
		t.Errorf("got %+v", run)
	}
	if !slices.Contains(r.Members(writ.IndexTodo), todoReap(failed)) {
		t.Error("nobody cancels its tasks")
	}
	v := r.must("run.get", r.orc, &RunGetArgs{RunID: failed}).Body.(RunView).Workflow
	if v.Made != 1 || v.Step != "bb" || v.Code != writ.CodePolicy || v.Denial != "rcp_x" || v.Unfolded || len(v.Wrong) != 1 || len(v.Outputs) != 1 || v.Outputs[0].Step != "aa" {
		t.Errorf("it shows %+v", v)
	}
	cancelled := r.flow(nil)
	r.must("run.cancel", r.orc, &RunCancelArgs{RunID: cancelled})
	for _, id := range []writ.RunID{failed, cancelled} {
		if due, held := r.listed(id); due || held {
			t.Errorf("%s: due %v, held %v", id, due, held)
		}
		// Who comes too late for it is heard no more.
		r.SetIndex(writ.IndexUnfold, string(id), r.Now)
		if run := r.unfold(RunUnfoldArgs{RunID: id, From: 1, Made: 3}); run.Unfolding() {
			t.Errorf("got %+v", run)
		}
		if due, _ := r.listed(id); due {
			t.Error("the entry is left")
		}
	}
}

// The evidence has a workflow by its digest; what is stored has its form for good.
func TestWitnessedWorkflow(t *testing.T) {
	a := RunCreateArgs{Title: "t", Workflow: writ.RawObject(`{"steps":{"aa":{"args":{"email":"a@b.c"}}}}`)}
	b, err := json.Marshal(a.Witnessed())
	if err != nil || strings.Contains(string(b), "email") || !strings.Contains(string(b), writ.DigestOf(a.Workflow)) || len(a.Workflow) < 30 {
		t.Errorf("%v %s", err, b)
	}
	run := writ.Run{Workflow: &writ.RunWorkflow{Digest: "sha256:0", Steps: 3, Open: true, Unfolded: true, Step: "aa", Code: writ.CodePolicy, Denial: "rcp_x", Outputs: []writ.RunOutput{{Name: "site", Step: "aa", Artifact: "dist"}}, Bytes: 9, Counted: []string{"quo_x"}, Wrong: []writ.FieldError{{Pointer: "/args", Msg: "m"}}}}
	b, err = json.MarshalIndent(run.Workflow, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	writtest.Golden(t, *update, "workflow.json", append(b, '\n'))
}
