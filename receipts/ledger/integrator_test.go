package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

const shard = writ.Tenant("default")

// outbox is the outbox of a store, with faults.
type outbox struct {
	mu      sync.Mutex
	facts   []writ.StoredFact // by sequence
	trimmed int64
	moved   chan struct{} // closed and replaced at each commit

	failFacts, failTrim, failHead error
	keepTrim                      bool   // a failing Trim works all the same
	before, after                 func() // hooks of Facts: before it looks, and when it has
}

func newOutbox() *outbox { return &outbox{trimmed: -1, moved: make(chan struct{})} }

func factOf(seq int64) writ.StoredFact {
	e := entryOf(seq)
	f := writ.StoredFact{
		Fact:   writ.Fact{ID: e.ID, Run: e.Run, KeyID: "SHA256:key", Head: fmt.Appendf(nil, `{"n":%d,"commit":`, seq), Tail: []byte("}"), Evidence: e.Evidence},
		Commit: writ.Committed{Epoch: "e", Seq: seq, At: seq},
	}
	switch {
	case seq%5 == 3: // a foreign one: that after it rests on it, and the two may be in different groups
		f.Head, f.Tail, f.Evidence, f.Sig, f.Public = fmt.Appendf(nil, `{"theirs":%d}`, seq), nil, nil, []byte("their sig"), []byte("their key")
	case e.Run != "":
		f.Commit.RunSeq = seq + 1
	}
	return f
}

// commit adds n facts.
func (o *outbox) commit(n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for range n {
		o.facts = append(o.facts, factOf(int64(len(o.facts))))
	}
	close(o.moved)
	o.moved = make(chan struct{})
}

func (o *outbox) Facts(ctx context.Context, _ writ.Tenant, after int64, n int, wait time.Duration) ([]writ.StoredFact, error) {
	end := time.NewTimer(wait)
	defer end.Stop()
	if hook := o.before; hook != nil {
		hook()
	}
	for {
		o.mu.Lock()
		if o.failFacts != nil {
			o.mu.Unlock()
			return nil, o.failFacts
		}
		var out []writ.StoredFact
		for _, f := range o.facts[min(max(after, o.trimmed)+1, int64(len(o.facts))):] {
			if len(out) < n {
				out = append(out, f)
			}
		}
		moved, hook := o.moved, o.after
		o.mu.Unlock()
		if hook != nil {
			hook()
		}
		if len(out) > 0 || wait == 0 {
			return out, nil
		}
		select {
		case <-moved:
		case <-end.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (o *outbox) Trim(_ context.Context, _ writ.Tenant, upto int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failTrim == nil || o.keepTrim {
		o.trimmed = max(o.trimmed, upto)
	}
	return o.failTrim
}

func (o *outbox) Head(context.Context, writ.Tenant) (store.Head, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return store.Head{Epoch: "e", Seq: int64(len(o.facts)) - 1, Trimmed: o.trimmed}, o.failHead
}

// sealer seals without a key.
type sealer struct{ fail error }

func (s sealer) Seal(f writ.StoredFact) (writ.Receipt, error) {
	r := writ.Receipt{ID: f.ID, Seq: f.Commit.Seq, Payload: f.Payload(), KeyID: f.KeyID, Sig: []byte("sig"), Evidence: f.Evidence}
	if f.Foreign() {
		r.Sig, r.Public = f.Sig, f.Public
	}
	return r, s.fail
}

// integrated checks that the ledger is the facts 0 … last of the outbox.
func integrated(t testing.TB, l *Ledger, o *outbox, last int64) {
	t.Helper()
	if got := l.Last(); got != last {
		t.Fatalf("the ledger ends at %d, want %d", got, last)
	}
	if err := l.Check(); err != nil {
		t.Fatal(err)
	}
	if o.trimmed > last {
		t.Fatalf("trimmed up to %d, the ledger ends at %d", o.trimmed, last)
	}
	next := int64(0)
	for r, err := range l.All(-1, last) {
		want, _ := sealer{}.Seal(factOf(next))
		if err != nil || !reflect.DeepEqual(r, want) {
			t.Fatalf("receipt %d: %+v, %v\nwant %+v", next, r, err, want)
		}
		next++
	}
}

// In a synctest bubble a sleep ends when the integrator has nothing left to do.
const aWhile = 10 * wait

func TestIntegrator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		o, dir := newOutbox(), t.TempDir()
		o.commit(3)
		total := int64(3)
		for range 4 {
			l := mustOpen(t, dir, 3000)
			g := NewIntegrator(shard, l, o, sealer{})
			if err := errors.Join(g.Stop(ctx), g.Start(ctx), g.Start(ctx)); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				o.commit(17)
				total += 17
			}
			if lag, err := g.Lag(ctx); err != nil || lag < 0 || lag > total {
				t.Fatalf("lag %d, %v", lag, err)
			}
			time.Sleep(aWhile)
			if lag, err := g.Lag(ctx); err != nil || lag != 0 {
				t.Fatalf("lag %d, %v", lag, err)
			}
			integrated(t, l, o, total-1)
			if o.trimmed != total-2 {
				t.Errorf("an idle integrator has trimmed up to %d, want %d", o.trimmed, total-2)
			}
			if err := errors.Join(g.Stop(ctx), g.Stop(ctx)); err != nil {
				t.Fatal(err)
			}
			<-g.Done()
			if err := errors.Join(g.Err(), l.Close()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Every step can fail before or after it had its effect. Nothing is lost or
// repeated, and the next round or the next start goes on.
func TestCrashPoints(t *testing.T) {
	for name, c := range map[string]struct {
		arm      func(o *outbox, s *sealer, d *fault)
		want     error
		progress bool // the ledger has grown all the same
		reopen   bool // only a new start goes on
	}{
		"1 read":                 {func(o *outbox, _ *sealer, _ *fault) { o.failFacts = syscall.ECONNRESET }, syscall.ECONNRESET, false, false},
		"2 seal":                 {func(_ *outbox, s *sealer, _ *fault) { s.fail = errors.New("no key") }, errSeal, false, true},
		"3 append, lost":         {func(_ *outbox, _ *sealer, d *fault) { d.write = syscall.ENOSPC }, syscall.ENOSPC, false, false},
		"3 append, torn":         {func(_ *outbox, _ *sealer, d *fault) { d.write, d.keep = syscall.ENOSPC, 333 }, syscall.ENOSPC, false, false},
		"3 append, kept":         {func(_ *outbox, _ *sealer, d *fault) { d.write, d.keep = syscall.EIO, 1<<20 }, syscall.EIO, false, false},
		"3 append, torn for now": {func(_ *outbox, _ *sealer, d *fault) { d.write, d.keep, d.truncate = syscall.EIO, 333, syscall.EIO }, syscall.EIO, false, true},
		"3 sync":                 {func(_ *outbox, _ *sealer, d *fault) { d.sync = syscall.EIO }, ErrFailed, false, true},
		"4 trim, lost":           {func(o *outbox, _ *sealer, _ *fault) { o.failTrim = syscall.EPIPE }, syscall.EPIPE, true, false},
		"4 trim, kept":           {func(o *outbox, _ *sealer, _ *fault) { o.failTrim, o.keepTrim = syscall.EPIPE, true }, syscall.EPIPE, true, false},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			ctx, dir := t.Context(), t.TempDir()
			var d fault
			wrap := func(f disk) disk { return faulty{f, &d} }
			l, err := open(dir, 5000, wrap)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { l.Close() }()
			o, s := newOutbox(), &sealer{}
			o.commit(4)
			g := NewIntegrator(shard, l, o, s)
			if n, err := g.Round(ctx, 0); n != 4 || err != nil {
				t.Fatalf("first round: %d, %v", n, err)
			}
			o.commit(batch)
			c.arm(o, s, &d)
			if _, err := g.Round(ctx, 0); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			last := int64(3)
			if c.progress {
				last += batch
			}
			integrated(t, l, o, last)
			o.failFacts, o.failTrim, s.fail, d = nil, nil, nil, fault{}
			if c.reopen {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if l, err = open(dir, 5000, wrap); err != nil {
					t.Fatal(err)
				}
				g = NewIntegrator(shard, l, o, s)
			}
			if err := g.Compare(ctx); err != nil {
				t.Fatal(err)
			}
			for n := 1; n > 0; {
				if n, err = g.Round(ctx, 0); err != nil {
					t.Fatal(err)
				}
			}
			integrated(t, l, o, batch+3)
			if o.trimmed != batch+2 {
				t.Errorf("an idle integrator has trimmed up to %d, want %d", o.trimmed, batch+2)
			}
		})
	}
}

// A history that does not fit stops the loop for good; an outage does not.
func TestIntegratorStops(t *testing.T) {
	for name, c := range map[string]struct {
		arm  func(o *outbox, s *sealer, d *fault)
		want error
	}{
		"gap":    {func(o *outbox, _ *sealer, _ *fault) { o.facts[2].Commit.Seq = 7 }, ErrOrder},
		"repeat": {func(o *outbox, _ *sealer, _ *fault) { o.facts[2].Commit.Seq = 1 }, ErrOrder},
		"seal":   {func(_ *outbox, s *sealer, _ *fault) { s.fail = errors.New("no key") }, errSeal},
		"sync":   {func(_ *outbox, _ *sealer, d *fault) { d.sync = syscall.EIO }, ErrFailed},
	} {
		t.Run(name, func(t *testing.T) {
			var d fault
			l, err := open(t.TempDir(), SegmentBytes, func(f disk) disk { return faulty{f, &d} })
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			o, s := newOutbox(), &sealer{}
			o.commit(4)
			c.arm(o, s, &d)
			g := NewIntegrator(shard, l, o, s)
			if err := g.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			<-g.Done()
			if err := g.Err(); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if l.Last() != -1 || o.trimmed != -1 {
				t.Errorf("went on: ledger %d, trimmed %d", l.Last(), o.trimmed)
			}
			if err := g.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A store that went back and was written to since is as long as its ledger, or
// longer, and is another history: the loop stops for good, and nothing is
// appended or trimmed. So it is whether facts wait for the ledger or not.
func TestIntegratorStopsAtAnotherHistory(t *testing.T) {
	for name, length := range map[string]int64{"as long": 10, "longer": 13} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, o := mustOpen(t, t.TempDir(), SegmentBytes), newOutbox()
				o.commit(10)
				g := NewIntegrator(shard, l, o, sealer{})
				if err := g.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(aWhile)
				integrated(t, l, o, 9)

				o.mu.Lock()
				o.facts, o.trimmed = o.facts[:5], 3
				for seq := int64(5); seq < length; seq++ {
					f := factOf(seq)
					f.ID, f.Commit.Epoch = entryOf(100+seq).ID, "f"
					o.facts = append(o.facts, f)
				}
				o.mu.Unlock()
				o.commit(0) // moves nothing but the loop
				time.Sleep(aWhile)
				if err := g.Err(); !errors.Is(err, ErrOrder) || !g.Stopped() {
					t.Errorf("got %v, stopped %v, want %v", err, g.Stopped(), ErrOrder)
				}
				if err := g.Stop(t.Context()); err != nil {
					t.Error(err)
				}
				if l.Last() != 9 || o.trimmed != 3 {
					t.Errorf("went on: ledger %d, trimmed %d", l.Last(), o.trimmed)
				}
			})
		})
	}
}

// An earlier version trimmed the last fact too: the ledger goes on behind it,
// and from then on there is one to compare.
func TestIntegratorGoesOnBehindATrimmedFact(t *testing.T) {
	l, o := mustOpen(t, t.TempDir(), SegmentBytes), newOutbox()
	g := NewIntegrator(shard, l, o, sealer{})
	o.commit(4)
	if n, err := g.Round(t.Context(), 0); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	o.trimmed = 3
	for _, n := range []int64{0, 3, 0} {
		o.commit(n)
		if got, err := g.Round(t.Context(), 0); int64(got) != n || err != nil {
			t.Fatalf("%d, %v, want %d", got, err, n)
		}
	}
	integrated(t, l, o, 6)
	if o.trimmed != 5 {
		t.Errorf("trimmed up to %d, want 5", o.trimmed)
	}
}

func TestIntegratorWaitsOutAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, o := mustOpen(t, t.TempDir(), SegmentBytes), newOutbox()
		o.commit(4)
		o.failFacts = syscall.ECONNREFUSED
		g := NewIntegrator(shard, l, o, sealer{})
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(aWhile)
		if err := g.Err(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("during the outage: %v", err)
		}
		o.mu.Lock()
		o.failFacts = nil
		o.mu.Unlock()
		time.Sleep(aWhile)
		if err := g.Err(); err != nil {
			t.Error(err)
		}
		if err := g.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		integrated(t, l, o, 3)
	})
}

func TestStartCompares(t *testing.T) {
	for name, c := range map[string]struct {
		arm  func(o *outbox)
		want error
	}{
		"fits":           {func(*outbox) {}, nil},
		"ahead":          {func(o *outbox) { o.commit(5) }, nil},
		"trimmed":        {func(o *outbox) { o.trimmed = 9 }, nil},
		"behind":         {func(o *outbox) { o.facts = o.facts[:9] }, errBehind},
		"empty":          {func(o *outbox) { o.facts = nil }, errBehind},
		"trimmed beyond": {func(o *outbox) { o.commit(5); o.trimmed = 12 }, ErrOrder},
		"other id":       {func(o *outbox) { o.facts[9].ID = entryOf(99).ID }, ErrOrder},
		"other words":    {func(o *outbox) { o.facts[9].Commit.Epoch = "f" }, ErrOrder},
		"no store":       {func(o *outbox) { o.failHead = syscall.ECONNREFUSED }, syscall.ECONNREFUSED},
		"no facts":       {func(o *outbox) { o.failFacts = syscall.ECONNREFUSED }, syscall.ECONNREFUSED},
	} {
		t.Run(name, func(t *testing.T) {
			l, o := mustOpen(t, t.TempDir(), SegmentBytes), newOutbox()
			o.commit(10)
			o.failTrim = errors.New("not now") // so the facts stay
			if n, err := NewIntegrator(shard, l, o, sealer{}).Round(t.Context(), 0); n != 10 || err != nil {
				t.Fatal(n, err)
			}
			o.failTrim = nil
			c.arm(o)
			g := NewIntegrator(shard, l, o, sealer{})
			err := g.Start(t.Context())
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err := g.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestArchive(t *testing.T) {
	ctx := t.Context()
	l, o := mustOpen(t, t.TempDir(), 2000), newOutbox()
	a := NewArchive(map[writ.Tenant]*Ledger{shard: l}, o, sealer{})
	g := NewIntegrator(shard, l, o, sealer{})
	seed := rand.Int63()
	r := rand.New(rand.NewSource(seed))
	total := int64(0)
	for range 30 {
		n := int64(r.Intn(20))
		o.commit(n)
		total += n
		if r.Intn(2) == 0 {
			if _, err := g.Round(ctx, 0); err != nil {
				t.Fatal(err)
			}
		}
		reads(t, a, r, total, seed)
	}
	// While facts move from the outbox to the ledger a reader misses none,
	// whether they go just before it looks into the outbox or just after.
	move := func() {
		o.before, o.after = nil, nil
		for n := 1; n > 0; {
			var err error
			if n, err = g.Round(ctx, 0); err != nil {
				t.Error(err)
			}
		}
	}
	for name, arm := range map[string]func(){"before": func() { o.before = move }, "after": func() { o.after = move }} {
		o.commit(300)
		total += 300
		arm()
		got, err := a.Read(ctx, shard, writ.ArchiveRead{After: total - 301, Limit: 300})
		if err != nil || len(got) != 300 || got[0].Seq != total-300 || o.trimmed != total-2 {
			t.Errorf("%s: a page that was trimmed meanwhile: %d, %v (trimmed %d)", name, len(got), err, o.trimmed)
		}
		o.commit(300)
		total += 300
		arm()
		if got, err = a.Read(ctx, shard, writ.ArchiveRead{Receipt: entryOf(total - 1).ID}); err != nil || len(got) != 1 || got[0].Seq != total-1 {
			t.Errorf("%s: a receipt that was trimmed meanwhile: %+v, %v", name, got, err)
		}
	}
	reads(t, a, r, total, seed)

	// A replica without the ledger sees what the outbox still has.
	o.commit(5)
	b := NewArchive(nil, o, sealer{})
	if got, err := b.Read(ctx, shard, writ.ArchiveRead{After: total - 1, Limit: 9}); err != nil || len(got) != 5 || got[0].Seq != total {
		t.Errorf("without a ledger: %d receipts, %v", len(got), err)
	}
	if got, err := b.Read(ctx, shard, writ.ArchiveRead{Receipt: entryOf(total + 1).ID}); err != nil || len(got) != 1 {
		t.Errorf("without a ledger, in the outbox: %+v, %v", got, err)
	}
	// What it does not have it does not pretend to have.
	for _, q := range []writ.ArchiveRead{{After: -1, Limit: 9}, {After: -1, Limit: 1}, {Receipt: entryOf(0).ID}} {
		if got, err := b.Read(ctx, shard, q); writ.CodeOf(err) != writ.CodeNotFound || len(got) != 0 {
			t.Errorf("without a ledger: %+v, %v", got, err)
		}
	}
	for _, a := range []*Archive{a, b} {
		last := total + 4
		if got, err := a.Read(ctx, shard, writ.ArchiveRead{After: last, Limit: 9}); err != nil || len(got) != 0 {
			t.Errorf("after the last: %d receipts, %v", len(got), err)
		}
		for _, after := range []int64{last + 1, 1 << 53, 1<<63 - 1} {
			if got, err := a.Read(ctx, shard, writ.ArchiveRead{After: after, Limit: 9}); writ.CodeOf(err) != writ.CodeInputInvalid || len(got) != 0 {
				t.Errorf("after %d of %d: %d receipts, %v", after, last, len(got), err)
			}
		}
	}
	o.failFacts, o.failHead = syscall.ECONNREFUSED, syscall.ECONNREFUSED
	for _, a := range []*Archive{a, b} {
		if _, err := a.Read(ctx, shard, writ.ArchiveRead{After: total, Limit: 9}); writ.CodeOf(err) != writ.CodeStore {
			t.Errorf("without a store: %v", err)
		}
	}
}

func reads(t *testing.T, a *Archive, r *rand.Rand, total, seed int64) {
	t.Helper()
	ctx := t.Context()
	for range 10 {
		q := writ.ArchiveRead{After: r.Int63n(total+3) - 2, Limit: r.Intn(40) - 1}
		if r.Intn(2) == 0 {
			q.Run = writ.RunID(id(writ.PrefixRun, 1+r.Int63n(3)))
		}
		if q.After >= total { // the log has not come so far
			if got, err := a.Read(ctx, shard, q); writ.CodeOf(err) != writ.CodeInputInvalid || len(got) > 0 {
				t.Fatalf("seed %d: %+v of %d: %d receipts, %v", seed, q, total, len(got), err)
			}
			continue
		}
		var want []writ.Receipt
		for seq := max(q.After+1, 0); seq < total && len(want) < max(q.Limit, 1); seq++ {
			if f := factOf(seq); q.Run == "" || f.Run == q.Run {
				rcp, _ := sealer{}.Seal(f)
				want = append(want, rcp)
			}
		}
		if got, err := a.Read(ctx, shard, q); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: %+v of %d: %d receipts, %v; want %d", seed, q, total, len(got), err, len(want))
		}
		seq := r.Int63n(total + 2)
		got, err := a.Read(ctx, shard, writ.ArchiveRead{Receipt: entryOf(seq).ID})
		if err != nil || (len(got) == 1) != (seq < total) || len(got) == 1 && got[0].Seq != seq {
			t.Fatalf("seed %d: receipt %d of %d: %+v, %v", seed, seq, total, got, err)
		}
	}
}

// Start and Stop from many goroutines leave nothing running (goleak looks).
func TestStartStop(t *testing.T) {
	l, o := mustOpen(t, filepath.Join(t.TempDir(), "l"), SegmentBytes), newOutbox()
	o.commit(10)
	g := NewIntegrator(shard, l, o, sealer{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := g.Start(t.Context()); err != nil {
				t.Error(err)
			}
			if err := g.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	<-g.Done()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Stop(cancelled); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A steady trickle never leaves the integrator idle, and is trimmed all the
// same: the age of the oldest fact in the outbox says how late the ledger is.
func TestATrickleIsTrimmed(t *testing.T) {
	l, o := mustOpen(t, t.TempDir(), SegmentBytes), newOutbox()
	g := NewIntegrator(shard, l, o, sealer{})
	for i, want := range []int64{-1, -1, 1, 1} {
		o.commit(1)
		if i == 2 {
			g.trimmedAt = g.trimmedAt.Add(-trimAge)
		}
		if n, err := g.Round(t.Context(), 0); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if o.trimmed != want {
			t.Errorf("after round %d trimmed up to %d, want %d", i, o.trimmed, want)
		}
	}
}
