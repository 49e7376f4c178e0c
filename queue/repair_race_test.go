package queue

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// A repair rests on what it has read: if a task moves before it is committed, it is
// not, and so gives nobody back what he has given up meanwhile.
func TestARepairComesTooLate(t *testing.T) {
	small(t, 2)
	for name, c := range map[string]struct {
		spoil, meanwhile func(l *lab, ids []writ.TaskID, g grip)
	}{
		"a lock, and its holder ends": {
			func(l *lab, _ []writ.TaskID, g grip) {
				l.w.DropIndex(writ.IndexScopes, writ.ScopeMember("fs:repo/a/", g.task))
			},
			func(l *lab, _ []writ.TaskID, g grip) { l.do("task.complete", l.a, g.complete()) },
		},
		"a lease, and it is renewed": {
			func(l *lab, _ []writ.TaskID, g grip) { l.w.DropIndex(writ.IndexLeases, string(g.task)) },
			func(l *lab, _ []writ.TaskID, g grip) {
				l.w.Advance(10)
				l.do("task.heartbeat", l.a, g.beat())
				l.w.DropIndex(writ.IndexLeases, string(g.task))
			},
		},
		"a member of a backlog, and the task is taken": {
			func(l *lab, ids []writ.TaskID, _ grip) {
				l.w.DropIndex(writ.Backlog(l.run), writ.BacklogMember(l.lane(), ids[3]))
			},
			func(l *lab, ids []writ.TaskID, _ grip) { l.claim(l.a, ids[3]) },
		},
		"a member of a backlog, and the task is fetched": {
			func(l *lab, ids []writ.TaskID, _ grip) {
				l.w.DropIndex(writ.Backlog(l.run), writ.BacklogMember(l.lane(), ids[3]))
			},
			func(l *lab, ids []writ.TaskID, _ grip) { l.w.SetCounter(writ.TaskPlace(ids[3]), 1) },
		},
		"a place, and the task is fetched": {
			func(l *lab, ids []writ.TaskID, _ grip) { l.w.SetCounter(writ.TaskPlace(ids[3]), 7) },
			func(l *lab, ids []writ.TaskID, _ grip) { l.w.SetCounter(writ.TaskPlace(ids[3]), 2) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			g := l.claim(l.a, l.enqueue("held", scopes("fs:repo/a/")))
			ids := l.many(5)
			c.spoil(l, ids, g)
			args := &QueueRepairArgs{Documents: []RepairDocument{{Document: writ.TaskKey(g.task)}, {Document: writ.TaskKey(ids[3])}}}
			repair := l.caps["queue.repair"]
			p, err := l.w.Plan(repair, l.w.NewCall(repair, l.w.System(), args))
			if err != nil {
				t.Fatal(err)
			}
			c.meanwhile(l, ids, g)
			if _, err := l.w.Commit(p); err == nil {
				t.Fatal("it was committed")
			}
			l.do("queue.repair", l.w.System(), args)
			for _, id := range []writ.TaskID{g.task, ids[3]} {
				if wrong := l.wrong(id); len(wrong) > 0 {
					t.Errorf("%+v", wrong)
				}
			}
		})
	}
}
