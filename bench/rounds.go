package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// rounds measures subjects in turns: each round measures every one of them,
// starting with another. out[i] holds subject i's samples by round, so that
// samples of the same round saw the same machine.
func rounds[S any](n int, subjects ...func() (S, error)) ([][]S, error) {
	out := make([][]S, len(subjects))
	for round := range n {
		for turn := range subjects {
			i := (round + turn) % len(subjects)
			s, err := subjects[i]()
			if err != nil {
				return nil, err
			}
			out[i] = append(out[i], s)
		}
	}
	return out, nil
}

// ratios are a/b round by round: the median, the smallest and the largest.
func ratios[S any](a, b []S, of func(S) float64) (mid, lo, hi float64) {
	var all []float64
	for i := range a {
		all = append(all, of(a[i])/of(b[i]))
	}
	slices.Sort(all)
	return median(all), all[0], all[len(all)-1]
}

// mid is the median of a measure over rounds.
func mid[S any](samples []S, of func(S) float64) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, of(s))
	}
	return median(all)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// load is what a drive took.
type load struct {
	n         int
	took      time.Duration
	latencies []time.Duration // sorted
}

func (l load) perSecond() float64 { return float64(l.n) / l.took.Seconds() }

func (l load) percentile(p int) time.Duration {
	return l.latencies[(len(l.latencies)-1)*p/100]
}

// drive does a job n times, shared among callers that each wait for their own
// answer, and stops at the first error.
func drive(ctx context.Context, callers, n int, job func(ctx context.Context, caller, turn int) error) (load, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	took := make([][]time.Duration, callers)
	start := time.Now()
	for caller := range callers {
		all.Go(func() {
			for ctx.Err() == nil {
				turn := int(next.Add(1)) - 1
				if turn >= n {
					return
				}
				began := time.Now()
				if err := job(ctx, caller, turn); err != nil {
					cancel(err)
					return
				}
				took[caller] = append(took[caller], time.Since(began))
			}
		})
	}
	all.Wait()
	l := load{n: n, took: time.Since(start), latencies: slices.Concat(took...)}
	slices.Sort(l.latencies)
	return l, context.Cause(ctx)
}
