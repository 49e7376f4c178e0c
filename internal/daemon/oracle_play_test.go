package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// moreBatches is how many more batches random work goes on for, until everything of the
// floor has come about.
const moreBatches = 20

// floor is what random work must have come to before the oracle's word says anything: of
// calls which came to what, and which moves objects made.
var floor = []string{
	"task.enqueue created", "task.enqueue pending", "task.enqueue idempotency_mismatch",
	"task.claim done", "task.claim empty", "task.claim already_claimed", "task.claim illegal_transition", "task.claim scope_denied", "task.claim deps_unmet",
	"task.heartbeat done", "task.complete done", "task.complete lease_lost", "task.fail done", "task.release done", "task.cancel done", "task.cancel illegal_transition",
	"task.handoff done", "task.verify done", "task.revive created", "task.admit done", "agent.delegate created", "artifact.put created",
	"run.create created", "run.seal done", "run.cancel done", "run.close done", "evidence.shred done",
	"session.start done", "session.start scope_conflict", "session.heartbeat done", "session.close done", "session.revoke done", "task.get unauthenticated",
	"approval.decide done", "approval.revoke done", "task.complete pending", "quota.set created", "quota.delete done", "scope.list done",
	"agent.register created", "agent.activate done", "agent.suspend done", "agent.revoke done", "agent.supersede done", "agent.retire done",

	"task →queued", "task →blocked", "task blocked→queued", "task blocked→failed", "task blocked→cancelled", "task queued→running", "task queued→cancelled",
	"task running→queued", "task running→done", "task running→verifying", "task running→dead", "task running→failed",
	"task queued→parked", "task parked→queued", "task running→parked",
	"task verifying→done", "task verifying→queued", "task verifying→failed",
	"run →active", "run active→done", "run active→cancelled", "run active→failed", "run active→verifying", "run verifying→done", "run verifying→active",
	"run active→paused_approval", "run paused_approval→active",
	"session opened→active", "session active→suspended", "session suspended→active", "session active→closed", "session active→revoked",
	"agent planned→active", "agent active→suspended", "agent suspended→active", "agent active→superseded", "agent active→retired",
	"approval →pending", "approval pending→approved", "approval pending→denied", "approval approved→consumed", "approval approved→revoked",
}

// rare is what long work must have come to besides.
var rare = []string{
	"task parked→running", "task parked→failed", "run paused_approval→failed",
}

// missing is what of the floor has not come about.
func (cr *crew) missing() (out []string) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	all := floor
	if os.Getenv("WRIT_SOAK") != "" {
		all = slices.Concat(floor, rare)
	}
	for _, what := range all {
		if cr.came[what] == 0 && cr.moved[what] == 0 {
			out = append(out, what)
		}
	}
	return out
}

// note counts what a call came to.
func (cr *crew) note(id writ.CapabilityID, reply writ.Reply, err error) {
	what := string(writ.CodeOf(err))
	if err == nil {
		what = string(reply.Outcome)
	}
	cr.mu.Lock()
	cr.came[string(id)+" "+what]++
	cr.mu.Unlock()
}

// contended counts the calls that were given up because others kept changing what they depend on, and all.
func (cr *crew) contended() (n, calls int) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	for what, times := range cr.came {
		if calls += times; strings.HasSuffix(what, " "+string(writ.CodeContention)) {
			n += times
		}
	}
	return n, calls
}

// anyRun is one of those there are.
func (c *caller) anyRun() writ.RunID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.r.IntN(4) > 0 {
		return c.runs[c.r.IntN(3)] // of which the last is soon used up
	}
	n := c.r.IntN(len(c.runs) + len(c.small))
	if n < len(c.runs) {
		return c.runs[n]
	}
	return c.small[n-len(c.runs)]
}

// knows notes a task somebody made.
func (c *caller) knows(id writ.TaskID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tasks = append(c.tasks, id)
}

// aTask is what of a task replies name.
type aTask struct {
	ID writ.TaskID `json:"task_id"`
}

func (c *caller) newKey() string { return fmt.Sprintf("t%d", c.r.IntN(1_000_000)) }

// manage is what those who manage runs do besides planning work.
func (c *caller) manage(run writ.RunID) {
	tasksIn := func(args map[string]any) writ.TaskID {
		var page struct {
			Tasks []aTask `json:"tasks"`
		}
		if c.do("task.list", args, &page) != nil || len(page.Tasks) == 0 {
			return c.anyTask()
		}
		return page.Tasks[c.r.IntN(len(page.Tasks))].ID
	}
	switch c.r.IntN(10) {
	case 0:
		c.mu.Lock()
		var waits writ.TaskID
		if n := len(c.manual); n > 0 {
			waits, c.manual = c.manual[n-1], c.manual[:n-1]
		}
		c.mu.Unlock()
		if waits != "" {
			_ = c.do("task.admit", map[string]any{"task_id": waits}, nil)
		}
	case 1:
		var made aTask
		if c.do("task.revive", map[string]any{"task_id": tasksIn(map[string]any{"state": "dead"}), "key": c.newKey()}, &made) == nil {
			c.knows(made.ID)
		}
	case 2:
		var made struct {
			Task aTask `json:"task"`
		}
		given := map[string]any{"key": c.newKey(), "capability": "site.build"}
		if c.do("agent.delegate", map[string]any{"run_id": run, "to": c.crew.agent[c.r.IntN(len(c.crew.agent))], "task": given}, &made) == nil && made.Task.ID != "" {
			c.knows(made.Task.ID)
		}
	case 3: // a key that is taken
		c.mu.Lock()
		taken := ""
		if keys := c.keys[run]; len(keys) > 0 {
			taken = keys[c.r.IntN(len(keys))]
		}
		c.mu.Unlock()
		if taken != "" {
			_ = c.do("task.enqueue", map[string]any{"run_id": run, "key": taken, "capability": "site.build", "required_domain": "web", "summary": "another"}, nil)
		}
	case 4:
		_ = c.do("scope.list", map[string]any{}, nil)
	default:
		c.comeAndGo()
	}
}

// ask wants what people must agree to, a few things again and again.
func (c *caller) ask(run writ.RunID) {
	args := map[string]any{"run_id": run, "key": fmt.Sprintf("publish-%d", c.r.IntN(20)), "capability": "site.publish", "required_domain": "web"}
	var made aTask
	if c.do("task.enqueue", args, &made) == nil && made.ID != "" {
		c.knows(made.ID)
	}
}

// comeAndGo makes runs by the way, with a task or none, and ends them.
func (c *caller) comeAndGo() {
	c.mu.Lock()
	var run writ.RunID
	if len(c.small) > 0 {
		run = c.small[c.r.IntN(len(c.small))]
	}
	c.mu.Unlock()
	switch n := c.r.IntN(9); {
	case run == "" || n < 3:
		var made struct {
			ID writ.RunID `json:"run_id"`
		}
		args := map[string]any{"budget": map[string]any{"steps": []int{1000, 1}[c.r.IntN(2)]}, "close_policy": []string{"auto", "auto", "manual", "verifier", "verifier"}[c.r.IntN(5)]}
		n := c.r.IntN(3)
		if n == 0 { // it has no task, and is judged as soon as it is sealed
			args["close_policy"] = []string{"auto", "verifier", "verifier"}[c.r.IntN(3)]
		}
		if c.do("run.create", args, &made) != nil {
			return
		}
		c.mu.Lock()
		c.small = append(c.small, made.ID)
		c.mu.Unlock()
		if n > 0 {
			var task aTask
			only := map[string]any{"run_id": made.ID, "key": "only", "capability": "site.build", "required_domain": "web", "priority": 9, "max_attempts": 1 + c.r.IntN(2)}
			if c.r.IntN(2) == 0 { // others come first, and it fails with its run
				only["priority"], only["deadline_s"] = 0, 1
			}
			if c.do("task.enqueue", only, &task) == nil {
				c.knows(task.ID)
			}
		}
		if n < 2 {
			_ = c.do("run.seal", map[string]any{"run_id": made.ID}, nil)
		}
	case n < 5:
		_ = c.do("run.seal", map[string]any{"run_id": run}, nil)
	case n < 7:
		_ = c.do("run.cancel", map[string]any{"run_id": run, "reason": "mistake"}, nil)
	default:
		_ = c.do("evidence.shred", map[string]any{"run_id": run, "reason": "contract_ended"}, nil)
	}
}

// handOn ends what the caller holds and makes what follows.
func (c *caller) handOn(h held) error {
	var out struct {
		Next aTask `json:"next"`
	}
	err := c.do("task.handoff", h.args(map[string]any{
		"to": map[string]any{"task": map[string]any{"key": c.newKey(), "capability": "site.build"}}, "result": map[string]any{"n": 1}, "note": "go on",
	}), &out)
	if err == nil && out.Next.ID != "" {
		c.knows(out.Next.ID)
	}
	return err
}

// giveAway gives a part of what the caller holds to another agent.
func (c *caller) giveAway(h held) {
	var out struct {
		Task aTask `json:"task"`
	}
	to := c.crew.agent[c.r.IntN(len(c.crew.agent))]
	if c.do("agent.delegate", h.args(map[string]any{"to": to, "task": map[string]any{"key": c.newKey(), "capability": "site.build"}}), &out) == nil && out.Task.ID != "" {
		c.knows(out.Task.ID)
	}
}

// beat says how far the work is, and now and then what it cannot go on without.
func (c *caller) beat(h *held) {
	h.seq++
	more := map[string]any{"progress": map[string]any{"pct": min(99, h.seq), "seq": h.seq}}
	if c.r.IntN(4) == 0 {
		more["awaits"] = []writ.TaskID{c.anyTask()}
	}
	_ = c.do("task.heartbeat", h.args(more), nil)
	_ = c.do("session.heartbeat", map[string]any{"session_id": c.ses}, nil)
}

// put stores an artifact of what the caller holds.
func (c *caller) put(h *held) {
	if len(h.Task.Produces) == 0 {
		c.beat(h)
		return
	}
	var made struct {
		Digest string `json:"digest"`
	}
	bytes := fmt.Appendf(nil, "a site, of %d", c.r.IntN(8))
	if c.doWith("artifact.put", h.args(map[string]any{"name": "site", "media_type": "application/zip", "size": len(bytes)}), bytes, &made) == nil && made.Digest != "" {
		h.made = []map[string]any{{"name": "site", "digest": made.Digest}}
	}
}

// carried are bytes that come with a call.
type carried struct {
	d    *Daemon
	text []byte
}

func (c *caller) carries(text []byte) writ.Body {
	if text == nil {
		return nil
	}
	return &carried{c.at, text}
}

func (b *carried) Receive(context.Context, int64) (writ.Received, error) {
	sum := sha256.Sum256(b.text)
	return writ.Received{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(b.text)), Small: b.text}, nil
}

func (b *carried) Keep(ctx context.Context) error {
	_, err := b.d.artifacts.Put(ctx, bytes.NewReader(b.text))
	return err
}

// decide says yes or no to what people are asked, and takes some of it back.
func (c *caller) decide() {
	var page struct {
		Approvals []struct {
			ID writ.ApprovalID `json:"approval_id"`
		} `json:"approvals"`
	}
	state := []string{"pending", "pending", "approved"}[c.r.IntN(3)]
	if c.do("approval.list", map[string]any{"state": state}, &page) != nil || len(page.Approvals) == 0 {
		return
	}
	for range 5 {
		id := page.Approvals[c.r.IntN(len(page.Approvals))].ID
		switch {
		case state == "pending":
			_ = c.do("approval.decide", map[string]any{"approval_id": id, "decision": []string{"approve", "approve", "deny"}[c.r.IntN(3)]}, nil)
		case c.r.IntN(30) == 0:
			_ = c.do("approval.revoke", map[string]any{"approval_id": id}, nil)
		}
	}
}

// passing registers an agent that comes and goes.
func (c *caller) passing() {
	id, next := fmt.Sprintf("guest-%d", c.r.IntN(1_000_000)), fmt.Sprintf("guest-%d", c.r.IntN(1_000_000))
	for _, a := range []string{id, next} {
		args := map[string]any{"agent_id": a, "archetypes": []string{"executor"}, "domain": "away", "tools": []map[string]any{{"name": "away.work", "safety": "mutating"}}}
		if c.do("agent.register", args, nil) != nil {
			return
		}
	}
	if c.do("agent.activate", map[string]any{"agent_id": id}, nil) != nil {
		return
	}
	if c.r.IntN(2) == 0 {
		_ = c.do("agent.supersede", map[string]any{"agent_id": id, "successor": next}, nil)
	} else {
		_ = c.do("agent.retire", map[string]any{"agent_id": id}, nil)
	}
}

// limit sets a quota nobody reaches and takes it away again.
func (c *caller) limit() {
	var made struct {
		ID writ.QuotaID `json:"quota_id"`
	}
	if c.do("quota.set", map[string]any{"metric": "claims_per_min", "subject": "agent", "limit": 1_000_000}, &made) == nil {
		_ = c.do("quota.delete", map[string]any{"quota_id": made.ID}, nil)
	}
}
