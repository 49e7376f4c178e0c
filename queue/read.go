package queue

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// TaskGetArgs name a task to show.
type TaskGetArgs struct {
	Task writ.TaskID `json:"task_id" doc:"The task." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

func getCapability(cfg Config) *writ.Capability {
	return writ.Define[TaskGetArgs, TaskView](writ.Capability{
		ID: "task.get", Summary: "Show one task.", Safety: writ.SafetyReadOnly,
		Example: `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC"}`,
	}, writ.Verb[TaskGetArgs]{
		Reads: func(c *writ.Call, a *TaskGetArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := taskReads(opGet, s, a.Task)
			rs.Docs = append(rs.Docs, callerAgent(c)...)
			if err == nil {
				rs.Docs = append(rs.Docs, writ.ResultKey(a.Task))
				rs.Counters = append(rs.Counters, leaseEnd(a.Task), progressPct(a.Task))
				rs.Ranges = append(rs.Ranges, blockers(a.Task), refusers(a.Task))
			}
			t, ok, _ := peek[writ.Task](s, writ.TaskKey(a.Task)) // taskReads has met what is wrong with it
			if err != nil || !ok {
				return rs, err
			}
			if t.State == writ.TaskBlocked {
				rs.Docs = append(rs.Docs, waitedFor(t)...)
			}
			rs.Docs = append(rs.Docs, handoffsTo(t)...)
			if votes(t) {
				rs.Docs = append(rs.Docs, writ.BallotKey(t.ID))
			}
			if len(t.Owes) > 0 {
				rs.Docs = append(rs.Docs, writ.GatesKey(t.ID))
			}
			well, err := assignableReads(cfg.Health, s, t)
			return rs.Join(well), err
		},
		Describe: func(c *writ.Call, a *TaskGetArgs, s writ.Snapshot) (writ.Subject, error) {
			return describeTask(opGet, c, s, a.Task)
		},
		Plan: func(c *writ.Call, a *TaskGetArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			return getPlan(cfg, c, a, s)
		},
	})
}

const opGet = "queue.Get"

// getPlan shows a task whole to those who manage its run, to auditors and to its
// holder (who gets no result), and without contents to executors that could take it.
func getPlan(cfg Config, c *writ.Call, a *TaskGetArgs, s writ.Snapshot) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, r, err := loadBoth(opGet, s, a.Task)
	if err != nil {
		return refuse(err)
	}
	agent, bound, err := loadAgent(s, c.Caller.Agent)
	if err != nil {
		return refuse(err)
	}
	whole := reads(c.Caller, r) || judges(c.Caller, agent, bound, r, t)
	holds := t.Lease != nil && t.Lease.Session == c.Caller.Session
	fits := c.Caller.Role == writ.RoleExecutor && bound && unfit(agent, t) == ""
	if !whole && !holds && !fits {
		return refuse(notFound(opGet, "task"))
	}
	v := viewOf(t, version)
	if whole && votes(t) {
		if v.Votes, err = writ.VotesOn(s, string(t.ID), t.Receipt, t.Verify.Quorum); err != nil {
			return refuse(err)
		}
	}
	if whole {
		if v.Passes, err = shownGates(s, t); err != nil {
			return refuse(err)
		}
	}
	if whole || holds {
		v.Args = t.Args
		if v.HandedOver, err = handedTo(s, t); err != nil {
			return refuse(err)
		}
	}
	if t.Lease != nil {
		v.Lease = leaseOf(t, version, s.Counters[leaseEnd(t.ID)])
		if holds {
			v.Lease.ID = t.Lease.ID
		}
		pct := s.Counters[progressPct(t.ID)]
		v.Pct = &pct
	}
	on, err := waiting(s, t)
	if err != nil {
		return refuse(err)
	}
	for _, id := range on {
		v.BlockedOn = append(v.BlockedOn, writ.Holder(id))
	}
	for _, m := range s.Ranges[blockers(t.ID)].Members {
		v.BlockedOn = append(v.BlockedOn, writ.Holder(m.Name))
	}
	for _, m := range s.Ranges[refusers(t.ID)].Members {
		_, agent, _ := strings.Cut(m.Name, " ") // see writ.RefuserAs
		agent, _, _ = strings.Cut(agent, " ")
		if id := writ.AgentID(agent); whole && !slices.Contains(v.RefusedTo, id) {
			v.RefusedTo = append(v.RefusedTo, id)
		}
	}
	if err := assignable(cfg.Health, s, t, &v); err != nil {
		return refuse(err)
	}
	result, ok, err := peek[taskResult](s, writ.ResultKey(t.ID))
	if err != nil {
		return refuse(err)
	}
	if ok && whole {
		v.Result = result.Result
	}
	return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: v, ETag: version}, nil
}

// TaskListArgs ask for a page of the tasks of a run, or of the dead-letter list.
type TaskListArgs struct {
	Run   writ.RunID     `json:"run_id,omitempty" doc:"The run. Left out with state dead: the dead-letter list of all runs; with state verifying: what waits for a verdict in all runs. Both for operators, auditors and verifiers." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	State writ.TaskState `json:"state,omitempty" doc:"Only tasks in this state." enum:"blocked,queued,running,parked,verifying,done,failed,dead,cancelled"`
	After writ.TaskID    `json:"after,omitempty" doc:"Only tasks after this one: next of the page before." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Limit int64          `json:"limit,omitempty" doc:"Tasks per page. Default 50." minimum:"1" maximum:"100"`
}

// TaskPage is a page of tasks in the order they were enqueued.
type TaskPage struct {
	Tasks []TaskView  `json:"tasks" doc:"The tasks, without arguments and results."`
	Next  writ.TaskID `json:"next,omitempty" doc:"Pass as after to get the next page; absent on the last one."`
}

func listCapability() *writ.Capability {
	return writ.Define[TaskListArgs, TaskPage](writ.Capability{
		ID: "task.list", Summary: "List the tasks of a run, or those of any run that died.", Safety: writ.SafetyReadOnly,
		Example: `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N","state":"queued"}`,
	}, writ.Verb[TaskListArgs]{
		Reads:    listReads,
		Describe: describeListed,
		Plan:     listPlan,
	})
}

const opList = "queue.List"

func page(a *TaskListArgs) writ.Range {
	limit := a.Limit
	if limit < 1 || limit > 100 {
		limit = 50
	}
	r := writ.Range{Index: writ.RunTasks(a.Run), Limit: int(limit)}
	switch {
	case a.Run == "" && a.State == writ.TaskVerifying:
		r.Index = writ.IndexVerify
	case a.Run == "":
		r.Index = writ.IndexDead
	case a.State != "":
		r.Index = writ.RunTasksIn(a.Run, a.State)
	}
	if a.After != "" {
		r.From = string(a.After) + "!" // ids have one length: the next one is greater
	}
	return r
}

func listReads(_ *writ.Call, a *TaskListArgs, s writ.Snapshot) (writ.ReadSet, error) {
	rs := writ.ReadSet{Ranges: []writ.Range{page(a)}}
	switch _, known := writ.TaskMoves[a.State]; {
	case a.Run == "" && a.State != writ.TaskDead && a.State != writ.TaskVerifying:
		e := invalid(opList, "/run_id", "is required, but for state dead or verifying")
		e.Missing = []string{"run_id"}
		return writ.ReadSet{}, e
	case a.Run == "":
	case !a.Run.Valid() || !known:
		return writ.ReadSet{}, notFound(opList, "run")
	default:
		rs.Docs = append(rs.Docs, writ.RunKey(a.Run))
	}
	for _, m := range s.Ranges[page(a)].Members {
		rs.Docs = append(rs.Docs, writ.TaskKey(writ.TaskID(m.Name)))
	}
	return rs, nil
}

// listed says what a caller asks to see, if it may: a run of its own, or every
// run's dead tasks.
func listed(c *writ.Call, a *TaskListArgs, s writ.Snapshot) (writ.Subject, error) {
	if a.Run == "" {
		switch c.Caller.Role {
		case writ.RoleOperator, writ.RoleSystem, writ.RoleAuditor, writ.RoleVerifier:
			return writ.Subject{}, nil
		}
		return writ.Subject{}, writ.Refuse(writ.CodeRBAC, opList, "the role "+string(c.Caller.Role)+" may not read the tasks of all runs",
			"name a run of your own in run_id")
	}
	r, err := loadRun(opList, s, a.Run)
	if err == nil && !reads(c.Caller, r) && c.Caller.Role != writ.RoleVerifier {
		err = notFound(opList, "run")
	}
	return writ.Subject{Run: &writ.RunFacts{ID: r.ID, State: r.State}}, err
}

// describeListed is listed with the kinds of data in what is listed.
func describeListed(c *writ.Call, a *TaskListArgs, s writ.Snapshot) (writ.Subject, error) {
	sub, err := listed(c, a, s)
	if err != nil {
		return sub, err
	}
	for _, m := range s.Ranges[page(a)].Members {
		t, ok, err := peek[writ.Task](s, writ.TaskKey(writ.TaskID(m.Name)))
		if err != nil {
			return sub, err
		}
		if ok {
			sub.Labels = writ.JoinLabels(sub.Labels, t.Labels)
		}
	}
	return sub, nil
}

func listPlan(c *writ.Call, a *TaskListArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	if _, err := listed(c, a, s); err != nil {
		return writ.Tx{}, writ.Reply{}, err
	}
	out := TaskPage{Tasks: []TaskView{}}
	r := page(a)
	members := s.Ranges[r].Members
	for _, m := range members {
		t, version, err := loadTask(opList, s, writ.TaskID(m.Name))
		if err != nil {
			return writ.Tx{}, writ.Reply{}, err
		}
		// The list was read before the documents: one may have moved on.
		if a.State == "" || t.State == a.State {
			out.Tasks = append(out.Tasks, viewOf(t, version))
		}
	}
	if len(members) == r.Limit {
		out.Next = writ.TaskID(members[len(members)-1].Name)
	}
	return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
}
