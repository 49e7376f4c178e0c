package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/policies/policytest"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// Random work by many callers on a whole gateway, or on two replicas of one, who
// plan, work, hand on, judge, agree, suspend and revoke agents and end sessions and runs. It goes
// on until calls and moves of the floor have come about. After each batch an oracle that
// knows nothing of how the rooms plan looks at the store and the facts: while leases
// are live, and once more when all have ended.
func TestInvariantsAfterRandomWork(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("WRIT_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	batches, calls := 2, 40
	if os.Getenv("WRIT_SOAK") != "" {
		batches, calls = 30, 200
	}
	t.Logf("WRIT_SEED=%d, %d batches of %d calls each", seed, batches, calls)
	policies := policytest.Asking(t, "task.claim", "task.complete") // in which work waits for people
	t.Run("bolt", func(t *testing.T) {
		t.Parallel()
		d, op, _ := start(t, t.TempDir(), func(c *Config) { c.Policies = policies })
		randomWork(t, seed, batches, calls, op, d)
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server, common := redistest.Start(t), t.TempDir()
		shared := func(c *Config) {
			c.Store, c.Keys, c.Blobs, c.Policies = server.URL(), filepath.Join(common, "keys"), filepath.Join(common, "artifacts"), policies
		}
		one, op, _ := start(t, t.TempDir(), shared)
		two, _, _ := start(t, t.TempDir(), shared, func(c *Config) { c.Ledger = "none" })
		randomWork(t, seed, batches, calls, op, one, two)
	})
}

// crew is who works in a test.
type crew struct {
	t     *testing.T
	d     *Daemon
	seed  uint64
	runs  []writ.RunID
	agent []writ.AgentID

	op *client.Client

	mu    sync.Mutex
	tasks []writ.TaskID
	keys  map[writ.RunID][]string // of tasks
	small []writ.RunID            // of runs, those that are made and ended by the way

	manual []writ.TaskID // tasks that wait for somebody's word

	came  map[string]int // how often which call came to what
	moved map[string]int // moves of objects, by their receipts
}

// caller is one session.
type caller struct {
	*crew
	at    *Daemon // the replica it calls
	r     *rand.Rand
	cred  *writ.Credential
	agent writ.AgentID
	ses   string
	held  []held
	ends  bool // somebody may end its session
	moves bool // it ends its session now and then, to claim other scopes
}

type held struct {
	made []map[string]any // artifacts that were put
	done map[string]any   // what people are asked to let it end with
	seq  int              // of the last report of progress
	Task struct {
		ID       writ.TaskID       `json:"task_id"`
		Produces []json.RawMessage `json:"produces"`
	} `json:"task"`
	Lease struct {
		ID    writ.LeaseID `json:"id"`
		Fence int64        `json:"fence"`
	} `json:"lease"`
}

func (h held) args(more map[string]any) map[string]any {
	out := map[string]any{"task_id": h.Task.ID, "lease_id": h.Lease.ID, "fence": h.Lease.Fence}
	for k, v := range more {
		out[k] = v
	}
	return out
}

func (c *caller) do(id writ.CapabilityID, args map[string]any, out any) error {
	return c.doWith(id, args, nil, out)
}

// doWith makes a call that comes with bytes, if there are any.
func (c *caller) doWith(id writ.CapabilityID, args map[string]any, body []byte, out any) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	call := &writ.Call{Capability: id, Credential: c.cred, Raw: raw, Body: c.carries(body)}
	if c.r.IntN(3) == 0 {
		call.IdempotencyKey = fmt.Sprint(c.r.Uint64())
	}
	if err := c.at.door.Stamp(call); err != nil {
		return err
	}
	reply, first, err := c.at.dispatcher.Do(context.Background(), call)
	if err == nil && first != nil && reply.Outcome != writ.OutcomePending && call.IdempotencyKey != "" && c.r.IntN(2) == 0 {
		again := &writ.Call{Capability: id, Credential: c.cred, Raw: raw, IdempotencyKey: call.IdempotencyKey, Body: c.carries(body)}
		if err := c.at.door.Stamp(again); err != nil {
			return err
		}
		if second, receipt, err := c.at.dispatcher.Do(context.Background(), again); err == nil && receipt != nil && string(second.JSON) != string(reply.JSON) {
			c.t.Errorf("%s repeated under its key: %s, then %s", id, reply.JSON, second.JSON)
		}
	}
	c.note(id, reply, err)
	switch code := writ.CodeOf(err); code {
	case "", writ.CodePolicyDown, writ.CodeNotFound, writ.CodeIllegal, writ.CodeClaimed, writ.CodeLeaseLost, writ.CodeNotHolder, writ.CodeScopeConflict,
		writ.CodeQuota, writ.CodeScope, writ.CodeBudget, writ.CodeClassification, writ.CodeNotEligible, writ.CodeBackpressure,
		writ.CodeVersion, writ.CodeIdempotency, writ.CodePolicy, writ.CodeDeps, writ.CodeSoD, writ.CodePredicate, writ.CodeUnavailable, writ.CodeNoAgent,
		writ.CodeExists, writ.CodeInputInvalid, writ.CodePaused, writ.CodePreflight, writ.CodeHandoffLoop, writ.CodeApprovalDenied, writ.CodeApprovalRequired:
	case writ.CodeContention: // of two replicas; how many there are is looked at in the end
	case writ.CodeUnauthenticated:
		if !c.ends {
			c.t.Errorf("%s: %v", id, err)
		}
	default:
		c.t.Errorf("%s: %v", id, err)
	}
	if err == nil && out != nil && len(reply.JSON) > 0 {
		return json.Unmarshal(reply.JSON, out)
	}
	return err
}

func (c *caller) anyTask() writ.TaskID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tasks) == 0 {
		return "tsk_01ARYZ6S410000000000000000"
	}
	return c.tasks[c.r.IntN(len(c.tasks))]
}

func (c *caller) plan() {
	run := c.anyRun()
	switch c.r.IntN(20) {
	case 2, 3, 4, 5, 6, 7, 8, 9:
		c.manage(run)
	case 0:
		_ = c.do("task.cancel", map[string]any{"task_id": c.anyTask()}, nil)
	case 1:
		_ = c.do("task.get", map[string]any{"task_id": c.anyTask()}, nil)
	default:
		args := map[string]any{
			"run_id": run, "key": fmt.Sprintf("t%d", c.r.IntN(1_000_000)), "capability": []string{"site.build", "site.build", "site.build", "site.check", "site.stamp"}[c.r.IntN(5)], "required_domain": "web",
			"priority": c.r.IntN(10), "backoff_ms": c.r.IntN(50), "max_attempts": 1 + c.r.IntN(3), "lease_ttl_s": 1 + c.r.IntN(3),
		}
		if n := c.r.IntN(3); n > 0 {
			var scopes []string
			for range n {
				scopes = append(scopes, fmt.Sprintf("fs:site/%d/%d/", c.r.IntN(2), c.r.IntN(3)))
			}
			if c.r.IntN(4) == 0 { // one around others
				scopes = []string{fmt.Sprintf("fs:site/%d/", c.r.IntN(2))}
			}
			args["write_scopes"] = scopes
		}
		c.mu.Lock()
		keys := c.keys[run]
		if n := len(keys); n > 0 && c.r.IntN(5) < 2 {
			on := []map[string]any{{"key": keys[n-1], "on_failure": []string{"fail", "skip", "continue"}[c.r.IntN(3)]}}
			if other := keys[c.r.IntN(n)]; other != keys[n-1] {
				on = append(on, map[string]any{"key": other, "on_failure": "continue"})
			}
			args["depends_on"] = on
			if c.r.IntN(3) == 0 {
				args["join"] = []string{"any_of", "first_success", "manual", "manual"}[c.r.IntN(4)]
			}
		}
		c.mu.Unlock()
		if c.r.IntN(5) < 2 {
			args["verify"] = map[string]any{"required": true, "max_rework": c.r.IntN(3)}
		}
		if c.r.IntN(2) == 0 {
			args["produces"] = []map[string]any{{"name": "site", "media_type": "application/zip"}}
		}
		if c.r.IntN(10) == 0 {
			args["deadline_s"] = 1 + c.r.IntN(3)
		}
		if c.r.IntN(5) == 0 {
			args["required_agents"] = []writ.AgentID{c.crew.agent[c.r.IntN(len(c.crew.agent))]}
		}
		var made struct {
			ID writ.TaskID `json:"task_id"`
		}
		if c.do("task.enqueue", args, &made) == nil {
			c.mu.Lock()
			c.tasks = append(c.tasks, made.ID)
			c.keys[run] = append(c.keys[run], args["key"].(string))
			if args["join"] == "manual" {
				c.manual = append(c.manual, made.ID)
			}
			c.mu.Unlock()
		}
	}
}

func (c *caller) work() {
	if c.ends && c.r.IntN(6) == 0 { // its session may be over
		if err := c.do("task.get", map[string]any{"task_id": c.anyTask()}, nil); writ.CodeOf(err) == writ.CodeUnauthenticated {
			c.comeBack()
		}
	}
	if c.ends && c.r.IntN(20) == 0 {
		c.silence()
		c.comeBack()
		return
	}
	if c.moves && c.r.IntN(12) == 0 {
		c.move()
		return
	}
	if len(c.held) == 0 || c.r.IntN(3) == 0 {
		args := map[string]any{}
		switch c.r.IntN(12) {
		case 0, 1, 2, 3:
			args["task_id"] = c.anyTask()
		case 4:
			args["domains"] = []string{"nowhere"}
		}
		var h held
		err := c.do("task.claim", args, &h)
		switch {
		case err == nil && h.Task.ID != "":
			c.held = append(c.held, h)
		case writ.CodeOf(err) == writ.CodeUnauthenticated:
			c.comeBack()
		}
		return
	}
	i := c.r.IntN(len(c.held))
	h := c.held[i]
	keep := false
	switch c.r.IntN(16) {
	case 10:
		keep = c.handOn(h) != nil
	case 11:
		keep = true
		c.giveAway(h)
	case 12, 13:
		keep = true
		c.put(&c.held[i])
	case 0:
		_ = c.do("task.release", h.args(nil), nil)
	case 1, 2:
		_ = c.do("task.fail", h.args(map[string]any{"failure": map[string]any{"class": "external", "code": "x", "retryable": c.r.IntN(2) == 0}}), nil)
	case 3:
		keep = true
		c.beat(&c.held[i])
	case 4: // forgets it: the lease ends
	case 5: // a made-up fence
		keep = true
		_ = c.do("task.complete", h.args(map[string]any{"fence": h.Lease.Fence + int64(c.r.IntN(3)) - 1}), nil)
	default:
		if h.done == nil {
			h.done = map[string]any{"result": map[string]any{"n": c.r.IntN(9)}}
			if len(h.made) > 0 {
				h.done["artifacts"] = h.made
			}
		}
		var out struct {
			Status string `json:"status"`
		}
		err := c.do("task.complete", h.args(h.done), &out)
		if keep = waits(err, out.Status); keep { // the same call again is what they agree to
			c.held[i].done = h.done
		}
	}
	if !keep {
		c.held = append(c.held[:i], c.held[i+1:]...)
	}
}

func randomWork(t *testing.T, seed uint64, batches, calls int, op *client.Client, replicas ...*Daemon) {
	d := replicas[0]
	cr := &crew{t: t, d: d, seed: seed, op: op, keys: map[writ.RunID][]string{}, came: map[string]int{}, moved: map[string]int{}}
	boss := &caller{crew: cr, at: d, r: rand.New(rand.NewPCG(seed, 0)), cred: credentialOf(t, d)}
	var workers []*caller
	for i := range 4 {
		id := writ.AgentID("worker-" + string(rune('a'+i)))
		cr.agent = append(cr.agent, id)
		args := map[string]any{
			"agent_id": id, "archetypes": []string{"executor"}, "domain": "web", "max_concurrent_tasks": 6,
			"tools":       []map[string]any{{"name": "site.build", "safety": "mutating"}, {"name": "site.publish", "safety": "mutating", "approval": "manual"}, {"name": "site.check", "safety": "destructive"}, {"name": "site.stamp", "safety": "mutating"}},
			"write_scope": []string{},
		}
		if i == 0 {
			args["write_scope"] = []string{"fs:site/"}
		}
		for _, step := range []struct {
			id   writ.CapabilityID
			args map[string]any
		}{{"agent.register", args}, {"agent.activate", map[string]any{"agent_id": id}}} {
			if _, err := op.Invoke(t.Context(), step.id, step.args, nil); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			w := &caller{
				crew: cr, at: replicas[len(workers)%len(replicas)], r: rand.New(rand.NewPCG(seed, uint64(len(workers)+1))),
				agent: id, ends: i >= 2, // sessions of the last two are ended now and then, and the last is suspended
				moves: i == 0, // the one that writes
			}
			if err := w.enter(map[string]any{"principal": id, "kind": "agent", "role": "executor", "agent_id": id, "heartbeat_ttl_s": 300}); err != nil {
				t.Fatal(err)
			}
			workers = append(workers, w)
		}
	}
	for _, steps := range []int{1_000_000, 1_000_000, 10} { // the last is used up
		var run struct {
			ID writ.RunID `json:"run_id"`
		}
		if err := boss.do("run.create", map[string]any{"budget": map[string]any{"steps": steps}}, &run); err != nil {
			t.Fatal(err)
		}
		cr.runs = append(cr.runs, run.ID)
	}
	var judged struct {
		ID writ.RunID `json:"run_id"`
	}
	if err := boss.do("run.create", map[string]any{"budget": map[string]any{"steps": 1_000_000}, "close_policy": "verifier"}, &judged); err != nil {
		t.Fatal(err)
	}
	cr.runs = append(cr.runs, judged.ID)
	boss.crowd(cr.runs[0])
	judge := &caller{crew: cr, at: replicas[len(replicas)-1], r: rand.New(rand.NewPCG(seed, 200))}
	if err := judge.enter(map[string]any{"principal": "judge", "kind": "human", "role": "verifier", "controller": "jane"}); err != nil {
		t.Fatal(err)
	}
	person := &caller{crew: cr, at: d, r: rand.New(rand.NewPCG(seed, 202))}
	if err := person.enter(map[string]any{"principal": "pia", "kind": "human", "role": "approver", "controller": "pia"}); err != nil {
		t.Fatal(err)
	}
	asker := &caller{crew: cr, at: d, r: rand.New(rand.NewPCG(seed, 203))}
	if err := asker.enter(map[string]any{"principal": "olga", "kind": "human", "role": "orchestrator", "controller": "olga"}); err != nil {
		t.Fatal(err)
	}
	var asks struct {
		ID writ.RunID `json:"run_id"`
	}
	if err := asker.do("run.create", map[string]any{"budget": map[string]any{"steps": 1_000_000}}, &asks); err != nil {
		t.Fatal(err)
	}
	cr.runs = append(cr.runs, asks.ID)
	chief := &caller{crew: cr, at: d, r: rand.New(rand.NewPCG(seed, 201)), cred: boss.cred}
	var planners []*caller
	for i := range 2 {
		planners = append(planners, &caller{crew: cr, at: replicas[i%len(replicas)], r: rand.New(rand.NewPCG(seed, uint64(100+i))), cred: boss.cred})
	}
	for _, d := range replicas {
		d.sweeper.Stop() // each batch has its own
	}
	sweepers := func() (stop func()) {
		var all []*guard.Sweeper
		for _, d := range replicas {
			s := guard.NewSweeper(d.door, guard.SweeperConfig{Shards: []writ.Tenant{shard}, Dues: dues(), Every: 20 * time.Millisecond, Grace: time.Millisecond})
			s.Start()
			all = append(all, s)
		}
		return func() {
			for _, s := range all {
				s.Stop()
			}
		}
	}
	for batch := 0; batch < batches || batch < batches+moreBatches && len(cr.missing()) > 0; batch++ {
		if batch >= batches {
			t.Logf("goes on until these have come about: %q", cr.missing())
		}
		if batch > 0 {
			boss.replaceTight()
		}
		var wg sync.WaitGroup
		work := func(f func()) {
			wg.Go(func() {
				for range calls {
					f()
				}
			})
		}
		stop := sweepers()
		for _, w := range workers {
			work(w.work)
		}
		for _, p := range planners {
			work(p.plan)
		}
		work(judge.judge)
		work(person.decide)
		work(func() { asker.ask(asks.ID) })
		work(func() { chief.disturb(workers[len(workers)-4:], judged.ID) })
		var left map[writ.Counter]int64
		wg.Go(func() {
			soundQueue(t, d, "while others work")
			left = spoil(t, d, cr, rand.New(rand.NewPCG(seed, uint64(300+batch))), max(1, 3-2*batch))
		})
		wg.Wait()
		stop() // from here on nothing moves
		cr.runs, cr.small = append(cr.runs, cr.small...), nil
		mendRest(t, d, left)
		// Something everybody may take: of what is left much may be for who claims other scopes.
		if err := planners[0].do("task.enqueue", map[string]any{
			"run_id": cr.runs[0], "key": fmt.Sprintf("last-%d", batch), "capability": "site.build", "required_domain": "web", "priority": 9, "lease_ttl_s": 3,
		}, nil); err != nil {
			t.Fatal(err)
		}
		for _, w := range workers {
			_ = w.do("task.claim", map[string]any{}, nil) // or holds enough already
		}
		if live := audit(t, d, cr); live == 0 {
			t.Error("no lease was live")
		}
		auditStates(t, d, cr)
		cr.moved = auditReceipts(t, d)
		soundQueue(t, d, "when nothing moves")
		if t.Failed() {
			return
		}
	}
	// What was forgotten runs out.
	stop := sync.OnceFunc(sweepers())
	defer stop()
	deadline := time.Now().Add(30 * time.Second)
	for soon := time.Now().Add(5 * time.Second).UnixMilli(); slices.Min(append(slices.Collect(maps.Values(dueMembers(t, d, writ.IndexLeases))), soon)) < soon; {
		if time.Now().After(deadline) {
			t.Fatal("leases that nobody renews do not end")
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, w := range workers { // the others are long: they end with their sessions
		_ = w.do("session.close", map[string]any{"session_id": w.ses}, nil)
		w.ends = true
	}
	for !quiet(t, d) {
		if time.Now().After(deadline) {
			t.Fatalf("leases that nobody renews do not end, or what they leave is not done: %v %v %v", dueMembers(t, d, writ.IndexLeases), dueMembers(t, d, writ.IndexReady), dueMembers(t, d, writ.IndexTodo))
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop() // what fetches from backlogs moves tasks between two looks of the audit
	// A sweep that was stopped does not wait for what it had begun, and the embedded store shows its lanes
	// a moment after the documents. It writes in order: after this, all of it is there.
	if err := planners[0].do("task.enqueue", map[string]any{"run_id": cr.runs[0], "key": "after-all", "capability": "site.build", "required_domain": "web"}, nil); err != nil {
		t.Fatal(err)
	}
	if live := audit(t, d, cr); live != 0 {
		t.Errorf("%d leases are live", live)
	}
	auditStates(t, d, cr)
	cr.moved = auditReceipts(t, d)
	soundQueue(t, d, "at the end")
	if contended, calls := cr.contended(); contended > 1+calls/100 {
		t.Errorf("of %d calls %d were given up, since others kept changing what they depend on", calls, contended)
	}
	if missing := cr.missing(); len(missing) > 0 {
		t.Errorf("these never came about: %q\ncalls: %v\nmoves: %v", missing, cr.came, cr.moved)
	}
}

// credentialOf is the operator's.
func credentialOf(t *testing.T, d *Daemon) *writ.Credential {
	t.Helper()
	b, err := os.ReadFile(OperatorToken(d.cfg.Data))
	if err != nil {
		t.Fatal(err)
	}
	cred, ok := gateway.ParseToken(strings.TrimSpace(string(b)))
	if !ok {
		t.Fatal("the operator's token does not parse")
	}
	return cred
}

// members reads a whole index.
func members(t *testing.T, d *Daemon, i writ.Index) []writ.Member {
	t.Helper()
	var out []writ.Member
	from := ""
	for {
		r := writ.Range{Index: i, From: from, Limit: 500}
		s, err := d.store.Read(context.Background(), shard, writ.ReadSet{Ranges: []writ.Range{r}})
		if err != nil {
			t.Fatal(err)
		}
		page := s.Ranges[r].Members
		out = append(out, page...)
		if len(page) < 500 {
			return out
		}
		from = page[len(page)-1].Name + "\x00"
	}
}

// due reads an index whose members have different scores.
func dueMembers(t *testing.T, d *Daemon, i writ.Index) map[string]int64 {
	t.Helper()
	r := writ.Range{Index: i, ByScore: true, Max: writ.MaxAmount, Limit: 1000}
	s, err := d.store.Read(context.Background(), shard, writ.ReadSet{Ranges: []writ.Range{r}})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int64{}
	for _, m := range s.Ranges[r].Members {
		out[m.Name] = m.Score
	}
	return out
}

// quiet says that nothing moves any more. Follow-ups come last: what ends a lease leaves
// them, and they leave none.
func quiet(t *testing.T, d *Daemon) bool {
	if len(dueMembers(t, d, writ.IndexLeases)) > 0 || len(dueMembers(t, d, writ.IndexReady)) > 0 {
		return false
	}
	todo := dueMembers(t, d, writ.IndexTodo)
	maps.DeleteFunc(todo, func(m string, _ int64) bool {
		return strings.HasPrefix(m, "overrun ") || strings.HasPrefix(m, "stall ") || strings.HasPrefix(m, "unreserve ") || strings.HasPrefix(m, "artifacts ")
	}) // due in a week, looked at again as long as the run lives, kept for a minute, and kept for days
	return len(todo) == 0
}

// audit checks what must hold whatever happened, at a moment when nothing moves.
// It returns how many tasks run.
func audit(t *testing.T, d *Daemon, cr *crew) int {
	t.Helper()
	ctx := context.Background()
	doc := func(k writ.Key) writ.Snapshot {
		s, err := d.store.Read(ctx, shard, writ.ReadSet{Docs: []writ.Key{k}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	counter := func(c writ.Counter) int64 {
		s, err := d.store.Read(ctx, shard, writ.ReadSet{Counters: []writ.Counter{c}})
		if err != nil {
			t.Fatal(err)
		}
		return s.Counters[c]
	}
	inLane := map[string]bool{}
	var taken []writ.Delivery
	defer func() {
		for _, e := range taken {
			if err := d.store.GiveBack(ctx, shard, "oracle", e); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		lanes, err := d.store.Lanes(ctx, shard)
		if err != nil {
			t.Fatal(err)
		}
		if len(lanes) == 0 {
			break
		}
		for _, l := range lanes {
			got, err := d.store.Receive(ctx, shard, []writ.Lane{l.Lane}, "oracle", 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range got {
				inLane[e.Entry] = true
			}
			taken = append(taken, got...)
		}
	}
	leases := dueMembers(t, d, writ.IndexLeases)
	ready, todo := dueMembers(t, d, writ.IndexReady), dueMembers(t, d, writ.IndexTodo)
	sessions := map[string]string{} // who holds which task
	for _, ses := range members(t, d, writ.IndexSessions) {
		for _, m := range members(t, d, writ.SessionTasks(writ.SessionID(ses.Name))) {
			sessions[m.Name] = ses.Name
		}
	}
	behind := map[string]bool{} // tasks in the backlog of their run
	for _, run := range cr.runs {
		for _, m := range members(t, d, writ.Backlog(run)) {
			_, task, _ := strings.Cut(m.Name, " ")
			behind[task] = true
		}
	}
	places(t, d, cr, todo)
	var runningTasks []writ.Task
	locks := map[string]bool{}
	for _, m := range members(t, d, writ.IndexScopes) {
		locks[m.Name] = true
	}
	running := map[writ.AgentID]int64{}
	total := 0
	for _, run := range cr.runs {
		var open, bad int64
		_, reaps := todo["run "+string(run)] // it has ended, and whoever meets a task of it in a lane drops the entry
		for _, m := range members(t, d, writ.RunTasks(run)) {
			total++
			task, _, ok, err := writ.Get[writ.Task](doc(writ.TaskKey(writ.TaskID(m.Name))), writ.TaskKey(writ.TaskID(m.Name)))
			if err != nil || !ok {
				t.Fatalf("task %s: %v", m.Name, err)
			}
			if !writ.TaskMoves.Terminal(task.State) {
				open++
			}
			if task.State == writ.TaskFailed || task.State == writ.TaskDead {
				bad++
			}
			_, leased := leases[m.Name]
			held := task.State == writ.TaskRunning || task.State == writ.TaskParked && task.Lease != nil // whose lease stands still
			if leased != (task.State == writ.TaskRunning) || (task.Lease != nil) != held {
				t.Errorf("task %s is %s, leased %v", m.Name, task.State, leased)
			}
			if held {
				running[task.Lease.Agent]++
				if sessions[m.Name] != string(task.Lease.Session) {
					t.Errorf("task %s is leased to %s, and listed as held by %q", m.Name, task.Lease.Session, sessions[m.Name])
				}
				delete(sessions, m.Name)
				for _, s := range task.WriteScopes {
					lock := writ.ScopeMember(s, task.ID)
					if !locks[lock] {
						t.Errorf("task %s runs without its lock on %s", m.Name, s)
					}
					delete(locks, lock)
				}
				for _, other := range runningTasks {
					for _, s := range task.WriteScopes {
						for _, o := range other.WriteScopes {
							if writ.ScopesOverlap(s, o) {
								t.Errorf("tasks %s and %s run at once, on %s and %s", task.ID, other.ID, s, o)
							}
						}
					}
				}
				runningTasks = append(runningTasks, task)
			}
			if task.KeptUntil != 0 && task.State == writ.TaskQueued { // it was handed them
				for _, s := range task.WriteScopes {
					lock := writ.ScopeMember(s, task.ID)
					if !locks[lock] {
						t.Errorf("task %s was handed %s, and has no lock on it", m.Name, s)
					}
					delete(locks, lock)
				}
			}
			if task.State == writ.TaskQueued {
				_, waits := ready[m.Name]
				refused := len(members(t, d, writ.Refusers(task.ID))) > 0
				blocked := members(t, d, writ.BlockedOn(task.ID))
				if !inLane[m.Name] && !behind[m.Name] && !waits && !refused && !reaps && len(blocked) == 0 {
					t.Errorf("task %s is queued and lies nowhere: %+v", m.Name, task)
				}
				for _, b := range blocked {
					if strings.HasPrefix(b.Name, "ses_") {
						ses, _, _, err := writ.Get[writ.Session](doc(writ.SessionKey(writ.SessionID(b.Name))), writ.SessionKey(writ.SessionID(b.Name)))
						if _, ends := todo["session "+b.Name]; err != nil || writ.SessionMoves.Terminal(ses.State) && !ends {
							t.Errorf("task %s waits on session %s, which is %s", m.Name, b.Name, ses.State)
						}
						continue
					}
					holder, _, _, err := writ.Get[writ.Task](doc(writ.TaskKey(writ.TaskID(b.Name))), writ.TaskKey(writ.TaskID(b.Name)))
					_, wakes := todo["wake "+b.Name] // more waited than one commit wakes
					if err != nil || holder.State != writ.TaskRunning && (holder.State != writ.TaskParked || holder.Lease == nil) && !wakes {
						t.Errorf("task %s waits on %s, which is %s", m.Name, b.Name, holder.State)
					}
				}
			}
		}
		if n := counter(writ.RunOpenTasks(run)); n != open {
			t.Errorf("run %s counts %d open tasks, has %d", run, n, open)
		}
		if n := counter(writ.RunBadTasks(run)); n != bad {
			t.Errorf("run %s counts %d bad tasks, has %d", run, n, bad)
		}
	}
	for task, ses := range sessions {
		t.Errorf("task %s is listed as held by %s and does not run", task, ses)
	}
	for m := range auditClaims(t, d, doc, runningTasks) {
		if !locks[m] {
			t.Errorf("a session lives without its claim %q", m)
		}
		delete(locks, m)
	}
	for l := range locks {
		t.Errorf("lock %q belongs to no running task and to no session that lives", l)
	}
	for _, a := range cr.agent {
		if n := counter(writ.AgentRunning(a)); n != running[a] {
			t.Errorf("agent %s counts %d running tasks, has %d", a, n, running[a])
		}
	}
	steps, prepaid := facts(t, d), map[writ.RunID]int64{}
	for _, task := range runningTasks { // a claim has paid for the end of the attempt
		steps[task.Run] += task.Lease.Prepaid
		prepaid[task.Run] += task.Lease.Prepaid
	}
	for _, run := range cr.runs {
		if n := counter(writ.BudgetUsed(run, writ.BudgetSteps)); n != steps[run] {
			t.Errorf("run %s used %d steps, its receipts state %d metered calls", run, n, steps[run])
		}
		if n := counter(writ.BudgetHeld(run, writ.BudgetSteps)); n != prepaid[run] {
			t.Errorf("run %s holds %d steps, its attempts have paid for %d", run, n, prepaid[run])
		}
		r, _, _, err := writ.Get[writ.Run](doc(writ.RunKey(run)), writ.RunKey(run))
		if n := counter(writ.BudgetUsed(run, writ.BudgetSteps)); err != nil || n < 0 || n > r.Limit(writ.BudgetSteps) {
			t.Errorf("run %s used %d steps of %d: %v", run, n, r.Budget[writ.BudgetSteps], err)
		}
		t.Logf("run %s is %s with %d of %d steps used", run, r.State, counter(writ.BudgetUsed(run, writ.BudgetSteps)), r.Budget[writ.BudgetSteps])
	}
	scoped := 0
	for _, task := range runningTasks {
		if len(task.WriteScopes) > 0 {
			scoped++
		}
	}
	t.Logf("%d tasks audited, %d run, %d of them on scopes", total, len(runningTasks), scoped)
	if total == 0 {
		t.Error("nothing happened")
	}
	return len(runningTasks)
}

// auditClaims checks that no task runs, and no session claims, where another session
// does, unless both share. It gives what sessions that live claim.
func auditClaims(t *testing.T, d *Daemon, doc func(writ.Key) writ.Snapshot, running []writ.Task) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	var live []writ.Session
	for _, m := range members(t, d, writ.IndexSessions) {
		k := writ.SessionKey(writ.SessionID(m.Name))
		ses, _, _, err := writ.Get[writ.Session](doc(k), k)
		if err != nil {
			t.Fatal(err)
		}
		if writ.SessionMoves.Terminal(ses.State) {
			continue
		}
		for _, c := range ses.WriteClaims {
			name := c.Resource + " " + m.Name
			if c.Mode == writ.ScopeShared {
				name += " shared"
			}
			out[name] = true
		}
		live = append(live, ses)
	}
	shares := map[writ.SessionID]bool{} // with anybody
	for i, one := range live {
		for _, c := range one.WriteClaims {
			shares[one.ID] = shares[one.ID] || c.Mode == writ.ScopeShared
			for _, two := range live[i+1:] {
				for _, o := range two.WriteClaims {
					if writ.ScopesOverlap(c.Resource, o.Resource) && (c.Mode != writ.ScopeShared || o.Mode != writ.ScopeShared) {
						t.Errorf("sessions %s and %s claim %v and %v", one.ID, two.ID, c, o)
					}
				}
			}
		}
	}
	for _, task := range running {
		for _, ses := range live {
			for _, c := range ses.WriteClaims {
				for _, s := range task.WriteScopes {
					if task.Lease.Session != ses.ID && writ.ScopesOverlap(c.Resource, s) && (c.Mode != writ.ScopeShared || !shares[task.Lease.Session]) {
						t.Errorf("task %s runs on %s for %s, and %s claims %v", task.ID, s, task.Lease.Session, ses.ID, c)
					}
				}
			}
		}
	}
	t.Logf("%d claims of sessions", len(out))
	return out
}

// facts reads every receipt, checks that sequences have no gap and that a claim
// and nothing else is charged, and counts the metered calls of runs.
func facts(t *testing.T, d *Daemon) map[writ.RunID]int64 {
	t.Helper()
	steps := map[writ.RunID]int64{}
	after := int64(-1)
	for {
		page, err := d.archive().Read(context.Background(), shard, writ.ArchiveRead{After: after, Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return steps
		}
		for _, r := range page {
			if r.Seq != after+1 {
				t.Fatalf("receipt %d follows %d", r.Seq, after)
			}
			after = r.Seq
			var st struct {
				Predicate struct {
					Run        writ.RunID       `json:"run"`
					Budget     map[string]int64 `json:"budget"`
					Transition string           `json:"transition"`
					Outcome    string           `json:"outcome"`
					Actor      struct {
						Role writ.Role `json:"role"`
					} `json:"actor"`
				} `json:"predicate"`
			}
			if err := json.Unmarshal(r.Payload, &st); err != nil {
				t.Fatal(err)
			}
			p, charged := st.Predicate, int64(0)
			if p.Outcome == writ.OutcomeOfTransition {
				switch p.Transition {
				case "task.claim":
					charged = writ.StepsOfAttempt
					steps[p.Run]++
				case "task.complete", "task.fail", "task.handoff":
					steps[p.Run]++
				case "agent.delegate", "artifact.put":
					if p.Actor.Role == writ.RoleExecutor {
						charged = 1
						steps[p.Run]++
					}
				}
			}
			if got := p.Budget[writ.BudgetSteps]; got != charged {
				t.Errorf("%s %s (%s) was charged %d steps", p.Transition, r.ID, p.Outcome, got)
			}
		}
	}
}
