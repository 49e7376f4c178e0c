package author

import (
	"context"
	"runtime"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Measured is what one decision of a pack costs.
type Measured struct {
	Pack    string  `json:"pack"`
	Fixture string  `json:"fixture"`
	File    string  `json:"file"`
	Allocs  float64 `json:"allocs"` // per decision; exact, fit for a limit
	Bytes   float64 `json:"bytes"`
	Micros  float64 `json:"us"` // wall time, which depends on the machine
	Runs    int     `json:"runs"`
}

// Bench measures every fixture of every pack for about the given time.
func (t *Tree) Bench(ctx context.Context, packs []string, each time.Duration) ([]Measured, error) {
	if err := t.has(packs); err != nil {
		return nil, err
	}
	draft, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	if len(packs) == 0 {
		packs = t.PackIDs()
	}
	out := []Measured{}
	for _, id := range packs {
		trial, err := draft.Trial(ctx, []string{id}, true)
		if err != nil {
			return nil, err
		}
		fixtures, _ := t.fixtures(id)
		for _, f := range fixtures {
			in, err := ast.InterfaceToValue(f.Input)
			if err != nil {
				return nil, err
			}
			m, err := measure(each, func() error {
				_, err := trial.Decide(ctx, in, 10*time.Second)
				return err
			})
			if err != nil {
				return nil, err
			}
			m.Pack, m.Fixture, m.File = id, f.Name, f.File
			out = append(out, m)
		}
	}
	return out, nil
}

// measure repeats what is to be measured until the time is over, at least ten
// times; the first run fills caches and does not count.
func measure(each time.Duration, decide func() error) (Measured, error) {
	var m Measured
	if err := decide(); err != nil {
		return m, err
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for m.Runs < 10 || time.Since(start) < each {
		if err := decide(); err != nil {
			return m, err
		}
		m.Runs++
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	n := float64(m.Runs)
	m.Allocs = float64((after.Mallocs - before.Mallocs) / uint64(m.Runs))
	m.Bytes = float64((after.TotalAlloc - before.TotalAlloc) / uint64(m.Runs))
	m.Micros = float64(took.Microseconds()) / n
	return m, nil
}
