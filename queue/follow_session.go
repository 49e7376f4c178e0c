package queue

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// FollowSession gives the entries of the queue that a session's document implies: what
// it claims.
func FollowSession(ses writ.Session) (out []Entry) {
	if !ses.HoldsScopes() {
		return nil
	}
	for _, c := range ses.WriteClaims {
		out = append(out, Entry{Index: writ.IndexScopes, Member: c.Member(ses.ID)})
	}
	return out
}

// CheckSessionReads names what CheckSession must see. also are entries of
// writ.IndexScopes somebody has met that name the session.
func CheckSessionReads(id writ.SessionID, s writ.Snapshot, also []Entry) (rs writ.ReadSet) {
	rs.Docs = []writ.Key{writ.SessionKey(id)}
	ses, _, err := peek[writ.Session](s, writ.SessionKey(id))
	if err != nil {
		return rs
	}
	for _, e := range append(FollowSession(ses), also...) {
		rs.Ranges = append(rs.Ranges, e.Range())
	}
	return rs
}

// CheckSession says what does not follow from a session's document. It wants
// CheckSessionReads.
func CheckSession(id writ.SessionID, s writ.Snapshot, also []Entry) (out []Wrong, err error) {
	ses, _, ok, err := writ.Get[writ.Session](s, writ.SessionKey(id))
	if err != nil {
		return nil, err
	}
	is := "the session is " + string(ses.State)
	if !ok {
		is = "there is no such session"
	}
	claims := FollowSession(ses)
	for _, e := range claims {
		if !e.in(s) {
			out = append(out, Wrong{Session: id, Entry: e, Missing: true, Why: is})
		}
	}
	for _, e := range also {
		if e.in(s) && !slices.ContainsFunc(claims, e.same) {
			out = append(out, Wrong{Session: id, Entry: e, Why: is + ", and claims no such thing"})
		}
	}
	return out, nil
}
