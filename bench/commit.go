package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
	"github.com/writ-gateway/writ/store/redisstore"
)

const shard writ.Tenant = "default"

// commit compares the generic commit with what the same server gives for one
// plain stream entry, and the two hosts with each other.
func (b *bench) commit(ctx context.Context) error {
	if err := b.commitCPU(ctx); err != nil {
		return err
	}
	return b.commitRate(ctx)
}

func (b *bench) commitCPU(ctx context.Context) (err error) {
	const callers = 16
	server, err := b.startRedis(ctx, "everysec")
	if err != nil {
		return err
	}
	defer server.stop()
	st, err := redisstore.Open(ctx, redisstore.Options{URL: server.url()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	conns := make([]*redisConn, callers)
	for i := range conns {
		if conns[i], err = dialRedis(server.socket); err != nil {
			return err
		}
		defer func() { _ = conns[i].Close() }()
	}
	entry := []string{"XADD", "bench", "*"}
	for i := range 9 {
		entry = append(entry, fmt.Sprintf("field%d", i), fmt.Sprintf("value-of-field-%d", i))
	}
	xadd := command(entry...)

	// spent is the server's microseconds per job, and its rate.
	type spent struct{ micros, rate float64 }
	measure := func(n int, job func(context.Context, int, int) error) (spent, error) {
		before, err := server.cpu()
		if err != nil {
			return spent{}, err
		}
		l, err := drive(ctx, callers, n, job)
		if err != nil {
			return spent{}, err
		}
		after, err := server.cpu()
		return spent{float64((after - before).Microseconds()) / float64(n), l.perSecond()}, err
	}
	c := newCommitter(st, callers)
	n := b.pick(20_000, 4_000)
	got, err := rounds(b.pick(7, 3),
		func() (spent, error) {
			s, err := measure(n, c.job)
			return s, errors.Join(err, c.trim(ctx))
		},
		func() (spent, error) {
			s, err := measure(4*n, func(_ context.Context, caller, _ int) error { return conns[caller].do(xadd) })
			return s, errors.Join(err, conns[0].do(command("DEL", "bench")))
		},
	)
	if err != nil {
		return err
	}
	micros := func(s spent) float64 { return s.micros }
	rate := func(s spent) float64 { return s.rate }
	m, lo, hi := ratios(got[0], got[1], micros)
	b.line("Redis: server CPU of a commit of 9 operations / of an XADD", m, atMost(6, "×"))
	b.note("16 callers, everysec; per commit %.1f µs, %.0f/s; per XADD of 9 fields %.1f µs, %.0f/s; rounds %.2f–%.2f×",
		mid(got[0], micros), mid(got[0], rate), mid(got[1], micros), mid(got[1], rate), lo, hi)
	return nil
}

func (b *bench) commitRate(ctx context.Context) (err error) {
	const callers = 128
	server, err := b.startRedis(ctx, "always")
	if err != nil {
		return err
	}
	defer server.stop()
	remote, err := redisstore.Open(ctx, redisstore.Options{URL: server.url(), PoolSize: callers})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remote.Close()) }()
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	embedded, err := boltstore.Open(filepath.Join(dir, "writ.db"), boltstore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, embedded.Close()) }()
	n := b.pick(20_000, 5_000)
	rate := func(st store.Store) func() (float64, error) {
		c := newCommitter(st, callers)
		return func() (float64, error) {
			l, err := drive(ctx, callers, n, c.job)
			if err != nil {
				return 0, err
			}
			return l.perSecond(), c.trim(ctx)
		}
	}
	got, err := rounds(b.pick(7, 3), rate(embedded), rate(remote))
	if err != nil {
		return err
	}
	same := func(v float64) float64 { return v }
	m, lo, hi := ratios(got[0], got[1], same)
	b.line("bolt / Redis with fsync always: commits per second", m, atLeast(0.8, "×"))
	b.note("128 callers, both on disk before the answer; bolt %.0f/s, Redis %.0f/s; rounds %.2f–%.2f×",
		mid(got[0], same), mid(got[1], same), lo, hi)
	return nil
}

// committer makes commits of the shape of a governed call: three documents
// expected and written, one member added and one removed, two counters, one
// lane entry, one fact. Each caller has documents of its own.
type committer struct {
	st       store.Store
	versions [][3]int64
	turns    []int
	bodies   [3][]byte
}

func newCommitter(st store.Store, callers int) *committer {
	c := &committer{st: st, versions: make([][3]int64, callers), turns: make([]int, callers)}
	for i, n := range []int{1024, 512, 205} {
		c.bodies[i] = bytes.Repeat([]byte("x"), n)
	}
	return c
}

func (c *committer) job(ctx context.Context, caller, _ int) error {
	c.turns[caller]++
	n := c.turns[caller]
	id := func(prefix string, n int) string { return fmt.Sprintf("%s_%03d_%022d", prefix, caller, n) }
	tx := writ.Tx{
		Call: writ.CallID(id("cll", n)),
		Fact: &writ.Fact{
			ID: writ.ReceiptID(id("rcp", n)), Run: writ.RunID(fmt.Sprintf("run_%d", caller)),
			Head: c.bodies[1], Tail: c.bodies[2],
		},
	}
	for i, body := range c.bodies {
		k := writ.Key(fmt.Sprintf("doc/%d/%d", caller, i))
		tx.Expect(k, c.versions[caller][i])
		tx.Put(k, body)
	}
	tx.Index("list/tasks", id("tsk", n), 0)
	tx.Unindex("list/tasks", id("tsk", n-10))
	tx.Add(writ.Counter{Entity: fmt.Sprintf("run/%d", caller), Field: "open"}, 1)
	tx.Add(writ.Counter{Entity: fmt.Sprintf("run/%d", caller), Field: "steps"}, 1)
	tx.Push("5/site.build/web", id("tsk", n))
	done, err := c.st.Commit(ctx, shard, tx)
	v := done.Version()
	c.versions[caller] = [3]int64{v, v, v}
	return err
}

// trim forgets the facts of the last turn, outside what is measured.
func (c *committer) trim(ctx context.Context) error {
	h, err := c.st.Head(ctx, shard)
	if err != nil {
		return err
	}
	return c.st.Trim(ctx, shard, h.Seq)
}
