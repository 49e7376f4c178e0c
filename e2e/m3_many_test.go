package e2e

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// manySteps is a workflow of n steps, and what each waits for: layers of as many as a
// tenth of it, each step after two of the layer before, beside chains, and one step after the
// end of every chain.
func manySteps(n int) (steps map[string]obj, after map[string][]string) {
	after = map[string][]string{"first": nil}
	wide, chains := n/10, 10
	chained := n / 5 / chains * chains
	var ends []string
	for i := range n - chained - 2 {
		after[key(i)] = []string{"first"}
		if i >= wide {
			after[key(i)] = []string{key(i - wide), key(i - wide + 1)}
		}
	}
	for i := range chained {
		k := fmt.Sprint("link-", i)
		after[k] = []string{"first"}
		if i >= chains {
			after[k] = []string{fmt.Sprint("link-", i-chains)}
		}
		if i >= chained-chains {
			ends = append(ends, k)
		}
	}
	after["last"] = ends
	steps = map[string]obj{}
	for k, on := range after {
		steps[k] = plain(obj{"depends_on": on})
		if len(on) == 0 {
			steps[k] = plain(nil)
		}
	}
	return steps, after
}

// A workflow of many steps by one call: every step becomes one task, is done once and
// after all it waits for, by several who ask for work; how far it is can be seen all the
// while, and it ends by itself.
func TestM3ManySteps(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		n := 1500 // of which more wait for the first than one commit lets go
		if soak() {
			n = 10_000
		}
		steps, after := manySteps(n)
		if len(steps) != n {
			t.Fatalf("%d steps", len(steps))
		}
		run := c.create(c.orc, graph(steps, nil), nil)

		var workers sync.WaitGroup
		var over atomic.Bool
		for i := range 6 {
			by := c.another().at(w.gw[i%len(w.gw)])
			workers.Go(func() {
				for !over.Load() {
					r, err := by.try("POST", "/v1/tasks/claim", obj{"wait_s": 1})
					if err == nil && r.status == 200 {
						l := leaseOf(r)
						r, err = by.try("POST", "/v1/tasks/"+l.task+"/complete", l.hold(obj{"result": obj{"ok": true}}))
					}
					if err != nil || r.status != 200 && r.status != 204 {
						t.Errorf("%v: %s", err, r)
						return
					}
				}
			})
		}
		defer workers.Wait()
		defer over.Store(true)
		made, open, seen := int64(0), int64(n), map[int64]bool{}
		within(t, 300*time.Second, "the run ends", func() bool {
			r := c.orc.at(w.last()).ok(200, "GET", "/v1/runs/"+run, nil)
			m, o, unfolded := r.num("workflow", "made"), r.num("open_tasks"), r.at("workflow", "unfolded") == true
			if m < made || unfolded && (m != int64(n) || o > open) {
				t.Errorf("from %d made and %d open it came to %s", made, open, r)
			}
			if made = m; unfolded {
				open = o
			}
			seen[m], seen[-o] = true, true
			return t.Failed() || r.str("state") != "active"
		})
		if s := w.runState(run); s != "done" || len(seen) < 4 {
			t.Fatalf("the run is %s, and %d numbers were seen on the way", s, len(seen))
		}
		over.Store(true)
		workers.Wait()

		keys, begun, ended := map[string]string{}, map[string]int64{}, map[string]int64{}
		for _, x := range c.tasks(run) {
			keys[x["task_id"].(string)] = x["key"].(string)
		}
		_, all := w.export()
		for _, s := range all {
			p := s.Predicate
			at := map[writ.CapabilityID]map[string]int64{"task.claim": begun, "task.complete": ended}[p.Transition]
			if p.Run != run || at == nil || p.Code != "" {
				continue
			}
			k := keys[p.Task]
			if at[k] != 0 {
				t.Errorf("two receipts of %s of %s", p.Transition, k)
			}
			at[k] = p.Commit.Seq
		}
		if len(keys) != n || len(begun) != n || len(ended) != n {
			t.Errorf("%d tasks, %d begun, %d ended", len(keys), len(begun), len(ended))
		}
		for k, on := range after {
			for _, b := range on {
				if begun[k] < ended[b] {
					t.Errorf("%s began before %s had ended", k, b)
				}
			}
		}
		w.logged()
	})
}
