package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// join is on with how much of it must come about.
func join(how string, keys ...string) obj {
	o := on(keys...)
	o["join"] = how
	return o
}

var gaveUp = obj{"failure": obj{"class": "external", "code": "broken", "retryable": false}}

func (c cast) fails(l lease) {
	c.t.Helper()
	c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/fail", l.hold(gaveUp))
}

func (c cast) becomes(id string, want writ.TaskState) {
	c.t.Helper()
	within(c.t, 15*time.Second, id+" is "+string(want), func() bool { return c.state(id) == want })
}

// Of a race the first to succeed counts; the one still waiting is cancelled, the
// one under way told to stop, and what waits for any of them goes on too.
func TestM3T3FirstSuccessCancelsTheLosers(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		fast, slow, broken, never := c.enqueue("fast", nil), c.enqueue("slow", nil), c.enqueue("broken", nil), c.enqueue("never", obj{"priority": 0})
		taken := c.enqueue("taken", join("first_success", "fast", "slow", "broken", "never"))
		other := c.enqueue("other", join("any_of", "fast", "slow:skip"))
		all := c.enqueue("all", on("fast", "slow:continue"))
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)

		second := c.another().at(w.last())
		lSlow := second.claim(slow)
		c.fails(c.builder.claim(broken))
		if s := c.state(taken); s != writ.TaskBlocked {
			t.Fatalf("after a failure it is %s", s)
		}
		c.builder.complete(c.builder.claim(fast))
		for _, id := range []string{taken, other} {
			if s := c.state(id); s != writ.TaskQueued {
				t.Fatalf("after a success it is %s", s)
			}
		}
		c.becomes(never, writ.TaskCancelled)
		within(t, 15*time.Second, "the loser is told", func() bool {
			return second.ok(200, "POST", "/v1/tasks/"+slow+"/heartbeat", lSlow.hold(nil)).str("control") == "cancel"
		})
		if s := c.state(all); s != writ.TaskBlocked {
			t.Fatalf("who waits for all is %s", s)
		}
		second.ok(200, "POST", "/v1/tasks/"+slow+"/release", lSlow.hold(nil))
		c.becomes(slow, writ.TaskCancelled)
		c.becomes(all, writ.TaskQueued)
		for range 3 {
			c.builder.complete(c.builder.claimNext())
		}
		if s := w.runState(c.run); s != "failed" { // one of them broke, and nobody made it good
			t.Fatalf("the run is %s", s)
		}
		w.audited()
	})
}

// When nothing of it comes about, the strictest of what was said decides.
func TestAnyOfNothing(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		one, two := c.enqueue("one", nil), c.enqueue("two", nil)
		fails := c.enqueue("fails", join("any_of", "one:continue", "two"))
		skips := c.enqueue("skips", join("any_of", "one:continue", "two:skip"))
		goes := c.enqueue("goes", join("first_success", "one:continue", "two:continue"))
		c.fails(c.builder.claim(one))
		for _, id := range []string{fails, skips, goes} {
			if s := c.state(id); s != writ.TaskBlocked {
				t.Fatalf("half way it is %s", s)
			}
		}
		c.fails(c.builder.claim(two))
		c.becomes(fails, writ.TaskFailed)
		c.becomes(skips, writ.TaskCancelled)
		c.becomes(goes, writ.TaskQueued)
		c.becomes(c.enqueue("late", join("any_of", "one", "two")), writ.TaskFailed)
		c.becomes(c.enqueue("later", join("any_of", "one", "goes")), writ.TaskBlocked)
		w.audited()
	})
}

// A step that makes good what another left begins when that one fails, and is
// cancelled when there is nothing to make good.
func TestCompensation(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		undo := func(key string) obj { return obj{"depends_on": []obj{{"key": key, "when": "failed"}}} }
		deploy := c.enqueue("deploy", nil)
		rollback, after := c.enqueue("rollback", undo("deploy")), c.enqueue("after", on("rollback:skip"))
		c.orc.refused(422, "input_invalid", "POST", "/v1/tasks", c.task("both", obj{"depends_on": []obj{{"key": "deploy", "when": "failed", "on_failure": "skip"}}}))
		c.fails(c.builder.claim(deploy))
		c.becomes(rollback, writ.TaskQueued)
		c.builder.complete(c.builder.claim(rollback))
		c.becomes(after, writ.TaskQueued)

		good := c.enqueue("good", nil)
		idle := c.enqueue("idle", undo("good"))
		c.builder.complete(c.builder.claim(good))
		c.becomes(idle, writ.TaskCancelled)
		w.audited()
	})
}

// Who manages the run says when a step begins; nobody else can, and not before
// what it depends on has ended.
func TestManualJoin(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		build := c.enqueue("build", nil)
		early, late := c.enqueue("early", join("manual", "build")), c.enqueue("late", join("manual", "build"))
		alone := c.enqueue("alone", obj{"join": "manual"})
		plain := c.enqueue("plain", on("build"))
		c.builder.refused(403, "rbac_denied", "POST", "/v1/tasks/"+early+"/admit", nil)
		w.session("stranger", writ.RoleOrchestrator, "").refused(404, "not_found", "POST", "/v1/tasks/"+early+"/admit", nil)
		c.orc.refused(409, "deps_unmet", "POST", "/v1/tasks/"+plain+"/admit", nil)
		c.orc.refused(409, "illegal_transition", "POST", "/v1/tasks/"+build+"/admit", nil)
		if r := c.orc.ok(200, "POST", "/v1/tasks/"+early+"/admit", nil); r.str("state") != "blocked" || r.at("admitted") != true {
			t.Fatalf("got %s", r)
		}
		if r := c.orc.do("POST", "/v1/tasks/"+early+"/admit", nil); r.status != 200 || r.receipt() != "" { // nothing happens twice
			t.Fatalf("again: %s", r)
		}
		c.builder.complete(c.builder.claim(build))
		c.becomes(early, writ.TaskQueued)
		if s := c.state(late); s != writ.TaskBlocked {
			t.Fatalf("nobody admitted it, and it is %s", s)
		}
		for _, id := range []string{late, alone} {
			if r := c.orc.ok(200, "POST", "/v1/tasks/"+id+"/admit", nil); r.str("state") != "queued" {
				t.Fatalf("got %s", r)
			}
		}
		for range 4 {
			c.builder.complete(c.builder.claimNext())
		}
		c.orc.refused(422, "input_invalid", "POST", "/v1/tasks", c.task("nothing", obj{"join": "any_of"}))
		w.audited()
	})
}

// Time runs against a task until it has given its result: while it is blocked,
// queued or worked on, and not while a verdict is awaited.
func TestP3T4Deadline(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		soon := func(more obj) obj {
			b := obj{"deadline_s": 2}
			for k, v := range more {
				b[k] = v
			}
			return b
		}
		c.enqueue("never", obj{"priority": 0})
		judged := c.enqueue("judged", soon(obj{"verify": obj{"required": true}}))
		c.builder.complete(c.builder.claim(judged))
		running := c.enqueue("running", soon(obj{"lease_ttl_s": 600, "write_scopes": []string{"fs:repo/x/"}}))
		l := c.builder.claim(running)
		queued, blocked := c.enqueue("queued", soon(obj{"capability": tool})), c.enqueue("blocked", soon(on("never")))
		waits := c.enqueue("waits", on("queued:continue"))
		r := c.builder.ok(200, "POST", "/v1/tasks/"+running+"/heartbeat", l.hold(nil))
		at := c.orc.ok(200, "GET", "/v1/tasks/"+running, nil).str("deadline_at")
		if at == "" || r.str("expires_at") != at {
			t.Fatalf("the lease ends at %s, the deadline is %s", r.str("expires_at"), at)
		}
		within(t, 20*time.Second, "no heartbeat is taken any more", func() bool {
			r := c.builder.at(w.last()).do("POST", "/v1/tasks/"+running+"/heartbeat", l.hold(nil))
			if r.status == 200 && r.str("expires_at") != at || r.status != 200 && (r.status != 409 || r.code() != writ.CodeLeaseLost) {
				t.Fatalf("the deadline is %s: %s", at, r)
			}
			return r.status == 409
		})
		if end, err := time.Parse(time.RFC3339, at); err != nil || time.Now().Before(end) {
			t.Errorf("heartbeats were refused before %s: %v", at, err)
		}
		for _, id := range []string{running, queued, blocked} {
			c.becomes(id, writ.TaskFailed)
			if r := c.orc.ok(200, "GET", "/v1/tasks/"+id, nil); r.str("failure", "code") != "deadline" || r.str("failure", "class") != "freshness" {
				t.Fatalf("got %s", r)
			}
		}
		c.builder.refused(409, "lease_lost", "POST", "/v1/tasks/"+running+"/heartbeat", l.hold(nil))
		c.builder.refused(409, "lease_lost", "POST", "/v1/tasks/"+running+"/complete", l.hold(nil))
		c.becomes(waits, writ.TaskQueued)
		c.builder.claim(c.enqueue("free", obj{"write_scopes": []string{"fs:repo/x/"}})) // its scopes came free
		if s := c.state(judged); s != writ.TaskVerifying {
			t.Fatalf("what waits for a verdict is %s", s)
		}
		judge := w.verifier("judge", "vera", "")
		path, no := judge.verdict("/v1/tasks/"+judged, "reject", obj{"reasons": []string{"wrong"}})
		judge.ok(200, "POST", path, no)
		c.becomes(judged, writ.TaskFailed) // there is no time left for another attempt
		for pointer, body := range map[string]obj{"/deadline_s": {"deadline_s": 0}, "/not_before": {"deadline_s": 60, "not_before": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}} {
			if r := c.orc.refused(422, "input_invalid", "POST", "/v1/tasks", c.task("bad", body)); !strings.Contains(string(r.body), `"pointer":"`+pointer+`"`) {
				t.Fatalf("%s: %s", pointer, r)
			}
		}
		w.audited()
	})
}

// What died is enqueued once more by who manages its run, as a task of its own.
func TestRevive(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		id := c.enqueue("build", obj{"max_attempts": 1, "priority": 7, "write_scopes": []string{"fs:repo/x/"}})
		path := "/v1/tasks/" + id + "/revive"
		c.orc.refused(409, "illegal_transition", "POST", path, obj{"key": "again"})
		l := c.builder.claim(id)
		c.builder.ok(200, "POST", "/v1/tasks/"+id+"/fail", l.hold(obj{"failure": obj{"class": "external", "code": "x", "retryable": true}}))
		if s := c.state(id); s != writ.TaskDead {
			t.Fatalf("it is %s", s)
		}
		dead := func() int {
			list, _ := c.op.ok(200, "GET", "/v1/tasks?state=dead", nil).at("tasks").([]any)
			return len(list)
		}
		c.builder.refused(403, "rbac_denied", "POST", path, obj{"key": "again"})
		w.session("stranger", writ.RoleOrchestrator, "").refused(404, "not_found", "POST", path, obj{"key": "again"})
		if n := dead(); n != 1 {
			t.Fatalf("%d dead", n)
		}
		r := c.orc.ok(201, "POST", path, obj{"key": "again"})
		if r.str("state") != "queued" || r.num("priority") != 7 || r.num("attempt") != 0 || dead() != 1 {
			t.Fatalf("got %s, %d dead", r, dead())
		}
		if again := c.orc.do("POST", path, obj{"key": "again"}); again.status != 200 || again.str("task_id") != r.str("task_id") {
			t.Fatalf("again: %s", again)
		}
		c.builder.complete(c.builder.claim(r.str("task_id")))
		// In another run, when its own has ended.
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		c.orc.refused(409, "illegal_transition", "POST", path, obj{"key": "third"})
		c.orc.ok(201, "POST", path, obj{"key": "third", "run_id": c.newRun(10)})
		c.revivedElsewhere()
		w.audited()
	})
}

// revivedElsewhere has what died judged in another run, and whoever checks that run alone
// knows by the pack of it what was asked for.
func (c *cast) revivedElsewhere() {
	c.t.Helper()
	c.run = c.newRun(100)
	id := c.enqueue("judged", obj{"max_attempts": 1, "verify": obj{"required": true, "quorum": 2, "gates": []string{"tests"}}})
	c.builder.ok(200, "POST", "/v1/tasks/"+id+"/fail", c.builder.claim(id).hold(obj{"failure": obj{"class": "external", "code": "x", "retryable": true}}))
	c.judgedRun()
	again := c.orc.ok(201, "POST", "/v1/tasks/"+id+"/revive", obj{"key": "again", "run_id": c.run}).str("task_id")
	c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
	c.builder.complete(c.builder.claim(again))
	vera, walt := c.verifier("judge-a", "vera", ""), c.verifier("judge-b", "walt", "")
	path, accept := vera.verdict("/v1/tasks/"+again, "accept", obj{"gates": []obj{{"gate": "tests", "status": "pass"}}})
	vera.ok(200, "POST", path, accept)
	walt.ok(200, "POST", path, accept)
	path, accept = vera.verdict("/v1/runs/"+c.run, "accept", nil)
	closed := vera.ok(200, "POST", path, accept).str("receipt")
	vera.ok(200, "GET", "/v1/receipts/"+closed+"?wait=included", nil)

	dir := c.t.TempDir()
	token, logKey := filepath.Join(dir, "token"), c.op.ok(200, "GET", "/v1/log/head", nil).str("verifier_key")
	if err := os.WriteFile(token, []byte(c.op.token), 0o600); err != nil {
		c.t.Fatal(err)
	}
	for what, scope := range map[string][]string{"run": {"--run", c.run}, "log": nil} {
		pack := filepath.Join(dir, what+".tar")
		if r := command(c.t, append([]string{"export", "--out", pack, "--url", c.gw[0].url, "--token-file", token}, scope...)...); r.code != 0 {
			c.t.Fatalf("export: %s", r)
		}
		if r := command(c.t, "close", "verify", pack, "--run", c.run, "--log-key", logKey, "--key", c.publicKey()); r.code != 0 {
			c.t.Errorf("the pack of the %s: %s", what, r)
		}
	}
}
