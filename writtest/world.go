package writtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/writ-gateway/writ"
)

// Epoch is the epoch of every World's shard.
const Epoch = "e1"

// World is one shard in memory. The zero value is not usable: call New. It is
// used by one goroutine.
type World struct {
	Now     int64                                 // milliseconds; tests move it by hand
	Archive func(writ.ArchiveRead) []writ.Receipt // answers reads of receipts; nil: none
	Tenant  writ.Tenant
	Facts   []Fact // what was committed, oldest first

	Blobs    map[string]writ.BlobState // how stored bytes are; absent when there is no entry
	Examined []string                  // digests whose bytes were read

	seq      int64
	docs     map[writ.Key]writ.Doc
	counters map[writ.Counter]int64
	indexes  map[writ.Index]map[string]int64
	versions map[writ.Index]int64
	ticks    int64 // source of versions of indexes
	lanes    map[writ.Lane][]string
	calls    int64
	cache    writ.DocCache
}

// Fact is what a commit with documents left behind.
type Fact struct {
	Call    writ.CallID
	Verb    writ.CapabilityID
	Receipt writ.ReceiptID
	Changes []writ.Change
	Version int64
}

// New makes an empty World at a fixed time.
func New() *World {
	return &World{
		Now:      1_767_225_600_000, // 2026-01-01T00:00:00Z
		Tenant:   "default",
		docs:     map[writ.Key]writ.Doc{},
		counters: map[writ.Counter]int64{},
		indexes:  map[writ.Index]map[string]int64{},
		versions: map[writ.Index]int64{},
		lanes:    map[writ.Lane][]string{},
	}
}

// Advance moves the clock by seconds.
func (w *World) Advance(seconds int64) { w.Now += seconds * 1000 }

// Snapshot reads a set. Limits of ranges outside 1–1000 are an error of the
// plan, found when a call runs; here they are applied as they are.
func (w *World) Snapshot(rs writ.ReadSet) writ.Snapshot {
	s := writ.Snapshot{
		Now: w.Now, Epoch: Epoch,
		Docs: map[writ.Key]writ.Doc{}, Counters: map[writ.Counter]int64{},
		Ranges: map[writ.Range]writ.RangeResult{}, Archive: map[writ.ArchiveRead][]writ.Receipt{},
		Cache: &w.cache, // as at the door
		Blobs: map[string]writ.BlobState{},
	}
	w.readInto(&s, rs)
	return s
}

func (w *World) readInto(s *writ.Snapshot, rs writ.ReadSet) {
	s.Now = w.Now
	for _, k := range rs.Docs {
		s.Docs[k] = w.docs[k]
	}
	for _, c := range rs.Counters {
		s.Counters[c] = w.counters[c]
	}
	for _, r := range rs.Ranges {
		s.Ranges[r] = writ.RangeResult{Members: w.members(r), Version: w.versions[r.Index]}
	}
	for _, a := range rs.Archive {
		s.Archive[a] = nil
		if w.Archive != nil {
			s.Archive[a] = w.Archive(a)
		}
	}
	for _, d := range rs.Blobs {
		w.Examined = append(w.Examined, d)
		if s.Blobs[d] = w.Blobs[d]; s.Blobs[d] == "" {
			s.Blobs[d] = writ.BlobAbsent
		}
	}
}

func (w *World) members(r writ.Range) []writ.Member {
	var out []writ.Member
	for name, score := range w.indexes[r.Index] {
		if r.Member != "" {
			if name == r.Member {
				out = append(out, writ.Member{Name: name, Score: score})
			}
			continue
		}
		if r.ByScore && (score < r.Min || score > r.Max) {
			continue
		}
		if !r.ByScore && (name < r.From || (r.To != "" && name >= r.To)) {
			continue
		}
		out = append(out, writ.Member{Name: name, Score: score})
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
	if r.Limit > 0 && len(out) > r.Limit {
		out = out[:r.Limit]
	}
	return out
}

// Seed stores a document as if a commit had written it, and returns its
// version.
func (w *World) Seed(k writ.Key, kind string, doc any) int64 {
	body, err := writ.EncodeDoc(writ.Snapshot{}, k, kind, doc)
	if err != nil {
		panic(err) // a test handed over something that is not a document
	}
	w.seq++
	w.docs[k] = writ.Doc{Version: w.seq, Body: body}
	return w.seq
}

// SetIndex gives a member a score.
func (w *World) SetIndex(i writ.Index, member string, score int64) {
	m := w.indexes[i]
	if m == nil {
		m = map[string]int64{}
		w.indexes[i] = m
	}
	if old, ok := m[member]; ok && old == score {
		return
	}
	m[member] = score
	w.touch(i)
}

// DropIndex removes a member.
func (w *World) DropIndex(i writ.Index, member string) {
	if _, ok := w.indexes[i][member]; !ok {
		return
	}
	delete(w.indexes[i], member)
	w.touch(i)
}

func (w *World) touch(i writ.Index) {
	if !i.Versioned() {
		return
	}
	w.ticks++
	w.versions[i] = w.ticks
	if len(w.indexes[i]) == 0 {
		delete(w.versions, i)
	}
}

// SetCounter gives a counter a value.
func (w *World) SetCounter(c writ.Counter, v int64) { w.counters[c] = v }

// Counter is a counter's value.
func (w *World) Counter(c writ.Counter) int64 { return w.counters[c] }

// Counters copies all counters.
func (w *World) Counters() map[writ.Counter]int64 { return maps.Clone(w.counters) }

// Index copies an index: member → score.
func (w *World) Index(i writ.Index) map[string]int64 {
	out := map[string]int64{}
	for k, v := range w.indexes[i] {
		out[k] = v
	}
	return out
}

// Members lists an index's members in lexical order.
func (w *World) Members(i writ.Index) []string {
	out := make([]string, 0, len(w.indexes[i]))
	for k := range w.indexes[i] {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Lane lists the entries of a lane, oldest first. The delivery id of an entry
// in a World is the entry itself.
func (w *World) Lane(l writ.Lane) []string { return slices.Clone(w.lanes[l]) }

// Lanes lists the lanes that hold entries.
func (w *World) Lanes() []writ.Lane {
	var out []writ.Lane
	for l, e := range w.lanes {
		if len(e) > 0 {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return out
}

// Get decodes a stored document; ok is false when it is absent.
func Get[T any](w *World, k writ.Key) (doc T, version int64, ok bool) {
	doc, version, ok, err := writ.Get[T](w.Snapshot(writ.ReadSet{Docs: []writ.Key{k}}), k)
	if err != nil {
		panic(err) // a document a test or a plan stored cannot be read back
	}
	return doc, version, ok
}

// Body decodes the finished body of a reply.
func Body[T any](r writ.Reply) (T, error) {
	var v T
	if len(r.JSON) == 0 {
		return v, fmt.Errorf("the reply has no body")
	}
	err := json.Unmarshal(r.JSON, &v)
	return v, err
}
