package pack

import (
	"cmp"
	"maps"
	"slices"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// lineage is who opened which session for whom, and who had a part in which run, as
// receipts and their evidence say. It is worked out again from what was signed, by the
// rules of the gateway and not by its word.
type lineage struct {
	gaps     bool // of what is outside of a run there may be receipts missing
	sessions map[writ.SessionID]*session
	agents   map[writ.AgentID]*agent // of each of whose entry a receipt is there
	parents  map[writ.RunID]writ.RunID
	runs     map[string]writ.RunID         // of tasks
	parts    map[writ.RunID]map[part]party // who had a part, whichever
	said     map[string][]party            // who said how a call is to be made, by the approval of that, which is there
	unsaid   map[writ.RunID]bool           // where a call was made whose approval is not there
}

// part is whose: of one session an honest gateway never says that it acts as two agents.
type part struct {
	session writ.SessionID
	agent   writ.AgentID
}

func partOf(a writ.Actor) part { return part{a.Session, a.Agent} }

// party is who did something, with the keys its agent had then, as the gateway notes them: what it was
// registered with before, or comes to be, says nothing of who that was. sure is false where nobody says.
type party struct {
	writ.Actor
	keys map[string]bool // by their ids
	sure bool
}

// acting is who acts now.
func (l *lineage) acting(who writ.Actor) party {
	p := party{Actor: who, sure: true} // keys are of agents
	if who.Agent != "" {
		keys, known := l.keysNow(who.Agent)
		p.keys, p.sure = map[string]bool{}, known
		for _, k := range keys {
			p.keys[k.ID] = true
		}
	}
	return p
}

// session is what one needs to know of it.
type session struct {
	principal, controller writ.PrincipalID
	openers               []writ.PrincipalID
}

// agent is what its last registration says of it.
type agent struct {
	last    writ.ReceiptID // of its entry's changes
	keys    []writ.PublicKey
	tools   map[string]bool // which of them are gates
	work    []string        // gates that its work must pass
	unknown bool            // what all that is: nobody can read it, or a later one may have been left out
}

func newLineage(gaps bool) lineage {
	return lineage{
		gaps: gaps, sessions: map[writ.SessionID]*session{}, agents: map[writ.AgentID]*agent{},
		parents: map[writ.RunID]writ.RunID{}, runs: map[string]writ.RunID{}, parts: map[writ.RunID]map[part]party{}, said: map[string][]party{}, unsaid: map[writ.RunID]bool{},
	}
}

// takesPart are the transitions by which somebody has worked in a run, or planned it.
var takesPart = []string{"run.create", "task.enqueue", "task.claim", "task.complete", "task.fail", "task.release", "task.handoff", "task.heartbeat", "agent.delegate", "task.revive"}

// names holds a receipt that counts to that it names the last change of the entry of the agent that
// acts which is there. In the pack of a run it is known by that alone that no later one was left out.
func (l *lineage) names(st writ.Statement) {
	if a := l.agents[st.Actor.Agent]; l.gaps && a != nil && l.counts(st) && !slices.Contains(st.Parents, a.last) {
		a.unknown = true
	}
}

// counts says of a receipt that it says something of who acts: that it comes to have a part in a run,
// gives a result, says how a call is to be made, or judges. A refusal says nothing, and may have come
// before anybody looked who calls.
func (l *lineage) counts(st writ.Statement) bool {
	if st.Outcome != writ.OutcomeOfTransition && st.Outcome != writ.OutcomeOfRequest {
		return false
	}
	_, had := l.parts[st.Run][partOf(st.Actor)]
	takes := func(m writ.Change) bool { return works(m) || m.Kind == writ.ObjectTask && m.From == "" && !had }
	return slices.ContainsFunc(st.Changes, takes) || planned(st) && (!had || st.Transition == "run.create") || gives(st) || decides(st) || judges(st)
}

// entry is the last change of an agent's entry that is there.
func (l *lineage) entry(id writ.AgentID) writ.ReceiptID {
	if a := l.agents[id]; a != nil {
		return a.last
	}
	return ""
}

// changed notes a change of an agent's entry, which names the one before it. Until one that registers
// it is there nobody knows what it is registered with.
func (l *lineage) changed(id writ.AgentID, st writ.Statement) {
	a := l.agents[id]
	switch {
	case a == nil:
		a = &agent{unknown: true}
		l.agents[id] = a
	case l.gaps && !slices.Contains(st.Parents, a.last):
		a.unknown = true
	}
	a.last = st.Receipt
}

func (l *lineage) note(st writ.Statement, ev *told) {
	counts := l.counts(st)
	for _, m := range st.Changes {
		switch {
		case m.Kind == writ.ObjectSession && m.From == "":
			l.opened(writ.SessionID(m.ID), st, ev)
		case m.Kind == writ.ObjectRun && m.From == "":
			if st.Run != writ.RunID(m.ID) {
				l.parents[writ.RunID(m.ID)] = st.Run
			}
			l.took(writ.RunID(m.ID), l.acting(st.Actor))
		case m.Kind == writ.ObjectTask && m.From == "":
			if l.runs[m.ID] = st.Run; counts {
				l.took(st.Run, l.acting(st.Actor))
			}
		case works(m):
			l.took(cmp.Or(l.runs[m.ID], st.Run), l.acting(st.Actor))
		case m.Kind == writ.ObjectAgent:
			l.changed(writ.AgentID(m.ID), st)
			if m.From == "" || st.Transition == "agent.register" {
				l.registered(l.agents[writ.AgentID(m.ID)], ev)
			}
		case m.Kind == writ.ObjectApproval && m.From == "":
			l.saying(m.ID, st)
		case m.Kind == writ.ObjectApproval && m.From == string(writ.ApprovalApproved) && (m.To == string(writ.ApprovalConsumed) || m.To == m.From) && !judges(st): // it is made
			authors, there := l.said[m.ID]
			for _, a := range authors {
				l.took(st.Run, a)
			}
			if !there {
				l.unsaid[st.Run] = true
			}
		}
	}
	if planned(st) && counts {
		l.took(st.Run, l.acting(st.Actor))
	}
}

// planned says whether who calls has a part in the run by that.
func planned(st writ.Statement) bool {
	return st.Outcome == writ.OutcomeOfTransition && slices.Contains(takesPart, st.Transition) || st.Outcome == writ.OutcomeOfRequest && !judges(st)
}

// works says of a move that it takes a task to work on it, or gives its result: whoever does that has a part
// in its run, whatever the call is named, and wherever it is filed.
func works(m writ.Change) bool {
	return m.Kind == writ.ObjectTask && (m.From == string(writ.TaskQueued) && m.To == string(writ.TaskRunning) ||
		m.From == string(writ.TaskRunning) && (m.To == string(writ.TaskVerifying) || m.To == string(writ.TaskDone)))
}

// gives says whether a call may give a result, or say as a gate what another is.
func gives(st writ.Statement) bool {
	return st.Transition == "task.complete" || st.Transition == "task.handoff"
}

// saying notes who said how the call of a new approval is to be made: whoever agreed to another with other arguments, and
// before that whoever had said how that was to be made. Where nobody says who had, nobody says who did.
func (l *lineage) saying(approval string, st writ.Statement) {
	var authors []party
	if decides(st) {
		for _, m := range st.Changes {
			if m.Kind == writ.ObjectApproval && m.To == string(writ.ApprovalSuperseded) {
				before, there := l.said[m.ID]
				if !there {
					delete(l.said, approval)
					return
				}
				authors = append(authors, before...)
			}
		}
		authors = append(authors, l.acting(st.Actor))
	}
	l.said[approval] = authors
}

// decides says whether a call is somebody's word on one that waits for it: whatever it is named, if it puts
// another request in the place of one.
func decides(st writ.Statement) bool {
	moved := func(is func(writ.Change) bool) bool {
		return slices.ContainsFunc(st.Changes, func(m writ.Change) bool { return m.Kind == writ.ObjectApproval && is(m) })
	}
	return st.Transition == "approval.decide" || st.Outcome == writ.OutcomeOfTransition &&
		moved(func(m writ.Change) bool { return m.From == "" }) && moved(func(m writ.Change) bool { return m.To == string(writ.ApprovalSuperseded) })
}

// judges says whether a call is a verdict: to ask whether one may judge is no part in what one
// judges, nor is to say how.
func judges(st writ.Statement) bool {
	return st.Transition == "task.verify" || st.Transition == "run.close"
}

// took notes a part, with the keys of every time it was taken. Whoever acts without a session has one as the
// agent it acts as, and nobody knows who is behind that.
func (l *lineage) took(run writ.RunID, who party) {
	if run == "" || who.Kind == writ.KindSystem && who.Session == "" && who.Agent == "" {
		return // the gateway itself takes none
	}
	if l.parts[run] == nil {
		l.parts[run] = map[part]party{}
	}
	if had, is := l.parts[run][partOf(who.Actor)]; is {
		keys := maps.Clone(had.keys)
		maps.Copy(keys, who.keys)
		who.keys = keys
		who.sure = had.sure && who.sure
	}
	l.parts[run][partOf(who.Actor)] = who
}

// opened works out who answers for a new session, and who is behind it.
func (l *lineage) opened(id writ.SessionID, st writ.Statement, ev *told) {
	var a struct {
		Principal  writ.PrincipalID   `json:"principal"`
		Kind       writ.PrincipalKind `json:"kind"`
		Controller writ.PrincipalID   `json:"controller"`
	}
	if !ev.says(&a) || a.Principal == "" {
		return
	}
	s := &session{principal: a.Principal, controller: a.Controller}
	opener := l.sessions[st.Actor.Session]
	switch {
	case st.Actor.Kind == writ.KindSystem:
		if s.controller == "" {
			s.controller = a.Principal
		}
		l.sessions[id] = s
		return
	case opener == nil:
		return // who is behind it nobody knows
	case s.controller == "" && a.Kind == writ.KindHuman:
		s.controller = a.Principal
	case s.controller == "":
		s.controller = opener.controller
	}
	for _, p := range append([]writ.PrincipalID{opener.principal, opener.controller}, opener.openers...) {
		if p != "" && !slices.Contains(s.openers, p) {
			s.openers = append(s.openers, p)
		}
	}
	l.sessions[id] = s
}

// registered notes what an agent is registered with.
func (l *lineage) registered(a *agent, ev *told) {
	var args struct {
		Keys  []string `json:"keys"`
		Tools []struct {
			Name string `json:"name"`
			Gate bool   `json:"gate"`
		} `json:"tools"`
		Work []string `json:"work_gates"`
	}
	a.keys, a.tools, a.work, a.unknown = nil, map[string]bool{}, nil, !ev.says(&args) || len(args.Keys) > writ.MaxAgentKeys
	if a.unknown {
		return
	}
	a.work = args.Work
	for _, t := range args.Tools {
		a.tools[t.Name] = t.Gate
	}
	for _, text := range args.Keys {
		k, err := receipts.ParsePublicKey(text)
		if err != nil {
			a.unknown = true
			continue
		}
		a.keys = append(a.keys, k)
	}
}

// gates says whether the tool of an agent for a capability is a gate, and which gates its
// work must pass: those of its last registration. known is false where nobody says.
func (l *lineage) gates(id writ.AgentID, capability string) (gate bool, work []string, known bool) {
	if id == "" {
		return false, nil, true
	}
	a := l.agents[id]
	if a == nil || a.unknown {
		return false, nil, false
	}
	return a.tools[capability], a.work, true
}

// keysNow are the keys an agent has; ok is false where nobody says.
func (l *lineage) keysNow(id writ.AgentID) (keys []writ.PublicKey, ok bool) {
	if id == "" {
		return nil, true
	}
	a := l.agents[id]
	if a == nil || a.unknown {
		return nil, false
	}
	return a.keys, true
}

// share says whether two have a key in common.
func share(a, b map[string]bool) bool {
	for k := range a {
		if b[k] {
			return true
		}
	}
	return false
}

// roots says of runs which is at the root of their tree. Runs that are said to be in each other are one tree.
type roots struct {
	parents map[writ.RunID]writ.RunID
	known   map[writ.RunID]writ.RunID
}

func (r roots) of(run writ.RunID) writ.RunID {
	at, way := run, map[writ.RunID]bool{}
	for !way[at] { // back where one was it is a circle
		if root, known := r.known[at]; known {
			at = root
			break
		}
		way[at] = true
		up, inside := r.parents[at]
		if !inside {
			break
		}
		at = up
	}
	for of := range way {
		r.known[of] = at
	}
	return at
}

// conflicts says in which ways whoever judges a run had a part in its tree until now.
func (l *lineage) conflicts(run writ.RunID, judge party) (codes []Code) {
	roots := roots{l.parents, map[writ.RunID]writ.RunID{}}
	root := roots.of(run)
	if l.sessions[judge.Session] == nil {
		codes = append(codes, LineageUnknown)
	}
	for other := range l.unsaid {
		if roots.of(other) == root {
			codes = append(codes, LineageUnknown)
		}
	}
	for other, had := range l.parts {
		if roots.of(other) != root {
			continue
		}
		for _, part := range had {
			codes = append(codes, l.meets(judge, part)...)
		}
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

// same says in which ways two are not somebody else from one another: in which either could
// not judge what the other did.
func (l *lineage) same(a, b party) []Code { return append(l.meets(a, b), l.meets(b, a)...) }

// meets says in which ways one who judges is behind one who had a part, or may be.
func (l *lineage) meets(judge, part party) (codes []Code) {
	j, x := l.sessions[judge.Session], l.sessions[part.Session]
	if part.Session == judge.Session {
		codes = append(codes, LineageSession)
	}
	if judge.Agent != "" && part.Agent == judge.Agent {
		codes = append(codes, LineageAgent)
	}
	if share(judge.keys, part.keys) {
		codes = append(codes, LineageKey)
	}
	if judge.Agent != "" && part.Agent != judge.Agent && !(judge.sure && part.sure) { // who judges as no agent has none of the keys
		codes = append(codes, LineageUnknown)
	}
	if j == nil || x == nil {
		return append(codes, LineageUnknown)
	}
	behind := append([]writ.PrincipalID{x.principal, x.controller}, x.openers...)
	if slices.Contains(behind, j.principal) || slices.Contains(behind, j.controller) {
		codes = append(codes, LineageController)
	}
	if slices.ContainsFunc(j.openers, func(p writ.PrincipalID) bool { return p != writ.MachineOperator && p == x.principal }) {
		codes = append(codes, LineageOpener)
	}
	return codes
}

// own says whether two who gave a result and who looked at it are one, or one stands behind the
// other. That one person answers for both is no matter. known is false where nobody says.
func (l *lineage) own(a, b party) (own, known bool) {
	x, y := l.sessions[a.Session], l.sessions[b.Session]
	if x == nil || y == nil {
		return false, false
	}
	behind := func(p writ.PrincipalID, s *session) bool { return p == s.controller || slices.Contains(s.openers, p) }
	own = a.Session == b.Session || a.Agent != "" && a.Agent == b.Agent || x.principal == y.principal || behind(x.principal, y) || behind(y.principal, x) ||
		share(a.keys, b.keys)
	return own, own || a.sure && b.sure
}
