package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// replicas compares two gateways on one Redis with one of them: how many tasks a second
// are enqueued, claimed and completed by as many callers, and whether one of them was
// claimed twice.
func (b *bench) replicas(ctx context.Context) error {
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	one, err := b.serve(ctx, binary, "Redis")
	if err != nil {
		return err
	}
	defer one.close()
	two, err := b.another(ctx, binary, one)
	if err != nil {
		return err
	}
	defer two.stop()
	n, rounds := b.pick(2_000, 300), b.pick(3, 1)
	var rates [2][]float64
	twice := 0
	for round := range rounds {
		for side, at := range [][]*gateway{{one}, {one, two}} {
			if err := one.beat(ctx); err != nil {
				return err
			}
			began := time.Now()
			more, err := one.shared(ctx, at, n, fmt.Sprintf("shared-%d-%d", round, side))
			if err != nil {
				return err
			}
			rates[side] = append(rates[side], float64(n)/time.Since(began).Seconds())
			twice += more
			if err := one.settle(ctx); err != nil {
				return err
			}
		}
	}
	alone, both := median(rates[0]), median(rates[1])
	b.line("tasks per second through two replicas on one Redis / one", both/alone, atLeast(0.9, "×"))
	all := 2 * rounds * n
	b.line(fmt.Sprintf("claims that gave a task no other gave, of %d", all), float64(all-twice)/float64(all), atLeast(1, ""))
	b.note("%.0f tasks per second by two, %.0f by one: enqueued, claimed and completed, %d callers of each kind; gateways, redis-server and callers share the cores",
		both, alone, dagWorkers)
	return nil
}

// another starts a further replica beside a gateway, on its store and with its keys.
func (b *bench) another(ctx context.Context, binary string, first *gateway) (*gateway, error) {
	dir, err := b.scratch()
	if err != nil {
		return nil, err
	}
	g := &gateway{host: first.host, run: first.run}
	g.process, err = spawn(ctx, dir, nil, func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "gateway.url"))
		g.url = strings.TrimSpace(string(text))
		return err == nil && get(ctx, g.url+"/readyz") == nil
	}, nil, binary, "serve", "--data", dir, "--listen", "127.0.0.1:0", "--store", first.redis.url(), "--keys", filepath.Join(first.data, "keys"), "--ledger", "none")
	return g, err
}

// shared enqueues tasks and has them done through some gateways at the same time, and
// says how many claims gave a task that another had given.
func (g *gateway) shared(ctx context.Context, at []*gateway, n int, name string) (twice int, err error) {
	workers := make([]*client.Client, dagWorkers)
	for i := range workers {
		s, err := g.open(ctx, builderAgent, writ.RoleExecutor)
		if err != nil {
			return 0, err
		}
		if workers[i], err = client.New(client.Config{URL: at[i%len(at)].url, Token: s.Token}); err != nil {
			return 0, err
		}
	}
	var mu sync.Mutex
	claimed := map[writ.TaskID]int{}
	left := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(claimed) < n
	}
	filled := make(chan error, 1)
	go func() {
		p := newPoster(dagWorkers, g.planner.Token)
		defer p.close()
		_, err := drive(ctx, dagWorkers, n, func(ctx context.Context, c, i int) error {
			body := fmt.Appendf(nil, `{"run_id":%q,"key":"%s-%d","capability":%q,"required_domain":%q}`, g.run, name, i, capability, domain)
			_, _, err := p.post(ctx, at[c%len(at)].url+"/v1/tasks", body)
			return err
		})
		filled <- err
	}()
	_, err = drive(ctx, dagWorkers, dagWorkers, func(ctx context.Context, _, i int) error {
		for left() {
			c, err := workers[i].Claim(ctx, client.ClaimOptions{Wait: time.Second})
			if err != nil || c == nil {
				if err != nil {
					return err
				}
				continue
			}
			mu.Lock()
			claimed[c.Task.ID]++
			mu.Unlock()
			if _, err := workers[i].Complete(ctx, c, nil, nil); err != nil {
				return err
			}
		}
		return nil
	})
	err = errors.Join(err, <-filled)
	for _, times := range claimed {
		twice += times - 1
	}
	return twice, err
}
