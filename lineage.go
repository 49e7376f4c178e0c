package writ

import "slices"

// Part is what somebody had to do with a run. Who had one does not judge it.
type Part string

const (
	PartExecuted  Part = "x" // worked on a task of it
	PartPlanned   Part = "p" // created it, or enqueued a task of it
	PartRequested Part = "r" // asked for an approval in it
)

// RunParts says who had which part in a tree of runs, named by its root, as
// "<identity> <part>": what is done in a child is done for its parent. It only
// ever grows, and never by a call in a run that has ended or waits for its verdict.
func RunParts(root RunID) Index { return Index("parts/" + string(root)) }

// Tree is the root of the tree of runs that a run is in; its own id without a
// parent.
func (r Run) Tree() RunID {
	if r.Root != "" {
		return r.Root
	}
	return r.ID
}

// partRange looks for one identity.
func partRange(root RunID, identity string) Range {
	return Range{Index: RunParts(root), From: identity + " ", To: identity + "!", Limit: 3}
}

// Identities of those who act in a run: what would be the same again if they came
// back under another name. Whoever opened a session, or is answerable for it, is
// behind what it does; keys are those its agent signs with.
func session(c Caller) string             { return "session/" + string(c.Session) }
func self(p PrincipalID) string           { return "self/" + string(p) }
func behind(p PrincipalID) string         { return "behind/" + string(p) }
func agentSelf(a AgentID) string          { return "agent/" + string(a) }
func keySelf(key PublicKey) string        { return "key/" + key.ID }
func unknown(c Caller) bool               { return c.Session == "" } // the gateway itself takes no part
func PartSeen(c Caller, root RunID) Range { return partRange(root, session(c)) }

// TakePart notes that a caller had a part in a tree of runs. It wants PartSeen, and does
// nothing when the same session is known with that part.
func (t *Tx) TakePart(s Snapshot, root RunID, part Part, c Caller, keys []PublicKey) {
	if unknown(c) || root == "" {
		return
	}
	member := func(identity string) string { return identity + " " + string(part) }
	for _, m := range s.Ranges[PartSeen(c, root)].Members {
		if m.Name == member(session(c)) {
			return
		}
	}
	who := []string{session(c), self(c.Principal), behind(c.Principal)}
	for _, p := range append([]PrincipalID{c.Controller}, c.Openers...) {
		if p != "" && !slices.Contains(who, behind(p)) {
			who = append(who, behind(p))
		}
	}
	if c.Agent != "" {
		who = append(who, agentSelf(c.Agent))
	}
	for _, k := range keys {
		who = append(who, keySelf(k))
	}
	for _, identity := range who {
		t.Index(RunParts(root), member(identity), 0)
	}
}

// judging are the identities under which a caller may have had a part in what it
// judges: itself, whoever is answerable for it, and its openers, if they acted
// themselves. That one person opened both sessions is no part; nor is that the
// operator of the machine did, who opens the first session of everybody.
func judging(c Caller, keys []PublicKey) []string {
	out := []string{session(c), behind(c.Principal)}
	if c.Controller != "" && c.Controller != c.Principal {
		out = append(out, behind(c.Controller))
	}
	for _, p := range c.Openers {
		if p != MachineOperator {
			out = append(out, self(p))
		}
	}
	if c.Agent != "" {
		out = append(out, agentSelf(c.Agent))
	}
	for _, k := range keys {
		out = append(out, keySelf(k))
	}
	return out
}

// DutyReads names what DutyIn must see.
func DutyReads(root RunID, c Caller, keys []PublicKey) (out []Range) {
	for _, identity := range judging(c, keys) {
		out = append(out, partRange(root, identity))
	}
	return out
}

// DutyIn says what a caller had to do with a tree of runs. The gateway itself had
// nothing.
func DutyIn(s Snapshot, root RunID, c Caller, keys []PublicKey) *DutyFacts {
	d := &DutyFacts{}
	for _, r := range DutyReads(root, c, keys) {
		for _, m := range s.Ranges[r].Members {
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

// Independent says whether nothing is known that forbids to judge.
func (d DutyFacts) Independent() bool { return !d.Executed && !d.Planned && !d.Requested }
