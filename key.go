package writ

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// Names inside a shard. They are built by the functions below from checked
// ids and slugs only; a store refuses any other byte than [A-Za-z0-9._/@-].
type (
	// Key names a document.
	Key string
	// Counter is one field of an entity's counters.
	Counter struct{ Entity, Field string }
	// Index names a sorted set of members with scores. An index whose name
	// begins with "v/" is small and versioned: its version changes whenever a
	// member or score does, and Tx.ExpectRange can guard it.
	Index string
	// Lane names a queue of entries, "<priority>/<capability>/<domain>" or
	// "<priority>/<capability>/<domain>/@<agent>".
	Lane string
)

// Versioned says whether the index carries a version.
func (i Index) Versioned() bool { return strings.HasPrefix(string(i), "v/") }

// ValidName says whether s may be used in a store key.
func ValidName(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '/', c == '@', c == '-':
		default:
			return false
		}
	}
	return true
}

// Documents.
const GateKey Key = "gate"

func SessionKey(id SessionID) Key { return Key("session/" + string(id)) }
func AgentKey(id AgentID) Key     { return Key("agent/" + string(id)) }
func TaskKey(id TaskID) Key       { return Key("task/" + string(id)) }
func RunKey(id RunID) Key         { return Key("run/" + string(id)) }

// ResultKey is where the result of a task is kept: beside the task, since
// arguments and result together may be larger than one document.
func ResultKey(id TaskID) Key { return Key("result/" + string(id)) }

// HandoffKey is where the holder of a task has left word for whoever goes on.
func HandoffKey(id TaskID) Key { return Key("handoff/" + string(id)) }

// IdempotencyDoc is where the reply to a caller's Idempotency-Key is kept. Keys
// belong to the principal in one role and for one agent: nobody else can read
// or spoil them. The caller's words are hashed and never become part of a name.
func IdempotencyDoc(c Caller, key string) Key {
	h := sha256.New()
	for _, s := range []string{string(c.Principal), string(c.Role), string(c.Agent), key} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return Key("idem/" + hex.EncodeToString(h.Sum(nil)[:16]))
}

// TaskNameKey maps the caller's task key to its task: unique in the run.
func TaskNameKey(run RunID, key string) Key { return Key("taskname/" + string(run) + "/" + key) }

// Counters.
func RunOpenTasks(id RunID) Counter            { return Counter{"run/" + string(id), "open"} }
func RunBadTasks(id RunID) Counter             { return Counter{"run/" + string(id), "bad"} }
func AgentRunning(id AgentID) Counter          { return Counter{"agent/" + string(id), "running"} }
func RunSequence(id RunID) Counter             { return Counter{"run/" + string(id), "seq"} }
func RegistryRevision() Counter                { return Counter{"registry", "revision"} }
func TaskProgress(id TaskID, f string) Counter { return Counter{"task/" + string(id), f} }

// TaskLease is when the lease of a task ends, in milliseconds; 0: nobody has one.
func TaskLease(id TaskID) Counter { return TaskProgress(id, "lease") }

// TaskUnmet counts what a blocked task still waits for.
func TaskUnmet(id TaskID) Counter { return TaskProgress(id, "unmet") }

// TaskPlace says where a queued task that has one lane is: 1, offered there; 2, in
// the backlog of its run; 0, neither, since it waits for something.
func TaskPlace(id TaskID) Counter { return TaskProgress(id, "place") }

// RunOffered counts the tasks of a run that are offered in a lane, RunBacklog those
// that wait until some of these are gone.
func RunOffered(id RunID, l Lane) Counter {
	return Counter{"run/" + string(id) + "/offered", string(l)}
}

func RunBacklog(id RunID, l Lane) Counter {
	return Counter{"run/" + string(id) + "/backlog", string(l)}
}

// Indexes. Lists hold ULIDs or slugs with score 0, so a lexical range is the
// order of creation and a cursor is the last member seen.
const (
	IndexRuns     Index = "list/runs"
	IndexAgents   Index = "list/agents"
	IndexSessions Index = "list/sessions"
	IndexDead     Index = "list/dead"         // dead-letter list: task ids
	IndexVerify   Index = "list/verify/tasks" // tasks that wait for a verdict
	IndexClose    Index = "list/verify/runs"  // runs that wait for a verdict
	IndexTools    Index = "list/tools"        // "<capability> <agent>" of active agents
	IndexOwners   Index = "list/owners"       // "<domain> <concern> <agent>" of active agents
	IndexRoutes   Index = "list/routes"       // "<way><hash of a word> <100 - priority> <agent>" of active agents
	IndexLeases   Index = "due/lease"         // task id, score: end of the lease
	IndexReady    Index = "due/ready"         // task id, score: not before
	IndexBeats    Index = "due/beat"          // session id, score: heartbeat deadline
	IndexLives    Index = "due/life"          // session id, score: end of life
	IndexTodo     Index = "due/todo"          // "<kind> <id>": follow-up work, score: when
	IndexUnfold   Index = "due/unfold"        // run id, score: from when on steps of its workflow are to be made tasks
	IndexScopes   Index = "scope/x"           // "<scope> <task>" or "<scope> <session>": who holds which write scope
)

// OwnerRange are the members of IndexOwners for a concern of a domain.
func OwnerRange(domain, concern string) Range {
	p := domain + " " + concern
	return Range{Index: IndexOwners, From: p + " ", To: p + "!", Limit: 2} // '!' follows ' '
}

// SetGoing lists the open tasks, or the approvals that count yet, that an agent's
// sessions, or those opened by them, asked for. kind is ObjectTask or ObjectApproval.
func SetGoing(kind string, id AgentID) Index { return Index("list/by/" + kind + "/" + string(id)) }

// RunTasks lists the tasks of a run by id; RunTasksIn those in one state.
func RunTasks(id RunID) Index { return Index("list/tasks/" + string(id)) }

func RunTasksIn(id RunID, s TaskState) Index {
	return Index("list/tasks/" + string(id) + "/" + string(s))
}

// Backlog holds "<lane> <task>" of the tasks that RunBacklog counts.
func Backlog(id RunID) Index { return Index("list/backlog/" + string(id)) }

// BacklogMember is the member of Backlog for a task; BacklogOf are those of one lane,
// the oldest first.
func BacklogMember(l Lane, id TaskID) string { return string(l) + " " + string(id) }

func BacklogOf(id RunID, l Lane, limit int) Range {
	return Range{Index: Backlog(id), From: string(l) + " ", To: string(l) + "!", Limit: limit} // '!' follows ' '
}

// AgentSessions holds the live sessions of an agent, SessionTasks the tasks a
// session holds a lease on.
func AgentSessions(id AgentID) Index  { return Index("v/sessions/" + string(id)) }
func SessionTasks(id SessionID) Index { return Index("v/held/" + string(id)) }

// WaitingOn holds "<task> <lane>", with the run of the task behind it if that is its one
// lane, score 9 - priority, of queued tasks that wait until a task or a session gives up
// its scopes; BlockedOn is the other direction.
func WaitingOn[ID ~string](holder ID) Index { return Index("v/waiting/" + string(holder)) }

// SplitWaiter takes a member of WaitingOn apart; run is empty where it does not say one.
func SplitWaiter(member string) (t TaskID, l Lane, run RunID) {
	id, rest, _ := strings.Cut(member, " ")
	lane, r, _ := strings.Cut(rest, " ")
	return TaskID(id), Lane(lane), RunID(r)
}
func BlockedOn(task TaskID) Index { return Index("v/blocked/" + string(task)) }

// RunOwed holds "<gate> <task>" of the tasks of a run whose result has not passed a gate
// that it must.
func RunOwed(id RunID) Index { return Index("list/owed/" + string(id)) }

// GatesKey is where it is noted which gates the result of a task has passed.
func GatesKey(id TaskID) Key { return Key("gates/" + string(id)) }

// Dependents holds the blocked tasks that wait for a task to end; those that wait for
// its result only, with a + before them, and so first.
func Dependents(task TaskID) Index { return Index("v/dependents/" + string(task)) }

// Refused holds, per lane without its priority, tasks that some agents were
// refused; Refusers says which agents, and under which policies.
func Refused(c CapabilityID, domain string) Index {
	return Index("refused/" + string(c) + "/" + domain)
}
func Refusers(task TaskID) Index { return Index("v/refusers/" + string(task)) }

// Refuser is the member of Refusers for an agent a task was refused to. Under
// other policies the same agent may be asked again. The revision comes first,
// so that one range finds every refusal under it.
func Refuser(a AgentID, policyRevision string) string { return policyRevision + " " + string(a) }

// RefuserAs is Refuser for a session that has write claims: what it was refused for
// them, other sessions of its agent are not.
func RefuserAs(a AgentID, by SessionID, policyRevision string) string {
	m := Refuser(a, policyRevision)
	if by != "" {
		m += " " + string(by)
	}
	return m
}

// LaneOf is the lane of a capability, domain and priority.
func LaneOf(c CapabilityID, domain string, priority int64) Lane {
	return Lane(strconv.FormatInt(priority, 10) + "/" + string(c) + "/" + domain)
}

// DirectedLane is the lane of work only one agent may take.
func DirectedLane(a AgentID, c CapabilityID, domain string, priority int64) Lane {
	return LaneOf(c, domain, priority) + Lane("/@"+string(a))
}

// Split takes a lane apart; agent is empty for a common lane.
func (l Lane) Split() (priority int64, c CapabilityID, domain string, agent AgentID) {
	p := strings.SplitN(string(l), "/", 4)
	if len(p) < 3 {
		return 0, "", "", ""
	}
	priority, _ = strconv.ParseInt(p[0], 10, 64)
	if len(p) == 4 {
		agent = AgentID(strings.TrimPrefix(p[3], "@"))
	}
	return priority, CapabilityID(p[1]), p[2], agent
}
