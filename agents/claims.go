package agents

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// Write claims: where a session says that it writes, for as long as it lives. They are
// granted by the commit that starts it, all or none, and given back by the commit
// that ends it or, where its agent runs in a jail, by the one that notes the end of that.

// maxClaims bounds the write claims of a session.
const maxClaims = 16

// SessionClaim asks for a write claim.
type SessionClaim struct {
	Resource string         `json:"resource" doc:"Resource URI, for example fs:repo/docs/. It must lie within the write scope of the session's agent." maxLength:"512"`
	Mode     writ.ScopeMode `json:"mode,omitempty" doc:"Exclusive: nobody else writes there, or above or below it. Shared: sessions that share too may." default:"exclusive" enum:"exclusive,shared"`
}

// claims are the write claims asked for, in their stored form: canonical and sorted.
func (a *SessionStartArgs) claims(op string) (out []writ.WriteClaim, err error) {
	var wrong []writ.FieldError
	bad := func(i int, field, msg string) {
		wrong = append(wrong, writ.FieldError{Pointer: "/write_claims/" + strconv.Itoa(i) + field, Msg: msg})
	}
	for i, c := range a.WriteClaims {
		scope, err := writ.CanonicalScope(c.Resource)
		switch {
		case err != nil:
			bad(i, "/resource", "is not a canonical resource URI")
			continue
		case slices.ContainsFunc(out, func(o writ.WriteClaim) bool { return writ.ScopesOverlap(o.Resource, scope) }):
			bad(i, "/resource", "repeats or overlaps another claim of the session")
		case c.Mode != "" && c.Mode != writ.ScopeExclusive && c.Mode != writ.ScopeShared:
			bad(i, "/mode", "is neither exclusive nor shared")
		}
		claim := writ.WriteClaim{Resource: scope, Mode: writ.ScopeExclusive}
		if c.Mode == writ.ScopeShared {
			claim.Mode = writ.ScopeShared
		}
		out = append(out, claim)
	}
	if len(out) > maxClaims || len(wrong) == 0 && len(writ.Gaps(out)) > writ.MaxScopeRanges {
		wrong = append(wrong, writ.FieldError{Pointer: "/write_claims", Msg: "name too much in all; claim fewer or wider scopes"})
	}
	if len(wrong) > 0 {
		return nil, &writ.Error{
			Code: writ.CodeInputInvalid, Op: op, Fields: wrong,
			Msg: "the session cannot claim this", Hint: "correct every field named in errors; " + writ.ScopeForm,
		}
	}
	slices.SortFunc(out, func(x, y writ.WriteClaim) int { return strings.Compare(x.Resource, y.Resource) })
	return out, nil
}

// claimReads names who might be in the way, and the agent whose write scope it is.
func (a *SessionStartArgs) claimReads(op string, call *writ.Call, s writ.Snapshot) (rs writ.ReadSet, err error) {
	if len(a.WriteClaims) == 0 || call.Caller.Session != a.SessionID { // the plan says it is not theirs
		return rs, nil
	}
	claims, err := a.claims(op)
	if err != nil {
		return rs, err
	}
	if call.Caller.Agent != "" {
		rs.Docs = append(rs.Docs, writ.AgentKey(call.Caller.Agent))
	}
	gaps := writ.Gaps(claims)
	for _, g := range gaps {
		rs.Ranges = append(rs.Ranges, g.Range())
	}
	rs.Docs = append(rs.Docs, writ.HoldersIn(s, gaps, writ.Holder(a.SessionID))...)
	return rs, nil
}

// describeClaims tells policy where a session that starts would write. A session
// without claims writes nothing by starting.
func (a *SessionStartArgs) describeClaims(op string, call *writ.Call, s writ.Snapshot) (sub writ.Subject, err error) {
	if len(a.WriteClaims) == 0 || call.Caller.Session != a.SessionID {
		return sub, nil
	}
	claims, err := a.claims(op)
	for _, c := range claims {
		sub.Scopes = append(sub.Scopes, c.Resource)
	}
	if err != nil || call.Caller.Agent == "" {
		return sub, err
	}
	agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(call.Caller.Agent))
	if ok {
		sub.Agent = &writ.AgentFacts{ID: agent.ID, Status: agent.State, Domain: agent.Domain, WriteScope: agent.WriteScope}
	}
	return sub, err
}

// grant gives a session that starts what it claims, or says who is in the way. That
// a claim lies within the agent's write scope is a rule of policy; it is looked at
// here too, since rules that were put in force before there were claims do not judge them.
func (a *SessionStartArgs) grant(op string, s writ.Snapshot, ses *writ.Session, tx *writ.Tx) error {
	if len(a.WriteClaims) == 0 {
		return nil
	}
	claims, err := a.claims(op)
	if err != nil {
		return err
	}
	if ses.Agent == "" {
		return &writ.Error{
			Code: writ.CodeInputInvalid, Op: op, Msg: "only a session of an agent claims write scopes", Hint: "start it without write_claims",
			Fields: []writ.FieldError{{Pointer: "/write_claims", Msg: "is for sessions of an agent"}},
		}
	}
	agent, _, _, err := writ.Get[writ.Agent](s, writ.AgentKey(ses.Agent))
	if err != nil {
		return err
	}
	for _, c := range claims {
		if !slices.ContainsFunc(agent.WriteScope, func(own string) bool { return writ.ScopeCovers(own, c.Resource) }) {
			return writ.Refuse(writ.CodeScope, op, "a claim lies outside the agent's write scope", "claim within it; agent.info shows it")
		}
	}
	gaps := writ.Gaps(claims)
	h, held, err := writ.InTheWay(s, gaps, writ.Holder(ses.ID))
	if err != nil {
		return err
	}
	if held {
		return h.Conflict(op)
	}
	for _, g := range gaps {
		tx.FreeBut(g, writ.Holder(ses.ID), nil)
	}
	for _, c := range claims {
		tx.Index(writ.IndexScopes, c.Member(ses.ID), 0)
	}
	ses.WriteClaims = claims
	return nil
}

// giveBack takes what a session claims out of the way. Tasks that wait for it are woken by
// the cleanup.
func giveBack(tx *writ.Tx, ses writ.Session) {
	for _, c := range ses.WriteClaims {
		tx.Unindex(writ.IndexScopes, c.Member(ses.ID))
	}
}
