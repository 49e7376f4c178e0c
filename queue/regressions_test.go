package queue

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// A result is data: whatever it says, it changes nothing but the result.
// (A queue that pasted results into an expression let them forge the state and
// the claimant of a task.)
func TestN1HostileResultChangesNothingElse(t *testing.T) {
	hostile := []string{
		`x" | .claimed_by = "attacker" | .status = "verified`,
		`"},"state":"queued","lease":{"session":"ses_evil"},"x":{"`,
		"\u0000\u2028</script><!--", `\u0022,\u0022state\u0022:\u0022dead`, strings.Repeat(`"`, 4000),
	}
	for _, h := range hostile {
		l := newLab(t)
		other := l.task(l.enqueue("other"))
		g := l.claim(l.a, l.enqueue("one"))
		a := g.complete()
		result, err := json.Marshal(map[string]string{"out": h, "state": h, h: "x"})
		if err != nil {
			t.Fatal(err)
		}
		a.Result = result
		l.do("task.complete", l.a, a)
		got := l.wantState(g.task, writ.TaskDone)
		if got.Lease != nil || got.Attempt != 1 || got.Capability != build {
			t.Fatalf("result %q changed the task: %+v", h, got)
		}
		if now := l.task(other.ID); !reflect.DeepEqual(now, other) {
			t.Fatalf("result %q changed another task", h)
		}
		v := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: g.task}))
		var back map[string]string
		if err := json.Unmarshal(v.Result, &back); err != nil || back["out"] != h {
			t.Fatalf("result %q came back as %s (%v)", h, v.Result, err)
		}
		audit(l)
	}
}

// Ids never reach a key unchecked.
func TestIDsThatArePaths(t *testing.T) {
	l := newLab(t)
	for _, id := range []string{"../gate", "tsk_../../../../../../../../../../gate", "", "tsk_" + strings.Repeat("0", 25) + "/", "gate"} {
		for _, c := range Capabilities(Config{}) {
			if (c.ID == "task.claim" || c.ID == "task.list") && id == "" || c.ID == "scope.list" || c.ID == "task.recall" || c.ID == "queue.repair" {
				continue // means something else, or names none
			}
			args := reflect.New(c.Args)
			for _, f := range []string{"Task", "Run", "Session"} {
				if v := args.Elem().FieldByName(f); v.IsValid() {
					v.SetString(id)
				}
			}
			if v := args.Elem().FieldByName("Agent"); v.IsValid() {
				v.SetString("agent-a")
			}
			l.refused(writ.CodeNotFound, c.ID, l.oper, args.Interface())
		}
	}
	a := &TaskEnqueueArgs{Run: l.run, Key: "../../gate", Capability: build, Domain: "web"}
	l.refused(writ.CodeInputInvalid, "task.enqueue", l.owner, a)
}

// Only the session that claimed a task may say anything about it.
func TestN3NonOwnerIsRefused(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	second := l.w.Open(writ.RoleExecutor, "worker-a", "agent-a") // same agent, another session
	forged := g
	forged.lease = writ.LeaseID(l.w.NewID(writ.PrefixLease))
	for _, by := range []writ.Caller{l.b, second, l.oper, l.owner} {
		for _, g := range []grip{g, forged} {
			facts := len(l.w.Facts)
			l.refused(writ.CodeNotHolder, "task.heartbeat", by, g.beat())
			l.refused(writ.CodeNotHolder, "task.complete", by, g.complete())
			l.refused(writ.CodeNotHolder, "task.fail", by, g.fail(true))
			l.refused(writ.CodeNotHolder, "task.release", by, g.release())
			if len(l.w.Facts) != facts {
				t.Fatal("a refused call changed something")
			}
		}
	}
	l.refused(writ.CodeLeaseLost, "task.complete", l.a, forged.complete()) // the holder with a wrong lease
	l.do("task.complete", l.a, g.complete())
	l.refused(writ.CodeLeaseLost, "task.complete", l.b, g.complete()) // nobody else can repeat it
}

// A task whose holder is silent comes back and ends up dead when nobody can
// finish it; it is never running forever.
func TestN4AbandonedTaskIsReaped(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", attempts(2), scopes("fs:repo/a/"))
	for attempt := int64(1); attempt <= 2; attempt++ {
		l.claim(l.a, id)
		l.w.Advance(60)
		if l.sweep("task.expire", &TaskSweepArgs{Task: id}); l.task(id).State != writ.TaskRunning {
			t.Fatal("a lease ended before its time")
		}
		l.w.Now++
		l.sweep("task.expire", &TaskSweepArgs{Task: id})
		got := l.task(id)
		if got.Attempt != attempt || got.Failure.Code != "lease_expired" {
			t.Fatalf("attempt %d, failure %v", got.Attempt, got.Failure)
		}
		audit(l)
		if attempt == 1 {
			l.wantState(id, writ.TaskQueued)
			if got.NotBefore != l.w.Now+1000 {
				t.Fatalf("comes back at %d, want %d", got.NotBefore, l.w.Now+1000)
			}
			l.refused(writ.CodeIllegal, "task.claim", l.a, &TaskClaimArgs{Task: id})
			l.w.Advance(1)
			l.sweep("task.ready", &TaskSweepArgs{Task: id})
		}
	}
	l.wantState(id, writ.TaskDead)
	if len(l.w.Members(writ.IndexDead)) != 1 {
		t.Fatal("not on the dead-letter list")
	}
}

// Who acts is what the session says; no argument can say otherwise.
func TestN8IdentityComesFromTheSession(t *testing.T) {
	for _, c := range Capabilities(Config{}) {
		if c.Internal {
			continue
		}
		var walk func(reflect.Type)
		walk = func(typ reflect.Type) {
			for _, f := range reflect.VisibleFields(typ) {
				if f.Anonymous { // its members are here too
					continue
				}
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				switch name {
				case "actor", "agent", "agent_id", "session", "session_id", "worker", "principal", "role", "owner", "claimed_by", "state_by":
					t.Errorf("%s takes %q from the caller", c.ID, name)
				}
				if f.Tag.Get("doc") == "" {
					t.Errorf("%s: argument %s has no doc", c.ID, name)
				}
				if e := f.Type; e.Kind() == reflect.Pointer && e.Elem().Kind() == reflect.Struct {
					walk(e.Elem())
				} else if e.Kind() == reflect.Struct {
					walk(e)
				}
			}
		}
		walk(c.Args)
	}
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	if got := l.task(g.task).Lease; got.Session != l.a.Session || got.Agent != "agent-a" {
		t.Fatalf("lease %+v is not the caller's", got)
	}
	if got := l.task(g.task).EnqueuedBy; got != l.owner.Session {
		t.Fatalf("enqueued by %s", got)
	}
}

// Scopes overlap by whole segments: neither a false collision nor a missed one.
func TestScopesOverlapBySegment(t *testing.T) {
	for _, c := range []struct {
		held, want string
		conflict   bool
	}{
		{"fs:repo/ops/plug", "fs:repo/ops/plugins2/", false},
		{"fs:repo/ops/plugins2/", "fs:repo/ops/plugins2", true},
		{"fs:repo/ops/", "fs:repo/ops/plugins2/x", true},
		{"fs:repo/ops/plugins2/x", "fs:repo/ops", true},
		{"fs:repo/a", "fs:repo/b", false},
		{"fs:repo/a", "mem:repo/a", false},
		{"http:Example.com/x", "http:example.com/x/y", true},
	} {
		l := newLab(t)
		first, second := l.enqueue("first", scopes(c.held)), l.enqueue("second", scopes(c.want))
		l.claim(l.a, first)
		_, _, err := l.try("task.claim", l.b, &TaskClaimArgs{Task: second})
		if c.conflict {
			e := l.wantCode(writ.CodeScopeConflict, err)
			if e.Details["holder"] != string(first) || e.Details["holder_agent"] != "agent-a" {
				t.Fatalf("details %v", e.Details)
			}
			l.wantState(second, writ.TaskQueued)
		} else if err != nil {
			t.Fatalf("%s and %s: %v", c.held, c.want, err)
		}
		audit(l)
	}
}

// Two claims that were judged on the same state: one commits.
func TestTwoClaimsOneWinner(t *testing.T) {
	for _, c := range []struct {
		name          string
		first, second func(*lab) writ.TaskID
	}{
		{"one task", func(l *lab) writ.TaskID { return l.enqueue("one") }, nil},
		{
			"overlapping scopes", func(l *lab) writ.TaskID { return l.enqueue("one", scopes("fs:repo/a/")) },
			func(l *lab) writ.TaskID { return l.enqueue("two", scopes("fs:repo/")) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			x := c.first(l)
			y := x
			if c.second != nil {
				y = c.second(l)
			}
			cap := l.caps["task.claim"]
			p1, err := l.w.Plan(cap, l.w.NewCall(cap, l.a, &TaskClaimArgs{Task: x}))
			if err != nil {
				t.Fatal(err)
			}
			p2, err := l.w.Plan(cap, l.w.NewCall(cap, l.b, &TaskClaimArgs{Task: y}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.w.Commit(p1); err != nil {
				t.Fatal(err)
			}
			if _, err := l.w.Commit(p2); err == nil {
				t.Fatal("both claims were committed")
			}
			audit(l)
		})
	}
}

// A repair takes away what follows from documents and no document has there, and
// nothing of anything else: who had a part in a run stays whatever it is told.
func TestRepairLeavesWhatIsNoIndex(t *testing.T) {
	l := newLab(t)
	task := l.enqueue("one")
	nobody := "tsk_01ARYZ6S410000000000000000"
	l.w.SetIndex(writ.IndexVerify, nobody, 0)
	l.w.SetIndex(writ.IndexDead, string(task), 0)
	for _, i := range []writ.Index{writ.RunParts(l.run), "v/replicas", "list/bundles"} {
		l.w.SetIndex(i, nobody, 0)
		l.do("queue.repair", l.w.System(), &QueueRepairArgs{Documents: []RepairDocument{{Document: writ.TaskKey(writ.TaskID(nobody)), Met: []RepairEntry{{Index: i, Member: nobody}}}}})
		if _, in := l.w.Index(i)[nobody]; !in {
			t.Errorf("a member of %s is gone", i)
		}
	}
	got := body[QueueRepaired](l, l.do("queue.repair", l.w.System(), &QueueRepairArgs{Documents: []RepairDocument{
		{Document: writ.TaskKey(writ.TaskID(nobody)), Met: []RepairEntry{{Index: writ.IndexVerify, Member: nobody}}},
		{Document: writ.TaskKey(task)},
	}}))
	if got.Mended["list.verify"] != 1 || got.Mended["list.dead"] != 1 || len(l.w.Index(writ.IndexVerify))+len(l.w.Index(writ.IndexDead)) != 0 {
		t.Errorf("mended %v", got.Mended)
	}
	// What a counter is off by is told under the version of the last repair.
	l.refused(writ.CodeVersion, "queue.repair", l.w.System(), &QueueRepairArgs{Counters: []RepairCounter{{Entity: "run/" + string(l.run), Field: "open", Add: 1}}})
}
