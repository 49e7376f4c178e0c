package guard

import (
	"context"
	"strings"

	"github.com/writ-gateway/writ"
)

// permit asks for the caller's right: that the principal is bound to the role of
// its session, and that the role may invoke the capability and the wrapper it
// came through. The gateway itself needs no binding: its calls have no session.
func (t *try) permit() error {
	c := t.call.Caller
	if t.acting() != "" && !t.rules.Bound(c.Principal, c.Role, c.Tenant) {
		return t.byBindings(&writ.Error{
			Msg:  "the principal of this session is not bound to the role " + string(c.Role),
			Hint: "an operator can bind it with role.bind; until then use a session of a role it is bound to",
		}, c.Role)
	}
	for _, id := range []writ.CapabilityID{t.k.ID, t.call.Via} {
		if id != "" && !t.rules.Permit(c.Role, c.Tenant, id) {
			return t.byBindings(&writ.Error{
				Msg:  "the role " + string(c.Role) + " may not invoke " + string(id),
				Hint: "use a session of a role that may; role.permissions shows what yours can call",
			}, c.Role).With("capability", string(id))
		}
	}
	return nil
}

// permitRole refuses a call that would give a role to a principal that is not
// bound to it: what it gives could not be used.
func (t *try) permitRole() error {
	a, ok := t.call.Args.(RoleGiver)
	if !ok {
		return nil
	}
	p, role := a.GivesRole()
	if t.rules.Bound(p, role, t.call.Caller.Tenant) {
		return nil
	}
	return t.byBindings(&writ.Error{
		Msg:  "the principal is not bound to the role it would be given",
		Hint: "bind it first with role.bind (writ role bind --principal … --role …); role.list shows who is bound",
	}, role)
}

// byBindings makes the refusal of somebody who has no right. Its receipt names the
// bindings that say so, and no policies: they were not asked.
func (t *try) byBindings(e *writ.Error, role writ.Role) *writ.Error {
	_, t.dec.BindingsRevision = t.rules.Revisions()
	e.Code, e.Op = writ.CodeRBAC, "guard.Do"
	return e.With("role", string(role))
}

// judge describes the call to policy and takes its decision.
func (t *try) judge(ctx context.Context) error {
	sub, err := t.k.Describe(t.call, t.snap)
	if err != nil {
		return err
	}
	if a := t.call.Caller.Agent; a != "" && sub.Agent == nil {
		agent, _, ok, err := writ.Get[writ.Agent](t.snap, writ.AgentKey(a))
		if err != nil {
			return err
		}
		if !ok {
			return unauthenticated()
		}
		sub.Agent = &writ.AgentFacts{ID: agent.ID, Status: agent.State, Domain: agent.Domain, WriteScope: agent.WriteScope}
	}
	t.sub = sub // a receipt of what an obligor refuses says what it was about
	for _, o := range t.d.cfg.Obligors {
		if err := t.readFor(ctx, maxHops, func() (writ.ReadSet, error) { return o.Reads(t.call, t.k, t.snap, sub) }); err != nil {
			return err
		}
		if err := o.Facts(t.call, t.k, t.snap, t.moves, &sub); err != nil {
			return err
		}
	}
	t.sub = sub
	t.dec, err = t.rules.Decide(ctx, writ.PolicyInput{
		Call: t.call, Capability: t.k, Session: t.session, Subject: sub, Now: t.snap.Now,
	})
	if t.dec.Effect.Rank() > writ.EffectDeny.Rank() {
		t.dec.Effect = writ.EffectDeny // an effect nobody knows
	}
	mandate := t.k.Class == writ.Mandate
	if err != nil {
		if mandate {
			policy, bindings := t.rules.Revisions()
			t.dec = writ.Decision{Effect: writ.EffectAllow, PolicyRevision: policy, BindingsRevision: bindings}
			t.d.cfg.Log.ErrorContext(ctx, "policy unavailable for a mandate", "capability", t.k.ID, "error", err)
			return nil
		}
		return &writ.Error{
			Code: writ.CodePolicyDown, Op: "guard.judge", RetryMs: 1000, Err: err,
			Msg: "policy could not answer, so nothing is allowed", Hint: "repeat the call; operators see the cause in the log",
		}
	}
	switch {
	case mandate:
		t.dec.Duties = writ.Duties{Notify: t.dec.Duties.Notify} // it cannot be denied, so it is not obliged to anything
	case t.dec.Effect == writ.EffectAllow, t.dec.Effect == writ.EffectRedact && len(t.dec.Duties.Redact) > 0, t.needsApproval():
	default:
		e := denied(t.dec)
		if f := t.sub.Task; f != nil && f.BelongsTo != "" {
			e = e.With("to", string(f.BelongsTo)) // whose work it is: who is refused knows where to turn
		}
		return e
	}
	return nil
}

// needsApproval says that the call may happen once people have agreed.
func (t *try) needsApproval() bool {
	return t.dec.Effect == writ.EffectRequireApproval && len(t.dec.Needs) > 0 && t.d.cfg.Approver != nil &&
		t.k.Class != writ.Mandate && !t.k.ReadOnly() && !strings.HasPrefix(string(t.k.ID), "approval.") // deciding is not decided about
}

// settle asks the approvals whether what the decision needs is met.
func (t *try) settle(ctx context.Context) (use writ.Tx, waits writ.Reply, met bool, err error) {
	err = t.readFor(ctx, maxHops, func() (writ.ReadSet, error) {
		return t.d.cfg.Approver.Reads(t.call, t.k, t.snap, t.sub, t.dec)
	})
	if err != nil {
		return use, waits, false, err
	}
	return t.d.cfg.Approver.Settle(t.call, t.k, t.snap, t.sub, t.dec, func(v writ.Vote) bool {
		return t.rules.Bound(v.Principal, v.Role, t.call.Caller.Tenant)
	})
}

// ask commits the request for approval, which is all that becomes of the call
// for now. When people have been asked already there is nothing to commit.
func (t *try) ask(ctx context.Context, tx writ.Tx, reply writ.Reply) (writ.Reply, *writ.Receipt, error) {
	reply.Outcome = writ.OutcomePending
	if tx.Empty() {
		if err := t.finish(&reply, writ.Committed{Seq: -1}); err != nil {
			return writ.Reply{}, nil, err
		}
		return reply, nil, nil
	}
	if err := t.d.admit(t.k, tx); err != nil {
		return writ.Reply{}, nil, err
	}
	return t.commit(ctx, tx, reply, writ.OutcomeOfRequest)
}

// moves says whether the call would move an object if it were allowed. What a
// call that is refused anyway, or finds nothing to do, would have cost is no
// question for policy: nobody can exhaust a run with calls that cannot happen.
func (t *try) moves() bool {
	tx, reply, err := t.k.Plan(t.call, t.snap, writ.Decision{Effect: writ.EffectAllow})
	return err == nil && (len(tx.Changes) > 0 || reply.Errand != nil)
}

// notify tells the log whom policy wants to hear of an allowed call. The rule
// stands in the receipt; its pack says who.
func (t *try) notify(ctx context.Context) {
	for _, rule := range t.dec.Duties.Notify {
		t.d.cfg.Log.WarnContext(ctx, "policy allows a call and wants it known", "rule", rule, "capability", t.k.ID, "call", t.call.ID)
	}
}

// owes makes the refusal of a call for which the door cannot do what policy
// allows it with.
func (t *try) owes(msg, hint string) *writ.Error {
	return &writ.Error{Code: writ.CodePolicy, Op: "guard.judge", Msg: msg, Hint: hint, Rules: t.dec.Rules()}
}

// warn says that the call took its run to a mark of its budget: to the caller,
// the log and the metrics. The receipt's evidence says it too.
func (t *try) warn(ctx context.Context, reply *writ.Reply) {
	reply.Budget = t.warned
	for _, w := range t.warned {
		t.d.cfg.Observer.BudgetWarning(w.Dimension, w.Percent)
		t.d.cfg.Log.WarnContext(ctx, "a run has used much of its budget", "run", w.Run, "dimension", w.Dimension, "percent", w.Percent)
	}
}

// denied makes the refusal of a decision: the strongest finding names the code.
func denied(d writ.Decision) *writ.Error {
	e := &writ.Error{Code: writ.CodePolicy, Op: "guard.judge", Msg: "policy denies this call", Rules: d.Rules()}
	e.Hint = "rule_ids names the rules; operators and auditors see with policy.explain of this receipt which line of them held"
	if len(d.Findings) > 0 {
		f := d.Findings[0]
		if c := writ.Code(f.Code); c.Receipted() {
			e.Code = c
		}
		if f.Message != "" {
			e.Msg = f.Message
		}
	}
	return e
}
