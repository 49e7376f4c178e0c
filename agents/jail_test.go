package agents

import (
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// jailed registers and activates an agent with a jail.
func (r *room) jailed(restarts int64) {
	r.t.Helper()
	r.must("agent.register", r.ops, &AgentRegisterArgs{
		AgentID: "caged", Archetypes: []writ.Role{writ.RoleExecutor}, Domain: "web", WriteScope: []string{"fs:site/"},
		Tools: []writ.Tool{{Name: "site.build", Safety: writ.SafetyMutating}},
		Jail:  &writ.JailSpec{Program: "builder", Args: []string{"--once"}, Restarts: restarts},
	})
	r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: "caged"})
}

func (r *room) spawned() writ.SessionID {
	r.t.Helper()
	return body[SessionView](r.t, r.must("session.spawn", r.ops, &SessionSpawnArgs{
		AgentID: "caged", Role: writ.RoleExecutor, WriteClaims: []SessionClaim{{Resource: "fs:site/dist/"}},
	})).SessionID
}

func (r *room) jail(id writ.SessionID, host string, to writ.JailState, exit *writ.JailExit) error {
	_, _, err := r.call("session.jail", r.System(), &SessionJailArgs{SessionID: id, Host: host, State: to, Exit: exit, Features: map[string]string{"seccomp": "x"}})
	return err
}

func (r *room) isJail(id writ.SessionID, jail writ.JailState, ses writ.SessionState, reason string) (writ.Session, writ.Jail) {
	r.t.Helper()
	s, j := r.session(id), r.jailOf(id)
	if j.State != jail || s.State != ses || s.Reason != reason {
		r.t.Fatalf("got session %s (%s), jail %+v; want %s (%s), %s", s.State, s.Reason, j, ses, reason, jail)
	}
	_, listed := r.Index(writ.IndexJails)[string(id)]
	if listed != (jail != writ.JailEnded) {
		r.t.Fatalf("on the list of jails: %t, when it is %s", listed, jail)
	}
	for _, kind := range []string{writ.ObjectSession, writ.ObjectJail} {
		if wrong, unsound := r.follows(kind, string(id)); len(wrong) > 0 || unsound != "" {
			r.t.Fatalf("%s: %+v %s", jail, wrong, unsound)
		}
	}
	return s, j
}

func (r *room) jailOf(id writ.SessionID) writ.Jail {
	r.t.Helper()
	j, _, ok := writtest.Get[writ.Jail](r.World, writ.JailKey(id))
	if !ok {
		r.t.Fatal("there is no jail")
	}
	return j
}

func TestSpawn(t *testing.T) {
	r := newRoom(t)
	r.jailed(0)
	reply := r.must("session.spawn", r.ops, &SessionSpawnArgs{AgentID: "caged", Role: writ.RoleExecutor, WriteClaims: []SessionClaim{{Resource: "fs:site/dist/"}}})
	id := body[SessionView](t, reply).SessionID
	s, j := r.isJail(id, writ.JailWanted, writ.SessionOpened, "")
	if s.Principal != "caged" || s.Agent != "caged" || s.Kind != writ.KindAgent || len(s.WriteClaims) != 0 || len(j.Claims) != 1 {
		t.Fatalf("got %+v", s)
	}
	if want := (writ.JailSpec{Program: "builder", Args: []string{"--once"}}).Filled(); j.Spec.Profile != writ.JailStrict || j.Spec.MemoryMB != want.MemoryMB {
		t.Fatalf("the spec is %+v", j.Spec)
	}
	if strings.Contains(string(reply.JSON), "token") || strings.Contains(string(reply.JSON), s.TokenHash) {
		t.Fatalf("the reply tells too much: %s", reply.JSON)
	}
	if err := r.jail(id, "one", writ.JailStarting, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.jail(id, "two", writ.JailRunning, nil); err == nil {
		t.Fatal("another replica says that it runs")
	}
	if err := r.jail(id, "one", writ.JailRunning, nil); err != nil {
		t.Fatal(err)
	}
	if _, j := r.isJail(id, writ.JailRunning, writ.SessionOpened, ""); j.Features["seccomp"] != "x" {
		t.Fatalf("features %v", j.Features)
	}
	if err := r.jail(id, "one", writ.JailStarting, nil); err == nil {
		t.Fatal("it is started again though it may not")
	}
	if err := r.jail(id, "one", writ.JailEnded, &writ.JailExit{Why: writ.JailExited}); err != nil {
		t.Fatal(err)
	}
	r.isJail(id, writ.JailEnded, writ.SessionClosed, reasonExited)
	if err := r.jail(id, "one", writ.JailEnded, nil); err == nil {
		t.Fatal("it ends twice")
	}
}

func TestAnAgentThatEndsBadly(t *testing.T) {
	r := newRoom(t)
	r.jailed(1)
	id := r.spawned()
	bad := &writ.JailExit{Why: writ.JailExited, Code: 7}
	for _, to := range []writ.JailState{writ.JailStarting, writ.JailRunning, writ.JailStarting, writ.JailRunning} {
		if err := r.jail(id, "one", to, bad); err != nil {
			t.Fatal(err)
		}
	}
	if j := r.jailOf(id); j.Restarts != 1 || j.Exit.Code != 7 {
		t.Fatalf("got %+v", j)
	}
	if err := r.jail(id, "one", writ.JailStarting, bad); err == nil {
		t.Fatal("it is started a third time")
	}
	if err := r.jail(id, "one", writ.JailEnded, bad); err != nil {
		t.Fatal(err)
	}
	r.isJail(id, writ.JailEnded, writ.SessionRevoked, reasonJailEnded)
}

// What nobody has ends: a jail nobody took, one too long in the making, one whose
// session ended.
func TestJailsNobodyHas(t *testing.T) {
	gone := writ.JailGoneAt(0, writ.SessionDefaultTTLSeconds)
	for name, tc := range map[string]struct {
		to    []writ.JailState
		stop  bool
		after int64
		why   writ.JailEnd
		state writ.SessionState
		says  string
	}{
		"nobody took it":             {after: writ.JailTakeMs, why: writ.JailUnavailable, state: writ.SessionRevoked, says: reasonJailEnded},
		"in the making":              {to: []writ.JailState{writ.JailStarting}, after: writ.JailGraceMs, why: writ.JailLost, state: writ.SessionRevoked, says: reasonJailEnded},
		"before its session's start": {to: []writ.JailState{writ.JailStarting, writ.JailRunning}, after: writ.JailGraceMs, why: writ.JailLost, state: writ.SessionRevoked, says: reasonJailEnded},
		"its session ended":          {to: []writ.JailState{writ.JailStarting, writ.JailRunning}, stop: true, after: gone, why: writ.JailLost, state: writ.SessionRevoked, says: reasonOperator},
		"its session ended at first": {stop: true, after: gone, why: writ.JailUnavailable, state: writ.SessionRevoked, says: reasonOperator},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.jailed(0)
			id := r.spawned()
			for _, to := range tc.to {
				if err := r.jail(id, "one", to, nil); err != nil {
					t.Fatal(err)
				}
			}
			if tc.stop {
				r.must("session.revoke", r.ops, &SessionRevokeArgs{SessionID: id})
				if err := r.jail(id, "one", writ.JailStarting, nil); err == nil {
					t.Fatal("it starts though its session has ended")
				}
			}
			due, ok := r.Index(writ.IndexTodo)[writ.TodoJail(id)]
			if !ok || due != r.Now+tc.after {
				t.Fatalf("it is looked at in %d ms (%t), want %d", due-r.Now, ok, tc.after)
			}
			r.Now = due - 1
			r.must("session.jail.lapse", r.System(), &SessionJailLapseArgs{SessionID: id})
			if j := r.jailOf(id); j.State == writ.JailEnded {
				t.Fatal("it ended too early")
			}
			r.Now = due
			r.must("session.jail.lapse", r.System(), &SessionJailLapseArgs{SessionID: id})
			if _, j := r.isJail(id, writ.JailEnded, tc.state, tc.says); j.Exit.Why != tc.why {
				t.Fatalf("it ended %+v", j.Exit)
			}
			if _, left := r.Index(writ.IndexTodo)[writ.TodoJail(id)]; left {
				t.Fatal("it is looked at for ever")
			}
		})
	}
}

// insideOf starts the session of a jail that runs, as who speaks inside.
func (r *room) insideOf(id writ.SessionID) writ.Caller {
	r.t.Helper()
	for _, to := range []writ.JailState{writ.JailStarting, writ.JailRunning} {
		if err := r.jail(id, "one", to, nil); err != nil {
			r.t.Fatal(err)
		}
	}
	s := r.session(id)
	by := writ.Caller{Tenant: r.ops.Tenant, Session: id, Principal: s.Principal, Kind: s.Kind, Role: s.Role, Agent: s.Agent}
	r.must("session.start", by, &SessionStartArgs{SessionID: id, WriteClaims: []SessionClaim{alone("fs:site/dist/")}})
	r.isJail(id, writ.JailRunning, writ.SessionActive, "")
	return by
}

// Processes of a session outlive its end by a moment, and so do its claims: they are
// free when the end of its jail is noted, by who had it or by who finds that nobody has.
func TestClaimsOutliveTheProcesses(t *testing.T) {
	ended := map[string]func(*room, writ.SessionID){
		"by who had it": func(r *room, id writ.SessionID) {
			if err := r.jail(id, "one", writ.JailEnded, &writ.JailExit{Why: writ.JailKilled}); err != nil {
				r.t.Fatal(err)
			}
		},
		"by nobody": func(r *room, id writ.SessionID) {
			r.Now = writ.JailGoneAt(r.session(id).UpdatedAt, writ.SessionDefaultTTLSeconds)
			r.must("session.jail.lapse", r.System(), &SessionJailLapseArgs{SessionID: id})
		},
	}
	for name, note := range ended {
		for _, state := range []writ.SessionState{writ.SessionClosed, writ.SessionRevoked, writ.SessionExpired} {
			r := newRoom(t)
			r.jailed(0)
			id := r.spawned()
			by := r.insideOf(id)
			reason := map[writ.SessionState]string{writ.SessionClosed: reasonClosed, writ.SessionRevoked: reasonOperator, writ.SessionExpired: reasonLifetime}[state]
			switch state {
			case writ.SessionClosed:
				r.must("session.close", by, &SessionCloseArgs{SessionID: id})
			case writ.SessionRevoked:
				r.must("session.revoke", r.ops, &SessionRevokeArgs{SessionID: id})
			default:
				r.Advance(writ.SessionMaxLifeSeconds)
				r.must("session.expire", r.System(), &SessionExpireArgs{SessionID: id})
			}
			r.isJail(id, writ.JailRunning, state, reason)
			if held := r.Members(writ.IndexScopes); len(held) != 1 {
				t.Fatalf("%s, %s: while its processes may be there it holds %v", state, name, held)
			}
			r.DropIndex(writ.IndexTodo, todoSession(id)) // the cleanup after its end is done
			note(r, id)
			r.isJail(id, writ.JailEnded, state, reason)
			if held := r.Members(writ.IndexScopes); len(held) != 0 {
				t.Fatalf("%s, %s: it holds %v for ever", state, name, held)
			}
			if _, woken := r.Index(writ.IndexTodo)[todoSession(id)]; !woken {
				t.Fatalf("%s, %s: nobody wakes those that wait for it", state, name)
			}
		}
	}
}

// Of a note whose answer was lost, the same once more is no other.
func TestANoteAgain(t *testing.T) {
	r := newRoom(t)
	r.jailed(1)
	id := r.spawned()
	for _, to := range []writ.JailState{writ.JailStarting, writ.JailStarting, writ.JailRunning, writ.JailRunning, writ.JailStarting, writ.JailStarting} {
		if err := r.jail(id, "one", to, nil); err != nil {
			t.Fatal(err)
		}
		if err := r.jail(id, "two", to, nil); err == nil {
			t.Fatal("another replica says so too")
		}
	}
	if _, j := r.isJail(id, writ.JailStarting, writ.SessionOpened, ""); j.Restarts != 1 {
		t.Fatalf("it was started again %d times", j.Restarts)
	}
	r.must("session.revoke", r.ops, &SessionRevokeArgs{SessionID: id})
	if err := r.jail(id, "one", writ.JailStarting, nil); err == nil {
		t.Fatal("it starts though its session has ended")
	}
}

func TestNoSpawn(t *testing.T) {
	r := newRoom(t)
	r.active("builder")
	r.refused(writ.CodeIllegal, "session.spawn", r.ops, &SessionSpawnArgs{AgentID: "builder", Role: writ.RoleExecutor})
	r.jailed(0)
	r.refused(writ.CodeNotEligible, "session.spawn", r.ops, &SessionSpawnArgs{AgentID: "caged", Role: writ.RoleVerifier})
	r.refused(writ.CodeInputInvalid, "session.spawn", r.ops, &SessionSpawnArgs{AgentID: "caged", Role: writ.RoleOperator})
	r.refused(writ.CodeInputInvalid, "session.spawn", r.ops, &SessionSpawnArgs{AgentID: "caged", Role: writ.RoleExecutor, WriteClaims: []SessionClaim{{Resource: "../x"}}})
	r.refused(writ.CodeNotFound, "session.spawn", r.ops, &SessionSpawnArgs{AgentID: "nobody", Role: writ.RoleExecutor})
	if n := len(r.Index(writ.IndexJails)); n != 0 {
		t.Fatalf("%d jails are wanted", n)
	}
}

// What is stored of a jail, byte by byte.
func TestStoredJail(t *testing.T) {
	r := newRoom(t)
	r.jailed(2)
	id := r.spawned()
	for _, to := range []writ.JailState{writ.JailStarting, writ.JailRunning, writ.JailEnded} {
		if err := r.jail(id, "one", to, &writ.JailExit{Why: writ.JailSignalled, Signal: 9, CPUMs: 12, PeakKB: 900}); err != nil {
			t.Fatal(err)
		}
	}
	agent, _, _ := writtest.Get[writ.Agent](r.World, writ.AgentKey("caged"))
	docs := r.Snapshot(readJail(id)).Docs
	spec, err := writ.EncodeDoc(writ.Snapshot{}, "agent/caged", "jail", agent.Jail)
	if err != nil {
		t.Fatal(err)
	}
	writtest.Golden(t, *update, "jail.txt", []byte(string(writ.IndexJails)+" "+string(id)+"\n"+writ.TodoJail(id)+"\n"+string(spec)+"\n"+string(docs[writ.SessionKey(id)].Body)+"\n"+string(docs[writ.JailKey(id)].Body)+"\n"))
}

// What an agent uses is shown with its session while it runs, as its gateway last said with
// the session's heartbeat. Whoever else makes heartbeats says nothing of it.
func TestUseOfAJail(t *testing.T) {
	r := newRoom(t)
	r.jailed(0)
	id := r.spawned()
	me := r.insideOf(id)
	shown := func() *writ.JailUse {
		t.Helper()
		return body[SessionView](t, r.must("session.get", r.ops, &SessionGetArgs{SessionID: id})).Jail.Use
	}
	if u := shown(); u != nil {
		t.Fatalf("before anybody looked it uses %+v", u)
	}
	for _, used := range []writ.JailUse{{CPUMs: 12, MemoryKB: 900, Processes: 3}, {CPUMs: 20, MemoryKB: 500}, {CPUMs: 1, MemoryKB: 500, Processes: 1}} {
		r.Now += 10_000
		beat := r.caps["session.heartbeat"]
		call := r.NewCall(beat, me, &SessionHeartbeatArgs{SessionID: id})
		call.Used = &used
		_, tx, err := r.Do(beat, call)
		if err != nil || tx.Fact != nil {
			t.Fatalf("%v, and it leaves %+v", err, tx.Fact)
		}
		r.Now += 5000
		r.must("session.heartbeat", me, &SessionHeartbeatArgs{SessionID: id})
		if u := shown(); u == nil || *u != used {
			t.Fatalf("it uses %+v, want %+v", u, used)
		}
	}
	if err := r.jail(id, "one", writ.JailEnded, &writ.JailExit{Why: writ.JailExited}); err != nil {
		t.Fatal(err)
	}
	if u := shown(); u != nil {
		t.Fatalf("once it has ended it uses %+v", u)
	}
}
