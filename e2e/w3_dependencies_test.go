package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// on is what a task depends on, by key.
func on(keys ...string) obj {
	var out []obj
	for _, k := range keys {
		key, policy, said := strings.Cut(k, ":")
		d := obj{"key": key}
		if said {
			d["on_failure"] = policy
		}
		out = append(out, d)
	}
	return obj{"depends_on": out}
}

// A task whose dependencies have not ended is nobody's to claim.
func TestW3T1ClaimBeforeItsDependencies(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		first := c.enqueue("first", nil)
		second := c.enqueue("second", on("first"))
		r := c.builder.refused(409, "deps_unmet", "POST", "/v1/tasks/"+second+"/claim", nil)
		if r.str("details", "waiting_on") != first || r.receipt() == "" || r.str("hint") == "" {
			t.Fatalf("got %s", r)
		}
		l := c.builder.claim(first)
		c.builder.refused(409, "deps_unmet", "POST", "/v1/tasks/"+second+"/claim", nil)
		done := c.builder.ok(200, "POST", "/v1/tasks/"+first+"/complete", l.hold(nil))
		if got, _ := done.at("unblocked").([]any); len(got) != 1 || got[0] != second {
			t.Fatalf("got %s", done)
		}
		c.builder.complete(c.builder.claim(second))
		c.orc.refused(422, "input_invalid", "POST", "/v1/tasks", obj{
			"run_id": c.run, "key": "third", "capability": tool, "required_domain": "web", "depends_on": []obj{{"key": "fourth"}},
		})
		w.audited()
	})
}

// A diamond whose middle is worked on by two, one of whom dies: the last begins
// when both have ended well, and not before.
func TestM3T2DiamondWithADeadWorker(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.enqueue("top", nil)
		c.enqueue("left", on("top"))
		right := c.enqueue("right", obj{"depends_on": []obj{{"key": "top"}}, "lease_ttl_s": 1, "backoff_ms": 0})
		last := c.enqueue("last", on("left", "right"))
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		other := c.another().at(w.last())

		top := c.builder.claimNext()
		c.builder.complete(top)
		one, two := c.builder.claimNext(), other.claimNext()
		if one.task == two.task || one.task == last || two.task == last {
			t.Fatalf("claimed %s and %s", one.task, two.task)
		}
		dies, lives := one, two
		by, heir := c.builder, other
		if two.task == right {
			dies, lives, by, heir = two, one, other, c.builder
		}
		heir.complete(lives)
		if s := c.state(last); s != writ.TaskBlocked {
			t.Fatalf("the last is %s while %s is worked on", s, dies.task)
		}
		// The worker dies; its lease runs out and the task is tried again.
		again := heir.claimNext()
		if again.task != right || again.fence <= dies.fence {
			t.Fatalf("got %+v after %+v", again, dies)
		}
		if s := c.state(last); s != writ.TaskBlocked {
			t.Fatalf("the last is %s", s)
		}
		by.refused(409, "lease_lost", "POST", "/v1/tasks/"+right+"/complete", dies.hold(nil))
		heir.complete(again)
		end := heir.claimNext()
		if end.task != last {
			t.Fatalf("got %+v", end)
		}
		heir.complete(end)
		if s := w.runState(c.run); s != "done" {
			t.Fatalf("the run is %s", s)
		}
		w.audited()
	})
}

// What depends on a task that failed ends as it said, on to the last of a chain,
// and so does the run. Nobody is left blocked.
func TestO3T3DependentsOfAFailure(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		first := c.enqueue("first", nil)
		ids := map[string]string{}
		for _, k := range []struct {
			key string
			on  []string
		}{
			{"fails", []string{"first"}},
			{"skips", []string{"first:skip"}},
			{"goes", []string{"first:continue"}},
			{"chain", []string{"goes", "fails"}},
			{"chain-two", []string{"chain"}},
		} {
			ids[k.key] = c.enqueue(k.key, on(k.on...))
		}
		var wide []string
		for i := range 30 {
			wide = append(wide, c.enqueue("wide-"+string(rune('a'+i%26))+string(rune('a'+i/26)), on("first:continue")))
		}
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		l := c.builder.claim(first)
		c.builder.ok(200, "POST", "/v1/tasks/"+first+"/fail", l.hold(obj{"failure": obj{"class": "external", "code": "broken", "retryable": false}}))
		within(t, 15*time.Second, "everybody is told", func() bool {
			return c.state(ids["chain-two"]) == writ.TaskFailed && c.state(ids["skips"]) == writ.TaskCancelled &&
				!slices.ContainsFunc(wide, func(id string) bool { return c.state(id) != writ.TaskQueued })
		})
		for key, want := range map[string]writ.TaskState{"fails": writ.TaskFailed, "chain": writ.TaskFailed, "goes": writ.TaskQueued} {
			if s := c.state(ids[key]); s != want {
				t.Errorf("%s is %s, want %s", key, s, want)
			}
		}
		r := c.orc.ok(http.StatusOK, "GET", "/v1/tasks/"+ids["chain-two"], nil)
		if r.str("failure", "class") != "dependency" || r.str("failure", "code") != "dependency_failed" {
			t.Errorf("got %s", r)
		}
		for range 31 {
			c.builder.complete(c.builder.claimNext())
		}
		if s := w.runState(c.run); s != "failed" {
			t.Fatalf("the run is %s", s)
		}
		w.audited()
	})
}

// What depends on a task that is cancelled, while it waits or while somebody works on
// it, ends as it said, on to the last of a chain, and so does the run.
func TestO3T3DependentsOfWhatIsCancelled(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		roots := map[string]string{"waiting": c.enqueue("waiting", nil), "worked-on": c.enqueue("worked-on", nil)}
		want, goes := map[string]writ.TaskState{}, 0
		for root := range roots {
			for policy, state := range map[string]writ.TaskState{"fail": writ.TaskFailed, "skip": writ.TaskCancelled, "continue": writ.TaskQueued} {
				want[c.enqueue(root+"-"+policy, on(root+":"+policy))] = state
			}
			want[c.enqueue(root+"-chain", on(root+"-continue", root+"-fail"))] = writ.TaskFailed
			want[c.enqueue(root+"-skipped", on(root+"-skip:skip"))] = writ.TaskCancelled
			goes++
		}
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		l := c.builder.claim(roots["worked-on"])
		for _, id := range roots {
			c.orc.at(w.last()).ok(200, "POST", "/v1/tasks/"+id+"/cancel", nil)
		}
		c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/release", l.hold(nil))
		for id, state := range want {
			c.becomes(id, state)
		}
		for range goes {
			c.builder.complete(c.builder.claimNext())
		}
		within(t, 10*time.Second, "the run fails", func() bool { return w.runState(c.run) == "failed" })
		if n := c.in("blocked"); n != 0 {
			t.Errorf("%d tasks are left blocked", n)
		}
		w.audited()
	})
}
