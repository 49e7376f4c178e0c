package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

const tasksHelp = `Enqueue, claim and finish tasks.

Who plans enqueues them, or submits a workflow; agents claim them, send heartbeats, and complete, fail,
release or hand them on; verifiers judge what asks for it. docs/work.md tells it as one story: what
waits for what, attempts and deadlines, write scopes, handing on, delegating, reviving and verdicts.`

// watchTasks follows a run, or one task, until it has ended.
func watchTasks() *cobra.Command {
	var connect connection
	var format string
	cmd := &cobra.Command{
		Use: "watch RUN-ID|TASK-ID", Short: "Print what becomes of the tasks of a run, or of one task, until it has ended",
		Long: `Print what becomes of the tasks of a run, or of one task, until it has ended: a line for each state that is
seen, and with -o json an object a line. The state of the run is a line of its own whenever it is not
active: while it waits for people to agree, or for its verdict, nothing in it moves. It looks every
two seconds, so what is shorter than that may not show; the receipts have it.

Why a task failed stands with the state it explains; why the attempt before failed, with a task that
waits for the next one.

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
			w := watcher{c: c, cl: cl, json: format == "json", seen: map[string]string{}}
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
	outputFlag(cmd, &format)
	connect.flags(cmd)
	return cmd
}

// watcher prints each state of a run or a task once.
type watcher struct {
	c    *cobra.Command
	cl   *client.Client
	json bool
	seen map[string]string // what was last said of a run or a task, by its id
}

// seenTask is a line about a task.
type seenTask struct {
	At       string          `json:"at"` // when it was seen (RFC 3339, UTC)
	Key      string          `json:"key"`
	Task     writ.TaskID     `json:"task_id"`
	State    writ.TaskState  `json:"state"`
	Attempt  int64           `json:"attempt"`
	Agent    writ.AgentID    `json:"agent_id,omitempty"`
	WaitsFor writ.ApprovalID `json:"waits_for,omitempty"`
	Why      string          `json:"why,omitempty"`          // it ended so
	Before   string          `json:"last_failure,omitempty"` // of the attempt before, while it waits for the next
	Receipt  writ.ReceiptID  `json:"receipt"`
}

// seenRun is a line about a run.
type seenRun struct {
	At       string          `json:"at"`
	Run      writ.RunID      `json:"run_id"`
	State    writ.RunState   `json:"state"`
	Reason   string          `json:"reason,omitempty"`
	WaitsFor writ.ApprovalID `json:"waits_for,omitempty"`
	Receipt  writ.ReceiptID  `json:"receipt"`
}

// news says whether something is another than what was last said of an object.
func (w watcher) news(id string, mark ...any) bool {
	m := fmt.Sprint(mark...)
	if w.seen[id] == m {
		return false
	}
	w.seen[id] = m
	return true
}

// say prints a line: as JSON, or its words for people.
func (w watcher) say(line any, words ...string) error {
	if w.json {
		b, err := json.Marshal(line)
		if err == nil {
			_, err = fmt.Fprintln(w.c.OutOrStdout(), string(escaped(b)))
		}
		return err
	}
	words = slices.DeleteFunc(words, func(s string) bool { return s == "" })
	_, err := fmt.Fprintln(w.c.OutOrStdout(), shown(strings.Join(words, "  ")))
	return err
}

func now() string { return time.Now().UTC().Format(time.RFC3339) }

func (w watcher) show(t client.Task) error {
	if !w.news(string(t.ID), t.State, t.Attempt, t.WaitsFor) {
		return nil
	}
	line := seenTask{At: now(), Key: t.Key, Task: t.ID, State: t.State, Attempt: t.Attempt, WaitsFor: t.WaitsFor, Receipt: t.Receipt}
	if t.Lease != nil {
		line.Agent = t.Lease.Agent
	}
	why := ""
	if t.Failure != nil { // it stays with the task until an attempt succeeds
		text := string(t.Failure.Class) + "/" + t.Failure.Code
		switch t.State {
		case writ.TaskFailed, writ.TaskDead:
			line.Why, why = text, text
		case writ.TaskQueued:
			line.Before, why = text, "the attempt before: "+text
		}
	}
	return w.say(line, line.At, fmt.Sprintf("%-20s", line.Key), string(line.Task), fmt.Sprintf("%-10s", line.State),
		fmt.Sprintf("attempt %d", line.Attempt), string(line.Agent), waitingFor(line.WaitsFor), why)
}

// showRun shows the state of a run as long as it is another than active, and that it
// is active again.
func (w watcher) showRun(r client.Run) error {
	if _, said := w.seen[string(r.ID)]; r.State == writ.RunActive && !said || !w.news(string(r.ID), r.State, r.WaitsFor) {
		return nil
	}
	line := seenRun{At: now(), Run: r.ID, State: r.State, Reason: r.Reason, WaitsFor: r.WaitsFor, Receipt: r.Receipt}
	return w.say(line, line.At, fmt.Sprintf("%-20s", "the run"), string(line.Run), string(line.State), line.Reason, waitingFor(line.WaitsFor))
}

func waitingFor(id writ.ApprovalID) string {
	if id == "" {
		return ""
	}
	return "waits for " + string(id)
}

// task shows one task, and its run; over says that it has ended, and well how.
func (w watcher) task(ctx context.Context, id writ.TaskID) (over, well bool, err error) {
	t, err := w.cl.GetTask(ctx, id)
	if err != nil {
		return false, false, err
	}
	if over = writ.TaskMoves.Terminal(t.State); !over {
		r, err := w.cl.GetRun(ctx, t.Run)
		switch writ.CodeOf(err) {
		case "":
			err = w.showRun(r)
		case writ.CodeNotFound, writ.CodeRBAC: // not for this caller to see
			err = nil
		}
		if err != nil {
			return false, false, err
		}
	}
	return over, t.State == writ.TaskDone, w.show(t)
}

// run shows all tasks of a run. It is asked for the run first: the tasks it then
// finds are at least as far.
func (w watcher) run(ctx context.Context, id writ.RunID) (over, well bool, err error) {
	r, err := w.cl.GetRun(ctx, id)
	if err != nil {
		return false, false, err
	}
	over = writ.RunMoves.Terminal(r.State) && r.OpenTasks == 0 // its end tells its tasks a moment later
	if !over {
		if err := w.showRun(r); err != nil {
			return false, false, err
		}
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
	if over {
		err = w.showRun(r)
	}
	return over, r.State == writ.RunDone, err
}
