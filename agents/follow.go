package agents

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// What lists and deadlines hold about agents and sessions follows from their
// documents. This file says how, for who looks whether it still does; no verb uses it.

// Followers say what follows from the documents of agents and sessions.
func Followers() []writ.Follower {
	return []writ.Follower{
		{Kind: writ.ObjectAgent, Reads: agentFollowReads, Sound: agentSound, Implies: agentImplies, Counts: agentCounts},
		{Kind: writ.ObjectJail, Reads: jailFollowReads, Sound: jailSound, Implies: jailImplies, Counts: noCounts},
		{Kind: writ.ObjectSession, Reads: sessionFollowReads, Sound: sessionSound, Implies: sessionImplies, Counts: noCounts},
	}
}

func noCounts(string, writ.Snapshot) ([]writ.Count, error) { return nil, nil }

// recalls are the follow-ups that take back what a revoked agent had set going, one
// after the other: its sessions, its tasks, its approvals, and that nothing is left.
func recalls(id writ.AgentID) (out []writ.Entry) {
	for _, m := range []string{todoAgent(id), todoRecall(id), "withdraw " + string(id), todoSettle(id)} {
		out = append(out, writ.Entry{Index: writ.IndexTodo, Member: m})
	}
	return out
}

func agentFollowReads(id string, _ writ.Snapshot) (writ.ReadSet, error) {
	rs := writ.ReadSet{Ranges: []writ.Range{anySession(writ.AgentID(id))}}
	for _, e := range recalls(writ.AgentID(id)) {
		rs.Ranges = append(rs.Ranges, e.Range())
	}
	return rs, nil
}

func agentImplies(id string, s writ.Snapshot) ([]writ.Implied, error) {
	a, _, _, err := writ.Get[writ.Agent](s, writ.AgentKey(writ.AgentID(id)))
	if err != nil {
		return nil, err
	}
	is, active := "the agent is "+string(a.State), a.State == writ.AgentActive
	out := []writ.Implied{writ.InIf(true, writ.IndexAgents, id, "there is such an agent")}
	for _, t := range a.Tools {
		out = append(out, writ.InIf(active, writ.IndexTools, string(t.Name)+" "+id, is))
	}
	for _, m := range routesTo(a) {
		out = append(out, writ.InIf(active, writ.IndexRoutes, m, is))
	}
	for _, c := range a.Owns {
		out = append(out, writ.InIf(active, writ.IndexOwners, ownerMember(a, c), is))
	}
	for _, scope := range a.WriteScope {
		out = append(out, writ.InIf(active, ScopeIndex, scopeMember(a, scope), is))
	}
	for _, e := range a.Endpoints { // looks move its score, and drop it when it is met in vain
		i := writ.InIf(active, writ.IndexProbes, writ.ProbeMember(a.ID, e.Name), is)
		i.Any, i.May = active, !active
		out = append(out, i)
	}
	h := a.Halt
	left := h != nil && h.Revoked && h.SweptAt == 0 && writ.AgentMoves.May(a.State, a.State) // else nothing notes that it is done
	for _, e := range recalls(a.ID) {
		if _, in := e.In(s); in {
			left = false
		}
	}
	if left || !active && len(s.Ranges[anySession(a.ID)].Members) > 0 {
		out = append(out, writ.Implied{Entry: writ.Entry{Index: writ.IndexTodo, Member: todoAgent(a.ID)}, Any: true, Why: is + ", and something is left of it"})
	}
	return out, nil
}

func agentCounts(id string, _ writ.Snapshot) ([]writ.Count, error) {
	return []writ.Count{{Counter: writ.AgentRunning(writ.AgentID(id))}}, nil
}

func heldBy(id writ.SessionID) writ.Range {
	return writ.Range{Index: writ.SessionTasks(id), Limit: 1}
}

// someWaiters is how many of the tasks that wait for what a session claims are looked at.
const someWaiters = 32

func waitingFor(id writ.SessionID) writ.Range {
	return writ.Range{Index: writ.WaitingOn(id), ByScore: true, Max: 9, Limit: someWaiters}
}

// waiting are those tasks, each once.
func waiting(id writ.SessionID, s writ.Snapshot) (out []writ.TaskID) {
	for _, m := range s.Ranges[waitingFor(id)].Members {
		if t, _, _ := writ.SplitWaiter(m.Name); t.Valid() && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

func sessionFollowReads(id string, s writ.Snapshot) (writ.ReadSet, error) {
	ses := writ.SessionID(id)
	rs := writ.ReadSet{Counters: []writ.Counter{beatOf(ses)}, Docs: []writ.Key{writ.JailKey(ses)}, Ranges: []writ.Range{heldBy(ses), waitingFor(ses)}}
	for _, t := range waiting(ses, s) {
		rs.Docs = append(rs.Docs, writ.TaskKey(t))
	}
	return rs, nil
}

// agentSound and sessionSound say what contradicts itself in the document: what is not
// known to have ended must not be given what it had.
func agentSound(id string, s writ.Snapshot) (string, error) {
	a, _, _, err := writ.Get[writ.Agent](s, writ.AgentKey(writ.AgentID(id)))
	if err != nil {
		return "", err
	}
	return writ.Incoherent(writ.ObjectAgent, id, string(a.ID), writ.AgentMoves, a.State), nil
}

func sessionSound(id string, s writ.Snapshot) (string, error) {
	ses, _, _, err := writ.Get[writ.Session](s, writ.SessionKey(writ.SessionID(id)))
	if err != nil {
		return "", err
	}
	wrong := writ.Incoherent(writ.ObjectSession, id, string(ses.ID), writ.SessionMoves, ses.State)
	if wrong == "" && ses.State == writ.SessionOpened && len(ses.WriteClaims) > 0 {
		wrong = "the session claims scopes and has not started"
	}
	return wrong, nil
}

func sessionImplies(id string, s writ.Snapshot) ([]writ.Implied, error) {
	ses, _, _, err := writ.Get[writ.Session](s, writ.SessionKey(writ.SessionID(id)))
	if err != nil {
		return nil, err
	}
	is, lives := "the session is "+string(ses.State), !writ.SessionMoves.Terminal(ses.State)
	beats := ses.TTLSeconds > 0 && (ses.State == writ.SessionActive || ses.State == writ.SessionSuspended)
	life, beat := writ.InIf(lives, writ.IndexLives, id, is), writ.InIf(beats, writ.IndexBeats, id, is)
	life.Score, beat.Score = ses.ExpiresAt, s.Counters[beatOf(ses.ID)]
	out := []writ.Implied{writ.InIf(true, writ.IndexSessions, id, "there is such a session"), life, beat}
	for _, a := range standsOn(ses) {
		out = append(out, writ.InIf(lives, writ.AgentSessions(a), id, is))
	}
	holds, err := writ.HoldsScopes(s, ses)
	if err != nil {
		return nil, err
	}
	for _, c := range ses.WriteClaims { // those of one that has ended stay in its document
		out = append(out, writ.InIf(holds, writ.IndexScopes, c.Member(ses.ID), is))
	}
	for _, w := range waiting(ses.ID, s) {
		t, _, ok, err := writ.Get[writ.Task](s, writ.TaskKey(w))
		if err == nil && ok && t.State == writ.TaskQueued {
			out = append(out, writ.InIf(true, writ.BlockedOn(w), id, "it is among those that wait for the session"))
		}
	}
	wake := !holds && len(s.Ranges[waitingFor(ses.ID)].Members) > 0
	if !lives && (wake || len(s.Ranges[heldBy(ses.ID)].Members) > 0) {
		out = append(out, writ.Implied{Entry: writ.Entry{Index: writ.IndexTodo, Member: todoSession(ses.ID)}, Any: true, Why: is + ", and holds tasks, or some wait for what it claimed"})
	}
	return out, nil
}
