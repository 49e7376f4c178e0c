package queue

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// TaskClaimArgs ask for work: for one task, or for the next that fits.
type TaskClaimArgs struct {
	Task         writ.TaskID         `json:"task_id,omitempty" doc:"The task to claim; without it the next task that fits is claimed." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Capabilities []writ.CapabilityID `json:"capabilities,omitempty" doc:"Take only tasks that ask for one of these. Default: all the agent declares." maxItems:"32"`
	Domains      []string            `json:"domains,omitempty" doc:"Take only tasks of these domains." maxItems:"8"`
	WaitSeconds  int64               `json:"wait_s,omitempty" doc:"Seconds to wait for a task when there is none." minimum:"0" maximum:"30"`
}

// TaskClaimed is a task with the lease that allows to work on it.
type TaskClaimed struct {
	Task   TaskView    `json:"task" doc:"The task, with its arguments."`
	Inputs []TaskInput `json:"inputs,omitempty" doc:"Artifacts it is given; those that are optional and were not made are left out. artifact.content reads them."`
	Lease  TaskLease   `json:"lease" doc:"What every further call about the task must show."`
}

// claimer judges and makes claims.
type claimer struct{ cfg Config }

func claimCapability(cfg Config) *writ.Capability {
	return writ.Define[TaskClaimArgs, TaskClaimed](writ.Capability{
		ID: "task.claim", Summary: "Take a task to work on it.", Safety: writ.SafetyMutating, Steps: writ.StepsOfAttempt,
		Example: `{"capabilities":["site.build"],"wait_s":20}`,
	}, writ.Verb[TaskClaimArgs]{
		Locks: func(_ *writ.Call, a *TaskClaimArgs) []writ.Key {
			if a.Task == "" {
				return nil
			}
			return []writ.Key{writ.TaskKey(a.Task)}
		},
		Reads: func(c *writ.Call, a *TaskClaimArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := claimRead(c, a, s)
			if err != nil {
				return rs, err
			}
			aliveReads(cfg.Alive, c, &rs)
			more, err := claimHealth(cfg.Health, c, a, s)
			return rs.Join(more), err
		},
		Describe: claimDescribe,
		Plan: func(c *writ.Call, a *TaskClaimArgs, s writ.Snapshot, d writ.Decision) (writ.Tx, writ.Reply, error) {
			tx, reply, err := claimer{cfg}.plan(c, a, s, d)
			if err != nil || reply.Poll == nil && reply.Outcome == writ.OutcomeEmpty {
				return tx, reply, err
			}
			every, err := cfg.Alive.Renew(c.Caller.Session, s, &tx)
			if reply.Poll != nil {
				reply.Poll.AgainMs = every
				tx.Mandate = true // a full store must not end sessions that wait
			}
			return tx, reply, err
		},
	})
}

const opClaim = "queue.Claim"

func claimRead(c *writ.Call, a *TaskClaimArgs, s writ.Snapshot) (writ.ReadSet, error) {
	rs := writ.ReadSet{Docs: callerAgent(c)}
	if c.Caller.Agent != "" {
		rs.Counters = append(rs.Counters, writ.AgentRunning(c.Caller.Agent))
	}
	if a.Task == "" {
		return rs, nil
	}
	more, err := placedReads(opClaim, s, a.Task)
	if err != nil {
		return rs, err
	}
	rs = rs.Join(more)
	rs.Docs = append(rs.Docs, writ.GivenKey(c.Caller.Session))
	rs.Counters = append(rs.Counters, claimReads(a.Task)...)
	rs.Ranges = append(rs.Ranges, queueReads(a.Task)...)
	t, ok, err := peek[writ.Task](s, writ.TaskKey(a.Task))
	if err == nil && ok && t.State == writ.TaskBlocked { // to say what it waits for
		rs.Docs = append(rs.Docs, waitedFor(t)...)
	}
	if err != nil || !ok || t.State != writ.TaskQueued {
		return rs, err
	}
	of, err := gateReads(c, s, t)
	if err != nil {
		return rs, err
	}
	rs.Docs = append(append(append(rs.Docs, handoffsTo(t)...), makers(t)...), of...)
	rs.Ranges = append(rs.Ranges, lockReads(c.Caller, t)...)
	if r, ok, err := peek[writ.Run](s, writ.RunKey(t.Run)); err != nil {
		return rs, err
	} else if ok {
		rs.Ranges = append(rs.Ranges, writ.PartSeen(c.Caller, r.Tree()))
	}
	rs.Docs = append(rs.Docs, writ.HoldersIn(s, writ.Gaps(wanted(c.Caller, t)), own(c.Caller, t)...)...)
	return rs, nil
}

func claimDescribe(c *writ.Call, a *TaskClaimArgs, s writ.Snapshot) (writ.Subject, error) {
	if a.Task == "" {
		var sub writ.Subject
		return sub, describeAgent(c, s, &sub)
	}
	t, _, err := loadTask(opClaim, s, a.Task)
	if err != nil {
		return writ.Subject{}, err
	}
	agent, ok, err := loadAgent(s, c.Caller.Agent)
	if err != nil {
		return writ.Subject{}, err
	}
	r, err := loadRun(opClaim, s, t.Run)
	if err != nil {
		return writ.Subject{}, err
	}
	agreed := t
	tool, declared := agent.Tool(t.Capability)
	if ok && declared {
		expose(&t, tool)
	}
	if err := carry(s, &t); err != nil {
		return writ.Subject{}, err
	}
	sub, err := subjectIn(r, c, s, t)
	sub.Claimed = claimed(c)
	if declared { // else the plan refuses it
		sub.Charge, sub.Price = attemptCharge(t, tool), priceOf(r, tool)
	}
	if sub.Task != nil {
		sub.Task.Raised = t.Safety != agreed.Safety || t.Approval != agreed.Approval || len(t.Sinks) > len(agreed.Sinks) ||
			len(t.Labels) > len(agreed.Labels) // of what it is given, which was not there when it was enqueued
	}
	return sub, err
}

// claimed is where the caller's session claims to write: policy judges what it does
// of a task by that; nil when it claims nothing.
func claimed(c *writ.Call) (out []string) {
	for _, w := range c.Caller.Claims {
		out = append(out, w.Resource)
	}
	return out
}

func (p claimer) plan(c *writ.Call, a *TaskClaimArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	agent, ok, err := loadAgent(s, c.Caller.Agent)
	if err != nil {
		return writ.Tx{}, writ.Reply{}, err
	}
	if !ok {
		return writ.Tx{}, writ.Reply{}, notEligible("no_agent")
	}
	if a.Task == "" {
		return p.poll(c, a, s, agent)
	}
	return p.task(c, a.Task, s, agent)
}

// poll answers a claim without a task: it names the lanes to wait at. The
// dispatcher calls again with each task it receives there.
func (p claimer) poll(c *writ.Call, a *TaskClaimArgs, s writ.Snapshot, agent writ.Agent) (writ.Tx, writ.Reply, error) {
	switch {
	case agent.State != writ.AgentActive:
		return writ.Tx{}, writ.Reply{}, notEligible("agent_inactive")
	case !agent.Archetype(writ.RoleExecutor):
		return writ.Tx{}, writ.Reply{}, notEligible("archetype")
	}
	if err := quota(s, agent); err != nil {
		return writ.Tx{}, writ.Reply{}, err
	}
	if ask, err := preflight(p.cfg.Health, c, s, agent.ID, nil, nil); err != nil || len(ask) > 0 {
		return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeEmpty, Probe: ask}, err
	}
	wants := map[writ.CapabilityID]bool{}
	for _, t := range agent.Tools {
		wants[t.Name] = t.Safety != writ.SafetyBlocked && (len(a.Capabilities) == 0 || slices.Contains(a.Capabilities, t.Name))
	}
	domain := len(a.Domains) == 0 || slices.Contains(a.Domains, agent.Domain)
	match := func(l writ.Lane) bool {
		_, c, d, only := l.Split()
		return domain && wants[c] && d == agent.Domain && (only == "" || only == agent.ID)
	}
	poll := &writ.Poll{Agent: agent.ID, Lanes: match, WaitMs: min(max(a.WaitSeconds, 0), 30) * 1000}
	if len(c.Caller.Claims) > 0 {
		poll.Claims = c.Caller.Session
	}
	for _, t := range agent.Tools {
		if domain && wants[t.Name] {
			poll.Refused = append(poll.Refused, writ.Refused(t.Name, agent.Domain))
		}
	}
	return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeEmpty, Poll: poll}, nil
}

// task judges one task. A task that came from a lane differs in three
// ways: an entry that is no longer true is dropped, a task whose scopes are
// held waits for the holder instead of failing, and the claim takes its entry
// out of the lane.
func (p claimer) task(c *writ.Call, id writ.TaskID, s writ.Snapshot, agent writ.Agent) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, r, err := loadBoth(opClaim, s, id)
	if err != nil {
		return refuse(err)
	}
	if c.Entry == nil { // a poll named no task, so its If-Match is about none
		if err := c.Match(opClaim, version); err != nil {
			return refuse(err)
		}
	}
	d := begin(opClaim, c, s)
	if c.Entry != nil {
		d.tx.Ack(*c.Entry)
	}
	empty := func() (writ.Tx, writ.Reply, error) {
		tx, err := d.done()
		return tx, writ.Reply{Outcome: writ.OutcomeEmpty}, err
	}
	if err := claimable(s, t); err != nil {
		if c.Entry != nil {
			return empty()
		}
		return refuse(err)
	}
	if why := unfit(agent, t); why != "" {
		return refuse(notEligible(why))
	}
	tool, _ := agent.Tool(t.Capability)
	if err := p.cfg.Validate(tool.InputSchema, t.Args); err != nil {
		// The agent declared its tool, or another schema for it, after the task
		// was enqueued.
		return refuse(notEligible("schema"))
	}
	if own, err := ownWork(c, s, t, agent); err != nil {
		return refuse(err)
	} else if own {
		return refuse(notEligible("own_work"))
	}
	if !r.Begins() {
		if c.Entry != nil && writ.RunMoves.Terminal(r.State) {
			return empty() // its run's end takes it out of the queue
		}
		return refuse(runEnded(opClaim, r))
	}
	h, held, err := inTheWay(s, c.Caller, t)
	switch {
	case err != nil:
		return refuse(err)
	case held && c.Entry != nil:
		d.park(t, c.Entry.Lane, h.By)
		return empty()
	case held:
		return refuse(h.Conflict(opClaim))
	}
	if err := quota(s, agent); err != nil {
		return refuse(err)
	}
	if ask, err := preflight(p.cfg.Health, c, s, agent.ID, t.Agents, &d.tx); err != nil {
		return refuse(err)
	} else if len(ask) > 0 {
		return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeEmpty, Probe: ask}, nil
	}
	expose(&t, tool)
	given, err := inputs(s, t)
	if err != nil {
		return refuse(err)
	}
	if err := carry(s, &t); err != nil {
		return refuse(err)
	}
	d.attach(&t, nil, nil) // what an attempt before this one has put
	end, err := d.take(c, &t, agent, r, tool)
	if err != nil {
		return refuse(err)
	}
	d.tx.TakePart(s, r.Tree(), writ.PartExecuted, c.Caller, agent.Keys)
	handed, err := handedTo(s, t)
	if err != nil {
		return refuse(err)
	}
	tx, err := d.done()
	task, lease := viewOf(t, 0), *leaseOf(t, version, end)
	task.HandedOver = handed
	task.Args, lease.ID, lease.Fence = t.Args, t.Lease.ID, 0
	return tx, writ.Reply{
		Outcome: writ.OutcomeDone, Body: TaskClaimed{Task: task, Inputs: given, Lease: lease},
		Versioned: []string{"task.version", "lease.fence"}, ETag: -1,
	}, err
}

// claimable says whether the task itself may be taken now.
func claimable(s writ.Snapshot, t writ.Task) error {
	switch {
	case t.State == writ.TaskRunning && t.Lease != nil:
		return writ.Refuse(writ.CodeClaimed, opClaim, "somebody else holds the task", "claim another task").
			With("holder_agent", string(t.Lease.Agent))
	case t.State == writ.TaskBlocked:
		e := writ.Refuse(writ.CodeDeps, opClaim, "the task depends on others that have not ended", "claim another task; this one is queued once they have ended")
		if t.Join == writ.JoinManual && !t.Admitted {
			e.Hint = "claim another task; this one is queued once they have ended and whoever manages the run has admitted it (task.admit)"
		}
		on, err := waiting(s, t)
		if err != nil {
			return err
		}
		var ids []string
		for _, id := range on {
			ids = append(ids, string(id))
		}
		return e.With("waiting_on", strings.Join(ids, ","))
	case t.State != writ.TaskQueued:
		return writ.IllegalMove(opClaim, writ.ObjectTask, string(t.State), string(writ.TaskRunning))
	case t.DeadlineAt != 0 && s.Now >= t.DeadlineAt:
		return writ.Refuse(writ.CodeIllegal, opClaim, "the deadline of the task has passed", "claim another task")
	case t.NotBefore > s.Now:
		e := writ.Refuse(writ.CodeIllegal, opClaim, "the task may not start yet", "try again at not_before").
			With("not_before", writ.FormatTime(t.NotBefore))
		e.RetryMs = t.NotBefore - s.Now
		return e
	}
	return nil
}

// quota refuses an agent that works on as many tasks as it may. It never parks
// a task: others may take it.
func quota(s writ.Snapshot, a writ.Agent) error {
	if s.Counters[writ.AgentRunning(a.ID)] < a.MaxConcurrent {
		return nil
	}
	e := writ.Refuse(writ.CodeQuota, opClaim, "the agent works on as many tasks as it may", "finish one first")
	e.RetryMs = 1000
	return e
}

func notEligible(why string) error {
	return writ.Refuse(writ.CodeNotEligible, opClaim, "this agent may not take the task", "see reason").With("reason", why)
}

// runEnded refuses new work in a run that has ended, or waits for people.
// unfolding is the refusal while steps of a run's workflow are not its tasks yet.
func unfolding(op string) error {
	e := writ.Refuse(writ.CodePaused, op, "steps of the run's workflow are not its tasks yet, and nothing begins before all are", "try again when run.get says that it is unfolded")
	e.RetryMs = 1000
	return e
}

func runEnded(op string, r writ.Run) error {
	if r.State == writ.RunPausedApproval {
		e := writ.Refuse(writ.CodePaused, op, "the run waits for people to agree to more budget", "try again when it goes on").
			With("approval", string(r.WaitsFor))
		e.RetryMs = 5000
		return e
	}
	if r.Unfolding() {
		return unfolding(op)
	}
	return writ.Refuse(writ.CodeIllegal, op, "the run has ended", "release the task").
		With("kind", writ.ObjectRun).With("from", string(r.State))
}
