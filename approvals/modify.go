package approvals

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"

	"github.com/writ-gateway/writ"
)

// A person may agree to a call with other arguments. What they agree to is
// another call, so it gets an approval of its own, bound to what the caller's
// new call will be bound to; the old one gives its place to it. Nothing is
// carried over but what the request was: whoever agreed to the old arguments
// has not agreed to the new ones. Who says how the call is made has a part in what it does,
// as who does it.

// placeholders stand for transient arguments that a schema requires, while the
// others are held to it. They are kept nowhere.
var placeholders = map[string]any{"lease_id": writ.PrefixLease + "00000000000000000000000000", "fence": 1}

// bound are arguments that say what a request is about, beside what is asked.
// With others it is not the same request any more.
var bound = []string{"run_id", "parent_run_id", "task_id", "capability"}

// verdicts are the calls by which somebody judges.
var verdicts = []writ.CapabilityID{"task.verify", "run.close"}

// modified makes the approval of the same call with other arguments.
func (r Room) modified(op string, c *writ.Call, s writ.Snapshot, old writ.Approval, sent writ.RawObject) (writ.Approval, error) {
	k := r.cfg.Capability(old.Capability)
	decision := func(msg string) (writ.Approval, error) { return writ.Approval{}, invalid(op, "/decision", msg) }
	switch {
	case len(sent) == 0:
		return writ.Approval{}, invalid(op, "/args", "is what modify needs: the arguments you agree to")
	case old.Scope != writ.ScopeCall:
		return decision("modify goes with approvals of scope call only; this one does not hold for certain arguments")
	case slices.ContainsFunc(old.Needs, func(n writ.Need) bool {
		return n.Kind == writ.ApproveBudgetExtension || n.Kind == writ.ApproveHumanAction
	}):
		return decision("modify does not go with more budget, or with a question to a person")
	case k == nil || k.Version != old.Version:
		return decision("modify is not for a capability that has changed since: deny it, and let the call be made anew")
	case !r.cfg.Work(old.Capability):
		// Whom a role is given, which agent or policy is meant: there the arguments
		// are who gains by it, and somebody could turn another's request to himself.
		return decision("modify goes with calls on runs and tasks only (run.*, task.*), whose arguments are what is done and not who gains by it; deny this, and let it be asked anew")
	case len(secrets(k.Args)) > 0:
		return decision("modify is not for calls with secret arguments, which nobody is shown")
	}
	args, err := r.decode(op, k, sent)
	if err != nil {
		return writ.Approval{}, err
	}
	show, digest, err := shown(args)
	if err != nil {
		return writ.Approval{}, err
	}
	if at, err := rebound(old.Args, show); err != nil {
		return writ.Approval{}, err
	} else if at != "" {
		return writ.Approval{}, invalid(op, "/args/"+at, "must stay as it was: it says what the request is about")
	}
	if t, ok, err := taskOf(s, old); err != nil {
		return writ.Approval{}, err
	} else if ok {
		if show, err = withTask(show, t); err != nil {
			return writ.Approval{}, err
		}
	}
	ask := wider(old, writ.ScopeCall)
	ask.Digest = digest
	if same, err := alike(old.Args, show); err != nil {
		return writ.Approval{}, err
	} else if same || ask.Request() == old.Request {
		return writ.Approval{}, invalid(op, "/args", "are those that were asked for: approve it instead")
	}
	var more struct {
		Labels []writ.Label `json:"labels"`
	}
	if err := json.Unmarshal(show, &more); err != nil {
		return writ.Approval{}, writ.Fault(writ.CodeInternal, op, err)
	}
	return writ.Approval{
		Labels: writ.JoinLabels(old.Labels, more.Labels), // at least these: the call is judged again when it is made
		ID:     writ.ApprovalID(c.NewID(writ.PrefixApproval, 0)), State: writ.ApprovalPending, Needs: old.Needs, Scope: old.Scope,
		Capability: old.Capability, Version: old.Version, Subject: old.Subject, Request: ask.Request(), Args: show, Run: old.Run, Task: old.Task,
		Requester: old.Requester, Behind: old.Behind, Excluded: old.Excluded, MaxUses: old.MaxUses, Modified: old.ID, Policy: old.Policy,
		ExpiresAt: old.ExpiresAt, CreatedAt: s.Now, RequestedAt: old.Asked(),
	}, nil
}

// decode holds arguments to the schema of their capability as the door does,
// with placeholders for what every try of the call brings anew. They are read
// with sorted names, so that whoever sends on what they are shown meets the
// same digest.
func (r Room) decode(op string, k *writ.Capability, sent writ.RawObject) (any, error) {
	v, err := exact(sent)
	m, ok := v.(map[string]any)
	if err != nil || !ok {
		return nil, invalid(op, "/args", "is not a JSON object")
	}
	for _, name := range transient {
		if _, ok := m[name]; ok {
			return nil, invalid(op, "/args/"+name, "comes from the caller when the call is made: leave it out")
		}
	}
	for _, name := range fields(k.Args, func(reflect.StructField) bool { return true }) {
		if v, ok := placeholders[name]; ok {
			m[name] = v
		}
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, op, err)
	}
	args, err := r.cfg.Decode(k, raw)
	return args, inArgs(err)
}

// exact reads JSON without rounding its numbers.
func exact(raw []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// alike says whether two objects differ at most in the order of their names.
func alike(a, b writ.RawObject) (bool, error) {
	x, errX := exact(a)
	y, errY := exact(b)
	if err := errors.Join(errX, errY); err != nil {
		return false, writ.Fault(writ.CodeInternal, "approvals.Modify", err)
	}
	return reflect.DeepEqual(x, y), nil
}

// inArgs says of an error about arguments where they stand in a decision.
func inArgs(err error) error {
	e, ok := errors.AsType[*writ.Error](err)
	if !ok {
		return err
	}
	c := *e
	c.Fields, c.Missing = slices.Clone(e.Fields), slices.Clone(e.Missing)
	for i := range c.Fields {
		c.Fields[i].Pointer = "/args" + c.Fields[i].Pointer
	}
	for i := range c.Missing {
		c.Missing[i] = "args/" + c.Missing[i]
	}
	return &c
}

// rebound is the first argument that would make it a request about something
// else.
func rebound(before, after writ.RawObject) (string, error) {
	var was, is map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(before, &was), json.Unmarshal(after, &is)); err != nil {
		return "", writ.Fault(writ.CodeInternal, "approvals.Modify", err)
	}
	for _, name := range bound {
		if !bytes.Equal(was[name], is[name]) {
			return name, nil
		}
	}
	return "", nil
}

// modifyReads adds what the modified call may have led to already. What is
// wrong with the arguments is Plan's to say, once it is clear who decides.
func (r Room) modifyReads(op string, c *writ.Call, s writ.Snapshot, old writ.Approval, sent writ.RawObject, rs *writ.ReadSet) error {
	next, err := r.modified(op, c, s, old, sent)
	if writ.CodeOf(err) == writ.CodeInternal {
		return err
	}
	if err != nil {
		return nil
	}
	rs.Docs = append(rs.Docs, writ.ApprovalKey(next.ID))
	if err := partReads(c, s, old, rs); err != nil {
		return err
	}
	_, err = readLast(rs, s, next.Request)
	return err
}

// modify plans a yes to the call with other arguments: the approval gives its
// place to another, in which the decider's vote is the first.
func (r Room) modify(op string, c *writ.Call, s writ.Snapshot, old writ.Approval, sent writ.RawObject, reason string) (tx writ.Tx, reply writ.Reply, err error) {
	next, err := r.modified(op, c, s, old, sent)
	if err != nil {
		return tx, reply, err
	}
	// Whatever people decide or have decided about that call stands: a no is not
	// turned into a yes like this, and nobody is counted twice.
	if other, ok, err := last(s, next.Request); err != nil {
		return tx, reply, err
	} else if ok {
		return tx, reply, writ.Refuse(writ.CodeExists, op, "there is an approval for the call with these arguments already",
			"look at it with approval.get: what was decided there stands; deny this one if the call must not happen as it was asked for").
			With("approval", string(other.ID)).With("state", string(other.State))
	}
	yes, instead := vote(c, s, reason), vote(c, s, reason)
	yes.Approve, instead.Modify = true, true
	old.Votes = append(slices.Clip(old.Votes), instead)
	old.State, old.Successor = writ.ApprovalSuperseded, next.ID
	tx.NotAfter(old.ExpiresAt - 1)
	if err = r.put(c, s, &tx, &old, writ.ApprovalPending); err != nil { // before the new one, which takes its place in the count
		return tx, reply, err
	}
	if !slices.Contains(verdicts, old.Capability) { // to say how others judge is no part in what they judge
		if err = partOf(c, s, old, writ.PartExecuted, &tx); err != nil {
			return tx, reply, err
		}
	}
	next.Votes, next.Authors = []writ.Vote{yes}, append(slices.Clip(old.Authors), instead)
	if err = r.open(c, s, &tx, &next); err != nil {
		return tx, reply, err
	}
	if r.standing(c, next).MeetsAll(next.Needs) {
		next.State = writ.ApprovalApproved
		if err = r.put(c, s, &tx, &next, writ.ApprovalPending); err == nil {
			err = r.wake(c, s, next, &tx)
		}
	} else {
		err = r.wait(c, s, next, &tx)
	}
	return tx, decided(next, s), err
}
