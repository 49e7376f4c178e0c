package approvals

import "github.com/writ-gateway/writ"

// What lists, deadlines and counters hold about approvals follows from their
// documents. This file says how, for who looks whether it still does; no verb uses it.

// Follower says what follows from the documents of approvals.
func Follower() writ.Follower {
	return writ.Follower{
		Kind:  writ.ObjectApproval,
		Reads: func(string, writ.Snapshot) (rs writ.ReadSet, err error) { return rs, nil },
		Sound: coherent, Implies: implies, Counts: counts,
	}
}

// coherent says what contradicts itself in an approval.
func coherent(id string, s writ.Snapshot) (string, error) {
	a, _, _, err := writ.Get[writ.Approval](s, writ.ApprovalKey(writ.ApprovalID(id)))
	if err != nil {
		return "", err
	}
	return writ.Incoherent(writ.ObjectApproval, id, string(a.ID), writ.ApprovalMoves, a.State), nil
}

func implies(id string, s writ.Snapshot) ([]writ.Implied, error) {
	a, _, _, err := writ.Get[writ.Approval](s, writ.ApprovalKey(writ.ApprovalID(id)))
	if err != nil {
		return nil, err
	}
	is, ended := "the approval is "+string(a.State), writ.ApprovalMoves.Terminal(a.State)
	// Whoever gives up what waits for it has it looked at sooner, ended or not.
	due := writ.Implied{Entry: writ.Entry{Index: writ.IndexExpiries, Member: id, Score: a.ExpiresAt}, Soon: true, May: ended, Why: is}
	out := []writ.Implied{writ.InIf(true, writ.IndexApprovals, id, "there is such an approval"), due}
	for state := range writ.ApprovalMoves {
		if state != "" {
			out = append(out, writ.InIf(state == a.State, writ.ApprovalsIn(state), id, is))
		}
	}
	for _, by := range a.Behind {
		out = append(out, writ.InIf(!ended, writ.SetGoing(writ.ObjectApproval, by), id, is))
	}
	return out, nil
}

func counts(id string, s writ.Snapshot) ([]writ.Count, error) {
	a, _, _, err := writ.Get[writ.Approval](s, writ.ApprovalKey(writ.ApprovalID(id)))
	if err != nil {
		return nil, err
	}
	n := int64(0)
	if a.State == writ.ApprovalPending {
		n = 1
	}
	out := []writ.Count{{Counter: writ.ApprovalsAsked(a.Requester.Principal), N: n}}
	for _, tag := range a.Counted {
		out = append(out, writ.Count{Counter: writ.QuotaUsed(tag), N: n})
	}
	return out, nil
}
