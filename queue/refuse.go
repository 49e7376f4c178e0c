package queue

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// TaskRefuseArgs say that policy refused a task from a lane to an agent.
type TaskRefuseArgs struct {
	Task  writ.TaskID    `json:"task_id" doc:"The task." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Agent writ.AgentID   `json:"agent_id" doc:"The agent that was refused." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	By    writ.SessionID `json:"session_id,omitempty" doc:"The session, when it was refused for what that claims: other sessions of the agent were not." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Again int64          `json:"again_ms,omitempty" doc:"When the task is to be offered again whatever policy says by then, in milliseconds from now; absent when only that or another agent changes anything." minimum:"0" maximum:"3600000"`
	Lane  writ.Lane      `json:"lane,omitempty" doc:"The lane the task came from; absent when it was set aside before." maxLength:"256"`
}

// refuseCapability takes a task that policy refused to an agent out of its
// lane, so that it does not stand before others, and remembers for whom.
func refuseCapability() *writ.Capability {
	const op = "queue.Refuse"
	return writ.Define[TaskRefuseArgs, Swept](mandate("task.refuse", "Set a task aside that policy refused to an agent."), writ.Verb[TaskRefuseArgs]{
		Locks: func(_ *writ.Call, a *TaskRefuseArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(_ *writ.Call, a *TaskRefuseArgs, s writ.Snapshot) (writ.ReadSet, error) {
			if !a.Agent.Valid() {
				return writ.ReadSet{}, notFound(op, "agent")
			}
			rs, err := placedReads(op, s, a.Task)
			if err == nil && a.By != "" {
				rs.Ranges = append(rs.Ranges, refusers(a.Task))
			}
			return rs, err
		},
		Plan: func(c *writ.Call, a *TaskRefuseArgs, s writ.Snapshot, dec writ.Decision) (writ.Tx, writ.Reply, error) {
			d := begin(op, c, s)
			if c.Entry != nil {
				d.tx.Ack(*c.Entry)
			}
			t, _, ok, err := writ.Get[writ.Task](s, writ.TaskKey(a.Task))
			if err != nil {
				return writ.Tx{}, writ.Reply{}, err
			}
			if !ok || t.State != writ.TaskQueued || t.NotBefore > s.Now {
				return d.swept(Swept{}, nil) // the entry was no longer true
			}
			if a.Lane != "" && !slices.Contains(t.Lanes(), a.Lane) {
				return writ.Tx{}, writ.Reply{}, invalid(op, "/lane", "is not a lane of the task")
			}
			d.withdraw(t)
			d.tx.Index(writ.Refused(t.Capability, t.Domain), string(t.ID), 0)
			member := writ.RefuserAs(a.Agent, a.By, dec.PolicyRevision)
			if a.By != "" {
				d.roomFor(member, t.ID)
			}
			d.tx.Index(writ.Refusers(t.ID), member, 0)
			if a.Again > 0 {
				d.tx.Index(writ.IndexTodo, todo(todoReoffer, string(t.ID)), s.Now+a.Again)
			}
			return d.swept(Swept{Changed: 1}, nil)
		},
	})
}

// roomFor makes room for a session among those a task was refused to: an agent may
// have any number of sessions one after another. Who is forgotten is asked again.
func (d *draft) roomFor(member string, id writ.TaskID) {
	list := refusers(id)
	members := d.s.Ranges[list].Members
	if len(members) < list.Limit || slices.ContainsFunc(members, func(m writ.Member) bool { return m.Name == member }) {
		return
	}
	for _, m := range members {
		if strings.Count(m.Name, " ") > 1 { // see writ.RefuserAs
			d.tx.Unindex(writ.Refusers(id), m.Name)
			return
		}
	}
}

// todoReoffer is the follow-up of a task that was set aside for a reason that
// passes: "reoffer <task>".
const todoReoffer = "reoffer"

// reofferCapability puts a task that was set aside back into its lanes and
// forgets to whom it was refused: policy has changed, or another agent asks.
func reofferCapability() *writ.Capability {
	const op = "queue.Reoffer"
	reads := func(op string, s writ.Snapshot, id writ.TaskID) (writ.ReadSet, error) {
		rs, err := placedReads(op, s, id)
		rs.Ranges = append(rs.Ranges, refusers(id))
		return rs, err
	}
	return taskMandate("task.reoffer", "Put a task that was set aside back into its lanes.", op, reads, func(d *draft, t writ.Task) (Swept, error) {
		d.tx.Unindex(writ.IndexTodo, todo(todoReoffer, string(t.ID)))
		if t.State != writ.TaskQueued || len(d.s.Ranges[refusers(t.ID)].Members) == 0 {
			d.tx.Unindex(writ.Refused(t.Capability, t.Domain), string(t.ID))
			d.accept(t)
			return Swept{}, nil
		}
		d.accept(t)
		d.offer(t)
		return Swept{Changed: 1}, nil
	})
}
