package daemon

import (
	"maps"
	"slices"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/queue"
)

// lanes: every queued task that waits for nothing lies in each of its lanes, whether
// or not somebody has received the entry. More entries are harmless; those that are of
// no task of the lane are not, since whoever meets one gets no further.
func (x *indexWalk) lanes(report *IndexReport) error {
	counts, err := x.st.Lanes(x.ctx, shard)
	if err != nil {
		return err
	}
	all := map[writ.Lane]bool{}
	for _, c := range counts {
		all[c.Lane] = true
	}
	for l := range x.lying {
		all[l] = true
	}
	for _, l := range slices.Sorted(maps.Keys(all)) {
		if err := x.lane(l, report); err != nil {
			return err
		}
	}
	return nil
}

// entries are what lies in a lane.
func (x *indexWalk) entries(l writ.Lane) (map[string]bool, error) {
	out := map[string]bool{}
	for cursor := ""; ; {
		some, next, err := x.st.Entries(x.ctx, shard, l, cursor)
		if err != nil {
			return nil, err
		}
		for _, e := range some {
			out[e] = true
		}
		if cursor = next; cursor == "" {
			return out, nil
		}
	}
}

// laneLooks is how often a task must be missed in a lane and found to belong there in
// between: what it waits for may come and go while the lane is read.
const laneLooks = 3

func (x *indexWalk) lane(l writ.Lane, report *IndexReport) error {
	there, err := x.entries(l)
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(x.lying[l]), func(doc writ.Key) bool { return there[idOf(doc)] })
	for look := 1; look < laneLooks && len(missing) > 0; look++ {
		var still []writ.Key
		for _, doc := range missing {
			if is, err := x.lies(doc, l); err != nil {
				return err
			} else if is {
				still = append(still, doc)
			}
		}
		again, err := x.entries(l)
		if err != nil {
			return err
		}
		missing = slices.DeleteFunc(still, func(doc writ.Key) bool { return again[idOf(doc)] })
	}
	for _, doc := range missing {
		s, err := x.look(doc)
		if err != nil {
			return err
		}
		x.finds(doc, s, func(d *queue.RepairDocument) { d.Lanes = append(d.Lanes, l) })
		report.Found = append(report.Found, queue.Wrong{Document: doc, Task: writ.TaskID(idOf(doc)), Lane: l, Missing: true, Why: "the task is queued and waits for nothing"})
	}
	return x.strays(l, there, report)
}

func idOf(doc writ.Key) string { return string(doc)[len(writ.ObjectTask)+1:] }

// lies says whether a task must lie in a lane.
func (x *indexWalk) lies(doc writ.Key, l writ.Lane) (bool, error) {
	s, err := x.look(doc)
	if err != nil {
		return false, err
	}
	t, _, ok, err := writ.Get[writ.Task](s, doc)
	return ok && queue.InLanes(t, s) && slices.Contains(t.Lanes(), l), err
}

// strays are the entries of a lane that are of no task of it. What a task's lanes are
// never changes.
func (x *indexWalk) strays(l writ.Lane, there map[string]bool, report *IndexReport) error {
	lie := map[string]bool{}
	for _, doc := range x.lying[l] {
		lie[idOf(doc)] = true
	}
	for _, e := range slices.Sorted(maps.Keys(there)) {
		if lie[e] {
			continue
		}
		doc, why := writ.TaskKey(writ.TaskID(e)), "there is no such task"
		if writ.TaskID(e).Valid() {
			s, err := x.st.Read(x.ctx, shard, writ.ReadSet{Docs: []writ.Key{doc}})
			if err != nil {
				return err
			}
			t, _, ok, err := writ.Get[writ.Task](s, doc)
			if err != nil || ok && slices.Contains(t.Lanes(), l) {
				continue // a document that cannot be read is told of by itself
			}
			if ok {
				why = "the lane is none of the task's"
			}
		}
		x.astray[l] = append(x.astray[l], writ.Entry{Member: e})
		report.Found = append(report.Found, queue.Wrong{Document: doc, Lane: l, Why: why})
	}
	return nil
}
