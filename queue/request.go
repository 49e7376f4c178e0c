package queue

import (
	"slices"
	"strconv"
	"time"

	"github.com/writ-gateway/writ"
)

// TaskEnqueueArgs ask for one unit of work.
type TaskEnqueueArgs struct {
	Run          writ.RunID        `json:"run_id" doc:"Run the task belongs to." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Key          string            `json:"key" doc:"Name of the task, unique in its run; enqueueing the same again gives the same task." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Summary      string            `json:"summary,omitempty" doc:"One line for people." maxLength:"500"`
	Capability   writ.CapabilityID `json:"capability" doc:"Capability an agent must declare to run the task." pattern:"^[a-z][a-z0-9_-]{0,62}(\\.[a-z0-9_-]{1,63}){1,5}$" maxLength:"128"`
	Args         writ.RawObject    `json:"args,omitempty" doc:"Arguments for the capability: an object of at most 48 KiB that meets the schema its agents declare."`
	Labels       []writ.Label      `json:"labels,omitempty" doc:"Kinds of data the arguments carry; unknown labels count as pii.chat.message. Default internal.system." maxItems:"9"`
	Domain       string            `json:"required_domain" doc:"Domain an agent must have to take the task." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Concern      string            `json:"concern,omitempty" doc:"What the work is about, as owns and defers of agents name it; the tool's own concern counts too." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Agents       []writ.AgentID    `json:"required_agents,omitempty" doc:"If present, only these agents may take the task, and only while all of them are healthy." maxItems:"8"`
	DependsOn    []TaskDependency  `json:"depends_on,omitempty" doc:"Tasks of the run that must end well before this one begins." maxItems:"32"`
	Join         writ.Join         `json:"join,omitempty" doc:"How much of depends_on must come about: all of it; any of it; the first of it, and the rest is cancelled; or all of it and who manages the run says so (task.admit)." enum:"all_of,any_of,first_success,manual" default:"all_of"`
	Produces     []TaskProduce     `json:"produces,omitempty" doc:"Artifacts the task is to make." maxItems:"8"`
	Consumes     []TaskConsume     `json:"consumes,omitempty" doc:"Artifacts it is given of tasks it depends on." maxItems:"8"`
	Verify       *TaskVerification `json:"verify,omitempty" doc:"Who must accept its result before it is done."`
	Handoff      *TaskHandoff      `json:"handoff,omitempty" doc:"If present, the task ends well only by task.handoff, with these references."`
	WriteScopes  []string          `json:"write_scopes,omitempty" doc:"Resource URIs the task locks while it runs, for example fs:repo/docs/." maxItems:"16"`
	Priority     *int64            `json:"priority,omitempty" doc:"0 to 9; 9 is taken first. Default 5." minimum:"0" maximum:"9"`
	LeaseSeconds *int64            `json:"lease_ttl_s,omitempty" doc:"Seconds a lease lasts without a heartbeat, at least 10 unless the gateway allows less. Default 60." minimum:"1" maximum:"600"`
	MaxAttempts  *int64            `json:"max_attempts,omitempty" doc:"How often the task is tried at most. Default 3." minimum:"1" maximum:"20"`
	BackoffMs    *int64            `json:"backoff_ms,omitempty" doc:"Pause before the second attempt in milliseconds; it doubles from then on. Default 1000." minimum:"0" maximum:"600000"`
	DeadlineS    *int64            `json:"deadline_s,omitempty" doc:"Seconds from now until the task fails unless it has given its result." minimum:"1" maximum:"31622400"`
	Budget       *TaskCeiling      `json:"budget,omitempty" doc:"What all attempts together may take of what tools state, beside the budget of the run: each claim is charged what the agent's tool states, also if the task is released. An agent whose tool states more than is left, or nothing of it, may not take the task; it is tried no more once an attempt like the last would not fit again."`
	NotBefore    string            `json:"not_before,omitempty" doc:"Do not start before this time (RFC 3339), at most 366 days ahead." maxLength:"40"`
}

// request turns arguments into a task as far as they alone decide, with every
// default filled in.
func (e enqueuer) request(a *TaskEnqueueArgs) (writ.Task, error) {
	t := writ.Task{
		Run: a.Run, Key: a.Key, Summary: a.Summary, Capability: a.Capability, Args: a.Args, Domain: a.Domain, Concern: a.Concern,
		Labels:   writ.JoinLabels(a.Labels),
		Priority: orDefault(a.Priority, defaultPriority), LeaseSeconds: orDefault(a.LeaseSeconds, max(e.cfg.MinLeaseSeconds, defaultLeaseSeconds)),
		MaxAttempts: orDefault(a.MaxAttempts, defaultMaxAttempts), BackoffMs: orDefault(a.BackoffMs, defaultBackoffMs),
		DeadlineS: orDefault(a.DeadlineS, 0),
	}
	switch {
	case !a.Run.Valid():
		return t, notFound(opEnqueue, "run")
	case !writ.ValidSlug(a.Key):
		return t, invalid(opEnqueue, "/key", "must be a slug")
	case !a.Capability.Valid():
		return t, invalid(opEnqueue, "/capability", "must be a dotted name")
	case !writ.ValidSlug(a.Domain):
		return t, invalid(opEnqueue, "/required_domain", "must be a slug")
	case a.Concern != "" && !writ.ValidSlug(a.Concern):
		return t, invalid(opEnqueue, "/concern", "must be a slug")
	case t.LeaseSeconds < e.cfg.MinLeaseSeconds:
		return t, invalid(opEnqueue, "/lease_ttl_s", "is shorter than this gateway allows")
	case t.Priority < 0 || t.Priority > 9:
		return t, invalid(opEnqueue, "/priority", "must be 0 to 9")
	case t.DeadlineS < 0 || t.DeadlineS > maxDeadlineSeconds || a.DeadlineS != nil && t.DeadlineS == 0:
		return t, invalid(opEnqueue, "/deadline_s", "must be 1 second to 366 days")
	case len(a.WriteScopes) > MaxScopes:
		return t, invalid(opEnqueue, "/write_scopes", "are too many")
	}
	for i, id := range a.Agents {
		if !id.Valid() {
			return t, invalid(opEnqueue, "/required_agents/"+strconv.Itoa(i), "must be a slug")
		}
	}
	t.Agents = slices.Clone(a.Agents)
	slices.Sort(t.Agents)
	t.Agents = slices.Compact(t.Agents)
	if len(t.Labels) == 0 {
		t.Labels = []writ.Label{writ.LabelInternalSystem}
	}
	if a.NotBefore != "" {
		at, err := time.Parse(time.RFC3339, a.NotBefore)
		if err != nil {
			return t, invalid(opEnqueue, "/not_before", "must be a time as in RFC 3339")
		}
		t.NotBefore = max(0, at.UnixMilli())
	}
	if len(t.Args) == 0 {
		t.Args = writ.RawObject("{}")
	}
	if !isObject(t.Args) {
		return t, invalid(opEnqueue, "/args", "must be a JSON object")
	}
	var err error
	if t.Budget, err = a.Budget.stored(opEnqueue); err != nil {
		return t, err
	}
	if t.Verify, err = a.Verify.stored(opEnqueue); err != nil {
		return t, err
	}
	if t.Handoff, err = a.Handoff.stored(opEnqueue); err != nil {
		return t, err
	}
	if t.DependsOn, err = dependencies(opEnqueue, a.Key, a.DependsOn); err != nil {
		return t, err
	}
	if t.Join, err = joining(opEnqueue, a.Join, len(t.DependsOn)); err != nil {
		return t, err
	}
	if t.Produces, err = e.produces(a.Produces, t.Labels); err != nil {
		return t, err
	}
	if t.Consumes, err = consumes(a.Consumes, t.DependsOn); err != nil {
		return t, err
	}
	t.WriteScopes, err = canonicalScopes(opEnqueue, a.WriteScopes)
	return t, err
}

// asking is what the arguments of a call come to, worked out once per call.
// Tasks taken from it share its slices, which nobody changes.
type asking struct{ requested, asked *writ.Task }

func askingOf(c *writ.Call) *asking {
	m, ok := c.Memo.(*asking)
	if !ok {
		m = &asking{}
		c.Memo = m
	}
	return m
}

// requested is request, once per call.
func (e enqueuer) requested(c *writ.Call, a *TaskEnqueueArgs) (writ.Task, error) {
	m := askingOf(c)
	if m.requested == nil {
		t, err := e.request(a)
		if err != nil {
			return t, err
		}
		m.requested = &t
	}
	return *m.requested, nil
}

// asked is request with the arguments as they are stored, and with the digest
// that tells a repetition from another request with the same key.
func (e enqueuer) asked(c *writ.Call, a *TaskEnqueueArgs) (writ.Task, error) {
	m := askingOf(c)
	if m.asked == nil {
		t, err := e.requested(c, a)
		if err != nil {
			return t, err
		}
		if t, err = canonical(t); err != nil {
			return t, err
		}
		m.asked = &t
	}
	return *m.asked, nil
}

// canonical is a task with its arguments as they are stored, and its digest.
func canonical(t writ.Task) (writ.Task, error) {
	var err error
	if t.Args, err = canonicalObject(opEnqueue, "/args", t.Args); err != nil {
		return t, err
	}
	t.ArgsDigest, err = digestOf(opEnqueue, t)
	return t, err
}

func orDefault(v *int64, def int64) int64 {
	if v == nil {
		return def
	}
	return *v
}
