package queue

import (
	"slices"
	"strconv"

	"github.com/writ-gateway/writ"
)

// What a holder waits for it says itself, with its heartbeats: nothing else tells that
// work does not go on. Whether that can ever end is looked at every deadlockEvery: see
// untangle.

// deadlockEvery is how often it is looked at, in milliseconds.
const deadlockEvery = 10_000

// todoUntangle is the follow-up of a task whose holder waits for others.
const todoUntangle = "untangle"

// awaitedReads names what a holder says it waits for, and the runs that is in.
func awaitedReads(s writ.Snapshot, ids []string) (out []writ.Key) {
	for _, id := range ids {
		if !writ.TaskID(id).Valid() {
			out = append(out, writ.RunKey(writ.RunID(id)))
			continue
		}
		out = append(out, writ.TaskKey(writ.TaskID(id)))
		if t, ok, err := peek[writ.Task](s, writ.TaskKey(writ.TaskID(id))); err == nil && ok {
			out = append(out, writ.RunKey(t.Run))
		}
	}
	return out
}

// awaits notes what the holder of a running task of run r waits for. Only what has
// changed is written, and what it begins to wait for at most once a look: a heartbeat
// costs nothing and passes in a full store, so it must not make receipts at will.
func (d *draft) awaits(t *writ.Task, version int64, r writ.Run, ids []string) error {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	if slices.Equal(ids, t.Lease.Awaits) {
		return nil
	}
	for i, id := range ids {
		in, err := d.treeOf(id)
		if err != nil {
			return err
		}
		if in != r.Tree() || id == string(t.ID) {
			return invalid(d.op, "/awaits/"+strconv.Itoa(i), "names no other task or run of this tree of runs")
		}
	}
	if len(ids) > 0 {
		if t.Lease.AwaitsAt != 0 && d.s.Now < t.Lease.AwaitsAt+deadlockEvery {
			return nil // a later heartbeat says it again
		}
		t.Lease.AwaitsAt = d.s.Now
	}
	t.Lease.Fence = t.FenceOf(version) // the version changes, the holder's fence does not
	t.Lease.Awaits = ids
	if todo := todo(todoUntangle, string(t.ID)); len(ids) > 0 {
		d.tx.Index(writ.IndexTodo, todo, d.s.Now+deadlockEvery)
	} else {
		d.tx.Unindex(writ.IndexTodo, todo)
	}
	return d.put(t, t.State)
}

// treeOf is the tree of runs that a task or a run is in; "" where there is none.
func (d *draft) treeOf(id string) (writ.RunID, error) {
	run := writ.RunID(id)
	if task := writ.TaskID(id); task.Valid() {
		t, _, ok, err := writ.Get[writ.Task](d.s, writ.TaskKey(task))
		if err != nil || !ok {
			return "", err
		}
		run = t.Run
	}
	r, _, ok, err := writ.Get[writ.Run](d.s, writ.RunKey(run))
	if err != nil || !ok {
		return "", err
	}
	return r.Tree(), nil
}
