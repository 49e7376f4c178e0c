package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// watchTasks follows a run, or one task, until it has ended.
func watchTasks() *cobra.Command {
	var connect connection
	var format string
	cmd := &cobra.Command{
		Use: "watch RUN-ID|TASK-ID", Short: "Print what becomes of the tasks of a run, or of one task, until it has ended",
		Long: `Print what becomes of the tasks of a run, or of one task, until it has ended: a line for each state that is
seen, and with -o json an object a line. It looks once a second, so what is shorter than that may not show;
the receipts have it.

Exits with 0 when the run or the task is done, with 1 when it ended another way.`,
		Example: "  writ task watch run_01M89R8763R5PGQGSMXGFWBA4N\n  writ task watch tsk_01M89R8776FSMT3FKAH3617HBC -o json",
		Args:    oneArg,
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			run, task := writ.RunID(rest[0]), writ.TaskID(rest[0])
			if !run.Valid() && !task.Valid() {
				return usageError{errors.New("wants the id of a run (run_…) or of a task (tsk_…)"), c.CommandPath()}
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			w := watcher{c: c, cl: cl, json: format == "json", seen: map[writ.TaskID]string{}}
			look := func(ctx context.Context) (bool, bool, error) { return w.run(ctx, run) }
			if !run.Valid() {
				look = func(ctx context.Context) (bool, bool, error) { return w.task(ctx, task) }
			}
			for {
				over, well, err := look(c.Context())
				switch {
				case c.Context().Err() != nil:
					return nil
				case err != nil:
					return err
				case over && well:
					return nil
				case over:
					return exitStatus(exitError)
				}
				select {
				case <-time.After(watchPause):
				case <-c.Context().Done():
					return nil
				}
			}
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	connect.flags(cmd)
	return cmd
}

// watcher prints each state of a task once.
type watcher struct {
	c    *cobra.Command
	cl   *client.Client
	json bool
	seen map[writ.TaskID]string
}

// seenTask is a line of the watch.
type seenTask struct {
	At      string         `json:"at"` // when it was seen (RFC 3339, UTC)
	Key     string         `json:"key"`
	Task    writ.TaskID    `json:"task_id"`
	State   writ.TaskState `json:"state"`
	Attempt int64          `json:"attempt"`
	Agent   writ.AgentID   `json:"agent_id,omitempty"`
	Why     string         `json:"why,omitempty"` // of the last attempt that failed
	Receipt writ.ReceiptID `json:"receipt"`
}

func (w watcher) show(t client.Task) error {
	mark := fmt.Sprint(t.State, t.Attempt)
	if w.seen[t.ID] == mark {
		return nil
	}
	w.seen[t.ID] = mark
	line := seenTask{At: time.Now().UTC().Format(time.RFC3339), Key: t.Key, Task: t.ID, State: t.State, Attempt: t.Attempt, Receipt: t.Receipt}
	if t.Lease != nil {
		line.Agent = t.Lease.Agent
	}
	if t.Failure != nil && t.State != writ.TaskDone {
		line.Why = string(t.Failure.Class) + "/" + t.Failure.Code
	}
	if w.json {
		b, err := json.Marshal(line)
		if err == nil {
			_, err = fmt.Fprintln(w.c.OutOrStdout(), string(escaped(b)))
		}
		return err
	}
	_, err := fmt.Fprintf(w.c.OutOrStdout(), "%s  %-20s  %s  %-10s  attempt %d  %s %s\n",
		line.At, printable(line.Key), line.Task, line.State, line.Attempt, printable(string(line.Agent)), printable(line.Why))
	return err
}

// task shows one task; over says that it has ended, and well how.
func (w watcher) task(ctx context.Context, id writ.TaskID) (over, well bool, err error) {
	t, err := w.cl.GetTask(ctx, id)
	if err == nil {
		err = w.show(t)
	}
	return writ.TaskMoves.Terminal(t.State), t.State == writ.TaskDone, err
}

// run shows all tasks of a run. It is asked for the run first: the tasks it then
// finds are at least as far.
func (w watcher) run(ctx context.Context, id writ.RunID) (over, well bool, err error) {
	r, err := w.cl.GetRun(ctx, id)
	if err != nil {
		return false, false, err
	}
	for after := writ.TaskID(""); ; {
		page, err := w.cl.ListTasks(ctx, id, "", after)
		if err != nil {
			return false, false, err
		}
		for _, t := range page.Tasks {
			if err := w.show(t); err != nil {
				return false, false, err
			}
		}
		if page.Next == "" {
			break
		}
		after = page.Next
	}
	over = writ.RunMoves.Terminal(r.State) && r.OpenTasks == 0 // its end tells its tasks a moment later
	if over && !w.json {
		_, err = fmt.Fprintf(w.c.OutOrStdout(), "%s is %s\n", r.ID, r.State)
	}
	return over, r.State == writ.RunDone, err
}
