package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// asynq compares a task's way through the door (enqueue, claim, complete; judged,
// leased, receipted) with its way through hibiken/asynq (enqueue, process), on the same
// redis-server in the same run.
func (b *bench) asynq(ctx context.Context) error {
	peer := filepath.Join(b.dir, "asynq")
	if _, err := output(ctx, b.root, "go", "-C", "tools/asynq", "build", "-trimpath", "-o", peer, "."); err != nil {
		b.note("asynq cannot be had here; nothing is compared with it (%v)", err)
		return nil
	}
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	g, err := b.serve(ctx, binary, "Redis")
	if err != nil {
		return err
	}
	defer g.close()
	n, rounds := b.pick(2000, 400), b.pick(3, 1)
	var cpu, wall [2][]float64 // per task, ours first
	for round := range rounds {
		for side := range 2 {
			if err := g.beat(ctx); err != nil {
				return err
			}
			before, err := g.redis.cpu()
			if err != nil {
				return err
			}
			began := time.Now()
			if side == 0 {
				if err := g.throughDoor(ctx, n, round); err != nil {
					return err
				}
			} else if _, err := output(ctx, b.root, peer, "-socket", g.redis.socket, "-n", strconv.Itoa(n), "-callers", strconv.Itoa(fillers), "-workers", strconv.Itoa(dagWorkers)); err != nil {
				return err
			}
			took := time.Since(began)
			if err := g.settle(ctx); err != nil {
				return err
			}
			after, err := g.redis.cpu()
			if err != nil {
				return err
			}
			cpu[side] = append(cpu[side], float64((after-before).Microseconds())/float64(n))
			wall[side] = append(wall[side], float64(n)/took.Seconds())
		}
	}
	ours, theirs := median(cpu[0]), median(cpu[1])
	b.line("redis-server CPU of a task, enqueue to done / asynq's", ours/theirs, atMost(4, "×"))
	b.line("tasks per second through the door / asynq's", median(wall[0])/median(wall[1]), atLeast(0.05, "×"))
	b.note("redis-server: %.0f µs a task, asynq %.0f µs; %.0f tasks per second over HTTP, asynq %.0f in its own process; appendfsync always for both",
		ours, theirs, median(wall[0]), median(wall[1]))
	return nil
}

// throughDoor enqueues tasks and has them done.
func (g *gateway) throughDoor(ctx context.Context, n, round int) error {
	p := newPoster(fillers, g.planner.Token)
	defer p.close()
	_, err := drive(ctx, fillers, n, func(ctx context.Context, _, i int) error {
		body := fmt.Appendf(nil, `{"run_id":%q,"key":"peer-%d-%d","capability":%q,"required_domain":%q,"args":{"ref":"main"}}`, g.run, round, i, capability, domain)
		_, _, err := p.post(ctx, g.url+"/v1/tasks", body)
		return err
	})
	if err != nil {
		return err
	}
	_, err = g.workOff(ctx, n)
	return err
}
