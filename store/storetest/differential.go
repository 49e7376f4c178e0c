package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Seed is where random operations begin: WRIT_SEED, so that a failure can be
// repeated, else the time.
func Seed(t testing.TB) int64 {
	t.Helper()
	s := os.Getenv("WRIT_SEED")
	if s == "" {
		return time.Now().UnixNano()
	}
	seed, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatalf("WRIT_SEED is not a number: %v", err)
	}
	return seed
}

// Differential applies the same n random operations to every store and to a
// Model: commits with guards and operations of every kind, valid and not,
// repeated calls, reads, receives, acks, give-backs, trims. Replies, errors and
// state must agree; versions of indexes, epochs, delivery ids and times are the
// host's own, and only their rules are checked. It uses one fresh shard. The
// seed is printed; a failure shows the last operations.
func Differential(t testing.TB, seed int64, n int, stores ...store.Store) {
	t.Helper()
	t.Logf("seed %d, %d operations (repeat with WRIT_SEED=%d)", seed, n, seed)
	d := &differential{
		TB: t, ctx: t.Context(), seed: seed, rng: rand.New(rand.NewPCG(uint64(seed), 0)), shard: newShard(),
		acks: map[int]writ.Lane{},
	}
	for i, s := range append([]store.Store{NewModel()}, stores...) {
		name := "the model"
		if i > 0 {
			name = fmt.Sprintf("store %d (%T)", i, s)
		}
		d.sides = append(d.sides, &side{
			name: name, store: s, held: map[int]writ.Delivery{}, first: map[writ.CallID]writ.Committed{},
			versions: map[writ.Index]map[int64]int64{},
		})
	}
	d.compare("an empty read", func(s *side) string {
		snap, err := s.store.Read(d.ctx, d.shard, writ.ReadSet{})
		s.epoch = snap.Epoch
		return outcome(err)
	})
	for d.step = range n {
		d.next()
		if d.step%1000 == 999 {
			d.everything()
		}
	}
	d.everything()
}

// soak says whether long tests run at full length.
func soak() bool { return os.Getenv("WRIT_SOAK") == "1" }

type differential struct {
	testing.TB
	ctx   context.Context
	seed  int64
	rng   *rand.Rand
	shard writ.Tenant
	sides []*side // the model first
	step  int
	trace []string

	calls    []writ.CallID
	received int
	acks     map[int]writ.Lane // deliveries by number, ended ones too
	past     []map[writ.Index]rangeVersions
}

// side is one store and what is its own about it.
type side struct {
	name     string
	store    store.Store
	epoch    string
	now      int64
	held     map[int]writ.Delivery // by number, the same on all sides
	first    map[writ.CallID]writ.Committed
	versions map[writ.Index]map[int64]int64 // index → own version → model's
}

// rangeVersions is the version of one index on every side at one time.
type rangeVersions []int64

// compare does one thing on every side and wants the same words from all.
func (d *differential) compare(what string, do func(*side) string) string {
	d.Helper()
	if d.trace = append(d.trace, fmt.Sprintf("%6d %s", d.step, what)); len(d.trace) > 25 {
		d.trace = d.trace[1:]
	}
	want := do(d.sides[0])
	d.trace[len(d.trace)-1] += " → " + want
	for _, s := range d.sides[1:] {
		if got := do(s); got != want {
			d.fail(s, "got %s, want %s", got, want)
		}
	}
	return want
}

func (d *differential) fail(s *side, format string, args ...any) {
	d.Helper()
	d.Fatalf("seed %d, operation %d: %s: %s\nthe last operations and what the model said:\n%s",
		d.seed, d.step, s.name, fmt.Sprintf(format, args...), strings.Join(d.trace, "\n"))
}

// next does one random thing.
func (d *differential) next() {
	switch p := d.rng.IntN(100); {
	case p < 58:
		d.commit()
	case p < 62:
		d.repeat()
	case p < 78:
		d.read(d.readSet())
	case p < 86:
		d.receive()
	case p < 90:
		d.giveBack()
	case p < 92:
		d.lanes()
	case p < 96:
		d.facts(int64(d.rng.IntN(d.step+2)) - 1)
	case p < 98:
		d.trim()
	default:
		d.head()
	}
}

// outcome puts an error into words that every host must agree on.
func outcome(err error) string {
	if c, ok := errors.AsType[*store.Conflict](err); ok {
		if c.Guard == writ.GuardNotAfter {
			return "conflict not_after"
		}
		return fmt.Sprintf("conflict %s %s %q", c.Guard, c.Name, c.Member)
	}
	if l, ok := errors.AsType[*store.Limit](err); ok {
		return fmt.Sprintf("limit %s#%s", l.Counter.Entity, l.Counter.Field)
	}
	for _, known := range []error{store.ErrFenced, store.ErrInvalid, store.ErrFull, store.ErrClosed} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if err != nil {
		return "error: " + err.Error()
	}
	return "ok"
}

func (d *differential) commit() {
	tx, bind := d.tx()
	told := d.compare(describe(tx), func(s *side) string {
		own := tx
		own.Guards, own.Ops = slices.Clone(tx.Guards), slices.Clone(tx.Ops)
		for _, b := range bind {
			b(s, &own)
		}
		c, err := s.store.Commit(d.ctx, d.shard, own)
		if err != nil {
			return outcome(err)
		}
		if c.Epoch != s.epoch || c.At < s.now {
			d.fail(s, "committed %+v in epoch %s at or after %d", c, s.epoch, s.now)
		}
		s.first[tx.Call] = c
		return fmt.Sprintf("seq %d runSeq %d", c.Seq, c.RunSeq)
	})
	if strings.HasPrefix(told, "seq") {
		d.calls = append(d.calls, tx.Call)
		d.notePast(tx)
	}
}

// repeat sends other work under the id of a call that was committed.
func (d *differential) repeat() {
	if len(d.calls) == 0 {
		return
	}
	tx, _ := d.validTx()
	tx.Call = d.calls[len(d.calls)-1-d.rng.IntN(min(len(d.calls), 100))]
	d.compare("repeat of "+string(tx.Call), func(s *side) string {
		c, err := s.store.Commit(d.ctx, d.shard, tx)
		if err == nil && c != s.first[tx.Call] {
			d.fail(s, "got %+v, at first it was %+v", c, s.first[tx.Call])
		}
		return outcome(err)
	})
}

func (d *differential) read(rs writ.ReadSet) {
	var model writ.Snapshot
	d.compare(fmt.Sprintf("read %v %v %+v", rs.Docs, rs.Counters, rs.Ranges), func(s *side) string {
		snap, err := s.store.Read(d.ctx, d.shard, rs)
		if err != nil {
			return outcome(err)
		}
		if s == d.sides[0] {
			model = snap
		}
		if snap.Epoch != s.epoch || snap.Now < s.now {
			d.fail(s, "read in epoch %s at %d, want %s and not before %d", snap.Epoch, snap.Now, s.epoch, s.now)
		}
		s.now = snap.Now
		var b strings.Builder
		for _, k := range rs.Docs {
			doc, asked := snap.Docs[k]
			fmt.Fprintf(&b, "%s=%d%q%v ", k, doc.Version, doc.Body, asked)
		}
		for _, c := range rs.Counters {
			n, asked := snap.Counters[c]
			fmt.Fprintf(&b, "%s#%s=%d%v ", c.Entity, c.Field, n, asked)
		}
		for _, r := range rs.Ranges {
			res, asked := snap.Ranges[r]
			fmt.Fprintf(&b, "%s=%q%v ", r.Index, fmt.Sprint(res.Members), asked)
			d.checkVersion(s, r.Index, res.Version, model.Ranges[r].Version)
		}
		return b.String()
	})
}

// checkVersion wants a host's version to be 0 when the model's is, and never
// to stand for two states that the model tells apart.
func (d *differential) checkVersion(s *side, i writ.Index, own, model int64) {
	if s.versions[i] == nil {
		s.versions[i] = map[int64]int64{}
	}
	before, seen := s.versions[i][own]
	if (own == 0) != (model == 0) || seen && before != model {
		d.fail(s, "index %s has version %d again: it stood for %d and now for %d", i, own, before, model)
	}
	s.versions[i][own] = model
}

func (d *differential) receive() {
	lanes := slices.Clone(genLanes)
	d.rng.Shuffle(len(lanes), func(i, j int) { lanes[i], lanes[j] = lanes[j], lanes[i] })
	lanes = lanes[:1+d.rng.IntN(len(lanes))]
	n, got := 1+d.rng.IntN(3), 0
	d.compare(fmt.Sprintf("receive %d of %v", n, lanes), func(s *side) string {
		ds, err := s.store.Receive(d.ctx, d.shard, lanes, "consumer", n)
		var b strings.Builder
		for i, dv := range ds {
			s.held[d.received+i] = dv
			d.acks[d.received+i] = dv.Lane
			fmt.Fprintf(&b, "%s:%s ", dv.Lane, dv.Entry)
		}
		got = len(ds)
		return b.String() + outcome(err)
	})
	d.received += got
}

// pick is the number of a recent delivery, which may have ended.
func (d *differential) pick() (int, bool) {
	if d.received == 0 {
		return 0, false
	}
	return d.received - 1 - d.rng.IntN(min(d.received, 12)), true
}

func (d *differential) giveBack() {
	n, ok := d.pick()
	if !ok {
		return
	}
	d.compare(fmt.Sprintf("give back delivery %d", n), func(s *side) string {
		return outcome(s.store.GiveBack(d.ctx, d.shard, "consumer", s.held[n]))
	})
}

func (d *differential) lanes() {
	d.compare("lanes", func(s *side) string {
		counts, err := s.store.Lanes(d.ctx, d.shard)
		slices.SortFunc(counts, func(a, b writ.LaneCount) int { return strings.Compare(string(a.Lane), string(b.Lane)) })
		return fmt.Sprint(counts, " ", outcome(err))
	})
}

func (d *differential) facts(after int64) {
	n := 1 + d.rng.IntN(20)
	d.compare(fmt.Sprintf("%d facts after %d", n, after), func(s *side) string {
		facts, err := s.store.Facts(d.ctx, d.shard, after, n, 0)
		var b bytes.Buffer
		for _, f := range facts {
			if f.Commit.Epoch != s.epoch {
				d.fail(s, "fact %+v in epoch %s", f.Commit, s.epoch)
			}
			fmt.Fprintf(&b, "%d/%d %s %s %s %x %x %x %x %x; ", f.Commit.Seq, f.Commit.RunSeq, f.ID, f.Run, f.KeyID, f.Head, f.Tail, f.Evidence, f.Sig, f.Public)
		}
		return b.String() + outcome(err)
	})
}

func (d *differential) trim() {
	h, _ := d.sides[0].store.Head(d.ctx, d.shard)
	upto := h.Trimmed + int64(d.rng.IntN(200)) - 20
	d.compare(fmt.Sprintf("trim up to %d", upto), func(s *side) string {
		return outcome(s.store.Trim(d.ctx, d.shard, upto))
	})
}

func (d *differential) head() {
	d.compare("head", func(s *side) string {
		h, err := s.store.Head(d.ctx, d.shard)
		if h.Epoch != s.epoch {
			d.fail(s, "head %+v in epoch %s", h, s.epoch)
		}
		return fmt.Sprintf("seq %d trimmed %d backlog %d %s", h.Seq, h.Trimmed, h.Backlog, outcome(err))
	})
}

// everything compares the whole state that the generator's names reach.
func (d *differential) everything() {
	rs := writ.ReadSet{Docs: genDocs, Counters: genCounters}
	for _, i := range genIndexes {
		rs.Ranges = append(rs.Ranges, writ.Range{Index: i, ByScore: true, Max: writ.MaxAmount, Limit: 1000})
	}
	d.read(rs)
	d.lanes()
	d.head()
	h, _ := d.sides[0].store.Head(d.ctx, d.shard)
	d.facts(h.Trimmed - 1)
	d.facts(h.Seq - 10)
}
