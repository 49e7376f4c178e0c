package e2e

import (
	"testing"
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
