package approvals_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/approvals"
	"github.com/writ-gateway/writ/writtest"
)

// modifies agrees to an approval's call with other arguments.
func (l *lab) modifies(by writ.Caller, id writ.ApprovalID, args string) (approvals.ApprovalView, error) {
	l.Helper()
	reply, _, err := l.Call(l.capability("approval.decide"), by, &approvals.ApprovalDecideArgs{
		Approval: id, Decision: "modify", Args: writ.RawObject(args), Reason: "smaller",
	})
	if err != nil {
		return approvals.ApprovalView{}, err
	}
	v, err := writtest.Body[approvals.ApprovalView](reply)
	if err != nil {
		l.Fatal(err)
	}
	return v, nil
}

// instead is modifies when it must work; it returns the successor.
func (l *lab) instead(by writ.Caller, id writ.ApprovalID, args string) writ.ApprovalID {
	l.Helper()
	v, err := l.modifies(by, id, args)
	if err != nil {
		l.Fatal(err)
	}
	if v.ID == id || v.Modified != id {
		l.Fatalf("modified %s into %s, from %q", id, v.ID, v.Modified)
	}
	return v.ID
}

func (l *lab) approval(id writ.ApprovalID) writ.Approval {
	l.Helper()
	a, _, ok := writtest.Get[writ.Approval](l.World, writ.ApprovalKey(id))
	if !ok {
		l.Fatalf("no approval %s", id)
	}
	return a
}

func at(t *testing.T, err error, code writ.Code, pointer string) {
	t.Helper()
	refusedWith(t, err, code)
	if e := writ.AsError("test", err); !slices.ContainsFunc(e.Fields, func(f writ.FieldError) bool { return f.Pointer == pointer }) {
		t.Errorf("the error is about %v, want %s", e.Fields, pointer)
	}
}

var leased = func(what string) setArgs { return setArgs{What: what, Lease: "lse_2", Fence: 9} }

// The other call happens once; the first one does not, and its caller is told
// where to look.
func TestAYesWithOtherArguments(t *testing.T) {
	l := newLab(t)
	planner, alice := l.planner(), l.approver("alice")
	id := l.asked(planner, leased("all"), need(nil))
	l.woken, l.waits = nil, nil
	next := l.instead(alice, id, `{"what":"one"}`)
	l.wants(id, writ.ApprovalSuperseded)
	l.wants(next, writ.ApprovalApproved)
	if !slices.Equal(l.woken, []writ.ApprovalState{writ.ApprovalApproved}) || len(l.waits) != 0 {
		t.Errorf("who waits was told %v, and to wait for %v", l.woken, l.waits)
	}
	old, now := l.approval(id), l.approval(next)
	if old.Successor != next || len(old.Votes) != 1 || !old.Votes[0].Modify || old.Votes[0].Approve {
		t.Errorf("the first: superseded by %q, votes %+v", old.Successor, old.Votes)
	}
	if string(now.Args) != `{"what":"one"}` {
		t.Errorf("people are shown %s", now.Args)
	}
	if now.ExpiresAt != old.ExpiresAt || now.Requester != old.Requester || !slices.Equal(now.Excluded, old.Excluded) || len(now.Votes) != 1 {
		t.Errorf("the successor: %+v", now)
	}
	if n := l.Counter(writ.ApprovalsAsked("planner")); n != 0 {
		t.Errorf("%d requests are open", n)
	}
	for range 2 { // before and after the other call
		_, err := l.do(planner, leased("all"), need(nil))
		refusedWith(t, err, writ.CodeApprovalDenied)
		if d := writ.AsError("test", err).Details; d["successor"] != string(next) || d["approval"] != string(id) {
			t.Errorf("details %v", d)
		}
		if l.state(next) == writ.ApprovalApproved {
			l.happens(planner, leased("one"), need(nil))
			l.wants(next, writ.ApprovalConsumed)
		}
	}
	if again := l.asked(planner, leased("one"), need(nil)); again == next {
		t.Error("used twice")
	}
	l.Advance(3600)
	if again := l.asked(planner, leased("all"), need(nil)); again == id {
		t.Error("asked again under the old id")
	}
}

// Who agreed to the old arguments has not agreed to the new ones, and nobody
// counts twice.
func TestFourEyesOnOtherArguments(t *testing.T) {
	l := newLab(t)
	planner, alice, bob := l.planner(), l.approver("alice"), l.approver("bob")
	two := need(func(n *writ.Need) { n.Approvers = 2 })
	id := l.asked(planner, leased("all"), two)
	l.approves(alice, id)
	_, err := l.modifies(alice, id, `{"what":"one"}`)
	refusedWith(t, err, writ.CodeSoD) // she has decided
	l.waits = nil
	next := l.instead(bob, id, `{"what":"one"}`)
	l.wants(next, writ.ApprovalPending)
	if !slices.Equal(l.waits, []writ.ApprovalID{next}) || len(l.woken) != 0 {
		t.Errorf("who waits was told %v, and to wait for %v", l.woken, l.waits)
	}
	if n := l.Counter(writ.ApprovalsAsked("planner")); n != 1 {
		t.Errorf("%d requests are open, want the successor", n)
	}
	if out, err := l.do(planner, leased("one"), two); err != nil || out.met || out.pending.Approval != next {
		t.Errorf("one of two: met %v, %v", out.met, err)
	}
	refusedWith(t, l.decide(bob, next, "approve"), writ.CodeSoD)
	second := l.approver("bob-2")
	second.Controller = "bob"
	refusedWith(t, l.decide(second, next, "approve"), writ.CodeSoD)
	refusedWith(t, l.decide(l.approver("root"), next, "approve"), writ.CodeSoD)    // stands behind it
	refusedWith(t, l.decide(l.approver("planner"), next, "approve"), writ.CodeSoD) // asked for it
	l.approves(alice, next)
	l.wants(next, writ.ApprovalApproved)
	l.happens(planner, leased("one"), two)
	_, err = l.do(planner, leased("all"), two)
	refusedWith(t, err, writ.CodeApprovalDenied)
}

// Arguments can change more than once, and a no to the last of them is a no.
func TestChainsOfOtherArguments(t *testing.T) {
	l := newLab(t)
	planner, alice, bob := l.planner(), l.approver("alice"), l.approver("bob")
	two := need(func(n *writ.Need) { n.Approvers = 2 })
	a := l.asked(planner, leased("a"), two)
	b := l.instead(alice, a, `{"what":"b"}`)
	_, err := l.modifies(bob, b, `{"what":"a"}`) // what alice did not agree to
	refusedWith(t, err, writ.CodeExists)
	c := l.instead(bob, b, `{"what":"c"}`)
	if got := l.approval(c).ExpiresAt; got != l.approval(a).ExpiresAt {
		t.Errorf("its end moved to %d", got)
	}
	if err := l.decide(alice, c, "deny"); err != nil { // her yes to b is none to c, and may be a no
		t.Fatal(err)
	}
	for _, what := range []string{"a", "b", "c"} {
		_, err := l.do(planner, leased(what), two)
		refusedWith(t, err, writ.CodeApprovalDenied)
	}
}

// What people decide or have decided about the other call stands.
func TestTheOtherCallWasAskedForToo(t *testing.T) {
	for name, before := range map[string]func(l *lab, id writ.ApprovalID){
		"pending":  func(*lab, writ.ApprovalID) {},
		"approved": func(l *lab, id writ.ApprovalID) { l.approves(l.approver("bob"), id) },
		"denied": func(l *lab, id writ.ApprovalID) {
			if err := l.decide(l.approver("bob"), id, "deny"); err != nil {
				l.Fatal(err)
			}
		},
		"replaced": func(l *lab, id writ.ApprovalID) { l.instead(l.approver("bob"), id, `{"what":"else"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			planner, alice := l.planner(), l.approver("alice")
			id, other := l.asked(planner, leased("all"), need(nil)), l.asked(planner, leased("one"), need(nil))
			before(l, other)
			was := l.approval(other)
			_, err := l.modifies(alice, id, `{"what":"one"}`)
			refusedWith(t, err, writ.CodeExists)
			if got := writ.AsError("test", err).Details["approval"]; got != string(other) {
				t.Errorf("names %q", got)
			}
			l.wants(id, writ.ApprovalPending)
			if now := l.approval(other); now.State != was.State || len(now.Votes) != len(was.Votes) {
				t.Errorf("the other became %s with %d votes", now.State, len(now.Votes))
			}
		})
	}
	t.Run("used up", func(t *testing.T) {
		l := newLab(t)
		planner, alice := l.planner(), l.approver("alice")
		used := l.asked(planner, leased("one"), need(nil))
		l.approves(alice, used)
		l.happens(planner, leased("one"), need(nil))
		l.instead(alice, l.asked(planner, leased("all"), need(nil)), `{"what":"one"}`)
		l.happens(planner, leased("one"), need(nil))
	})
}

// What cannot be modified, and why.
func TestWhatIsNotModified(t *testing.T) {
	l := newLab(t)
	planner, alice := l.planner(), l.approver("alice")
	run := l.World.Run("planner", 10)
	in := writ.Subject{Run: &writ.RunFacts{ID: run.ID, State: run.State}}
	decide := func(id writ.ApprovalID, args string) error {
		_, err := l.modifies(alice, id, args)
		return err
	}
	wide := func(patch func(*writ.Need)) writ.ApprovalID {
		out, err := l.about(planner, leased("wide"), in, need(patch))
		if err != nil {
			t.Fatal(err)
		}
		return out.pending.Approval
	}
	at(t, decide(wide(func(n *writ.Need) { n.Scope = writ.ScopeRun }), `{"what":"one"}`), writ.CodeInputInvalid, "/decision")
	at(t, decide(wide(func(n *writ.Need) { n.Scope = writ.ScopeSession }), `{"what":"one"}`), writ.CodeInputInvalid, "/decision")
	at(t, decide(wide(func(n *writ.Need) {
		n.Kind, n.Scope, n.Dimension, n.Add = writ.ApproveBudgetExtension, writ.ScopeRun, "steps", 5
	}), `{"what":"one"}`), writ.CodeInputInvalid, "/decision")
	question := l.asked(planner, leased("question"), need(func(n *writ.Need) { n.Kind = writ.ApproveHumanAction }))
	at(t, decide(question, `{"what":"one"}`), writ.CodeInputInvalid, "/decision")
	secret := l.asked(planner, doArgs{What: "all"}, need(nil))
	at(t, decide(secret, `{"what":"one"}`), writ.CodeInputInvalid, "/decision")
	l.open.ID = "thing.admin" // is no work: who gets what by it is not for approvers to say
	admin := l.asked(planner, leased("admin"), need(nil))
	at(t, decide(admin, `{"what":"one"}`), writ.CodeInputInvalid, "/decision")
	l.open.ID = "thing.set"
	before := l.asked(planner, leased("before"), need(nil))
	l.open.Version = "2"
	at(t, decide(before, `{"what":"one"}`), writ.CodeInputInvalid, "/decision")
	l.open.Version = "1"

	id := l.asked(planner, setArgs{What: "all", Run: run.ID, Lease: "lse_2", Fence: 9}, need(nil))
	same := `"run_id":"` + string(run.ID) + `"`
	for name, c := range map[string]struct {
		args    string
		code    writ.Code
		pointer string
	}{
		"none":              {``, writ.CodeInputInvalid, "/args"},
		"no object":         {`[]`, writ.CodeInputInvalid, "/args"},
		"the same":          {`{"what":"all",` + same + `}`, writ.CodeInputInvalid, "/args"},
		"another run":       {`{"what":"one","run_id":"run_2"}`, writ.CodeInputInvalid, "/args/run_id"},
		"no run":            {`{"what":"one"}`, writ.CodeInputInvalid, "/args/run_id"},
		"another parent":    {`{"what":"one","parent_run_id":"run_2",` + same + `}`, writ.CodeInputInvalid, "/args/parent_run_id"},
		"a lease":           {`{"what":"one","lease_id":"lse_9",` + same + `}`, writ.CodeInputInvalid, "/args/lease_id"},
		"a fence":           {`{"what":"one","fence":9,` + same + `}`, writ.CodeInputInvalid, "/args/fence"},
		"a waiting time":    {`{"what":"one","wait_s":9,` + same + `}`, writ.CodeInputInvalid, "/args/wait_s"},
		"an unknown member": {`{"what":"one","who":"me",` + same + `}`, writ.CodeMalformed, "/args"},
		"one missing":       {`{` + same + `}`, writ.CodeInputInvalid, "/args/what"},
	} {
		t.Run(name, func(t *testing.T) { at(t, decide(id, c.args), c.code, c.pointer) })
	}
	refusedWith(t, decide(id, `{"what":"`+strings.Repeat("x", 50<<10)+`",`+same+`}`), writ.CodeTooLarge)
	for _, decision := range []string{"approve", "deny"} {
		_, _, err := l.Call(l.capability("approval.decide"), alice, &approvals.ApprovalDecideArgs{Approval: id, Decision: decision, Args: writ.RawObject(`{}`)})
		at(t, err, writ.CodeInputInvalid, "/args")
	}
	_, _, err := l.Call(l.capability("approval.decide"), alice, &approvals.ApprovalDecideArgs{
		Approval: id, Decision: "modify", Args: writ.RawObject(`{"what":"one",` + same + `}`), Remember: &approvals.Remember{Scope: writ.ScopeRun, MaxUses: 2},
	})
	at(t, err, writ.CodeInputInvalid, "/remember")
	l.wants(id, writ.ApprovalPending)
}

// Whoever may not approve may not modify either, whatever the arguments are.
func TestWhoMayNotModify(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	id := l.asked(planner, leased("all"), need(nil))
	for _, args := range []string{`{"what":"one"}`, `{"nonsense":1}`} {
		for name, by := range map[string]writ.Caller{
			"the requester":    l.approver("planner"),
			"who answers":      l.approver("root"),
			"another role":     l.Open(writ.RoleOperator, "olga", ""),
			"who may not know": l.Open(writ.RoleOrchestrator, "stranger", ""),
		} {
			want := map[string]writ.Code{"another role": writ.CodeNotEligible, "who may not know": writ.CodeNotFound}[name]
			if want == "" {
				want = writ.CodeSoD
			}
			if _, err := l.modifies(by, id, args); writ.CodeOf(err) != want {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		}
	}
	l.Advance(3600)
	_, err := l.modifies(l.approver("alice"), id, `{"what":"one"}`)
	refusedWith(t, err, writ.CodeIllegal)
}

// One of two deciders at once wins, and one of a modification and the same
// call's own request.
func TestModifyingRaces(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	id := l.asked(planner, leased("all"), need(nil))
	verb := l.capability("approval.decide")
	plan := func(by writ.Caller, a approvals.ApprovalDecideArgs) *writtest.Planned {
		a.Approval = id
		p, err := l.Plan(verb, l.NewCall(verb, by, &a))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	other := func(what string) approvals.ApprovalDecideArgs {
		return approvals.ApprovalDecideArgs{Decision: "modify", Args: writ.RawObject(`{"what":"` + what + `"}`)}
	}
	late := plan(l.approver("dora"), other("three"))
	first, yes, no := plan(l.approver("alice"), other("one")), plan(l.approver("bob"), approvals.ApprovalDecideArgs{Decision: "approve"}), plan(l.approver("carol"), other("two"))
	asked := l.asked(planner, leased("one"), need(nil))
	if _, err := l.Commit(first); !isConflict(err) {
		t.Errorf("asked for meanwhile: %v", err)
	}
	if _, err := l.Commit(no); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(yes); !isConflict(err) {
		t.Errorf("approved what was replaced: %v", err)
	}
	if _, err := l.Commit(late); !isConflict(err) {
		t.Errorf("replaced twice: %v", err)
	}
	l.wants(id, writ.ApprovalSuperseded)
	l.wants(asked, writ.ApprovalPending)

	id = l.asked(planner, leased("more"), need(nil))
	late = plan(l.approver("dora"), other("less"))
	l.Advance(3600)
	if _, err := l.Commit(late); !isConflict(err) {
		t.Errorf("decided after its end: %v", err)
	}
}

// The names of an object are in one order wherever it comes from.
func TestOrderOfNamesDoesNotMatter(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	next := l.instead(l.approver("alice"), l.asked(planner, leased("all"), need(nil)), `{"what":"one","more":{"z":1,"a":12345678901234567890}}`)
	shown := l.approval(next).Args
	if !strings.Contains(string(shown), `"more":{"a":12345678901234567890,"z":1}`) {
		t.Errorf("people are shown %s", shown)
	}
	l.happens(planner, setArgs{What: "one", More: writ.RawObject(`{"a":12345678901234567890,"z":1}`)}, need(nil))
}

// What differs in the order of names only is not modified.
func TestTheSameInAnotherOrder(t *testing.T) {
	l := newLab(t)
	id := l.asked(l.planner(), setArgs{What: "all", More: writ.RawObject(`{"z":1,"a":2}`), Lease: "lse_2", Fence: 9}, need(nil))
	for _, more := range []string{`{"z":1,"a":2}`, `{ "a": 2, "z": 1 }`} {
		_, err := l.modifies(l.approver("alice"), id, `{"more":`+more+`,"what":"all"}`)
		at(t, err, writ.CodeInputInvalid, "/args")
	}
	l.instead(l.approver("alice"), id, `{"more":{"a":2,"z":10},"what":"all"}`)
}

// Both may be read by who asked.
func TestTheRequesterReadsTheSuccessor(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	id := l.asked(planner, leased("all"), need(nil))
	next := l.instead(l.approver("alice"), id, `{"what":"one"}`)
	get := func(id writ.ApprovalID) approvals.ApprovalView {
		reply, _, err := l.Call(l.capability("approval.get"), planner, &approvals.ApprovalGetArgs{Approval: id})
		if err != nil {
			t.Fatal(err)
		}
		v, err := writtest.Body[approvals.ApprovalView](reply)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := get(id); v.Successor != next || v.Votes[0].Decision != "modify" || v.Votes[0].Reason != "smaller" {
		t.Errorf("the first: %+v", v)
	}
	if v := get(next); v.Modified != id || v.Votes[0].Decision != "approve" || !strings.Contains(string(v.Args), "one") {
		t.Errorf("the successor: %+v", v)
	}
}

// What people agree to with other arguments was asked for when the first was: a
// policy by which approvals last less counts from there, however often they changed
// it.
func TestOtherArgumentsDoNotMakeARequestYounger(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	id := l.asked(planner, leased("all"), need(nil))
	asked := l.Now
	l.Advance(50)
	two := l.instead(l.approver("alice"), id, `{"what":"one"}`)
	if a := l.approval(two); a.RequestedAt != asked || a.CreatedAt != l.Now {
		t.Errorf("requested at %d, made at %d, want %d and %d", a.RequestedAt, a.CreatedAt, asked, l.Now)
	}
	l.Advance(50)
	short := func(s int64) writ.Need { return need(func(n *writ.Need) { n.ExpiresS = s }) }
	late, err := l.settle(planner, leased("one"), writ.Subject{}, short(100))
	if err != nil || late.met {
		t.Errorf("as old as it may be: met %v, %v", late.met, err)
	}
	l.happens(planner, leased("one"), short(101))

	both := need(func(n *writ.Need) { n.Approvers = 2 })
	first := l.asked(planner, leased("a"), both)
	asked = l.Now
	l.Advance(10)
	second := l.instead(l.approver("alice"), first, `{"what":"b"}`)
	l.Advance(10)
	if a := l.approval(l.instead(l.approver("bob"), second, `{"what":"c"}`)); a.RequestedAt != asked {
		t.Errorf("after two changes requested at %d, want %d", a.RequestedAt, asked)
	}
}

// Who says how a call of a run is made has a part in the run, as who works in it, and does not
// judge it; who agrees to it as it is has none, nor has who says how somebody else judges.
func TestWhoSaysHowItIsDoneDoesNotJudge(t *testing.T) {
	for name, x := range map[string]struct {
		verb writ.CapabilityID
		act  func(l *lab, by writ.Caller, id writ.ApprovalID)
		part bool
	}{
		"modify":              {"thing.set", func(l *lab, by writ.Caller, id writ.ApprovalID) { l.instead(by, id, `{"what":"one"}`) }, true},
		"approve":             {"thing.set", (*lab).approves, false},
		"modify of a verdict": {"run.close", func(l *lab, by writ.Caller, id writ.ApprovalID) { l.instead(by, id, `{"what":"one"}`) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.open.ID = x.verb
			run := l.World.Run("planner", 9)
			child := l.World.Run("planner", 9)
			child.Root = run.ID
			l.Seed(writ.RunKey(child.ID), writ.ObjectRun, child)
			alice := l.approver("alice")
			out, err := l.about(l.planner(), leased("all"), writ.Subject{Run: &writ.RunFacts{ID: child.ID}}, need(nil))
			if err != nil {
				t.Fatal(err)
			}
			x.act(l, alice, out.pending.Approval)
			judge := l.Open(writ.RoleVerifier, "judge", "")
			judge.Controller = "alice"
			for name, by := range map[string]writ.Caller{"itself": alice, "whom it answers for": judge} {
				s := l.Snapshot(writ.ReadSet{Ranges: writ.DutyReads(run.ID, by, nil)})
				if d := writ.DutyIn(s, run.ID, by, nil); d.Executed != x.part || d.Planned || d.Requested {
					t.Errorf("%s: got %+v", name, d)
				}
			}
		})
	}
}

// Who says how a run is made has a part in it from when it is there.
func TestWhoSaysHowARunIsMadeDoesNotJudgeIt(t *testing.T) {
	l := newLab(t)
	l.open.ID = "run.create"
	planner, alice, bob, carol := l.planner(), l.approver("alice"), l.approver("bob"), l.approver("carol")
	two := func(n *writ.Need) { n.Approvers = 2 }
	first := l.instead(alice, l.asked(planner, leased("all"), need(two)), `{"what":"some"}`)
	next := l.instead(bob, first, `{"what":"one"}`) // who changes what she said takes nothing from her
	l.approves(carol, next)
	out, err := l.do(planner, leased("one"), need(two))
	if err != nil || !out.met {
		t.Fatal(out.met, err)
	}
	l.wants(next, writ.ApprovalConsumed)
	run := writ.RunID("")
	for _, op := range out.tx.Ops {
		if root, is := strings.CutPrefix(string(op.Index), "parts/"); is {
			run = writ.RunID(root)
		}
	}
	for who, part := range map[*writ.Caller]bool{&alice: true, &bob: true, &carol: false} {
		if d := writ.DutyIn(l.Snapshot(writ.ReadSet{Ranges: writ.DutyReads(run, *who, nil)}), run, *who, nil); run == "" || d.Executed != part {
			t.Errorf("in %q %s had %+v", run, who.Principal, d)
		}
	}
}
