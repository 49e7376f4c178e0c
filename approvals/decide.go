package approvals

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// ApprovalDecideArgs are one person's decision.
type ApprovalDecideArgs struct {
	Approval writ.ApprovalID `json:"approval_id" doc:"The approval." pattern:"^apr_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Decision string          `json:"decision" doc:"What you decide. One denial is enough; modify agrees to the call with the arguments in args instead." enum:"approve,deny,modify"`
	Args     writ.RawObject  `json:"args,omitempty" doc:"With modify: all arguments of the call you agree to, without lease_id, fence and wait_s. run_id, parent_run_id, task_id and capability stay as they are."`
	Reason   string          `json:"reason,omitempty" doc:"Why, for those who read it later." maxLength:"500"`
	Remember *Remember       `json:"remember,omitempty" doc:"With approve: let it hold for more than this one call, if policy allows that."`
}

// Remember widens an approval.
type Remember struct {
	Scope   writ.ApprovalScope `json:"scope" doc:"What it is to hold for: the same capability in this run or session, whatever the arguments." enum:"run,session"`
	MaxUses int64              `json:"max_uses" doc:"How often it may be used." minimum:"1" maximum:"1000"`
}

// ApprovalRespondArgs are the answer to a human_action.
type ApprovalRespondArgs struct {
	Approval writ.ApprovalID `json:"approval_id" doc:"The approval." pattern:"^apr_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Response writ.RawObject  `json:"response" doc:"The answer, of the form response_schema asks for."`
	Reason   string          `json:"reason,omitempty" doc:"A remark, for those who read it later." maxLength:"500"`
}

func (r Room) decide() *writ.Capability {
	const op = "approvals.Decide"
	return writ.Define[ApprovalDecideArgs, ApprovalView](writ.Capability{
		ID: "approval.decide", Safety: writ.SafetyMutating, Summary: "Approve or deny what somebody else wants to do, or agree to it with other arguments.",
		Example: `{"approval_id":"apr_01M85DS6ADY7YHVBWVGXH347C2","decision":"approve","reason":"checked"}`,
	}, writ.Verb[ApprovalDecideArgs]{
		Locks: func(_ *writ.Call, a *ApprovalDecideArgs) []writ.Key { return []writ.Key{writ.ApprovalKey(a.Approval)} },
		Reads: func(c *writ.Call, a *ApprovalDecideArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := r.reads(a.Approval, s)
			if err != nil || s.Docs[writ.ApprovalKey(a.Approval)].Version == 0 {
				return rs, err
			}
			old, _, _, err := writ.Get[writ.Approval](s, writ.ApprovalKey(a.Approval))
			switch {
			case err != nil:
			case a.Decision == "modify":
				err = r.modifyReads(op, c, s, old, a.Args, &rs)
			case a.Remember != nil:
				rs.Docs = append(rs.Docs, writ.AskKey(wider(old, a.Remember.Scope).Request()))
			}
			return rs, err
		},
		Describe: func(c *writ.Call, a *ApprovalDecideArgs, s writ.Snapshot) (writ.Subject, error) {
			return r.describe(op, c, s, a.Approval)
		},
		Plan: func(c *writ.Call, a *ApprovalDecideArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			old, err := r.undecided(op, c, s, a.Approval)
			if err != nil {
				return tx, reply, err
			}
			switch {
			case a.Remember != nil && a.Decision != "approve":
				return tx, reply, invalid(op, "/remember", "goes with approve only")
			case len(a.Args) > 0 && a.Decision != "modify":
				return tx, reply, invalid(op, "/args", "goes with modify only")
			case a.Decision == "modify" && decidedBy(old, c.Caller): // has decided about these arguments
				return tx, reply, conflictOfInterest(op)
			case a.Decision == "modify":
				return r.modify(op, c, s, old, a.Args, a.Reason)
			case a.Decision != "approve":
				return r.vote(c, s, old, false, a.Reason)
			}
			if asks(old, c.Caller.Role) >= 0 {
				return tx, reply, writ.Refuse(writ.CodeIllegal, op, "this approval needs an answer, not only a yes", "use approval.respond").
					With("kind", writ.ObjectApproval)
			}
			if a.Remember != nil {
				if err := remember(op, c, &tx, s, &old, *a.Remember); err != nil {
					return tx, reply, err
				}
			}
			more, reply, err := r.vote(c, s, old, true, a.Reason)
			more.Join(tx)
			return more, reply, err
		},
	})
}

func (r Room) respond() *writ.Capability {
	const op = "approvals.Respond"
	return writ.Define[ApprovalRespondArgs, ApprovalView](writ.Capability{
		ID: "approval.respond", Safety: writ.SafetyMutating, Summary: "Answer what only a person can answer; the answer is the approval.",
		Example: `{"approval_id":"apr_01M85DS6ADY7YHVBWVGXH347C2","response":{"answer":"yes"}}`,
	}, writ.Verb[ApprovalRespondArgs]{
		Locks: func(_ *writ.Call, a *ApprovalRespondArgs) []writ.Key { return []writ.Key{writ.ApprovalKey(a.Approval)} },
		Reads: func(_ *writ.Call, a *ApprovalRespondArgs, s writ.Snapshot) (writ.ReadSet, error) {
			return r.reads(a.Approval, s)
		},
		Describe: func(c *writ.Call, a *ApprovalRespondArgs, s writ.Snapshot) (writ.Subject, error) {
			return r.describe(op, c, s, a.Approval)
		},
		Plan: func(c *writ.Call, a *ApprovalRespondArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			old, err := r.undecided(op, c, s, a.Approval)
			if err != nil {
				return tx, reply, err
			}
			i := asks(old, c.Caller.Role)
			if i < 0 {
				return tx, reply, writ.Refuse(writ.CodeIllegal, op, "this approval asks your role for a decision, not for an answer", "use approval.decide").
					With("kind", writ.ObjectApproval)
			}
			if schema := old.Needs[i].Schema; len(schema) > 0 {
				if err := r.cfg.Validate(schema, a.Response); err != nil {
					return tx, reply, err
				}
			}
			if len(old.Args)+len(a.Response) > maxArgs {
				return tx, reply, writ.Refuse(writ.CodeTooLarge, op, "the answer is too large to keep", "store what is large elsewhere and answer with a reference")
			}
			if err := r.oneAnswer(op, c, &old, a.Response); err != nil {
				return tx, reply, err
			}
			old.Response = a.Response
			return r.vote(c, s, old, true, a.Reason)
		},
	})
}

// oneAnswer holds an answer to the one that was given before: who gave it has agreed
// to that and to no other. An answer for which no vote counts any more gives way,
// and those votes with it: with the role they were cast in no vote comes back
// for another answer.
func (r Room) oneAnswer(op string, c *writ.Call, a *writ.Approval, response writ.RawObject) error {
	if len(a.Response) == 0 {
		return nil
	}
	answer := func(v writ.Vote) bool { return v.Approve && asks(*a, v.Role) >= 0 }
	if !slices.ContainsFunc(r.standing(c, *a).Votes, answer) {
		a.Votes = slices.DeleteFunc(slices.Clone(a.Votes), answer)
		return nil
	}
	same, err := alike(a.Response, response)
	if err != nil || same {
		return err
	}
	return writ.Refuse(writ.CodeExists, op, "somebody has answered otherwise, and all must give one answer",
		"read response with approval.get; give the same answer, or deny with approval.decide").With("approval", string(a.ID))
}

// asks is the first need by which an approval asks a role for an answer; -1 if none
// does.
func asks(a writ.Approval, role writ.Role) int {
	return slices.IndexFunc(a.Needs, func(n writ.Need) bool { return n.Kind == writ.ApproveHumanAction && slices.Contains(n.Roles, role) })
}

// reads names what a decision must see: the approval, the task it is about, and
// what waits for it.
func (r Room) reads(id writ.ApprovalID, s writ.Snapshot) (writ.ReadSet, error) {
	rs := writ.ReadSet{Docs: []writ.Key{writ.ApprovalKey(id)}}
	if s.Docs[writ.ApprovalKey(id)].Version == 0 {
		return rs, nil
	}
	a, _, _, err := writ.Get[writ.Approval](s, writ.ApprovalKey(id))
	if err != nil {
		return rs, err
	}
	if a.Task != "" {
		rs.Docs = append(rs.Docs, writ.TaskKey(a.Task))
	}
	return rs, r.readWaiting(&rs, a, s)
}

// describe tells policy how the caller stands to an approval.
func (r Room) describe(op string, c *writ.Call, s writ.Snapshot, id writ.ApprovalID) (writ.Subject, error) {
	a, _, err := load(op, c, s, id)
	if err != nil {
		return writ.Subject{}, err
	}
	return writ.Subject{Approval: &writ.ApprovalFacts{
		ID: a.ID, Kind: a.Needs[0].Kind, Scope: a.Scope, State: a.State, Excluded: excluded(a, c.Caller), Voted: r.hasVoted(c, a),
	}}, nil
}

// excluded says whether the caller stands behind the request, or its session
// was opened by the one who asks.
func excluded(a writ.Approval, c writ.Caller) bool {
	return slices.Contains(a.Excluded, c.Principal) || slices.Contains(a.Excluded, c.Controller) ||
		slices.Contains(c.Openers, a.Requester.Principal)
}

// hasVoted says whether the caller has decided, and need not say so again. Enough votes
// can stand and nothing be decided, when one of them did not count at the last: its
// caster had lost the role and has it back. Whoever of them says it again
// completes it; nobody counts twice.
func (r Room) hasVoted(c *writ.Call, a writ.Approval) bool {
	enough := a.State == writ.ApprovalPending && r.standing(c, a).MeetsAll(a.Needs)
	return decidedBy(a, c.Caller) && !enough
}

// undecided is an approval the caller may decide now. Policy has rules of its
// own about who may; these hold whatever the packs say.
func (r Room) undecided(op string, c *writ.Call, s writ.Snapshot, id writ.ApprovalID) (writ.Approval, error) {
	a, version, err := load(op, c, s, id)
	if err != nil {
		return a, err
	}
	ended, err := over(s, a)
	switch {
	case err != nil:
		return a, err
	case a.State != writ.ApprovalPending:
		return a, writ.IllegalMove(op, writ.ObjectApproval, string(a.State), string(writ.ApprovalApproved))
	case a.Dead(s.Now):
		return a, writ.IllegalMove(op, writ.ObjectApproval, string(writ.ApprovalExpired), string(writ.ApprovalApproved))
	case ended:
		return a, writ.IllegalMove(op, writ.ObjectApproval, string(writ.ApprovalExpired), string(writ.ApprovalApproved))
	case excluded(a, c.Caller) || r.hasVoted(c, a):
		return a, conflictOfInterest(op)
	case !slices.ContainsFunc(a.Needs, func(n writ.Need) bool { return slices.Contains(n.Roles, c.Caller.Role) }):
		return a, writ.Refuse(writ.CodeNotEligible, op, "your role is not one of those that may decide this", "see roles in approval.get").
			With("role", string(c.Caller.Role))
	}
	return a, c.Match(op, version)
}

// over says whether the task an approval is about has ended: there is nothing
// left to agree to.
func over(s writ.Snapshot, a writ.Approval) (bool, error) {
	t, ok, err := taskOf(s, a)
	return ok && writ.TaskMoves.Terminal(t.State), err
}

// vote is the caller's, neither for nor against as yet.
func vote(c *writ.Call, s writ.Snapshot, reason string) writ.Vote {
	return writ.Vote{
		Session: c.Caller.Session, Principal: c.Caller.Principal, Controller: c.Caller.Controller, Openers: c.Caller.Openers, Role: c.Caller.Role,
		Reason: reason, At: s.Now, Receipt: writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0)),
	}
}

// vote records a decision, and what follows from it: after the last vote that
// was needed, or one denial, what waited is let go on or ended in the same
// transaction.
func (r Room) vote(c *writ.Call, s writ.Snapshot, a writ.Approval, yes bool, reason string) (tx writ.Tx, reply writ.Reply, err error) {
	v := vote(c, s, reason)
	v.Approve = yes
	a.Votes = append(slices.Clip(a.Votes), v)
	switch {
	case !yes:
		a.State = writ.ApprovalDenied
	case r.standing(c, a).MeetsAll(a.Needs):
		a.State = writ.ApprovalApproved
	}
	tx.NotAfter(a.ExpiresAt - 1)
	if err := r.put(c, s, &tx, &a, writ.ApprovalPending); err != nil {
		return tx, reply, err
	}
	if a.State != writ.ApprovalPending {
		if err := r.wake(c, s, a, &tx); err != nil {
			return tx, reply, err
		}
	}
	// More budget is used by being granted; there is no call to wait for.
	if a.State == writ.ApprovalApproved && len(extends(a.Needs)) == len(a.Needs) {
		if err := r.spend(c, s, &tx, &a); err != nil {
			return tx, reply, err
		}
	}
	return tx, decided(a, s), nil
}

// standing is an approval with the votes that count now: of those who still have
// the role they voted in. The others stay on record.
func (r Room) standing(c *writ.Call, a writ.Approval) writ.Approval {
	return counted(a, func(v writ.Vote) bool { return r.cfg.Bound(v.Principal, v.Role, c.Caller.Tenant) })
}

func counted(a writ.Approval, holds func(writ.Vote) bool) writ.Approval {
	a.Votes = slices.DeleteFunc(slices.Clone(a.Votes), func(v writ.Vote) bool { return !holds(v) })
	return a
}

// decided answers a decision with what became of it.
func decided(a writ.Approval, s writ.Snapshot) writ.Reply {
	return writ.Reply{Outcome: writ.OutcomeDone, Body: view(a, 0, s.Now), Versioned: []string{"version"}, ETag: -1}
}

// spend marks an approval as used up in the transaction that approves it.
func (r Room) spend(c *writ.Call, s writ.Snapshot, tx *writ.Tx, a *writ.Approval) error {
	a.State, a.Uses = writ.ApprovalConsumed, a.MaxUses
	return r.put(c, s, tx, a, writ.ApprovalApproved)
}

// wider is the request a remembered approval covers.
func wider(a writ.Approval, scope writ.ApprovalScope) writ.Ask {
	return writ.Ask{
		Scope: scope, Capability: a.Capability, Version: a.Version, Subject: a.Subject, Run: a.Run, Task: a.Task,
		Caller: writ.Caller{Principal: a.Requester.Principal, Role: a.Requester.Role, Agent: a.Requester.Agent, Session: a.Requester.Session},
	}
}

// remember lets an approval hold for a wider scope, within what policy allowed, if
// nobody but the caller has to agree.
func remember(op string, c *writ.Call, tx *writ.Tx, s writ.Snapshot, a *writ.Approval, want Remember) error {
	allowed := rememberable(a.Needs)
	mine := vote(c, s, "")
	mine.Approve = true
	alone := writ.Approval{Votes: []writ.Vote{mine}}
	switch {
	case len(a.Votes) > 0 || !alone.MeetsAll(a.Needs):
		return invalid(op, "/remember", "is not for one of several to decide")
	case allowed == 0:
		return invalid(op, "/remember", "is not allowed by the policy that asks for this approval")
	case want.MaxUses > allowed:
		return invalid(op, "/remember/max_uses", "is more than the policy that asks for this approval allows")
	case narrower(a.Scope, want.Scope) != a.Scope || a.Scope == want.Scope:
		return invalid(op, "/remember/scope", "must be wider than the approval's own")
	case want.Scope == writ.ScopeRun && a.Run == "":
		return invalid(op, "/remember/scope", "the call is not about a run")
	}
	a.Remembered, a.MaxUses = want.Scope, want.MaxUses
	key := writ.AskKey(wider(*a, want.Scope).Request())
	return tx.PutDoc(s, key, "ask", pointer{a.ID})
}

func invalid(op, at, msg string) error {
	return &writ.Error{
		Code: writ.CodeInputInvalid, Op: op, Msg: "the decision cannot be taken like this", Hint: "correct every field named in errors",
		Fields: []writ.FieldError{{Pointer: at, Msg: msg}},
	}
}
