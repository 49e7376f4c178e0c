package approvals

import "github.com/writ-gateway/writ"

// ApprovalWithdrawArgs name an agent that was revoked.
type ApprovalWithdrawArgs struct {
	Agent writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

// Withdrawn says what a withdrawal did.
type Withdrawn struct {
	Approvals []writ.ApprovalID `json:"approvals" doc:"What it took back."`
	More      bool              `json:"more" doc:"Whether there are more and it will be called again."`
}

// withdrawBatch is how many approvals one call takes back: each may have a task
// that waits for it.
const withdrawBatch = 4

// askedBy are the approvals that count yet and that an agent's sessions, or those
// they opened, asked for.
func askedBy(id writ.AgentID) writ.Range {
	return writ.Range{Index: writ.SetGoing(writ.ObjectApproval, id), Limit: withdrawBatch}
}

// withdraw takes back what a revoked agent had asked for, whether or not people have
// agreed: nothing of it is ever used.
func (r Room) withdraw() *writ.Capability {
	return writ.Define[ApprovalWithdrawArgs, Withdrawn](writ.Capability{
		ID: "approval.withdraw", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Take back the approvals a revoked agent had asked for.",
	}, writ.Verb[ApprovalWithdrawArgs]{
		Reads: func(_ *writ.Call, a *ApprovalWithdrawArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.ReadSet{Docs: []writ.Key{writ.AgentKey(a.Agent)}, Ranges: []writ.Range{askedBy(a.Agent)}}
			for _, m := range s.Ranges[askedBy(a.Agent)].Members {
				more, err := r.reads(writ.ApprovalID(m.Name), s)
				if err != nil {
					return rs, err
				}
				rs = rs.Join(more)
			}
			return rs, nil
		},
		Plan: func(c *writ.Call, args *ApprovalWithdrawArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			tx.Mandate = true
			agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(args.Agent))
			if err != nil {
				return tx, reply, err
			}
			out := Withdrawn{Approvals: []writ.ApprovalID{}}
			if h := agent.Halt; ok && h != nil && h.Revoked && h.SweptAt == 0 {
				tx.Cause(h.Receipt)
				members := s.Ranges[askedBy(args.Agent)].Members
				out.More = len(members) == withdrawBatch
				tasks := map[writ.TaskID]bool{}
				for _, m := range members {
					a, _, ok, err := writ.Get[writ.Approval](s, writ.ApprovalKey(writ.ApprovalID(m.Name)))
					if err != nil {
						return tx, reply, err
					}
					if !ok || writ.ApprovalMoves.Terminal(a.State) {
						continue
					}
					if a.Task != "" && tasks[a.Task] { // a task moves once in a transaction
						out.More = true
						continue
					}
					tasks[a.Task] = true
					from := a.State
					a.State = writ.ApprovalRevoked
					if err := r.put(c, s, &tx, &a, from); err != nil {
						return tx, reply, err
					}
					if from == writ.ApprovalPending {
						if err := r.wake(c, s, a, &tx); err != nil {
							return tx, reply, err
						}
					}
					out.Approvals = append(out.Approvals, a.ID)
				}
			}
			if !out.More {
				tx.Unindex(writ.IndexTodo, "withdraw "+string(args.Agent))
				tx.Index(writ.IndexTodo, "settled "+string(args.Agent), s.Now)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
