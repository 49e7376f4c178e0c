package queue

import (
	"errors"
	"slices"

	"github.com/writ-gateway/writ"
)

type enqueuer struct{ cfg Config }

func enqueueCapability(cfg Config) *writ.Capability {
	e := enqueuer{cfg}
	return writ.Define[TaskEnqueueArgs, TaskView](writ.Capability{
		ID: "task.enqueue", Summary: "Add a task to a run.", Safety: writ.SafetyMutating, Steps: 1,
		Example: `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N","key":"build","capability":"site.build","required_domain":"web","args":{"ref":"main"},"write_scopes":["fs:site/dist/"]}`,
	}, writ.Verb[TaskEnqueueArgs]{
		Locks:    func(_ *writ.Call, a *TaskEnqueueArgs) []writ.Key { return []writ.Key{writ.TaskNameKey(a.Run, a.Key)} },
		Reads:    e.reads,
		Describe: e.describe,
		Plan:     e.plan,
	})
}

const opEnqueue = "queue.Enqueue"

func newTaskID(c *writ.Call) writ.TaskID { return writ.TaskID(c.NewID(writ.PrefixTask, 0)) }

func (e enqueuer) reads(c *writ.Call, a *TaskEnqueueArgs, s writ.Snapshot) (writ.ReadSet, error) {
	t, err := e.requested(c, a)
	if err != nil {
		return writ.ReadSet{}, err
	}
	name := writ.TaskNameKey(a.Run, a.Key)
	rs := writ.ReadSet{Docs: append(callerAgent(c), writ.RunKey(a.Run), name, writ.TaskKey(newTaskID(c))), Counters: placeReads(t)}
	if r, ok, err := peek[writ.Run](s, writ.RunKey(a.Run)); err != nil {
		return rs, err
	} else if ok {
		rs.Ranges = append(rs.Ranges, writ.PartSeen(c.Caller, r.Tree()))
	}
	if len(t.Agents) == 0 {
		rs.Ranges = append(rs.Ranges, toolRange(t.Capability))
	}
	rs.Ranges = append(rs.Ranges, gateTools(t)...)
	on, err := dependencyReads(s, t)
	if err != nil {
		return rs, err
	}
	rs.Docs = append(rs.Docs, on...)
	if !s.Has(name) {
		return rs, nil
	}
	taken, ok, err := peek[taskName](s, name)
	if err != nil {
		return rs, err
	}
	if ok {
		rs.Docs = append(rs.Docs, writ.TaskKey(taken.Task))
		return rs, nil
	}
	more, err := candidateReads(s, t)
	if err != nil {
		return rs, err
	}
	rs.Docs = append(rs.Docs, more...)
	owners, err := ownerReads(s, t)
	if err != nil {
		return rs, err
	}
	well, err := assignableReads(e.cfg.Health, s, t)
	return rs.Join(owners).Join(well), err
}

func (e enqueuer) describe(c *writ.Call, a *TaskEnqueueArgs, s writ.Snapshot) (writ.Subject, error) {
	r, err := e.run(c, s, a.Run)
	if err != nil {
		return writ.Subject{}, err
	}
	if old, _, ok, err := e.existing(s, a); err != nil {
		return writ.Subject{}, err
	} else if ok {
		return subjectIn(r, c, s, old)
	}
	t, err := e.asked(c, a)
	if err == nil {
		t, err = e.task(c, a.DependsOn, a.Agents, t, s, r)
	}
	if err != nil {
		return writ.Subject{}, err
	}
	sub, err := subjectIn(r, c, s, t)
	if err != nil {
		return sub, err
	}
	err = describeOwner(c, s, t, sub.Task)
	sub.Charge = writ.Charge{writ.BudgetWall: 0, writ.BudgetStorage: int64(len(t.Args))}
	return sub, err
}

func (e enqueuer) plan(c *writ.Call, a *TaskEnqueueArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	fail := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	r, err := e.run(c, s, a.Run)
	if err != nil {
		return fail(err)
	}
	t, err := e.asked(c, a)
	if err != nil {
		return fail(err)
	}
	old, version, ok, err := e.existing(s, a)
	switch {
	case err != nil:
		return fail(err)
	case ok && old.ArgsDigest != t.ArgsDigest:
		return fail(writ.Refuse(writ.CodeIdempotency, opEnqueue, "the run has a task of this key already, made by another request",
			"read the task named in details, choose another key for another task, or send the first request again").
			With("task", string(old.ID)))
	case ok:
		return writ.Tx{}, unchanged(old, version), nil
	}
	if t, err = e.task(c, a.DependsOn, a.Agents, t, s, r); err != nil {
		return fail(err)
	}
	d := begin(opEnqueue, c, s)
	if c.Behalf != "" {
		d.tx.Cause(r.Receipt) // the receipts lead from the task to the workflow it is a step of
	}
	t.CreatedAt = s.Now
	blocked, err := d.block(&t)
	if err != nil {
		return fail(err)
	}
	if !blocked {
		d.enter(&t, t.NotBefore)
	}
	if err := d.add(&t); err != nil {
		return fail(err)
	}
	keys, err := callerKeys(c, s)
	if err != nil {
		return fail(err)
	}
	d.tx.TakePart(s, r.Tree(), writ.PartPlanned, c.Caller, keys)
	reply := changed(t)
	reply.Outcome = writ.OutcomeCreated
	v := viewOf(t, 0)
	if err := assignable(e.cfg.Health, s, t, &v); err != nil {
		return fail(err)
	}
	reply.Body = v
	tx, err := d.done()
	return tx, reply, err
}

// add writes a new task, lists it in its run and counts it there.
func (d *draft) add(t *writ.Task) error {
	if err := d.put(t, ""); err != nil {
		return err
	}
	// put writes the document last.
	if stored := d.tx.Ops[len(d.tx.Ops)-1].Body; len(stored) > MaxTaskBytes {
		return invalid(d.op, "/args", "are too large beside the rest of the task; store them elsewhere and pass a reference")
	}
	if err := d.guardOwners(d.s, *t); err != nil {
		return err
	}
	d.tx.Index(writ.RunTasks(t.Run), string(t.ID), 0)
	d.tally(t.Run).began++
	return d.tx.PutDoc(d.s, writ.TaskNameKey(t.Run, t.Key), "taskname", taskName{Task: t.ID})
}

// taskName is the document that makes a key unique in its run.
type taskName struct {
	Task writ.TaskID `json:"task_id"`
}

func (e enqueuer) run(c *writ.Call, s writ.Snapshot, id writ.RunID) (writ.Run, error) {
	r, err := loadRun(opEnqueue, s, id)
	if err == nil && !owns(c.Caller, r) {
		err = notFound(opEnqueue, "run")
	}
	return r, err
}

// existing is the task that has the key already.
func (e enqueuer) existing(s writ.Snapshot, a *TaskEnqueueArgs) (t writ.Task, version int64, ok bool, err error) {
	name, _, ok, err := writ.Get[taskName](s, writ.TaskNameKey(a.Run, a.Key))
	if err != nil || !ok {
		return t, 0, false, err
	}
	t, version, err = loadTask(opEnqueue, s, name.Task)
	return t, version, err == nil, err
}

// task makes what was asked for a task: checked against its run and the agents
// that could run it.
func (e enqueuer) task(c *writ.Call, on []TaskDependency, named []writ.AgentID, t writ.Task, s writ.Snapshot, r writ.Run) (writ.Task, error) {
	if r.State == writ.RunPausedApproval || r.Unfolding() && c.Behalf == "" { // else it could take the key of a step
		return t, runEnded(opEnqueue, r)
	}
	again, err := checksAgain(s, t)
	if err != nil {
		return t, err
	}
	if r.State != writ.RunActive || r.Sealed && !again {
		state := string(r.State)
		if r.State == writ.RunActive {
			state = "sealed"
		}
		return t, writ.Refuse(writ.CodeIllegal, opEnqueue, "the run takes no more tasks", "name another run, or create one").
			With("kind", writ.ObjectRun).With("from", state)
	}
	if t.NotBefore > s.Now+maxDelayMs {
		return t, invalid(opEnqueue, "/not_before", "is more than 366 days ahead")
	}
	return e.fit(c, t, s, on, named)
}

// fit checks a task against the tasks it depends on and the agents that could run
// it.
func (e enqueuer) fit(c *writ.Call, t writ.Task, s writ.Snapshot, on []TaskDependency, named []writ.AgentID) (writ.Task, error) {
	if t.DeadlineS > 0 {
		t.DeadlineAt = s.Now + t.DeadlineS*1000
	}
	if t.DeadlineAt > 0 && t.NotBefore >= t.DeadlineAt {
		return t, invalid(opEnqueue, "/not_before", "is not before the deadline")
	}
	var err error
	if t.DependsOn, err = resolve(s, t, on); err != nil {
		return t, err
	}
	if err := registered(s, named); err != nil {
		return t, err
	}
	if err := declared(s, t); err != nil {
		return t, err
	}
	if err := fed(s, t); err != nil {
		return t, err
	}
	fit, err := fitting(s, t)
	if err != nil {
		return t, err
	}
	if len(fit) == 0 {
		return t, writ.Refuse(writ.CodeNoAgent, opEnqueue, "no active agent could run the task",
			"register and activate an agent of this domain that declares the capability, or name other agents")
	}
	// Any of them may get the task from its lane, so all must accept it.
	held := map[string]bool{} // schemas; agents of a kind declare the same one
	for _, agent := range fit {
		tool, _ := agent.Tool(t.Capability)
		if schema := string(tool.InputSchema); !held[schema] {
			if err := e.cfg.Validate(tool.InputSchema, t.Args); err != nil {
				return t, underArgs(err)
			}
			held[schema] = true
		}
		expose(&t, tool)
	}
	t.ID, t.EnqueuedBy, t.Behind, t.State = newTaskID(c), c.Caller.Session, c.Caller.Agents(), writ.TaskQueued
	if len(t.Behind) == 0 {
		t.Behind = nil
	}
	t.Counted, err = writ.QuotaTags(s, writ.QuotaQueued, writ.QuotaCaller(c.Caller, t.Capability))
	return t, err
}

// underArgs moves the pointers of a refusal by a tool's schema to where the
// arguments of the task stand in the request.
func underArgs(err error) error { return moved(err, "/args") }

// moved puts the pointers of a refusal under another.
func moved(err error, under string) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*writ.Error](err)
	if !ok {
		return writ.Fault(writ.CodeInternal, opEnqueue, err)
	}
	out := *e
	out.Fields = slices.Clone(e.Fields)
	for i := range out.Fields {
		out.Fields[i].Pointer = under + out.Fields[i].Pointer
	}
	return &out
}
