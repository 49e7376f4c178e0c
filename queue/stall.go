package queue

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// RunStallArgs name a run to look at.
type RunStallArgs struct {
	Run writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// RunStalled says how it stands.
type RunStalled struct {
	State   writ.RunState `json:"state" doc:"State of the run after the look." enum:"active,paused_approval,verifying,done,failed,cancelled"`
	Stalled bool          `json:"stalled,omitempty" doc:"Whether nothing in it can go on."`
}

const opStall = "queue.Stall"

// Limits of one look. Of a run that has more in these states somebody may be able to
// take one, so it is not called stalled.
const (
	stallQueued  = 16
	stallBlocked = 16
	stallDocs    = 300 // that a commit can rest on
)

const reasonStalled = "stalled"

// stallCapability looks whether anything in a run can go on, notes when that is not
// so any more or is so again, and ends a run that is to fail then.
func stallCapability() *writ.Capability {
	description := mandate("run.stall", "Note that nothing in a run can go on, or fail it for that.")
	description.Hops = 6 // to the agents that may take its tasks
	return writ.Define[RunStallArgs, RunStalled](description, writ.Verb[RunStallArgs]{
		Locks: func(_ *writ.Call, a *RunStallArgs) []writ.Key { return []writ.Key{writ.RunKey(a.Run)} },
		Reads: stallReads,
		Describe: func(_ *writ.Call, a *RunStallArgs, s writ.Snapshot) (writ.Subject, error) {
			r, err := loadRun(opStall, s, a.Run)
			return writ.Subject{Run: &writ.RunFacts{ID: r.ID, State: r.State}}, err
		},
		Plan: stallPlan,
	})
}

// any of a list is enough for a run to go on.
func anyOf(i writ.Index) writ.Range { return writ.Range{Index: i, Limit: 1} }

// busy are the lists of what goes on by itself, or ends by itself: somebody works on
// it, people or a verifier decide about it, or it is a run of its own.
func busy(id writ.RunID) []writ.Range {
	return []writ.Range{
		anyOf(writ.RunTasksIn(id, writ.TaskRunning)), anyOf(writ.RunTasksIn(id, writ.TaskParked)),
		anyOf(writ.RunTasksIn(id, writ.TaskVerifying)), anyOf(writ.RunChildrenOpen(id)),
	}
}

func queuedOf(id writ.RunID) writ.Range {
	return writ.Range{Index: writ.RunTasksIn(id, writ.TaskQueued), Limit: stallQueued + 1}
}

func blockedOf(id writ.RunID) writ.Range {
	return writ.Range{Index: writ.RunTasksIn(id, writ.TaskBlocked), Limit: stallBlocked + 1}
}

func stallReads(_ *writ.Call, a *RunStallArgs, s writ.Snapshot) (writ.ReadSet, error) {
	if !a.Run.Valid() {
		return writ.ReadSet{}, notFound(opStall, "run")
	}
	rs := writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.Run)}, Ranges: append(busy(a.Run), queuedOf(a.Run), blockedOf(a.Run))}
	r, ok, err := peek[writ.Run](s, writ.RunKey(a.Run))
	if err != nil || !ok {
		return rs, err
	}
	if r.CreatedBy != "" {
		rs.Docs = append(rs.Docs, writ.SessionKey(r.CreatedBy))
	}
	for _, m := range s.Ranges[blockedOf(a.Run)].Members {
		rs.Docs = append(rs.Docs, writ.TaskKey(writ.TaskID(m.Name)))
	}
	for _, m := range s.Ranges[queuedOf(a.Run)].Members {
		id := writ.TaskID(m.Name)
		rs.Docs, rs.Ranges = append(rs.Docs, writ.TaskKey(id)), append(rs.Ranges, refusers(id))
		t, ok, err := peek[writ.Task](s, writ.TaskKey(id))
		if err != nil {
			return rs, err
		}
		if !ok {
			continue
		}
		if len(t.Agents) == 0 {
			tools := toolRange(t.Capability)
			if rs.Ranges = append(rs.Ranges, tools); len(s.Ranges[tools].Members) == 0 {
				continue
			}
		}
		agents, err := candidateReads(s, t)
		if err != nil {
			return rs, err
		}
		if len(rs.Docs)+len(agents) > stallDocs {
			break
		}
		rs.Docs = append(rs.Docs, agents...)
	}
	return rs, nil
}

// goesOn says whether something in an active run can go on, as far as read, or
// somebody is there who can have it go on.
func goesOn(s writ.Snapshot, r writ.Run) (bool, error) {
	if r.Unfolding() {
		return true, nil // it does, or the run ends by that
	}
	for _, list := range busy(r.ID) {
		if len(s.Ranges[list].Members) > 0 {
			return true, nil
		}
	}
	queued, blocked := s.Ranges[queuedOf(r.ID)].Members, s.Ranges[blockedOf(r.ID)].Members
	if len(queued) > stallQueued || len(blocked) > stallBlocked && len(queued) == 0 {
		return true, nil
	}
	for _, m := range blocked {
		t, ok, err := peek[writ.Task](s, writ.TaskKey(writ.TaskID(m.Name)))
		if err != nil {
			return false, err
		}
		if ok && t.State == writ.TaskBlocked && t.Join == writ.JoinManual && !t.Admitted {
			return true, nil // for whoever manages the run
		}
	}
	for _, m := range queued {
		t, ok, err := peek[writ.Task](s, writ.TaskKey(writ.TaskID(m.Name)))
		if err != nil {
			return false, err
		}
		if !ok || t.State != writ.TaskQueued || t.NotBefore > s.Now {
			return true, nil // it was taken meanwhile, or its time comes
		}
		if taken, err := takeable(s, t); err != nil || taken {
			return taken, err
		}
	}
	if len(queued)+len(blocked) > 0 {
		return false, nil
	}
	if r.Sealed || r.ClosePolicy == writ.CloseManual {
		return true, nil // it ends by itself, or whenever somebody wants it to
	}
	by, ok, err := peek[writ.Session](s, writ.SessionKey(r.CreatedBy))
	return ok && !writ.SessionMoves.Terminal(by.State), err
}

// takeable says whether an active agent may run a task that has not been refused to it
// under the policies in force, or may for all that was seen of them.
func takeable(s writ.Snapshot, t writ.Task) (bool, error) {
	fit, err := fitting(s, t)
	if err != nil {
		return false, err
	}
	all := candidates(s, t)
	if len(all) == manyCandidates || slices.ContainsFunc(all, func(id writ.AgentID) bool { return !s.Has(writ.AgentKey(id)) }) {
		return true, nil
	}
	gate, _, err := peek[writ.Gate](s, writ.GateKey)
	if err != nil {
		return false, err
	}
	refused := map[string]bool{}
	for _, m := range s.Ranges[refusers(t.ID)].Members {
		if policy, agent, _ := strings.Cut(m.Name, " "); policy == gate.PolicyRevision {
			refused[agent] = true
		}
	}
	for _, a := range fit {
		if !refused[string(a.ID)] {
			return true, nil
		}
	}
	return false, nil
}

func stallPlan(c *writ.Call, a *RunStallArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
	r, err := loadRun(opStall, s, a.Run)
	if err != nil {
		return tx, reply, err
	}
	tx.Mandate = true
	if writ.RunMoves.Terminal(r.State) {
		tx.Unindex(writ.IndexTodo, writ.TodoStall(r.ID))
		return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: RunStalled{State: r.State}}, nil
	}
	stalled := false
	if r.State == writ.RunActive {
		on, err := goesOn(s, r)
		if err != nil {
			return tx, reply, err
		}
		stalled = !on
	}
	after, was := r.StallAfter*1000, r
	next := s.Now + max(after, (s.Now-r.CreatedAt)/8)
	switch {
	case !stalled:
		r.StalledAt = 0
	case r.StalledAt == 0:
		r.StalledAt, next = s.Now, s.Now+after
	case r.OnStall == writ.StallFail && s.Now >= r.StalledAt+after:
		r.State, r.Reason = writ.RunFailed, reasonStalled
		tx.Index(writ.IndexTodo, todo(todoRun, string(r.ID)), s.Now)
	}
	if r.State == writ.RunFailed {
		r.Arrive(&tx, was.State, s.Now)
	} else {
		tx.Index(writ.IndexTodo, writ.TodoStall(r.ID), next)
	}
	if r.State != was.State || r.StalledAt != was.StalledAt {
		r.UpdatedAt, r.Receipt = s.Now, writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
		tx.Move(writ.ObjectRun, string(r.ID), string(was.State), string(r.State))
		err = tx.PutDoc(s, writ.RunKey(r.ID), writ.ObjectRun, r)
	}
	return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: RunStalled{State: r.State, Stalled: stalled}}, err
}
