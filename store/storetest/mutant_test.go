package storetest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// mutant is a host with one defect.
type mutant struct {
	*Model
	tamper  func(*writ.Tx)
	reading func(*writ.Range)
	trims   func(int64) int64
	takes   func(lanes []writ.Lane, n int) ([]writ.Lane, int)
	keeps   bool // gives nothing back
}

func (m *mutant) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	if m.tamper != nil && tx.Check() == nil {
		tx.Guards, tx.Ops = slices.Clone(tx.Guards), slices.Clone(tx.Ops)
		if tx.Fact != nil {
			f := *tx.Fact
			tx.Fact = &f
		}
		m.tamper(&tx)
	}
	return m.Model.Commit(ctx, shard, tx)
}

func (m *mutant) Read(ctx context.Context, shard writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error) {
	if m.reading == nil {
		return m.Model.Read(ctx, shard, rs)
	}
	asked := rs.Ranges
	rs.Ranges = slices.Clone(asked)
	for i := range rs.Ranges {
		m.reading(&rs.Ranges[i])
	}
	snap, err := m.Model.Read(ctx, shard, rs)
	found := snap.Ranges
	snap.Ranges = map[writ.Range]writ.RangeResult{}
	for i, r := range asked {
		snap.Ranges[r] = found[rs.Ranges[i]]
	}
	return snap, err
}

func (m *mutant) Trim(ctx context.Context, shard writ.Tenant, upto int64) error {
	if m.trims != nil {
		upto = m.trims(upto)
	}
	return m.Model.Trim(ctx, shard, upto)
}

func (m *mutant) Receive(ctx context.Context, shard writ.Tenant, lanes []writ.Lane, consumer string, n int) ([]writ.Delivery, error) {
	if m.takes != nil {
		lanes, n = m.takes(slices.Clone(lanes), n)
	}
	return m.Model.Receive(ctx, shard, lanes, consumer, n)
}

func (m *mutant) GiveBack(ctx context.Context, shard writ.Tenant, consumer string, d writ.Delivery) error {
	if m.keeps {
		return nil
	}
	return m.Model.GiveBack(ctx, shard, consumer, d)
}

func withoutGuards(k writ.GuardKind) *mutant {
	return &mutant{tamper: func(tx *writ.Tx) {
		tx.Guards = slices.DeleteFunc(tx.Guards, func(g writ.Guard) bool { return g.Kind == k })
	}}
}

func withoutOps(k writ.OpKind) *mutant {
	return &mutant{tamper: func(tx *writ.Tx) {
		tx.Ops = slices.DeleteFunc(tx.Ops, func(o writ.Op) bool { return o.Kind == k })
	}}
}

func guardWith(change func(*writ.Guard)) *mutant {
	return &mutant{tamper: func(tx *writ.Tx) {
		for i := range tx.Guards {
			change(&tx.Guards[i])
		}
	}}
}

func opWith(change func(*writ.Op)) *mutant {
	return &mutant{tamper: func(tx *writ.Tx) {
		for i := range tx.Ops {
			change(&tx.Ops[i])
		}
	}}
}

func factWith(change func(*writ.Fact)) *mutant {
	return &mutant{tamper: func(tx *writ.Tx) {
		if tx.Fact != nil {
			change(tx.Fact)
		}
	}}
}

// Differential must notice every one of these defects.
func TestDifferentialFindsDefects(t *testing.T) {
	mutants := map[string]*mutant{
		"expect is not checked":             withoutGuards(writ.GuardExpect),
		"range is not checked":              withoutGuards(writ.GuardRange),
		"free is not checked":               withoutGuards(writ.GuardFree),
		"within is not checked":             withoutGuards(writ.GuardWithin),
		"not after is not checked":          withoutGuards(writ.GuardNotAfter),
		"epoch is not checked":              withoutGuards(writ.GuardEpoch),
		"free forgets whom to except":       guardWith(func(g *writ.Guard) { g.Except = "" }),
		"free includes its end":             guardWith(func(g *writ.Guard) { g.To += "\x00" }),
		"within is open above":              guardWith(func(g *writ.Guard) { g.Hi = max(g.Hi, writ.MaxAmount) }),
		"guards are checked from behind":    {tamper: func(tx *writ.Tx) { slices.Reverse(tx.Guards) }},
		"put does nothing":                  withoutOps(writ.OpPut),
		"delete does nothing":               withoutOps(writ.OpDelete),
		"index does nothing":                withoutOps(writ.OpIndex),
		"unindex does nothing":              withoutOps(writ.OpUnindex),
		"add does nothing":                  withoutOps(writ.OpAdd),
		"push does nothing":                 withoutOps(writ.OpPush),
		"ack does nothing":                  withoutOps(writ.OpAck),
		"operations apply in another order": {tamper: func(tx *writ.Tx) { slices.Reverse(tx.Ops) }},
		"unindex ignores the score":         opWith(func(o *writ.Op) { o.IfScore = false }),
		"limits are ignored":                opWith(func(o *writ.Op) { o.HasLimit = false }),
		"limits are one too low":            opWith(func(o *writ.Op) { o.Limit-- }),
		"scores are lost":                   opWith(func(o *writ.Op) { o.Score = 0 }),
		"documents with an end end at once": opWith(func(o *writ.Op) { o.TTLMs = min(o.TTLMs, 1) }),
		"calls are forgotten":               {tamper: func(tx *writ.Tx) { tx.Call = "" }},
		"runs are not counted":              factWith(func(f *writ.Fact) { f.Run = "" }),
		"foreign facts are lost":            {tamper: func(tx *writ.Tx) { tx.Before = nil }},
		"evidence is lost":                  factWith(func(f *writ.Fact) { f.Evidence = nil }),
		"tails are lost":                    factWith(func(f *writ.Fact) { f.Tail = nil }),
		"facts are lost":                    {tamper: func(tx *writ.Tx) { tx.Fact = nil }},
		"a member is a prefix": {reading: func(r *writ.Range) {
			if r.Member != "" {
				r.Member, r.From, r.ByScore = "", r.Member, false
			}
		}},
		"descending ascends":                {reading: func(r *writ.Range) { r.Desc = false }},
		"the end of a range is ignored":     {reading: func(r *writ.Range) { r.To = "" }},
		"the lowest score is ignored":       {reading: func(r *writ.Range) { r.Min = 0 }},
		"limits of ranges are one too high": {reading: func(r *writ.Range) { r.Limit = min(r.Limit+1, 1000) }},
		"trim trims one too many":           {trims: func(n int64) int64 { return n + 1 }},
		"trim does nothing":                 {trims: func(int64) int64 { return -1 }},
		"receive gives one too many":        {takes: func(l []writ.Lane, n int) ([]writ.Lane, int) { return l, n + 1 }},
		"receive looks at the last first":   {takes: func(l []writ.Lane, n int) ([]writ.Lane, int) { slices.Reverse(l); return l, n }},
		"nothing is given back":             {keeps: true},
	}
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m.Model = NewModel()
			seed := Seed(t)
			said := differs(t, seed, 20_000, m)
			if said == "" {
				t.Fatalf("seed %d: it was not noticed", seed)
			}
			if !strings.Contains(said, fmt.Sprint("seed ", seed)) || !strings.Contains(said, "→") {
				t.Fatalf("the failure names neither seed nor operations: %s", said)
			}
		})
	}
}

// recorder is a test that notes its failure.
type recorder struct {
	testing.TB
	said string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Logf(string, ...any) {}

// differs runs Differential and returns what it failed with.
func differs(t *testing.T, seed int64, n int, s store.Store) string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		Differential(r, seed, n, s)
	}()
	<-done
	return r.said
}

// A failure can be repeated: the same seed makes the same operations.
func TestSeed(t *testing.T) {
	t.Setenv("WRIT_SEED", "42")
	if got := Seed(t); got != 42 {
		t.Errorf("got %d", got)
	}
	stuck := func() string { return differs(t, Seed(t), 2000, &mutant{Model: NewModel(), keeps: true}) }
	if a, b := stuck(), stuck(); a == "" || a != b {
		t.Errorf("one seed failed in two ways:\n%s\n%s", a, b)
	}
	t.Setenv("WRIT_SEED", "")
	if got := Seed(t); got == 42 || got == 0 {
		t.Errorf("without a seed: %d", got)
	}
}

func TestDifferentialAgreesWithItself(t *testing.T) {
	seed := Seed(t)
	if said := differs(t, seed, 5000, NewModel()); said != "" {
		t.Fatal(said)
	}
	if testing.Verbose() {
		t.Logf("seed %d", seed)
	}
}
