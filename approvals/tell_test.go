package approvals_test

import (
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/approvals"
)

// listening is a lab in which an endpoint wants to hear of everything.
func listening(t *testing.T) *lab {
	l := newLab(t)
	tell := writ.Subscribers{}
	for _, e := range writ.Events() {
		tell[e] = []writ.EndpointID{"e1"}
	}
	l.cfg.Tell = tell
	l.room = approvals.New(l.cfg)
	return l
}

// told is what the endpoint is to be told of an approval, by event.
func (l *lab) told(id writ.ApprovalID) map[writ.Event]writ.Notice {
	l.Helper()
	out := map[writ.Event]writ.Notice{}
	for name, score := range l.Index(writ.Notices("e1")) {
		n, ok := writ.ParseNotice(writ.Member{Name: name, Score: score})
		if !ok {
			l.Fatalf("%q is no notice", name)
		}
		if n.Approval != id {
			continue
		}
		if _, twice := out[n.Event]; twice {
			l.Errorf("%s is told twice", n.Event)
		}
		if n.At != l.Now || n.Due != l.Now || n.Tries != 0 {
			l.Errorf("%+v is not due at once, at %d", n, l.Now)
		}
		out[n.Event] = n
	}
	return out
}

func (l *lab) tells(id writ.ApprovalID, want map[writ.Event]writ.ApprovalState) {
	l.Helper()
	got := l.told(id)
	for e, state := range want {
		if n, ok := got[e]; !ok || n.State != state {
			l.Errorf("%s: %+v, want it told with the state %s", e, n, state)
		}
	}
	if len(got) != len(want) {
		l.Errorf("told of %d events, want %d", len(got), len(want))
	}
}

// Every way an approval goes is told once, by the transaction that makes it go.
func TestWhoeverWantsToKnowIsTold(t *testing.T) {
	requested := map[writ.Event]writ.ApprovalState{writ.EventApprovalRequested: writ.ApprovalPending}
	with := func(e writ.Event, s writ.ApprovalState) map[writ.Event]writ.ApprovalState {
		return map[writ.Event]writ.ApprovalState{writ.EventApprovalRequested: writ.ApprovalPending, e: s}
	}
	two := need(func(n *writ.Need) { n.Approvers = 2 })
	t.Run("approved, then used", func(t *testing.T) {
		l := listening(t)
		planner := l.planner()
		id := l.asked(planner, doArgs{What: "a"}, two)
		if got := l.told(id)[writ.EventApprovalRequested]; got.Receipt != l.approval(id).Receipt {
			t.Errorf("names the receipt %s, want %s", got.Receipt, l.approval(id).Receipt)
		}
		l.asked(planner, doArgs{What: "a"}, two)
		l.tells(id, requested)
		l.approves(l.approver("alice"), id)
		l.tells(id, requested) // one of two votes decides nothing
		l.approves(l.approver("bob"), id)
		want := with(writ.EventApprovalDecided, writ.ApprovalApproved)
		l.tells(id, want)
		if got := l.told(id)[writ.EventApprovalDecided]; got.Receipt != l.approval(id).Receipt {
			t.Errorf("names the receipt %s, want %s", got.Receipt, l.approval(id).Receipt)
		}
		l.happens(planner, doArgs{What: "a"}, two)
		l.tells(id, want)
	})
	t.Run("denied", func(t *testing.T) {
		l := listening(t)
		id := l.asked(l.planner(), doArgs{What: "a"}, need(nil))
		if err := l.decide(l.approver("alice"), id, "deny"); err != nil {
			t.Fatal(err)
		}
		l.tells(id, with(writ.EventApprovalDecided, writ.ApprovalDenied))
	})
	expire := func(l *lab, id writ.ApprovalID) {
		l.Helper()
		l.Now = l.approval(id).ExpiresAt
		for name := range l.Index(writ.Notices("e1")) {
			l.DropIndex(writ.Notices("e1"), name)
		}
		if _, _, err := l.Call(l.capability("approval.expire"), writ.Caller{Tenant: l.Tenant, Role: writ.RoleSystem}, &approvals.ApprovalExpireArgs{Approval: id}); err != nil {
			l.Fatal(err)
		}
		l.wants(id, writ.ApprovalExpired)
	}
	t.Run("lapsed undecided", func(t *testing.T) {
		l := listening(t)
		id := l.asked(l.planner(), doArgs{What: "a"}, need(nil))
		expire(l, id)
		l.tells(id, map[writ.Event]writ.ApprovalState{writ.EventApprovalExpired: writ.ApprovalExpired})
	})
	t.Run("lapsed unused", func(t *testing.T) {
		l := listening(t)
		id := l.asked(l.planner(), doArgs{What: "a"}, need(nil))
		l.approves(l.approver("alice"), id)
		expire(l, id)
		l.tells(id, nil)
	})
	t.Run("superseded", func(t *testing.T) {
		l := listening(t)
		planner := l.planner()
		old := l.asked(planner, doArgs{What: "a"}, need(nil))
		id := l.asked(planner, doArgs{What: "a"}, two)
		l.wants(old, writ.ApprovalSuperseded)
		l.tells(old, with(writ.EventApprovalDecided, writ.ApprovalSuperseded))
		l.tells(id, requested)
	})
	t.Run("superseded after the yes", func(t *testing.T) { // when nobody is asked for it any more
		l := listening(t)
		planner := l.planner()
		old := l.asked(planner, doArgs{What: "a"}, need(nil))
		l.approves(l.approver("alice"), old)
		l.asked(planner, doArgs{What: "a"}, two)
		l.wants(old, writ.ApprovalSuperseded)
		l.tells(old, with(writ.EventApprovalDecided, writ.ApprovalApproved))
	})
	t.Run("other arguments, others are asked", func(t *testing.T) {
		l := listening(t)
		old := l.asked(l.planner(), leased("all"), two)
		id := l.instead(l.approver("alice"), old, `{"what":"one"}`)
		l.tells(old, with(writ.EventApprovalDecided, writ.ApprovalSuperseded))
		l.tells(id, requested)
		l.approves(l.approver("bob"), id)
		l.tells(id, with(writ.EventApprovalDecided, writ.ApprovalApproved))
	})
	t.Run("other arguments, nobody else is asked", func(t *testing.T) {
		l := listening(t)
		old := l.asked(l.planner(), leased("all"), need(nil))
		id := l.instead(l.approver("alice"), old, `{"what":"one"}`)
		l.tells(old, with(writ.EventApprovalDecided, writ.ApprovalSuperseded))
		l.tells(id, map[writ.Event]writ.ApprovalState{writ.EventApprovalDecided: writ.ApprovalApproved})
	})
	t.Run("more budget, used by being granted", func(t *testing.T) {
		l := listening(t)
		run := writ.RunID(writ.MakeID(writ.PrefixRun, l.Now, [10]byte{1}))
		sub := writ.Subject{Run: &writ.RunFacts{ID: run, State: writ.RunActive}}
		more := need(func(n *writ.Need) { n.Kind, n.Dimension, n.Add = writ.ApproveBudgetExtension, writ.BudgetSteps, 5 })
		out, err := l.about(l.planner(), doArgs{What: "a"}, sub, more)
		if err != nil {
			t.Fatal(err)
		}
		id := out.pending.Approval
		l.approves(l.approver("alice"), id)
		l.wants(id, writ.ApprovalConsumed)
		l.tells(id, with(writ.EventApprovalDecided, writ.ApprovalApproved))
	})
}

// Where nobody wants to know, nothing is queued, and where only one event is
// wanted, only that.
func TestOnlyWhoWantsToKnowIsTold(t *testing.T) {
	for name, tell := range map[string]writ.Subscribers{"nobody": nil, "of decisions": {writ.EventApprovalDecided: {"e1", "e2"}}} {
		l := newLab(t)
		l.cfg.Tell = tell
		l.room = approvals.New(l.cfg)
		id := l.asked(l.planner(), doArgs{What: "a"}, need(nil))
		l.approves(l.approver("alice"), id)
		for _, e := range []writ.EndpointID{"e1", "e2"} {
			var got []writ.Event
			for name := range l.Index(writ.Notices(e)) {
				n, _ := writ.ParseNotice(writ.Member{Name: name})
				got = append(got, n.Event)
			}
			var want []writ.Event
			if slices.Contains(tell[writ.EventApprovalDecided], e) {
				want = []writ.Event{writ.EventApprovalDecided}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %s is told of %v, want %v", name, e, got, want)
			}
		}
	}
}
