package guard_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
)

// unheard is a store whose answers to aggregates get lost, after it has done what
// was asked or before.
type unheard struct {
	store.Store
	after, before atomic.Bool
}

func (u *unheard) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	aggregate := tx.Mandate && tx.Fact != nil && bytes.Contains(tx.Fact.Head, []byte("aggregate"))
	if aggregate && u.before.Load() {
		return writ.Committed{}, errGone
	}
	c, err := u.Store.Commit(ctx, shard, tx)
	if aggregate && u.after.Load() {
		return writ.Committed{}, errGone
	}
	return c, err
}

// filed is an Archive of what is in the store, or what a test says.
type filed struct {
	store store.Store
	says  error
}

func (f *filed) Read(ctx context.Context, shard writ.Tenant, q writ.ArchiveRead) ([]writ.Receipt, error) {
	if f.says != nil {
		return nil, f.says
	}
	facts, err := f.store.Facts(ctx, shard, -1, 10_000, 0)
	i := slices.IndexFunc(facts, func(x writ.StoredFact) bool { return x.ID == q.Receipt })
	if err != nil || i < 0 {
		return nil, err
	}
	return []writ.Receipt{{ID: q.Receipt, Seq: facts[i].Commit.Seq}}, nil
}

// counting is a world in which denials are counted, and decisions asked about.
type counting struct {
	*world
	st    *unheard
	filed *filed
	log   *bytes.Buffer
	alice *writ.Credential
}

func newCounting(t *testing.T) counting {
	c := counting{st: &unheard{}, filed: &filed{}, log: &bytes.Buffer{}}
	c.world, _ = newDusk(t, func(cfg *guard.Config) {
		c.st.Store, cfg.Store = cfg.Store, c.st
		c.filed.store, cfg.Archive = cfg.Store, c.filed
		cfg.Log = slog.New(slog.NewTextHandler(c.log, nil))
		cfg.DenialBurst = 1
	})
	c.alice = c.session("alice")
	return c
}

// denied makes n calls that are denied, without a receipt of their own.
func (c counting) denied(n int) {
	c.t.Helper()
	c.law.mu.Lock()
	c.law.forbid["test.look"] = true
	c.law.mu.Unlock()
	for counted := 0; counted < n; {
		_, _, err := c.call(c.alice, "test.look", thingArgs{Run: runID(1)}, "")
		if e := writ.AsError("", err); e == nil || e.Code != writ.CodeRBAC {
			c.t.Fatalf("got %v", err)
		} else if e.Aggregated {
			counted++
		}
	}
}

// counts are those of the aggregates that were written.
func (c counting) counts(transition string) (out []int) {
	c.t.Helper()
	for _, f := range c.facts() {
		if p := predicate(c.t, f); p["transition"] == transition {
			out = append(out, int(p["count"].(float64)))
		}
	}
	return out
}

// later lets the store forget which calls it has committed.
func (c counting) later() {
	c.t.Helper()
	for range 2 {
		c.now.Add((11 * time.Minute).Milliseconds())
		c.bump(c.alice)
	}
}

func (c counting) flush(want writ.Code) {
	c.t.Helper()
	if err := c.door.FlushDenials(c.t.Context()); writ.CodeOf(err) != want {
		c.t.Fatalf("the flush: %v, want %q", err, want)
	}
}

// What an answer that got lost was about is counted once: as it was when it was
// first sent, and what came since on its own.
func TestDenialsAreCountedOnceThoughAnAnswerIsLost(t *testing.T) {
	for name, lose := range map[string]func(*unheard) *atomic.Bool{
		"after the commit":  func(u *unheard) *atomic.Bool { return &u.after },
		"before the commit": func(u *unheard) *atomic.Bool { return &u.before },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCounting(t)
			c.denied(3)
			lose(c.st).Store(true)
			c.flush(writ.CodeStore)
			c.denied(2)
			c.flush(writ.CodeStore)
			c.denied(4)
			lose(c.st).Store(false)
			c.flush("")
			c.flush("")
			if got := c.counts("denial.aggregate"); !slices.Equal(got, []int{3, 6}) {
				t.Errorf("counted %v, want 3 and 6", got)
			}
		})
	}
}

func TestShadowIsCountedOnceThoughAnAnswerIsLost(t *testing.T) {
	for name, lose := range map[string]func(*unheard) *atomic.Bool{
		"after the commit":  func(u *unheard) *atomic.Bool { return &u.after },
		"before the commit": func(u *unheard) *atomic.Bool { return &u.before },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCounting(t)
			ask := func(n int) {
				for range n {
					c.bump(c.alice)
				}
				c.asked() // and flushes
			}
			lose(c.st).Store(true)
			ask(3)
			ask(2)
			lose(c.st).Store(false)
			ask(4)
			if got := c.counts("shadow.aggregate"); !slices.Equal(got, []int{3, 6}) {
				t.Errorf("counted %v, want 3 and 6", got)
			}
			if got := c.shadow().Packs; len(got) != 1 || got[0].Evaluated != 9 || got[0].Changed != 9 {
				t.Errorf("got %+v", got)
			}
			if got := c.door.Shadow(shard); len(got) != 0 {
				t.Errorf("still not in the store: %+v", got)
			}
		})
	}
}

// What waits for the store is told beside what is in it, unless it may be there.
func TestShadowThatWaitsIsToldOnce(t *testing.T) {
	c := newCounting(t)
	c.bump(c.alice)
	c.seal.unusable.Store(true) // nothing is sent
	c.asked()
	if got := c.door.Shadow(shard); len(got) != 1 || got[0].Changed != 1 {
		t.Errorf("not in the store yet: %+v", got)
	}
	c.seal.unusable.Store(false)
	c.st.after.Store(true)
	c.bump(c.alice)
	c.asked()
	told := int64(0)
	for _, p := range slices.Concat(c.shadow().Packs, c.door.Shadow(shard)) {
		told += p.Changed
	}
	if told != 2 {
		t.Errorf("told of %d decisions, want 2", told)
	}
}

// The store forgets which calls it has committed. From then on the receipt says
// whether it was; where that cannot be found out, nothing is counted twice.
func TestCountsWhoseFateIsForgotten(t *testing.T) {
	elsewhere := &writ.Error{Code: writ.CodeNotFound, Op: "test", Msg: "in the ledger of another replica"}
	for _, tt := range []struct {
		name    string
		lose    func(*unheard) *atomic.Bool
		archive error
		want    []int
		givenUp bool
	}{
		{"it was committed", func(u *unheard) *atomic.Bool { return &u.after }, nil, []int{3, 2}, false},
		{"it was not", func(u *unheard) *atomic.Bool { return &u.before }, nil, []int{3, 2}, false},
		{"nobody here knows, and it was", func(u *unheard) *atomic.Bool { return &u.after }, elsewhere, []int{3, 2}, true},
		{"nobody here knows, and it was not", func(u *unheard) *atomic.Bool { return &u.before }, elsewhere, []int{2}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCounting(t)
			c.denied(3)
			tt.lose(c.st).Store(true)
			c.flush(writ.CodeStore)
			c.denied(2)
			tt.lose(c.st).Store(false)
			c.later()
			c.filed.says = errGone // it cannot be asked now
			c.flush(writ.CodeStore)
			c.filed.says = tt.archive
			c.flush("")
			c.flush("")
			if got := c.counts("denial.aggregate"); !slices.Equal(got, tt.want) {
				t.Errorf("counted %v, want %v", got, tt.want)
			}
			if got := strings.Contains(c.log.String(), "given up"); got != tt.givenUp {
				t.Errorf("the log says that counts are given up: %v\n%s", got, c.log)
			}
		})
	}
}
