package e2e

import (
	"slices"
	"sync"
	"testing"

	"github.com/writ-gateway/writ"
)

// A task and a run that want several verdicts get them from several, at whatever
// replica each comes, and across a crash; all are about one receipt, and each has one.
func TestA3SeveralVerdicts(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"close_policy": "verifier", "close_quorum": 2, "budget": obj{"steps": 100}}).str("run_id")
		run := "/v1/runs/" + c.run
		id := c.enqueue("one", obj{"verify": obj{"required": true, "quorum": 3}})
		c.orc.ok(200, "POST", run+"/seal", nil)
		c.builder.complete(c.builder.claim(id))
		task := "/v1/tasks/" + id
		vera, walt := w.verifier("judge-a", "vera", ""), w.verifier("judge-b", "walt", "").at(w.last())
		wim, twin := w.verifier("judge-c", "wim", ""), w.verifier("judge-d", "vera", "").at(w.last())

		path, accept := vera.verdict(task, "accept", nil)
		first := vera.ok(200, "POST", path, accept)
		if first.str("state") != "verifying" || first.num("votes", "accepted") != 1 || first.str("receipt") != accept["receipt_id"] {
			t.Fatalf("got %s", first)
		}
		if r := twin.refused(403, "sod_violation", "POST", path, accept); r.str("details", "reason") != "voted" {
			t.Fatalf("got %s", r)
		}
		w.crash()
		walt.ok(200, "POST", path, accept)
		votes := wim.ok(200, "GET", task, nil)
		if votes.num("votes", "accepted") != 2 || votes.num("votes", "needed") != 3 {
			t.Fatalf("got %s", votes)
		}
		if last := wim.ok(200, "POST", path, accept); last.str("state") != "done" || last.at("votes") != nil {
			t.Fatalf("got %s", last)
		}
		given, _ := votes.at("votes", "receipts").([]any)
		for _, r := range given {
			if got := w.op.ok(200, "GET", "/v1/receipts/"+r.(string), nil).str("receipt_id"); got != r {
				t.Errorf("got %s", got)
			}
		}

		path, accept = vera.verdict(run, "accept", nil)
		vera.ok(200, "POST", path, accept)
		_, reject := walt.verdict(run, "reject", nil)
		if r := walt.ok(200, "POST", path, reject); r.str("state") != "active" {
			t.Fatalf("got %s", r)
		}
		c.orc.ok(200, "POST", run+"/seal", nil)
		vera.refused(409, "predicate_unsatisfied", "POST", path, accept)
		for i, by := range []caller{vera, walt} {
			_, again := by.verdict(run, "accept", nil)
			want := []string{"verifying", "done"}[i]
			if r := by.ok(200, "POST", path, again); r.str("state") != want {
				t.Fatalf("got %s", r)
			}
		}
		w.audited()
	})
}

// Of many who come at once exactly as many count as are wanted.
func TestA3VerdictsAtOnce(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.judgedRun()
		id := c.enqueue("one", obj{"verify": obj{"required": true, "quorum": 3}})
		c.builder.complete(c.builder.claim(id))
		var judges []caller
		for i, name := range []string{"ann", "bob", "cid", "dan", "eve", "fay"} {
			j := w.verifier("judge-"+name, name, "")
			if i%2 == 1 {
				j = j.at(w.last())
			}
			judges = append(judges, j)
		}
		path, accept := judges[0].verdict("/v1/tasks/"+id, "accept", nil)
		states := make([]string, len(judges))
		var wg sync.WaitGroup
		for i, j := range judges {
			wg.Go(func() {
				r := j.do("POST", path, accept)
				switch {
				case r.status == 200:
					states[i] = r.str("state")
				case r.code() != writ.CodeIllegal && r.code() != writ.CodePredicate:
					t.Errorf("got %s", r)
				}
			})
		}
		wg.Wait()
		slices.Sort(states)
		if !slices.Equal(states, []string{"", "", "", "done", "verifying", "verifying"}) {
			t.Errorf("got %v", states)
		}
		w.audited()
	})
}
