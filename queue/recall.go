package queue

import (
	"github.com/writ-gateway/writ"
)

// TaskRecallArgs name an agent that was revoked.
type TaskRecallArgs struct {
	Agent writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

// recallBatch is how many tasks one call looks at.
const recallBatch = 8

const (
	opRecall = "queue.Recall"

	todoRecall   = "recall"   // an agent: take back the tasks it set going
	todoWithdraw = "withdraw" // an agent: take back the approvals it asked for
)

// recallCapability cancels what a revoked agent's sessions, and those they opened,
// had enqueued, running tasks too: whoever works on one has lost its lease.
func recallCapability() *writ.Capability {
	return writ.Define[TaskRecallArgs, Swept](mandate("task.recall", "Cancel the tasks a revoked agent had enqueued."), writ.Verb[TaskRecallArgs]{
		Reads: recallReads,
		Describe: func(_ *writ.Call, a *TaskRecallArgs, s writ.Snapshot) (writ.Subject, error) {
			run, err := recallRun(s, a.Agent)
			return describeRun(opRecall, s, run, err)
		},
		Plan: recallPlan,
	})
}

func enqueuedFor(id writ.AgentID) writ.Range {
	return writ.Range{Index: writ.SetGoing(writ.ObjectTask, id), Limit: recallBatch}
}

// recallRun is the run whose tasks a commit cancels.
func recallRun(s writ.Snapshot, id writ.AgentID) (writ.RunID, error) {
	return firstRun(opRecall, s, s.Ranges[enqueuedFor(id)].Members, func(t writ.Task) bool { return !writ.TaskMoves.Terminal(t.State) })
}

func recallReads(_ *writ.Call, a *TaskRecallArgs, s writ.Snapshot) (writ.ReadSet, error) {
	rs := writ.ReadSet{Docs: []writ.Key{writ.AgentKey(a.Agent)}, Ranges: []writ.Range{enqueuedFor(a.Agent)}}
	for _, m := range s.Ranges[enqueuedFor(a.Agent)].Members {
		more, err := leaveReads(opRecall, s, writ.TaskID(m.Name))
		if err != nil {
			return rs, err
		}
		rs = rs.Join(more)
		rs.Ranges = append(rs.Ranges, queueReads(writ.TaskID(m.Name))...)
	}
	return rs, nil
}

func recallPlan(c *writ.Call, a *TaskRecallArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	agent, ok, err := loadAgent(s, a.Agent)
	if err != nil {
		return refuse(err)
	}
	d, out := begin(opRecall, c, s), Swept{}
	if h := agent.Halt; ok && h != nil && h.Revoked && h.SweptAt == 0 {
		d.tx.Cause(h.Receipt)
		run, err := recallRun(s, a.Agent)
		if err != nil {
			return refuse(err)
		}
		members := s.Ranges[enqueuedFor(a.Agent)].Members
		out.More = len(members) == recallBatch
		for _, m := range members {
			if d.full() {
				out.More = true
				break
			}
			t, _, err := loadTask(opRecall, s, writ.TaskID(m.Name))
			if err != nil {
				return refuse(err)
			}
			switch {
			case writ.TaskMoves.Terminal(t.State): // it ended, and left the list, between two reads; or the list is wrong
				d.tx.Unindex(writ.SetGoing(writ.ObjectTask, a.Agent), m.Name)
				continue
			case t.Run != run:
				out.More = true
				continue
			}
			from := t.State
			d.quit(&t)
			if err := d.end(&t, from, writ.TaskCancelled); err != nil {
				return refuse(err)
			}
			out.Changed++
		}
	}
	if !out.More {
		d.tx.Unindex(writ.IndexTodo, todo(todoRecall, string(a.Agent)))
		d.tx.Index(writ.IndexTodo, todo(todoWithdraw, string(a.Agent)), s.Now)
	}
	return d.swept(out, nil)
}
