package policies

import (
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// BenchmarkReload is how long 200 packs take to come into force, and what
// decisions made meanwhile notice of it: the 99th percentile of theirs against
// that of decisions made without. `make bench` quotes both.
func BenchmarkReload(b *testing.B) {
	e := load200(b)
	other := maps.Clone(e.now.Load().files(b))
	calls := func(during func() bool) (p99 float64) {
		var took []time.Duration
		in := claim()
		for i := 0; during(); i++ {
			in.Subject.Run.ID = writ.RunID(writ.MakeID(writ.PrefixRun, int64(i), [10]byte{})) // so that the memo has no part in it
			start := time.Now()
			if _, err := e.Decide(b.Context(), in); err != nil {
				b.Error(err)
				return 0
			}
			took = append(took, time.Since(start))
			time.Sleep(200 * time.Microsecond) // callers do other things too
		}
		slices.Sort(took)
		return float64(took[len(took)*99/100])
	}
	var ms, ratio float64
	n := 0
	for b.Loop() {
		until := time.Now().Add(time.Second)
		quiet := calls(func() bool { return time.Now().Before(until) })
		var loading atomic.Bool
		loading.Store(true)
		go func() {
			defer loading.Store(false)
			start := time.Now()
			if err := e.Reload(b.Context(), from(other)); err != nil {
				b.Error(err)
			}
			ms += float64(time.Since(start).Microseconds()) / 1000
		}()
		busy := calls(loading.Load)
		ratio += busy / quiet
		n++
	}
	b.ReportMetric(ms/float64(n), "ms/reload")
	b.ReportMetric(ratio/float64(n), "p99-ratio")
}

// files are the sources a snapshot was made of.
func (s *snapshot) files(t testing.TB) files {
	t.Helper()
	f, err := bundleSource(s.bundle).read()
	if err != nil {
		t.Fatal(err)
	}
	return f
}
