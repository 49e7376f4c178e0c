package agents

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// What an agent is for, and what it leaves to others. A concern has one owner in a
// domain among the active agents: whoever becomes active guards that nobody else's
// name is in the range of its concerns, so two replicas cannot make two owners.

// boundary finds what is wrong with owns, defers and gates.
func (a *AgentRegisterArgs) boundary(cfg Config, bad func(list string, i int, field, msg string)) {
	for i, c := range a.Owns {
		if slices.Contains(a.Owns[:i], c) {
			bad("owns", i, "", "is named twice")
		}
	}
	for i, d := range a.Defers {
		switch {
		case slices.Contains(a.Owns, d.Concern):
			bad("defers", i, "/concern", "is among those it owns")
		case slices.ContainsFunc(a.Defers[:i], func(x writ.Deferral) bool { return x.Concern == d.Concern }):
			bad("defers", i, "/concern", "is left to another already")
		}
		if d.To == a.AgentID {
			bad("defers", i, "/to", "is the agent itself")
		}
	}
	for i, g := range a.WorkGates {
		switch {
		case slices.Contains(a.WorkGates[:i], g):
			bad("work_gates", i, "", "is named twice")
		case !g.Valid():
			bad("work_gates", i, "", "must be a dotted name")
		}
	}
	for i, g := range a.Gates {
		switch {
		case slices.Contains(a.Gates[:i], g):
			bad("gates", i, "", "is named twice")
		case !cfg.Gate(g):
			bad("gates", i, "", "is no policy pack or rule that is loaded; policy.info lists them")
		}
	}
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// contractRef says whether a reference has one of the two forms. What it leads to
// is not looked at.
func contractRef(s string) bool {
	if digestForm.MatchString(s) {
		return true
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && u.Opaque == ""
}

func ownerMember(a writ.Agent, concern string) string {
	return a.Domain + " " + concern + " " + string(a.ID)
}

// sharedMark ends the members of ScopeIndex of agents that share their scopes. No
// agent has such an id.
const sharedMark = "~"

func scopeMember(a writ.Agent, scope string) string {
	m := scope + " " + string(a.ID)
	if a.SharesScope {
		m += " " + sharedMark
	}
	return m
}

// except is who may be in the range of a scope an agent is about to hold: itself,
// or all who share if it does.
func except(a writ.Agent) string {
	if a.SharesScope {
		return sharedMark
	}
	return string(a.ID)
}

// claims finds what keeps an agent from being active beside the others, every
// reason once, and guards in tx that there is none.
func claims(a writ.Agent, s writ.Snapshot, tx *writ.Tx) (wrong []writ.FieldError, holder writ.AgentID) {
	taken := func(list string, i int, by writ.AgentID, msg string) {
		wrong, holder = append(wrong, writ.FieldError{Pointer: "/" + list + "/" + strconv.Itoa(i), Msg: msg}), by
	}
	for _, rg := range rangesOf(a.WriteScope) {
		tx.Free(ScopeIndex, rg[0], rg[1], except(a))
	}
	for i, scope := range a.WriteScope {
		if by, ok := overlapping(a, s, scope); ok {
			taken("write_scope", i, by, "overlaps that of an active agent, and not both share theirs")
		}
		tx.Index(ScopeIndex, scopeMember(a, scope), 0)
	}
	for i, c := range a.Owns {
		r := writ.OwnerRange(a.Domain, c)
		for _, m := range s.Ranges[r].Members {
			if m.Name != ownerMember(a, c) {
				taken("owns", i, writ.AgentID(m.Name[len(r.From):]), "is owned by another active agent of the domain")
				break
			}
		}
		tx.Free(writ.IndexOwners, r.From, r.To, string(a.ID))
		tx.Index(writ.IndexOwners, ownerMember(a, c), 0)
	}
	return wrong, holder
}

func overlapping(a writ.Agent, s writ.Snapshot, scope string) (writ.AgentID, bool) {
	for _, rg := range writ.ScopeRanges(scope) {
		for _, m := range s.Ranges[scopeRange(rg)].Members {
			by, shared := ScopeHolder(m.Name)
			if by != a.ID && !(shared && a.SharesScope) {
				return by, true
			}
		}
	}
	return "", false
}

// ScopeHolder takes a member of ScopeIndex apart.
func ScopeHolder(member string) (id writ.AgentID, shared bool) {
	_, holder, _ := strings.Cut(member, " ")
	holder, mark, _ := strings.Cut(holder, " ")
	return writ.AgentID(holder), mark == sharedMark
}
