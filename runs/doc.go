// Package runs plans the life of a run: create, seal, cancel and its failure
// at a hard limit; and how runs nest: a child spends what its parent set aside
// for it, and what it leaves goes back when it has ended. What happens to the tasks of a run that ended is not its
// business; it leaves a due entry "run <id>" for whoever cancels them.
//
// It is pure planning: it holds no store and no clock. Its invariants: a run
// ends once; an automatic run ends in the commit in which it is both sealed
// and without open tasks, whichever of the two comes last; a run can be
// changed by operators and by its owner, and is unknown to other
// orchestrators.
package runs

import "github.com/writ-gateway/writ"

// Config is what the room needs from outside.
type Config struct {
	// Verdicts checks what verifiers sign. nil: no verdict that is signed, or must
	// be, counts.
	Verdicts writ.Verdicts
	// Workflow checks the workflow of a run with a budget, and says how many steps it
	// has, what it gives and all that is wrong with it, by pointers into the arguments of
	// run.create. It must be pure. nil: runs have none.
	Workflow func(graph writ.RawObject, budget map[string]int64) (steps int64, gives []writ.RunOutput, wrong []writ.FieldError)
}

// Capabilities are the verbs of this room.
func Capabilities(cfg Config) []*writ.Capability {
	return []*writ.Capability{create(cfg), unfold(), seal(), cancel(), closing(cfg), get(), list(), budget(), exhaust(), overrun(), settle(), cascade(), shred()}
}

// Todo members this room leaves to others.
func todoReap(id writ.RunID) string  { return "run " + string(id) }
func todoOffer(id writ.RunID) string { return "offer " + string(id) }

// readRun reads a run with its counters: all of them, since which of them it
// limits is known only once it is read.
func readRun(id writ.RunID) writ.ReadSet {
	rs := writ.ReadSet{Docs: []writ.Key{writ.RunKey(id)}}
	rs.Counters = append(counters(id, writ.BudgetDimensions()), writ.RunUnfolded(id))
	return rs
}

// counters are those of a run that limits some dimensions.
func counters(id writ.RunID, dims []string) []writ.Counter {
	out := []writ.Counter{writ.RunOpenTasks(id), writ.RunBadTasks(id), writ.RunEffects(id)}
	for _, dim := range dims {
		if writ.MeasureOf(dim) != writ.MeasureTime {
			out = append(out, writ.BudgetUsed(id, dim))
		}
	}
	return out
}

// mayAct says whether a caller may change a run.
func mayAct(c writ.Caller, r writ.Run) bool {
	return c.Role == writ.RoleOperator || c.Role == writ.RoleSystem || c.Principal == r.Owner
}

// maySee says whether a caller may know a run.
func maySee(c writ.Caller, r writ.Run) bool {
	return c.Role != writ.RoleOrchestrator || c.Principal == r.Owner
}

func noRun(op string) error {
	return writ.Refuse(writ.CodeNotFound, op, "there is no such run, or it is not yours", "run.list shows the runs you can see")
}

// load reads a run the caller may act on, at the version If-Match names.
func load(call *writ.Call, op string, s writ.Snapshot, id writ.RunID) (writ.Run, error) {
	run, version, ok, err := writ.Get[writ.Run](s, writ.RunKey(id))
	switch {
	case err != nil:
		return run, err
	case !ok || !mayAct(call.Caller, run):
		return run, noRun(op)
	}
	return run, call.Match(op, version)
}

// move checks a move and writes the run in its new state.
func move(call *writ.Call, op string, s writ.Snapshot, tx *writ.Tx, run *writ.Run, to writ.RunState) error {
	from := run.State
	if !writ.RunMoves.May(from, to) {
		return writ.IllegalMove(op, writ.ObjectRun, string(from), string(to))
	}
	run.State, run.UpdatedAt = to, s.Now
	run.Arrive(tx, from, s.Now)
	run.Receipt = writ.ReceiptID(call.NewID(writ.PrefixReceipt, 0))
	tx.Move(writ.ObjectRun, string(run.ID), string(from), string(to))
	return tx.PutDoc(s, writ.RunKey(run.ID), writ.ObjectRun, *run)
}

// describe tells policy which run a call is about, in the state it was read.
func describe(s writ.Snapshot, id writ.RunID) (writ.Subject, error) {
	run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(id))
	if err != nil || !ok {
		return writ.Subject{}, err
	}
	return writ.Subject{Run: &writ.RunFacts{ID: id, State: run.State}}, nil
}

// Why a run ended, beside the reasons a caller may give.
const (
	reasonBudget    = "budget_exceeded"
	reasonLifetime  = "lifetime"
	reasonRequested = "requested"
	reasonParent    = "parent_ended"
	reasonVerdict   = "verification"
	reasonWorkflow  = "workflow" // a step of it could not be made a task
)

// invalid refuses one argument.
func invalid(op, pointer, msg string) *writ.Error {
	return &writ.Error{
		Code: writ.CodeInputInvalid, Op: op, Msg: "an argument is not acceptable", Hint: "correct every field named in errors",
		Fields: []writ.FieldError{{Pointer: pointer, Msg: msg}},
	}
}
