package approvals_test

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// A vote counts as long as its caster has the role it was cast in: after that
// people are asked again, and nothing of the old approval is used.
func TestAVoteEndsWithItsRole(t *testing.T) {
	l := newLab(t)
	args := doArgs{What: "x"}
	id := l.asked(l.planner(), args, need(nil))
	l.approves(l.approver("alice"), id)
	l.wants(id, writ.ApprovalApproved)

	l.unbound = []writ.PrincipalID{l.approver("alice").Principal}
	next := l.asked(l.planner(), args, need(nil))
	if next == id {
		t.Fatal("the vote of somebody without the role was waited on again")
	}
	if old := l.approval(id); old.Uses != 0 {
		t.Fatalf("used %d times by a vote that no longer counts", old.Uses)
	}

	l.approves(l.approver("bob"), next)
	l.happens(l.planner(), args, need(nil))
}
