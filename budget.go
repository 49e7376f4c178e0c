package writ

import (
	"slices"
	"strconv"
)

// Dimensions of a run's budget. The unit is in the name; what has none is a
// number of things.
const (
	// BudgetSteps counts committed mutating calls of executor and verifier
	// sessions inside the run; heartbeats, releases and reads are free.
	BudgetSteps = "steps"
	// BudgetWall is the time since the run was created in which it was not
	// paused. It is a deadline, not a counter.
	BudgetWall    = "wall_ms"
	BudgetTokens  = "llm_tokens" // of language models, in and out
	BudgetMoney   = "cost_microusd"
	BudgetEgress  = "net_egress_bytes"
	BudgetIngress = "net_ingress_bytes"
	// BudgetStorage counts the bytes of task arguments, results and artifacts that
	// are kept for the run.
	BudgetStorage = "storage_write_bytes"
	BudgetCPU     = "sandbox_cpu_ms"
	// BudgetMemory is the most any attempt may need at a time: a peak.
	BudgetMemory = "sandbox_mem_peak_bytes"
	// BudgetRetries counts the attempts at tasks of the run beyond the first.
	BudgetRetries = "retries"
	// BudgetTaskRetries is how often any one task may be tried again: a peak.
	BudgetTaskRetries = "retries_per_step"
	BudgetChildren    = "children" // runs created inside the run
)

// BudgetDimensions lists what a run's budget may limit.
func BudgetDimensions() []string {
	return []string{
		BudgetSteps, BudgetWall, BudgetTokens, BudgetMoney, BudgetEgress, BudgetIngress, BudgetStorage,
		BudgetCPU, BudgetMemory, BudgetRetries, BudgetTaskRetries, BudgetChildren,
	}
}

// Measure says how use of a dimension comes together.
type Measure int

const (
	MeasureSum  Measure = iota // uses add up
	MeasurePeak                // the largest single use counts
	MeasureTime                // the clock counts
)

// MeasureOf says how use of a dimension comes together.
func MeasureOf(dimension string) Measure {
	switch dimension {
	case BudgetWall:
		return MeasureTime
	case BudgetMemory, BudgetTaskRetries:
		return MeasurePeak
	}
	return MeasureSum
}

// MaxRunMs is how long a run lives that states no other limit: 7 days. No run
// is without one.
const MaxRunMs = 7 * 24 * 3600 * 1000

// MaxRunDepth is how deep runs nest; a run without a parent is at depth 0.
const MaxRunDepth = 8

// StepsOfAttempt is what a claim costs: itself, and in advance the completion
// or failure that ends the attempt, so that no budget can run out under work
// that has begun. An attempt that ends in another way gives that part back.
const StepsOfAttempt = 2

// ToolCosts states the most that one attempt at a task with a tool uses of what
// only its operator can know. An attempt is charged this much, whatever it
// uses: what an agent reports of itself is not relied on.
type ToolCosts struct {
	Tokens  *int64 `json:"llm_tokens,omitempty" doc:"Tokens of language models, in and out." minimum:"0" maximum:"100000000000000"`
	Money   *int64 `json:"cost_microusd,omitempty" doc:"Millionths of a US dollar." minimum:"0" maximum:"100000000000000"`
	Egress  *int64 `json:"net_egress_bytes,omitempty" doc:"Bytes sent outside." minimum:"0" maximum:"100000000000000"`
	Ingress *int64 `json:"net_ingress_bytes,omitempty" doc:"Bytes received from outside." minimum:"0" maximum:"100000000000000"`
	CPU     *int64 `json:"sandbox_cpu_ms,omitempty" doc:"Milliseconds of processor time." minimum:"0" maximum:"100000000000000"`
	Memory  *int64 `json:"sandbox_mem_peak_bytes,omitempty" doc:"Bytes of memory at a time." minimum:"0" maximum:"100000000000000"`
}

// Each calls f for every dimension a tool can state, with what it states; nil
// when it says nothing of it. c may be nil.
func (c *ToolCosts) Each(f func(dimension string, amount *int64)) {
	if c == nil {
		c = &ToolCosts{}
	}
	f(BudgetTokens, c.Tokens)
	f(BudgetMoney, c.Money)
	f(BudgetEgress, c.Egress)
	f(BudgetIngress, c.Ingress)
	f(BudgetCPU, c.CPU)
	f(BudgetMemory, c.Memory)
}

// Copy returns costs that share no memory with c.
func (c *ToolCosts) Copy() *ToolCosts {
	if c == nil {
		return nil
	}
	own := func(p *int64) *int64 {
		if p == nil {
			return nil
		}
		v := *p
		return &v
	}
	return &ToolCosts{own(c.Tokens), own(c.Money), own(c.Egress), own(c.Ingress), own(c.CPU), own(c.Memory)}
}

// Limited is what the run may use of a dimension: its budget and its grants. ok
// is false when the run does not limit it.
func (r Run) Limited(dimension string) (limit int64, ok bool) {
	limit, ok = r.Budget[dimension]
	if !ok {
		return 0, false
	}
	for _, g := range r.Grants {
		if g.Dimension == dimension {
			limit += g.Add
		}
	}
	return min(limit, MaxAmount), true
}

// Limit is Limited for a dimension the run is known to limit.
func (r Run) Limit(dimension string) int64 {
	limit, _ := r.Limited(dimension)
	return limit
}

// Metered keeps of a charge what the run limits and what adds up there: that
// much is counted.
func (r Run) Metered(charge map[string]int64) map[string]int64 {
	var out map[string]int64
	for dim, n := range charge {
		if _, limits := r.Budget[dim]; limits && n > 0 && MeasureOf(dim) == MeasureSum {
			if out == nil {
				out = map[string]int64{}
			}
			out[dim] = n
		}
	}
	return out
}

// Worked is how long the run has existed without being paused, in milliseconds.
func (r Run) Worked(now int64) int64 {
	if r.PausedAt > 0 {
		now = r.PausedAt
	}
	return max(0, now-r.CreatedAt-r.PausedMs)
}

// Resume ends the pause of a run, if it is in one.
func (r *Run) Resume(now int64) {
	if r.PausedAt > 0 { // 0 also in runs that were paused before this was kept
		r.PausedMs, r.PausedAt = r.PausedMs+now-r.PausedAt, 0
	}
}

// Closing is the state an automatic run goes to that is sealed, when ended of
// its tasks and child runs end in this transaction, bad of them not well. It
// wants the counters RunOpenTasks and RunBadTasks, and guards them at what was
// judged: whoever ends the last task expects the run's document, so of two that
// end at once one sees the other.
func (r *Run) Closing(s Snapshot, tx *Tx, ended, bad int64) RunState {
	open, failed := RunOpenTasks(r.ID), RunBadTasks(r.ID)
	if s.Counters[open] > ended {
		tx.Within(open, ended+1, MaxAmount)
		return RunActive
	}
	tx.Within(open, 0, ended)
	switch {
	case bad > 0:
	case s.Counters[failed] > 0:
		tx.Within(failed, 1, MaxAmount)
	default:
		tx.Within(failed, 0, 0)
		if r.ClosePolicy == CloseVerifier {
			return RunVerifying
		}
		return RunDone
	}
	r.Reason = ReasonTaskFailed
	return RunFailed
}

// ReasonTaskFailed is why a sealed run failed when one of its tasks did.
const ReasonTaskFailed = "task_failed"

// WorkedUp is when a run that is not paused will have worked for ms.
func (r Run) WorkedUp(ms int64) int64 { return r.CreatedAt + r.PausedMs + ms }

// LastsTo is when a run ends at the latest, paused or let go on by policy though its
// time is up: people who give it time give it that much longer.
func (r Run) LastsTo() int64 {
	return r.CreatedAt + MaxRunMs + r.Limit(BudgetWall) - r.Budget[BudgetWall]
}

// TimeUp is when to look whether the time of an active run is up.
func (r Run) TimeUp() int64 { return min(r.LastsTo(), r.WorkedUp(r.Limit(BudgetWall))) }

// BudgetUsed counts what a run has used of a dimension: what running attempts
// and child runs hold of it is in there too.
func BudgetUsed(id RunID, dimension string) Counter { return Counter{"run/" + string(id), dimension} }

// BudgetHeld counts how much of that is held by attempts that have not ended
// and by child runs that have not given back.
func BudgetHeld(id RunID, dimension string) Counter {
	return Counter{"run/" + string(id), "held." + dimension}
}

// BudgetWarned is the highest mark, in percent, that a run has been warned of.
func BudgetWarned(id RunID, dimension string) Counter {
	return Counter{"run/" + string(id), "warned." + dimension}
}

// BudgetMarks are the shares of a limit that policy can tell apart, in percent. A
// run is warned at those below the last.
var BudgetMarks = [...]int64{50, 80, 100}

// BudgetWarning says that a call took a run to a mark of its budget, for the
// first time.
type BudgetWarning struct {
	Run       RunID  `json:"run_id"`
	Dimension string `json:"dimension"`
	Percent   int64  `json:"percent"`
}

// EscrowState is where the budget stands that a parent run set aside for a child.
type EscrowState string

const (
	// EscrowHeld: by run.create. The parent has it no more, the child spends it.
	EscrowHeld EscrowState = "held"
	// EscrowSettled: the child has ended and what it did not use went back.
	// Terminal.
	EscrowSettled EscrowState = "settled"
)

// EscrowMoves are the legal moves of an escrow.
var EscrowMoves = Table[EscrowState]{
	"":            {EscrowHeld},
	EscrowHeld:    {EscrowSettled},
	EscrowSettled: {},
}

// Escrow is the budget a child run took out of its parent's when it was
// created. Nothing in the tree can spend more than its root was given: a child
// spends only what its parent cannot any more.
type Escrow struct {
	Child     RunID            `json:"child_run_id"`
	Parent    RunID            `json:"parent_run_id"`
	State     EscrowState      `json:"state"`
	Amounts   map[string]int64 `json:"amounts"`
	Returned  map[string]int64 `json:"returned,omitempty"` // when it was settled
	CreatedAt int64            `json:"created_at"`
	UpdatedAt int64            `json:"updated_at"`
	Receipt   ReceiptID        `json:"receipt"`
}

// EscrowKey is the document of what a child run was given.
func EscrowKey(child RunID) Key { return Key("escrow/" + string(child)) }

// RunChildren lists the children of a run whose budget is not settled,
// RunChildrenOpen those of them that have not ended.
func RunChildren(id RunID) Index     { return Index("list/children/" + string(id)) }
func RunChildrenOpen(id RunID) Index { return Index("list/children/" + string(id) + "/open") }

// Follow-ups of runs in IndexTodo.

// TodoExhaust asks to look whether a run has so much left of a dimension, and
// to fail it if not: "exhaust <run> <dimension> <amount>".
func TodoExhaust(id RunID, dimension string, amount int64) string {
	return "exhaust " + string(id) + " " + dimension + " " + strconv.FormatInt(amount, 10)
}

// TodoOverrun asks to look whether a run has used up its time.
func TodoOverrun(id RunID) string { return "overrun " + string(id) }

// TodoStall asks to look whether anything in a run can go on.
func TodoStall(id RunID) string { return "stall " + string(id) }

// TodoSettle asks to give a parent run back what an ended child did not use.
func TodoSettle(child RunID) string { return "settle " + string(child) }

// TodoCascade asks to end the children of a run that has ended.
func TodoCascade(id RunID) string { return "cascade " + string(id) }

// End notes in a run that it has ended, and adds to the transaction what follows
// beside what becomes of its tasks. A pause ends with the run.
func (r *Run) End(tx *Tx, now int64) {
	r.Resume(now)
	r.WaitsFor = ""
	tx.Unindex(IndexTodo, TodoOverrun(r.ID))
	tx.Unindex(IndexTodo, TodoStall(r.ID))
	r.StalledAt = 0
	if r.Workflow != nil && !r.Workflow.Unfolded {
		r.Workflow.Let(tx, r.ID)
	}
	if r.Parent != "" {
		tx.Unindex(RunChildrenOpen(r.Parent), string(r.ID))
		tx.Index(IndexTodo, TodoSettle(r.ID), now)
	}
	if r.Nests {
		tx.Index(IndexTodo, TodoCascade(r.ID), now)
	}
}

// Arrive keeps what goes with the state of a run that comes from another: what it
// holds while it lives, and the list of those that wait for a verdict, in which no
// time runs.
func (r *Run) Arrive(tx *Tx, from RunState, now int64) {
	if from == RunVerifying {
		tx.Unindex(IndexClose, string(r.ID))
		r.Resume(now)
	}
	switch {
	case RunMoves.Terminal(r.State):
		r.End(tx, now)
	case r.State == RunVerifying:
		tx.Index(IndexClose, string(r.ID), 0)
		r.PausedAt, r.StalledAt = now, 0
	}
}

// Charge states what a call takes of the budget of its run, beside the steps of
// its capability: an amount per dimension. A dimension that is not named is not
// touched; BudgetWall is named, with no amount, by calls that begin something
// and so need time.
type Charge map[string]int64

// Dimensions lists the dimensions of a set of amounts, sorted.
func Dimensions(amounts map[string]int64) []string {
	out := make([]string, 0, len(amounts))
	for dim := range amounts {
		out = append(out, dim)
	}
	slices.Sort(out)
	return out
}
