package runs

import (
	"reflect"

	"github.com/writ-gateway/writ"
)

// checkedWorkflow is what a workflow comes to, worked out once per call.
type checkedWorkflow struct {
	of *writ.RunWorkflow
}

// workflowOf is the workflow of a new run, if it has one. It is checked as a whole:
// every step refers to steps that are there, none waits for itself.
func workflowOf(cfg Config, call *writ.Call, a *RunCreateArgs) (*writ.RunWorkflow, error) {
	const op = "runs.Create"
	if len(a.Workflow) == 0 {
		if a.Open {
			return nil, invalid(op, "/open", "means nothing without a workflow")
		}
		return nil, nil
	}
	if memo, ok := call.Memo.(checkedWorkflow); ok {
		w := *memo.of
		return &w, nil
	}
	switch {
	case cfg.Workflow == nil:
		return nil, invalid(op, "/workflow", "is nothing this gateway reads")
	case len(a.Workflow) > writ.MaxWorkflowBytes:
		return nil, invalid(op, "/workflow", "is larger than 4 MiB; divide the work among runs")
	}
	steps, gives, wrong := cfg.Workflow(a.Workflow, a.Budget.limits())
	if len(wrong) > 0 {
		return nil, &writ.Error{
			Code: writ.CodeInputInvalid, Op: op, Msg: "the workflow is not sound, so nothing was made of it", Hint: "correct every place named in errors", Fields: wrong,
		}
	}
	w := writ.RunWorkflow{Digest: writ.DigestOf(a.Workflow), Steps: steps, Open: a.Open, Outputs: gives, Bytes: int64(len(a.Workflow))}
	call.Memo = checkedWorkflow{&w}
	out := w
	return &out, nil
}

// RunUnfoldArgs say which steps of a run's workflow have become its tasks.
type RunUnfoldArgs struct {
	RunID writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	From  int64      `json:"from" doc:"How many were tasks before." minimum:"0" maximum:"10000"`
	Made  int64      `json:"made" doc:"How many are now." minimum:"0" maximum:"10000"`
	Step  string     `json:"step,omitempty" doc:"The next one, when it was not made." maxLength:"63"`
	Code  writ.Code  `json:"code,omitempty" doc:"Why not."`
	Ends  bool       `json:"ends,omitempty" doc:"Whether it never will be."`

	Denial writ.ReceiptID    `json:"denial,omitempty" doc:"Receipt of its denial."`
	Wrong  []writ.FieldError `json:"wrong,omitempty" doc:"What is wrong with it." maxItems:"8"`
}

// unfoldAgain is when a run that waits since a time is tried again: the longer it has
// waited the later, so that many which wait leave time for those that go on.
func unfoldAgain(since, now int64) int64 {
	return now + min(max((now-since)/8, unfoldSoonMs), unfoldLateMs)
}

const (
	unfoldSoonMs = 5_000
	unfoldLateMs = 30_000
)

// unfold notes how far the steps of a workflow are tasks: with the last the run is
// sealed and its tasks are offered, with one that cannot be made it fails. Of several
// that say so of the same steps one is heard.
func unfold() *writ.Capability {
	const op = "runs.Unfold"
	return writ.Define[RunUnfoldArgs, RunView](writ.Capability{
		ID: "run.unfold", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Note which steps of a run's workflow have become its tasks.",
	}, writ.Verb[RunUnfoldArgs]{
		Locks: func(_ *writ.Call, a *RunUnfoldArgs) []writ.Key { return []writ.Key{writ.RunKey(a.RunID)} },
		Reads: func(_ *writ.Call, a *RunUnfoldArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readRun(a.RunID), nil
		},
		Describe: func(_ *writ.Call, a *RunUnfoldArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(s, a.RunID)
		},
		Plan: func(call *writ.Call, a *RunUnfoldArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			run, version, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			if !ok || !run.Unfolding() {
				tx.Unindex(writ.IndexUnfold, string(a.RunID))
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(run, s, version)}, nil
			}
			if run.State != writ.RunActive { // people are asked
				tx.Index(writ.IndexUnfold, string(run.ID), unfoldAgain(run.UpdatedAt, s.Now))
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(run, s, version)}, nil
			}
			count := writ.RunUnfolded(run.ID)
			if have := s.Counters[count]; have != a.From || a.Made < a.From || a.Made > run.Workflow.Steps {
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(run, s, version)}, nil // somebody else has gone on
			}
			was := *run.Workflow
			w, since := was, run.UpdatedAt
			run.Workflow = &w
			if a.Ends || a.Code == "" || a.Step != was.Step || a.Code != was.Code { // else it waits as it did
				w.Step, w.Code, w.Denial, w.Wrong, since = a.Step, a.Code, a.Denial, a.Wrong, s.Now
			}
			to := run.State
			switch {
			case a.Ends:
				to, run.Reason = writ.RunFailed, reasonWorkflow
				tx.Cause(a.Denial)
				tx.Index(writ.IndexTodo, todoReap(run.ID), s.Now)
			case a.Made == w.Steps:
				w.Unfolded, run.Sealed = true, !w.Open
				w.Let(&tx, run.ID)
				if run.Sealed && run.Concludes() {
					to = run.Closing(s, &tx, 0, 0) // a deadline may have ended them all
				}
				tx.Index(writ.IndexTodo, todoOffer(run.ID), s.Now)
			case a.Code != "":
				tx.Index(writ.IndexUnfold, string(run.ID), unfoldAgain(since, s.Now))
			case a.Made > a.From:
				tx.Index(writ.IndexUnfold, string(run.ID), s.Now)
			}
			if a.Made > a.From {
				tx.Within(count, a.From, a.From)
				tx.Add(count, a.Made-a.From)
			}
			if to == run.State && reflect.DeepEqual(w, was) {
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(run, s, version)}, nil
			}
			if err := move(call, op, s, &tx, &run, to); err != nil {
				return tx, r, err
			}
			return tx, changed(writ.OutcomeDone, run, s), nil
		},
	})
}
