package bundles_test

import (
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/bundles"
)

// say puts in place what capabilities said about operators.
func (l *lab) say(rows ...writ.Binding) string {
	l.Seed(writ.BindingsKey(writ.RoleOperator), "bindings", writ.Bindings{Role: writ.RoleOperator, Rows: rows})
	set, err := writ.BindingsIn(l.Snapshot(writ.ReadSet{Docs: writ.BindingsKeys()}))
	if err != nil {
		l.Fatal(err)
	}
	return set.Digest("default")
}

// Bindings by capability stay on top of whatever bundle becomes active: the gate
// names both, forwards, back and at the start.
func TestBindingsStayOnTop(t *testing.T) {
	l := newLab(t)
	l.adopt("one: rules", "r-1", false)
	l.beat("r-1")
	if got := l.gate().BindingsRevision; got != "bindings of one:" {
		t.Errorf("without bindings by capability: %s", got)
	}
	over := l.say(writ.Binding{Principal: "alice", By: "olga"})
	in := func(file string) string { return writ.BindingsRevision("bindings of "+file, over) }
	two := l.stage("two: rules")
	l.report(two, "r-1", "")
	l.must(l.op, "policy.activate", activate(two, false))
	if g := l.gate(); g.BindingsRevision != in("two:") {
		t.Errorf("activated: %+v", g)
	}
	if v := l.find(two); v.Bindings != "bindings of two:" {
		t.Errorf("the bundle's own revision is %s", v.Bindings)
	}
	l.report("sha256:"+string(mustBundle(l, "one: rules")), "r-1", "")
	l.must(l.op, "policy.rollback", &bundles.PolicyRollbackArgs{})
	if g := l.gate(); g.BindingsRevision != in("one:") {
		t.Errorf("rolled back: %+v", g)
	}
	before := l.gate()
	l.adopt("one: rules", "r-1", false)
	if g := l.gate(); g != before {
		t.Errorf("adopting what is in force changed the gate to %+v", g)
	}
	l.adopt("six: rules", "r-1", true)
	if g := l.gate(); g.BindingsRevision != in("six:") {
		t.Errorf("adopted: %+v", g)
	}
}

// What was in force once is kept for good, for receipts name its packs: however often it is staged again, taken back and refused.
func TestWhatWasInForceIsKept(t *testing.T) {
	l := newLab(t)
	l.adopt("one: rules", "r-1", false)
	l.beat("r-1")
	one := l.gate().Bundle.Digest()
	two := l.stage("two: rules")
	l.report(two, "r-1", "")
	l.must(l.op, "policy.activate", activate(two, false))
	for _, end := range []func(){
		func() { l.must(l.op, "policy.withdraw", &bundles.PolicyWithdrawArgs{Digest: one}) },
		func() { l.report(one, "r-1", "it does not compile any more") },
		func() { l.must(l.op, "policy.withdraw", &bundles.PolicyWithdrawArgs{Digest: one}) },
	} {
		l.stage("one: rules")
		end()
		v := l.find(one)
		if l.chunks(one) == 0 || len(v.Waiting)+len(v.Ready) != 0 {
			t.Errorf("%s: %d pieces, and replicas are waited for: %+v", v.State, l.chunks(one), v)
		}
		l.refused(writ.CodeIllegal, l.op, "policy.activate", activate(one, true))
		l.report(one, "r-1", "")
		if len(l.find(one).Ready) != 0 {
			t.Errorf("%s, and a replica is ready for it", v.State)
		}
	}
	three := l.stage("tre: rules")
	l.must(l.op, "policy.withdraw", &bundles.PolicyWithdrawArgs{Digest: three})
	if l.chunks(three) != 0 {
		t.Error("what was never in force is kept")
	}
}

func mustBundle(l *lab, text string) writ.BundleID {
	c, err := open([]byte(text), nil, false)
	if err != nil {
		l.Fatal(err)
	}
	return c.ID
}

// A bundle whose roles name operators that were all unbound by capability does not
// become active, in no way there is.
func TestNoBundleWithoutAnOperator(t *testing.T) {
	l := newLab(t)
	l.adopt("open: rules", "r-1", false)
	l.beat("r-1")
	two := l.stage("two: rules") // binds olga only
	l.report(two, "r-1", "")
	l.say(writ.Binding{Principal: "olga", Removed: true, By: "eve"})
	before := l.gate()
	e := l.refused(writ.CodeIllegal, l.op, "policy.activate", activate(two, true))
	if !strings.Contains(e.Hint, "role.bind") {
		t.Errorf("got %+v", e)
	}
	l.refused(writ.CodeIllegal, l.sys, "policy.adopt", &bundles.PolicyAdoptArgs{Bundle: upload("two: rules"), Replica: "r-1", ReceiptKey: "key", Force: true})
	if g := l.gate(); g != before {
		t.Errorf("the gate changed to %+v", g)
	}
	l.say(writ.Binding{Principal: "olga", Removed: true, By: "eve"}, writ.Binding{Principal: "alice", By: "eve"})
	l.must(l.op, "policy.activate", activate(two, false))
}
