package queue

import (
	"reflect"
	"testing"

	"github.com/writ-gateway/writ"
)

// tell makes a call in which the queue is told of an approval.
func (l *lab) tell(by writ.Caller, a writ.Approval, what func(*writ.Call, writ.Snapshot, writ.Approval, *writ.Tx) error) {
	l.Helper()
	verb := writ.Define[writ.Approval, struct{}](writ.Capability{ID: "approval.test"}, writ.Verb[writ.Approval]{
		Reads: func(_ *writ.Call, a *writ.Approval, s writ.Snapshot) (writ.ReadSet, error) {
			return Parking{}.Reads(*a, s)
		},
		Plan: func(c *writ.Call, a *writ.Approval, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			return tx, writ.Reply{Outcome: writ.OutcomeDone}, what(c, s, *a, &tx)
		},
	})
	if _, _, err := l.w.Call(verb, by, &a); err != nil {
		l.Fatal(err)
	}
}

// A task that waits for people waits on when they are asked about other
// arguments instead: nothing of its lease changes but whom it waits for.
func TestAParkedTaskWaitsForTheSuccessor(t *testing.T) {
	l := newLab(t)
	wait, wake := Parking{}.Wait, Parking{}.Wake
	id := l.enqueue("one", scopes("fs:repo/a"))
	g := l.claim(l.a, id)
	apr := func(name, from writ.ApprovalID, state writ.ApprovalState) writ.Approval {
		return writ.Approval{ID: name, Task: id, Run: l.run, Capability: "task.complete", Modified: from, State: state}
	}
	l.tell(l.a, apr("one", "", writ.ApprovalPending), wait)
	parked := l.task(id)
	if parked.State != writ.TaskParked || parked.WaitsFor != "one" {
		t.Fatalf("the task: %+v", parked)
	}
	l.w.Advance(1000)
	l.tell(l.oper, apr("else", "another", writ.ApprovalPending), wait) // takes the place of what it does not wait for
	l.tell(l.oper, apr("else", "another", writ.ApprovalApproved), wake)
	if now := l.task(id); now.WaitsFor != "one" || now.State != writ.TaskParked {
		t.Fatalf("the task: %+v", now)
	}
	l.tell(l.oper, apr("two", "one", writ.ApprovalPending), wait)
	now := l.task(id)
	if now.State != writ.TaskParked || now.WaitsFor != "two" || now.ParkedAt != parked.ParkedAt || !reflect.DeepEqual(*now.Lease, *parked.Lease) {
		t.Errorf("was %+v with %+v, is %+v with %+v", parked, parked.Lease, now, now.Lease)
	}
	audit(l)
	l.tell(l.oper, apr("one", "", writ.ApprovalApproved), wake) // whose place is taken
	if now := l.task(id); now.State != writ.TaskParked {
		t.Errorf("the task is %s", now.State)
	}
	l.w.Advance(1000)
	l.tell(l.oper, apr("three", "two", writ.ApprovalApproved), wake) // and enough people agree at once
	if now := l.task(id); now.State != writ.TaskRunning || now.WaitsFor != "" || now.Lease.MaxUntil != parked.Lease.MaxUntil+2000_000 {
		t.Errorf("the task: %+v with %+v", now, now.Lease)
	}
	audit(l)
	l.do("task.complete", l.a, g.complete())
	audit(l)
}

// Nobody's task is stopped by the decision of somebody who happens to hold one.
func TestADecisionParksNothing(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one")
	l.claim(l.a, id)
	l.tell(l.a, writ.Approval{ID: "two", Modified: "one", Task: id, Run: l.run, State: writ.ApprovalPending}, Parking{}.Wait)
	if now := l.task(id); now.State != writ.TaskRunning {
		t.Errorf("the task is %s", now.State)
	}
	audit(l)
}
