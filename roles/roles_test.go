package roles_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/roles"
	"github.com/writ-gateway/writ/writtest"
)

// lab is a shard with the room on it; file is whom the bundle's roles bind.
type lab struct {
	*writtest.World
	t     fataler
	file  writ.BindingSet
	held  writ.BindingSet // what the room said it would put in force
	gone  bool            // the replica does not hold the bundle
	verbs map[writ.CapabilityID]*writ.Capability
	op    writ.Caller
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

func bind(p writ.PrincipalID, r writ.Role) writ.Bind { return writ.Bind{Principal: p, Role: r} }

func newLab(t fataler, file ...writ.Bind) *lab {
	l := &lab{World: writtest.New(), t: t, file: writ.BindingSet{}, verbs: map[writ.CapabilityID]*writ.Capability{}}
	for _, b := range file {
		l.file[b] = true
	}
	room := roles.New(roles.Config{
		File: func(id writ.BundleID, tenant writ.Tenant) (roles.File, bool) {
			return l.inFile(), !l.gone && id == "b" && tenant == "default"
		},
		Hold: func(tenant writ.Tenant, set writ.BindingSet) {
			if tenant == "default" {
				l.held = set
			}
		},
		Public: func(c writ.CapabilityID) bool { return c != "task.expire" },
	})
	for _, k := range room.Capabilities() {
		l.verbs[k.ID] = k
	}
	l.op = writ.Caller{Tenant: "default", Principal: "olga", Kind: writ.KindHuman, Role: writ.RoleOperator, Controller: "olga"}
	l.Seed(writ.GateKey, writ.ObjectGate, writ.Gate{State: writ.GateOpen, Bundle: "b", PolicyRevision: "p", BindingsRevision: "file", ReceiptKeyID: "k", Schema: 1})
	return l
}

func (l *lab) inFile() roles.File {
	f := roles.File{Revision: "file", Grants: func(r writ.Role) []roles.Granted {
		row := func(n int) *roles.Row { return &roles.Row{Line: n, Text: "p, role:" + string(r)} }
		return []roles.Granted{
			{Capability: "run.get", Allowed: true, By: row(1)},
			{Capability: "task.claim", By: row(2), Denied: row(3)},
			{Capability: "task.expire", Allowed: true, By: row(4)},
		}
	}}
	keys := slices.SortedFunc(maps.Keys(l.file), func(a, b writ.Bind) int {
		return strings.Compare(string(a.Role)+" "+string(a.Principal), string(b.Role)+" "+string(b.Principal))
	})
	for i, b := range keys {
		f.Bound = append(f.Bound, roles.FileBinding{Bind: b, Row: roles.Row{Line: 10 + i, Text: "g, principal:" + string(b.Principal)}})
	}
	return f
}

func (l *lab) over() writ.BindingSet {
	l.t.Helper()
	set, err := writ.BindingsIn(l.Snapshot(writ.ReadSet{Docs: writ.BindingsKeys()}))
	if err != nil {
		l.t.Fatalf("%v", err)
	}
	return set
}

func (l *lab) bound(p writ.PrincipalID, r writ.Role) bool { return writ.Bound(l.file, l.over(), p, r) }

func (l *lab) gate() writ.Gate {
	l.t.Helper()
	g, _, _, err := writ.Get[writ.Gate](l.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.GateKey}}), writ.GateKey)
	if err != nil {
		l.t.Fatalf("%v", err)
	}
	return g
}

func args(b writ.Bind, to bool) (writ.CapabilityID, any) {
	if to {
		return "role.bind", &roles.RoleBindArgs{Principal: b.Principal, Role: b.Role}
	}
	return "role.unbind", &roles.RoleUnbindArgs{Principal: b.Principal, Role: b.Role}
}

// say binds or unbinds.
func (l *lab) say(by writ.Caller, b writ.Bind, to bool) (out roles.RoleChanged, err error) {
	l.t.Helper()
	id, a := args(b, to)
	reply, _, err := l.Call(l.verbs[id], by, a)
	if err == nil {
		err = json.Unmarshal(reply.JSON, &out)
	}
	return out, err
}

func (l *lab) must(b writ.Bind, to bool) roles.RoleChanged {
	l.t.Helper()
	out, err := l.say(l.op, b, to)
	if err != nil {
		l.t.Fatalf("%v %t: %v", b, to, err)
	}
	return out
}

func (l *lab) refused(want writ.Code, by writ.Caller, b writ.Bind, to bool) *writ.Error {
	l.t.Helper()
	before := l.gate()
	_, err := l.say(by, b, to)
	e := writ.AsError("", err)
	if e == nil || e.Code != want || e.Hint == "" {
		l.t.Fatalf("%v %t: want %s and what to do, got %v", b, to, want, err)
	}
	if l.gate() != before {
		l.t.Errorf("%v %t: refused, and the gate changed", b, to)
	}
	return e
}

// The shipped file in small.
func shipped() []writ.Bind {
	return []writ.Bind{bind("operator", writ.RoleOperator), bind("*", writ.RoleOperator), bind("*", writ.RoleApprover), bind("*", writ.RoleExecutor)}
}

func TestBindAndUnbind(t *testing.T) {
	l := newLab(t, append(shipped(), bind("olga", writ.RoleApprover))...)
	steps := []struct {
		b              writ.Bind
		to             bool
		changed, after bool // after: alice's standing
		rows           int
	}{
		{bind("alice", writ.RoleAuditor), true, true, true, 1},
		{bind("alice", writ.RoleAuditor), true, false, true, 1},
		{bind("alice", writ.RoleAuditor), false, true, false, 0}, // nothing else binds her: nothing to keep
		{bind("alice", writ.RoleAuditor), false, false, false, 0},
		{bind("alice", writ.RoleApprover), false, true, false, 1}, // everybody is bound, but she
		{bind("alice", writ.RoleApprover), false, false, false, 1},
		{bind("*", writ.RoleApprover), true, false, false, 1}, // everybody is bound already
		{bind("alice", writ.RoleApprover), true, true, true, 1},
		{bind("*", writ.RoleApprover), false, true, true, 2}, // who is bound by name stays
		{bind("bob", writ.RoleApprover), false, false, true, 2},
		{bind("*", writ.RoleApprover), true, true, true, 2},
	}
	for i, s := range steps {
		before := l.gate()
		out := l.must(s.b, s.to)
		gate := l.gate()
		doc, _, _, err := writ.Get[writ.Bindings](l.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.BindingsKey(s.b.Role)}}), writ.BindingsKey(s.b.Role))
		if err != nil {
			t.Fatal(err)
		}
		if out.Changed != s.changed || out.Bound != s.to || l.bound("alice", s.b.Role) != s.after || len(doc.Rows) != s.rows {
			t.Errorf("step %d: %+v, alice is bound: %t, rows %+v", i, out, l.bound("alice", s.b.Role), doc.Rows)
		}
		if (gate != before) != s.changed || out.Revision != gate.BindingsRevision || gate.BindingsRevision != writ.BindingsRevision("file", l.over().Digest("default")) {
			t.Errorf("step %d: the gate is %+v, was %+v", i, gate, before)
		}
		if s.changed && (gate.Receipt != out.Receipt || l.held.Digest("default") != l.over().Digest("default") || gate.PolicyRevision != "p" || gate.Bundle != "b") {
			t.Errorf("step %d: %+v, held %v", i, gate, l.held)
		}
	}
	var facts int
	for _, f := range l.Facts {
		if len(f.Changes) != 1 || f.Changes[0] != (writ.Change{Kind: writ.ObjectGate, ID: "gate", From: "open", To: "open"}) {
			t.Errorf("%s moved %v", f.Verb, f.Changes)
		}
		facts++
	}
	if facts != 6 {
		t.Errorf("%d changes left a fact, want 6", facts)
	}
}

// A row of the file that is taken away is taken away; the removal says by whom.
func TestUnbindWhatTheFileBinds(t *testing.T) {
	l := newLab(t, append(shipped(), bind("alice", writ.RoleAuditor))...)
	out := l.must(bind("alice", writ.RoleAuditor), false)
	doc, _, _, err := writ.Get[writ.Bindings](l.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.BindingsKey(writ.RoleAuditor)}}), writ.BindingsKey(writ.RoleAuditor))
	want := writ.Bindings{Role: writ.RoleAuditor, Rows: []writ.Binding{{Principal: "alice", Removed: true, By: "olga", At: l.Now, Receipt: out.Receipt}}}
	if err != nil || !slices.Equal(doc.Rows, want.Rows) || doc.Role != want.Role || l.bound("alice", writ.RoleAuditor) {
		t.Errorf("got %+v, %v", doc, err)
	}
	delete(l.file, bind("alice", writ.RoleAuditor)) // another bundle
	l.file[bind("*", writ.RoleAuditor)] = true
	if l.bound("alice", writ.RoleAuditor) {
		t.Error("another file gave back what was taken")
	}
}

// Nobody helps himself to a role: not by name, not as one of everybody, not
// through a session of another name he answers for.
func TestNobodyBindsHimself(t *testing.T) {
	l := newLab(t, bind("operator", writ.RoleOperator), bind("olga", writ.RoleOperator), bind("olgas-bot", writ.RoleOperator))
	bot := writ.Caller{Tenant: "default", Principal: "olgas-bot", Role: writ.RoleOperator, Controller: "olga"}
	opened := writ.Caller{Tenant: "default", Principal: "operator", Role: writ.RoleOperator, Controller: "operator", Openers: []writ.PrincipalID{"bob", "olga"}}
	for _, tt := range []struct {
		by writ.Caller
		b  writ.Bind
	}{
		{opened, bind("olga", writ.RoleApprover)},
		{opened, bind("bob", writ.RoleOperator)},
		{l.op, bind("olga", writ.RoleApprover)},
		{l.op, bind("*", writ.RoleApprover)},
		{bot, bind("olgas-bot", writ.RoleApprover)},
		{bot, bind("olga", writ.RoleApprover)},
		{bot, bind("*", writ.RoleAuditor)},
	} {
		l.refused(writ.CodeSoD, tt.by, tt.b, true)
	}
	l.must(bind("alice", writ.RoleApprover), true)
	l.must(bind("olga", writ.RoleOperator), true) // what he has is no help
}

// A role given to everybody is given to who opened the session as well: only
// whoever opened the first of all may gain like this, or nobody ever could.
func TestNobodyBindsEverybodyForHimself(t *testing.T) {
	file := []writ.Bind{
		bind("operator", writ.RoleOperator), bind("olga", writ.RoleOperator),
		bind("bob", writ.RoleOperator), bind("bob", writ.RoleApprover),
	}
	bob := writ.Caller{Tenant: "default", Principal: "bob", Role: writ.RoleOperator, Controller: "bob", Openers: []writ.PrincipalID{"olga", "operator"}}
	l := newLab(t, file...)
	// Whoever else is behind the session, and wherever in the list: the principal
	// operator may have opened it in a session that olga opened for it.
	for _, openers := range [][]writ.PrincipalID{{"olga", "operator"}, {"operator", "olga"}, {"olga"}} {
		bob.Openers = openers
		l.refused(writ.CodeSoD, bob, bind("*", writ.RoleApprover), true)
	}
	operator := bob
	operator.Principal, operator.Controller, operator.Openers = "operator", "operator", nil
	l.refused(writ.CodeSoD, operator, bind("*", writ.RoleApprover), true) // who gains by it himself
	bob.Openers = []writ.PrincipalID{"operator"}
	if _, err := l.say(bob, bind("*", writ.RoleApprover), true); err != nil {
		t.Error(err)
	}
}

// However it is tried, an operator can get in afterwards.
func TestNobodyIsLockedOut(t *testing.T) {
	l := newLab(t, bind("olga", writ.RoleOperator))
	if e := l.refused(writ.CodeIllegal, l.op, bind("olga", writ.RoleOperator), false); !strings.Contains(e.Msg, "nobody") {
		t.Errorf("got %v", e)
	}
	l.must(bind("alice", writ.RoleOperator), true)
	if e := l.refused(writ.CodeIllegal, l.op, bind("olga", writ.RoleOperator), false); !strings.Contains(e.Msg, "its caller") {
		t.Errorf("got %v", e)
	}

	// The principal of operator.token never loses the role by capability: not by
	// name, and not with everybody.
	l = newLab(t, bind("olga", writ.RoleOperator), bind("*", writ.RoleOperator))
	for _, p := range []writ.PrincipalID{"operator", "*"} {
		if e := l.refused(writ.CodeIllegal, l.op, bind(p, writ.RoleOperator), false); !strings.Contains(e.Msg, "operator.token") {
			t.Errorf("got %v", e)
		}
	}
	l.must(bind("operator", writ.RoleOperator), true)
	l.refused(writ.CodeIllegal, l.op, bind("operator", writ.RoleOperator), false)
	l.must(bind("*", writ.RoleOperator), false)
	if l.bound("mallory", writ.RoleOperator) || !l.bound("olga", writ.RoleOperator) {
		t.Error("closing a role to everybody leaves those who are named")
	}

	// Who is an operator as one of everybody keeps the role for himself first.
	l = newLab(t, shipped()...)
	if e := l.refused(writ.CodeIllegal, l.op, bind("*", writ.RoleOperator), false); !strings.Contains(e.Hint, "by name first") {
		t.Errorf("got %v", e)
	}
	l.must(bind("olga", writ.RoleOperator), true)
	l.must(bind("*", writ.RoleOperator), false)
}

func TestWhatCannotBeBound(t *testing.T) {
	l := newLab(t, shipped()...)
	for _, b := range []writ.Bind{
		bind("alice", writ.RoleSystem), bind("alice", ""), bind("alice", "root"), bind("", writ.RoleAuditor), bind("a", writ.RoleAuditor),
		bind("role:operator", writ.RoleAuditor), bind("principal:alice", writ.RoleAuditor), bind("al,ice", writ.RoleAuditor), bind("alice\ng", writ.RoleAuditor),
		bind(`"alice"`, writ.RoleAuditor), bind("**", writ.RoleAuditor), bind("a*", writ.RoleAuditor), bind("Alice", writ.RoleAuditor),
		bind(writ.PrincipalID(strings.Repeat("a", 64)), writ.RoleAuditor), bind("alice/operator", writ.RoleAuditor),
	} {
		for _, to := range []bool{true, false} {
			e := l.refused(writ.CodeInputInvalid, l.op, b, to)
			if p := string(b.Principal); len(p) > 3 && strings.Contains(fmt.Sprint(e, e.Hint, e.Fields), p) && p != "alice" {
				t.Errorf("%q is repeated: %v %v", p, e, e.Fields)
			}
		}
	}
	l.gone = true
	if e := l.refused(writ.CodePolicyDown, l.op, bind("alice", writ.RoleAuditor), true); e.RetryMs == 0 {
		t.Errorf("got %+v", e)
	}
}

func TestBindingsAreBounded(t *testing.T) {
	l := newLab(t, shipped()...)
	name := func(i int) writ.PrincipalID { return writ.PrincipalID(fmt.Sprintf("p%d", i)) }
	for i := range writ.MaxBindings {
		l.must(bind(name(i), writ.RoleAuditor), true)
	}
	l.refused(writ.CodeQuota, l.op, bind("alice", writ.RoleAuditor), true)
	l.must(bind("alice", writ.RoleVerifier), true) // another role has room
	l.must(bind(name(7), writ.RoleAuditor), false)
	l.must(bind("alice", writ.RoleAuditor), true)
}

// Two changes that were planned on the same gate: one is committed.
func TestChangesMeetAtTheGate(t *testing.T) {
	l := newLab(t, shipped()...)
	plan := func(b writ.Bind) *writtest.Planned {
		id, a := args(b, true)
		p, err := l.Plan(l.verbs[id], l.NewCall(l.verbs[id], l.op, a))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	one, two := plan(bind("alice", writ.RoleAuditor)), plan(bind("bob", writ.RoleVerifier))
	if _, err := l.Commit(one); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(two); err == nil {
		t.Error("a change of bindings was committed over another one")
	}
}

// Whatever is bound and unbound, by whatever file: what was asked for holds, of
// others nothing changes, an operator can get in, and the gate names it.
func TestAnyChanges(t *testing.T) {
	people := []writ.PrincipalID{"*", "operator", "olga", "alice", "bob"}
	who := rapid.Custom(func(t *rapid.T) writ.Bind {
		return bind(rapid.SampledFrom(people).Draw(t, "principal"), rapid.SampledFrom([]writ.Role{writ.RoleOperator, writ.RoleApprover}).Draw(t, "role"))
	})
	rapid.Check(t, func(t *rapid.T) {
		l := newLab(t, append(rapid.SliceOfN(who, 0, 5).Draw(t, "file"), bind("olga", writ.RoleOperator))...)
		inside := l.bound("operator", writ.RoleOperator)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			b, to := who.Draw(t, "who"), rapid.Bool().Draw(t, "to")
			before := map[writ.Bind]bool{}
			for _, p := range people {
				for _, r := range writ.BindableRoles() {
					before[bind(p, r)] = l.bound(p, r)
				}
			}
			_, err := l.say(l.op, b, to)
			if err != nil && writ.CodeOf(err) != writ.CodeIllegal && writ.CodeOf(err) != writ.CodeSoD {
				t.Fatalf("%v %t: %v", b, to, err)
			}
			if err == nil && l.bound(b.Principal, b.Role) != to {
				t.Fatalf("%v %t did not take effect", b, to)
			}
			over := l.over()
			for k, was := range before {
				_, named := over[k]
				touched := k == b || b.Principal == writ.Everybody && k.Role == b.Role && !named && !l.file[k]
				if now := l.bound(k.Principal, k.Role); now != was && (!touched || err != nil) {
					t.Fatalf("%v %t (%v) changed %v from %t to %t", b, to, err, k, was, now)
				}
			}
			if !l.bound("olga", writ.RoleOperator) || inside && !l.bound("operator", writ.RoleOperator) {
				t.Fatalf("%v %t locked an operator out", b, to)
			}
			if l.bound("olga", writ.RoleApprover) && !before[bind("olga", writ.RoleApprover)] {
				t.Fatalf("%v %t gave its caller a role", b, to)
			}
			inside = l.bound("operator", writ.RoleOperator)
			if got := l.gate().BindingsRevision; got != writ.BindingsRevision("file", over.Digest("default")) {
				t.Fatalf("the gate names %s", got)
			}
		}
	})
}
