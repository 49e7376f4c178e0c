package queue

import (
	"cmp"

	"github.com/writ-gateway/writ"
)

// notFound is the one answer for ids that do not exist and for those the
// caller may not know.
func notFound(op, kind string) *writ.Error {
	return writ.Refuse(writ.CodeNotFound, op, "there is no such "+kind, "check the id")
}

// invalid refuses one argument.
func invalid(op, pointer, msg string) *writ.Error {
	e := writ.Refuse(writ.CodeInputInvalid, op, "an argument is not acceptable", "correct the argument named in errors")
	e.Fields = []writ.FieldError{{Pointer: pointer, Msg: msg}}
	return e
}

// loadTask finds a task and its version.
func loadTask(op string, s writ.Snapshot, id writ.TaskID) (writ.Task, int64, error) {
	t, v, ok, err := writ.Get[writ.Task](s, writ.TaskKey(id))
	if err != nil {
		return t, 0, err
	}
	if !ok {
		return t, 0, notFound(op, "task")
	}
	return t, v, nil
}

// loadRun finds a run.
func loadRun(op string, s writ.Snapshot, id writ.RunID) (writ.Run, error) {
	r, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(id))
	if err != nil {
		return r, err
	}
	if !ok {
		return r, notFound(op, "run")
	}
	return r, nil
}

// loadBoth finds a task, its version and its run.
func loadBoth(op string, s writ.Snapshot, id writ.TaskID) (writ.Task, int64, writ.Run, error) {
	t, version, err := loadTask(op, s, id)
	if err != nil {
		return t, 0, writ.Run{}, err
	}
	r, err := loadRun(op, s, t.Run)
	return t, version, r, err
}

// loadAgent finds an agent; ok is false when there is none.
func loadAgent(s writ.Snapshot, id writ.AgentID) (a writ.Agent, ok bool, err error) {
	if id == "" {
		return a, false, nil
	}
	a, _, ok, err = writ.Get[writ.Agent](s, writ.AgentKey(id))
	return a, ok, err
}

// peek is a document that an earlier hop may have read.
func peek[T any](s writ.Snapshot, k writ.Key) (doc T, ok bool, err error) {
	if !s.Has(k) {
		return doc, false, nil
	}
	doc, _, ok, err = writ.Get[T](s, k)
	return doc, ok, err
}

// owns says whether a caller may manage a run: operators and the gateway every
// run, orchestrators their own.
func owns(c writ.Caller, r writ.Run) bool {
	switch c.Role {
	case writ.RoleOperator, writ.RoleSystem:
		return true
	case writ.RoleOrchestrator:
		return c.Principal == r.Owner
	}
	return false
}

// reads says whether a caller may read all there is to a run's tasks: who
// manages it, and auditors. What auditors are not to see of it, policy masks.
func reads(c writ.Caller, r writ.Run) bool { return owns(c, r) || c.Role == writ.RoleAuditor }

// judges is reads for who may have to judge a task, or its run.
func judges(c writ.Caller, agent writ.Agent, bound bool, r writ.Run, t writ.Task) bool {
	return c.Role == writ.RoleVerifier && (t.Verify != nil || r.ClosePolicy == writ.CloseVerifier) && unfitToJudge(c, agent, bound, t) == ""
}

// callerAgent names the document of the agent the session is bound to.
func callerAgent(c *writ.Call) []writ.Key {
	if c.Caller.Agent == "" {
		return nil
	}
	return []writ.Key{writ.AgentKey(c.Caller.Agent)}
}

// taskReads names a task and, once it is known, its run.
func taskReads(op string, s writ.Snapshot, id writ.TaskID) (writ.ReadSet, error) {
	if !id.Valid() {
		return writ.ReadSet{}, notFound(op, "task")
	}
	rs := writ.ReadSet{Docs: []writ.Key{writ.TaskKey(id)}}
	t, ok, err := peek[writ.Task](s, writ.TaskKey(id))
	if ok {
		rs.Docs = append(rs.Docs, writ.RunKey(t.Run))
	}
	return rs, err
}

// placedReads is taskReads with the place of the task, for what may come to its lane or
// leave it.
func placedReads(op string, s writ.Snapshot, id writ.TaskID) (writ.ReadSet, error) {
	rs, err := taskReads(op, s, id)
	if err != nil {
		return rs, err
	}
	t, ok, err := peek[writ.Task](s, writ.TaskKey(id))
	if ok {
		rs.Counters = append(rs.Counters, placeReads(t)...)
	}
	return rs, err
}

// leaveReads names what must be seen before a task may leave running, and with
// it perhaps its run: the end of its lease, who waits for its scopes or for its
// end, and the counts of its run.
func leaveReads(op string, s writ.Snapshot, id writ.TaskID) (writ.ReadSet, error) {
	rs, err := placedReads(op, s, id)
	if err != nil {
		return rs, err
	}
	rs.Counters = append(rs.Counters, leaseEnd(id))
	rs.Ranges = append(rs.Ranges, waiters(id, wakeAtOnce+1), dependents(id))
	rs.Counters = append(rs.Counters, wakeReads(s.Ranges[waiters(id, wakeAtOnce+1)].Members)...)
	if t, ok, err := peek[writ.Task](s, writ.TaskKey(id)); err != nil {
		return rs, err
	} else if ok {
		rs.Counters = append(rs.Counters, writ.RunOpenTasks(t.Run), writ.RunBadTasks(t.Run))
		r, _, err := peek[writ.Run](s, writ.RunKey(t.Run))
		if err != nil {
			return rs, err
		}
		if triedOut(t, r) { // it may die
			rs.Ranges = append(rs.Ranges, oldestDead())
		}
	}
	return rs, nil
}

// subjectOf tells policy about a call on a task: the run, the task, where it
// writes, what its data is and where that may flow.
func subjectOf(op string, c *writ.Call, s writ.Snapshot, t writ.Task) (writ.Subject, error) {
	r, err := loadRun(op, s, t.Run)
	if err != nil {
		return writ.Subject{}, err
	}
	return subjectIn(r, c, s, t)
}

// subjectIn is subjectOf with the run at hand.
func subjectIn(r writ.Run, c *writ.Call, s writ.Snapshot, t writ.Task) (writ.Subject, error) {
	sub := writ.Subject{
		Run:    &writ.RunFacts{ID: r.ID, State: r.State},
		Task:   &writ.TaskFacts{ID: t.ID, State: t.State, Capability: t.Capability, Domain: t.Domain, Safety: t.Safety, Approval: cmp.Or(t.Approval, writ.ApprovalAuto)},
		Scopes: t.WriteScopes, Labels: t.Labels, Sinks: t.Sinks,
	}
	if err := describeAgent(c, s, &sub); err != nil {
		return sub, err
	}
	return sub, describeDeferral(c, s, t, sub.Task)
}

// describeAgent adds the caller's agent to a subject.
func describeAgent(c *writ.Call, s writ.Snapshot, sub *writ.Subject) error {
	if c.Caller.Agent == "" || !s.Has(writ.AgentKey(c.Caller.Agent)) {
		return nil
	}
	a, ok, err := loadAgent(s, c.Caller.Agent)
	if ok {
		sub.Agent = &writ.AgentFacts{ID: a.ID, Status: a.State, Domain: a.Domain, WriteScope: a.WriteScope}
	}
	return err
}

// describeTask is Describe for verbs that act on one task.
func describeTask(op string, c *writ.Call, s writ.Snapshot, id writ.TaskID) (writ.Subject, error) {
	t, _, err := loadTask(op, s, id)
	if err != nil {
		return writ.Subject{}, err
	}
	return subjectOf(op, c, s, t)
}
