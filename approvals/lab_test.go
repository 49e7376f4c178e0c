package approvals_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/approvals"
	"github.com/writ-gateway/writ/writtest"
)

// lab is a shard in which one verb needs approval.
type lab struct {
	*testing.T
	*writtest.World
	cfg   approvals.Config
	room  approvals.Room // of that configuration
	verb  *writ.Capability
	open  *writ.Capability     // one whose arguments people are shown all of
	woken []writ.ApprovalState // what the waiting room was told, in order
	waits []writ.ApprovalID    // what it was told to wait for

	unbound []writ.PrincipalID // have lost the roles they had
}

// argsOf are the arguments of one of the lab's verbs.
type argsOf interface {
	call(*lab) (*writ.Capability, any)
}

func (a doArgs) call(l *lab) (*writ.Capability, any)  { return l.verb, &a }
func (a setArgs) call(l *lab) (*writ.Capability, any) { return l.open, &a }

type doArgs struct {
	What  string `json:"what"`
	Lease string `json:"lease_id,omitempty"`
	Fence int64  `json:"fence,omitempty"`
	Key   string `json:"key,omitempty" writ:"secret"`
}

type setArgs struct {
	What  string         `json:"what"`
	Run   writ.RunID     `json:"run_id,omitempty"`
	In    writ.RunID     `json:"parent_run_id,omitempty"`
	More  writ.RawObject `json:"more,omitempty"`
	Lease string         `json:"lease_id"`
	Fence int64          `json:"fence"`
}

// decode is as strict as the door's, as far as these tests go.
func decode(k *writ.Capability, raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	out := reflect.New(k.Args)
	bad := &writ.Error{Code: writ.CodeInputInvalid, Fields: []writ.FieldError{{Pointer: "/what", Msg: "is required"}}, Missing: []string{"what"}}
	if err := d.Decode(out.Interface()); err != nil {
		bad.Code, bad.Fields, bad.Missing = writ.CodeMalformed, []writ.FieldError{{Pointer: "", Msg: "unknown"}}, nil
		return nil, bad
	}
	if a := out.Interface().(*setArgs); a.What == "" || a.Lease == "" || a.Fence < 1 {
		return nil, bad
	}
	return out.Interface(), nil
}

func newLab(t *testing.T) *lab {
	l := &lab{T: t, World: writtest.New()}
	l.cfg = approvals.Config{
		Bound:   l.bound,
		Work:    func(id writ.CapabilityID) bool { return id != "thing.admin" },
		Waiters: []approvals.Waiter{waiter{l}},
		Validate: func(schema, value writ.RawObject) error {
			if string(schema) == string(value) { // the one answer this schema knows
				return nil
			}
			return writ.Refuse(writ.CodeInputInvalid, "test", "no", "")
		},
		Capability: func(id writ.CapabilityID) *writ.Capability {
			return map[writ.CapabilityID]*writ.Capability{l.verb.ID: l.verb, l.open.ID: l.open}[id]
		},
		Decode: decode,
	}
	l.room = approvals.New(l.cfg)
	l.verb = writ.Define[doArgs, doArgs](writ.Capability{ID: "thing.do", Summary: "Do.", Safety: writ.SafetyMutating}, writ.Verb[doArgs]{})
	l.open = writ.Define[setArgs, setArgs](writ.Capability{ID: "thing.set", Summary: "Set.", Safety: writ.SafetyMutating}, writ.Verb[setArgs]{})
	return l
}

func (l *lab) bound(p writ.PrincipalID, _ writ.Role, _ writ.Tenant) bool {
	return !slices.Contains(l.unbound, p)
}

type waiter struct{ l *lab }

func (waiter) Reads(writ.Approval, writ.Snapshot) (writ.ReadSet, error) { return writ.ReadSet{}, nil }

func (w waiter) Wait(_ *writ.Call, _ writ.Snapshot, a writ.Approval, _ *writ.Tx) error {
	w.l.waits = append(w.l.waits, a.ID)
	return nil
}

func (w waiter) Wake(_ *writ.Call, _ writ.Snapshot, a writ.Approval, _ *writ.Tx) error {
	w.l.woken = append(w.l.woken, a.State)
	return nil
}

func need(patch func(*writ.Need)) writ.Need {
	n := writ.Need{
		Rule: "approvals.manual", Kind: writ.ApproveEffect, Scope: writ.ScopeCall, Approvers: 1,
		Roles: []writ.Role{writ.RoleApprover}, ExpiresS: 3600, MaxUses: 1,
	}
	if patch != nil {
		patch(&n)
	}
	return n
}

// settled is what became of one call that needs approval.
type settled struct {
	met     bool
	pending writ.Pending
	tx      writ.Tx
}

// settle plans what the door would: nothing is committed.
func (l *lab) settle(by writ.Caller, args argsOf, sub writ.Subject, needs ...writ.Need) (settled, error) {
	l.Helper()
	verb, decoded := args.call(l)
	call := l.NewCall(verb, by, decoded)
	d := writ.Decision{Effect: writ.EffectRequireApproval, Needs: needs, PolicyRevision: "sha256:aa"}
	first := writ.ReadSet{Docs: []writ.Key{writ.QuotasKey}} // as the door has by then
	if sub.Task != nil {
		first.Docs = append(first.Docs, writ.TaskKey(sub.Task.ID))
	}
	s := l.Snapshot(first)
	for hop := 0; ; hop++ {
		want, err := l.room.Reads(call, verb, s, sub, d)
		if err != nil {
			return settled{}, err
		}
		want = s.Missing(want)
		if want.Empty() {
			break
		}
		if hop == writtest.Hops {
			l.Fatal("reads never end")
		}
		more := l.Snapshot(want)
		maps.Copy(s.Docs, more.Docs)
		maps.Copy(s.Counters, more.Counters)
		maps.Copy(s.Ranges, more.Ranges)
	}
	tx, reply, met, err := l.room.Settle(call, verb, s, sub, d, func(v writ.Vote) bool { return l.bound(v.Principal, v.Role, "") })
	if err != nil {
		return settled{}, err
	}
	out := settled{met: met, tx: tx}
	if !met {
		out.pending = reply.Body.(writ.Pending)
		if reply.Outcome != writ.OutcomePending {
			l.Errorf("outcome %q", reply.Outcome)
		}
	}
	for _, c := range tx.Changes {
		if !writ.LegalMove(c.Kind, c.From, c.To) {
			l.Errorf("%s %q → %q is not legal", c.Kind, c.From, c.To)
		}
	}
	if !tx.Empty() {
		out.tx.Call = call.ID
		out.tx.Fact = &writ.Fact{ID: writ.ReceiptID(call.NewID(writ.PrefixReceipt, 0))}
		out.tx.GuardSnapshot(s)
	}
	return out, nil
}

// do is settle and commit.
func (l *lab) do(by writ.Caller, args argsOf, needs ...writ.Need) (settled, error) {
	l.Helper()
	return l.about(by, args, writ.Subject{}, needs...)
}

func (l *lab) about(by writ.Caller, args argsOf, sub writ.Subject, needs ...writ.Need) (settled, error) {
	l.Helper()
	out, err := l.settle(by, args, sub, needs...)
	if err == nil && !out.tx.Empty() {
		err = l.Apply(out.tx)
	}
	return out, err
}

// asked makes a call that is not met and returns its approval.
func (l *lab) asked(by writ.Caller, args argsOf, needs ...writ.Need) writ.ApprovalID {
	l.Helper()
	out, err := l.do(by, args, needs...)
	if err != nil {
		l.Fatal(err)
	}
	if out.met {
		l.Fatal("met without anybody's approval")
	}
	return out.pending.Approval
}

// happens makes a call that must be met.
func (l *lab) happens(by writ.Caller, args argsOf, needs ...writ.Need) {
	l.Helper()
	out, err := l.do(by, args, needs...)
	if err != nil || !out.met {
		l.Fatalf("met %v, error %v", out.met, err)
	}
}

func (l *lab) capability(id writ.CapabilityID) *writ.Capability {
	for _, k := range l.room.Capabilities() {
		if k.ID == id {
			return k
		}
	}
	l.Fatalf("no capability %s", id)
	return nil
}

func (l *lab) decide(by writ.Caller, id writ.ApprovalID, decision string) error {
	_, _, err := l.Call(l.capability("approval.decide"), by, &approvals.ApprovalDecideArgs{Approval: id, Decision: decision})
	return err
}

func (l *lab) approves(by writ.Caller, id writ.ApprovalID) {
	l.Helper()
	if err := l.decide(by, id, "approve"); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) state(id writ.ApprovalID) writ.ApprovalState {
	l.Helper()
	a, _, ok := writtest.Get[writ.Approval](l.World, writ.ApprovalKey(id))
	if !ok {
		l.Fatalf("no approval %s", id)
	}
	return a.State
}

func (l *lab) wants(id writ.ApprovalID, want writ.ApprovalState) {
	l.Helper()
	if got := l.state(id); got != want {
		l.Errorf("%s is %s, want %s", id, got, want)
	}
	for _, s := range []writ.ApprovalState{
		writ.ApprovalPending, writ.ApprovalApproved, writ.ApprovalConsumed, writ.ApprovalDenied, writ.ApprovalExpired, writ.ApprovalSuperseded, writ.ApprovalRevoked,
	} {
		if _, listed := l.Index(writ.ApprovalsIn(s))[string(id)]; listed != (s == want) {
			l.Errorf("%s is %s: listed as %s: %v", id, want, s, listed)
		}
	}
	if _, due := l.Index(writ.IndexExpiries)[string(id)]; due == writ.ApprovalMoves.Terminal(want) {
		l.Errorf("%s is %s: in the list of expiries: %v", id, want, due)
	}
}

func refusedWith(t *testing.T, err error, want writ.Code) {
	t.Helper()
	if got := writ.CodeOf(err); got != want {
		t.Errorf("refused with %q (%v), want %q", got, err, want)
	}
}

// people are callers with what the door would know of their sessions.
func (l *lab) planner() writ.Caller {
	c := l.Open(writ.RoleOrchestrator, "planner", "")
	c.Kind, c.Controller, c.Openers = writ.KindService, "root", []writ.PrincipalID{"root"}
	return c
}

func (l *lab) approver(name writ.PrincipalID) writ.Caller {
	c := l.Open(writ.RoleApprover, name, "")
	c.Controller, c.Openers = name, []writ.PrincipalID{"root"}
	return c
}

func isConflict(err error) bool {
	_, ok := errors.AsType[*writtest.Conflict](err)
	return ok
}

// askedForATask has the planner ask people about a call for a task, for whoever
// makes it.
func (l *lab) askedForATask() (writ.Subject, writ.Need, writ.ApprovalID) {
	l.Helper()
	task := writ.Task{ID: writ.TaskID(l.NewID(writ.PrefixTask)), Capability: "site.build", State: writ.TaskQueued}
	l.Seed(writ.TaskKey(task.ID), writ.ObjectTask, task)
	sub := writ.Subject{Task: &writ.TaskFacts{ID: task.ID, Capability: task.Capability}}
	n := need(func(n *writ.Need) { n.Scope = writ.ScopeTask })
	out, err := l.about(l.planner(), doArgs{What: "a"}, sub, n)
	if err != nil {
		l.Fatal(err)
	}
	return sub, n, out.pending.Approval
}
