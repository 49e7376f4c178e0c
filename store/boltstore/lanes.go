package boltstore

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"sync"

	"github.com/writ-gateway/writ"
)

// shard is the part of a shard that is kept in memory: which lane entries wait,
// who received which, and who is to be woken. The file holds every entry until
// it is acked, so a restart makes all of them available again, in order.
type shard struct {
	facts signal // broadcast when facts were added
	wakes wakeLog

	mu    sync.Mutex
	lanes map[writ.Lane]*waiting
	held  map[string]taken // received and neither acked nor given back, by delivery id
	next  uint64           // of the next delivery id; never starts at the same number twice
}

// entry is one lane entry; number is its place in the file.
type entry struct {
	lane   writ.Lane
	number int64
	text   string
}

// taken is an entry somebody received.
type taken struct {
	entry
	id    string
	order uint64
	since int64
}

// waiting is the entries of one lane that nobody holds, oldest first.
type waiting struct {
	entries []entry
	first   int // those before are gone
}

func (w *waiting) len() int { return len(w.entries) - w.first }

func (w *waiting) pop() entry {
	e := w.entries[w.first]
	w.entries[w.first] = entry{}
	if w.first++; w.first*2 >= len(w.entries) {
		w.entries = append(w.entries[:0], w.entries[w.first:]...)
		w.first = 0
	}
	return e
}

func newShard() *shard {
	return &shard{
		wakes: wakeLog{instance: rand.Uint64()},
		lanes: map[writ.Lane]*waiting{}, held: map[string]taken{}, next: rand.Uint64() >> 1,
	}
}

// load makes the lanes from the file, keeping who holds what.
func (m *shard) load(b buckets) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lanes = map[writ.Lane]*waiting{}
	if b.root == nil {
		m.held = map[string]taken{}
		return
	}
	holder := make(map[int64]taken, len(m.held))
	for _, t := range m.held {
		holder[t.number] = t
	}
	m.held = make(map[string]taken, len(holder))
	_ = b.lanes.ForEach(func(k, v []byte) error {
		e := entry{lane: writ.Lane(k[:len(k)-9]), number: intOf(k[len(k)-8:]), text: string(v)}
		if t, ok := holder[e.number]; ok {
			m.held[t.id] = t
		} else {
			m.append(e)
		}
		return nil
	})
}

// append adds an entry to the end of its lane. The caller holds mu.
func (m *shard) append(e entry) {
	w := m.lanes[e.lane]
	if w == nil {
		w = &waiting{}
		m.lanes[e.lane] = w
	}
	w.entries = append(w.entries, e)
}

// push shows entries to receivers and wakes those who wait.
func (m *shard) push(entries []entry) {
	if len(entries) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		m.append(e)
	}
	m.wakes.add(entries)
}

// take ends a delivery; it is not found when it ended already.
func (m *shard) take(l writ.Lane, id string) (taken, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.held[id]
	if !ok || t.lane != l {
		return taken{}, false
	}
	delete(m.held, id)
	return t, true
}

// putBack undoes take.
func (m *shard) putBack(acked []taken) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range acked {
		m.held[t.id] = t
	}
}

// receive hands out up to n entries of the first lane that has any. Delivery
// ids are used once: an entry that is given back and received again gets
// another one, so whoever held it before can no longer ack it.
func (m *shard) receive(lanes []writ.Lane, n int, now int64) []writ.Delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range lanes {
		w := m.lanes[l]
		if w == nil || n <= 0 {
			continue
		}
		var out []writ.Delivery
		for len(out) < n && w.len() > 0 {
			m.next++
			t := taken{entry: w.pop(), order: m.next, since: now}
			t.id = fmt.Sprintf("%d-%x", t.number, t.order)
			m.held[t.id] = t
			out = append(out, writ.Delivery{Lane: l, ID: t.id, Entry: t.text})
		}
		if w.len() == 0 {
			delete(m.lanes, l)
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

// giveBack puts deliveries at the end of their lanes again.
func (m *shard) giveBack(back []taken) {
	entries := make([]entry, len(back))
	for i, t := range back {
		entries[i] = t.entry
	}
	m.push(entries)
}

// abandoned ends up to n deliveries made before a time, oldest first.
func (m *shard) abandoned(before int64, n int) []taken {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []taken
	for _, t := range m.held {
		if t.since < before {
			out = append(out, t)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].order < out[j].order })
	out = out[:max(min(n, len(out)), 0)]
	for _, t := range out {
		delete(m.held, t.id)
	}
	return out
}

// counts lists the lanes that have entries nobody holds, by name.
func (m *shard) counts() []writ.LaneCount {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]writ.LaneCount, 0, len(m.lanes))
	for l, w := range m.lanes {
		out = append(out, writ.LaneCount{Lane: l, Count: int64(w.len())})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Lane < out[j].Lane })
	return out
}
