package queue

import (
	"cmp"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// waitGraph is who waits for whom, as far as a snapshot shows it from one task on. A task
// or run that nothing is known about, or of which people, a clock or an agent at work
// decide when it ends, waits for nobody: so what is found to be stuck is stuck, and
// what is not may only not have been seen.
type waitGraph struct {
	nodes map[string]*node
	order []string // as they were met
}

// node is a task or a run that waits.
type node struct {
	on  []string // for these
	any bool     // one of them is enough
	at  *writ.Task
}

// Limits of one look. What lies beyond counts as if it would end.
const (
	maxWaits  = 32  // tasks and runs
	maxDepth  = 8   // of them in a row
	waitsDocs = 200 // documents the commit can rest on, besides the victim's
	maxFanOut = 16  // tasks of a run in one state
)

// waitsOf follows who waits for whom from a task on. While rs is not all read there
// is more to see.
func waitsOf(s writ.Snapshot, from writ.TaskID) (w waitGraph, rs writ.ReadSet, err error) {
	w.nodes = map[string]*node{}
	docs := map[writ.Key]bool{}
	level := []string{string(from)}
	for range maxDepth {
		var next []string
		for _, id := range level {
			if w.nodes[id] != nil || len(w.order) == maxWaits || len(docs) > waitsDocs {
				continue
			}
			n, more, err := waitsAt(s, id)
			if err != nil {
				return w, rs, err
			}
			w.nodes[id], w.order = &n, append(w.order, id)
			rs = rs.Join(more)
			for _, k := range more.Docs {
				docs[k] = true
			}
			next = append(next, n.on...)
		}
		level = next
	}
	return w, rs, nil
}

// waitsAt says whom one task or run waits for.
func waitsAt(s writ.Snapshot, id string) (n node, rs writ.ReadSet, err error) {
	task := writ.TaskID(id)
	if !task.Valid() {
		return runWaits(s, writ.RunID(id))
	}
	rs.Docs = []writ.Key{writ.TaskKey(task)}
	t, ok, err := peek[writ.Task](s, writ.TaskKey(task))
	if err != nil || !ok {
		return n, rs, err
	}
	n.at = &t
	switch {
	case t.State == writ.TaskRunning && t.CancelAt == 0:
		n.on = t.Lease.Awaits
	case t.State == writ.TaskBlocked && (t.Join != writ.JoinManual || t.Admitted):
		n.any = t.Join.Any()
		for _, d := range t.DependsOn {
			rs.Docs = append(rs.Docs, writ.TaskKey(d.Task))
			on, ok, err := peek[writ.Task](s, writ.TaskKey(d.Task))
			if err != nil {
				return n, rs, err
			}
			if ok && !writ.TaskMoves.Terminal(on.State) {
				n.on = append(n.on, string(d.Task))
			}
		}
	case t.State == writ.TaskQueued && t.NotBefore <= s.Now:
		rs.Ranges = lockReads(writ.Caller{}, t)
		holders := writ.HoldersIn(s, writ.Gaps(wanted(writ.Caller{}, t)), writ.Holder(t.ID))
		rs.Docs = append(rs.Docs, holders...)
		for _, k := range holders {
			id := writ.TaskID(strings.TrimPrefix(string(k), string(writ.TaskKey(""))))
			if !id.Valid() {
				continue // a session that claims the scope: it ends by itself
			}
			held, ok, err := peek[writ.Task](s, k)
			if err != nil {
				return n, rs, err
			}
			if ok && held.HoldsScopes() {
				n.on = append(n.on, string(id))
			}
		}
	}
	return n, rs, nil
}

// runWaits: a run waits for its tasks and for the runs inside it.
func runWaits(s writ.Snapshot, id writ.RunID) (n node, rs writ.ReadSet, err error) {
	rs.Docs = []writ.Key{writ.RunKey(id)}
	r, ok, err := peek[writ.Run](s, writ.RunKey(id))
	if err != nil || !ok || r.State != writ.RunActive {
		return n, rs, err
	}
	for _, of := range []writ.Index{writ.RunTasksIn(id, writ.TaskQueued), writ.RunTasksIn(id, writ.TaskBlocked), writ.RunTasksIn(id, writ.TaskRunning), writ.RunChildrenOpen(id)} {
		list := writ.Range{Index: of, Limit: maxFanOut}
		rs.Ranges = append(rs.Ranges, list)
		for _, m := range s.Ranges[list].Members {
			n.on = append(n.on, m.Name)
		}
	}
	return n, rs, nil
}

// stuck takes away, again and again, who can go on: who waits for nobody, and who waits
// for those that can. What is left waits for itself.
func (w waitGraph) stuck() map[string]bool {
	out := map[string]bool{}
	for id := range w.nodes {
		out[id] = true
	}
	goesOn := func(n *node) bool {
		for _, on := range n.on {
			if out[on] == !n.any {
				return n.any
			}
		}
		return !n.any || len(n.on) == 0
	}
	for changed := true; changed; {
		changed = false
		for _, id := range w.order {
			if out[id] && goesOn(w.nodes[id]) {
				delete(out, id)
				changed = true
			}
		}
	}
	return out
}

// circle is the shortest way from a stuck node back to itself, itself first; nil when
// it only waits for others that are stuck.
func (w waitGraph) circle(id string, stuck map[string]bool) []string {
	from := map[string]string{}
	queue := []string{id}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, on := range w.nodes[at].on {
			if on == id {
				out := []string{at}
				for out[0] != id {
					out = slices.Insert(out, 0, from[out[0]])
				}
				return out
			}
			if _, seen := from[on]; !seen && stuck[on] {
				from[on] = at
				queue = append(queue, on)
			}
		}
	}
	return nil
}

// victim is the running task in a circle that costs least to try again: of the lowest
// priority, and of those the one claimed last. ok is false when nothing is stuck.
func (w waitGraph) victim() (t writ.Task, circle []string, ok bool) {
	stuck := w.stuck()
	for _, id := range w.order {
		n := w.nodes[id]
		if !stuck[id] || n.at == nil || n.at.State != writ.TaskRunning {
			continue
		}
		way := w.circle(id, stuck)
		if way == nil {
			continue
		}
		if !ok || cmp.Or(cmp.Compare(n.at.Priority, t.Priority), -cmp.Compare(n.at.Lease.ID, t.Lease.ID)) < 0 {
			t, circle, ok = *n.at, way, true
		}
	}
	return t, circle, ok
}
