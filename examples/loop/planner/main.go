// The planner is an orchestrator: it says what is to be done in which order, and
// can neither do it nor say that it is done.
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/examples/loop/agent"
)

func main() { agent.Run(plan) }

func plan(ctx context.Context, c *client.Client) error {
	run, err := c.CreateRun(ctx, client.RunOptions{
		Title: "publish the site", ClosePolicy: writ.CloseVerifier, Budget: map[string]int64{writ.BudgetSteps: 40},
	})
	if err != nil {
		return err
	}
	fmt.Println("run", run.ID)
	after := func(keys ...string) (out []client.Dependency) {
		for _, k := range keys {
			out = append(out, client.Dependency{Key: k})
		}
		return out
	}
	for _, step := range []client.TaskOptions{
		{Key: "build", WriteScopes: []string{"fs:loop/dist/"}},
		{Key: "test", DependsOn: after("build")},
		{Key: "docs", DependsOn: after("build"), WriteScopes: []string{"fs:loop/docs/"}},
		{Key: "publish", DependsOn: after("test", "docs"), Verify: &client.Verification{Required: true, Gates: []string{"links"}}},
	} {
		step.Run, step.Domain, step.Capability = run.ID, "loop", writ.CapabilityID("loop."+step.Key)
		t, err := c.Enqueue(ctx, step)
		if err != nil {
			return err
		}
		fmt.Printf("%s is %s\n", t.Key, t.State)
	}
	if run, err = c.SealRun(ctx, run.ID); err != nil { // nothing more comes
		return err
	}
	for last := run.State; !writ.RunMoves.Terminal(run.State); {
		if !agent.Wait(ctx, 200*time.Millisecond) {
			return ctx.Err()
		}
		if run, err = c.GetRun(ctx, run.ID); err != nil {
			return err
		}
		if run.State != last {
			last = run.State
			fmt.Println("the run is", run.State)
		}
	}
	if run.State != writ.RunDone {
		return fmt.Errorf("the run ended %s: %s", run.State, run.Reason)
	}
	return nil
}
