package writ

// TaskState is where a task stands.
type TaskState string

const (
	// TaskBlocked: by task.enqueue, until everything it depends on has come
	// about.
	TaskBlocked TaskState = "blocked"
	// TaskQueued: by task.enqueue, from blocked, or back from running by release,
	// expiry or a retryable failure. It lies in a lane, waits for a scope, or
	// waits for NotBefore.
	TaskQueued TaskState = "queued"
	// TaskRunning: by task.claim; one lease holds it.
	TaskRunning TaskState = "running"
	// TaskParked: a call about it needs approval. Its lease, if it has one, does
	// not run; it goes on when people have agreed.
	TaskParked TaskState = "parked"
	// TaskVerifying: by task.complete, when somebody else must accept the result.
	TaskVerifying TaskState = "verifying"
	// TaskDone: by task.complete, or from verifying by task.verify. Terminal.
	TaskDone TaskState = "done"
	// TaskFailed: by task.fail, not retryable; because something it depends on did
	// not come about; or because its deadline passed. Terminal.
	TaskFailed TaskState = "failed"
	// TaskDead: attempts used up; on the dead-letter list. Terminal.
	TaskDead TaskState = "dead"
	// TaskCancelled: by task.cancel or the end of its run. Terminal.
	TaskCancelled TaskState = "cancelled"
)

// TaskMoves are the legal moves of a task. running → running records a cancel
// request that the holder learns at its next heartbeat, or an artifact; parked → parked, that
// people decide about the call with other arguments now; blocked → blocked, that
// who manages the run lets it begin once nothing else keeps it, or that something
// was handed to it; queued → queued, that scopes are not kept for it any more.
var TaskMoves = Table[TaskState]{
	"":            {TaskQueued, TaskBlocked},
	TaskBlocked:   {TaskBlocked, TaskQueued, TaskFailed, TaskCancelled},
	TaskQueued:    {TaskQueued, TaskRunning, TaskParked, TaskFailed, TaskCancelled},
	TaskRunning:   {TaskRunning, TaskQueued, TaskParked, TaskVerifying, TaskDone, TaskFailed, TaskDead, TaskCancelled},
	TaskVerifying: {TaskQueued, TaskDone, TaskFailed, TaskCancelled},
	TaskParked:    {TaskParked, TaskQueued, TaskRunning, TaskFailed, TaskDead, TaskCancelled},
	TaskDone:      {},
	TaskFailed:    {},
	TaskDead:      {},
	TaskCancelled: {},
}

// FailureClass says why an attempt failed (closed list).
type FailureClass string

const (
	FailureDeterministic FailureClass = "deterministic" // it will fail the same way again
	FailureFreshness     FailureClass = "freshness"     // it worked on something out of date
	FailureDependency    FailureClass = "dependency"    // something it needs is missing or broken
	FailureCleanup       FailureClass = "cleanup"       // the work was done, tidying up was not
	FailurePolicy        FailureClass = "policy"        // it was not allowed what it needed
	FailureExternal      FailureClass = "external"      // something outside: a crash, an outage, a lost session
)

// DependencyPolicy says what becomes of a task when a task it depends on ends
// without a result.
type DependencyPolicy string

const (
	DependencyFail     DependencyPolicy = "fail"     // it fails; the default
	DependencySkip     DependencyPolicy = "skip"     // it is cancelled, which is no failure of its run
	DependencyContinue DependencyPolicy = "continue" // it goes on as if the other had ended well
)

// DependencyEnd says which end of a task another one waits for.
type DependencyEnd string

const (
	EndDone   DependencyEnd = "done"   // it gave a result, accepted where that is asked for; the default
	EndGiven  DependencyEnd = "given"  // it gave a result, whatever somebody may say of that: for what looks at it
	EndFailed DependencyEnd = "failed" // it failed, or its attempts are used up: there is something to make good
)

// Join says how much of what a task depends on must come about.
type Join string

const (
	JoinAll    Join = "all_of"        // all of it; the default
	JoinAny    Join = "any_of"        // the first of it; the rest goes on
	JoinFirst  Join = "first_success" // the first of it; the rest is cancelled
	JoinManual Join = "manual"        // all of it, and somebody who manages the run says so: task.admit
)

// Any says whether one is enough.
func (j Join) Any() bool { return j == JoinAny || j == JoinFirst }

// Dependency is a task of the same run that must end before another begins.
type Dependency struct {
	Key       string           `json:"key"`
	Task      TaskID           `json:"task_id"`
	When      DependencyEnd    `json:"when,omitempty"`       // "" is done
	OnFailure DependencyPolicy `json:"on_failure,omitempty"` // "" is fail
}

// CameAbout says whether a task has ended the way that d waits for.
func (d Dependency) CameAbout(t Task) bool {
	switch d.When {
	case EndFailed:
		return t.State == TaskFailed || t.State == TaskDead
	case EndGiven:
		return t.Gave()
	}
	return t.State == TaskDone
}

// Missed says what becomes of who waits for d when it ends another way. Where
// there turns out to be nothing to make good, nothing has failed.
func (d Dependency) Missed() DependencyPolicy {
	switch {
	case d.When == EndFailed:
		return DependencySkip
	case d.OnFailure == "":
		return DependencyFail
	}
	return d.OnFailure
}

// Gave says whether a task has given its result, be it accepted or not yet judged.
func (t Task) Gave() bool { return t.State == TaskDone || t.State == TaskVerifying }

// MaxDependencies is how many tasks one task may depend on.
const MaxDependencies = 32

// Verification says that a task's result counts only once somebody who had no
// part in its run has accepted it.
type Verification struct {
	Agents    []AgentID `json:"agents,omitempty"` // if present, only these may judge
	Gates     []string  `json:"gates,omitempty"`  // checks that must have passed; with a dot: gates
	MaxRework int64     `json:"max_rework"`       // how often it may be sent back
	Quorum    int64     `json:"quorum,omitempty"` // how many must accept it; 0 is one
}

// RefKind says what a reference of a handoff is.
type RefKind string

const (
	RefTask     RefKind = "task"     // key of a task of the run that is done
	RefReceipt  RefKind = "receipt"  // of the run
	RefArtifact RefKind = "artifact" // sha256 digest
	RefCommit   RefKind = "commit"   // hash, 40 or 64 hex digits
	RefFile     RefKind = "file"     // resource URI of scheme fs
)

// Valid says whether k is one of the kinds.
func (k RefKind) Valid() bool {
	switch k {
	case RefTask, RefReceipt, RefArtifact, RefCommit, RefFile:
		return true
	}
	return false
}

// HandoffRules say what must come with a task when it is handed on.
type HandoffRules struct {
	Refs []RefRule `json:"refs,omitempty"`
}

// RefRule asks for one reference; Kind "" is any.
type RefRule struct {
	Name string  `json:"name"`
	Kind RefKind `json:"kind,omitempty"`
}

// Verdict is what somebody says who judges.
type Verdict string

const (
	VerdictAccept Verdict = "accept"
	VerdictReject Verdict = "reject"
)

// Task is one unit of work. It changes only when its state or authority
// changes: heartbeats and progress live in counters and the deadline index.
type Task struct {
	ID           TaskID         `json:"id"`
	Run          RunID          `json:"run_id"`
	Key          string         `json:"key"` // unique in its run
	Summary      string         `json:"summary,omitempty"`
	Capability   CapabilityID   `json:"capability"`
	Args         RawObject      `json:"args,omitempty"`
	ArgsDigest   string         `json:"args_digest"` // sha256 of the request that enqueued it
	Labels       []Label        `json:"labels"`
	Domain       string         `json:"required_domain"`
	Concern      string         `json:"concern,omitempty"`
	Agents       []AgentID      `json:"required_agents,omitempty"`
	DependsOn    []Dependency   `json:"depends_on,omitempty"`
	Join         Join           `json:"join,omitempty"`     // "" is all_of
	Admitted     bool           `json:"admitted,omitempty"` // join manual: somebody said so
	Produces     []Produce      `json:"produces,omitempty"`
	Consumes     []Consume      `json:"consumes,omitempty"`
	Artifacts    []Artifact     `json:"artifacts,omitempty"` // of the present or last attempt
	Verify       *Verification  `json:"verify,omitempty"`
	Verified     bool           `json:"verified,omitempty"` // its result was accepted
	Rework       int64          `json:"rework,omitempty"`   // how often its result was sent back
	Safety       Safety         `json:"safety"`             // strongest safety any agent declared for the capability at enqueue
	Approval     ToolApproval   `json:"approval,omitempty"` // manual when any of them asked for it; "" is auto
	Sinks        []Sink         `json:"sinks,omitempty"`
	WriteScopes  []string       `json:"write_scopes,omitempty"` // canonical
	Handoff      *HandoffRules  `json:"handoff,omitempty"`      // it ends well only by being handed on, with these
	HandedTo     TaskID         `json:"handed_to,omitempty"`    // who goes on
	HandedBy     []TaskID       `json:"handed_by,omitempty"`    // whom it goes on from
	Chain        []AgentID      `json:"chain,omitempty"`        // who handed on what it comes from, the first one first
	KeptUntil    int64          `json:"kept_until,omitempty"`   // milliseconds: so long it holds its scopes before anybody takes it
	Priority     int64          `json:"priority"`               // 0–9, 9 first
	LeaseSeconds int64          `json:"lease_ttl_s"`
	MaxAttempts  int64          `json:"max_attempts"`
	Attempt      int64          `json:"attempt"` // 1 for the first claim
	BackoffMs    int64          `json:"backoff_ms"`
	NotBefore    int64          `json:"not_before,omitempty"`  // milliseconds
	DeadlineS    int64          `json:"deadline_s,omitempty"`  // seconds from when it was enqueued
	DeadlineAt   int64          `json:"deadline_at,omitempty"` // milliseconds: it fails unless it has given its result by then
	Budget       *TaskBudget    `json:"budget,omitempty"`      // of its own, beside its run's
	State        TaskState      `json:"state"`
	Lease        *Lease         `json:"lease,omitempty"`
	WaitsFor     ApprovalID     `json:"waits_for,omitempty"` // why it is parked
	ParkedAt     int64          `json:"parked_at,omitempty"` // milliseconds
	CancelAt     int64          `json:"cancel_requested_at,omitempty"`
	Owes         []CapabilityID `json:"owes,omitempty"`          // gates its result must pass: its own, and its holder's
	ResultDigest string         `json:"result_digest,omitempty"` // digest of the completing request
	DoneFence    int64          `json:"done_fence,omitempty"`    // fence the completing request carried
	Failure      *Failure       `json:"failure,omitempty"`
	EnqueuedBy   SessionID      `json:"enqueued_by,omitempty"`
	BytesCounted []string       `json:"bytes_counted,omitempty"` // quotas the bytes of its artifacts count in
	Counted      []string       `json:"counted,omitempty"`       // quotas it counts in while it is blocked or queued
	Behind       []AgentID      `json:"behind,omitempty"`        // agents of the session that enqueued it, and who are behind that: with them it is taken back
	CreatedAt    int64          `json:"created_at"`
	UpdatedAt    int64          `json:"updated_at"`
	Receipt      ReceiptID      `json:"receipt"`
}

// Lease is the right to act on a task. Its end is the score of the task in
// IndexLeases and never in here. Its fence is the version of the task document
// that the claim wrote; Fence is 0 until the document is written again.
type Lease struct {
	ID       LeaseID   `json:"id"`
	Session  SessionID `json:"session"`
	Agent    AgentID   `json:"agent"`
	Fence    int64     `json:"fence"`
	MaxUntil int64     `json:"max_until"`         // milliseconds: no heartbeat extends past it
	Prepaid  int64     `json:"prepaid,omitempty"` // steps the run paid at the claim for the call that ends the attempt

	// Awaits are tasks and runs of the tree that the holder said, by its last heartbeat,
	// it waits for: it goes on once they have ended.
	Awaits   []string `json:"awaits,omitempty"`
	AwaitsAt int64    `json:"awaits_at,omitempty"` // milliseconds: when it last began to

	// Held is what else the claim took of the run's budget for the attempt.
	Held map[string]int64 `json:"held,omitempty"`
	// Counted are the quotas the task counts in while the lease lasts.
	Counted []string `json:"counted,omitempty"`
}

// Failure says why a task ended or was retried.
type Failure struct {
	Class     FailureClass `json:"class"`
	Code      string       `json:"code"`
	Retryable bool         `json:"retryable"`
}

// HoldsScopes says whether a task has its write scopes: it runs, is parked with its
// lease, or was handed them.
func (t Task) HoldsScopes() bool { return t.Lease != nil || t.KeptUntil != 0 }

// FenceOf is the fence of a running task read at a version.
func (t Task) FenceOf(version int64) int64 {
	if t.Lease == nil {
		return 0
	}
	if t.Lease.Fence != 0 {
		return t.Lease.Fence
	}
	return version
}

// Lanes are the lanes a runnable task lies in: one directed lane per required
// agent, else the lane of its capability, domain and priority. More than one
// entry is harmless: the first claim wins, the others are dropped when met.
func (t Task) Lanes() []Lane {
	if len(t.Agents) == 0 {
		return []Lane{LaneOf(t.Capability, t.Domain, t.Priority)}
	}
	out := make([]Lane, 0, len(t.Agents))
	for _, a := range t.Agents {
		out = append(out, DirectedLane(a, t.Capability, t.Domain, t.Priority))
	}
	return out
}
