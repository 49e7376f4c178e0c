package writ

import "slices"

// Part is what somebody had to do with a run. Who had one does not judge it.
type Part string

const (
	PartExecuted  Part = "x" // worked on a task of it, or said how something in it is done
	PartPlanned   Part = "p" // created it, or enqueued a task of it
	PartRequested Part = "r" // asked for an approval in it
)

// RunParts says who had which part in a tree of runs, named by its root, as
// "<identity> <part>": what is done in a child is done for its parent. It only
// ever grows, and never by a call in a run that has ended or waits for its verdict;
// who says there how one that waits is to be made adds to it whenever that is.
func RunParts(root RunID) Index { return Index("parts/" + string(root)) }

// Tree is the root of the tree of runs that a run is in; its own id without a
// parent.
func (r Run) Tree() RunID {
	if r.Root != "" {
		return r.Root
	}
	return r.ID
}

// An identity is what would be the same again if somebody came back under another
// name. Whoever opened a session, or is answerable for it, is behind what it does.
func identityOfSession(id SessionID) string { return "session/" + string(id) }
func identityItself(p PrincipalID) string   { return "self/" + string(p) }
func identityBehind(p PrincipalID) string   { return "behind/" + string(p) }
func identityOfAgent(a AgentID) string      { return "agent/" + string(a) }
func identityOfKey(k PublicKey) string      { return "key/" + k.ID }

// partRange looks for the parts of one identity.
func partRange(root RunID, identity string) Range {
	return Range{Index: RunParts(root), From: identity + " ", To: identity + "!", Limit: 3}
}

// PartSeen shows which parts of a caller's session in a tree of runs are noted
// already.
func PartSeen(c Caller, root RunID) Range {
	return partRange(root, identityOfSession(c.Session))
}

// TakePart notes that a caller had a part in a tree of runs; keys are those its
// agent signs with. It wants PartSeen, and does nothing when the same session is
// known with that part. The gateway itself takes none.
func (t *Tx) TakePart(s Snapshot, root RunID, part Part, c Caller, keys []PublicKey) {
	if c.Session == "" || root == "" {
		return
	}
	member := func(identity string) string { return identity + " " + string(part) }
	seen := s.Ranges[PartSeen(c, root)].Members
	if slices.ContainsFunc(seen, func(m Member) bool { return m.Name == member(identityOfSession(c.Session)) }) {
		return
	}
	for _, identity := range acting(c, keys) {
		t.Index(RunParts(root), member(identity), 0)
	}
}

// acting are the identities under which what a caller does is noted: itself, and
// whoever stands behind it.
func acting(c Caller, keys []PublicKey) []string {
	who := []string{identityOfSession(c.Session), identityItself(c.Principal), identityBehind(c.Principal)}
	for _, p := range append([]PrincipalID{c.Controller}, c.Openers...) {
		if p != "" && !slices.Contains(who, identityBehind(p)) {
			who = append(who, identityBehind(p))
		}
	}
	return append(who, identitiesOfAgent(c, keys)...)
}

func identitiesOfAgent(c Caller, keys []PublicKey) (out []string) {
	if c.Agent != "" {
		out = append(out, identityOfAgent(c.Agent))
	}
	for _, k := range keys {
		out = append(out, identityOfKey(k))
	}
	return out
}

// judging are the identities under which a caller may have had a part in what it
// judges: itself, whoever is answerable for it, and its openers, if they acted
// themselves. That one person opened both sessions is no part; nor is that the
// operator of the machine did, who opens the first session of everybody.
func judging(c Caller, keys []PublicKey) []string {
	out := []string{identityOfSession(c.Session), identityBehind(c.Principal)}
	if c.Controller != "" && c.Controller != c.Principal {
		out = append(out, identityBehind(c.Controller))
	}
	for _, p := range c.Openers {
		if p != MachineOperator {
			out = append(out, identityItself(p))
		}
	}
	return append(out, identitiesOfAgent(c, keys)...)
}

// DutyReads names what DutyIn must see.
func DutyReads(root RunID, c Caller, keys []PublicKey) (out []Range) {
	for _, identity := range judging(c, keys) {
		out = append(out, partRange(root, identity))
	}
	return out
}

// DutyIn says what a caller had to do with a tree of runs; keys are those its
// agent signs with. Where nobody looked, it had every part.
func DutyIn(s Snapshot, root RunID, c Caller, keys []PublicKey) *DutyFacts {
	d := &DutyFacts{}
	for _, r := range DutyReads(root, c, keys) {
		found, read := s.Ranges[r]
		if !read {
			return &DutyFacts{Executed: true, Planned: true, Requested: true}
		}
		for _, m := range found.Members {
			switch Part(m.Name[len(m.Name)-1:]) {
			case PartExecuted:
				d.Executed = true
			case PartPlanned:
				d.Planned = true
			case PartRequested:
				d.Requested = true
			}
		}
	}
	return d
}

// ExpectNoPart guards a verdict: none of the parts that DutyIn looked for has come
// to be since. Whoever judges may have another session at work at the same time.
func (t *Tx) ExpectNoPart(root RunID, c Caller, keys []PublicKey) {
	for _, r := range DutyReads(root, c, keys) {
		t.Free(r.Index, r.From, r.To, "")
	}
}

// Independent says whether nothing is known that forbids to judge.
func (d DutyFacts) Independent() bool { return !d.Executed && !d.Planned && !d.Requested }
