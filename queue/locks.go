package queue

import (
	"strings"

	"github.com/writ-gateway/writ"
)

// ScopeListArgs page through the write scopes that are held.
type ScopeListArgs struct {
	Under string `json:"under,omitempty" doc:"Only scopes that are this one, or below it, for example fs:repo/docs/." maxLength:"512"`
	After string `json:"after,omitempty" doc:"Scope and holder the last page ended with: its next." maxLength:"600"`
	Limit int64  `json:"limit,omitempty" doc:"Scopes per page." default:"50" minimum:"1" maximum:"200"`
}

// HeldScope is a write scope that a running task holds, or a session claims.
type HeldScope struct {
	Resource  string         `json:"resource" doc:"Resource URI, canonical."`
	Mode      writ.ScopeMode `json:"mode" doc:"Exclusive: nobody else writes there, or above or below it. Shared: sessions claim it that let each other write there, one task at a time." enum:"exclusive,shared"`
	Task      writ.TaskID    `json:"task_id,omitempty" doc:"Task that holds it; absent for a claim of a session."`
	Run       writ.RunID     `json:"run_id,omitempty" doc:"Run of the task."`
	Session   writ.SessionID `json:"session_id,omitempty" doc:"Session that claims it; absent for a task."`
	Agent     writ.AgentID   `json:"agent_id,omitempty" doc:"Agent that works on the task, or that the session is of; absent while the scope is kept for whoever takes the task."`
	Fence     int64          `json:"fence,omitempty" doc:"Fence of the lease on the task."`
	ExpiresAt string         `json:"expires_at,omitempty" doc:"When the lease ends unless it is renewed, or the life of the session at the latest: one that is silent ends sooner (RFC 3339, UTC). Absent while the task is parked, when no time runs."`
}

// ScopeList is a page of scopes.
type ScopeList struct {
	Scopes []HeldScope `json:"scopes" doc:"What is held, in the order of resources."`
	Next   string      `json:"next,omitempty" doc:"Value of after for the next page; absent on the last one."`
}

const opScopes = "queue.Scopes"

// span is the page of locks a call asks for.
func (a *ScopeListArgs) span() (writ.Range, error) {
	limit := a.Limit
	if limit < 1 || limit > writ.MaxPage {
		limit = writ.DefaultPage
	}
	r := writ.Range{Index: writ.IndexScopes, Limit: int(limit) + 1}
	if a.Under != "" {
		under, err := writ.CanonicalScope(a.Under)
		if err != nil {
			e := invalid(opScopes, "/under", "is not a canonical resource URI")
			e.Hint = writ.ScopeForm
			return r, e
		}
		r.From, r.To = under, strings.TrimSuffix(under, "/")+"0" // which follows "/"
	}
	if a.After != "" {
		scope, holder, _ := writ.SplitScopeMember(a.After)
		_, known := holder.Key()
		if _, err := writ.CanonicalScope(scope); err != nil || !known {
			return r, invalid(opScopes, "/after", "is no next of a page before")
		}
		r.From = max(r.From, a.After+"!")
	}
	return r, nil
}

// scopesCapability shows who holds which write scope, so that a conflict can be
// seen before it is met. What a task is about it does not show.
func scopesCapability() *writ.Capability {
	return writ.Define[ScopeListArgs, ScopeList](writ.Capability{
		ID: "scope.list", Safety: writ.SafetyReadOnly, Summary: "List the write scopes that tasks hold and sessions claim.",
		Example: `{"under":"fs:site/"}`,
	}, writ.Verb[ScopeListArgs]{
		Reads: func(_ *writ.Call, a *ScopeListArgs, s writ.Snapshot) (writ.ReadSet, error) {
			r, err := a.span()
			if err != nil {
				return writ.ReadSet{}, err
			}
			rs := writ.ReadSet{Ranges: []writ.Range{r}}
			for _, m := range s.Ranges[r].Members {
				_, by, _ := writ.SplitScopeMember(m.Name)
				rs.Docs = append(rs.Docs, by.Docs()...)
				if id := writ.TaskID(by); id.Valid() {
					rs.Counters = append(rs.Counters, leaseEnd(id))
				}
			}
			return rs, nil
		},
		Plan: func(_ *writ.Call, a *ScopeListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			span, err := a.span()
			if err != nil {
				return tx, r, err
			}
			out, members := ScopeList{Scopes: []HeldScope{}}, s.Ranges[span].Members
			if len(members) == span.Limit {
				members = members[:span.Limit-1]
				out.Next = members[len(members)-1].Name
			}
			for _, m := range members {
				h, ok, err := writ.HeldBy(s, m.Name)
				if err != nil {
					return tx, r, err
				}
				if ok { // else it was given back between two reads
					out.Scopes = append(out.Scopes, shownScope(s, h))
				}
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

func shownScope(s writ.Snapshot, h writ.Held) HeldScope {
	out := HeldScope{Resource: h.Scope, Mode: h.Mode, Agent: h.Agent}
	if id := writ.SessionID(h.By); id.Valid() {
		out.Session, out.ExpiresAt = id, timeOf(h.Session.ExpiresAt)
		return out
	}
	out.Task, out.Run, out.Fence, out.ExpiresAt = h.Task.ID, h.Task.Run, h.Task.FenceOf(h.Version), timeOf(h.Task.KeptUntil)
	if h.Task.State == writ.TaskRunning {
		out.ExpiresAt = timeOf(s.Counters[leaseEnd(h.Task.ID)])
	}
	return out
}
