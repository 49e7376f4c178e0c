package writ

import "strings"

// RunState is where a run stands.
type RunState string

const (
	// RunActive: by run.create.
	RunActive RunState = "active"
	// RunPausedApproval: a call needs more budget than there is, and people
	// were asked for it. Left when they have decided, or when nobody did in time.
	RunPausedApproval RunState = "paused_approval"
	// RunVerifying: a sealed run whose last task ended well, close_policy
	// verifier. Nothing in it moves any more until somebody who had no part in
	// it accepts it, or sends it back.
	RunVerifying RunState = "verifying"
	// RunDone: a sealed run whose last task ended well, close_policy auto; or
	// from verifying by run.close. Terminal.
	RunDone RunState = "done"
	// RunFailed: a hard limit was met, a task of a sealed run did not end
	// well, or it was sent back too often. Terminal.
	RunFailed RunState = "failed"
	// RunCancelled: by run.cancel. Terminal.
	RunCancelled RunState = "cancelled"
)

// RunMoves are the legal moves of a run. active → active records run.seal and
// grants, paused_approval → paused_approval that it waits for another approval.
var RunMoves = Table[RunState]{
	"":                {RunActive},
	RunActive:         {RunActive, RunPausedApproval, RunVerifying, RunDone, RunFailed, RunCancelled},
	RunVerifying:      {RunActive, RunDone, RunFailed, RunCancelled},
	RunPausedApproval: {RunPausedApproval, RunActive, RunVerifying, RunDone, RunFailed, RunCancelled},
	RunDone:           {},
	RunFailed:         {},
	RunCancelled:      {},
}

// ClosePolicy says who ends a run.
type ClosePolicy string

const (
	CloseAuto     ClosePolicy = "auto"     // sealed and every task terminal
	CloseManual   ClosePolicy = "manual"   // only run.cancel, or a hard limit
	CloseVerifier ClosePolicy = "verifier" // as auto, once somebody who had no part in it has accepted it
)

// StallPolicy says what becomes of a run in which nothing can go on.
type StallPolicy string

const (
	StallNotify StallPolicy = "notify" // it is noted, and a receipt says so
	StallFail   StallPolicy = "fail"   // it fails if that is still so after the same time again
)

// StallAfterSeconds is after how long without anything that could go on a run is
// stalled, unless it says so itself.
const StallAfterSeconds = 60

// MaxRunRework is how often a run may be sent back by who judges it.
const MaxRunRework = 3

// Concludes says whether the run comes to its end by itself once it is sealed and
// every task has ended: to a verdict, or to done.
func (r Run) Concludes() bool { return r.ClosePolicy != CloseManual }

// Run is a container of work with an owner, a budget and an end. What moves
// per call (steps, open tasks) is a counter.
type Run struct {
	ID          RunID            `json:"id"`
	Title       string           `json:"title,omitempty"`
	Goal        string           `json:"goal,omitempty"`
	State       RunState         `json:"state"`
	ClosePolicy ClosePolicy      `json:"close_policy"`
	CloseQuorum int64            `json:"close_quorum,omitempty"` // how many verifiers must accept it; 0 is one
	Sealed      bool             `json:"sealed"`                 // no task may be added any more
	Rework      int64            `json:"rework,omitempty"`       // how often it was sent back
	Budget      map[string]int64 `json:"budget"`                 // dimension → limit, as created
	Grants      []Grant          `json:"grants,omitempty"`
	WaitsFor    ApprovalID       `json:"waits_for,omitempty"`     // why it is paused
	StallAfter  int64            `json:"stall_after_s,omitempty"` // seconds nothing can go on before that is noted; 0 in runs of before there was this
	OnStall     StallPolicy      `json:"on_stall,omitempty"`      // "" is notify
	StalledAt   int64            `json:"stalled_at,omitempty"`    // milliseconds: since when nothing in it can go on
	PausedAt    int64            `json:"paused_at,omitempty"`     // milliseconds: since when
	PausedMs    int64            `json:"paused_ms,omitempty"`     // how long it was paused before
	Parent      RunID            `json:"parent_run_id,omitempty"`
	Root        RunID            `json:"root_run_id,omitempty"` // of the tree; absent in a run without a parent
	Depth       int64            `json:"depth,omitempty"`
	Workflow    *RunWorkflow     `json:"workflow,omitempty"` // it was created with
	Nests       bool             `json:"nests,omitempty"`    // it has, or had, child runs
	Owner       PrincipalID      `json:"owner"`
	OwnerRole   Role             `json:"owner_role"`
	CreatedBy   SessionID        `json:"created_by,omitempty"`
	Reason      string           `json:"reason,omitempty"` // closed enum: why it ended
	CreatedAt   int64            `json:"created_at"`
	UpdatedAt   int64            `json:"updated_at"`
	Receipt     ReceiptID        `json:"receipt"`
}

// RunWorkflow is the workflow a run was created with. Its bytes are a blob until
// every step is a task of the run; from then on the tasks say all there is.
type RunWorkflow struct {
	Digest   string `json:"digest"`
	Steps    int64  `json:"steps"`
	Open     bool   `json:"open,omitempty"`     // the run is not sealed with the last step
	Unfolded bool   `json:"unfolded,omitempty"` // every step is a task

	Outputs []RunOutput `json:"outputs,omitempty"` // what the run is to give, by name

	Bytes   int64    `json:"bytes,omitempty"`         // how long it is
	Counted []string `json:"bytes_counted,omitempty"` // quotas these count in while they are kept

	// The step that waits to be made, or could not be, and why.
	Step   string       `json:"step,omitempty"`
	Code   Code         `json:"code,omitempty"`
	Denial ReceiptID    `json:"denial,omitempty"`
	Wrong  []FieldError `json:"wrong,omitempty"` // in it, at most MaxStepErrors
}

// RunOutput is an artifact of a step that is a result of the run.
type RunOutput struct {
	Name     string `json:"name"`
	Step     string `json:"step" doc:"Key of the step, and of its task."`
	Artifact string `json:"artifact" doc:"Name of the artifact there."`
}

// MaxOutputs is how many results a run may name.
const MaxOutputs = 16

// MaxStepErrors is how much of what is wrong with a step its run remembers.
const MaxStepErrors = 8

// Hold keeps the bytes of a workflow until every step is a task, counted where they
// count, and has it looked at.
func (w *RunWorkflow) Hold(tx *Tx, id RunID, now int64) {
	tx.Index(BlobHolders(strings.TrimPrefix(w.Digest, "sha256:")), string(id), 0)
	tx.Index(IndexUnfold, string(id), now)
	tx.Recount(nil, 0, w.Counted, w.Bytes)
}

// Let is the end of that.
func (w *RunWorkflow) Let(tx *Tx, id RunID) {
	tx.Unindex(BlobHolders(strings.TrimPrefix(w.Digest, "sha256:")), string(id))
	tx.Unindex(IndexUnfold, string(id))
	tx.Recount(w.Counted, w.Bytes, nil, 0)
}

// Unfolding says that steps of the run's workflow are not its tasks yet. Nothing in
// it begins before they are, and nobody else adds tasks to it.
func (r Run) Unfolding() bool {
	return r.Workflow != nil && !r.Workflow.Unfolded && !RunMoves.Terminal(r.State)
}

// Begins says that tasks of the run may begin.
func (r Run) Begins() bool { return r.State == RunActive && !r.Unfolding() }

// RunUnfolded counts the steps of a run's workflow that are its tasks.
func RunUnfolded(id RunID) Counter { return Counter{"run/" + string(id), "unfolded"} }

// MaxWorkflowSteps is how many steps a workflow may have, MaxWorkflowBytes how long it
// may be.
const (
	MaxWorkflowSteps = 10_000
	MaxWorkflowBytes = 4 << 20
)

// Grant is more of one dimension than a run was created with. Grants are only
// ever added, each by one approval.
type Grant struct {
	Approval  ApprovalID `json:"approval_id"`
	Dimension string     `json:"dimension"`
	Add       int64      `json:"add"`
	At        int64      `json:"at"` // milliseconds
}

// MaxGrants bounds the grants of a run.
const MaxGrants = 256

// GateState is the state of a shard's gate.
type GateState string

const GateOpen GateState = "open"

// GateMoves: a gate is opened once and then only changed.
var GateMoves = Table[GateState]{
	"":       {GateOpen},
	GateOpen: {GateOpen},
}

// Gate is the one document every commit of a shard re-checks: a replica that
// holds other roles, policies or another receipt key than these cannot commit.
type Gate struct {
	State            GateState `json:"state"`
	PolicyRevision   string    `json:"policy_revision"`
	BindingsRevision string    `json:"bindings_revision"`
	ReceiptKeyID     string    `json:"receipt_key_id"`
	Bundle           BundleID  `json:"bundle,omitempty"` // where the policies are; absent in stores of before there were bundles
	Quotas           int64     `json:"quotas,omitempty"` // how many there are; see QuotasKey
	Schema           int       `json:"schema"`           // the newest document schema a writer must know
	Receipt          ReceiptID `json:"receipt"`
}
