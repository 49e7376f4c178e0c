package redisstore_test

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// BenchmarkCommit is a typical commit: Expect×3; Put×3 (1 KiB, 0.5 KiB and
// 0.2 KiB), Index, Unindex, Add×2, Push and a fact. Compare with
// BenchmarkRawXADD; server-µs is the server's CPU time per commit.
func BenchmarkCommit(b *testing.B) { benchmarkCommit(b, false) }

// BenchmarkReadCommit reads the three documents before each commit.
func BenchmarkReadCommit(b *testing.B) { benchmarkCommit(b, true) }

func benchmarkCommit(b *testing.B, reads bool) {
	bodies := [3][]byte{}
	for i, n := range []int{1024, 512, 205} {
		bodies[i] = bytes.Repeat([]byte("x"), n)
	}
	eachSetting(b, func(b *testing.B, srv *redistest.Server, callers int) {
		s := open(b, srv)
		versions := make([][100]int64, callers)
		parallel(b, srv, callers, func(caller, turn int) error {
			var keys [3]writ.Key
			for i := range keys {
				keys[i] = writ.Key(fmt.Sprintf("d/%d/%d/%d", i, caller, turn%100))
			}
			if reads {
				if _, err := s.Read(b.Context(), shard, docs(keys[:]...)); err != nil {
					return err
				}
			}
			tx := factTx()
			tx.Fact.Run = writ.RunID("run_" + strconv.Itoa(caller))
			tx.Fact.Head, tx.Fact.Tail = bodies[1], bodies[2]
			for i, k := range keys {
				tx.Expect(k, versions[caller][turn%100])
				tx.Put(k, bodies[i])
			}
			tx.Index("due/x", fmt.Sprintf("%d/%d", caller, turn), int64(turn))
			tx.Unindex("due/x", fmt.Sprintf("%d/%d", caller, turn-1))
			tx.Add(writ.Counter{Entity: "e/" + strconv.Itoa(caller), Field: "a"}, 1)
			tx.Add(writ.Counter{Entity: "e/" + strconv.Itoa(caller), Field: "b"}, -1)
			tx.Push("0/a/b", fmt.Sprintf("%d/%d", caller, turn))
			c, err := s.Commit(b.Context(), shard, tx)
			versions[caller][turn%100] = c.Version()
			return err
		})
	})
}

// BenchmarkRawXADD is what the server itself gives for a stream entry of nine
// fields.
func BenchmarkRawXADD(b *testing.B) {
	values := make([]string, 0, 18)
	for i := range 9 {
		values = append(values, fmt.Sprintf("field%d", i), fmt.Sprintf("value-of-field-%d", i))
	}
	eachSetting(b, func(b *testing.B, srv *redistest.Server, callers int) {
		rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: srv.Socket(), Protocol: 2, PoolSize: 64})
		defer func() { _ = rdb.Close() }()
		parallel(b, srv, callers, func(int, int) error {
			return rdb.XAdd(b.Context(), &redis.XAddArgs{Stream: "s", Values: values}).Err()
		})
	})
}

func eachSetting(b *testing.B, f func(b *testing.B, srv *redistest.Server, callers int)) {
	for _, fsync := range []string{"everysec", "always"} {
		for _, callers := range []int{1, 16, 128} {
			b.Run(fmt.Sprintf("fsync=%s/callers=%d", fsync, callers), func(b *testing.B) {
				f(b, redistest.Start(b, "appendfsync "+fsync), callers)
			})
		}
	}
}

// parallel shares b.N turns among callers and reports the rate and the
// server's CPU time.
func parallel(b *testing.B, srv *redistest.Server, callers int, f func(caller, turn int) error) {
	b.Helper()
	for caller := range callers { // connections, scripts
		if err := f(caller, 0); err != nil {
			b.Fatal(err)
		}
	}
	cpu := func() float64 {
		user, _ := strconv.ParseFloat(infoField(srv, "cpu", "used_cpu_user"), 64)
		system, _ := strconv.ParseFloat(infoField(srv, "cpu", "used_cpu_sys"), 64)
		return user + system
	}
	before := cpu()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for turn := 1; left.Add(-1) >= 0; turn++ {
				if err := f(caller, turn); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
	b.ReportMetric((cpu()-before)*1e6/float64(b.N), "server-µs/op")
}
