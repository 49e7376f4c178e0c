package effects

import "github.com/writ-gateway/writ"

// EffectView is an effect as the API shows it.
type EffectView struct {
	ID         writ.EffectID     `json:"effect_id" doc:"The effect; what is outside was given it as idempotency key."`
	Capability writ.CapabilityID `json:"capability" doc:"What was called."`
	State      writ.IntentState  `json:"state" doc:"Where it stands. Of one that is unknown nobody knows whether it has happened." enum:"intended,ok,error,unknown"`
	Idempotent bool              `json:"idempotent" doc:"Whether it is attempted again, when who asked for it asks again, while it is unknown."`
	Repeat     bool              `json:"repeat,omitempty" doc:"A person lets it be attempted once more."`
	Attempt    int64             `json:"attempt" doc:"How often it was attempted."`
	Session    writ.SessionID    `json:"session_id" doc:"Session of who asked for it."`
	Principal  writ.PrincipalID  `json:"principal" doc:"Who asked for it."`
	Agent      writ.AgentID      `json:"agent_id,omitempty" doc:"For which agent."`
	Run        writ.RunID        `json:"run_id,omitempty" doc:"In which run."`
	Task       writ.TaskID       `json:"task_id,omitempty" doc:"For which task."`
	Held       map[string]int64  `json:"held" doc:"What was charged to the run in advance, by dimension."`
	Settled    map[string]int64  `json:"settled,omitempty" doc:"What it came to, by dimension; absent while that is not known."`
	Late       bool              `json:"late,omitempty" doc:"What became of it was said after it was unknown."`
	Code       writ.Code         `json:"code,omitempty" doc:"Why it did not happen; of what has happened (ok), why its caller does not have the answer."`
	LeaseEnds  string            `json:"lease_ends_at,omitempty" doc:"Until when a replica carries it out, if that does not renew it (RFC 3339, UTC)."`
	CreatedAt  string            `json:"created_at" doc:"When it was begun (RFC 3339, UTC)."`
	UpdatedAt  string            `json:"updated_at" doc:"When its state last changed (RFC 3339, UTC)."`
	Receipt    writ.ReceiptID    `json:"receipt" doc:"Receipt of the last change."`
}

func view(i writ.Intent, s writ.Snapshot) EffectView {
	v := EffectView{
		ID: i.ID, Capability: i.Capability, State: i.State, Idempotent: i.Idempotent, Repeat: i.Repeat, Attempt: i.Attempt,
		Session: i.Session, Principal: i.Principal, Agent: i.Agent, Run: i.Run, Task: i.Task, Held: i.Held, Late: i.Late, Code: i.Code,
		CreatedAt: writ.FormatTime(i.CreatedAt), UpdatedAt: writ.FormatTime(i.UpdatedAt), Receipt: i.Receipt,
	}
	if i.SettledAt != 0 {
		v.Settled = i.Settled
	}
	if v.Held == nil {
		v.Held = map[string]int64{}
	}
	if end := s.Counters[writ.EffectLease(i.ID)]; end > 0 {
		v.LeaseEnds = writ.FormatTime(end)
	}
	return v
}

func notFound(op string) error {
	return writ.Refuse(writ.CodeNotFound, op, "there is no such effect, or it ended more than a day ago", "effect.list shows those that have not ended; receipts say what became of the others")
}

func get() *writ.Capability {
	const op = "effects.Get"
	return writ.Define[EffectArgs, EffectView](writ.Capability{
		ID: "effect.get", Safety: writ.SafetyReadOnly, Summary: "Show what became of an effect, for a day after it has ended.",
		Example: `{"effect_id":"eff_01M89R8763R5PGQGSMXGFWBA4N"}`,
	}, writ.Verb[EffectArgs]{
		Reads: func(_ *writ.Call, a *EffectArgs, s writ.Snapshot) (writ.ReadSet, error) { return reads(a.ID, s) },
		Plan: func(_ *writ.Call, a *EffectArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			i, _, ok, err := writ.Get[writ.Intent](s, writ.IntentKey(a.ID))
			if err == nil && !ok {
				err = notFound(op)
			}
			return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: view(i, s)}, err
		},
	})
}

// EffectListArgs say which effects.
type EffectListArgs struct {
	State writ.IntentState `json:"state,omitempty" doc:"Only those in this state." enum:"intended,unknown"`
	After writ.EffectID    `json:"after,omitempty" doc:"Where to go on: next of the page before." pattern:"^eff_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Limit int64            `json:"limit,omitempty" doc:"Effects on the page." minimum:"1" maximum:"100" default:"50"`
}

// EffectList is a page of effects that have not ended.
type EffectList struct {
	Effects []EffectView  `json:"effects" doc:"In the order in which they were begun."`
	Next    writ.EffectID `json:"next,omitempty" doc:"After  of the next page; absent on the last."`
}

func (a *EffectListArgs) page() writ.Range {
	r := writ.Range{Index: writ.IndexEffects, Limit: int(max(a.Limit, 1)) + 1}
	if a.State == writ.IntentUnknown {
		r.Index = writ.IndexUnknown
	}
	if a.After != "" {
		r.From = string(a.After) + "\x00"
	}
	return r
}

func list() *writ.Capability {
	return writ.Define[EffectListArgs, EffectList](writ.Capability{
		ID: "effect.list", Safety: writ.SafetyReadOnly, Summary: "List the effects that are under way, and those of which nobody knows what became of them.",
		Example: `{"state":"unknown"}`,
	}, writ.Verb[EffectListArgs]{
		Reads: func(_ *writ.Call, a *EffectListArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.ReadSet{Ranges: []writ.Range{a.page()}}
			for _, m := range s.Ranges[a.page()].Members {
				rs.Docs = append(rs.Docs, writ.IntentKey(writ.EffectID(m.Name)))
				rs.Counters = append(rs.Counters, writ.EffectLease(writ.EffectID(m.Name)))
			}
			return rs, nil
		},
		Plan: func(_ *writ.Call, a *EffectListArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			out := EffectList{Effects: []EffectView{}}
			members := s.Ranges[a.page()].Members
			for n, m := range members {
				if n == int(max(a.Limit, 1)) {
					out.Next = writ.EffectID(members[n-1].Name)
					break
				}
				i, _, ok, err := writ.Get[writ.Intent](s, writ.IntentKey(writ.EffectID(m.Name)))
				if err != nil {
					return writ.Tx{}, writ.Reply{}, err
				}
				if ok && i.State.Open() && (a.State == "" || a.State == i.State) {
					out.Effects = append(out.Effects, view(i, s))
				}
			}
			return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
