package agents

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// claiming opens a session of the builder and says how it would start.
func (r *room) claiming(claims ...SessionClaim) (writ.Caller, *SessionStartArgs) {
	r.t.Helper()
	if _, _, ok := writtest.Get[writ.Agent](r.World, writ.AgentKey("builder")); !ok {
		r.active("builder", "fs:repo/", "mem:notes/")
	}
	o, by := r.opened(30)
	return by, &SessionStartArgs{SessionID: o.SessionID, WriteClaims: claims}
}

// claims starts a session of the builder with claims.
func (r *room) claims(claims ...SessionClaim) (writ.Caller, SessionView) {
	r.t.Helper()
	by, args := r.claiming(claims...)
	return by, body[SessionView](r.t, r.must("session.start", by, args))
}

func alone(scope string) SessionClaim  { return SessionClaim{Resource: scope} }
func shared(scope string) SessionClaim { return SessionClaim{Resource: scope, Mode: writ.ScopeShared} }

// Claims are granted with the start, all or none, in their canonical form.
func TestWriteClaims(t *testing.T) {
	r := newRoom(t)
	by, view := r.claims(shared("MEM:notes/a"), alone("fs:repo/ops/plugins2"))
	want := []writ.WriteClaim{{Resource: "fs:repo/ops/plugins2/", Mode: writ.ScopeExclusive}, {Resource: "mem:notes/a/", Mode: writ.ScopeShared}}
	if !slices.Equal(view.WriteClaims, want) || !slices.Equal(r.session(by.Session).WriteClaims, want) {
		t.Fatalf("shown %v, stored %v", view.WriteClaims, r.session(by.Session).WriteClaims)
	}
	held := []string{"fs:repo/ops/plugins2/ " + string(by.Session), "mem:notes/a/ " + string(by.Session) + " shared"}
	if got := r.Members(writ.IndexScopes); !slices.Equal(got, held) {
		t.Fatalf("held %v", got)
	}
	for _, who := range []writ.Caller{by, r.ops} {
		if got := body[SessionView](t, r.must("session.get", who, &SessionGetArgs{SessionID: by.Session})); !slices.Equal(got.WriteClaims, want) {
			t.Errorf("session.get shows %v", got.WriteClaims)
		}
	}
	// Nothing of a start that is refused stays.
	other, args := r.claiming(alone("fs:repo/docs/"), alone("fs:repo/ops/plugins2/a/"))
	e := r.refused(writ.CodeScopeConflict, "session.start", other, args)
	if e.Details["holder"] != string(by.Session) || e.Details["holder_agent"] != "builder" || e.Details["scope"] != "fs:repo/ops/plugins2/" {
		t.Errorf("details %v", e.Details)
	}
	if got := r.Members(writ.IndexScopes); !slices.Equal(got, held) || r.session(other.Session).State != writ.SessionOpened {
		t.Errorf("held %v", got)
	}
	args.WriteClaims = []SessionClaim{alone("fs:repo/ops/plug/"), alone("fs:repo/docs/")} // by whole segments
	r.must("session.start", other, args)
}

// Who is kept out by whom: only those who both share are not.
func TestClaimsAndWhoIsInTheWay(t *testing.T) {
	for _, mine := range []writ.ScopeMode{writ.ScopeExclusive, writ.ScopeShared} {
		for _, theirs := range []writ.ScopeMode{writ.ScopeExclusive, writ.ScopeShared} {
			for _, scope := range []string{"fs:repo/", "fs:repo/a/", "fs:repo/a/b/"} {
				r := newRoom(t)
				r.claims(SessionClaim{Resource: "fs:repo/a/", Mode: theirs})
				by, args := r.claiming(SessionClaim{Resource: scope, Mode: mine}, alone("mem:notes/"))
				if mine == writ.ScopeShared && theirs == writ.ScopeShared {
					r.must("session.start", by, args)
					continue
				}
				r.refused(writ.CodeScopeConflict, "session.start", by, args)
			}
		}
	}
	// A task that runs is in the way of both.
	for _, claim := range []SessionClaim{alone("fs:repo/"), shared("fs:repo/a/b/")} {
		r := newRoom(t)
		task := writ.Task{ID: writ.TaskID(r.NewID(writ.PrefixTask)), State: writ.TaskRunning, Lease: &writ.Lease{Agent: "digger"}, WriteScopes: []string{"fs:repo/a/"}}
		r.Seed(writ.TaskKey(task.ID), writ.ObjectTask, task)
		r.SetIndex(writ.IndexScopes, writ.ScopeMember("fs:repo/a/", task.ID), 0)
		by, args := r.claiming(claim)
		if e := r.refused(writ.CodeScopeConflict, "session.start", by, args); e.Details["holder"] != string(task.ID) || e.Details["holder_agent"] != "digger" {
			t.Errorf("details %v", e.Details)
		}
	}
}

// Of two that start at once, one has it; two that share both do.
func TestTwoStartAtOnce(t *testing.T) {
	for _, claim := range []SessionClaim{alone("fs:repo/a/"), shared("fs:repo/a/")} {
		r := newRoom(t)
		var plans []*writtest.Planned
		for range 2 {
			by, args := r.claiming(claim)
			c := r.caps["session.start"]
			p, err := r.Plan(c, r.NewCall(c, by, args))
			if err != nil {
				t.Fatal(err)
			}
			plans = append(plans, p)
		}
		if _, err := r.Commit(plans[0]); err != nil {
			t.Fatal(err)
		}
		_, err := r.Commit(plans[1])
		if lost := errors.As(err, new(*writtest.Conflict)); lost != (claim.Mode != writ.ScopeShared) {
			t.Errorf("%v: %v", claim, err)
		}
	}
}

// What is wrong with claims is said at once, with pointers.
func TestClaimsThatAreNone(t *testing.T) {
	r := newRoom(t)
	var deep []SessionClaim
	for i := range maxClaims {
		deep = append(deep, alone(fmt.Sprintf("fs:repo/%d/a/b/c/d/e/f/", i)))
	}
	for want, claims := range map[string][]SessionClaim{
		"/write_claims/0/resource /write_claims/2/resource": {alone("fs:repo/../"), alone("fs:repo/a/"), shared("fs:repo/a/b/")},
		"/write_claims/1/mode":                              {alone("fs:repo/a/"), {Resource: "fs:repo/b/", Mode: "mine"}},
		"/write_claims":                                     deep,
	} {
		by, args := r.claiming(claims...)
		var got []string
		for _, f := range r.refused(writ.CodeInputInvalid, "session.start", by, args).Fields {
			got = append(got, f.Pointer)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	by, args := r.claiming(alone("fs:elsewhere/"))
	r.refused(writ.CodeScope, "session.start", by, args)
	person := r.Open(writ.RoleOperator, "olga", "")
	ses := r.session(person.Session)
	ses.State = writ.SessionOpened
	r.Seed(writ.SessionKey(ses.ID), writ.ObjectSession, ses)
	r.refused(writ.CodeInputInvalid, "session.start", person, &SessionStartArgs{SessionID: ses.ID, WriteClaims: []SessionClaim{alone("fs:repo/")}})
	r.refused(writ.CodeNotFound, "session.start", by, &SessionStartArgs{SessionID: ses.ID, WriteClaims: []SessionClaim{alone("fs:repo/")}})
}

// The most that can be claimed fits into one commit.
func TestTheMostClaimsFit(t *testing.T) {
	r := newRoom(t)
	var all []SessionClaim
	for i := range maxClaims {
		all = append(all, shared(fmt.Sprintf("fs:repo/%02d/a/b/c/d/", i)))
	}
	by, args := r.claiming(all...)
	_, tx, err := r.call("session.start", by, args)
	if n := len(tx.Guards) + len(tx.Ops); err != nil || n > writ.MaxOps-16 { // which the door adds
		t.Fatalf("%d guards and operations: %v", n, err)
	}
}

// However a session ends, its claims end with it, in the same commit; a session that
// is only late keeps them.
func TestClaimsEndWithTheSession(t *testing.T) {
	for name, end := range map[string]func(*room, writ.Caller){
		"closed": func(r *room, by writ.Caller) { r.must("session.close", by, &SessionCloseArgs{SessionID: by.Session}) },
		"revoked": func(r *room, by writ.Caller) {
			r.must("session.revoke", r.ops, &SessionRevokeArgs{SessionID: by.Session})
		},
		"out of time": func(r *room, by writ.Caller) {
			r.Advance(writ.SessionMaxLifeSeconds)
			r.must("session.expire", r.System(), &SessionExpireArgs{SessionID: by.Session})
		},
		"silent": func(r *room, by writ.Caller) {
			r.Advance(31)
			r.must("session.lapse", r.System(), &SessionLapseArgs{SessionID: by.Session})
			if r.session(by.Session).State != writ.SessionSuspended || len(r.Members(writ.IndexScopes)) != 2 {
				r.t.Fatalf("a suspended session holds %v", r.Members(writ.IndexScopes))
			}
			r.Advance(writ.SessionGraceSeconds + 1)
			r.must("session.lapse", r.System(), &SessionLapseArgs{SessionID: by.Session})
		},
		"its agent stopped": func(r *room, _ writ.Caller) {
			r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "builder"})
			r.must("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "builder"})
		},
	} {
		r := newRoom(t)
		by, _ := r.claims(alone("fs:repo/a/"), shared("mem:notes/"))
		end(r, by)
		if got := r.Members(writ.IndexScopes); len(got) > 0 || !writ.SessionMoves.Terminal(r.session(by.Session).State) {
			t.Errorf("%s: it still holds %v", name, got)
		}
		r.gone(by.Session)
		if v := body[SessionView](t, r.must("session.get", r.ops, &SessionGetArgs{SessionID: by.Session})); len(v.WriteClaims) != 2 {
			t.Errorf("%s: nobody sees what it claimed: %v", name, v.WriteClaims)
		}
	}
}

// Stopping an agent whose sessions claim as much as they can is done in commits that
// fit, each of which gets further.
func TestManyClaimsAreGivenBackInSteps(t *testing.T) {
	r := newRoom(t)
	for i := range maxAgentSessions {
		var all []SessionClaim
		for j := range maxClaims {
			all = append(all, alone(fmt.Sprintf("fs:repo/%d/%d/", i, j)))
		}
		r.claims(all...)
	}
	r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "builder"})
	for more := true; more; {
		reply, tx, err := r.call("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "builder"})
		if n := len(tx.Guards) + len(tx.Ops); err != nil || n > writ.MaxOps-16 {
			t.Fatalf("%d guards and operations: %v", n, err)
		}
		got := body[SweepResult](t, reply)
		if more = got.More; more && len(got.Sessions) == 0 {
			t.Fatal("it does not get further")
		}
	}
	if left := r.Members(writ.IndexScopes); len(left) > 0 || len(r.Members(writ.AgentSessions("builder"))) > 0 {
		t.Errorf("left: %d", len(left))
	}
}

// Policy judges a start by where it claims to write, and one without claims as before.
func TestPolicySeesClaims(t *testing.T) {
	r := newRoom(t)
	c := r.caps["session.start"]
	for _, claims := range [][]SessionClaim{nil, {alone("mem:notes/"), shared("FS:repo/a")}} {
		by, args := r.claiming(claims...)
		p, err := r.Plan(c, r.NewCall(c, by, args))
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		if claims != nil {
			want = []string{"fs:repo/a/", "mem:notes/"}
		}
		if !slices.Equal(p.Subject.Scopes, want) || (p.Subject.Agent != nil) != (claims != nil) || p.Subject.Claimed != nil {
			t.Errorf("policy sees %+v", p.Subject)
		}
	}
}
