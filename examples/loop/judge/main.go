// The judge is a verifier: it had no part in the work, looks at what came of it,
// and is the only one who can end it well.
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

// What it was made to judge: it knows nothing of other work.
const (
	domain  = "loop"
	planner = "loop-planner"
)

func main() { agent.Run(judge) }

func judge(ctx context.Context, c *client.Client) error {
	for agent.Wait(ctx, 200*time.Millisecond) {
		tasks, err := c.ListTasks(ctx, "", writ.TaskVerifying, "")
		if err != nil {
			return err
		}
		for _, listed := range tasks.Tasks {
			if listed.Domain != domain {
				continue // somebody else's to judge
			}
			if err := judgeTask(ctx, c, listed.ID); err != nil {
				return err
			}
		}
		runs, err := c.ListRuns(ctx, writ.RunVerifying, "")
		if err != nil {
			return err
		}
		for _, run := range runs.Runs {
			if run.Owner != planner {
				continue
			}
			if err := judgeRun(ctx, c, run); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// judgeTask sends back what has no digest, and has checked the links of the rest.
func judgeTask(ctx context.Context, c *client.Client, id writ.TaskID) error {
	t, err := c.GetTask(ctx, id)
	if err != nil {
		return err
	}
	var result struct{ Digest string }
	if len(t.Result) > 0 {
		if err := json.Unmarshal(t.Result, &result); err != nil {
			return err
		}
	}
	if result.Digest == "" {
		t, err = c.VerifyTask(ctx, t, writ.VerdictReject, nil, []string{"no_digest"})
	} else {
		t, err = c.VerifyTask(ctx, t, writ.VerdictAccept, []client.Gate{{Name: "links", Status: "pass"}}, nil)
	}
	if err != nil {
		return err
	}
	fmt.Printf("%s is %s\n", t.Key, t.State)
	return nil
}

// judgeRun accepts a run on every task that ended in it.
func judgeRun(ctx context.Context, c *client.Client, run client.Run) error {
	tasks, err := c.ListTasks(ctx, run.ID, writ.TaskDone, "")
	if err != nil {
		return err
	}
	run, err = c.CloseRun(ctx, run, writ.VerdictAccept, tasks.Tasks, nil)
	if err != nil {
		return err
	}
	fmt.Println("the run is", run.State)
	return nil
}
