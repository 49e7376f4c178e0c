package daemon

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/writ-gateway/writ"
)

// spoil makes sums wrong, and lists what is not there, while others work, and repairs
// that meanwhile, so many times. It returns what sums must still be off by: a repair adds all of what
// one is off by, or nothing.
func spoil(t *testing.T, d *Daemon, cr *crew, r *rand.Rand, rounds int) map[writ.Counter]int64 {
	t.Helper()
	g, left := damage{t, d}, map[writ.Counter]int64{}
	lane := writ.LaneOf("site.build", "web", 4)
	sums := []writ.Counter{
		writ.RunOffered(cr.runs[0], lane), writ.RunBacklog(cr.runs[0], lane), writ.RunOpenTasks(cr.runs[0]), writ.RunBadTasks(cr.runs[1]), writ.AgentRunning(cr.agent[0]),
	}
	for round := range rounds {
		for _, c := range sums {
			if n := r.Int64N(5) - 2; n != 0 {
				g.commit(func(tx *writ.Tx) { tx.Add(c, n) })
				left[c] += n
			}
		}
		nobody := fmt.Sprintf("ses_01ARYZ6S41000000000000000%d", round)
		g.commit(func(tx *writ.Tx) {
			tx.Index(writ.IndexScopes, "fs:other/ "+nobody, 0)
			tx.Index(writ.Backlog(cr.runs[0]), writ.BacklogMember(lane, "tsk_01ARYZ6S410000000000000000"), 0)
		})
		report, err := repairIndexes(t.Context(), d.store, d.door)
		if err != nil {
			t.Errorf("while others work, a repair says %v", err)
			return left
		}
		if report.Mended["scope.x"] == 0 {
			t.Errorf("a claim of nobody is left: %+v", report)
		}
		for _, c := range sums {
			if report.Mended[c.Sort()] > 0 {
				left[c] = 0
			}
		}
		t.Logf("mended while others work: %v", report.Mended)
	}
	return left
}

// mendRest wants sums to be off by what is left of what was done to them, and nothing
// else to be wrong but what follows from that; and mends it.
func mendRest(t *testing.T, d *Daemon, left map[writ.Counter]int64) {
	t.Helper()
	report, err := examineIndexes(t.Context(), d.store)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Counts {
		if c.Has-c.Want != left[c.counter] {
			t.Errorf("%s is %d and not %d; what was done to it and not mended is %d", c.What, c.Has, c.Want, left[c.counter])
		}
		delete(left, c.counter)
	}
	for c, n := range left {
		if n != 0 {
			t.Errorf("%v should be off by %d", c, n)
		}
	}
	if again, err := repairIndexes(t.Context(), d.store, d.door); err != nil || !again.Left.OK() {
		t.Errorf("when nothing moves, a repair leaves %+v, %v", again.Left, err)
	}
}
