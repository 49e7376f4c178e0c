package agents

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// opened opens a session for an active agent and returns its caller.
func (r *room) opened(ttl int64) (SessionOpened, writ.Caller) {
	r.t.Helper()
	if _, _, ok := writtest.Get[writ.Agent](r.World, writ.AgentKey("builder")); !ok {
		r.active("builder")
	}
	o := body[SessionOpened](r.t, r.must("session.open", r.ops, &SessionOpenArgs{
		Principal: "builder-bot", Kind: writ.KindAgent, Role: writ.RoleExecutor, AgentID: "builder", TTLSeconds: ttl,
	}))
	return o, writ.Caller{
		Tenant: r.Tenant, Principal: o.Principal, Kind: o.Kind, Role: o.Role, Session: o.SessionID, Agent: o.AgentID,
	}
}

func (r *room) session(id writ.SessionID) writ.Session {
	r.t.Helper()
	s, _, ok := writtest.Get[writ.Session](r.World, writ.SessionKey(id))
	if !ok {
		r.t.Fatalf("there is no session %s", id)
	}
	return s
}

func TestSessionToken(t *testing.T) {
	r := newRoom(t)
	o, by := r.opened(0)
	prefix := "default." + string(o.SessionID) + "."
	secret, ok := strings.CutPrefix(o.Token, prefix)
	if !ok || len(secret) != 43 {
		t.Fatalf("token %q", o.Token)
	}
	hash := sha256.Sum256([]byte(secret))
	doc := r.session(o.SessionID)
	if doc.TokenHash != hex.EncodeToString(hash[:]) {
		t.Fatal("the stored hash is not of the secret in the token")
	}
	if doc.OpenedBy != r.ops.Session || doc.TTLSeconds != 30 || doc.ExpiresAt != r.Now+12*3600*1000 {
		t.Fatalf("got %+v", doc)
	}
	f, _ := reflect.TypeFor[SessionOpened]().FieldByName("Token")
	if f.Tag.Get("writ") != "secret" {
		t.Fatal("the token would be kept with the idempotent reply")
	}
	raw := string(r.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.SessionKey(o.SessionID)}}).Docs[writ.SessionKey(o.SessionID)].Body)
	got := r.must("session.get", by, &SessionGetArgs{SessionID: o.SessionID})
	for _, text := range []string{raw, string(got.JSON)} {
		if strings.Contains(text, secret) {
			t.Fatalf("the secret is in %s", text)
		}
	}
	if strings.Contains(string(got.JSON), doc.TokenHash) {
		t.Fatal("the hash is shown")
	}
}

func TestSecretsFrom(t *testing.T) {
	a, b := SecretsFrom([]byte("key one")), SecretsFrom([]byte("key two"))
	call := func(id, tenant string) *writ.Call {
		return &writ.Call{ID: writ.CallID(id), Caller: writ.Caller{Tenant: writ.Tenant(tenant)}}
	}
	if again := SecretsFrom([]byte("key one")); a(call("1", "t")) != again(call("1", "t")) {
		t.Fatal("the same call has two secrets")
	}
	seen := map[string]bool{}
	for _, s := range []string{a(call("1", "t")), a(call("2", "t")), a(call("1", "u")), b(call("1", "t"))} {
		if seen[s] {
			t.Fatal("two calls share a secret")
		}
		seen[s] = true
	}
}

// Everybody through whose sessions a session was opened stays known, so there is an
// end to how many these are.
func TestOpenersAreNotForgotten(t *testing.T) {
	r := newRoom(t)
	by := r.ops
	for i := range 8 {
		by.Openers = append(by.Openers, writ.PrincipalID(fmt.Sprintf("p%d", i)))
	}
	r.refused(writ.CodeSoD, "session.open", by, &SessionOpenArgs{Principal: "someone", Kind: writ.KindHuman, Role: writ.RoleApprover})
	by.Openers = by.Openers[:7]
	o := body[SessionOpened](t, r.must("session.open", by, &SessionOpenArgs{Principal: "someone", Kind: writ.KindHuman, Role: writ.RoleApprover}))
	if got := r.session(o.SessionID).Openers; len(got) != 8 || got[0] != by.Principal || got[7] != "p6" {
		t.Errorf("opened by %v", got)
	}
}

// Who opens a session can tell it what it knows, so the session begins with the labels
// its opener has been given; one whose opener has been given nothing begins with none.
func TestASessionBeginsWithWhatItsOpenerWasGiven(t *testing.T) {
	r := newRoom(t)
	open := &SessionOpenArgs{Principal: "someone", Kind: writ.KindHuman, Role: writ.RoleApprover}
	given := func() []writ.Label {
		o := body[SessionOpened](t, r.must("session.open", r.ops, open))
		g, _, _ := writtest.Get[writ.Given](r.World, writ.GivenKey(o.SessionID))
		return g.Labels
	}
	if got := given(); len(got) != 0 {
		t.Errorf("it begins with %v", got)
	}
	r.Seed(writ.GivenKey(r.ops.Session), "given", writ.Given{Labels: []writ.Label{writ.LabelPIIAttachment}})
	if got := given(); !slices.Equal(got, []writ.Label{writ.LabelPIIAttachment}) {
		t.Errorf("it begins with %v", got)
	}
}

// Who answers for the opener is behind all that the opener opens, and stays so in
// what these open; nobody is listed twice.
func TestWhoAnswersForAnOpenerIsNotForgotten(t *testing.T) {
	r := newRoom(t)
	bot := writ.Caller{
		Tenant: r.ops.Tenant, Session: r.ops.Session, Principal: "bot", Kind: writ.KindService, Role: writ.RoleOperator,
		Controller: "olga", Openers: []writ.PrincipalID{"operator"},
	}
	opens := func(by writ.Caller, name writ.PrincipalID) writ.Session {
		o := body[SessionOpened](t, r.must("session.open", by, &SessionOpenArgs{Principal: name, Kind: writ.KindHuman, Role: writ.RoleOperator}))
		return r.session(o.SessionID)
	}
	carol := opens(bot, "carol")
	if want := []writ.PrincipalID{"bot", "olga", "operator"}; carol.Controller != "carol" || !slices.Equal(carol.Openers, want) {
		t.Errorf("%s answers, opened by %v, want %v", carol.Controller, carol.Openers, want)
	}
	by := bot
	by.Principal, by.Kind, by.Controller, by.Openers = "carol", writ.KindHuman, "carol", carol.Openers
	if got, want := opens(by, "dora").Openers, []writ.PrincipalID{"carol", "bot", "olga", "operator"}; !slices.Equal(got, want) {
		t.Errorf("opened by %v, want %v", got, want)
	}
	by.Controller = "olga" // who is behind it already
	if got, want := opens(by, "dora").Openers, []writ.PrincipalID{"carol", "olga", "bot", "operator"}; !slices.Equal(got, want) {
		t.Errorf("opened by %v, want %v", got, want)
	}
	by.Controller = "" // of a session opened before sessions had one
	if got := opens(by, "dora").Openers; slices.Contains(got, "") {
		t.Errorf("opened by %q", got)
	}
}

func TestSessionOpenRules(t *testing.T) {
	for name, c := range map[string]struct {
		args SessionOpenArgs
		code writ.Code
	}{
		"agent without id":    {SessionOpenArgs{Kind: writ.KindAgent, Role: writ.RoleExecutor}, writ.CodeInputInvalid},
		"human with agent":    {SessionOpenArgs{Kind: writ.KindHuman, Role: writ.RoleExecutor, AgentID: "builder"}, writ.CodeInputInvalid},
		"agent as operator":   {SessionOpenArgs{Kind: writ.KindAgent, Role: writ.RoleOperator, AgentID: "builder"}, writ.CodeInputInvalid},
		"agent as approver":   {SessionOpenArgs{Kind: writ.KindAgent, Role: writ.RoleApprover, AgentID: "builder"}, writ.CodeInputInvalid},
		"system":              {SessionOpenArgs{Kind: writ.KindService, Role: writ.RoleSystem}, writ.CodeInputInvalid},
		"connector":           {SessionOpenArgs{Kind: writ.KindService, Role: writ.RoleConnector}, writ.CodeInputInvalid},
		"unknown agent":       {SessionOpenArgs{Kind: writ.KindAgent, Role: writ.RoleExecutor, AgentID: "nobody"}, writ.CodeNotFound},
		"planned agent":       {SessionOpenArgs{Kind: writ.KindAgent, Role: writ.RoleExecutor, AgentID: "planned"}, writ.CodeUnavailable},
		"other archetype":     {SessionOpenArgs{Kind: writ.KindAgent, Role: writ.RoleVerifier, AgentID: "builder"}, writ.CodeNotEligible},
		"agent":               {SessionOpenArgs{Kind: writ.KindAgent, Role: writ.RoleExecutor, AgentID: "builder"}, ""},
		"human operator":      {SessionOpenArgs{Kind: writ.KindHuman, Role: writ.RoleOperator}, ""},
		"service auditor":     {SessionOpenArgs{Kind: writ.KindService, Role: writ.RoleAuditor}, ""},
		"human with a beat":   {SessionOpenArgs{Kind: writ.KindHuman, Role: writ.RoleApprover, TTLSeconds: 60}, ""},
		"short life":          {SessionOpenArgs{Kind: writ.KindHuman, Role: writ.RoleApprover, LifeSecond: 5}, ""},
		"life above the most": {SessionOpenArgs{Kind: writ.KindHuman, Role: writ.RoleApprover, LifeSecond: 1 << 40}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.active("builder")
			r.must("agent.register", r.ops, entry("planned"))
			c.args.Principal = "someone"
			if c.code != "" {
				r.refused(c.code, "session.open", r.ops, &c.args)
				return
			}
			o := body[SessionOpened](t, r.must("session.open", r.ops, &c.args))
			doc := r.session(o.SessionID)
			life := int64(writ.SessionMaxLifeSeconds)
			if c.args.LifeSecond > 0 {
				life = min(life, c.args.LifeSecond)
			}
			if doc.ExpiresAt != r.Now+life*1000 || r.Index(writ.IndexLives)[string(o.SessionID)] != doc.ExpiresAt {
				t.Fatalf("got %+v, alarm %d", doc, r.Index(writ.IndexLives)[string(o.SessionID)])
			}
		})
	}
}

func TestSessionsOfOneAgentAreBounded(t *testing.T) {
	r := newRoom(t)
	for range maxAgentSessions {
		r.opened(0)
	}
	r.refused(writ.CodeQuota, "session.open", r.ops, &SessionOpenArgs{
		Principal: "x-x", Kind: writ.KindAgent, Role: writ.RoleExecutor, AgentID: "builder",
	})
}

func TestSessionEveryMove(t *testing.T) {
	states := []writ.SessionState{
		writ.SessionOpened, writ.SessionActive, writ.SessionSuspended, writ.SessionClosed, writ.SessionExpired, writ.SessionRevoked,
	}
	own := func(f func(writ.SessionID) any) func(*room, writ.SessionID, writ.Caller) (writ.Caller, any) {
		return func(_ *room, id writ.SessionID, me writ.Caller) (writ.Caller, any) { return me, f(id) }
	}
	for _, v := range []struct {
		id   writ.CapabilityID
		to   writ.SessionState
		from []writ.SessionState // the states this verb may be used in
		by   func(*room, writ.SessionID, writ.Caller) (writ.Caller, any)
	}{
		{"session.start", writ.SessionActive, states[:1], own(func(s writ.SessionID) any { return &SessionStartArgs{SessionID: s} })},
		{"session.heartbeat", writ.SessionActive, states[1:3], own(func(s writ.SessionID) any { return &SessionHeartbeatArgs{SessionID: s} })},
		{"session.close", writ.SessionClosed, states[:3], own(func(s writ.SessionID) any { return &SessionCloseArgs{SessionID: s} })},
		{"session.revoke", writ.SessionRevoked, states[:3], func(r *room, s writ.SessionID, _ writ.Caller) (writ.Caller, any) {
			return r.ops, &SessionRevokeArgs{SessionID: s, Reason: "compromised"}
		}},
	} {
		for _, from := range states {
			t.Run(fmt.Sprintf("%s from %s", v.id, from), func(t *testing.T) {
				r := newRoom(t)
				o, me := r.opened(30)
				doc := r.session(o.SessionID)
				doc.State = from
				r.Seed(writ.SessionKey(doc.ID), writ.ObjectSession, doc)
				r.SetCounter(beatOf(doc.ID), r.Now+1000)
				by, args := v.by(r, o.SessionID, me)
				facts := len(r.Facts)
				if !slices.Contains(v.from, from) {
					r.refused(writ.CodeIllegal, v.id, by, args)
					return
				}
				r.must(v.id, by, args)
				if got := r.session(o.SessionID).State; got != v.to {
					t.Fatalf("got %s, want %s", got, v.to)
				}
				if v.id == "session.heartbeat" && from == writ.SessionActive {
					if len(r.Facts) != facts {
						t.Fatal("a heartbeat of an active session left a fact")
					}
					return
				}
				last := r.Facts[len(r.Facts)-1]
				want := []writ.Change{{Kind: "session", ID: string(doc.ID), From: string(from), To: string(v.to)}}
				if len(r.Facts) != facts+1 || !slices.Equal(last.Changes, want) {
					t.Fatalf("got %+v", last)
				}
				if writ.SessionMoves.Terminal(v.to) {
					r.gone(o.SessionID)
				}
			})
		}
	}
}

// gone checks that nothing but the cleanup is left of a session.
func (r *room) gone(id writ.SessionID) {
	r.t.Helper()
	for _, i := range []writ.Index{writ.IndexBeats, writ.IndexLives, writ.AgentSessions("builder")} {
		if _, ok := r.Index(i)[string(id)]; ok {
			r.t.Fatalf("the session is still in %s", i)
		}
	}
	if at, ok := r.Index(writ.IndexTodo)["session "+string(id)]; !ok || at != r.Now {
		r.t.Fatal("no cleanup is due")
	}
	if r.session(id).Reason == "" {
		r.t.Fatal("the session does not say why it ended")
	}
}

func TestOnlyTheOwnSession(t *testing.T) {
	r := newRoom(t)
	o, _ := r.opened(30)
	_, other := r.opened(30)
	auditor := r.Open(writ.RoleAuditor, "ada", "")
	id := o.SessionID
	for _, by := range []writ.Caller{other, r.ops, auditor, r.System()} {
		r.refused(writ.CodeNotFound, "session.start", by, &SessionStartArgs{SessionID: id})
		r.refused(writ.CodeNotFound, "session.heartbeat", by, &SessionHeartbeatArgs{SessionID: id})
		r.refused(writ.CodeNotFound, "session.close", by, &SessionCloseArgs{SessionID: id})
	}
	for _, by := range []writ.Caller{other, auditor} {
		r.refused(writ.CodeNotFound, "session.revoke", by, &SessionRevokeArgs{SessionID: id})
	}
	r.refused(writ.CodeNotFound, "session.get", other, &SessionGetArgs{SessionID: id})
	for _, by := range []writ.Caller{r.ops, auditor} {
		r.must("session.get", by, &SessionGetArgs{SessionID: id})
	}
	unknown := writ.SessionID(r.NewID(writ.PrefixSession))
	r.refused(writ.CodeNotFound, "session.get", r.ops, &SessionGetArgs{SessionID: unknown})
	r.refused(writ.CodeNotFound, "session.revoke", r.ops, &SessionRevokeArgs{SessionID: unknown})

	all := body[SessionList](t, r.must("session.list", r.ops, &SessionListArgs{}))
	if len(all.Sessions) != 4 {
		t.Fatalf("operators see %d sessions, want 4", len(all.Sessions))
	}
	mine := body[SessionList](t, r.must("session.list", other, &SessionListArgs{}))
	if len(mine.Sessions) != 1 || mine.Sessions[0].SessionID != other.Session {
		t.Fatalf("an executor sees %+v", mine.Sessions)
	}
}

func TestHeartbeatsAndSilence(t *testing.T) {
	r := newRoom(t)
	o, me := r.opened(30)
	id := o.SessionID
	lapse := func() SweepResult {
		t.Helper()
		return body[SweepResult](t, r.must("session.lapse", r.System(), &SessionLapseArgs{SessionID: id}))
	}
	alarm := func() int64 { return r.Index(writ.IndexBeats)[string(id)] }
	want := func(state writ.SessionState, beat int64) {
		t.Helper()
		if got := r.session(id).State; got != state || alarm() != beat || (beat > 0 && r.Counter(beatOf(id)) != beat) {
			t.Fatalf("got %s, alarm %d, counter %d; want %s, %d", got, alarm(), r.Counter(beatOf(id)), state, beat)
		}
	}
	r.must("session.start", me, &SessionStartArgs{SessionID: id})
	want(writ.SessionActive, r.Now+30_000)

	r.Advance(20)
	beat := r.must("session.heartbeat", me, &SessionHeartbeatArgs{SessionID: id})
	want(writ.SessionActive, r.Now+30_000)
	if b := body[SessionBeat](t, beat); b.HeartbeatExpiresAt != writ.FormatTime(r.Now+30_000) {
		t.Fatalf("got %+v", b)
	}

	lapse() // early: nothing happens
	want(writ.SessionActive, r.Now+30_000)

	r.Advance(31)
	lapse()
	want(writ.SessionSuspended, r.Now+60_000)
	lapse() // again: nothing happens
	want(writ.SessionSuspended, r.Now+60_000)

	r.Advance(50)
	facts := len(r.Facts)
	r.must("session.heartbeat", me, &SessionHeartbeatArgs{SessionID: id})
	want(writ.SessionActive, r.Now+30_000)
	if len(r.Facts) != facts+1 {
		t.Fatal("coming back left no fact")
	}

	r.Advance(31)
	lapse()
	r.Advance(61)
	r.refused(writ.CodeIllegal, "session.heartbeat", me, &SessionHeartbeatArgs{SessionID: id})
	lapse()
	want(writ.SessionExpired, 0)
	r.gone(id)
	facts = len(r.Facts)
	lapse() // again: nothing left
	if len(r.Facts) != facts || alarm() != 0 {
		t.Fatal("expired twice")
	}
}

// A heartbeat that commits while the sweeper is deciding wins, though it
// writes no document.
func TestHeartbeatBeatsTheSweeper(t *testing.T) {
	for _, state := range []writ.SessionState{writ.SessionActive, writ.SessionSuspended} {
		r := newRoom(t)
		o, me := r.opened(30)
		r.must("session.start", me, &SessionStartArgs{SessionID: o.SessionID})
		if state == writ.SessionSuspended {
			r.Advance(31)
			r.must("session.lapse", r.System(), &SessionLapseArgs{SessionID: o.SessionID})
			r.Advance(60) // at the very end of the grace time
		} else {
			r.Advance(31)
		}
		sweep := r.caps["session.lapse"]
		late := r.NewCall(sweep, r.System(), &SessionLapseArgs{SessionID: o.SessionID})
		if state == writ.SessionSuspended {
			r.Now++
		}
		p, err := r.Plan(sweep, late)
		if err != nil {
			t.Fatal(err)
		}
		if state == writ.SessionSuspended {
			r.Now--
		}
		r.must("session.heartbeat", me, &SessionHeartbeatArgs{SessionID: o.SessionID})
		var conflict *writtest.Conflict
		if _, err := r.Commit(p); !errors.As(err, &conflict) {
			t.Fatalf("%s: got %v, want a conflict", state, err)
		}
		if got := r.session(o.SessionID).State; got != writ.SessionActive {
			t.Fatalf("%s: got %s", state, got)
		}
	}
}

// What decides against a session in its grace time is guarded by value too.
func TestExpiryGuardsTheDeadline(t *testing.T) {
	r := newRoom(t)
	o, me := r.opened(30)
	r.must("session.start", me, &SessionStartArgs{SessionID: o.SessionID})
	for _, wait := range []int64{31, 61} {
		r.Advance(wait)
		c := r.caps["session.lapse"]
		p, err := r.Plan(c, r.NewCall(c, r.System(), &SessionLapseArgs{SessionID: o.SessionID}))
		if err != nil {
			t.Fatal(err)
		}
		seen := r.Counter(beatOf(o.SessionID))
		r.SetCounter(beatOf(o.SessionID), seen+1)
		var conflict *writtest.Conflict
		if _, err := r.Commit(p); !errors.As(err, &conflict) {
			t.Fatalf("%s: got %v, want a conflict", r.session(o.SessionID).State, err)
		}
		r.must("session.lapse", r.System(), &SessionLapseArgs{SessionID: o.SessionID})
	}
	r.gone(o.SessionID)
}

func TestTwoHeartbeatsDoNotAddUp(t *testing.T) {
	r := newRoom(t)
	o, me := r.opened(30)
	r.must("session.start", me, &SessionStartArgs{SessionID: o.SessionID})
	r.Advance(10)
	c := r.caps["session.heartbeat"]
	var plans []*writtest.Planned
	for range 2 {
		p, err := r.Plan(c, r.NewCall(c, me, &SessionHeartbeatArgs{SessionID: o.SessionID}))
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, p)
	}
	if _, err := r.Commit(plans[0]); err != nil {
		t.Fatal(err)
	}
	var conflict *writtest.Conflict
	if _, err := r.Commit(plans[1]); !errors.As(err, &conflict) {
		t.Fatalf("got %v, want a conflict", err)
	}
	if got := r.Counter(beatOf(o.SessionID)); got != r.Now+30_000 {
		t.Fatalf("the deadline is %d, want %d", got, r.Now+30_000)
	}
}

func TestSessionWithoutHeartbeat(t *testing.T) {
	r := newRoom(t)
	o := body[SessionOpened](t, r.must("session.open", r.ops, &SessionOpenArgs{Principal: "alice", Kind: writ.KindHuman, Role: writ.RoleApprover}))
	me := writ.Caller{Tenant: r.Tenant, Principal: "alice", Kind: writ.KindHuman, Role: writ.RoleApprover, Session: o.SessionID}
	r.must("session.start", me, &SessionStartArgs{SessionID: o.SessionID})
	reply, tx, err := r.call("session.heartbeat", me, &SessionHeartbeatArgs{SessionID: o.SessionID})
	if err != nil || !tx.Empty() || body[SessionBeat](t, reply).HeartbeatExpiresAt != "" {
		t.Fatalf("got %s, %v", reply.JSON, err)
	}
	if len(r.Index(writ.IndexBeats)) != 0 {
		t.Fatal("a heartbeat is awaited")
	}
	r.SetIndex(writ.IndexBeats, string(o.SessionID), 1) // a stray alarm
	r.Advance(3600)
	r.must("session.lapse", r.System(), &SessionLapseArgs{SessionID: o.SessionID})
	if got := r.session(o.SessionID).State; got != writ.SessionActive || len(r.Index(writ.IndexBeats)) != 0 {
		t.Fatalf("got %s", got)
	}
}

func TestExpireAtTheEndOfLife(t *testing.T) {
	r := newRoom(t)
	o, me := r.opened(30)
	expire := func() {
		t.Helper()
		r.must("session.expire", r.System(), &SessionExpireArgs{SessionID: o.SessionID})
	}
	r.must("session.start", me, &SessionStartArgs{SessionID: o.SessionID})
	r.SetIndex(writ.IndexLives, string(o.SessionID), 1) // a wrong alarm
	expire()
	if got := r.session(o.SessionID); got.State != writ.SessionActive || r.Index(writ.IndexLives)[string(o.SessionID)] != got.ExpiresAt {
		t.Fatalf("got %+v", got)
	}
	r.Now = r.session(o.SessionID).ExpiresAt
	expire()
	if got := r.session(o.SessionID); got.State != writ.SessionExpired || got.Reason != "lifetime" {
		t.Fatalf("got %+v", got)
	}
	r.gone(o.SessionID)
	facts := len(r.Facts)
	r.SetIndex(writ.IndexLives, string(o.SessionID), 1)
	expire()
	if len(r.Facts) != facts || len(r.Index(writ.IndexLives)) != 1 { // the operator's own is left
		t.Fatal("expired twice")
	}
	// What never existed only loses its entry.
	r.SetIndex(writ.IndexLives, "ses_gone", 1)
	r.must("session.expire", r.System(), &SessionExpireArgs{SessionID: "ses_gone"})
	if _, ok := r.Index(writ.IndexLives)["ses_gone"]; ok {
		t.Fatal("the entry is left")
	}
}

func TestSuspendRevokesEverySession(t *testing.T) {
	r := newRoom(t)
	var ids []writ.SessionID
	for i := range 40 {
		o, me := r.opened(30)
		ids = append(ids, o.SessionID)
		if i%2 == 0 {
			r.must("session.start", me, &SessionStartArgs{SessionID: o.SessionID})
		}
	}
	r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "builder"})
	// Until the cascade is through, the agent cannot come back.
	e := r.refused(writ.CodeUnavailable, "agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
	if e.RetryMs == 0 {
		t.Fatal("the refusal does not say when to try again")
	}
	rounds := 0
	for {
		if _, due := r.Index(writ.IndexTodo)["agent builder"]; !due {
			break
		}
		r.must("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "builder"})
		if rounds++; rounds > 5 {
			t.Fatal("the cascade does not end")
		}
	}
	for _, id := range ids {
		if got := r.session(id); got.State != writ.SessionRevoked || got.Reason != "agent_suspended" {
			t.Fatalf("got %+v", got)
		}
		r.gone(id)
	}
	facts := len(r.Facts)
	r.must("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "builder"})
	if len(r.Facts) != facts {
		t.Fatal("cleaned up twice")
	}

	// A stray entry does nothing to the sessions of a new activation.
	r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
	o, _ := r.opened(30)
	r.SetIndex(writ.IndexTodo, "agent builder", r.Now)
	r.must("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "builder"})
	if got := r.session(o.SessionID).State; got != writ.SessionOpened {
		t.Fatalf("got %s", got)
	}
	if _, due := r.Index(writ.IndexTodo)["agent builder"]; due {
		t.Fatal("the entry is left")
	}
}

// A session opened while the cascade runs would be seen by it: opening expects
// the agent at the version it was active in.
func TestOpenLosesAgainstSuspend(t *testing.T) {
	r := newRoom(t)
	r.active("builder")
	c := r.caps["session.open"]
	p, err := r.Plan(c, r.NewCall(c, r.ops, &SessionOpenArgs{
		Principal: "builder-bot", Kind: writ.KindAgent, Role: writ.RoleExecutor, AgentID: "builder",
	}))
	if err != nil {
		t.Fatal(err)
	}
	r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "builder"})
	var conflict *writtest.Conflict
	if _, err := r.Commit(p); !errors.As(err, &conflict) {
		t.Fatalf("got %v, want a conflict", err)
	}
}
