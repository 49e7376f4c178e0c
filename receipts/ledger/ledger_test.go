package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/writ-gateway/writ"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(prefix string, n int64) string {
	return writ.MakeID(prefix, 1_767_225_600_000+n%7, [10]byte{0: byte(n * 37), 8: byte(n >> 8), 9: byte(n)})
}

// entryOf is the entry with a sequence; of a few runs, with and without evidence.
func entryOf(seq int64) Entry {
	e := Entry{Receipt: writ.Receipt{
		ID: writ.ReceiptID(id(writ.PrefixReceipt, seq)), Seq: seq, KeyID: "SHA256:key", Sig: []byte{1, byte(seq)},
		Payload: fmt.Appendf(nil, `{"seq":%d,"magic":"wrcp"}`, seq),
	}}
	if seq%3 > 0 {
		e.Run = writ.RunID(id(writ.PrefixRun, seq%3))
	}
	if seq%2 == 0 {
		e.Evidence = bytes.Repeat([]byte{byte(seq)}, int(seq%5)+1)
	}
	return e
}

func entries(from, to int64) []Entry {
	var out []Entry
	for seq := from; seq <= to; seq++ {
		out = append(out, entryOf(seq))
	}
	return out
}

func plain(d disk) disk { return d }

func mustOpen(t testing.TB, dir string, limit int64) *Ledger {
	t.Helper()
	l, err := open(dir, limit, plain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustAppend(t testing.TB, l *Ledger, es []Entry) {
	t.Helper()
	if err := l.Append(es); err != nil {
		t.Fatal(err)
	}
}

// holds checks that the ledger is exactly the entries 0 … last, by every way
// there is to read it.
func holds(t testing.TB, l *Ledger, last int64) {
	t.Helper()
	if got := l.Last(); got != last {
		t.Fatalf("Last() = %d, want %d", got, last)
	}
	if err := l.Check(); err != nil {
		t.Fatal(err)
	}
	runs := map[writ.RunID][]writ.Receipt{}
	var all []writ.Receipt
	for seq := int64(0); seq <= last; seq++ {
		e := entryOf(seq)
		all, runs[e.Run] = append(all, e.Receipt), append(runs[e.Run], e.Receipt)
		if got, ok, err := l.Get(seq); err != nil || !ok || !reflect.DeepEqual(got, e.Receipt) {
			t.Fatalf("Get(%d) = %+v, %v, %v", seq, got, ok, err)
		}
		if got, ok, err := l.ByID(e.ID); err != nil || !ok || got.Seq != seq {
			t.Fatalf("ByID of %d = %+v, %v, %v", seq, got, ok, err)
		}
	}
	for _, seq := range []int64{-1, last + 1} {
		if _, ok, err := l.Get(seq); ok || err != nil {
			t.Fatalf("Get(%d): %v, %v", seq, ok, err)
		}
		if _, ok, err := l.ByID(writ.ReceiptID(id(writ.PrefixReceipt, seq))); ok || err != nil {
			t.Fatalf("ByID of %d: %v, %v", seq, ok, err)
		}
	}
	if got, err := l.Range(-1, int(last)+2, ""); err != nil || !reflect.DeepEqual(got, all) {
		t.Fatalf("Range = %d receipts, %v; want %d", len(got), err, len(all))
	}
	for run, want := range runs {
		if got, err := l.Range(-1, int(last)+2, run); run != "" && (err != nil || !reflect.DeepEqual(got, want)) {
			t.Fatalf("Range of %s = %d receipts, %v; want %d", run, len(got), err, len(want))
		}
	}
	var iterated []writ.Receipt
	for r, err := range l.All(-1, last) {
		if err != nil {
			t.Fatal(err)
		}
		iterated = append(iterated, r)
	}
	if !reflect.DeepEqual(iterated, all) {
		t.Fatalf("All gives %d receipts, want %d", len(iterated), len(all))
	}
}

func TestLedger(t *testing.T) {
	seed := rand.Int63()
	r := rand.New(rand.NewSource(seed))
	dir := filepath.Join(t.TempDir(), "a", "ledger")
	last := int64(-1)
	for round := range 12 {
		l, err := open(dir, 900, plain) // a few records a segment
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if l.Cut() != 0 {
			t.Errorf("seed %d: %d bytes cut from a whole ledger", seed, l.Cut())
		}
		holds(t, l, last)
		for range r.Intn(6) {
			n := int64(r.Intn(5))
			mustAppend(t, l, entries(last+1, last+n))
			last += n
		}
		holds(t, l, last)
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
		if err := l.Append(entries(last+1, last+1)); !errors.Is(err, ErrClosed) {
			t.Errorf("append to a closed ledger: %v", err)
		}
		indexes, err := filepath.Glob(filepath.Join(dir, "*.idx"))
		if err != nil {
			t.Fatal(err)
		}
		for i, path := range indexes { // some go missing, some are damaged
			switch (i + round) % 4 {
			case 0:
				err = os.Remove(path)
			case 1:
				err = os.WriteFile(path, []byte("writidx1 nonsense"), 0o600)
			case 2:
				var b []byte
				if b, err = os.ReadFile(path); err == nil {
					b[r.Intn(len(b))] ^= 1 << r.Intn(8)
					err = os.WriteFile(path, b, 0o600)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if segs, err := segmentsIn(dir); err != nil || len(segs) < 3 {
		t.Errorf("seed %d: only %v segments, %v", seed, segs, err)
	}
}

func TestPages(t *testing.T) {
	l := mustOpen(t, t.TempDir(), 600)
	mustAppend(t, l, entries(0, 20))
	for _, c := range []struct {
		after      int64
		n          int
		run        writ.RunID
		first, len int64
	}{
		{-1, 5, "", 0, 5},
		{-9, 1, "", 0, 1},
		{4, 5, "", 5, 5},
		{18, 5, "", 19, 2},
		{20, 5, "", 0, 0},
		{99, 5, "", 0, 0},
		{-1, 2, writ.RunID(id(writ.PrefixRun, 1)), 1, 2},
		{4, 9, writ.RunID(id(writ.PrefixRun, 2)), 5, 6},
		{-1, 9, writ.RunID(id(writ.PrefixRun, 3)), 0, 0},
		{-1, 9, "nonsense", 0, 0},
		{-1, 0, "", 0, 0},
	} {
		got, err := l.Range(c.after, c.n, c.run)
		if err != nil || int64(len(got)) != c.len || c.len > 0 && got[0].Seq != c.first {
			t.Errorf("Range(%d, %d, %s) = %d receipts, %v; want %d from %d", c.after, c.n, c.run, len(got), err, c.len, c.first)
		}
	}
	if _, ok, err := l.ByID("../../etc/passwd"); ok || err != nil {
		t.Errorf("ByID of nonsense: %v, %v", ok, err)
	}
	var got []int64
	for r := range l.All(2, 9) {
		if got = append(got, r.Seq); r.Seq == 5 {
			break
		}
	}
	if !slices.Equal(got, []int64{3, 4, 5}) {
		t.Errorf("All(2, 9) until 5 = %v", got)
	}
}

func TestAppendRefuses(t *testing.T) {
	l := mustOpen(t, t.TempDir(), SegmentBytes)
	mustAppend(t, l, entries(0, 2))
	mustAppend(t, l, nil)
	spoiled := func(change func(*Entry)) []Entry {
		es := entries(3, 5)
		change(&es[1])
		return es
	}
	for name, c := range map[string]struct {
		es   []Entry
		want error
	}{
		"gap":      {entries(4, 5), ErrOrder},
		"again":    {entries(2, 3), ErrOrder},
		"inside":   {spoiled(func(e *Entry) { e.Seq = 7 }), ErrOrder},
		"negative": {[]Entry{{Receipt: writ.Receipt{Seq: -1}}}, ErrOrder},
		"no id":    {spoiled(func(e *Entry) { e.ID = "rcp_1" }), nil},
		"bad run":  {spoiled(func(e *Entry) { e.Run = "run_1" }), nil},
		"too big":  {spoiled(func(e *Entry) { e.Payload = make([]byte, maxBody) }), nil},
	} {
		if err := l.Append(c.es); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		holds(t, l, 2)
	}
	mustAppend(t, l, entries(3, 5))
	holds(t, l, 5)
}

func TestOneOwner(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, SegmentBytes)
	_, err := Open(dir)
	e, ok := errors.AsType[*writ.Error](err)
	if !ok || e.Code != writ.CodeNotReady || !strings.Contains(e.Msg, fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("second owner: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir, SegmentBytes)
}

func TestReadersAndWriter(t *testing.T) {
	l := mustOpen(t, t.TempDir(), 2000)
	const n = 400
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for l.Last() < n-1 {
				last := l.Last()
				if last < 0 {
					continue
				}
				if r, ok, err := l.Get(last); err != nil || !ok || r.Seq != last {
					t.Errorf("Get(%d): %+v, %v, %v", last, r, ok, err)
					return
				}
				if r, ok, err := l.ByID(entryOf(last / 2).ID); err != nil || !ok || r.Seq != last/2 {
					t.Errorf("ByID: %+v, %v, %v", r, ok, err)
					return
				}
				if rs, err := l.Range(last-5, 100, ""); err != nil || len(rs) < 1 {
					t.Errorf("Range: %d, %v", len(rs), err)
					return
				}
			}
		})
	}
	for seq := int64(0); seq < n; seq += 4 {
		mustAppend(t, l, entries(seq, seq+3))
	}
	wg.Wait()
	holds(t, l, n-1)
}

func FuzzRecord(f *testing.F) {
	for seq := range int64(4) {
		var x entry
		b, err := appendRecord(nil, entryOf(seq), int(seq), &x)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		b[len(b)/2] ^= 1
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readRecord(b)
		if err != nil {
			return
		}
		var x entry
		again, err := appendRecord(nil, r.Entry, int(r.place), &x)
		if err == nil && !bytes.Equal(again, b[:r.size]) {
			t.Fatalf("%q reads as %q", b, again)
		}
	})
}

func FuzzIndex(f *testing.F) {
	s := segment{size: 100, entries: []entry{{off: 0}, {off: 50}}}
	dir := f.TempDir()
	if err := s.writeIndex(dir); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, indexName(0)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, ok := parseIndex(b, 0, 100)
		if ok && len(b) != indexHead+indexEntry*len(entries)+4 {
			t.Fatalf("%d entries of %d bytes", len(entries), len(b))
		}
	})
}

func TestULID(t *testing.T) {
	for n := range int64(500) {
		want := id(writ.PrefixReceipt, n*7919)
		if got := writ.PrefixReceipt + Text(Binary(want)); got != want {
			t.Fatalf("%s reads as %s", want, got)
		}
	}
	if got := Text(Binary("rcp_7ZZZZZZZZZZZZZZZZZZZZZZZZZ")); got != "7ZZZZZZZZZZZZZZZZZZZZZZZZZ" {
		t.Error(got)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int64{1, 16, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := mustOpen(b, b.TempDir(), SegmentBytes)
			e := entryOf(0)
			e.Payload = make([]byte, 1500)
			seq := int64(0)
			for b.Loop() {
				es := make([]Entry, n)
				for i := range es {
					es[i] = e
					es[i].Seq = seq
					seq++
				}
				mustAppend(b, l, es)
			}
			b.ReportMetric(float64(seq)/b.Elapsed().Seconds(), "receipts/s")
		})
	}
}
