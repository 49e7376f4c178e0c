// The builder is an executor: it takes what it may take, works while its lease
// lasts, and says what came of it.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/examples/loop/agent"
)

func main() { agent.Run(build) }

func build(ctx context.Context, c *client.Client) error {
	for ctx.Err() == nil {
		task, err := c.Claim(ctx, client.ClaimOptions{Wait: 20 * time.Second})
		if err != nil {
			return err
		}
		if task == nil {
			continue // nothing to do
		}
		fmt.Printf("works on %s, attempt %d\n", task.Task.Key, task.Task.Attempt)
		if beat, err := c.Heartbeat(ctx, task, &client.Progress{Pct: 50, Seq: 1}); err != nil || beat.Cancelled() {
			_, err = c.Release(ctx, task)
			if err != nil {
				return err
			}
			continue
		}
		done, err := c.Complete(ctx, task, work(task.Task), nil)
		if err != nil {
			return err
		}
		fmt.Printf("%s is %s\n", done.Key, done.State)
	}
	return ctx.Err()
}

// work forgets the digest at first, as one does.
func work(t client.Task) map[string]any {
	result := map[string]any{"step": t.Key}
	if t.Rework > 0 {
		sum := sha256.Sum256([]byte(t.Key))
		result["digest"] = hex.EncodeToString(sum[:])
	}
	return result
}
