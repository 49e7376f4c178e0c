package e2e

import (
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
)

// Completing twice is one completion: same receipt, no second fact.
func TestP4T2DuplicateComplete(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("one", nil))
		path, body := "/v1/tasks/"+l.task+"/complete", l.hold(obj{"result": obj{"ok": true, "n": 1}})
		first := c.builder.ok(200, "POST", path, body)
		again := c.builder.at(w.last()).do("POST", path, body)
		if again.status != 200 || again.str("receipt") != first.str("receipt") || again.num("version") != first.num("version") {
			t.Fatalf("first %s\nagain %s", first, again)
		}
		c.builder.refused(409, "lease_lost", "POST", path, l.hold(obj{"result": obj{"ok": false}}))

		_, all := w.export()
		done := 0
		for _, s := range all {
			if p := s.Predicate; p.Transition == "task.complete" && p.Task == l.task && p.Outcome == "transition" {
				done++
			}
		}
		if done != 1 {
			t.Errorf("%d receipts of the completion", done)
		}
	})
}

// Only the holder completes, fails or releases (N3).
func TestP4T3CompleteByAnother(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		other := c.another().at(w.last())
		l := c.builder.claim(c.enqueue("one", nil))
		path := "/v1/tasks/" + l.task
		failure := obj{"failure": obj{"class": "external", "code": "x", "retryable": false}}
		for verb, body := range map[string]obj{"complete": l.hold(nil), "fail": l.hold(failure), "release": l.hold(nil)} {
			if r := other.refused(403, "not_holder", "POST", path+"/"+verb, body); r.receipt() == "" {
				t.Errorf("%s: no receipt: %s", verb, r)
			}
		}
		c.orc.refused(403, "rbac_denied", "POST", path+"/complete", l.hold(nil))
		// The holder itself with another fence is no holder.
		c.builder.refused(409, "lease_lost", "POST", path+"/complete", obj{"lease_id": l.id, "fence": l.fence + 1})
		if s := c.state(l.task); s != "running" {
			t.Fatalf("the task is %s", s)
		}
		c.builder.complete(l)
	})
}

// The reply that ends a task names the tasks it let go: they are queued by then, by
// the same commit, and nothing else is.
func TestP4T4DependentsAreQueuedAtOnce(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		first, other := c.enqueue("first", nil), c.enqueue("other", nil)
		one, two := c.enqueue("one", on("first")), c.enqueue("two", on("first"))
		both, later := c.enqueue("both", on("first", "other")), c.enqueue("later", on("one"))
		unblocked := func(r reply) (out []string) {
			list, _ := r.at("unblocked").([]any)
			for _, id := range list {
				out = append(out, id.(string))
			}
			slices.Sort(out)
			return out
		}
		want := []string{one, two}
		slices.Sort(want)
		r := c.builder.complete(c.builder.claim(first))
		if got := unblocked(r); !slices.Equal(got, want) {
			t.Fatalf("unblocked %v, want %v", got, want)
		}
		_, all := w.export()
		moved := map[string]string{}
		for _, s := range all {
			if s.Predicate.ReceiptID == r.receipt() {
				for _, m := range s.Predicate.Changes {
					moved[m.ID] = m.From + "→" + m.To
				}
			}
		}
		for id, want := range map[string]writ.TaskState{one: writ.TaskQueued, two: writ.TaskQueued, both: writ.TaskBlocked, later: writ.TaskBlocked} {
			if s := c.state(id); s != want || moved[id] != "" != (want == writ.TaskQueued) {
				t.Errorf("%s is %s, want %s; the receipt says %q", id, s, want, moved[id])
			}
		}
		if got := unblocked(c.builder.complete(c.builder.at(w.last()).claim(other))); !slices.Equal(got, []string{both}) {
			t.Errorf("unblocked %v, want %s", got, both)
		}
		if got := unblocked(c.builder.complete(c.builder.claim(two))); got != nil {
			t.Errorf("unblocked %v, want nothing", got)
		}
		w.audited()
	})
}
