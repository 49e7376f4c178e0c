package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// soundQueue wants the doctor of the queue to find nothing.
func soundQueue(t *testing.T, d *Daemon, when string) {
	t.Helper()
	r, err := examineIndexes(context.Background(), d.store)
	if err != nil || !r.OK() {
		t.Errorf("%s the doctor of the queue says %+v, %v", when, r, err)
	}
}

// Whatever somebody does to an index or a counter of the queue, the doctor names it,
// and nothing else; and when it is mended the doctor has nothing to say.
func TestTheDoctorOfTheQueueNamesWhatIsWrong(t *testing.T) {
	t.Run("bolt", func(t *testing.T) {
		d, op, _ := start(t, t.TempDir())
		corrupt(t, d, newPatients(t, d, op))
	})
	t.Run("redis", func(t *testing.T) {
		server := redistest.Start(t)
		d, op, _ := start(t, t.TempDir(), func(c *Config) { c.Store = server.URL() })
		corrupt(t, d, newPatients(t, d, op))
	})
}

// patients are tasks in every state that is listed somewhere.
type patients struct {
	run                                                                  writ.RunID
	session                                                              writ.SessionID
	running, waiting, timed, blocked, verifying, dead, done, set, queued writ.TaskID
	going                                                                writ.TaskID // set going by an agent

	claims writ.SessionID // of another session
	kept   writ.TaskID    // waits for it

	judged writ.RunID // whose artifacts a verifier looks at
	made   writ.TaskID
	hex    string        // of what it was completed with
	crowd  writ.RunID    // has a backlog
	behind []writ.TaskID // is in it

	boss, worker *caller
	holds        held // of running
}

func newPatients(t *testing.T, d *Daemon, op *client.Client) (p patients) {
	t.Helper()
	d.sweeper.Stop()
	cr := &crew{t: t, d: d, op: op, came: map[string]int{}}
	boss := &caller{crew: cr, at: d, r: rand.New(rand.NewPCG(1, 1)), cred: credentialOf(t, d)}
	must := func(c *caller, id writ.CapabilityID, args map[string]any, out any) {
		t.Helper()
		if err := c.do(id, args, out); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
	for metric, subject := range map[string]string{writ.QuotaQueued: "tenant", writ.QuotaRunning: "agent", writ.QuotaApprovals: "tenant"} {
		must(boss, "quota.set", map[string]any{"metric": metric, "subject": subject, "limit": 1000}, nil)
	}
	must(boss, "agent.register", map[string]any{
		"agent_id": "worker", "archetypes": []string{"executor"}, "domain": "web", "write_scope": []string{"fs:site/"},
		"tools": []map[string]any{{"name": "site.build", "safety": "mutating"}, {"name": "site.push", "safety": "mutating"}}, "max_concurrent_tasks": 9,
	}, nil)
	must(boss, "agent.activate", map[string]any{"agent_id": "worker"}, nil)
	worker := &caller{crew: cr, at: d, r: boss.r, agent: "worker"}
	if err := worker.enter(map[string]any{"principal": "worker", "kind": "agent", "role": "executor", "agent_id": "worker", "heartbeat_ttl_s": 300}); err != nil {
		t.Fatal(err)
	}
	p.session = writ.SessionID(worker.ses)
	var run struct {
		ID writ.RunID `json:"run_id"`
	}
	must(boss, "run.create", map[string]any{"budget": map[string]any{"steps": 100}}, &run)
	p.run = run.ID
	enqueue := func(key string, more map[string]any) writ.TaskID {
		t.Helper()
		args := map[string]any{"run_id": run.ID, "key": key, "capability": "site.build", "required_domain": "web", "lease_ttl_s": 600}
		for k, v := range more {
			args[k] = v
		}
		var made struct {
			ID writ.TaskID `json:"task_id"`
		}
		must(boss, "task.enqueue", args, &made)
		return made.ID
	}
	claim := func(id writ.TaskID) (h held) {
		t.Helper()
		must(worker, "task.claim", map[string]any{"task_id": id}, &h)
		return h
	}
	p.running = enqueue("running", map[string]any{"write_scopes": []string{"fs:site/a/"}})
	p.boss, p.worker, p.holds = boss, worker, claim(p.running)
	p.waiting = enqueue("waiting", map[string]any{"write_scopes": []string{"fs:site/a/x/"}})
	must(worker, "task.claim", map[string]any{}, nil) // is offered both, and the second waits for the first
	if got := members(t, d, writ.BlockedOn(p.waiting)); len(got) != 1 {
		t.Fatalf("%s does not wait: %v", p.waiting, got)
	}
	other := &caller{crew: cr, at: d, r: boss.r, agent: "worker"}
	if err := other.enter(map[string]any{"principal": "worker", "kind": "agent", "role": "executor", "agent_id": "worker", "heartbeat_ttl_s": 300},
		map[string]any{"resource": "fs:site/y/", "mode": "shared"}, map[string]any{"resource": "fs:site/z/"}); err != nil {
		t.Fatal(err)
	}
	p.claims = writ.SessionID(other.ses)
	p.kept = enqueue("kept", map[string]any{"write_scopes": []string{"fs:site/z/a/"}})
	must(worker, "task.claim", map[string]any{}, nil)
	if got := members(t, d, writ.BlockedOn(p.kept)); len(got) != 1 || got[0].Name != other.ses {
		t.Fatalf("%s does not wait for the session: %v", p.kept, got)
	}
	p.timed = enqueue("timed", map[string]any{"not_before": writ.FormatTime(time.Now().Add(time.Hour).UnixMilli())})
	p.blocked = enqueue("blocked", map[string]any{"depends_on": []map[string]any{{"key": "running"}, {"key": "timed"}}})
	p.verifying = enqueue("verifying", map[string]any{"verify": map[string]any{"required": true}})
	must(worker, "task.complete", claim(p.verifying).args(nil), nil)
	p.dead = enqueue("dead", map[string]any{"max_attempts": 1})
	must(worker, "task.fail", claim(p.dead).args(map[string]any{"failure": map[string]any{"class": "external", "code": "x", "retryable": true}}), nil)
	p.done = enqueue("done", nil)
	must(worker, "task.complete", claim(p.done).args(nil), nil)
	p.set = enqueue("set-aside", nil)
	if _, _, err := d.door.System(t.Context(), shard, "task.refuse", map[string]any{"task_id": p.set, "agent_id": "worker"}, nil); err != nil {
		t.Fatal(err)
	}
	p.queued = enqueue("queued", map[string]any{"deadline_s": 7200})
	p.more(must, enqueue)
	must(worker, "task.heartbeat", p.holds.args(map[string]any{"awaits": []writ.TaskID{p.queued}}), nil)
	p.artifact(must, enqueue)
	p.backlog(must, enqueue)
	return p
}

// bytesBody comes with a call.
type bytesBody []byte

func (b bytesBody) Keep(context.Context) error { return nil }
func (b bytesBody) Receive(context.Context, int64) (writ.Received, error) {
	sum := sha256.Sum256(b)
	return writ.Received{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(b)), Small: b}, nil
}

// artifact adds a task that was completed with one, of a run that somebody else must
// accept.
func (p *patients) artifact(must func(*caller, writ.CapabilityID, map[string]any, any), enqueue func(string, map[string]any) writ.TaskID) {
	t := p.boss.t
	t.Helper()
	var run struct {
		ID writ.RunID `json:"run_id"`
	}
	must(p.boss, "run.create", map[string]any{"budget": map[string]any{"steps": 50}, "close_policy": "verifier"}, &run)
	p.judged = run.ID
	p.made = enqueue("made", map[string]any{"run_id": run.ID, "produces": []map[string]any{{"name": "page", "media_type": "text/html"}}})
	var h held
	must(p.worker, "task.claim", map[string]any{"task_id": p.made}, &h)
	raw, err := json.Marshal(h.args(map[string]any{"name": "page"}))
	if err != nil {
		t.Fatal(err)
	}
	call := &writ.Call{Capability: "artifact.put", Credential: p.worker.cred, Raw: raw, Body: bytesBody("<p>")}
	if err := p.worker.at.door.Stamp(call); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.worker.at.dispatcher.Do(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	digest := docOf[writ.Task](t, p.boss.at, writ.TaskKey(p.made)).Artifacts[0].Digest
	p.hex = strings.TrimPrefix(digest, "sha256:")
	must(p.worker, "task.complete", h.args(map[string]any{"artifacts": []map[string]any{{"name": "page", "digest": digest}}}), nil)
}

// backlog adds a run with one: for as long as its tasks are enqueued many others look
// as if they were offered.
func (p *patients) backlog(must func(*caller, writ.CapabilityID, map[string]any, any), enqueue func(string, map[string]any) writ.TaskID) {
	t := p.boss.t
	t.Helper()
	var run struct {
		ID writ.RunID `json:"run_id"`
	}
	must(p.boss, "run.create", map[string]any{"budget": map[string]any{"steps": 50}}, &run)
	p.crowd = run.ID
	lane, g := writ.LaneOf("site.build", "web", 2), damage{t, p.boss.at}
	g.commit(func(tx *writ.Tx) { tx.Add(writ.RunOffered(run.ID, lane), 200) })
	for i := range 3 {
		p.behind = append(p.behind, enqueue(fmt.Sprintf("behind-%d", i), map[string]any{"run_id": run.ID, "priority": 2}))
	}
	g.commit(func(tx *writ.Tx) {
		tx.Add(writ.RunOffered(run.ID, lane), -200)
		tx.Index(writ.IndexTodo, "refill "+string(run.ID)+" "+string(lane), time.Now().UnixMilli())
	})
	if got := members(t, p.boss.at, writ.Backlog(run.ID)); len(got) != 3 {
		t.Fatalf("in the backlog: %v", got)
	}
}

// more adds a task that waits for people, one that an agent has set going, and runs
// within the run: one that goes on, and one that has ended and is not settled yet.
func (p *patients) more(must func(*caller, writ.CapabilityID, map[string]any, any), enqueue func(string, map[string]any) writ.TaskID) {
	enter := func(agent string, archetype writ.Role, tools ...map[string]any) *caller {
		must(p.boss, "agent.register", map[string]any{"agent_id": agent, "archetypes": []writ.Role{archetype}, "domain": "web", "tools": tools}, nil)
		must(p.boss, "agent.activate", map[string]any{"agent_id": agent}, nil)
		c := &caller{crew: p.boss.crew, at: p.boss.at, r: p.boss.r, agent: writ.AgentID(agent)}
		if err := c.enter(map[string]any{"principal": agent, "kind": "agent", "role": archetype, "agent_id": agent, "heartbeat_ttl_s": 300}); err != nil {
			p.boss.t.Fatal(err)
		}
		return c
	}
	parked := enqueue("parked", map[string]any{"capability": "site.push"})
	pusher := enter("pusher", writ.RoleExecutor, map[string]any{"name": "site.push", "safety": "mutating", "approval": "manual"})
	_ = pusher.do("task.claim", map[string]any{"task_id": parked}, nil)
	if t := docOf[writ.Task](p.boss.t, p.boss.at, writ.TaskKey(parked)); t.State != writ.TaskParked {
		p.boss.t.Fatalf("a task that wants approval is %s", t.State)
	}
	planner := enter("planner", writ.RoleOrchestrator)
	var run, child struct {
		ID writ.RunID `json:"run_id"`
	}
	must(planner, "run.create", map[string]any{"budget": map[string]any{"steps": 50}}, &run)
	var made struct {
		ID writ.TaskID `json:"task_id"`
	}
	must(planner, "task.enqueue", map[string]any{"run_id": run.ID, "key": "set-going", "capability": "site.build", "required_domain": "web"}, &made)
	p.going = made.ID
	for _, ends := range []bool{false, true} {
		must(p.boss, "run.create", map[string]any{"parent_run_id": p.run, "budget": map[string]any{"steps": 5}}, &child)
		if ends {
			must(p.boss, "run.cancel", map[string]any{"run_id": child.ID}, nil)
		}
	}
}

// corrupt does one thing after another to the store, each of them undone again.
func corrupt(t *testing.T, d *Daemon, p patients) {
	t.Helper()
	soundQueue(t, d, "before anything is wrong,")
	commit := func(f func(*writ.Tx)) {
		t.Helper()
		call := writ.Call{}
		if err := d.door.Stamp(&call); err != nil {
			t.Fatal(err)
		}
		tx := writ.Tx{Call: call.ID}
		f(&tx)
		if _, err := d.store.Commit(t.Context(), shard, tx); err != nil {
			t.Fatal(err)
		}
	}
	type entry struct {
		index  writ.Index
		member string
		score  int64
	}
	lost := []entry{
		{writ.RunTasks(p.run), string(p.queued), 0},
		{writ.RunTasksIn(p.run, writ.TaskQueued), string(p.queued), 0},
		{writ.RunTasksIn(p.run, writ.TaskDone), string(p.done), 0},
		{writ.IndexVerify, string(p.verifying), 0},
		{writ.IndexDead, string(p.dead), 0},
		{writ.IndexLeases, string(p.running), time.Now().Add(time.Hour).UnixMilli()},
		{writ.IndexReady, string(p.timed), time.Now().Add(time.Hour).UnixMilli()},
		{writ.SessionTasks(p.session), string(p.running), 0},
		{writ.IndexScopes, writ.ScopeMember("fs:site/a/", p.running), 0},
		{writ.WaitingOn(p.running), string(p.waiting) + " " + string(writ.LaneOf("site.build", "web", 5)) + " " + string(p.run), 4},
		{writ.IndexScopes, "fs:site/y/ " + string(p.claims) + " shared", 0},
		{writ.IndexScopes, "fs:site/z/ " + string(p.claims), 0},
		{writ.WaitingOn(p.claims), string(p.kept) + " " + string(writ.LaneOf("site.build", "web", 5)) + " " + string(p.run), 4},
		{writ.Refused("site.build", "web"), string(p.set), 0},
		{writ.Backlog(p.crowd), writ.BacklogMember(writ.LaneOf("site.build", "web", 2), p.behind[1]), 0},
		{writ.BlobHolders(p.hex), string(p.made), 0},
		{writ.RunArtifacts(p.judged), p.hex + " " + string(p.made), 0},
		{writ.IndexTodo, "artifacts " + string(p.made), 0},
		{writ.IndexTodo, "untangle " + string(p.running), 0},
		{writ.IndexTodo, "stall " + string(p.run), 0},
		{"list/runs/operator", string(p.run), 0},
	}
	for _, e := range lost {
		at := writ.Entry{Index: e.index, Member: e.member}.Range()
		e.score = readOf(t, d, writ.ReadSet{Ranges: []writ.Range{at}}).Ranges[at].Members[0].Score
		commit(func(tx *writ.Tx) { tx.Unindex(e.index, e.member) })
		named(t, d, string(e.index)+" without "+e.member, 1)
		commit(func(tx *writ.Tx) { tx.Index(e.index, e.member, e.score) })
	}
	soundQueue(t, d, "when everything is there again,")
	for _, e := range []entry{
		{writ.RunTasksIn(p.run, writ.TaskQueued), string(p.done), 0},
		{writ.IndexVerify, string(p.done), 0},
		{writ.IndexDead, string(p.done), 0},
		{writ.IndexLeases, string(p.done), 1},
		{writ.IndexReady, string(p.done), 1},
		{writ.SessionTasks(p.session), string(p.queued), 0},
		{writ.IndexScopes, writ.ScopeMember("fs:site/b/", p.done), 0},
		{writ.IndexScopes, writ.ScopeMember("fs:site/c/", "tsk_01ARYZ6S410000000000000000"), 0}, // there is no such task
		{writ.IndexScopes, "fs:site/z/ " + string(p.claims) + " shared", 0},                     // it does not share
		{writ.IndexScopes, "fs:site/c/ ses_01ARYZ6S410000000000000000", 0},                      // there is no such session
		{writ.Refused("site.build", "web"), string(p.queued), 0},
		{writ.BlockedOn(p.queued), string(p.running), 0},
		{writ.Backlog(p.run), writ.BacklogMember(writ.LaneOf("site.build", "web", 5), p.queued), 0},
		{writ.Backlog(p.run), writ.BacklogMember(writ.LaneOf("site.build", "web", 5), p.done), 0},
		{writ.Backlog(p.run), writ.BacklogMember(writ.LaneOf("site.build", "web", 3), p.queued), 0},
		{writ.BlobHolders(p.hex), string(p.done), 0},
		{writ.RunArtifacts(p.judged), p.hex + " " + string(p.done), 0},
		{"list/runs/operator", "run_01ARYZ6S410000000000000000", 0}, // there is no such run
	} {
		commit(func(tx *writ.Tx) { tx.Index(e.index, e.member, e.score) })
		named(t, d, string(e.index)+" with "+e.member, 1)
		commit(func(tx *writ.Tx) { tx.Unindex(e.index, e.member) })
	}
	commit(func(tx *writ.Tx) { tx.Unindex(writ.Dependents(p.timed), string(p.blocked)) })
	named(t, d, "a dependency without its dependent", 1)
	commit(func(tx *writ.Tx) { tx.Index(writ.Dependents(p.timed), string(p.blocked), 0) })
	for _, c := range []writ.Counter{
		writ.TaskUnmet(p.blocked), writ.RunOpenTasks(p.run), writ.RunBadTasks(p.run), writ.AgentRunning("worker"),
		writ.RunOffered(p.run, writ.LaneOf("site.build", "web", 5)), writ.RunBacklog(p.run, writ.LaneOf("site.build", "web", 5)),
	} {
		for _, n := range []int64{1, -1} {
			commit(func(tx *writ.Tx) { tx.Add(c, n) })
			named(t, d, "a counter of "+c.Entity, 1)
			commit(func(tx *writ.Tx) { tx.Add(c, -n) })
		}
	}
	// Each of three that wait says that nobody fetches it.
	refill := "refill " + string(p.crowd) + " " + string(writ.LaneOf("site.build", "web", 2))
	commit(func(tx *writ.Tx) { tx.Unindex(writ.IndexTodo, refill) })
	named(t, d, "a backlog nobody fetches", len(p.behind))
	commit(func(tx *writ.Tx) { tx.Index(writ.IndexTodo, "offer "+string(p.crowd)+" "+string(p.behind[0]), 0) })
	soundQueue(t, d, "while its tasks are offered again,")
	commit(func(tx *writ.Tx) {
		tx.Index(writ.IndexTodo, refill, 0)
		tx.Unindex(writ.IndexTodo, "offer "+string(p.crowd)+" "+string(p.behind[0]))
	})
	// A task whose entry is lost is found by nobody, and the lane says so.
	for {
		got, err := d.store.Receive(t.Context(), shard, []writ.Lane{writ.LaneOf("site.build", "web", 5)}, "thief", 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			break
		}
		commit(func(tx *writ.Tx) { tx.Ack(got[0]) })
	}
	named(t, d, "a lane without its entries", 2)
	commit(func(tx *writ.Tx) {
		for _, id := range []writ.TaskID{p.queued, p.going} {
			tx.Push(writ.LaneOf("site.build", "web", 5), string(id))
		}
	})
	soundQueue(t, d, "when all is mended,")
}

// named wants the doctor to find so many things.
func named(t *testing.T, d *Daemon, what string, n int) {
	t.Helper()
	r, err := examineIndexes(context.Background(), d.store)
	if err != nil || len(r.Found)+len(r.Counts) != n {
		t.Errorf("%s: the doctor says %+v, %v", what, r, err)
	}
}
