package runs

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// RunBudget limits what a run may use. What it leaves out is not limited, but
// for time; of what a parent run limits, a child must say how much it gets.
type RunBudget struct {
	Steps       int64  `json:"steps" doc:"Committed changes that executor and verifier sessions may make inside the run: two for an attempt at a task, both charged to its claim; what a release, an expiry or a cancellation does not use is given back." minimum:"1" maximum:"1000000"`
	Wall        *int64 `json:"wall_ms,omitempty" doc:"Milliseconds the run may last without its pauses. Default, and most: 7 days, or what the parent run has left." minimum:"1" maximum:"604800000"`
	Tokens      *int64 `json:"llm_tokens,omitempty" doc:"Tokens of language models, in and out." minimum:"0" maximum:"100000000000000"`
	Money       *int64 `json:"cost_microusd,omitempty" doc:"Millionths of a US dollar." minimum:"0" maximum:"100000000000000"`
	Egress      *int64 `json:"net_egress_bytes,omitempty" doc:"Bytes sent outside." minimum:"0" maximum:"100000000000000"`
	Ingress     *int64 `json:"net_ingress_bytes,omitempty" doc:"Bytes received from outside." minimum:"0" maximum:"100000000000000"`
	Storage     *int64 `json:"storage_write_bytes,omitempty" doc:"Bytes of task arguments and results that are kept. A claim takes 49152 until its result is known." minimum:"0" maximum:"100000000000000"`
	CPU         *int64 `json:"sandbox_cpu_ms,omitempty" doc:"Milliseconds of processor time." minimum:"0" maximum:"100000000000000"`
	Memory      *int64 `json:"sandbox_mem_peak_bytes,omitempty" doc:"Bytes of memory any attempt may need at a time." minimum:"0" maximum:"100000000000000"`
	Retries     *int64 `json:"retries,omitempty" doc:"Attempts at tasks of the run beyond the first of each." minimum:"0" maximum:"1000000"`
	TaskRetries *int64 `json:"retries_per_step,omitempty" doc:"Attempts at any one task beyond the first." minimum:"0" maximum:"1000"`
	Children    *int64 `json:"children,omitempty" doc:"Runs that may be created inside the run." minimum:"0" maximum:"100000"`
}

// limits is what the budget states, by dimension.
func (b RunBudget) limits() map[string]int64 {
	out := map[string]int64{writ.BudgetSteps: b.Steps}
	for dim, n := range map[string]*int64{
		writ.BudgetWall: b.Wall, writ.BudgetTokens: b.Tokens, writ.BudgetMoney: b.Money, writ.BudgetEgress: b.Egress,
		writ.BudgetIngress: b.Ingress, writ.BudgetStorage: b.Storage, writ.BudgetCPU: b.CPU, writ.BudgetMemory: b.Memory,
		writ.BudgetRetries: b.Retries, writ.BudgetTaskRetries: b.TaskRetries, writ.BudgetChildren: b.Children,
	} {
		if n != nil {
			out[dim] = *n
		}
	}
	return out
}

// RunCreateArgs describe a run.
type RunCreateArgs struct {
	Title       string           `json:"title,omitempty" doc:"Title for people." maxLength:"200"`
	Goal        string           `json:"goal,omitempty" doc:"What the run is to reach, in words." maxLength:"4000"`
	ClosePolicy writ.ClosePolicy `json:"close_policy,omitempty" doc:"Who ends it: auto when it is sealed and every task and child run has ended; verifier then, by run.close of somebody who had no part in it; manual only by run.cancel or a hard limit." enum:"auto,manual,verifier" default:"auto"`
	CloseQuorum *int64           `json:"close_quorum,omitempty" doc:"With close_policy verifier: how many verifiers must accept it, each somebody else than the others. One that rejects is enough to send it back. Default 1." minimum:"1" maximum:"5"`
	Parent      writ.RunID       `json:"parent_run_id,omitempty" doc:"Run inside which it is created: it gets its budget out of that one's, which gets back what is not used." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	StallAfter  *int64           `json:"stall_after_s,omitempty" doc:"Seconds in which nothing in the run can go on before it is stalled: no task runs or waits for people, and none that is queued has an agent that may take it. It is looked at so often, and less often as the run gets older: up to every eighth of its age." minimum:"10" maximum:"86400" default:"60"`
	OnStall     writ.StallPolicy `json:"on_stall,omitempty" doc:"What becomes of it then: notify has it say stalled_at, with a receipt; fail ends it if it is stalled as long again." enum:"notify,fail" default:"notify"`
	Workflow    writ.RawObject   `json:"workflow,omitempty" doc:"Steps to make tasks of the run: {\"version\":1,\"steps\":{KEY:{…}}}, at most 10000 and 4 MiB, each step what task.enqueue takes but for run_id and key, depends_on a list of keys or of what task.enqueue takes; \"sequence\", a list of all keys, lets each begin only when the one before has ended; \"outputs\" names artifacts of steps that are results: {NAME:{\"from\":KEY,\"name\":ARTIFACT}}. All that is wrong with them is said at once. Each is made as the caller's own task.enqueue: judged, with a receipt. None begins before all are there; if one is denied the run fails. The run is sealed then."`
	Open        bool             `json:"open,omitempty" doc:"With a workflow: do not seal the run, more tasks will be added to it."`
	Budget      RunBudget        `json:"budget" doc:"Limits of the run, for example {\"steps\":40}; a task takes about two steps. What becomes of a run that wants more, policy says."`
}

// Kept are the bytes of its workflow.
func (a *RunCreateArgs) Kept() []byte { return a.Workflow }

// Witnessed is what evidence keeps: the workflow by its digest. What becomes of its
// steps has evidence of its own.
func (a *RunCreateArgs) Witnessed() any {
	if len(a.Workflow) == 0 {
		return a
	}
	kept := *a
	kept.Workflow = writ.RawObject(`{"digest":"` + writ.DigestOf(a.Workflow) + `"}`)
	return &kept
}

func create(cfg Config) *writ.Capability {
	const op = "runs.Create"
	return writ.Define[RunCreateArgs, RunView](writ.Capability{
		ID: "run.create", Safety: writ.SafetyMutating, Large: true, Summary: "Create a run with a budget; tasks can be added to it at once, or are given with it as a workflow.",
		Example: `{"title":"spring release","budget":{"steps":40}}`,
	}, writ.Verb[RunCreateArgs]{
		Reads: func(call *writ.Call, a *RunCreateArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := readRun(newRun(call))
			if call.Caller.Agent != "" {
				rs.Docs = append(rs.Docs, writ.AgentKey(call.Caller.Agent))
			}
			if a.Parent != "" {
				rs = rs.Join(readRun(a.Parent))
				if s.Has(writ.RunKey(a.Parent)) {
					parent, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.Parent))
					if err != nil {
						return rs, err
					}
					if ok {
						rs.Ranges = append(rs.Ranges, writ.PartSeen(call.Caller, parent.Tree()))
					}
				}
				rs.Docs = append(rs.Docs, writ.EscrowKey(newRun(call)))
			}
			return rs, nil
		},
		Describe: func(call *writ.Call, a *RunCreateArgs, s writ.Snapshot) (sub writ.Subject, err error) {
			if a.Parent == "" {
				return sub, nil
			}
			parent, err := parentOf(call, op, s, a)
			if err != nil {
				return sub, err
			}
			sub.Run = &writ.RunFacts{ID: parent.ID, State: parent.State}
			take, _ := escrow(parent, a.Budget.limits()) // what it does not say is refused by the plan
			sub.Grant = &writ.GrantFacts{Child: true, Fits: possible(parent, take)}
			sub.Charge = writ.Charge(take)
			sub.Charge[writ.BudgetWall] = 0
			sub.Charge[writ.BudgetChildren]++ // itself
			return sub, nil
		},
		Plan: func(call *writ.Call, a *RunCreateArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			run := writ.Run{
				ID: newRun(call), Title: a.Title, Goal: a.Goal, ClosePolicy: a.ClosePolicy, Budget: a.Budget.limits(),
				Owner: call.Caller.Principal, OwnerRole: call.Caller.Role, CreatedBy: call.Caller.Session, CreatedAt: s.Now,
			}
			if run.ClosePolicy == "" {
				run.ClosePolicy = writ.CloseAuto
			}
			run.StallAfter, run.OnStall = writ.StallAfterSeconds, a.OnStall
			if a.StallAfter != nil {
				run.StallAfter = *a.StallAfter
			}
			switch {
			case run.StallAfter < 10 || run.StallAfter > 86400:
				return tx, r, invalid(op, "/stall_after_s", "must be 10 to 86400")
			case run.OnStall == writ.StallNotify:
				run.OnStall = ""
			case run.OnStall != "" && run.OnStall != writ.StallFail:
				return tx, r, invalid(op, "/on_stall", "must be notify or fail")
			}
			if run.Workflow, err = workflowOf(cfg, call, a); err != nil {
				return tx, r, err
			}
			if run.Workflow != nil {
				if run.Workflow.Counted, err = writ.QuotaTags(s, writ.QuotaArtifacts, writ.QuotaCaller(call.Caller, call.Capability)); err != nil {
					return tx, r, err
				}
			}
			switch n := a.CloseQuorum; {
			case n == nil:
			case *n < 1 || *n > writ.MaxQuorum:
				return tx, r, invalid(op, "/close_quorum", "must be 1 to 5")
			case *n > 1 && run.ClosePolicy != writ.CloseVerifier:
				return tx, r, invalid(op, "/close_quorum", "means nothing unless close_policy is verifier")
			case *n > 1:
				run.CloseQuorum = *n
			}
			life := int64(writ.MaxRunMs)
			if a.Parent != "" {
				parent, err := parentOf(call, op, s, a)
				if err != nil {
					return tx, r, err
				}
				if err := nest(call, op, s, &tx, parent, &run); err != nil {
					return tx, r, err
				}
				if wall, limits := parent.Limited(writ.BudgetWall); limits && wall > parent.Worked(s.Now) {
					life = min(life, wall-parent.Worked(s.Now)) // with its time up policy only warned, and lets it go on
				}
			}
			if wall, stated := run.Budget[writ.BudgetWall]; !stated || wall > life {
				run.Budget[writ.BudgetWall] = life
			}
			if err := move(call, op, s, &tx, &run, writ.RunActive); err != nil {
				return tx, r, err
			}
			keys, err := keysOf(call, s)
			if err != nil {
				return tx, r, err
			}
			tx.TakePart(s, run.Tree(), writ.PartPlanned, call.Caller, keys)
			// The call's own move comes first.
			slices.Reverse(tx.Changes)
			if run.Workflow != nil {
				run.Workflow.Hold(&tx, run.ID, s.Now)
			}
			tx.Index(writ.IndexRuns, string(run.ID), 0)
			tx.Index(OwnedBy(run.Owner), string(run.ID), 0)
			tx.Index(writ.IndexTodo, writ.TodoOverrun(run.ID), run.TimeUp())
			tx.Index(writ.IndexTodo, writ.TodoStall(run.ID), s.Now+run.StallAfter*1000)
			return tx, changed(writ.OutcomeCreated, run, s), nil
		},
	})
}
