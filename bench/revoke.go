package main

import (
	"context"
	"fmt"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// What a revoked agent leaves behind in each round.
const (
	revokedTasks = 32
	revokedHeld  = 8
)

// revoke measures the kill switch: how long its one commit takes, behind which
// nothing of the agent's sessions follows, and how long until nothing is left of
// what the agent had set going.
func (b *bench) revoke(ctx context.Context) error {
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	for _, host := range []string{"bolt", "Redis"} {
		g, err := b.serve(ctx, binary, host)
		if err != nil {
			return err
		}
		var commits, cascades, beats []float64
		for i := range b.pick(40, 8) {
			commit, cascade, beat, err := g.revokeOne(ctx, i)
			if err != nil {
				g.close()
				return fmt.Errorf("revoking, round %d: %w", i, err)
			}
			commits, cascades, beats = append(commits, commit), append(cascades, cascade), append(beats, beat)
		}
		g.close()
		commit, cascade, beat := median(commits), median(cascades), median(beats)
		b.line("revoke: p50 of its commit / of a task heartbeat, "+host, commit/beat, atMost(3, "×"))
		b.line("revoke: p50 until nothing is left, "+host, cascade/1e6, atMost(1000, " ms"))
		b.note("p50 of the commit %.2f ms; an agent with %d tasks, %d of them in work", commit/1e6, revokedTasks, revokedHeld)
	}
	return nil
}

// revokeOne lets an agent set something going, and revokes it.
func (g *gateway) revokeOne(ctx context.Context, round int) (commit, cascade, beat float64, err error) {
	id := writ.AgentID(fmt.Sprintf("revoked-%d", round))
	if _, err := g.operator.RegisterAgent(ctx, client.AgentOptions{
		ID: id, Archetypes: []writ.Role{writ.RoleOrchestrator, writ.RoleExecutor}, Domain: domain, WriteScope: []string{}, MaxConcurrent: 100,
		Tools: []writ.Tool{{Name: "site.revoked", Safety: writ.SafetyMutating}},
	}); err != nil {
		return 0, 0, 0, err
	}
	if _, err := g.operator.ActivateAgent(ctx, id); err != nil {
		return 0, 0, 0, err
	}
	open := func(role writ.Role) (*client.Client, error) {
		s, err := g.operator.OpenSession(ctx, client.SessionOptions{Principal: writ.PrincipalID(id), Kind: writ.KindAgent, Role: role, Agent: id})
		if err != nil {
			return nil, err
		}
		c, err := client.New(client.Config{URL: g.url, Token: s.Token})
		if err == nil {
			_, err = c.StartSession(ctx, s.ID)
		}
		return c, err
	}
	plans, err := open(writ.RoleOrchestrator)
	if err != nil {
		return 0, 0, 0, err
	}
	works, err := open(writ.RoleExecutor)
	if err != nil {
		return 0, 0, 0, err
	}
	run, err := plans.CreateRun(ctx, client.RunOptions{Title: "revoked", Budget: map[string]int64{writ.BudgetSteps: 1000}})
	if err != nil {
		return 0, 0, 0, err
	}
	for i := range revokedTasks {
		t, err := plans.Enqueue(ctx, client.TaskOptions{Run: run.ID, Key: fmt.Sprintf("task-%d", i), Capability: "site.revoked", Domain: domain, Agents: []writ.AgentID{id}})
		if err != nil {
			return 0, 0, 0, err
		}
		if i >= revokedHeld {
			continue
		}
		l, err := works.Claim(ctx, client.ClaimOptions{Task: t.ID})
		if err != nil {
			return 0, 0, 0, err
		}
		start := time.Now()
		if _, err := works.Heartbeat(ctx, l, nil); err != nil {
			return 0, 0, 0, err
		}
		beat = float64(time.Since(start))
	}
	start := time.Now()
	a, err := g.operator.RevokeAgent(ctx, id)
	if err != nil {
		return 0, 0, 0, err
	}
	commit = float64(time.Since(start))
	for a.Revocation == nil || !a.Revocation.Swept {
		if a, err = g.operator.GetAgent(ctx, id); err != nil {
			return 0, 0, 0, err
		}
	}
	return commit, float64(time.Since(start)), beat, nil
}
