package writ

import "slices"

// Who holds a scope, and who is in the way of whoever needs it. The same for tasks
// that lock their scopes and for sessions that claim theirs.

// Held is a scope that somebody holds.
type Held struct {
	Scope   string
	By      Holder
	Mode    ScopeMode
	Agent   AgentID // "" while a scope is kept for whoever takes the task
	Task    Task    // the holder, if it is a task
	Session Session // if it is a session
	Version int64   // of the holder's document
}

// HeldBy is what a member of IndexScopes stands for. ok is false when its holder,
// as read, does not hold anything: it was given back between two reads.
func HeldBy(s Snapshot, member string) (h Held, ok bool, err error) {
	h.Scope, h.By, h.Mode = SplitScopeMember(member)
	k, known := h.By.Key()
	if !known || !s.Has(k) {
		return h, false, nil
	}
	if TaskID(h.By).Valid() {
		h.Task, h.Version, ok, err = Get[Task](s, k)
		if h.Task.Lease != nil {
			h.Agent = h.Task.Lease.Agent
		}
		return h, ok && h.Task.HoldsScopes(), err
	}
	h.Session, h.Version, ok, err = Get[Session](s, k)
	h.Agent = h.Session.Agent
	if ok && err == nil {
		ok, err = HoldsScopes(s, h.Session)
	}
	return h, ok, err
}

// Conflict refuses a call that needs a scope somebody holds.
func (h Held) Conflict(op string) *Error {
	e := Refuse(CodeScopeConflict, op, "a running task holds an overlapping write scope", "try again when the holder is done")
	if SessionID(h.By).Valid() {
		e.Msg, e.Hint = "a session claims an overlapping write scope", "try again when that session has ended; scope.list shows until when it can last"
	}
	return e.With("holder", string(h.By)).With("holder_agent", string(h.Agent)).With("scope", h.Scope)
}

// Gap is a part of IndexScopes that must be free of others before somebody may have
// a scope.
type Gap struct {
	From, To string
	Shared   bool // those who share may be there
}

// Gaps are the gaps that scopes need, each once. Where one of them is not shared,
// none is.
func Gaps(wanted []WriteClaim) (out []Gap) {
	for _, w := range wanted {
		for _, r := range ScopeRanges(w.Resource) {
			g := Gap{From: r[0], To: r[1], Shared: w.Mode == ScopeShared}
			if i := slices.IndexFunc(out, func(o Gap) bool { return o.From == g.From && o.To == g.To }); i >= 0 {
				out[i].Shared = out[i].Shared && g.Shared
				continue
			}
			out = append(out, g)
		}
	}
	return out
}

// How much of a gap is read. Beside one other there can be what the reader holds
// itself, and where scopes are shared all who share them.
const (
	gapRead       = 24
	sharedGapRead = 128
)

// Range reads a gap.
func (g Gap) Range() Range {
	r := Range{Index: IndexScopes, From: g.From, To: g.To, Limit: gapRead}
	if g.Shared {
		r.Limit = sharedGapRead
	}
	return r
}

// others are the members in a gap that are in the way. Where more share it than are
// read nobody knows whether there is somebody else, so those who do are, too.
func (g Gap) others(s Snapshot, mine []Holder) (out []string) {
	r := g.Range()
	found := s.Ranges[r].Members
	for _, m := range found {
		_, by, mode := SplitScopeMember(m.Name)
		if slices.Contains(mine, by) || g.Shared && mode == ScopeShared && len(found) < r.Limit {
			continue
		}
		out = append(out, m.Name)
	}
	return out
}

// maxHolders bounds how many holders in the way are looked at.
const maxHolders = 4

// HoldersIn names the documents of others who hold something in the gaps, as far as read.
func HoldersIn(s Snapshot, gaps []Gap, mine ...Holder) (out []Key) {
	looked := 0
	for _, g := range gaps {
		for _, m := range g.others(s, mine) {
			_, by, _ := SplitScopeMember(m)
			if docs := by.Docs(); len(docs) > 0 && !slices.Contains(out, docs[0]) && looked < maxHolders {
				out = append(out, docs...)
				looked++
			}
		}
	}
	return out
}

// InTheWay is what somebody else holds in the gaps; ok is false when they look free.
// What was given back between two reads is left to the guards of the commit.
func InTheWay(s Snapshot, gaps []Gap, mine ...Holder) (h Held, ok bool, err error) {
	for _, g := range gaps {
		for _, m := range g.others(s, mine) {
			if h, ok, err = HeldBy(s, m); ok || err != nil {
				return h, ok, err
			}
		}
	}
	return Held{}, false, nil
}

// FreeBut guards that a gap holds nobody's member but those of mine that are named
// (as "<scope> <holder>", sorted), those of self, and of those who share if it is shared.
func (t *Tx) FreeBut(g Gap, self Holder, mine []string) {
	except := string(self)
	if g.Shared {
		except = string(ScopeShared)
	}
	from := g.From
	for _, m := range mine {
		if m < from || m >= g.To {
			continue
		}
		if from < m {
			t.Free(IndexScopes, from, m, except)
		}
		from = m + "!" // follows " ", so a claim that is shared is left out too
	}
	if from < g.To {
		t.Free(IndexScopes, from, g.To, except)
	}
}
