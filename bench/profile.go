package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/writ-gateway/writ/internal/daemon"
)

// profile writes what governed enqueues cost a gateway in this process. The load runs
// here too: look at what lies below net/http.(*conn).serve and the gateway's own loops.
func (b *bench) profile(ctx context.Context, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	runtime.MemProfileRate = 0 // sampling allocations would weigh on the CPU profile
	_, g, end, err := b.inside(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	p := newPoster(connections, g.planner.Token)
	defer p.close()
	enqueue := func(name string, n int) (load, error) {
		return drive(ctx, connections, n, func(ctx context.Context, _, i int) error {
			_, _, err := p.post(ctx, g.url+"/v1/tasks", g.task(fmt.Sprintf("%s-%d", name, i)))
			return err
		})
	}
	if _, err := enqueue("warm", 500); err != nil {
		return err
	}
	n := b.pick(20_000, 4_000)
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	before, made := ownCPU(), allocations()
	l, err := enqueue("task", n)
	spent := ownCPU() - before
	made = allocations() - made
	pprof.StopCPUProfile()
	if err != nil {
		return err
	}
	runtime.MemProfileRate = 4096
	if _, err := enqueue("alloc", n/4); err != nil {
		return err
	}
	allocs, err := os.Create(filepath.Join(dir, "allocs.pprof"))
	if err != nil {
		return err
	}
	runtime.GC() // the profile is as of the last collection
	if err := errors.Join(pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close()); err != nil {
		return err
	}
	b.note("%d governed enqueues in %s, %.0f µs of CPU and %d allocations each with the load's; look with",
		n, l.took.Round(time.Millisecond), float64(spent.Microseconds())/float64(n), made/uint64(n))
	b.note("  go tool pprof -focus 'conn..serve' -cum -top %s", cpu.Name())
	b.note("  go tool pprof -sample_index alloc_objects -focus 'conn..serve' -cum -top %s", allocs.Name())
	return nil
}

// inside is a gateway in this process, on bolt and with its other settings at their defaults.
func (b *bench) inside(ctx context.Context) (d *daemon.Daemon, g *gateway, end func() error, err error) {
	data, err := b.scratch()
	if err != nil {
		return nil, nil, nil, err
	}
	cfg, err := daemon.Load("", func(string) string { return "" }, map[string]string{"data": data, "listen": "127.0.0.1:0"})
	if err != nil {
		return nil, nil, nil, err
	}
	log, err := os.Create(filepath.Join(data, "bench.log"))
	if err != nil {
		return nil, nil, nil, err
	}
	d = daemon.New(cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err := d.Start(ctx); err != nil {
		return nil, nil, nil, errors.Join(err, log.Close())
	}
	end = func() error { return errors.Join(d.Stop(context.WithoutCancel(ctx)), log.Close()) }
	g = &gateway{host: "bolt", data: data, url: d.URL()}
	if err := g.populate(ctx, daemon.OperatorToken(data)); err != nil {
		return nil, nil, nil, errors.Join(err, end())
	}
	return d, g, end, nil
}

// ownCPU is the processor time this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// allocations is how many objects this process has ever made.
func allocations() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
