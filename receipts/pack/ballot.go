package pack

import (
	"math"
	"slices"

	"github.com/writ-gateway/writ"
)

// A task or a run can want several verdicts. Each but the last is a receipt that moves the
// ballot beside what is judged, which stays where it is; the last one moves that, and has the
// others as parents.

// vote is a verdict that accepts, given before the last.
type vote struct {
	receipt, about writ.ReceiptID
	by             party
}

// isQuorum says whether as many verdicts can be asked for; votes is how many are, one where
// nothing is said.
func isQuorum(n *float64) bool {
	return n == nil || *n == math.Trunc(*n) && 1 <= *n && *n <= writ.MaxQuorum
}

func votes(n *float64) int {
	if n == nil {
		return 1
	}
	return int(*n)
}

// voted takes a verdict that accepts where more are wanted. It is held to what each is.
func (k *chain) voted(x heard, m writ.Change) {
	v := verdict{id: m.ID, to: m.To, accept: true, of: k.last, task: k.tasks[m.ID]}
	if v.task != nil {
		v.of = v.task.last
	} else {
		v.of.made, v.of.told = k.madeOfRun()
	}
	k.votes[m.ID] = append(k.votes[m.ID], vote{x.Statement.Receipt, k.judge(x, v), k.lineage.acting(x.Statement.Actor)})
}

// carried counts the verdicts when the last one accepts: those it names, on the same receipt,
// of verifiers who are told apart and still had no part.
func (k *chain) carried(x heard, v verdict, want int) {
	if !v.accept || want <= 1 {
		return
	}
	seq, counted := x.Commit.Seq, []party{k.lineage.acting(x.Statement.Actor)}
	for _, o := range k.votes[v.id] {
		if o.about != v.of.receipt || !slices.Contains(x.Statement.Parents, o.receipt) {
			continue
		}
		for _, code := range k.lineage.conflicts(k.run, o.by) { // a part may have been taken since
			k.judged(code, seq)
		}
		if slices.ContainsFunc(counted, func(by party) bool { return k.oneVoter(by, o.by, seq) }) {
			k.judged(QuorumTwice, seq)
			continue
		}
		counted = append(counted, o.by)
	}
	if len(counted) < want {
		k.judged(QuorumMissing, seq)
	}
}

// oneVoter says whether two who voted are not told apart. Where nobody says, that is found.
func (k *chain) oneVoter(a, b party, seq int64) (one bool) {
	for _, code := range k.lineage.same(a, b) {
		if code == LineageUnknown {
			k.judged(LineageUnknown, seq)
		} else {
			one = true
		}
	}
	return one
}
