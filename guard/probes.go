package guard

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Prober looks at the endpoints of agents.
type Prober interface {
	// Refresh looks at what is not known of agents, or no more. It takes no longer
	// than their endpoints may, and fails at nothing: what it found is recorded.
	Refresh(ctx context.Context, shard writ.Tenant, agents []writ.AgentID)
}

// Probing has the dispatcher ask p about agents when a claim wants to know.
// Without it nobody is asked, and what is not known counts as not healthy. It is
// called before Start.
func (p *Dispatcher) Probing(by Prober) { p.prober = by }

// do makes a call. When it wants agents looked at, that is done, and the call is
// made once more and judged by what is known then. Nothing was committed before,
// and no slot is held meanwhile.
func (p *Dispatcher) do(ctx context.Context, call *writ.Call) (writ.Reply, *writ.Receipt, error) {
	reply, receipt, err := p.door.Do(ctx, call)
	if err != nil || len(reply.Probe) == 0 {
		return reply, receipt, err
	}
	if p.prober != nil {
		looks, ok := ctx.Value(looksKey{}).(context.Context)
		if !ok {
			looks = ctx
		}
		p.prober.Refresh(looks, call.Caller.Tenant, reply.Probe)
	}
	call.Probed = true
	return p.door.Do(ctx, call)
}

// maxLook is how much longer than it wants to wait a poll may take for looks: as long
// as one takes at most. A poll may meet task after task that wants another agent
// looked at; those it comes to later are judged by what is known.
const maxLook = 11 * time.Second

// looksKey is where the context of a poll has the one that its looks end with.
type looksKey struct{}

func withLooks(ctx context.Context, waitMs int64) (context.Context, context.CancelFunc) {
	looks, cancel := context.WithTimeout(ctx, time.Duration(waitMs)*time.Millisecond+maxLook)
	return context.WithValue(ctx, looksKey{}, looks), cancel
}

// Probes are the door's part in looking at agents: it says what is due, lets one
// replica have it, and records what that one found.
type Probes struct {
	door  *Door
	shard writ.Tenant
}

// Probes are those of a shard.
func (d *Door) Probes(shard writ.Tenant) *Probes { return &Probes{d, shard} }

// Due are up to limit endpoints that are due, the longest due first.
func (p *Probes) Due(ctx context.Context, limit int) ([]writ.ProbeJob, error) {
	head, err := p.door.cfg.Store.Read(ctx, p.shard, writ.ReadSet{})
	if err != nil {
		return nil, storeDown("guard.probes", err)
	}
	due := writ.Range{Index: writ.IndexProbes, ByScore: true, Max: head.Now, Limit: limit}
	first, err := p.door.cfg.Store.Read(ctx, p.shard, writ.ReadSet{Ranges: []writ.Range{due}})
	if err != nil {
		return nil, storeDown("guard.probes", err)
	}
	if len(first.Ranges[due].Members) == 0 {
		return nil, nil
	}
	// One read shows the index beside what is known of its members: who is due in
	// it and was taken since would be taken twice.
	rs := writ.ReadSet{Ranges: []writ.Range{due}}
	for _, m := range first.Ranges[due].Members {
		id, name, _ := strings.Cut(m.Name, " ")
		rs = rs.Join(jobReads(writ.AgentID(id), name))
	}
	s, err := p.door.cfg.Store.Read(ctx, p.shard, rs)
	if err != nil {
		return nil, storeDown("guard.probes", err)
	}
	var out []writ.ProbeJob
	for _, m := range s.Ranges[due].Members {
		id, name, _ := strings.Cut(m.Name, " ")
		if !s.Has(writ.AgentKey(writ.AgentID(id))) {
			continue // it came since; the next look finds it
		}
		job, err := jobOf(s, writ.AgentID(id), name)
		if err != nil {
			return nil, err
		}
		out = append(out, job)
	}
	return out, nil
}

func jobReads(id writ.AgentID, end string) writ.ReadSet {
	return writ.ReadSet{
		Docs:     []writ.Key{writ.AgentKey(id)},
		Counters: []writ.Counter{writ.HealthDue(id, end), writ.HealthChecked(id, end)},
	}
}

func jobOf(s writ.Snapshot, id writ.AgentID, end string) (writ.ProbeJob, error) {
	job := writ.ProbeJob{
		Agent: id, Endpoint: writ.Endpoint{Name: end}, Now: s.Now,
		Due: s.Counters[writ.HealthDue(id, end)], Seen: s.Counters[writ.HealthChecked(id, end)],
	}
	agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(id))
	if err != nil || !ok {
		return job, err
	}
	if e, has := agent.Endpoint(end); has && agent.State == writ.AgentActive {
		job.Endpoint, job.Known = e, true
	}
	job.Since = agent.HealthSince
	return job, nil
}

// Open are the endpoints of agents that nobody has looked at in time.
func (p *Probes) Open(ctx context.Context, agents []writ.AgentID) ([]writ.ProbeJob, error) {
	var rs writ.ReadSet
	for _, id := range agents {
		rs.Docs = append(rs.Docs, writ.AgentKey(id))
	}
	s, err := p.door.cfg.Store.Read(ctx, p.shard, rs)
	if err != nil {
		return nil, storeDown("guard.probes", err)
	}
	for _, id := range agents {
		agent, _, _, err := writ.Get[writ.Agent](s, writ.AgentKey(id))
		if err != nil {
			return nil, err
		}
		for _, e := range agent.Endpoints {
			rs = rs.Join(jobReads(id, e.Name))
		}
	}
	if s, err = p.door.cfg.Store.Read(ctx, p.shard, rs); err != nil {
		return nil, storeDown("guard.probes", err)
	}
	var out []writ.ProbeJob
	for _, id := range agents {
		agent, _, _, err := writ.Get[writ.Agent](s, writ.AgentKey(id))
		if err != nil {
			return nil, err
		}
		for _, e := range agent.Endpoints {
			job, err := jobOf(s, id, e.Name)
			if err != nil {
				return nil, err
			}
			if job.Known && (job.Seen <= agent.HealthSince || s.Now > job.Seen+agent.HealthRule().MaxAgeSeconds*1000) {
				out = append(out, job)
			}
		}
	}
	return out, nil
}

// answered is how long after its timeout what an endpoint said is recorded at the
// latest, in milliseconds. What is not by then is lost, with the replica that asked.
const answered = 1000

// underWay says whether somebody who took the endpoint may still be at it.
func underWay(j writ.ProbeJob) bool {
	taken := j.Due - j.Endpoint.IntervalSeconds*1000
	if taken > j.Now || taken < j.Since { // by another registration, with another interval
		return false
	}
	return j.Seen < taken && j.Now < taken+j.Endpoint.TimeoutMs+answered
}

// Take lets this replica have a look at an endpoint, and nobody else until it is
// due again, or a claim wants to know and this look must be over. It says whether it
// was first.
func (p *Probes) Take(ctx context.Context, job writ.ProbeJob) (bool, error) {
	if underWay(job) {
		return false, nil
	}
	next := max(job.Now+job.Endpoint.IntervalSeconds*1000, job.Due+1)
	counter := writ.HealthDue(job.Agent, job.Endpoint.Name)
	var call writ.Call
	if err := p.door.Stamp(&call); err != nil {
		return false, err
	}
	tx := writ.Tx{Call: call.ID, Mandate: true}
	tx.Within(counter, job.Due, job.Due)
	tx.Add(counter, next-job.Due)
	tx.Index(writ.IndexProbes, writ.ProbeMember(job.Agent, job.Endpoint.Name), next)
	_, err := p.door.cfg.Store.Commit(ctx, p.shard, tx)
	if _, conflict := errors.AsType[*store.Conflict](err); conflict {
		return false, nil
	}
	if err != nil {
		return false, storeDown("guard.probes", err)
	}
	return true, nil
}

// Record notes what a look gave. Of an endpoint that is none any more it takes
// away that it is due.
func (p *Probes) Record(ctx context.Context, job writ.ProbeJob, r writ.ProbeResult) error {
	args := map[string]any{
		"agent_id": job.Agent, "endpoint": job.Endpoint.Name, "since": job.Since, "begun": job.Now,
		"http_code": r.Code, "latency_ms": r.LatencyMs,
	}
	if r.Reason != "" {
		args["reason"] = r.Reason
	}
	_, _, err := p.door.System(ctx, p.shard, "agent.health.record", args, nil)
	if writ.CodeOf(err) == writ.CodeReceiptPending { // it is noted, and only its proof is late
		return nil
	}
	return err
}

// Checked is when an endpoint was last looked at.
func (p *Probes) Checked(ctx context.Context, job writ.ProbeJob) (int64, error) {
	c := writ.HealthChecked(job.Agent, job.Endpoint.Name)
	s, err := p.door.cfg.Store.Read(ctx, p.shard, writ.ReadSet{Counters: []writ.Counter{c}})
	return s.Counters[c], err
}
