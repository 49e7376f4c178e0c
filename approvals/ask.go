package approvals

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// pointer is the document that says which approval a request led to last.
type pointer struct {
	Approval writ.ApprovalID `json:"approval_id"`
}

// budgetVerb stands for the capability of a request for more budget: it is the
// same request whatever call met the limit.
const budgetVerb writ.CapabilityID = "budget.extend"

// request makes the approval a call would ask for. What it is bound to comes
// from the call and the subject policy judged.
func request(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject, d writ.Decision) (writ.Approval, []writ.Ask, error) {
	args, digest, err := shown(c.Args)
	if err != nil {
		return writ.Approval{}, nil, err
	}
	a := writ.Approval{
		ID: writ.ApprovalID(c.NewID(writ.PrefixApproval, 0)), State: writ.ApprovalPending, Needs: d.Needs,
		Scope: writ.ScopeSession, Capability: k.ID, Version: k.Version, Args: args, Labels: sub.Labels, Policy: d.PolicyRevision,
		Requester: writ.Requester{Session: c.Caller.Session, Principal: c.Caller.Principal, Role: c.Caller.Role, Agent: c.Caller.Agent},
		Behind:    c.Caller.Agents(),
		MaxUses:   writ.MaxApprovalUses, CreatedAt: s.Now,
	}
	if sub.Run != nil {
		a.Run = sub.Run.ID
	}
	if sub.Task != nil {
		a.Subject = sub.Task.Capability
		if doc := s.Docs[writ.TaskKey(sub.Task.ID)]; doc.Version != 0 { // not one the call is about to make
			a.Task = sub.Task.ID
		}
	}
	if t, ok, err := taskOf(s, a); err != nil {
		return writ.Approval{}, nil, err
	} else if ok {
		if a.Args, err = withTask(a.Args, t); err != nil {
			return writ.Approval{}, nil, err
		}
	}
	life, remember := int64(writ.MaxApprovalSeconds), int64(0)
	for i, n := range d.Needs {
		a.Scope = narrower(a.Scope, n.Scope)
		a.MaxUses = min(a.MaxUses, n.MaxUses)
		life = min(life, n.ExpiresS)
		if i == 0 || n.Remember < remember {
			remember = n.Remember
		}
	}
	// A claim is not its caller's alone: whoever of those who wait gets the task
	// first makes it, and it says no more than which task.
	if k.ID == "task.claim" && a.Task != "" {
		switch a.Scope {
		case writ.ScopeCall:
			a.Scope = writ.ScopeTask
		case writ.ScopeSession:
			a.Scope = writ.ScopeRun
		}
	}
	if a.Scope == writ.ScopeTask && a.Task == "" || a.Scope == writ.ScopeRun && a.Run == "" {
		a.Scope = writ.ScopeCall
	}
	a.ExpiresAt = s.Now + life*1000
	if sub.Chosen != "" {
		sum := sha256.Sum256([]byte(digest + "\x00" + sub.Chosen))
		digest = hex.EncodeToString(sum[:])
	}
	ask := writ.Ask{Scope: a.Scope, Capability: k.ID, Version: k.Version, Subject: a.Subject, Digest: digest, Caller: c.Caller, Run: a.Run, Task: a.Task}
	if dims := extends(d.Needs); len(dims) > 0 && len(dims) == len(d.Needs) && a.Run != "" {
		a.Scope = writ.ScopeRun
		ask = writ.Ask{Scope: writ.ScopeRun, Capability: budgetVerb, Subject: writ.CapabilityID(strings.Join(dims, "+")), Run: a.Run}
	}
	a.Request = ask.Request()
	asks := []writ.Ask{ask}
	if remember > 0 {
		for _, wide := range []writ.ApprovalScope{writ.ScopeRun, writ.ScopeSession} {
			if narrower(a.Scope, wide) == a.Scope && a.Scope != wide && (wide != writ.ScopeRun || a.Run != "") {
				ask.Scope = wide
				asks = append(asks, ask)
			}
		}
	}
	return a, asks, nil
}

func narrower(a, b writ.ApprovalScope) writ.ApprovalScope {
	scopes := writ.ApprovalScopes()
	return scopes[min(max(0, slices.Index(scopes, a)), max(0, slices.Index(scopes, b)))]
}

// extends lists the dimensions of a budget that needs ask more of, sorted.
func extends(needs []writ.Need) (dims []string) {
	for _, n := range needs {
		if n.Kind == writ.ApproveBudgetExtension {
			dims = append(dims, n.Dimension)
		}
	}
	slices.Sort(dims)
	return dims
}

// Reads names the requests a call may be covered by, then the approvals they
// led to, then what must be stopped while people decide.
func (r Room) Reads(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject, d writ.Decision) (writ.ReadSet, error) {
	a, asks, err := request(c, k, s, sub, d)
	if err != nil {
		return writ.ReadSet{}, err
	}
	rs := writ.ReadSet{
		Docs: []writ.Key{writ.ApprovalKey(a.ID)}, Counters: []writ.Counter{writ.ApprovalsAsked(a.Requester.Principal)},
	}
	if err := partReads(c, s, a, &rs); err != nil {
		return rs, err
	}
	for _, ask := range asks {
		key, err := readLast(&rs, s, ask.Request())
		if err != nil {
			return rs, err
		}
		if !s.Has(key) {
			continue
		}
		old, _, ok, err := writ.Get[writ.Approval](s, key)
		if err != nil {
			return rs, err
		}
		if ok && old.State == writ.ApprovalPending { // it may be superseded, and who waits for it told
			if err := r.readWaiting(&rs, old, s); err != nil {
				return rs, err
			}
		}
	}
	if t, ok, err := taskOf(s, a); err != nil {
		return rs, err
	} else if ok && t.EnqueuedBy != "" {
		rs.Docs = append(rs.Docs, writ.SessionKey(t.EnqueuedBy))
	}
	return rs, r.readWaiting(&rs, a, s)
}

// readLast adds what a request led to last: its pointer, then the approval,
// whose key it returns once that is known.
func readLast(rs *writ.ReadSet, s writ.Snapshot, request string) (writ.Key, error) {
	rs.Docs = append(rs.Docs, writ.AskKey(request))
	if !s.Has(writ.AskKey(request)) {
		return "", nil
	}
	p, _, ok, err := writ.Get[pointer](s, writ.AskKey(request))
	if err != nil || !ok {
		return "", err
	}
	rs.Docs = append(rs.Docs, writ.ApprovalKey(p.Approval))
	return writ.ApprovalKey(p.Approval), nil
}

func taskOf(s writ.Snapshot, a writ.Approval) (writ.Task, bool, error) {
	if a.Task == "" || !s.Has(writ.TaskKey(a.Task)) {
		return writ.Task{}, false, nil
	}
	t, _, ok, err := writ.Get[writ.Task](s, writ.TaskKey(a.Task))
	return t, ok, err
}

// exclude lists everybody who stands behind a request.
func exclude(c *writ.Call, s writ.Snapshot, a writ.Approval) ([]writ.PrincipalID, error) {
	out := append([]writ.PrincipalID{c.Caller.Principal, c.Caller.Controller}, c.Caller.Openers...)
	t, ok, err := taskOf(s, a)
	if err != nil {
		return nil, err
	}
	if ok && t.EnqueuedBy != "" {
		ses, _, found, err := writ.Get[writ.Session](s, writ.SessionKey(t.EnqueuedBy))
		if err != nil {
			return nil, err
		}
		if found {
			out = append(append(out, ses.Principal, ses.AnsweredBy()), ses.Openers...)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(p writ.PrincipalID) bool { return p == "" }), nil
}

// Settle is guard.Approver's: see there.
func (r Room) Settle(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject, d writ.Decision, holds func(writ.Vote) bool) (tx writ.Tx, reply writ.Reply, met bool, err error) {
	a, asks, err := request(c, k, s, sub, d)
	if err != nil {
		return tx, reply, false, err
	}
	var superseded *writ.Approval
	for i, ask := range asks {
		old, ok, err := last(s, ask.Request())
		if err != nil {
			return tx, reply, false, err
		}
		if !ok {
			continue // nothing that still counts: ask
		}
		switch {
		case old.State == writ.ApprovalApproved && covers(old, d.Needs) && counted(old, holds).MeetsAll(d.Needs) && lasts(old, d.Needs, s.Now) &&
			(i == 0 && old.Scope == ask.Scope && old.Uses < usable(d.Needs) || old.Remembered == ask.Scope && old.Uses < rememberable(d.Needs)):
			behind, err := exclude(c, s, a)
			if err != nil {
				return tx, reply, false, err
			}
			if decidedBy(old, c.Caller) || decidedFor(old, c.Caller, behind) {
				if i > 0 || old.Remembered != "" { // remembered for others: somebody else is asked about this call
					continue
				}
				return tx, reply, false, conflictOfInterest("approvals.Use")
			}
			return tx, reply, true, r.use(c, s, &tx, old)
		case i > 0: // a wider approval that does not count; the narrow one decides
		case old.Refuses(s.Now) && covers(old, d.Needs):
			return tx, reply, false, denied(old, d)
		case old.State == writ.ApprovalPending && covers(old, d.Needs):
			return tx, waiting(old), false, nil
		case old.State == writ.ApprovalApproved && old.Remembered != "": // holds on for the calls it was remembered for
		case old.State == writ.ApprovalPending || old.State == writ.ApprovalApproved:
			superseded = &old
		}
	}
	inItsPlace := superseded != nil && superseded.State == writ.ApprovalPending && superseded.Requester.Principal == a.Requester.Principal
	if s.Counters[writ.ApprovalsAsked(a.Requester.Principal)] >= writ.MaxApprovalsAsked && !inItsPlace {
		e := writ.Refuse(writ.CodeApprovalRequired, "approvals.Ask", "as many of your calls wait for people as may at a time", "wait until some are decided").
			With("reason", "too_many_pending")
		e.RetryMs = 60_000
		return tx, reply, false, e
	}
	if a.Excluded, err = exclude(c, s, a); err != nil {
		return tx, reply, false, err
	}
	if superseded != nil { // before the new one, whose place in the count it gives up
		from := superseded.State
		superseded.State, superseded.Successor = writ.ApprovalSuperseded, a.ID
		if err = r.put(c, s, &tx, superseded, from); err != nil {
			return tx, reply, false, err
		}
		if from == writ.ApprovalPending {
			if err = r.wake(c, s, *superseded, &tx); err != nil {
				return tx, reply, false, err
			}
		}
	}
	if sub.Duty == nil { // a verdict that must be agreed to is no part in what it judges
		if err = partOf(c, s, a, writ.PartRequested, &tx); err != nil {
			return tx, reply, false, err
		}
	}
	if err = r.open(c, s, &tx, &a); err != nil {
		return tx, reply, false, err
	}
	return tx, waiting(a), false, r.wait(c, s, a, &tx)
}

// partReads names what partOf must see.
func partReads(c *writ.Call, s writ.Snapshot, a writ.Approval, rs *writ.ReadSet) error {
	if a.Run == "" {
		return nil
	}
	rs.Docs = append(rs.Docs, writ.RunKey(a.Run))
	if c.Caller.Agent != "" {
		rs.Docs = append(rs.Docs, writ.AgentKey(c.Caller.Agent))
	}
	run, ok, err := runOf(s, a)
	if err == nil && ok {
		rs.Ranges = append(rs.Ranges, writ.PartSeen(c.Caller, run.Tree()))
	}
	return err
}

// partOf notes that who asks for something in a run, or says how it is to be done, had a
// part in it, and so does not judge it.
func partOf(c *writ.Call, s writ.Snapshot, a writ.Approval, part writ.Part, tx *writ.Tx) error {
	run, ok, err := runOf(s, a)
	if err != nil || !ok {
		return err
	}
	var keys []writ.PublicKey
	if key := writ.AgentKey(c.Caller.Agent); c.Caller.Agent != "" && s.Has(key) {
		agent, _, _, err := writ.Get[writ.Agent](s, key)
		if err != nil {
			return err
		}
		keys = agent.Keys
	}
	tx.TakePart(s, run.Tree(), part, c.Caller, keys)
	return nil
}

// runOf is the run an approval is about, as far as read.
func runOf(s writ.Snapshot, a writ.Approval) (r writ.Run, ok bool, err error) {
	if a.Run == "" || !s.Has(writ.RunKey(a.Run)) {
		return r, false, nil
	}
	r, _, ok, err = writ.Get[writ.Run](s, writ.RunKey(a.Run))
	return r, ok, err
}

// open writes a new approval, as the one its request led to last.
func (r Room) open(c *writ.Call, s writ.Snapshot, tx *writ.Tx, a *writ.Approval) error {
	if err := r.put(c, s, tx, a, ""); err != nil {
		return err
	}
	tx.Index(writ.IndexApprovals, string(a.ID), 0)
	tx.Index(writ.IndexExpiries, string(a.ID), a.ExpiresAt)
	return tx.PutDoc(s, writ.AskKey(a.Request), "ask", pointer{a.ID})
}

// usable is how often an approval may be used as policy says now.
func usable(needs []writ.Need) int64 {
	most := int64(writ.MaxApprovalUses)
	for _, n := range needs {
		most = min(most, n.MaxUses)
	}
	return most
}

// lasts says whether an approval holds for as long as policy says now, from when
// the caller asked.
func lasts(a writ.Approval, needs []writ.Need, now int64) bool {
	return !slices.ContainsFunc(needs, func(n writ.Need) bool { return now >= a.Asked()+n.ExpiresS*1000 })
}

// rememberable is how often an approval may be used for more than one call.
func rememberable(needs []writ.Need) int64 {
	most := int64(writ.MaxApprovalUses)
	for _, n := range needs {
		most = min(most, n.Remember)
	}
	return most
}

// last is the approval a request led to last, if it still counts for or against
// the call.
func last(s writ.Snapshot, request string) (a writ.Approval, ok bool, err error) {
	p, _, ok, err := writ.Get[pointer](s, writ.AskKey(request))
	if err != nil || !ok {
		return a, false, err
	}
	a, _, ok, err = writ.Get[writ.Approval](s, writ.ApprovalKey(p.Approval))
	return a, ok && (!a.Dead(s.Now) || a.Refuses(s.Now)), err
}

// covers says whether an approval was asked for every need there is now, and
// for no fewer people or others than those who may decide it now. An answer is one
// to its question. A yes to more budget is used by the grant, which came with it:
// a call that still does not fit needs another.
func covers(a writ.Approval, needs []writ.Need) bool {
	return !slices.ContainsFunc(needs, func(n writ.Need) bool {
		asked, ok := a.Need(n.Rule)
		granted := n.Kind == writ.ApproveBudgetExtension && a.State == writ.ApprovalApproved
		return !ok || granted || asked.Kind != n.Kind || asked.Approvers < n.Approvers || asked.Dimension != n.Dimension || asked.Add < n.Add ||
			!sameSchema(asked.Schema, n.Schema) ||
			slices.ContainsFunc(asked.Roles, func(r writ.Role) bool { return !slices.Contains(n.Roles, r) })
	})
}

// sameSchema says whether two answers must have the same form: any, if there is no
// schema. What was stored may be spelt otherwise.
func sameSchema(a, b writ.RawObject) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	same, err := alike(a, b)
	return err == nil && same
}

// decidedBy says whether the caller, or the person answerable for it, voted.
func decidedBy(a writ.Approval, c writ.Caller) bool {
	return slices.ContainsFunc(a.Votes, func(v writ.Vote) bool {
		return v.Principal == c.Principal || v.Controller == c.Controller || v.Controller == c.Principal || v.Principal == c.Controller
	})
}

// decidedFor says whether somebody who stands behind the present call agreed to
// it: the one who uses an approval need not be the one who asked.
func decidedFor(a writ.Approval, c writ.Caller, behind []writ.PrincipalID) bool {
	return slices.ContainsFunc(a.Votes, func(v writ.Vote) bool {
		return v.Approve && (slices.Contains(behind, v.Principal) || slices.Contains(behind, v.Controller) || slices.Contains(v.Openers, c.Principal))
	})
}

// use records one use. The approval's version is guarded, so two calls cannot
// use it at once, and its end is.
func (r Room) use(c *writ.Call, s writ.Snapshot, tx *writ.Tx, a writ.Approval) error {
	from := a.State
	if a.Uses++; a.Uses >= a.MaxUses {
		a.State = writ.ApprovalConsumed
	}
	tx.NotAfter(a.ExpiresAt - 1)
	for _, v := range a.Authors {
		if a.Capability != "run.create" || a.Run != "" {
			break // they had a part in the run when they said how
		}
		tx.TakePart(s, writ.RunID(c.NewID(writ.PrefixRun, 0)), writ.PartExecuted, writ.Caller{Session: v.Session, Principal: v.Principal, Controller: v.Controller, Openers: v.Openers}, nil)
	}
	return r.put(c, s, tx, &a, from)
}

// denied refuses a call a person has said no to, or yes only to another.
func denied(a writ.Approval, d writ.Decision) error {
	e := writ.Refuse(writ.CodeApprovalDenied, "approvals.Use", "a person has denied this call", "do something else; the same call can be asked for again after expires_at")
	if a.Replaced() {
		e.Msg = "a person agreed to this call only with other arguments"
		e.Hint = "read args of the successor with approval.get and make that call, with an Idempotency-Key of its own; this one can be asked for again after expires_at"
		e = e.With("successor", string(a.Successor))
	}
	e = e.With("approval", string(a.ID)).With("expires_at", writ.FormatTime(a.ExpiresAt))
	e.Rules = d.Rules()
	return e
}

func conflictOfInterest(op string) *writ.Error {
	return writ.Refuse(writ.CodeSoD, op, "nobody decides what they stand behind or already decided", "another person with the role must do it")
}

func waiting(a writ.Approval) writ.Reply {
	p := writ.Pending{
		Status: "approval_required", Approval: a.ID, Kind: a.Needs[0].Kind, Scope: a.Scope, Roles: a.Needs[0].Roles,
		ExpiresAt: writ.FormatTime(a.ExpiresAt), Receipt: a.Receipt,
		Hint: "repeat the same call, with the same Idempotency-Key, once approval.get says approved",
	}
	for _, n := range a.Needs {
		p.Rules = append(p.Rules, n.Rule)
		p.Approvers = cmp.Or(max(p.Approvers, n.Approvers), 1)
	}
	return writ.Reply{Outcome: writ.OutcomePending, Body: p}
}
