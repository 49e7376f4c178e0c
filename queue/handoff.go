package queue

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/writ-gateway/writ"
)

// TaskHandoffArgs end a task well and hand what follows to another.
type TaskHandoffArgs struct {
	TaskHold
	To        HandoffTarget  `json:"to" doc:"What follows: a task of the run that waits for this one, or a new one."`
	Refs      []HandoffRef   `json:"refs,omitempty" doc:"What whoever goes on must know: at least what the task asks for." maxItems:"16"`
	Note      string         `json:"note,omitempty" doc:"A word to whoever goes on." maxLength:"500"`
	Result    writ.RawObject `json:"result,omitempty" doc:"What the task gave: an object of at most 48 KiB."`
	Artifacts []TaskMade     `json:"artifacts,omitempty" doc:"Which of the artifacts put for the task are of the result: all it must make, and what else it made." maxItems:"8"`
	Labels    []writ.Label   `json:"labels,omitempty" doc:"Kinds of data the result carries, besides those of the task; unknown labels count as pii.chat.message." maxItems:"9"`
}

// HandoffTarget is what follows a task. One of the two is given.
type HandoffTarget struct {
	Key  string       `json:"key,omitempty" doc:"Key of a task of the run that waits for this one." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Task *HandoffTask `json:"task,omitempty" doc:"A new task of the run, within what this one may."`
}

// HandoffTask is a task somebody makes out of what they were given to do. What it
// does not say it takes from theirs.
type HandoffTask struct {
	Key         string            `json:"key" doc:"Name of the task, unique in its run." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Summary     string            `json:"summary,omitempty" doc:"One line for people." maxLength:"500"`
	Capability  writ.CapabilityID `json:"capability" doc:"Capability an agent must declare to run the task; the agent that hands it on declares it itself." pattern:"^[a-z][a-z0-9_-]{0,62}(\\.[a-z0-9_-]{1,63}){1,5}$" maxLength:"128"`
	Args        writ.RawObject    `json:"args,omitempty" doc:"Arguments for the capability: an object of at most 48 KiB that meets the schema its agents declare."`
	Domain      string            `json:"required_domain,omitempty" doc:"Domain an agent must have to take the task. Default: that of the task that is handed on." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Agents      []writ.AgentID    `json:"required_agents,omitempty" doc:"If present, only these agents may take the task." maxItems:"8"`
	WriteScopes []string          `json:"write_scopes,omitempty" doc:"Resource URIs the task locks while it runs, within those of the task that is handed on." maxItems:"16"`
	Priority    *int64            `json:"priority,omitempty" doc:"0 to that of the task that is handed on, which is the default." minimum:"0" maximum:"9"`
	MaxAttempts *int64            `json:"max_attempts,omitempty" doc:"1 to that of the task that is handed on, which is the default." minimum:"1" maximum:"20"`
	DeadlineS   *int64            `json:"deadline_s,omitempty" doc:"Seconds from now until the task fails unless it has given its result, at most what is left to the task that is handed on." minimum:"1" maximum:"31622400"`
}

// HandedOff is a task that was handed on, and what follows it.
type HandedOff struct {
	Task TaskView `json:"task" doc:"The task that has ended."`
	Next TaskView `json:"next" doc:"The task that follows."`
}

const opHandoff = "queue.Handoff"

// handoff is the document at writ.HandoffKey, of kind "handoff": what the holder
// of a task had to say to whoever goes on.
type handoff struct {
	Agent writ.AgentID `json:"agent"`
	Refs  []HandoffRef `json:"refs,omitempty"`
	Note  string       `json:"note,omitempty"`
}

// reservedMs is how long what is handed on keeps the write scopes for whoever
// takes it.
const reservedMs = 60_000

type handing struct{ enqueuer }

func handoffCapability(cfg Config) *writ.Capability {
	h := handing{enqueuer{cfg}}
	return writ.Define[TaskHandoffArgs, HandedOff](writ.Capability{
		ID: "task.handoff", Summary: "End a task with its result and hand what follows to another.", Safety: writ.SafetyMutating,
		Example: `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC","lease_id":"lse_01M89R87A1XW9VX2J6QY4SBD3M","fence":9,"to":{"key":"publish"},"refs":[{"name":"plan","kind":"file","ref":"fs:site/docs/plan.md"}]}`,
	}, writ.Verb[TaskHandoffArgs]{
		Locks:    func(_ *writ.Call, a *TaskHandoffArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads:    h.reads,
		Describe: h.describe,
		Plan:     h.plan,
	})
}

// key is the name of what follows, in its run.
func (a *TaskHandoffArgs) key() string {
	if a.To.Task != nil {
		return a.To.Task.Key
	}
	return a.To.Key
}

func (h handing) reads(c *writ.Call, a *TaskHandoffArgs, s writ.Snapshot) (writ.ReadSet, error) {
	if !a.Task.Valid() {
		return writ.ReadSet{}, notFound(opHandoff, "task")
	}
	if (a.To.Task == nil) == (a.To.Key == "") {
		return writ.ReadSet{}, invalid(opHandoff, "/to", "wants a key or a task, and one of them only")
	}
	if !writ.ValidSlug(a.key()) {
		return writ.ReadSet{}, invalid(opHandoff, "/to", "has a key that is no slug")
	}
	if err := checkRefs(a.Refs); err != nil {
		return writ.ReadSet{}, err
	}
	rs, err := leaveReads(opHandoff, s, a.Task)
	rs.Docs = append(append(rs.Docs, callerAgent(c)...), writ.GivenKey(c.Caller.Session))
	if c.Caller.Agent != "" {
		rs.Counters = append(rs.Counters, writ.HealthFailures(c.Caller.Agent))
	}
	if err != nil {
		return rs, err
	}
	rs = rs.Join(releaseReads(s, a.Task))
	rs.Docs = append(rs.Docs, writ.ResultKey(a.Task), writ.HandoffKey(a.Task))
	t, ok, err := peek[writ.Task](s, writ.TaskKey(a.Task))
	if err != nil || !ok {
		return rs, err
	}
	of, err := endReads(c, s, t)
	if err != nil {
		return rs, err
	}
	rs.Docs = append(append(rs.Docs, behindReads(t)...), of...)
	if len(a.Artifacts) > 0 {
		rs.Ranges = append(rs.Ranges, madeInRun(t.Run))
	}
	refs, err := refReads(s, t, a.Refs)
	if err != nil {
		return rs, err
	}
	rs = rs.Join(refs)
	name := writ.TaskNameKey(t.Run, a.key())
	rs.Docs = append(rs.Docs, name)
	if r, ok, err := peek[writ.Run](s, writ.RunKey(t.Run)); err != nil {
		return rs, err
	} else if ok {
		rs.Ranges = append(rs.Ranges, writ.PartSeen(c.Caller, r.Tree()))
	}
	if taken, ok, err := peek[taskName](s, name); err != nil {
		return rs, err
	} else if ok {
		rs.Docs = append(rs.Docs, writ.TaskKey(taken.Task))
		rs.Counters = append(rs.Counters, writ.TaskUnmet(taken.Task))
		if b, ok, err := peek[writ.Task](s, writ.TaskKey(taken.Task)); err != nil {
			return rs, err
		} else if ok {
			rs.Counters = append(rs.Counters, placeReads(b)...)
		}
	}
	if a.To.Task == nil {
		return rs, nil
	}
	next, err := h.draft(t, a.To.Task, s.Now)
	if err != nil {
		return rs, moved(err, "/to/task")
	}
	rs.Docs = append(rs.Docs, writ.TaskKey(newTaskID(c)))
	rs.Counters = append(rs.Counters, placeReads(next)...)
	if len(next.Agents) == 0 {
		rs.Ranges = append(rs.Ranges, toolRange(next.Capability))
		if _, read := s.Ranges[toolRange(next.Capability)]; !read {
			return rs, nil
		}
	}
	more, err := candidateReads(s, next)
	if err != nil {
		return rs, err
	}
	rs.Docs = append(rs.Docs, more...)
	owners, err := ownerReads(s, next)
	return rs.Join(owners), err
}

// describe tells policy about the task that follows, under the id of the one that
// is handed on, which is what waits if people must agree. Nobody has agreed to a
// new task, nor to data that one had not carried before.
func (h handing) describe(c *writ.Call, a *TaskHandoffArgs, s writ.Snapshot) (writ.Subject, error) {
	t, _, r, err := loadBoth(opHandoff, s, a.Task)
	if err != nil {
		return writ.Subject{}, err
	}
	sub, err := subjectIn(r, c, s, t)
	if err != nil {
		return sub, err
	}
	sub.Claimed = claimed(c)
	if !mine(c, t) { // the plan refuses it, and nobody else's work is shown to policy
		return sub, nil
	}
	next, err := h.next(c, a, s, t)
	if err != nil {
		return sub, err
	}
	sub.Task.Capability, sub.Task.Domain, sub.Task.Safety = next.Capability, next.Domain, next.Safety
	sub.Task.Approval = cmp.Or(next.Approval, writ.ApprovalAuto)
	sub.Task.Raised = a.To.Task != nil || len(labelsOver(t, a, next)) > len(next.Labels)
	sub.Labels = labelsOver(t, a, next)
	for _, sink := range next.Sinks { // the data goes to both
		if !slices.Contains(sub.Sinks, sink) {
			sub.Sinks = append(slices.Clip(sub.Sinks), sink)
		}
	}
	if a.To.Task != nil {
		if err := describeOwner(c, s, next, sub.Task); err != nil {
			return sub, err
		}
		sub.Charge = writ.Charge{writ.BudgetWall: 0, writ.BudgetStorage: int64(len(next.Args))}
	}
	return sub, nil
}

// mine says whether the caller's session holds a task.
func mine(c *writ.Call, t writ.Task) bool {
	return t.Lease != nil && t.Lease.Session == c.Caller.Session
}

// labelsOver are those of what follows: its own, and of all it is handed.
func labelsOver(t writ.Task, a *TaskHandoffArgs, next writ.Task) []writ.Label {
	return writ.JoinLabels(next.Labels, t.Labels, a.Labels, labelsMade(t, a.Artifacts))
}

// next finds or makes what follows.
func (h handing) next(c *writ.Call, a *TaskHandoffArgs, s writ.Snapshot, t writ.Task) (writ.Task, error) {
	name, _, taken, err := writ.Get[taskName](s, writ.TaskNameKey(t.Run, a.key()))
	switch {
	case err != nil:
		return writ.Task{}, err
	case a.To.Task != nil && taken:
		return writ.Task{}, writ.Refuse(writ.CodeExists, opHandoff, "the run has a task of this key already", "choose another key, or name it in to.key if it waits for this task")
	case a.To.Task != nil:
		next, err := h.make(c, a.To.Task, s, t)
		return next, moved(err, "/to/task")
	case !taken:
		return writ.Task{}, invalid(opHandoff, "/to/key", "names no task of the run")
	}
	b, _, err := loadTask(opHandoff, s, name.Task)
	if err != nil {
		return b, err
	}
	waits := slices.ContainsFunc(b.DependsOn, func(d writ.Dependency) bool { return d.Task == t.ID && d.When == "" })
	if !waits {
		return b, invalid(opHandoff, "/to/key", "names a task that does not wait for this one")
	}
	if b.State != writ.TaskBlocked {
		return b, writ.IllegalMove(opHandoff, writ.ObjectTask, string(b.State), string(writ.TaskQueued))
	}
	return b, nil
}

func (h handing) plan(c *writ.Call, a *TaskHandoffArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, r, err := loadBoth(opHandoff, s, a.Task)
	if err != nil {
		return refuse(err)
	}
	result, digest, err := handedOver(c, a)
	if err != nil {
		return refuse(err)
	}
	if (t.State == writ.TaskDone || t.State == writ.TaskVerifying) && t.DoneFence == a.Fence && t.ResultDigest == digest {
		return h.repeated(s, a, t, version)
	}
	if err := holder(opHandoff, c, t, version, a.TaskHold); err != nil {
		return refuse(err)
	}
	d := begin(opHandoff, c, s)
	if err := d.inTime(t.ID); err != nil {
		return refuse(err)
	}
	if err := c.Match(opHandoff, version); err != nil {
		return refuse(err)
	}
	if r.State != writ.RunActive {
		return refuse(runEnded(opHandoff, r))
	}
	if err := shown(s, t, a.Refs, a.Artifacts); err != nil {
		return refuse(err)
	}
	next, err := h.next(c, a, s, t)
	if err != nil {
		return refuse(err)
	}
	next.Labels = labelsOver(t, a, next)
	if !slices.Contains(next.HandedBy, t.ID) {
		next.HandedBy = append(slices.Clip(next.HandedBy), t.ID)
	}
	t.HandedTo = next.ID
	keeps := t // what it holds, which the end gives back

	keys, err := callerKeys(c, s)
	if err != nil {
		return refuse(err)
	}
	if err := d.finish(&t, r, ended{a.Result != nil, result, a.Artifacts, a.Labels, digest, a.Fence, writ.Gave(c, keys)}, func() error {
		if a.To.Task != nil {
			return d.follow(c, &next, keeps, t)
		}
		return d.goOn(&next, keeps, t)
	}); err != nil {
		return refuse(err)
	}
	if a.To.Task != nil {
		d.tx.TakePart(s, r.Tree(), writ.PartPlanned, c.Caller, keys)
	}
	if err := d.tx.PutDoc(s, writ.HandoffKey(t.ID), "handoff", handoff{Agent: c.Caller.Agent, Refs: a.Refs, Note: a.Note}); err != nil {
		return refuse(err)
	}
	tx, err := d.done()
	own := viewOf(t, 0)
	own.Unblocked = d.released
	return tx, writ.Reply{
		Outcome: writ.OutcomeDone, Body: HandedOff{Task: own, Next: viewOf(next, 0)},
		Versioned: []string{"task.version", "next.version"}, ETag: -1,
	}, err
}

// repeated answers a call that was made before.
func (h handing) repeated(s writ.Snapshot, a *TaskHandoffArgs, t writ.Task, version int64) (writ.Tx, writ.Reply, error) {
	next, nextVersion, err := loadTask(opHandoff, s, t.HandedTo)
	if err != nil {
		return writ.Tx{}, writ.Reply{}, err
	}
	body := HandedOff{Task: viewOf(t, version), Next: viewOf(next, nextVersion)}
	return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: body, ETag: version}, nil
}

// handedOver is completion for a task that is handed on.
func handedOver(c *writ.Call, a *TaskHandoffArgs) (result writ.RawObject, digest string, err error) {
	in := *a
	in.Labels = writ.JoinLabels(a.Labels)
	if a.Result != nil {
		if in.Result, err = canonicalObject(opHandoff, "/result", a.Result); err != nil {
			return nil, "", err
		}
	}
	digest, err = digestOf(opHandoff, struct {
		Session writ.SessionID  `json:"session"`
		Request TaskHandoffArgs `json:"request"`
	}{c.Caller.Session, in})
	return in.Result, digest, err
}

// follow makes the new task that goes on: at once, or once the result of the one
// before is accepted.
func (d *draft) follow(c *writ.Call, next *writ.Task, before, t writ.Task) error {
	next.CreatedAt = d.s.Now
	next.DependsOn = []writ.Dependency{{Key: t.Key, Task: t.ID}}
	if t.State == writ.TaskDone {
		d.reserve(next, before)
		d.enter(next, 0)
		d.released = append(d.released, next.ID)
	} else {
		next.State = writ.TaskBlocked
		d.tx.Index(writ.Dependents(t.ID), string(next.ID), 0)
		d.tx.Add(writ.TaskUnmet(next.ID), 1)
	}
	return d.add(next)
}

// goOn lets go a task that waits for the one that is handed on, if nothing else
// keeps it.
func (d *draft) goOn(next *writ.Task, before, t writ.Task) error {
	d.told = next.ID
	if t.State != writ.TaskDone {
		return d.put(next, writ.TaskBlocked)
	}
	d.tx.Unindex(writ.Dependents(t.ID), string(next.ID))
	if !next.Join.Any() && d.seen(writ.TaskUnmet(next.ID)) > 1 {
		if err := d.less(next); err != nil {
			return err
		}
		return d.put(next, writ.TaskBlocked)
	}
	d.reserve(next, before)
	d.won(*next)
	return d.letGo(next)
}

// reserve keeps the write scopes of a task that ends for the one that goes on,
// if that needs no others: nobody gets in between. It comes after the locks of
// the one that ends are given back.
func (d *draft) reserve(next *writ.Task, before writ.Task) {
	within := func(s string) bool {
		return slices.ContainsFunc(before.WriteScopes, func(own string) bool { return writ.ScopeCovers(own, s) })
	}
	if len(next.WriteScopes) == 0 || slices.ContainsFunc(next.WriteScopes, func(s string) bool { return !within(s) }) {
		return
	}
	next.KeptUntil = d.s.Now + reservedMs
	for _, s := range next.WriteScopes {
		d.tx.Index(writ.IndexScopes, writ.ScopeMember(s, next.ID), 0)
	}
	d.tx.Index(writ.IndexTodo, todo(todoUnreserve, string(next.ID)), next.KeptUntil)
}

// todoUnreserve is the follow-up of a task that keeps scopes before it runs.
const todoUnreserve = "unreserve"

// unreserve gives back what a queued task keeps, and wakes who waits for it.
func (d *draft) unreserve(t *writ.Task) {
	if t.KeptUntil == 0 {
		return
	}
	t.KeptUntil = 0
	d.unlock(*t)
	d.tx.Unindex(writ.IndexTodo, todo(todoUnreserve, string(t.ID)))
	d.tx.Index(writ.IndexTodo, todo(todoWake, string(t.ID)), d.s.Now)
}

// unreserveCapability ends what a task keeps that nobody takes.
func unreserveCapability() *writ.Capability {
	return taskMandate("task.unreserve", "Give back the scopes kept for a task that nobody took.", "queue.Unreserve", taskReads, func(d *draft, t writ.Task) (Swept, error) {
		switch {
		case t.KeptUntil == 0:
			d.tx.Unindex(writ.IndexTodo, todo(todoUnreserve, string(t.ID)))
			return Swept{}, nil
		case d.s.Now < t.KeptUntil:
			d.tx.Index(writ.IndexTodo, todo(todoUnreserve, string(t.ID)), t.KeptUntil)
			return Swept{}, nil
		}
		d.unreserve(&t)
		return Swept{Changed: 1}, d.put(&t, t.State)
	})
}

// HandedOver is what the holder of a task before said to whoever goes on.
type HandedOver struct {
	From  writ.TaskID  `json:"from" doc:"The task that was handed on."`
	Agent writ.AgentID `json:"agent" doc:"Agent that handed it on."`
	Refs  []HandoffRef `json:"refs,omitempty" doc:"What it refers to."`
	Note  string       `json:"note,omitempty" doc:"Its word to whoever goes on."`
}

// handoffsTo names what was handed to a task.
func handoffsTo(t writ.Task) (out []writ.Key) {
	for _, from := range t.HandedBy {
		out = append(out, writ.HandoffKey(from))
	}
	return out
}

// handedTo is what was handed to a task, as far as read.
func handedTo(s writ.Snapshot, t writ.Task) (out []HandedOver, err error) {
	for _, from := range t.HandedBy {
		h, ok, err := peek[handoff](s, writ.HandoffKey(from))
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, HandedOver{from, h.Agent, h.Refs, h.Note})
		}
	}
	return out, nil
}

func refPointer(i int) string { return "/refs/" + strconv.Itoa(i) }
