package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
)

// enter opens and starts a session, which claims where it writes if nobody is there.
func (c *caller) enter(args map[string]any, claims ...map[string]any) error {
	var opened struct {
		SessionID string `json:"session_id"`
		Token     string `json:"token"`
	}
	if _, err := c.op.Invoke(c.t.Context(), "session.open", args, &opened); err != nil {
		return err
	}
	c.cred, _ = gateway.ParseToken(opened.Token)
	c.mu.Lock()
	c.ses, c.held = opened.SessionID, nil
	c.mu.Unlock()
	start := map[string]any{"session_id": opened.SessionID}
	if len(claims) > 0 {
		if c.do("session.start", map[string]any{"session_id": opened.SessionID, "write_claims": claims}, nil) == nil {
			return nil
		}
	}
	return c.do("session.start", start, nil)
}

// move ends the caller's session and begins another one that claims to write elsewhere.
func (c *caller) move() {
	if c.do("session.close", map[string]any{"session_id": c.ses}, nil) != nil {
		return
	}
	claims := []map[string]any{{"resource": fmt.Sprintf("fs:site/%d", c.r.IntN(2))}}
	if c.r.IntN(2) == 0 {
		claims = []map[string]any{{"resource": fmt.Sprintf("fs:site/0/%d", c.r.IntN(3))}, {"resource": fmt.Sprintf("fs:site/1/%d", c.r.IntN(3))}}
	}
	for _, one := range claims {
		one["mode"] = []string{"exclusive", "shared"}[c.r.IntN(2)]
	}
	if c.r.IntN(4) == 0 {
		claims = nil
	}
	_ = c.enter(map[string]any{"principal": c.agent, "kind": "agent", "role": "executor", "agent_id": c.agent, "heartbeat_ttl_s": 300}, claims...)
}

// judge says something about whatever waits for a verdict.
func (c *caller) judge() {
	say := func() map[string]any {
		if c.r.IntN(2) == 0 {
			return map[string]any{"verdict": "reject", "reasons": []string{"incomplete"}}
		}
		return map[string]any{"verdict": "accept"}
	}
	if c.r.IntN(2) == 0 {
		var page struct {
			Runs []struct {
				ID      writ.RunID     `json:"run_id"`
				Receipt writ.ReceiptID `json:"receipt"`
			} `json:"runs"`
		}
		_ = c.do("run.list", map[string]any{"state": "verifying"}, &page)
		for _, run := range page.Runs {
			verdict := say()
			verdict["run_id"], verdict["receipt_id"] = run.ID, run.Receipt
			_ = c.do("run.close", verdict, nil)
		}
		return
	}
	var page struct {
		Tasks []struct {
			ID      writ.TaskID    `json:"task_id"`
			Receipt writ.ReceiptID `json:"receipt"`
		} `json:"tasks"`
	}
	_ = c.do("task.list", map[string]any{"state": "verifying"}, &page)
	for _, t := range page.Tasks {
		verdict := say()
		verdict["task_id"], verdict["receipt_id"] = t.ID, t.Receipt
		_ = c.do("task.verify", verdict, nil)
	}
}

// disturb takes an agent out of work and lets it in again, ends sessions and opens
// others, and seals the run that is judged.
func (c *caller) disturb(workers []*caller, judged writ.RunID) {
	agent := workers[len(workers)-1].agent
	switch c.r.IntN(16) {
	case 12:
		_ = c.do("agent.revoke", map[string]any{"agent_id": agent, "reason": "compromised"}, nil)
	case 13, 14:
		c.passing()
	case 15:
		c.limit()
	case 0, 1:
		_ = c.do("agent.suspend", map[string]any{"agent_id": agent}, nil)
	case 2, 3, 4, 5:
		_ = c.do("agent.activate", map[string]any{"agent_id": agent}, nil)
	case 6:
		w := workers[c.r.IntN(len(workers))]
		c.mu.Lock()
		ses := w.ses
		c.mu.Unlock()
		_ = c.do("session.revoke", map[string]any{"session_id": ses}, nil)
	case 7:
		if c.r.IntN(4) == 0 {
			_ = c.do("run.seal", map[string]any{"run_id": judged}, nil)
		}
	default:
		_ = c.do("task.get", map[string]any{"task_id": c.anyTask()}, nil)
	}
}

// crowd enqueues more tasks of one run than are offered at once in a lane.
func (c *caller) crowd(run writ.RunID) {
	for i := range 150 {
		var made struct {
			ID writ.TaskID `json:"task_id"`
		}
		args := map[string]any{"run_id": run, "key": fmt.Sprintf("crowd-%d", i), "capability": "site.build", "required_domain": "web", "priority": 4, "lease_ttl_s": 2, "backoff_ms": 10}
		if i%2 == 0 {
			args["produces"] = []map[string]any{{"name": "site", "media_type": "application/zip"}}
		}
		if i%4 < 2 {
			args["verify"] = map[string]any{"required": true, "max_rework": i % 2}
		}
		if c.do("task.enqueue", args, &made) == nil {
			c.tasks = append(c.tasks, made.ID)
		}
	}
}

// places checks where queued tasks are counted: each of one run and lane either among
// those that are offered or in the backlog, and from that somebody fetches.
func places(t *testing.T, d *Daemon, cr *crew, todo map[string]int64) {
	t.Helper()
	counter := func(c writ.Counter) int64 { return readOf(t, d, writ.ReadSet{Counters: []writ.Counter{c}}).Counters[c] }
	for _, run := range cr.runs {
		offered, backlog, want := map[writ.Lane]int64{}, map[writ.Lane]int64{}, []string{}
		for _, m := range members(t, d, writ.RunTasks(run)) {
			task := docOf[writ.Task](t, d, writ.TaskKey(writ.TaskID(m.Name)))
			lane := task.Lanes()[0]
			switch place := counter(writ.TaskPlace(task.ID)); {
			case place != 0 && task.State != writ.TaskQueued:
				t.Errorf("task %s is %s and has place %d", task.ID, task.State, place)
			case place == 1:
				offered[lane]++
			case place == 2:
				backlog[lane]++
				want = append(want, writ.BacklogMember(lane, task.ID))
			default:
				offered[lane] += 0
			}
		}
		var got []string
		for _, m := range members(t, d, writ.Backlog(run)) {
			got = append(got, m.Name)
		}
		slices.Sort(want)
		if !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("in the backlog of %s: %v, should be %v", run, got, want)
		}
		for lane, n := range offered {
			if c := counter(writ.RunOffered(run, lane)); c != n {
				t.Errorf("run %s counts %d tasks offered in %s, has %d", run, c, lane, n)
			}
			if c := counter(writ.RunBacklog(run, lane)); c != backlog[lane] {
				t.Errorf("run %s counts %d tasks behind those in %s, has %d", run, c, lane, backlog[lane])
			}
			_, due := todo["refill "+string(run)+" "+string(lane)]
			if active := docOf[writ.Run](t, d, writ.RunKey(run)).State == writ.RunActive; backlog[lane] > 0 && n <= 64 && !due && active {
				t.Errorf("%d tasks of %s wait behind %d in %s, and nobody fetches them", backlog[lane], run, n, lane)
			}
		}
	}
}

// auditStates checks what the states of tasks, runs and agents imply for the lists
// they are on: blocked, verifying and dead tasks, those of runs by state, and runs
// that wait for their verdict.
func auditStates(t *testing.T, d *Daemon, cr *crew) {
	t.Helper()
	counter := func(c writ.Counter) int64 { return readOf(t, d, writ.ReadSet{Counters: []writ.Counter{c}}).Counters[c] }
	names := func(i writ.Index) (out []string) {
		for _, m := range members(t, d, i) {
			out = append(out, m.Name)
		}
		return out
	}
	same := func(what string, got, want []string) {
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: listed %v, are %v", what, got, want)
		}
	}
	todo := dueMembers(t, d, writ.IndexTodo)
	var verifying, dead, closing []string
	seen := map[writ.TaskState]int{}
	for _, run := range cr.runs {
		r := docOf[writ.Run](t, d, writ.RunKey(run))
		if r.State == writ.RunVerifying {
			closing = append(closing, string(run))
		}
		byState, open := map[writ.TaskState][]string{}, 0
		for _, id := range names(writ.RunTasks(run)) {
			task := docOf[writ.Task](t, d, writ.TaskKey(writ.TaskID(id)))
			byState[task.State] = append(byState[task.State], id)
			seen[task.State]++
			if !writ.TaskMoves.Terminal(task.State) {
				open++
			}
			if task.State == writ.TaskDone && task.Verified != (task.Verify != nil) {
				t.Errorf("task %s is done, accepted %v, and was to be: %v", id, task.Verified, task.Verify != nil)
			}
			waits := int64(0)
			for _, dep := range task.DependsOn {
				on := docOf[writ.Task](t, d, writ.TaskKey(dep.Task))
				listed := slices.Contains(names(writ.Dependents(dep.Task)), id)
				_, promised := todo["unblock "+string(dep.Task)]
				ended := writ.TaskMoves.Terminal(on.State)
				switch {
				case listed && task.State != writ.TaskBlocked && !ended:
					t.Errorf("task %s is %s and listed with %s, which is %s", id, task.State, dep.Task, on.State)
				case listed && ended && !promised && !writ.RunMoves.Terminal(r.State):
					t.Errorf("task %s waits for %s, which is %s, and nobody will tell it", id, dep.Task, on.State)
				case !listed && task.State == writ.TaskBlocked && !ended:
					t.Errorf("task %s is blocked and not listed with %s, which is %s", id, dep.Task, on.State)
				}
				if listed {
					waits++
				}
			}
			if task.Join == writ.JoinManual && !task.Admitted {
				waits++ // for somebody's word
			}
			if n := counter(writ.TaskUnmet(task.ID)); task.State == writ.TaskBlocked && (n != waits || n == 0) {
				t.Errorf("task %s is blocked by %d and counts %d", id, waits, n)
			}
		}
		for state := range writ.TaskMoves {
			if state != "" {
				same(string(run)+" "+string(state), names(writ.RunTasksIn(run, state)), byState[state])
			}
		}
		verifying, dead = append(verifying, byState[writ.TaskVerifying]...), append(dead, byState[writ.TaskDead]...)
		bad := len(byState[writ.TaskFailed]) + len(byState[writ.TaskDead])
		if (r.State == writ.RunDone || r.State == writ.RunVerifying) && (open > 0 || bad > 0) {
			t.Errorf("run %s is %s with %d open and %d bad tasks", run, r.State, open, bad)
		}
		if r.State == writ.RunActive && r.Sealed && open == 0 && r.Concludes() {
			t.Errorf("run %s is sealed, has no open task, and is still active", run)
		}
	}
	same("tasks that wait for a verdict", names(writ.IndexVerify), verifying)
	same("runs that wait for a verdict", names(writ.IndexClose), closing)
	same("dead tasks", names(writ.IndexDead), dead)
	for _, a := range cr.agent {
		agent := docOf[writ.Agent](t, d, writ.AgentKey(a))
		var live []string
		for _, id := range names(writ.IndexSessions) {
			s := docOf[writ.Session](t, d, writ.SessionKey(writ.SessionID(id)))
			if s.Agent == a && !writ.SessionMoves.Terminal(s.State) {
				live = append(live, id)
			}
		}
		_, promised := todo["agent "+string(a)]
		if agent.State != writ.AgentActive && len(live) > 0 && !promised {
			t.Errorf("agent %s is %s, and its sessions %v live on", a, agent.State, live)
		}
		same("sessions of "+string(a), names(writ.AgentSessions(a)), live)
	}
	t.Logf("tasks by state: %v", seen)
}

// auditReceipts replays every receipt: each move is legal and begins where the last
// one about the object ended, and every document is where its last move has led, and
// names that receipt. It counts the moves.
func auditReceipts(t *testing.T, d *Daemon) map[string]int {
	t.Helper()
	moves := map[string]int{}
	type at struct {
		state   string
		receipt writ.ReceiptID
	}
	objects := map[string]at{}
	after := int64(-1)
	for {
		page, err := d.archive().Read(context.Background(), shard, writ.ArchiveRead{After: after, Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			after = r.Seq
			var st struct {
				Predicate struct {
					Transition string        `json:"transition"`
					Changes    []writ.Change `json:"changes"`
				} `json:"predicate"`
			}
			if err := json.Unmarshal(r.Payload, &st); err != nil {
				t.Fatal(err)
			}
			for _, c := range st.Predicate.Changes {
				name := c.Kind + "/" + c.ID
				if !writ.LegalMove(c.Kind, c.From, c.To) {
					t.Errorf("receipt %d, %s: %s went from %q to %q", r.Seq, st.Predicate.Transition, name, c.From, c.To)
				}
				if was := objects[name].state; was != c.From {
					t.Errorf("receipt %d, %s: %s was %q, the move begins at %q", r.Seq, st.Predicate.Transition, name, was, c.From)
				}
				objects[name] = at{c.To, r.ID}
				moves[c.Kind+" "+c.From+"→"+c.To]++
			}
		}
	}
	for name, want := range objects {
		if strings.HasPrefix(name, writ.ObjectGate+"/") || strings.HasPrefix(name, writ.ObjectRepair+"/") || strings.HasPrefix(name, writ.ObjectQuota+"/") {
			continue // the gate is one document, all quotas are, and of repairs the last is kept
		}
		got := docOf[struct {
			State   string         `json:"state"`
			Receipt writ.ReceiptID `json:"receipt"`
		}](t, d, writ.Key(name))
		if got.State != want.state || got.Receipt != want.receipt {
			t.Errorf("%s is %q by %s, its receipts say %q by %s", name, got.State, got.Receipt, want.state, want.receipt)
		}
	}
	return moves
}

func readOf(t *testing.T, d *Daemon, rs writ.ReadSet) writ.Snapshot {
	t.Helper()
	s, err := d.store.Read(context.Background(), shard, rs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// docOf reads a document that must be there.
func docOf[T any](t *testing.T, d *Daemon, k writ.Key) T {
	t.Helper()
	doc, _, ok, err := writ.Get[T](readOf(t, d, writ.ReadSet{Docs: []writ.Key{k}}), k)
	if err != nil || !ok {
		t.Fatalf("%s: there %v, %v", k, ok, err)
	}
	return doc
}
