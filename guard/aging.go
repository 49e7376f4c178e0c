package guard

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// topClass is the highest priority there is: no lane rises above it.
const topClass = 9

// agedLooks is how many entries one poll takes in the order of age. A lane keeps its
// age while what comes out of it is dropped, and however much of that there is, it may
// not keep the poll from what is urgent.
const agedLooks = 16

// maxStale is how many stale entries of one lane a poll drops before the other lanes have
// their turn: tasks that are enqueued and cancelled again and again leave many.
const maxStale = 8

// turns remembers since when lanes have held entries without one of them being handed
// out, so that a lane rises by a class for every whole minute and is not kept waiting
// for ever by those above it. What it knows is this replica's alone and bounded by the
// lanes there are: losing it costs a lane its age and nothing else.
type turns struct {
	mu    sync.Mutex
	since map[writ.Tenant]map[writ.Lane]time.Time
}

// waiting notes which lanes of a shard hold entries now, and forgets the others. It says
// since when each has waited.
func (t *turns) waiting(shard writ.Tenant, counts []writ.LaneCount, now time.Time) map[writ.Lane]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[writ.Lane]time.Time, len(counts))
	for _, c := range counts {
		if c.Count <= 0 {
			continue
		}
		out[c.Lane] = now
		if was, known := t.since[shard][c.Lane]; known {
			out[c.Lane] = was
		}
	}
	if t.since == nil {
		t.since = map[writ.Tenant]map[writ.Lane]time.Time{}
	}
	t.since[shard] = out
	return maps.Clone(out)
}

// had says that an entry came out of a lane, and since when the lane had waited.
func (t *turns) had(shard writ.Tenant, l writ.Lane, now time.Time) (since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	since, known := t.since[shard][l]
	if !known {
		return now
	}
	t.since[shard][l] = now
	return since
}

// not gives a lane its age back: nothing was handed out after all.
func (t *turns) not(shard writ.Tenant, l writ.Lane, since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lanes := t.since[shard]
	if was, known := lanes[l]; lanes != nil && (!known || since.Before(was)) {
		lanes[l] = since // should it be empty, the next look forgets it
	}
}

// byPriority sorts lanes as their tasks were given priorities.
func byPriority(a, b writ.Lane) int {
	pa, _, _, _ := a.Split()
	pb, _, _, _ := b.Split()
	return cmp.Or(cmp.Compare(pb, pa), cmp.Compare(a, b))
}

// byTurn sorts lanes by priority and a class for every minute they have waited; of those
// in one class the one that has waited the longest comes first.
func byTurn(lanes []writ.Lane, since map[writ.Lane]time.Time, now time.Time) {
	class := func(l writ.Lane) int64 {
		p, _, _, _ := l.Split()
		return min(p+int64(now.Sub(since[l])/time.Minute), topClass)
	}
	slices.SortFunc(lanes, func(a, b writ.Lane) int {
		return cmp.Or(cmp.Compare(class(b), class(a)), since[a].Compare(since[b]), byPriority(a, b))
	})
}
