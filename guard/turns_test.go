package guard

import (
	"slices"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

func turnLane(priority int64) writ.Lane { return writ.LaneOf("site.build", "web", priority) }

// A lane waits while it holds entries: one that is empty begins anew.
func TestAnEmptyLaneHasNoAge(t *testing.T) {
	var turns turns
	l, begin := turnLane(3), time.Unix(1_000, 0)
	at := func(minutes int, count int64) map[writ.Lane]time.Time {
		return turns.waiting("default", []writ.LaneCount{{Lane: l, Count: count}}, begin.Add(time.Duration(minutes)*time.Minute))
	}
	if got := at(0, 1); !got[l].Equal(begin) {
		t.Errorf("first seen at %v", got)
	}
	if got := at(1, 2); !got[l].Equal(begin) {
		t.Errorf("a minute later it waits since %v", got)
	}
	if got := at(2, 0); len(got) != 0 {
		t.Errorf("an empty lane waits: %v", got)
	}
	if got := at(3, 1); !got[l].Equal(begin.Add(3 * time.Minute)) {
		t.Errorf("it was empty, and waits since %v", got)
	}
	if got := turns.waiting("default", nil, begin); len(got) != 0 {
		t.Errorf("a lane that is not there waits: %v", got)
	}
}

// What came out of a lane and was given back was no turn, also when the lane was looked at
// and found empty in between.
func TestAnAgeIsGivenBack(t *testing.T) {
	var turns turns
	l, begin := turnLane(3), time.Unix(1_000, 0)
	turns.not("default", l, begin) // nothing is known of the shard
	one, none := []writ.LaneCount{{Lane: l, Count: 1}}, []writ.LaneCount{{Lane: l}}
	turns.waiting("default", one, begin)
	since := turns.had("default", l, begin.Add(time.Minute))
	turns.waiting("default", none, begin.Add(time.Minute))
	turns.not("default", l, since)
	if got := turns.waiting("default", one, begin.Add(2*time.Minute)); !got[l].Equal(begin) {
		t.Errorf("it waits since %v, and waited since %v", got[l], begin)
	}
	if got := turns.had("default", turnLane(4), begin); !got.Equal(begin) {
		t.Errorf("a lane nobody saw has waited since %v", got)
	}
}

// No lane rises above the highest class; in one class the one that waits longest is first.
func TestNoLaneRisesAboveTheTop(t *testing.T) {
	now := time.Unix(100_000, 0)
	ago := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	lanes := []writ.Lane{turnLane(9), turnLane(5), turnLane(1)}
	since := map[writ.Lane]time.Time{turnLane(9): ago(7), turnLane(5): ago(10), turnLane(1): ago(7)}
	byTurn(lanes, since, now)
	if want := []writ.Lane{turnLane(5), turnLane(9), turnLane(1)}; !slices.Equal(lanes, want) {
		t.Errorf("got %q, want %q", lanes, want)
	}
}
