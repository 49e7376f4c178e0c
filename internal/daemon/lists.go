package daemon

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/agents"
	"github.com/writ-gateway/writ/runs"
)

// list is an index whose members name documents.
type list struct {
	index  writ.Index
	kind   string                     // of the documents; "" where id says it too
	id     func(member string) string // whose
	scores bool                       // its members have scores that differ
}

func whole(m string) string { return m }
func bare(m string) string  { return strings.TrimPrefix(m, "+") }
func first(m string) string { id, _, _ := strings.Cut(m, " "); return id }
func last(m string) string  { return m[strings.LastIndexByte(m, ' ')+1:] }

// holder is the document of who holds a scope.
func holder(m string) string {
	_, by, _ := writ.SplitScopeMember(m)
	if k, known := by.Key(); known {
		return string(k)
	}
	return writ.ObjectTask + "/" + string(by) // there is none, and nobody to hold it
}

// blobHolders lists who wants the bytes of a digest.
func blobHolders(digest string) list {
	return list{index: writ.BlobHolders(strings.TrimPrefix(digest, "sha256:")), id: func(m string) string {
		if writ.RunID(m).Valid() {
			return string(writ.RunKey(writ.RunID(m)))
		}
		return writ.ObjectTask + "/" + m
	}}
}

// of is the document that a member names.
func (l list) of(member string) writ.Key {
	if l.kind == "" {
		return writ.Key(l.id(member))
	}
	return writ.Key(l.kind + "/" + l.id(member))
}

// global are the indexes there is one of.
func global() []list {
	out := []list{
		{index: writ.IndexRuns, kind: writ.ObjectRun, id: whole},
		{index: writ.IndexClose, kind: writ.ObjectRun, id: whole},
		{index: writ.IndexAgents, kind: writ.ObjectAgent, id: whole},
		{index: writ.IndexTools, kind: writ.ObjectAgent, id: last},
		{index: writ.IndexOwners, kind: writ.ObjectAgent, id: last},
		{index: writ.IndexRoutes, kind: writ.ObjectAgent, id: last},
		{index: agents.ScopeIndex, kind: writ.ObjectAgent, id: func(m string) string { id, _ := agents.ScopeHolder(m); return string(id) }},
		{index: writ.IndexProbes, kind: writ.ObjectAgent, id: first, scores: true},
		{index: writ.IndexSessions, kind: writ.ObjectSession, id: whole},
		{index: writ.IndexJails, kind: writ.ObjectJail, id: whole},
		{index: writ.IndexLives, kind: writ.ObjectSession, id: whole, scores: true},
		{index: writ.IndexBeats, kind: writ.ObjectSession, id: whole, scores: true},
		{index: writ.IndexApprovals, kind: writ.ObjectApproval, id: whole},
		{index: writ.IndexExpiries, kind: writ.ObjectApproval, id: whole, scores: true},
		{index: writ.IndexVerify, kind: writ.ObjectTask, id: whole},
		{index: writ.IndexDead, kind: writ.ObjectTask, id: whole},
		{index: writ.IndexLeases, kind: writ.ObjectTask, id: whole, scores: true},
		{index: writ.IndexReady, kind: writ.ObjectTask, id: whole, scores: true},
		{index: writ.IndexUnfold, kind: writ.ObjectRun, id: whole, scores: true},
		{index: writ.IndexScopes, id: holder},
		{index: writ.IndexEgress, kind: writ.ObjectEgress, id: whole},
		{index: writ.IndexEgressHosts, kind: writ.ObjectEgress, id: last},
		{index: writ.IndexEffects, kind: writ.ObjectEffect, id: whole},
		{index: writ.IndexUnknown, kind: writ.ObjectEffect, id: whole},
		{index: writ.IndexEffectLeases, kind: writ.ObjectEffect, id: whole, scores: true},
	}
	for s := range writ.ApprovalMoves {
		if s != "" {
			out = append(out, list{index: writ.ApprovalsIn(s), kind: writ.ObjectApproval, id: whole})
		}
	}
	return out
}

// listsOf are those of one document.
func listsOf(doc writ.Key) (out []list) {
	kind, id, _ := strings.Cut(string(doc), "/")
	if !writ.ValidName(string(doc)) { // nothing the gateway wrote
		return nil
	}
	switch kind {
	case writ.ObjectRun:
		run := writ.RunID(id)
		out = []list{
			{index: writ.RunTasks(run), kind: writ.ObjectTask, id: whole},
			{index: writ.Backlog(run), kind: writ.ObjectTask, id: last},
			{index: writ.RunArtifacts(run), kind: writ.ObjectTask, id: last},
			{index: writ.RunOwed(run), kind: writ.ObjectTask, id: last},
			{index: writ.RunChildren(run), kind: writ.ObjectRun, id: whole},
			{index: writ.RunChildrenOpen(run), kind: writ.ObjectRun, id: whole},
		}
		for s := range writ.TaskMoves {
			if s != "" {
				out = append(out, list{index: writ.RunTasksIn(run, s), kind: writ.ObjectTask, id: whole})
			}
		}
	case writ.ObjectAgent:
		agent := writ.AgentID(id)
		out = []list{
			{index: writ.AgentSessions(agent), kind: writ.ObjectSession, id: whole},
			{index: writ.SetGoing(writ.ObjectTask, agent), kind: writ.ObjectTask, id: whole},
			{index: writ.SetGoing(writ.ObjectApproval, agent), kind: writ.ObjectApproval, id: whole},
		}
	case writ.ObjectSession:
		ses := writ.SessionID(id)
		out = []list{
			{index: writ.SessionTasks(ses), kind: writ.ObjectTask, id: whole},
			{index: writ.WaitingOn(ses), kind: writ.ObjectTask, id: first, scores: true},
		}
	case writ.ObjectTask:
		task := writ.TaskID(id)
		out = []list{
			{index: writ.Dependents(task), kind: writ.ObjectTask, id: bare},
			{index: writ.WaitingOn(task), kind: writ.ObjectTask, id: first, scores: true},
		}
	}
	return out
}

// namedBy are the lists a document names in what it says.
func namedBy(doc writ.Key, s writ.Snapshot) (out []list, err error) {
	kind, _, _ := strings.Cut(string(doc), "/")
	switch kind {
	case writ.ObjectRun:
		r, _, ok, err := writ.Get[writ.Run](s, doc)
		if err == nil && ok {
			out = []list{{index: runs.OwnedBy(r.Owner), kind: writ.ObjectRun, id: whole}}
			if r.Workflow != nil {
				out = append(out, blobHolders(r.Workflow.Digest))
			}
		}
		return out, err
	case writ.ObjectTask:
		t, _, _, err := writ.Get[writ.Task](s, doc)
		for _, a := range t.Artifacts {
			out = append(out, blobHolders(a.Digest))
		}
		return out, err
	}
	return nil, nil
}

// namedPage is how many documents are read together for the lists they name.
const namedPage = 50

// meetLists meets the lists of every document, and those it names, each once. A list may
// name a document that was not met before. One that cannot be read is told of when it
// is looked at.
func (x *indexWalk) meetLists() error {
	known := map[writ.Index]bool{}
	for n := 0; n < len(x.order); n += namedPage {
		some := slices.Clone(x.order[n:min(n+namedPage, len(x.order))])
		s, err := x.st.Read(x.ctx, shard, writ.ReadSet{Docs: some})
		if err != nil {
			return err
		}
		for _, doc := range some {
			lists := listsOf(doc)
			named, err := namedBy(doc, s)
			if err == nil {
				lists = append(lists, named...)
			}
			lists = slices.DeleteFunc(lists, func(l list) bool { return known[l.index] || !writ.ValidName(string(l.index)) })
			for _, l := range lists {
				known[l.index] = true
			}
			if err := x.meet(lists); err != nil {
				return err
			}
		}
	}
	return nil
}

const walkPage = 500

// page is how a whole list is read: by name, or by score where scores differ.
func (l list) page() writ.Range {
	r := writ.Range{Index: l.index, Limit: walkPage}
	if l.scores {
		r.ByScore, r.Max = true, writ.MaxAmount
	}
	return r
}

// meet notes the documents that the members of lists name. The first pages are read
// together.
func (x *indexWalk) meet(lists []list) error {
	var rs writ.ReadSet
	for _, l := range lists {
		rs.Ranges = append(rs.Ranges, l.page())
	}
	if rs.Empty() {
		return nil
	}
	s, err := x.st.Read(x.ctx, shard, rs)
	if err != nil {
		return err
	}
	for _, l := range lists {
		if err := x.meetAll(l, s.Ranges[l.page()].Members); err != nil {
			return err
		}
	}
	return nil
}

// meetAll notes a list from its first page on.
func (x *indexWalk) meetAll(l list, page []writ.Member) error {
	r, known := l.page(), map[string]bool{}
	for {
		for _, m := range page {
			if !known[m.Name] {
				known[m.Name] = true
				if doc := l.of(m.Name); writ.ValidName(string(doc)) {
					x.note(doc, writ.Entry{Index: l.index, Member: m.Name})
				}
			}
		}
		if len(page) < walkPage {
			return nil
		}
		end := page[len(page)-1]
		if r.From = end.Name + "\x00"; r.ByScore {
			r.From, r.Min = "", max(end.Score, r.Min+1) // of more than a page at one score the rest is not met
		}
		s, err := x.st.Read(x.ctx, shard, writ.ReadSet{Ranges: []writ.Range{r}})
		if err != nil {
			return err
		}
		page = s.Ranges[r].Members
	}
}
