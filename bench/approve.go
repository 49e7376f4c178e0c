package main

import (
	"context"
	"fmt"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// approve compares a person's decision about a call that waits for it with a
// heartbeat of a task: both by one caller, in turns.
func (b *bench) approve(ctx context.Context) error {
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	for _, host := range []string{"bolt", "Redis"} {
		g, err := b.serve(ctx, binary, host)
		if err != nil {
			return err
		}
		err = b.decide(ctx, g)
		g.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// risky is a tool whose use policy wants a person to agree to.
const risky writ.CapabilityID = "site.publish"

func (b *bench) decide(ctx context.Context, g *gateway) error {
	const publisher writ.AgentID = "publisher"
	if _, err := g.operator.RegisterAgent(ctx, client.AgentOptions{
		ID: publisher, Archetypes: []writ.Role{writ.RoleExecutor}, Domain: domain, WriteScope: []string{},
		Tools: []writ.Tool{{Name: risky, Safety: writ.SafetyMutating, Approval: writ.ApprovalManual}},
	}); err != nil {
		return err
	}
	if _, err := g.operator.ActivateAgent(ctx, publisher); err != nil {
		return err
	}
	person, err := g.operator.OpenSession(ctx, client.SessionOptions{Principal: "alice", Kind: writ.KindHuman, Role: writ.RoleApprover})
	if err != nil {
		return err
	}
	alice, err := client.New(client.Config{URL: g.url, Token: person.Token})
	if err != nil {
		return err
	}
	if _, err := alice.StartSession(ctx, person.ID); err != nil {
		return err
	}
	enqueue := func(key string, what writ.CapabilityID) (writ.TaskID, error) {
		t, err := g.planner.Enqueue(ctx, client.TaskOptions{Run: g.run, Key: key, Capability: what, Domain: domain})
		return t.ID, err
	}
	held, err := enqueue("held", capability)
	if err != nil {
		return err
	}
	holds, err := g.builder.Claim(ctx, client.ClaimOptions{Task: held})
	if err != nil {
		return err
	}
	var decisions, beats []float64
	for i := range b.pick(300, 60) {
		_, err := enqueue(fmt.Sprintf("risky-%d", i), risky)
		if writ.CodeOf(err) != writ.CodeApprovalRequired {
			return fmt.Errorf("planning work with %s: want it to wait for approval, got %w", risky, err)
		}
		asked := writ.AsError("bench", err).Details["approval"]
		start := time.Now()
		if _, err := alice.Invoke(ctx, "approval.decide", map[string]any{"approval_id": asked, "decision": "approve"}, nil); err != nil {
			return fmt.Errorf("%s: %w", asked, err)
		}
		decisions = append(decisions, float64(time.Since(start)))
		start = time.Now()
		if _, err := g.builder.Heartbeat(ctx, holds, nil); err != nil {
			return err
		}
		beats = append(beats, float64(time.Since(start)))
		if _, err := alice.HeartbeatSession(ctx, person.ID); err != nil {
			return err
		}
	}
	decide, beat := median(decisions), median(beats)
	b.line("approve: p50 of a decision / of a task heartbeat, "+g.host, decide/beat, atMost(2, "×"))
	b.note("p50 of a decision %.2f ms, of a heartbeat %.2f ms", decide/1e6, beat/1e6)
	return nil
}
