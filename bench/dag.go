package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// A step that many depend on lets go of so many in one transaction at most.
const mostReleased = 128

// dag submits work of many steps that depend on one another to a gateway on Redis, and
// has it done: layers as wide as a fan-out, each step after two of the layer before,
// and all of the first after one.
func (b *bench) dag(ctx context.Context) error {
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	g, err := b.serve(ctx, binary, "Redis")
	if err != nil {
		return err
	}
	defer g.close()
	slow, err := dialRedis(g.redis.socket)
	if err != nil {
		return err
	}
	defer func() { _ = slow.Close() }()
	for _, words := range [][]string{{"slowlog-log-slower-than", "1000"}, {"slowlog-max-len", "4096"}} {
		if err := slow.do(command(append([]string{"CONFIG", "SET"}, words...)...)); err != nil {
			return err
		}
	}
	steps, wide := b.pick(10_000, 1_000), b.pick(1_000, 300)
	before, err := g.footprint()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := g.submit(ctx, steps, wide); err != nil {
		return err
	}
	submitted := time.Since(began)
	if err := g.settle(ctx); err != nil {
		return err
	}
	full, err := g.footprint()
	if err != nil {
		return err
	}
	began = time.Now()
	most, err := g.workOff(ctx, steps)
	if err != nil {
		return err
	}
	done := time.Since(began)
	ended, err := g.footprint()
	if err != nil {
		return err
	}
	slowest, err := slow.slowest()
	if err != nil {
		return err
	}
	b.line(fmt.Sprintf("a workflow of %d steps, Redis: slowest script", steps), float64(slowest)/1000, atMost(8, " ms"))
	b.line(fmt.Sprintf("the same: let go by one completion, of %d that wait", wide), float64(most), atMost(mostReleased, ""))
	b.note("submitted in %.1f s (%.0f/s), done in %.1f s (%.0f steps per second, %d workers)",
		submitted.Seconds(), float64(steps)/submitted.Seconds(), done.Seconds(), float64(steps)/done.Seconds(), dagWorkers)
	per := func(of func(footprint) int64) float64 { return float64(of(full)-of(before)) / float64(steps) }
	b.note("per step that waits %.0f bytes in the gateway, %.0f in redis-server; when all are done RSS %d MiB and %d MiB",
		per(func(f footprint) int64 { return f.own }), per(func(f footprint) int64 { return f.store }), ended.own>>20, ended.store>>20)
	return nil
}

// submit makes a run of a first step and then layers in one call, and waits until every
// step is a task.
func (g *gateway) submit(ctx context.Context, steps, wide int) error {
	var b strings.Builder
	step := func(key string, after ...string) {
		for i, k := range after {
			after[i] = strconv.Quote(k)
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `%q:{"capability":%q,"required_domain":%q,"args":{"ref":"main"},"depends_on":[%s]}`, key, capability, domain, strings.Join(after, ","))
	}
	step("first")
	name := func(i int) string { return "step-" + strconv.Itoa(i) }
	for i := 1; i < steps; i++ {
		if from := i - (i-1)%wide; from == 1 {
			step(name(i), "first")
		} else {
			step(name(i), name(i-wide), name(from-wide+(i-from+1)%wide))
		}
	}
	r, err := g.planner.CreateRun(ctx, client.RunOptions{
		Budget: map[string]int64{writ.BudgetSteps: 1_000_000}, Workflow: json.RawMessage(`{"version":1,"steps":{` + b.String() + `}}`),
	})
	for err == nil && r.Workflow != nil && !r.Workflow.Unfolded {
		if r.State != writ.RunActive {
			return fmt.Errorf("step %s: %s", r.Workflow.Step, r.Workflow.Code)
		}
		if err := g.beat(ctx); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
		r, err = g.planner.GetRun(ctx, r.ID)
	}
	return err
}

const dagWorkers = 4 // as many tasks as an agent may hold by default

// workOff does everything there is, and says how many steps one completion let go at
// most.
func (g *gateway) workOff(ctx context.Context, steps int) (most int, err error) {
	workers := make([]session, dagWorkers)
	for i := range workers {
		if workers[i], err = g.open(ctx, builderAgent, writ.RoleExecutor); err != nil {
			return 0, err
		}
	}
	var left, released atomic.Int64
	left.Store(int64(steps))
	_, err = drive(ctx, dagWorkers, dagWorkers, func(ctx context.Context, _, i int) error {
		w := workers[i]
		for left.Load() > 0 {
			c, err := w.Claim(ctx, client.ClaimOptions{Wait: time.Second})
			if err != nil {
				return err
			}
			if c == nil {
				continue
			}
			t, err := w.Complete(ctx, c, nil, nil)
			if err != nil {
				return err
			}
			n := int64(len(t.Unblocked))
			for was := released.Load(); n > was && !released.CompareAndSwap(was, n); was = released.Load() {
			}
			left.Add(-1)
		}
		return nil
	})
	return int(released.Load()), err
}

// slowest is the longest a script took since the log of slow commands was set up, in
// microseconds; those under a millisecond are not in it.
func (c *redisConn) slowest() (int64, error) {
	const script = `local most = 0
for _, e in ipairs(redis.call('SLOWLOG', 'GET', 4096)) do
  if (string.upper(e[4][1]) == 'EVALSHA' or string.upper(e[4][1]) == 'EVAL') and e[3] > most then most = e[3] end
end
return most`
	if _, err := c.Write(command("EVAL", script, "0")); err != nil {
		return 0, err
	}
	l, err := c.r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	n, ok := strings.CutPrefix(strings.TrimSpace(l), ":")
	if !ok {
		return 0, errors.New("redis: " + strings.TrimSpace(l))
	}
	return strconv.ParseInt(n, 10, 64)
}
