package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/writ-gateway/writ/client"
)

// queue fills one gateway with queued tasks and compares claims there with
// claims on a gateway that has a hundred.
func (b *bench) queue(ctx context.Context) error {
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	for _, host := range []string{"bolt", "Redis"} {
		if err := b.queueOn(ctx, binary, host); err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
	}
	return nil
}

func (b *bench) queueOn(ctx context.Context, binary, host string) error {
	const few = 100
	many := b.pick(100_000, 10_000)
	short, err := b.serve(ctx, binary, host)
	if err != nil {
		return err
	}
	defer short.close()
	long, err := b.serve(ctx, binary, host)
	if err != nil {
		return err
	}
	defer long.close()
	if _, err := short.fill(ctx, few); err != nil {
		return err
	}
	if _, err := long.fill(ctx, few); err != nil {
		return err
	}
	before, err := long.footprint()
	if err != nil {
		return err
	}
	l, err := long.fill(ctx, many-few)
	if err != nil {
		return err
	}
	after, err := long.footprint()
	if err != nil {
		return err
	}

	// Claims in turns, each followed by completing the task and enqueueing
	// another, so that the queues keep their lengths.
	took := map[*gateway][]float64{}
	for turn := range b.pick(200, 100) {
		pair := []*gateway{short, long}
		if turn%2 == 1 {
			slices.Reverse(pair)
		}
		for _, g := range pair {
			if turn%100 == 0 {
				if err := g.beat(ctx); err != nil {
					return err
				}
			}
			d, err := g.claimOne(ctx, turn)
			if err != nil {
				return err
			}
			took[g] = append(took[g], ms(d))
		}
	}
	p50long, p50short := median(took[long]), median(took[short])
	b.line(fmt.Sprintf("%s: claim with %d queued / with %d, p50", host, many, few), p50long/p50short, atMost(1.3, "×"))
	b.note("claim p50 %.2f ms with %d queued, %.2f ms with %d; enqueued at %.0f/s over %d connections",
		p50long, many, p50short, few, l.perSecond(), fillers)
	per := func(of func(footprint) int64) float64 { return float64(of(after)-of(before)) / float64(many-few) }
	gateway, mapped := per(func(f footprint) int64 { return f.own }), per(func(f footprint) int64 { return f.mapped })
	b.note("gateway: RSS %d MiB + %d MiB mapped from files, that is %.0f and %.0f bytes per task, garbage included",
		after.own>>20, after.mapped>>20, gateway, mapped)
	if host == "Redis" {
		b.note("redis-server: RSS %d MiB, %.0f bytes per task", after.store>>20, per(func(f footprint) int64 { return f.store }))
	}
	return nil
}

// footprint is the resident memory of a gateway and its store, in bytes.
type footprint struct{ own, mapped, store int64 }

func (g *gateway) footprint() (f footprint, err error) {
	if f.own, f.mapped, err = g.memory(); err != nil || g.redis.process == nil {
		return f, err
	}
	f.store, _, err = g.redis.memory()
	return f, err
}

// fillers is how many connections fill a queue: as many calls as one session may
// have under way.
const fillers = 16

// fill enqueues tasks. A gateway that asks for a pause gets one.
func (g *gateway) fill(ctx context.Context, n int) (load, error) {
	p := newPoster(fillers, g.planner.Token)
	defer p.close()
	start := time.Now()
	l, err := drive(ctx, fillers, n, func(ctx context.Context, _, i int) error {
		if i > 0 && i%20_000 == 0 {
			fmt.Fprintf(os.Stderr, "%s: %d of %d tasks queued after %.0f s\n", g.host, i, n, time.Since(start).Seconds())
			if err := g.beat(ctx); err != nil {
				return err
			}
		}
		for {
			_, _, err := p.post(ctx, g.url+"/v1/tasks", g.task(fmt.Sprintf("fill-%d-%d", n, i)))
			if !errors.Is(err, errBusy) {
				return err
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return err
			}
		}
	})
	return l, errors.Join(err, g.settle(ctx))
}

// claimOne claims the next task and says how long that took. The task is then
// completed and replaced.
func (g *gateway) claimOne(ctx context.Context, turn int) (time.Duration, error) {
	start := time.Now()
	c, err := g.builder.Claim(ctx, client.ClaimOptions{})
	took := time.Since(start)
	if err == nil && c == nil {
		err = errors.New("there was no task to claim")
	}
	if err != nil {
		return 0, err
	}
	if _, err := g.builder.Complete(ctx, c, nil, nil); err != nil {
		return 0, err
	}
	_, err = g.planner.Enqueue(ctx, client.TaskOptions{
		Run: g.run, Key: fmt.Sprintf("again-%d", turn), Capability: capability, Domain: domain, WriteScopes: []string{taskScope},
	})
	return took, err
}
