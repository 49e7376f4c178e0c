package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// fixture is one case at work: a store, a shard of its own, and short words
// for what cases say over and over. Its methods fail the test.
type fixture struct {
	*testing.T
	Opened
	ctx   context.Context
	shard writ.Tenant
	ids   atomic.Int64
}

func newFixture(t *testing.T, o Opened) *fixture {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return &fixture{T: t, Opened: o, ctx: ctx, shard: newShard()}
}

// tx starts a transaction under a fresh call id, with a fact.
func (f *fixture) tx() writ.Tx {
	n := f.ids.Add(1)
	return writ.Tx{
		Call: writ.CallID(fmt.Sprintf("cll_%026d", n)),
		Fact: &writ.Fact{
			ID: writ.ReceiptID(fmt.Sprintf("rcp_%026d", n)), KeyID: "SHA256:key",
			Head: fmt.Appendf(nil, "head %d", n), Tail: []byte("tail"),
		},
	}
}

// foreign is a fact that goes before another of a run.
func foreign(run writ.RunID, id string) *writ.Fact {
	return &writ.Fact{ID: writ.ReceiptID(id), Run: run, KeyID: "SHA256:theirs", Head: []byte("{}" + id), Sig: []byte{0, 1}, Public: []byte{2, 0}}
}

// quiet starts a transaction without a fact.
func (f *fixture) quiet() writ.Tx {
	tx := f.tx()
	tx.Fact = nil
	return tx
}

func (f *fixture) try(tx writ.Tx) (writ.Committed, error) {
	return f.Store.Commit(f.ctx, f.shard, tx)
}

func (f *fixture) commit(tx writ.Tx) writ.Committed {
	f.Helper()
	c, err := f.try(tx)
	if err != nil {
		f.Fatalf("commit: %v", err)
	}
	return c
}

// do commits one transaction with a fact that build fills.
func (f *fixture) do(build func(*writ.Tx)) writ.Committed {
	f.Helper()
	tx := f.tx()
	build(&tx)
	return f.commit(tx)
}

// refused commits and wants the conflict.
func (f *fixture) refused(tx writ.Tx, kind writ.GuardKind, name string) *store.Conflict {
	f.Helper()
	_, err := f.try(tx)
	c, ok := errors.AsType[*store.Conflict](err)
	if !ok {
		f.Fatalf("got error %v, want a conflict of %s %s", err, kind, name)
	}
	if c.Guard != kind || kind != writ.GuardNotAfter && c.Name != name {
		f.Fatalf("got conflict %q %q, want %q %q", c.Guard, c.Name, kind, name)
	}
	return c
}

// wants commits a transaction without a fact that build fills, and wants it to
// pass or to be refused by the guard.
func (f *fixture) wants(pass bool, kind writ.GuardKind, name string, build func(*writ.Tx)) {
	f.Helper()
	tx := f.quiet()
	build(&tx)
	if pass {
		f.commit(tx)
	} else {
		f.refused(tx, kind, name)
	}
}

func (f *fixture) read(rs writ.ReadSet) writ.Snapshot {
	f.Helper()
	s, err := f.Store.Read(f.ctx, f.shard, rs)
	if err != nil {
		f.Fatalf("read: %v", err)
	}
	return s
}

func (f *fixture) doc(k writ.Key) writ.Doc {
	f.Helper()
	return f.read(writ.ReadSet{Docs: []writ.Key{k}}).Docs[k]
}

func (f *fixture) wantDoc(k writ.Key, version int64, body string) {
	f.Helper()
	if d := f.doc(k); d.Version != version || string(d.Body) != body {
		f.Fatalf("document %s: got version %d %q, want version %d %q", k, d.Version, d.Body, version, body)
	}
}

func (f *fixture) counter(c writ.Counter) int64 {
	f.Helper()
	return f.read(writ.ReadSet{Counters: []writ.Counter{c}}).Counters[c]
}

func (f *fixture) find(r writ.Range) writ.RangeResult {
	f.Helper()
	if r.Limit == 0 {
		r.Limit = 1000
	}
	return f.read(writ.ReadSet{Ranges: []writ.Range{r}}).Ranges[r]
}

// wantRange compares the members found, written "name:score".
func (f *fixture) wantRange(r writ.Range, want ...string) {
	f.Helper()
	var got []string
	for _, m := range f.find(r).Members {
		got = append(got, fmt.Sprintf("%s:%d", m.Name, m.Score))
	}
	if !slices.Equal(got, want) {
		f.Fatalf("range %+v: got %v, want %v", r, got, want)
	}
}

func (f *fixture) head() store.Head {
	f.Helper()
	h, err := f.Store.Head(f.ctx, f.shard)
	if err != nil {
		f.Fatalf("head: %v", err)
	}
	return h
}

func (f *fixture) facts(after int64, n int) []writ.StoredFact {
	f.Helper()
	out, err := f.Store.Facts(f.ctx, f.shard, after, n, 0)
	if err != nil {
		f.Fatalf("facts: %v", err)
	}
	return out
}

func (f *fixture) receive(n int, lanes ...writ.Lane) []writ.Delivery {
	f.Helper()
	out, err := f.Store.Receive(f.ctx, f.shard, lanes, "consumer", n)
	if err != nil {
		f.Fatalf("receive: %v", err)
	}
	return out
}

// wantEntries receives and compares the entries.
func (f *fixture) wantEntries(n int, lane writ.Lane, want ...string) []writ.Delivery {
	f.Helper()
	got := f.receive(n, lane)
	if !slices.Equal(entriesOf(got), want) {
		f.Fatalf("received %v from %s, want %v", entriesOf(got), lane, want)
	}
	return got
}

func entriesOf(ds []writ.Delivery) (out []string) {
	for _, d := range ds {
		out = append(out, d.Entry)
	}
	return out
}

func (f *fixture) push(lane writ.Lane, entries ...string) {
	f.Helper()
	tx := f.quiet()
	for _, e := range entries {
		tx.Push(lane, e)
	}
	f.commit(tx)
}

// wantLanes compares the counts, written "lane:count", in any order.
func (f *fixture) wantLanes(want ...string) {
	f.Helper()
	counts, err := f.Store.Lanes(f.ctx, f.shard)
	if err != nil {
		f.Fatalf("lanes: %v", err)
	}
	var got []string
	for _, c := range counts {
		got = append(got, fmt.Sprintf("%s:%d", c.Lane, c.Count))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		f.Fatalf("lanes: got %v, want %v", got, want)
	}
}

// together runs fn n times at once and waits for all. fn reports by error, as
// only the test's own goroutine may end it.
func (f *fixture) together(n int, fn func(i int) error) {
	f.Helper()
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		f.Fatal(err)
	}
}

// stores are the handles a race is run over: one, or two replicas.
func (f *fixture) stores() []store.Store {
	if f.Peer == nil {
		return []store.Store{f.Store}
	}
	return []store.Store{f.Store, f.Peer(f)}
}
