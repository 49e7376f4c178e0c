package approvals

import "github.com/writ-gateway/writ"

// ApprovalRevokeArgs take an approval back.
type ApprovalRevokeArgs struct {
	Approval writ.ApprovalID `json:"approval_id" doc:"The approval." pattern:"^apr_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

func (r Room) revoke() *writ.Capability {
	const op = "approvals.Revoke"
	return writ.Define[ApprovalRevokeArgs, ApprovalView](writ.Capability{
		ID: "approval.revoke", Safety: writ.SafetyMutating, Summary: "Take back an approval before it is used, or used again.",
		Example: `{"approval_id":"apr_01M85DS6ADY7YHVBWVGXH347C2"}`,
	}, writ.Verb[ApprovalRevokeArgs]{
		Locks: func(_ *writ.Call, a *ApprovalRevokeArgs) []writ.Key { return []writ.Key{writ.ApprovalKey(a.Approval)} },
		Reads: func(_ *writ.Call, a *ApprovalRevokeArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.ApprovalKey(a.Approval)}}, nil
		},
		Describe: func(c *writ.Call, a *ApprovalRevokeArgs, s writ.Snapshot) (writ.Subject, error) {
			return r.describe(op, c, s, a.Approval)
		},
		Plan: func(c *writ.Call, args *ApprovalRevokeArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			a, version, err := load(op, c, s, args.Approval)
			if err != nil {
				return tx, reply, err
			}
			if err := c.Match(op, version); err != nil {
				return tx, reply, err
			}
			if a.State != writ.ApprovalApproved {
				return tx, reply, writ.IllegalMove(op, writ.ObjectApproval, string(a.State), string(writ.ApprovalRevoked))
			}
			a.State = writ.ApprovalRevoked
			if err := r.put(c, s, &tx, &a, writ.ApprovalApproved); err != nil {
				return tx, reply, err
			}
			return tx, decided(a, s), nil
		},
	})
}

// ApprovalExpireArgs name an approval whose time may be over.
type ApprovalExpireArgs struct {
	Approval writ.ApprovalID `json:"approval_id" doc:"The approval." pattern:"^apr_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// Swept says what a mandate did.
type Swept struct {
	Expired bool `json:"expired" doc:"Whether the approval expired now."`
}

// expire ends an approval nobody decided or used in time, and what waited for
// it. Use does not rely on it: an approval past its end counts for nothing.
func (r Room) expire() *writ.Capability {
	return writ.Define[ApprovalExpireArgs, Swept](writ.Capability{
		ID: "approval.expire", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "End an approval whose time is over.",
	}, writ.Verb[ApprovalExpireArgs]{
		Reads: func(_ *writ.Call, a *ApprovalExpireArgs, s writ.Snapshot) (writ.ReadSet, error) {
			return r.reads(a.Approval, s)
		},
		Plan: func(c *writ.Call, args *ApprovalExpireArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			tx.Mandate = true
			reply = writ.Reply{Outcome: writ.OutcomeDone, Body: Swept{}}
			a, _, ok, err := writ.Get[writ.Approval](s, writ.ApprovalKey(args.Approval))
			if err != nil {
				return tx, reply, err
			}
			if !ok || writ.ApprovalMoves.Terminal(a.State) {
				tx.Unindex(writ.IndexExpiries, string(args.Approval))
				return tx, reply, nil
			}
			ended, err := over(s, a)
			if err != nil {
				return tx, reply, err
			}
			if s.Now < a.ExpiresAt && !ended {
				tx.Index(writ.IndexExpiries, string(a.ID), a.ExpiresAt)
				return tx, reply, nil
			}
			from := a.State
			a.State = writ.ApprovalExpired
			if err := r.put(c, s, &tx, &a, from); err != nil {
				return tx, reply, err
			}
			if from == writ.ApprovalPending {
				if err := r.wake(c, s, a, &tx); err != nil {
					return tx, reply, err
				}
			}
			reply.Body = Swept{Expired: true}
			return tx, reply, nil
		},
	})
}
