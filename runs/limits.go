package runs

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// RunExhaustArgs name a run and what it was refused.
type RunExhaustArgs struct {
	RunID     writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Dimension string     `json:"dimension" doc:"Dimension of its budget." enum:"steps,llm_tokens,cost_microusd,net_egress_bytes,net_ingress_bytes,storage_write_bytes,sandbox_cpu_ms,retries,children"`
	Amount    int64      `json:"amount" doc:"How much of it was wanted." minimum:"1"`
}

// ExhaustArgs reads the rest of a follow-up writ.TodoExhaust for the sweeper. What
// is no such member gives arguments that are refused.
func ExhaustArgs(rest string) map[string]any {
	f := strings.Split(rest, " ")
	if len(f) == 1 { // as it was written when steps were all that was limited
		f = append(f, writ.BudgetSteps, strconv.Itoa(writ.StepsOfAttempt))
	}
	if len(f) != 3 {
		return map[string]any{}
	}
	amount, _ := strconv.ParseInt(f[2], 10, 64)
	return map[string]any{"run_id": f[0], "dimension": f[1], "amount": amount}
}

// RunExhausted says what became of the run.
type RunExhausted struct {
	Failed bool `json:"failed" doc:"Whether the run failed now. False: it had ended already, has budget left, or may get some back."`
}

// lookAgainMs is how long a run is left alone before it is looked at again that
// has used up its budget while attempts are under way.
const lookAgainMs = 1000

// underWay shows whether attempts at tasks of a run are under way.
func underWay(id writ.RunID) writ.Range {
	return writ.Range{Index: writ.RunTasksIn(id, writ.TaskRunning), Limit: 1}
}

// toolsSay says whether it is the tool of an agent that says how much of a
// dimension a task takes. Another agent's may take less.
func toolsSay(dimension string) (yes bool) {
	(*writ.ToolCosts)(nil).Each(func(d string, _ *int64) { yes = yes || d == dimension })
	return yes
}

// exhaust fails a run that was refused something it had no budget for, if policy
// says that the limit is hard. It looks again before it believes so: what
// triggered it was an index entry. Attempts under way, parked ones too, are paid
// for and may end first; what they or child runs give back may be enough again,
// and then the tasks that were refused are offered again. Of what tools state
// nothing may be left: else an agent with a dear one could end what others can
// still do.
func exhaust() *writ.Capability {
	return writ.Define[RunExhaustArgs, RunExhausted](writ.Capability{
		ID: "run.exhaust", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Fail a run that has met a hard limit of its budget.",
	}, writ.Verb[RunExhaustArgs]{
		Reads: func(_ *writ.Call, a *RunExhaustArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			rs := readRun(a.RunID)
			rs.Counters = append(rs.Counters, writ.BudgetHeld(a.RunID, a.Dimension), writ.BudgetHeld(a.RunID, writ.BudgetSteps))
			rs.Ranges = []writ.Range{underWay(a.RunID)}
			return rs, nil
		},
		Describe: func(_ *writ.Call, a *RunExhaustArgs, s writ.Snapshot) (writ.Subject, error) {
			sub, err := describe(s, a.RunID)
			sub.Charge = writ.Charge{a.Dimension: a.Amount} // ask policy again what it was refused for
			return sub, err
		},
		Plan: func(call *writ.Call, a *RunExhaustArgs, s writ.Snapshot, d writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			limit, limits := run.Limited(a.Dimension)
			counter := writ.BudgetUsed(a.RunID, a.Dimension)
			held, attempts := writ.BudgetHeld(a.RunID, a.Dimension), writ.BudgetHeld(a.RunID, writ.BudgetSteps)
			member, out := writ.TodoExhaust(a.RunID, a.Dimension, a.Amount), RunExhausted{}
			later := func() (writ.Tx, writ.Reply, error) {
				tx.Index(writ.IndexTodo, member, s.Now+lookAgainMs)
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
			}
			hard := slices.Contains(d.Rules(), "budgets.hard_stop."+a.Dimension)
			switch {
			case !ok || run.State != writ.RunActive:
			case !limits || s.Counters[counter]+a.Amount <= limit:
				tx.Index(writ.IndexTodo, todoOffer(a.RunID), s.Now)
			case len(s.Ranges[underWay(a.RunID)].Members) > 0 || s.Counters[held] > 0 || s.Counters[attempts] > 0:
				return later()
			case !hard && len(d.Packs) == 0: // policy could not answer
				return later()
			case !hard: // it lets people be asked, or only warns: by the next who tries
				tx.Index(writ.IndexTodo, todoOffer(a.RunID), s.Now)
			case toolsSay(a.Dimension) && s.Counters[counter] < limit: // enough, perhaps, for another agent's tool
			default:
				out.Failed = true
				// Under these guards nothing of that size fits, and no attempt has begun.
				tx.Within(counter, limit-a.Amount+1, writ.MaxAmount)
				tx.Within(held, 0, 0)
				tx.Within(attempts, 0, 0)
				run.Reason = reasonBudget
				if err := move(call, "runs.Exhaust", s, &tx, &run, writ.RunFailed); err != nil {
					return tx, r, err
				}
				tx.Index(writ.IndexTodo, todoReap(run.ID), s.Now)
			}
			tx.Unindex(writ.IndexTodo, member)
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

// RunOverrunArgs name a run whose time may be up.
type RunOverrunArgs struct {
	RunID writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// overrunAgainMs is how often a run is looked at that goes on though its time is
// up: policy only warns, or lets people give it more.
const overrunAgainMs = 600_000

// overrun fails a run whose time is up, if policy says that the limit is hard.
// Unlike with other dimensions it does not wait for attempts under way: time
// passes whatever they do.
func overrun() *writ.Capability {
	return writ.Define[RunOverrunArgs, RunExhausted](writ.Capability{
		ID: "run.overrun", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Fail a run whose time is up.",
	}, writ.Verb[RunOverrunArgs]{
		Reads: func(_ *writ.Call, a *RunOverrunArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readRun(a.RunID), nil
		},
		Describe: func(_ *writ.Call, a *RunOverrunArgs, s writ.Snapshot) (writ.Subject, error) {
			sub, err := describe(s, a.RunID)
			sub.Charge = writ.Charge{writ.BudgetWall: 0} // judge it as what needs time
			return sub, err
		},
		Plan: func(call *writ.Call, a *RunOverrunArgs, s writ.Snapshot, d writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			out := RunExhausted{}
			limit, limits := run.Limited(writ.BudgetWall)
			left := limit - run.Worked(s.Now)
			// What policy lets go on, and what is paused, ends some day too.
			end := run.LastsTo()
			switch {
			case !ok || !limits || writ.RunMoves.Terminal(run.State):
				tx.Unindex(writ.IndexTodo, writ.TodoOverrun(a.RunID))
			case s.Now >= end:
				out.Failed, run.Reason = true, reasonLifetime
				if err := move(call, "runs.Overrun", s, &tx, &run, writ.RunFailed); err != nil {
					return tx, r, err
				}
				tx.Index(writ.IndexTodo, todoReap(run.ID), s.Now)
			case run.State != writ.RunActive: // its time goes on when it does
				tx.Index(writ.IndexTodo, writ.TodoOverrun(a.RunID), end)
			case left > 0:
				tx.Index(writ.IndexTodo, writ.TodoOverrun(a.RunID), run.TimeUp())
			case !slices.Contains(d.Rules(), "budgets.hard_stop."+writ.BudgetWall):
				tx.Index(writ.IndexTodo, writ.TodoOverrun(a.RunID), min(end, s.Now+overrunAgainMs))
			default:
				out.Failed, run.Reason = true, reasonBudget
				if err := move(call, "runs.Overrun", s, &tx, &run, writ.RunFailed); err != nil {
					return tx, r, err
				}
				tx.Index(writ.IndexTodo, todoReap(run.ID), s.Now)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
