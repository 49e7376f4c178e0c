package queue

import (
	"cmp"
	"strings"

	"github.com/writ-gateway/writ"
)

// Router finds the agents for some work. It must be pure.
type Router interface {
	// Reads names what Route must see.
	Reads(input string, s writ.Snapshot) writ.ReadSet
	// Route gives the active agents that match, the best first, and by what. An
	// input without a word is refused.
	Route(input string, s writ.Snapshot) (Routed, error)
}

// Routed is how the agent for some work was found.
type Routed struct {
	Input      string         `json:"input" doc:"The input as it was compared; empty when an agent was named."`
	MatchType  string         `json:"match_type" doc:"By what the agent was found; earlier: the same request has been made before." enum:"domain,keyword,named,earlier"`
	Matched    string         `json:"matched_value" doc:"The domain or keyword that matched, normalised."`
	Agent      writ.AgentID   `json:"agent_id" doc:"The agent the task was given to."`
	Candidates []writ.AgentID `json:"candidates" doc:"All that matched, the best first."`
	Revision   int64          `json:"registry_revision" doc:"Revision of the registry; with the same one the same input gives the same agents."`
}

// AgentDelegateArgs give work to the agent for it.
type AgentDelegateArgs struct {
	Run   writ.RunID   `json:"run_id,omitempty" doc:"Run the task belongs to; for those who manage it." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Task  writ.TaskID  `json:"task_id,omitempty" doc:"Task at hand, instead of run_id, for its holder: the new one may do no more than it." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Lease writ.LeaseID `json:"lease_id,omitempty" doc:"Lease the claim of that task gave." pattern:"^lse_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Fence int64        `json:"fence,omitempty" doc:"Fence the claim of that task gave." minimum:"1" maximum:"9007199254740991"`
	Input string       `json:"input,omitempty" doc:"A domain, a keyword, or words of one: what agent.route finds the agent by." maxLength:"512"`
	To    writ.AgentID `json:"to,omitempty" doc:"The agent, instead of input." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Work  DelegateTask `json:"task" doc:"What to do."`
}

// FenceCarried is what the receipt states: the fence the call showed, if any.
func (a *AgentDelegateArgs) FenceCarried() int64 { return a.Fence }

// DelegateTask is the task an agent is given. Its domain is the agent's.
type DelegateTask struct {
	Key         string            `json:"key" doc:"Name of the task, unique in its run." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Summary     string            `json:"summary,omitempty" doc:"One line for people." maxLength:"500"`
	Capability  writ.CapabilityID `json:"capability" doc:"Capability the agent must declare." pattern:"^[a-z][a-z0-9_-]{0,62}(\\.[a-z0-9_-]{1,63}){1,5}$" maxLength:"128"`
	Args        writ.RawObject    `json:"args,omitempty" doc:"Arguments for the capability: an object of at most 48 KiB that meets the schema its agents declare."`
	Labels      []writ.Label      `json:"labels,omitempty" doc:"Kinds of data the arguments carry, besides those of the task at hand; unknown labels count as pii.chat.message." maxItems:"9"`
	Verify      *TaskVerification `json:"verify,omitempty" doc:"Who must accept its result before it is done; a task at hand that is verified passes that on."`
	WriteScopes []string          `json:"write_scopes,omitempty" doc:"Resource URIs the task locks while it runs, for example fs:repo/docs/." maxItems:"16"`
	Priority    *int64            `json:"priority,omitempty" doc:"0 to 9; 9 is taken first." minimum:"0" maximum:"9"`
	MaxAttempts *int64            `json:"max_attempts,omitempty" doc:"How often the task is tried at most." minimum:"1" maximum:"20"`
	DeadlineS   *int64            `json:"deadline_s,omitempty" doc:"Seconds from now until the task fails unless it has given its result." minimum:"1" maximum:"31622400"`
	DependsOn   []TaskDependency  `json:"depends_on,omitempty" doc:"With run_id: tasks of the run that must end well before this one begins." maxItems:"32"`
	Join        writ.Join         `json:"join,omitempty" doc:"With run_id: how much of depends_on must come about, as task.enqueue says." enum:"all_of,any_of,first_success,manual" default:"all_of"`
}

// Delegated is a task that was given to an agent, and why to that one.
type Delegated struct {
	Decision Routed   `json:"decision" doc:"How the agent was found."`
	Task     TaskView `json:"task" doc:"The task."`
}

const opDelegate = "queue.Delegate"

type delegator struct{ enqueuer }

// delegateCapability is agent.route and task.enqueue in one call, judged once.
func delegateCapability(cfg Config) *writ.Capability {
	g := delegator{enqueuer{cfg}}
	return writ.Define[AgentDelegateArgs, Delegated](writ.Capability{
		ID: "agent.delegate", Summary: "Give work to the agent for it: find the agent, and enqueue the task for it.", Safety: writ.SafetyMutating, Steps: 1,
		Example:  `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N","input":"movie night","task":{"key":"night","capability":"media.plan","args":{"guests":4}}}`,
		JudgedAs: "task.enqueue",
	}, writ.Verb[AgentDelegateArgs]{Reads: g.reads, Describe: g.describe, Plan: g.plan})
}

// check says what the arguments alone tell.
func (a *AgentDelegateArgs) check(c *writ.Call) error {
	switch {
	case a.Run != "" && !a.Run.Valid():
		return notFound(opDelegate, "run")
	case a.Task != "" && !a.Task.Valid():
		return notFound(opDelegate, "task")
	case a.Run == "" && a.Task == "":
		return writ.Refuse(writ.CodeNotFound, opDelegate, "there is no such run", "name the run in run_id or, as its holder, the task at hand in task_id")
	case a.Run != "" && a.Task != "":
		return invalid(opDelegate, "/run_id", "is one too many beside task_id: name one of them")
	case a.Run != "" && c.Caller.Role == writ.RoleExecutor:
		return writ.Refuse(writ.CodeNotHolder, opDelegate, "an executor gives away work it was given", "name the task you hold, with its lease and fence, instead of the run")
	case (a.Input == "") == (a.To == ""):
		return invalid(opDelegate, "/input", "wants a value, or to does, and one of them only")
	case a.To != "" && !a.To.Valid():
		return invalid(opDelegate, "/to", "must be a slug")
	case !writ.ValidSlug(a.Work.Key):
		return invalid(opDelegate, "/task/key", "must be a slug")
	case !a.Work.Capability.Valid():
		return invalid(opDelegate, "/task/capability", "must be a dotted name")
	case a.Task != "" && len(a.Work.DependsOn) > 0:
		return invalid(opDelegate, "/task/depends_on", "is for those who manage the run: what comes out of a task at hand waits for nothing")
	case a.Task != "" && a.Work.Join != "" && a.Work.Join != writ.JoinAll:
		return invalid(opDelegate, "/task/join", "is for those who manage the run: what comes out of a task at hand waits for nothing")
	}
	return nil
}

func (g delegator) reads(c *writ.Call, a *AgentDelegateArgs, s writ.Snapshot) (writ.ReadSet, error) {
	if err := a.check(c); err != nil {
		return writ.ReadSet{}, err
	}
	rs := writ.ReadSet{
		Docs:     append(callerAgent(c), writ.TaskKey(newTaskID(c))),
		Ranges:   []writ.Range{toolRange(a.Work.Capability)},
		Counters: []writ.Counter{writ.RegistryRevision()},
	}
	if a.To != "" {
		rs.Docs = append(rs.Docs, writ.AgentKey(a.To))
	} else {
		rs = rs.Join(g.cfg.Router.Reads(a.Input, s))
	}
	who := alternatives(s, a) // to name them where the one that is wanted cannot
	for _, id := range who {
		rs.Docs = append(rs.Docs, writ.AgentKey(id))
	}
	if a.To != "" {
		who = append(who, a.To)
	} else if routed, err := g.cfg.Router.Route(a.Input, s); err == nil {
		who = append(who, routed.Candidates...)
	}
	well, err := healthReads(g.cfg.Health, s, "", who)
	if err != nil {
		return rs, err
	}
	rs = rs.Join(well)
	for _, id := range who { // whichever of them it is going to be
		agent, ok, err := peek[writ.Agent](s, writ.AgentKey(id))
		if err != nil {
			return rs, err
		}
		if !ok {
			continue
		}
		owners, err := ownerReads(s, writ.Task{Capability: a.Work.Capability, Domain: agent.Domain, Agents: []writ.AgentID{id}})
		if err != nil {
			return rs, err
		}
		rs = rs.Join(owners)
	}
	run, priority := a.Run, int64(defaultPriority)
	if a.Task != "" {
		more, err := taskReads(opDelegate, s, a.Task)
		if err != nil {
			return rs, err
		}
		rs = rs.Join(more)
		rs.Counters = append(rs.Counters, leaseEnd(a.Task))
		t, ok, err := peek[writ.Task](s, writ.TaskKey(a.Task))
		if err != nil || !ok {
			return rs, err
		}
		run, priority = t.Run, t.Priority
		rs.Docs = append(rs.Docs, behindReads(t)...)
	}
	for _, id := range who {
		if agent, ok, err := peek[writ.Agent](s, writ.AgentKey(id)); err != nil {
			return rs, err
		} else if ok {
			rs.Counters = append(rs.Counters, placeReads(writ.Task{
				Run: run, Capability: a.Work.Capability, Domain: agent.Domain, Agents: []writ.AgentID{id}, Priority: orDefault(a.Work.Priority, priority),
			})...)
		}
	}
	if on, err := dependencies(opDelegate, a.Work.Key, a.Work.DependsOn); err == nil { // else the plan tells
		waits, err := dependencyReads(s, writ.Task{Run: run, DependsOn: on})
		if err != nil {
			return rs, err
		}
		rs.Docs = append(rs.Docs, waits...)
	}
	name := writ.TaskNameKey(run, a.Work.Key)
	rs.Docs = append(rs.Docs, writ.RunKey(run), name)
	if r, ok, err := peek[writ.Run](s, writ.RunKey(run)); err != nil {
		return rs, err
	} else if ok {
		rs.Ranges = append(rs.Ranges, writ.PartSeen(c.Caller, r.Tree()))
	}
	if taken, ok, err := peek[taskName](s, name); err != nil {
		return rs, err
	} else if ok {
		rs.Docs = append(rs.Docs, writ.TaskKey(taken.Task))
	}
	return rs, nil
}

// alternatives are a few agents that declare what is to be done.
func alternatives(s writ.Snapshot, a *AgentDelegateArgs) (out []writ.AgentID) {
	for _, id := range candidates(s, writ.Task{Capability: a.Work.Capability}) {
		if id != a.To && len(out) < 8 {
			out = append(out, id)
		}
	}
	return out
}

// choose is the agent the work goes to: the one that is named, or the best of those
// that match and can do it.
func (g delegator) choose(a *AgentDelegateArgs, s writ.Snapshot) (Routed, writ.Agent, error) {
	if a.To != "" {
		out := Routed{MatchType: "named", Agent: a.To, Candidates: []writ.AgentID{a.To}, Revision: s.Counters[writ.RegistryRevision()]}
		agent, ok, err := loadAgent(s, a.To)
		if err == nil && !ok {
			err = notFound(opDelegate, "agent")
		}
		if err != nil {
			return out, agent, err
		}
		why, err := g.hinders(agent, a, s)
		if err == nil && why != "" {
			err = g.unable(s, a, why)
		}
		return out, agent, err
	}
	out, err := g.cfg.Router.Route(a.Input, s)
	if err != nil {
		return out, writ.Agent{}, err
	}
	if len(out.Candidates) == 0 {
		return out, writ.Agent{}, writ.Refuse(writ.CodeNotFound, opDelegate, "no active agent is for this", "try other words, or name an agent")
	}
	why := ""
	for _, id := range out.Candidates {
		agent, ok, err := loadAgent(s, id)
		if err != nil {
			return out, agent, err
		}
		if !ok {
			continue
		}
		hinders, err := g.hinders(agent, a, s)
		if err != nil {
			return out, agent, err
		}
		if hinders == "" {
			out.Agent = id
			return out, agent, nil
		}
		why = cmp.Or(why, hinders)
	}
	return out, writ.Agent{}, g.unable(s, a, why)
}

// hinders says why an agent cannot be given the work now; "" when it can. The
// reasons are a closed list.
func (g delegator) hinders(agent writ.Agent, a *AgentDelegateArgs, s writ.Snapshot) (string, error) {
	if why := unfit(agent, writ.Task{Capability: a.Work.Capability, Domain: agent.Domain}); why != "" {
		return why, nil
	}
	well, err := g.cfg.Health.Judge(s, agent.ID, false, nil)
	if err == nil && well.Status != writ.Healthy {
		return "unhealthy", nil
	}
	return "", err
}

// unable says why the agent for some work cannot do it, and who could.
func (g delegator) unable(s writ.Snapshot, a *AgentDelegateArgs, why string) error {
	var others []string
	for _, id := range alternatives(s, a) {
		agent, ok, err := peek[writ.Agent](s, writ.AgentKey(id))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		why, err := g.hinders(agent, a, s)
		if err != nil {
			return err
		}
		if why == "" {
			others = append(others, string(id))
		}
	}
	hint := "see reason; no other agent can do it now either"
	if len(others) > 0 {
		hint = "see reason; the alternatives can"
	}
	return writ.Refuse(writ.CodeUnavailable, opDelegate, "the agent for this cannot do it now", hint).
		With("reason", why).With("alternatives", strings.Join(others, ","))
}

// from is the run the work is given away in and, if it comes out of one, the task at
// hand. It comes before anything is said about agents.
func (g delegator) from(c *writ.Call, a *AgentDelegateArgs, s writ.Snapshot) (writ.Run, *writ.Task, error) {
	if a.Task == "" {
		r, err := g.run(c, s, a.Run)
		return r, nil, err
	}
	t, version, r, err := loadBoth(opDelegate, s, a.Task)
	if err == nil {
		err = holder(opDelegate, c, t, version, TaskHold{a.Task, a.Lease, a.Fence})
	}
	return r, &t, err
}

// work is the task that is given away, and to whom.
func (g delegator) work(c *writ.Call, a *AgentDelegateArgs, s writ.Snapshot, r writ.Run, t *writ.Task) (next writ.Task, routed Routed, err error) {
	if t != nil && (r.State != writ.RunActive || r.Sealed) { // which takes what is handed on, one for one, and no more than that
		return next, routed, writ.Refuse(writ.CodeIllegal, opDelegate, "the run takes no more tasks", "do the work, or hand it on with task.handoff").
			With("kind", writ.ObjectRun)
	}
	routed, agent, err := g.choose(a, s)
	if err != nil {
		return next, routed, err
	}
	if t == nil {
		next, err = g.plain(c, a, s, r, agent)
	} else {
		next, err = g.part(c, a, s, *t, agent)
	}
	if err != nil {
		return next, routed, moved(err, "/task")
	}
	next.ArgsDigest, err = a.digest()
	return next, routed, err
}

// plain is work of whoever manages the run.
func (g delegator) plain(c *writ.Call, a *AgentDelegateArgs, s writ.Snapshot, r writ.Run, agent writ.Agent) (writ.Task, error) {
	w := a.Work
	next, err := g.request(&TaskEnqueueArgs{
		Run: a.Run, Key: w.Key, Summary: w.Summary, Capability: w.Capability, Args: w.Args, Labels: w.Labels, Domain: agent.Domain,
		Agents: []writ.AgentID{agent.ID}, Verify: w.Verify, WriteScopes: w.WriteScopes, Priority: w.Priority, MaxAttempts: w.MaxAttempts, DeadlineS: w.DeadlineS,
		DependsOn: w.DependsOn, Join: w.Join,
	})
	if err == nil {
		next, err = canonical(next)
	}
	if err != nil {
		return next, err
	}
	return g.task(c, w.DependsOn, nil, next, s, r)
}

// part is work that comes out of a task at hand. It may ask for more care than that,
// and not for less.
func (g delegator) part(c *writ.Call, a *AgentDelegateArgs, s writ.Snapshot, t writ.Task, agent writ.Agent) (writ.Task, error) {
	w := a.Work
	next, err := g.make(c, &HandoffTask{
		Key: w.Key, Summary: w.Summary, Capability: w.Capability, Args: w.Args, Domain: agent.Domain, Agents: []writ.AgentID{agent.ID},
		WriteScopes: w.WriteScopes, Priority: w.Priority, MaxAttempts: w.MaxAttempts, DeadlineS: w.DeadlineS,
	}, s, t)
	if err != nil {
		return next, err
	}
	next.Labels = writ.JoinLabels(next.Labels, w.Labels)
	if next.Verify == nil {
		next.Verify, err = w.Verify.stored(opDelegate)
	}
	return next, err
}

// digest tells a repetition from another request of the same key, whoever the work
// goes to by now.
func (a *AgentDelegateArgs) digest() (string, error) {
	work := a.Work
	var err error
	if work.Args, err = canonicalObject(opDelegate, "/task/args", work.Args); err != nil {
		return "", err
	}
	return digestOf(opDelegate, struct {
		Run   writ.RunID   `json:"run_id,omitempty"`
		Task  writ.TaskID  `json:"task_id,omitempty"`
		Input string       `json:"input,omitempty"`
		To    writ.AgentID `json:"to,omitempty"`
		Work  DelegateTask `json:"task"`
	}{a.Run, a.Task, a.Input, a.To, work})
}

// there is the task that has the key already: the same request gives the same task.
func (g delegator) there(a *AgentDelegateArgs, s writ.Snapshot, run writ.RunID) (t writ.Task, version int64, ok bool, err error) {
	name, _, ok, err := writ.Get[taskName](s, writ.TaskNameKey(run, a.Work.Key))
	if err != nil || !ok {
		return t, 0, false, err
	}
	t, version, err = loadTask(opDelegate, s, name.Task)
	if err != nil {
		return t, 0, false, err
	}
	digest, err := a.digest()
	if err == nil && t.ArgsDigest != digest {
		err = writ.Refuse(writ.CodeIdempotency, opDelegate, "the run has a task of this key already, made by another request",
			"read the task named in details, choose another key for another task, or send the first request again").With("task", string(t.ID))
	}
	return t, version, true, err
}

func (g delegator) describe(c *writ.Call, a *AgentDelegateArgs, s writ.Snapshot) (writ.Subject, error) {
	r, t, err := g.from(c, a, s)
	if err != nil {
		return writ.Subject{}, err
	}
	if old, _, ok, err := g.there(a, s, r.ID); ok || err != nil {
		if err != nil {
			return writ.Subject{}, err
		}
		return subjectIn(r, c, s, old)
	}
	next, routed, err := g.work(c, a, s, r, t)
	if err != nil {
		return writ.Subject{}, err
	}
	sub, err := subjectIn(r, c, s, next)
	if err != nil {
		return sub, err
	}
	err = describeOwner(c, s, next, sub.Task)
	sub.Chosen = string(routed.Agent)
	sub.Charge = writ.Charge{writ.BudgetWall: 0, writ.BudgetStorage: int64(len(next.Args))}
	return sub, err
}

func (g delegator) plan(c *writ.Call, a *AgentDelegateArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	r, t, err := g.from(c, a, s)
	if err != nil {
		return refuse(err)
	}
	old, version, ok, err := g.there(a, s, r.ID)
	switch {
	case err != nil:
		return refuse(err)
	case ok:
		body := Delegated{Routed{MatchType: "earlier", Agent: old.Agents[0], Candidates: old.Agents, Revision: s.Counters[writ.RegistryRevision()]}, viewOf(old, version)}
		return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: body, ETag: version}, nil
	}
	next, routed, err := g.work(c, a, s, r, t)
	if err != nil {
		return refuse(err)
	}
	d := begin(opDelegate, c, s)
	if t != nil {
		d.tx.Cause(t.Receipt) // the receipts lead from the work that is given away to the claim it comes out of
		if err := d.inTime(t.ID); err != nil {
			return refuse(err)
		}
	}
	if _, err := g.cfg.Health.Judge(s, routed.Agent, false, &d.tx); err != nil { // as it was when it was chosen
		return refuse(err)
	}
	if c.Behalf != "" {
		d.tx.Cause(r.Receipt) // as of a task that is enqueued
	}
	next.CreatedAt = s.Now
	blocked, err := d.block(&next)
	if err != nil {
		return refuse(err)
	}
	if !blocked {
		d.enter(&next, 0)
	}
	if err := d.add(&next); err != nil {
		return refuse(moved(err, "/task"))
	}
	keys, err := callerKeys(c, s)
	if err != nil {
		return refuse(err)
	}
	d.tx.TakePart(s, r.Tree(), writ.PartPlanned, c.Caller, keys)
	tx, err := d.done()
	return tx, writ.Reply{
		Outcome: writ.OutcomeCreated, Body: Delegated{routed, viewOf(next, 0)}, Versioned: []string{"task.version"}, ETag: -1,
	}, err
}
