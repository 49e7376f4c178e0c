// The planner is an orchestrator: it says what is to be done in which order, and
// can neither do it nor say that it is done.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/examples/loop/agent"
)

func main() { agent.Run(plan) }

// workflow is what is to be done: each step begins when those it depends on have ended
// well, and the last one is done when a verifier says so.
const workflow = `{
	"version": 1,
	"steps": {
		"build":   {"capability": "loop.build", "required_domain": "loop", "write_scopes": ["fs:loop/dist/"]},
		"test":    {"capability": "loop.test", "required_domain": "loop", "depends_on": ["build"]},
		"docs":    {"capability": "loop.docs", "required_domain": "loop", "depends_on": ["build"], "write_scopes": ["fs:loop/docs/"]},
		"publish": {"capability": "loop.publish", "required_domain": "loop", "depends_on": ["test", "docs"],
			"verify": {"required": true, "gates": ["links"]}}
	}
}`

func plan(ctx context.Context, c *client.Client) error {
	run, err := c.CreateRun(ctx, client.RunOptions{
		Title: "publish the site", ClosePolicy: writ.CloseVerifier, Budget: map[string]int64{writ.BudgetSteps: 40},
		Workflow: json.RawMessage(workflow),
	})
	if err != nil {
		return err
	}
	fmt.Println("run", run.ID)
	for !run.Workflow.Unfolded && !writ.RunMoves.Terminal(run.State) { // nothing begins before all steps are there
		if !agent.Wait(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
		if run, err = c.GetRun(ctx, run.ID); err != nil {
			return err
		}
	}
	tasks, err := c.ListTasks(ctx, run.ID, "", "")
	if err != nil {
		return err
	}
	for _, t := range tasks.Tasks {
		fmt.Print(t.Key, " begins")
		for _, d := range t.DependsOn {
			fmt.Print(" after ", d.Key)
		}
		fmt.Println()
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
