package agents

import (
	"cmp"

	"github.com/writ-gateway/writ"
)

// Sessions in jails. Whoever may open sessions has one spawned: the same call opens
// it, and its token is shown to nobody. Some replica takes it, builds the jail the
// agent's registration asks for, notes what holds the agent there, starts the
// session and lets the agent run. Inside, the listener is the identity.

const (
	reasonExited    = "exited"     // the agent ended by itself, with 0
	reasonJailEnded = "jail_ended" // it ended otherwise; the session's jail says how
)

// SessionSpawnArgs say which agent is to run, and as what.
type SessionSpawnArgs struct {
	AgentID     writ.AgentID     `json:"agent_id" doc:"The agent; its registration says in which jail." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Role        writ.Role        `json:"role" doc:"The one role the session has." enum:"orchestrator,executor,verifier"`
	Principal   writ.PrincipalID `json:"principal,omitempty" doc:"Slug of who the session acts for. Default: the agent's id." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Controller  writ.PrincipalID `json:"controller,omitempty" doc:"The person answerable for what the session does. Default: who answers for the caller." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	LifeSecond  int64            `json:"lifetime_s,omitempty" doc:"Seconds the session can live." default:"43200" minimum:"1" maximum:"43200"`
	WriteClaims []SessionClaim   `json:"write_claims,omitempty" doc:"Where the session claims to write until it ends, as of session.start. The directories that the host has for these are what it can write to." maxItems:"16"`
}

// opens is the same as the arguments of session.open.
func (a *SessionSpawnArgs) opens() *SessionOpenArgs {
	p, _ := a.GivesRole()
	return &SessionOpenArgs{Principal: p, Kind: writ.KindAgent, Role: a.Role, AgentID: a.AgentID, Controller: a.Controller, LifeSecond: a.LifeSecond}
}

// GivesRole says whom the session would act for, and as what: the door refuses a
// principal that is not bound to the role.
func (a *SessionSpawnArgs) GivesRole() (writ.PrincipalID, writ.Role) {
	return cmp.Or(a.Principal, writ.PrincipalID(a.AgentID)), a.Role
}

func spawn(cfg Config) *writ.Capability {
	const op = "agents.Spawn"
	return writ.Define[SessionSpawnArgs, SessionView](writ.Capability{
		ID: "session.spawn", Safety: writ.SafetyMutating, Jails: true,
		Example: `{"agent_id":"site-builder","role":"executor","write_claims":[{"resource":"fs:site/dist/"}]}`,
		Summary: "Run an agent in the jail its registration asks for, with a session whose token nobody sees.",
	}, writ.Verb[SessionSpawnArgs]{
		Reads: func(call *writ.Call, a *SessionSpawnArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return a.opens().reads(call).Join(readJail(newSession(call))), nil
		},
		// Policy sees the agent that would run: the caller is known by its session.
		Describe: func(_ *writ.Call, a *SessionSpawnArgs, s writ.Snapshot) (sub writ.Subject, err error) {
			agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(a.AgentID))
			if ok {
				sub.Agent = &writ.AgentFacts{ID: agent.ID, Status: agent.State, Domain: agent.Domain, WriteScope: agent.WriteScope}
			}
			return sub, err
		},
		Plan: func(call *writ.Call, a *SessionSpawnArgs, s writ.Snapshot, d writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			ses, _, err := a.opens().begin(cfg, call, op, s, &tx)
			if err != nil {
				return tx, r, err
			}
			claims, err := (&SessionStartArgs{WriteClaims: a.WriteClaims}).claims(op)
			if err != nil {
				return tx, r, err
			}
			agent, _, _, err := writ.Get[writ.Agent](s, writ.AgentKey(a.AgentID))
			if err != nil {
				return tx, r, err
			}
			if agent.Jail == nil {
				return tx, r, writ.Refuse(writ.CodeIllegal, op, "the agent is registered without a jail",
					"register it with jail: {program: …}, or have it connect from where it runs with session.open")
			}
			ses.Spawned = true
			if err := tx.PutDoc(s, writ.SessionKey(ses.ID), writ.ObjectSession, ses); err != nil {
				return tx, r, err
			}
			jail := writ.Jail{Session: ses.ID, Agent: ses.Agent, Spec: *agent.Jail, Claims: claims, WantedAt: s.Now}
			jail.Spec.Tier = jail.Spec.Tier.Stronger(d.Duties.Jail)
			if err := moveJail(call, op, s, &tx, &jail, writ.JailWanted); err != nil {
				return tx, r, err
			}
			tx.Index(writ.IndexJails, string(ses.ID), 0)
			tx.Index(writ.IndexTodo, writ.TodoJail(ses.ID), s.Now+writ.JailTakeMs)
			reply := sessionReply(ses, 0)
			view := viewSession(ses, 0, 0)
			view.Jail = viewJail(jail)
			reply.Outcome, reply.Body = writ.OutcomeCreated, view
			return tx, reply, nil
		},
	})
}

// readJail reads a session that was spawned, and its jail.
func readJail(id writ.SessionID) writ.ReadSet {
	return readSession(id).Join(writ.ReadSet{Docs: []writ.Key{writ.JailKey(id)}})
}

// The use of a jail is three counters, which its session's heartbeat moves: it is known
// where the session is shown, costs no commit of its own, and conflicts with nothing.

// useOf are the counters of a jail's use, and where they stand in it.
func useOf(id writ.SessionID, u *writ.JailUse) []counted {
	of := func(field string) writ.Counter {
		return writ.Counter{Entity: writ.ObjectJail + "/" + string(id), Field: field}
	}
	return []counted{{of("cpu_ms"), &u.CPUMs}, {of("memory_kb"), &u.MemoryKB}, {of("processes"), &u.Processes}}
}

type counted struct {
	counter writ.Counter
	at      *int64
}

func readUse(id writ.SessionID) (rs writ.ReadSet) {
	for _, c := range useOf(id, new(writ.JailUse)) {
		rs.Counters = append(rs.Counters, c.counter)
	}
	return rs
}

// setUse moves them to what is used now. The heartbeat they come with is guarded.
func setUse(tx *writ.Tx, s writ.Snapshot, id writ.SessionID, used writ.JailUse) {
	for _, c := range useOf(id, &used) {
		if d := *c.at - s.Counters[c.counter]; d != 0 {
			tx.Add(c.counter, d)
		}
	}
}

// usedIn is what the agent in a jail uses; nil: that was not said yet.
func usedIn(s writ.Snapshot, id writ.SessionID) *writ.JailUse {
	used := new(writ.JailUse)
	for _, c := range useOf(id, used) {
		*c.at = s.Counters[c.counter]
	}
	if *used == (writ.JailUse{}) {
		return nil
	}
	return used
}

// moveJail checks a move and writes the jail in its new state.
func moveJail(call *writ.Call, op string, s writ.Snapshot, tx *writ.Tx, j *writ.Jail, to writ.JailState) error {
	from := j.State
	if !writ.JailMoves.May(from, to) {
		return writ.IllegalMove(op, writ.ObjectJail, string(from), string(to))
	}
	j.State, j.Receipt = to, receipt(call)
	tx.Move(writ.ObjectJail, string(j.Session), string(from), string(to))
	return tx.PutDoc(s, writ.JailKey(j.Session), writ.ObjectJail, *j)
}

// SessionJailArgs say what became of the jail of a session.
type SessionJailArgs struct {
	SessionID writ.SessionID    `json:"session_id" doc:"The session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Host      string            `json:"host" doc:"Replica that has the jail." maxLength:"128"`
	State     writ.JailState    `json:"state" doc:"Where it stands." enum:"starting,running,ended"`
	Features  map[string]string `json:"features,omitempty" doc:"What holds the agent, of a running one."`
	Exit      *writ.JailExit    `json:"exit,omitempty" doc:"How it ended, or the start before this one did."`
}

// noteJail is for the replica that has a jail. Of two that want the same one, the
// commit has one be first.
func noteJail() *writ.Capability {
	const op = "agents.NoteJail"
	return writ.Define[SessionJailArgs, SessionView](writ.Capability{
		ID: "session.jail", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Note what became of the jail of a session.",
	}, writ.Verb[SessionJailArgs]{
		Locks: func(_ *writ.Call, a *SessionJailArgs) []writ.Key { return []writ.Key{writ.SessionKey(a.SessionID)} },
		Reads: func(_ *writ.Call, a *SessionJailArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readJail(a.SessionID), nil
		},
		Plan: func(call *writ.Call, a *SessionJailArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			ses, _, err := load(op, s, a.SessionID)
			if err != nil {
				return tx, r, err
			}
			jail, _, ok, err := writ.Get[writ.Jail](s, writ.JailKey(a.SessionID))
			if err == nil && !ok {
				err = writ.Refuse(writ.CodeNotFound, op, "the session has no jail", "spawn one with session.spawn")
			}
			if err != nil {
				return tx, r, err
			}
			from := jail.State
			if from == a.State && jail.Host == a.Host && !writ.SessionMoves.Terminal(ses.State) {
				return tx, jailReply(ses, jail), nil // noted, and the answer was lost on its way
			}
			again := from == writ.JailRunning && a.State == writ.JailStarting
			if from != writ.JailWanted && jail.Host != a.Host || // somebody else has it
				a.State != writ.JailEnded && writ.SessionMoves.Terminal(ses.State) ||
				again && jail.Restarts >= jail.Spec.Restarts || len(a.Features) > writ.MaxJailFeatures {
				return tx, r, writ.IllegalMove(op, writ.ObjectJail, string(from), string(a.State))
			}
			if jail.Host = a.Host; a.Exit != nil {
				jail.Exit = a.Exit
			}
			switch a.State {
			case writ.JailStarting:
				if jail.StartedAt = s.Now; again {
					jail.Restarts++
				}
				tx.Index(writ.IndexTodo, writ.TodoJail(ses.ID), s.Now+writ.JailGraceMs)
			case writ.JailRunning:
				if jail.Features = a.Features; ses.State != writ.SessionOpened { // else its start does
					tx.Unindex(writ.IndexTodo, writ.TodoJail(ses.ID))
				}
			default:
				err = endJail(call, op, s, &tx, &ses, &jail)
				return tx, jailReply(ses, jail), err
			}
			err = moveJail(call, op, s, &tx, &jail, a.State)
			return tx, jailReply(ses, jail), err
		},
	})
}

func jailReply(ses writ.Session, jail writ.Jail) writ.Reply {
	return writ.Reply{Outcome: writ.OutcomeDone, Body: SessionJailed{SessionID: ses.ID, State: ses.State, Jail: jail.State}}
}

// SessionJailed says where a session and its jail stand.
type SessionJailed struct {
	SessionID writ.SessionID    `json:"session_id" doc:"The session."`
	State     writ.SessionState `json:"state" doc:"Where it stands." enum:"opened,active,suspended,closed,expired,revoked"`
	Jail      writ.JailState    `json:"jail" doc:"Where its jail stands." enum:"wanted,starting,running,ended"`
}

// endJail notes the end of a jail, ends the session with it, and gives back what that
// claims, ended before or not.
func endJail(call *writ.Call, op string, s writ.Snapshot, tx *writ.Tx, ses *writ.Session, jail *writ.Jail) error {
	jail.EndedAt = s.Now
	err := moveJail(call, op, s, tx, jail, writ.JailEnded)
	if err == nil && !writ.SessionMoves.Terminal(ses.State) {
		to, why := writ.SessionRevoked, reasonJailEnded
		if jail.Exit != nil && jail.Exit.Why == writ.JailExited && jail.Exit.Code == 0 {
			to, why = writ.SessionClosed, reasonExited
		}
		err = end(call, op, s, tx, ses, to, why)
	}
	giveBack(tx, *ses)
	tx.Index(writ.IndexTodo, todoSession(ses.ID), s.Now) // which wakes those that wait for it
	tx.Unindex(writ.IndexJails, string(ses.ID))
	tx.Unindex(writ.IndexTodo, writ.TodoJail(ses.ID)) // that its session ended asks nobody any more
	return err
}

// SessionJailLapseArgs name a session whose jail is to be looked at.
type SessionJailLapseArgs struct {
	SessionID writ.SessionID `json:"session_id" doc:"The session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// lapseJail ends what nobody has: a jail no replica took, one that was too long in the
// making or before its session's start, and one whose session ended and that nobody noted the end of.
func lapseJail() *writ.Capability {
	const op = "agents.LapseJail"
	return writ.Define[SessionJailLapseArgs, SweepResult](writ.Capability{
		ID: "session.jail.lapse", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "End the jail of a session that no replica has.",
	}, writ.Verb[SessionJailLapseArgs]{
		Locks: func(_ *writ.Call, a *SessionJailLapseArgs) []writ.Key {
			return []writ.Key{writ.SessionKey(a.SessionID)}
		},
		Reads: func(_ *writ.Call, a *SessionJailLapseArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readJail(a.SessionID), nil
		},
		Plan: func(call *writ.Call, a *SessionJailLapseArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			jail, ses, at, err := jailDue(a.SessionID, s)
			switch {
			case err != nil:
				return tx, r, err
			case at == 0:
				tx.Unindex(writ.IndexTodo, writ.TodoJail(a.SessionID))
				return tx, swept(nil, false), nil
			case s.Now < at:
				tx.Index(writ.IndexTodo, writ.TodoJail(a.SessionID), at)
				return tx, swept(nil, true), nil
			}
			jail.Exit = &writ.JailExit{Why: writ.JailLost}
			if jail.State == writ.JailWanted {
				jail.Exit = &writ.JailExit{Why: writ.JailUnavailable, Missing: "gateway"}
			}
			if err := endJail(call, op, s, &tx, &ses, &jail); err != nil {
				return tx, r, err
			}
			return tx, swept([]writ.SessionID{ses.ID}, false), nil
		},
	})
}

// jailDue is when somebody looks whether anybody has the jail of a session; 0: nobody.
func jailDue(id writ.SessionID, s writ.Snapshot) (j writ.Jail, ses writ.Session, at int64, err error) {
	j, _, ok, err := writ.Get[writ.Jail](s, writ.JailKey(id))
	if err != nil || !ok || j.State == writ.JailEnded {
		return j, ses, 0, err
	}
	ses, _, ok, err = writ.Get[writ.Session](s, writ.SessionKey(id))
	switch {
	case err != nil || !ok:
	case writ.SessionMoves.Terminal(ses.State):
		at = writ.JailGoneAt(ses.UpdatedAt, ses.TTLSeconds)
	case j.State == writ.JailWanted:
		at = j.WantedAt + writ.JailTakeMs
	case j.State == writ.JailStarting, ses.State == writ.SessionOpened:
		at = j.StartedAt + writ.JailGraceMs
	} // of one whose session has started the heartbeats are the sign of life
	return j, ses, at, err
}

// SessionJailView is the jail of a session as the API shows it.
type SessionJailView struct {
	State     writ.JailState    `json:"state" doc:"Where it stands." enum:"wanted,starting,running,ended"`
	Spec      writ.JailSpec     `json:"spec" doc:"What the agent's registration asked for when it was spawned."`
	Features  map[string]string `json:"features,omitempty" doc:"What holds the agent, as it was found when the jail was made."`
	Use       *writ.JailUse     `json:"use,omitempty" doc:"What the agent uses, as it was last seen: with the heartbeats of the session, a second after its start and then three times in heartbeat_ttl_s. Of one that runs."`
	Restarts  int64             `json:"restarts,omitempty" doc:"How often the agent was started again."`
	Exit      *writ.JailExit    `json:"exit,omitempty" doc:"How the last start of the agent ended."`
	StartedAt string            `json:"started_at,omitempty" doc:"When it was last started (RFC 3339, UTC)."`
	EndedAt   string            `json:"ended_at,omitempty" doc:"When it ended for good (RFC 3339, UTC)."`
}

func viewJail(j writ.Jail) *SessionJailView {
	v := &SessionJailView{State: j.State, Spec: j.Spec, Features: j.Features, Restarts: j.Restarts, Exit: j.Exit}
	if j.StartedAt > 0 {
		v.StartedAt = writ.FormatTime(j.StartedAt)
	}
	if j.EndedAt > 0 {
		v.EndedAt = writ.FormatTime(j.EndedAt)
	}
	return v
}

func jailFollowReads(id string, _ writ.Snapshot) (writ.ReadSet, error) {
	return writ.ReadSet{Docs: []writ.Key{writ.SessionKey(writ.SessionID(id))}}, nil
}

func jailSound(id string, s writ.Snapshot) (string, error) {
	j, _, _, err := writ.Get[writ.Jail](s, writ.JailKey(writ.SessionID(id)))
	if err != nil {
		return "", err
	}
	return writ.Incoherent(writ.ObjectJail, id, string(j.Session), writ.JailMoves, j.State), nil
}

func jailImplies(id string, s writ.Snapshot) ([]writ.Implied, error) {
	j, _, at, err := jailDue(writ.SessionID(id), s)
	if err != nil {
		return nil, err
	}
	is := "the jail is " + string(j.State)
	out := []writ.Implied{writ.InIf(j.State != writ.JailEnded, writ.IndexJails, id, is)}
	if at > 0 {
		out = append(out, writ.Implied{Entry: writ.Entry{Index: writ.IndexTodo, Member: writ.TodoJail(j.Session), Score: at}, Soon: true, Why: is})
	}
	return out, nil
}
