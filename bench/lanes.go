package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// Two hundred lanes are so many capabilities, at every priority.
const (
	laneTools      = 20
	lanePriorities = 10
)

// lanes compares claims of an agent whose tasks lie in two hundred lanes with those of
// one whose tasks lie in one, with as many tasks queued.
func (b *bench) lanes(ctx context.Context) error {
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	for _, host := range []string{"bolt", "Redis"} {
		if err := b.lanesOn(ctx, binary, host); err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
	}
	return nil
}

func (b *bench) lanesOn(ctx context.Context, binary, host string) error {
	queued := b.pick(2_000, 400)
	var sides [2]*laneWork
	for i, lanes := range []int{1, laneTools * lanePriorities} {
		g, err := b.serve(ctx, binary, host)
		if err != nil {
			return err
		}
		defer g.close()
		if sides[i], err = g.spread(ctx, lanes, queued); err != nil {
			return err
		}
	}
	took := map[*laneWork][]float64{}
	for turn := range b.pick(400, 100) {
		pair := slices.Clone(sides[:])
		if turn%2 == 1 {
			slices.Reverse(pair)
		}
		for _, w := range pair {
			if turn%100 == 0 {
				if err := w.beat(ctx); err != nil {
					return err
				}
			}
			d, err := w.claim(ctx, turn)
			if err != nil {
				return err
			}
			took[w] = append(took[w], ms(d))
		}
	}
	one, many := median(took[sides[0]]), median(took[sides[1]])
	b.line(fmt.Sprintf("%s: claim from %d lanes / from one, p50", host, laneTools*lanePriorities), many/one, atMost(1.3, "×"))
	b.note("claim p50 %.2f ms from %d lanes, %.2f ms from one; %d tasks queued in both", many, laneTools*lanePriorities, one, queued)
	return nil
}

// laneWork is a gateway whose tasks lie in some lanes, and who works on them.
type laneWork struct {
	*gateway
	lanes  int
	worker session
}

// spread fills so many lanes evenly.
func (g *gateway) spread(ctx context.Context, lanes, queued int) (*laneWork, error) {
	w := &laneWork{gateway: g, lanes: lanes}
	var tools []writ.Tool
	for i := range laneTools {
		tools = append(tools, writ.Tool{Name: laneTool(i), Safety: writ.SafetyMutating})
	}
	id := writ.AgentID("in-lanes")
	if _, err := g.operator.RegisterAgent(ctx, client.AgentOptions{
		ID: id, Archetypes: []writ.Role{writ.RoleExecutor}, Domain: domain, WriteScope: []string{}, Tools: tools,
	}); err != nil {
		return nil, err
	}
	_, err := g.operator.ActivateAgent(ctx, id)
	if err == nil {
		w.worker, err = g.open(ctx, id, writ.RoleExecutor)
	}
	if err != nil {
		return nil, err
	}
	p := newPoster(fillers, g.planner.Token)
	defer p.close()
	_, err = drive(ctx, fillers, queued, func(ctx context.Context, _, i int) error {
		tool, priority := laneOf(i % lanes)
		body := fmt.Appendf(nil, `{"run_id":%q,"key":"lane-%d","capability":%q,"required_domain":%q,"priority":%d}`, g.run, i, tool, domain, priority)
		_, _, err := p.post(ctx, g.url+"/v1/tasks", body)
		return err
	})
	return w, errors.Join(err, g.settle(ctx))
}

func laneTool(i int) writ.CapabilityID { return writ.CapabilityID(fmt.Sprintf("site.lane%02d", i)) }

func laneOf(i int) (tool writ.CapabilityID, priority int) {
	return laneTool(i % laneTools), i / laneTools
}

// claim claims the next task and says how long that took. The task is then completed,
// and another one takes its place in its lane.
func (w *laneWork) claim(ctx context.Context, turn int) (time.Duration, error) {
	start := time.Now()
	c, err := w.worker.Claim(ctx, client.ClaimOptions{})
	took := time.Since(start)
	if err == nil && c == nil {
		err = errors.New("there was no task to claim")
	}
	if err != nil {
		return 0, err
	}
	if _, err := w.worker.Complete(ctx, c, nil, nil); err != nil {
		return 0, err
	}
	priority := c.Task.Priority
	_, err = w.planner.Enqueue(ctx, client.TaskOptions{
		Run: w.run, Key: fmt.Sprintf("again-%d", turn), Capability: c.Task.Capability, Domain: domain, Priority: &priority,
	})
	return took, err
}
