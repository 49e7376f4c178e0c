package boltstore_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store/boltstore"
)

// BenchmarkCommit is the shape of a governed call: three documents expected
// and written (1 KiB, 0.5 KiB, 0.2 KiB), one member added and one removed, two
// counters, one lane entry, one fact. Each caller has documents of its own.
func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 16, 128} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "writ.db"), boltstore.Options{})
			bodies := [][]byte{bytes.Repeat([]byte("a"), 1024), bytes.Repeat([]byte("b"), 512), bytes.Repeat([]byte("c"), 205)}
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error, callers)
			b.ResetTimer()
			for caller := range callers {
				go func() {
					var versions [3]int64
					for n := 0; left.Add(-1) >= 0; n++ {
						tx := writ.Tx{
							Call: writ.CallID(fmt.Sprintf("cll_%d_%020d", caller, n)),
							Fact: &writ.Fact{ID: "rcp_1", Run: "run_1", Head: bodies[0], Tail: bodies[2]},
						}
						for i, body := range bodies {
							k := writ.Key(fmt.Sprintf("doc/%d/%d", caller, i))
							tx.Expect(k, versions[i])
							tx.Put(k, body)
						}
						tx.Index("list/tasks", fmt.Sprintf("tsk_%d_%020d", caller, n), 0)
						tx.Unindex("list/tasks", fmt.Sprintf("tsk_%d_%020d", caller, n-10))
						tx.Add(writ.Counter{Entity: "run/r", Field: "open"}, 1)
						tx.Add(writ.Counter{Entity: "run/r", Field: "steps"}, 1)
						tx.Push("5/site.build/media", fmt.Sprintf("tsk_%d_%020d", caller, n))
						c, err := s.Commit(b.Context(), workShard, tx)
						if err != nil {
							done <- err
							return
						}
						versions = [3]int64{c.Version(), c.Version(), c.Version()}
					}
					done <- nil
				}()
			}
			for range callers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// BenchmarkRead is the first hop of a governed call: five documents and a
// counter.
func BenchmarkRead(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "writ.db"), boltstore.Options{NoSync: true})
	rs := writ.ReadSet{Counters: []writ.Counter{{Entity: "run/r", Field: "open"}}}
	tx := enqueue("c-1")
	for i := range 5 {
		k := writ.Key(fmt.Sprintf("doc/%d", i))
		tx.Put(k, bytes.Repeat([]byte("a"), 1024))
		rs.Docs = append(rs.Docs, k)
	}
	if _, err := s.Commit(b.Context(), workShard, tx); err != nil {
		b.Fatal(err)
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Read(b.Context(), workShard, rs); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
