package e2e

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// Whoever plans work takes none, ends none and judges none, whatever it knows of a
// lease.
func TestA1T1OrchestratorsTakeNoWork(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		queued, l := c.enqueue("queued", nil), c.builder.claim(c.enqueue("held", nil))
		held := "/v1/tasks/" + l.task
		verdict := obj{"verdict": "accept", "receipt_id": c.orc.ok(200, "GET", held, nil).str("receipt")}
		for path, body := range map[string]obj{
			"/v1/tasks/claim": {}, "/v1/tasks/" + queued + "/claim": {},
			held + "/heartbeat": l.hold(nil), held + "/complete": l.hold(nil), held + "/fail": l.hold(gaveUp), held + "/release": l.hold(nil),
			held + "/handoff": l.hands(obj{"key": "queued"}, nil), held + "/verify": verdict, "/v1/runs/" + c.run + "/close": verdict,
		} {
			if r := c.orc.at(w.last()).refused(403, writ.CodeRBAC, "POST", path, body); r.receipt() == "" {
				t.Errorf("no receipt: %s", r)
			}
		}
		if q, h := c.state(queued), c.state(l.task); q != writ.TaskQueued || h != writ.TaskRunning {
			t.Errorf("they are %s and %s", q, h)
		}
		c.builder.complete(l)
		w.audited()
	})
}
