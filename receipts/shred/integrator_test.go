package shred

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/store"
)

// outbox holds facts in memory.
type outbox []writ.StoredFact

func (o outbox) Facts(_ context.Context, _ writ.Tenant, after int64, n int, _ time.Duration) ([]writ.StoredFact, error) {
	return o[min(after+1, int64(len(o))):min(after+1+int64(n), int64(len(o)))], nil
}
func (outbox) Trim(context.Context, writ.Tenant, int64) error { return nil }
func (o outbox) Head(context.Context, writ.Tenant) (store.Head, error) {
	return store.Head{Seq: int64(len(o)) - 1, Trimmed: -1}, nil
}

type plainSealer struct{}

func (plainSealer) Seal(f writ.StoredFact) (writ.Receipt, error) {
	return writ.Receipt{ID: f.ID, Seq: f.Commit.Seq, Payload: f.Payload(), Evidence: f.Evidence}, nil
}

// stops is a keeper whose machine stops before, or in place of, a step.
type stops struct {
	*Keys
	keep, filed bool
}

var errStopped = errors.New("the machine stops")

func (s stops) Keep(f []writ.StoredFact, e []ledger.Entry) error {
	if err := s.Keys.Keep(f, e); err != nil || s.keep {
		return errors.Join(err, errStopped)
	}
	return nil
}

func (s stops) Filed() error {
	if s.filed {
		return errStopped
	}
	return s.Keys.Filed()
}

// The integrator, its ledger and the keys, stopped before and after the ledger has
// the group with the shredding: the next start ends where an undisturbed one does.
func TestIntegrator(t *testing.T) {
	facts, _ := story(t, 0, "A", "B", "-", "xA", "A")
	for name, broken := range map[string]stops{"undisturbed": {}, "after the keys": {keep: true}, "after the ledger": {filed: true}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			life := func(s stops) (*ledger.Ledger, error) {
				l, err := ledger.Open(dir)
				if err != nil {
					t.Fatal(err)
				}
				s.Keys = mustOpen(t, filepath.Join(dir, "keys"), l)
				g := ledger.NewIntegrator("default", l, outbox(facts), plainSealer{})
				g.Keep(s)
				_, err = g.Round(t.Context(), 0)
				return l, err
			}
			l, err := life(broken)
			if stopped := broken.keep || broken.filed; stopped != errors.Is(err, errStopped) {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l, err = life(stops{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			k, got := mustOpen(t, filepath.Join(dir, "keys"), l), &log{}
			for r, err := range l.All(-1, l.Last()) {
				if err != nil {
					t.Fatal(err)
				}
				got.entries = append(got.entries, ledger.Entry{Receipt: r})
			}
			want(t, k, got, "xrrrr")
		})
	}
}
