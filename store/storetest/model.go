package storetest

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Model is the contract in plain maps: a store.Store that one mutex makes
// atomic and that keeps nothing. It is written to be read and to be compared
// with, not to be fast.
type Model struct {
	// Now is the clock in milliseconds; the host's when nil. Set it before use.
	Now func() int64

	mu      sync.Mutex
	shards  map[writ.Tenant]*modelShard
	changed chan struct{} // closed and replaced by every change
	closed  bool
}

type modelShard struct {
	epoch        string
	seq, trimmed int64
	at, commits  int64
	docs         map[writ.Key]modelDoc
	counters     map[writ.Counter]int64
	indexes      map[writ.Index]map[string]int64
	versions     map[writ.Index]int64
	lanes        map[writ.Lane][]string
	held         map[string]modelHeld // by delivery id
	pushes       []writ.Lane          // every push ever, for Wake
	facts        []writ.StoredFact    // from trimmed+1
	calls        map[writ.CallID]writ.Committed
	callAt       map[writ.CallID]int64
	deliveries   int64
}

type modelDoc struct {
	writ.Doc
	expires int64 // 0: never
}

type modelHeld struct {
	writ.Delivery
	since int64
}

// NewModel returns an empty model.
func NewModel() *Model {
	return &Model{shards: map[writ.Tenant]*modelShard{}, changed: make(chan struct{})}
}

// shard locks the model and finds the shard with its clock moved on. The
// caller unlocks.
func (m *Model) shard(name writ.Tenant) (*modelShard, int64, error) {
	m.mu.Lock()
	if m.closed {
		return nil, 0, store.ErrClosed
	}
	if !name.Valid() {
		return nil, 0, fmt.Errorf("%w: the shard is no tenant", store.ErrInvalid)
	}
	s := m.shards[name]
	if s == nil {
		s = &modelShard{
			epoch: fmt.Sprintf("1.%016x", len(m.shards)+1), seq: -1, trimmed: -1,
			docs: map[writ.Key]modelDoc{}, counters: map[writ.Counter]int64{},
			indexes: map[writ.Index]map[string]int64{}, versions: map[writ.Index]int64{},
			lanes: map[writ.Lane][]string{}, held: map[string]modelHeld{},
			calls: map[writ.CallID]writ.Committed{}, callAt: map[writ.CallID]int64{},
		}
		m.shards[name] = s
	}
	now := time.Now().UnixMilli()
	if m.Now != nil {
		now = m.Now()
	}
	return s, max(now, s.at), nil
}

func (m *Model) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Read implements store.Store.
func (m *Model) Read(_ context.Context, shard writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error) {
	s, now, err := m.shard(shard)
	defer m.mu.Unlock()
	if err != nil {
		return writ.Snapshot{}, err
	}
	out := writ.Snapshot{
		Now: now, Epoch: s.epoch, Docs: map[writ.Key]writ.Doc{},
		Counters: map[writ.Counter]int64{}, Ranges: map[writ.Range]writ.RangeResult{},
	}
	for _, k := range rs.Docs {
		if !writ.ValidName(string(k)) {
			return writ.Snapshot{}, fmt.Errorf("%w: document name", store.ErrInvalid)
		}
		out.Docs[k] = s.doc(k, now)
	}
	for _, c := range rs.Counters {
		if !writ.ValidName(c.Entity) || !writ.ValidName(c.Field) {
			return writ.Snapshot{}, fmt.Errorf("%w: counter name", store.ErrInvalid)
		}
		out.Counters[c] = s.counters[c]
	}
	for _, r := range rs.Ranges {
		if !writ.ValidName(string(r.Index)) || r.Limit < 1 || r.Limit > 1000 {
			return writ.Snapshot{}, fmt.Errorf("%w: range", store.ErrInvalid)
		}
		out.Ranges[r] = s.rangeOf(r)
	}
	return out, nil
}

func (s *modelShard) doc(k writ.Key, now int64) writ.Doc {
	d := s.docs[k]
	if d.expires != 0 && now >= d.expires {
		return writ.Doc{}
	}
	return writ.Doc{Version: d.Version, Body: slices.Clone(d.Body)}
}

func (s *modelShard) rangeOf(r writ.Range) writ.RangeResult {
	var out []writ.Member
	for name, score := range s.indexes[r.Index] {
		if r.Member != "" {
			if name == r.Member {
				out = append(out, writ.Member{Name: name, Score: score})
			}
		} else if r.ByScore && score >= r.Min && score <= r.Max ||
			!r.ByScore && name >= r.From && (r.To == "" || name < r.To) {
			out = append(out, writ.Member{Name: name, Score: score})
		}
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if r.Desc {
			a, b = b, a
		}
		if r.ByScore && a.Score != b.Score {
			return a.Score < b.Score
		}
		return a.Name < b.Name
	})
	return writ.RangeResult{Members: out[:min(len(out), r.Limit)], Version: s.versions[r.Index]}
}

// Commit implements store.Store.
func (m *Model) Commit(_ context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	s, now, err := m.shard(shard)
	defer m.mu.Unlock()
	if err != nil {
		return writ.Committed{}, err
	}
	if err := tx.Check(); err != nil {
		return writ.Committed{}, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if c, ok := s.calls[tx.Call]; ok && tx.Call != "" && now-s.callAt[tx.Call] <= 10*60*1000 {
		return c, nil
	}
	for _, g := range tx.Guards {
		if err := s.check(g, now); err != nil {
			return writ.Committed{}, err
		}
	}
	if err := s.checkLimits(tx); err != nil {
		return writ.Committed{}, err
	}

	s.at = now
	s.commits++
	c := writ.Committed{Epoch: s.epoch, Seq: -1, At: now}
	if tx.Before != nil {
		s.seq++
		s.facts = append(s.facts, writ.StoredFact{Fact: *tx.Before, Commit: writ.Committed{Epoch: s.epoch, Seq: s.seq, At: now}})
	}
	if tx.Fact != nil {
		s.seq++
		c.Seq = s.seq
		if tx.Fact.Run != "" {
			n := writ.RunSequence(tx.Fact.Run)
			s.counters[n]++
			c.RunSeq = s.counters[n]
		}
		s.facts = append(s.facts, writ.StoredFact{Fact: *tx.Fact, Commit: c})
	}
	for _, o := range tx.Ops {
		s.apply(o, c)
	}
	if tx.Call != "" {
		s.calls[tx.Call], s.callAt[tx.Call] = c, now
	}
	m.notify()
	return c, nil
}

// checkLimits plays the counters' moves through, in order. No counter leaves
// the range every host holds exactly.
func (s *modelShard) checkLimits(tx writ.Tx) error {
	value := map[writ.Counter]int64{}
	for c, n := range s.counters {
		value[c] = n
	}
	if tx.Fact != nil && tx.Fact.Run != "" {
		value[writ.RunSequence(tx.Fact.Run)]++
	}
	for _, o := range tx.Ops {
		if o.Kind != writ.OpAdd {
			continue
		}
		value[o.Counter] += o.Delta
		if v := value[o.Counter]; o.HasLimit && v > o.Limit || v > writ.MaxAmount || v < -writ.MaxAmount {
			return &store.Limit{Counter: o.Counter}
		}
	}
	return nil
}

func (s *modelShard) check(g writ.Guard, now int64) error {
	name, member, ok := "", "", true
	switch g.Kind {
	case writ.GuardExpect:
		name, ok = string(g.Key), s.doc(g.Key, now).Version == g.Version
	case writ.GuardRange:
		name, ok = string(g.Index), s.versions[g.Index] == g.Version
	case writ.GuardFree:
		name = string(g.Index)
		for _, m := range s.rangeOf(writ.Range{Index: g.Index, From: g.From, To: g.To, Limit: 1 << 30}).Members {
			if ok && (g.Except == "" || !strings.HasSuffix(m.Name, " "+g.Except)) {
				member, ok = m.Name, false
			}
		}
	case writ.GuardWithin:
		v := s.counters[g.Counter]
		name, ok = g.Counter.Entity+"#"+g.Counter.Field, g.Lo <= v && v <= g.Hi
	case writ.GuardNotAfter:
		ok = now <= g.Hi
	case writ.GuardEpoch:
		if g.From != s.epoch {
			return store.ErrFenced
		}
	}
	if !ok {
		return &store.Conflict{Guard: g.Kind, Name: name, Member: member}
	}
	return nil
}

func (s *modelShard) apply(o writ.Op, c writ.Committed) {
	switch o.Kind {
	case writ.OpPut:
		d := modelDoc{Doc: writ.Doc{Version: c.Version(), Body: slices.Clone(o.Body)}}
		if o.TTLMs > 0 {
			d.expires = c.At + o.TTLMs
		}
		s.docs[o.Key] = d
	case writ.OpDelete:
		delete(s.docs, o.Key)
	case writ.OpIndex:
		if old, ok := s.indexes[o.Index][o.Member]; ok && old == o.Score {
			return
		}
		if s.indexes[o.Index] == nil {
			s.indexes[o.Index] = map[string]int64{}
		}
		s.indexes[o.Index][o.Member] = o.Score
		s.touch(o.Index)
	case writ.OpUnindex:
		if old, ok := s.indexes[o.Index][o.Member]; ok && (!o.IfScore || old == o.Score) {
			delete(s.indexes[o.Index], o.Member)
			s.touch(o.Index)
		}
	case writ.OpAdd:
		s.counters[o.Counter] += o.Delta
	case writ.OpPush:
		s.push(o.Lane, o.Entry)
	case writ.OpAck:
		if h, ok := s.held[o.ID]; ok && h.Lane == o.Lane {
			delete(s.held, o.ID)
		}
	}
}

// touch gives an index a version it never had: commits only rises.
func (s *modelShard) touch(i writ.Index) {
	switch {
	case len(s.indexes[i]) == 0:
		delete(s.versions, i)
	case i.Versioned():
		s.versions[i] = s.commits
	}
}

func (s *modelShard) push(l writ.Lane, entry string) {
	s.lanes[l] = append(s.lanes[l], entry)
	s.pushes = append(s.pushes, l)
}
