package queue

import (
	"fmt"
	"testing"

	"github.com/writ-gateway/writ"
)

// revoked makes an agent one that was revoked and whose work is yet to be taken back.
func (l *lab) revoked(id writ.AgentID) {
	l.Helper()
	l.setAgent(id, func(a *writ.Agent) {
		a.State, a.Halt = writ.AgentSuspended, &writ.Halt{At: l.w.Now, Revoked: true}
	})
}

// setGoing makes tasks those an agent is behind, as if it had enqueued them.
func (l *lab) setGoing(id writ.AgentID, tasks ...writ.TaskID) {
	l.Helper()
	for _, t := range tasks {
		task := l.task(t)
		task.Behind = append(task.Behind, id)
		l.w.Seed(writ.TaskKey(t), writ.ObjectTask, task)
		l.w.SetIndex(writ.SetGoing(writ.ObjectTask, id), string(t), 0)
	}
}

// Entries of tasks that have ended keep nobody from taking back the others.
func TestRecallGetsPastWhatHasEnded(t *testing.T) {
	l := newLab(t)
	l.revoked("agent-b")
	var ended []writ.TaskID
	for i := range recallBatch + 1 {
		ended = append(ended, l.enqueue(fmt.Sprintf("ended-%d", i)))
		l.do("task.cancel", l.owner, &TaskCancelArgs{Task: ended[i]})
	}
	open := l.enqueue("open")
	l.setGoing("agent-b", append(ended, open)...)
	for more, calls := true, 0; more; calls++ {
		if more = body[Swept](l, l.do("task.recall", l.w.System(), &TaskRecallArgs{Agent: "agent-b"})).More; calls > 3 {
			t.Fatal("it does not get further")
		}
	}
	l.wantState(open, writ.TaskCancelled)
	if left := l.w.Members(writ.SetGoing(writ.ObjectTask, "agent-b")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A sweep that goes through tasks of several runs moves those of one in a commit, and is
// filed under it, so that what is shown of a run shows all that became of its tasks.
func TestSweepsAreOfOneRunEach(t *testing.T) {
	for id, c := range map[writ.CapabilityID]struct {
		args func(l *lab) any
		due  func(l *lab) string
		want writ.TaskState
	}{
		"session.cleanup": {func(l *lab) any {
			l.endSession(l.a.Session)
			return &SessionCleanupArgs{Session: l.a.Session}
		}, func(l *lab) string { return todo(todoSession, string(l.a.Session)) }, writ.TaskQueued},
		"task.recall": {func(l *lab) any {
			l.revoked("agent-b")
			l.w.SetIndex(writ.IndexTodo, todo(todoRecall, "agent-b"), l.w.Now)
			return &TaskRecallArgs{Agent: "agent-b"}
		}, func(*lab) string { return todo(todoRecall, "agent-b") }, writ.TaskCancelled},
	} {
		t.Run(string(id), func(t *testing.T) {
			l := newLab(t)
			l.setAgent("agent-a", func(a *writ.Agent) { a.MaxConcurrent = 2 * recallBatch })
			runs, tasks := []writ.RunID{l.run, l.w.Run("boss", 1000).ID, l.w.Run("boss", 1000).ID}, []writ.TaskID{}
			for i := range recallBatch + 1 {
				l.run = runs[i%len(runs)]
				task := l.enqueue(fmt.Sprintf("task-%d", i))
				l.claim(l.a, task)
				tasks = append(tasks, task)
			}
			l.setGoing("agent-b", tasks...)
			args, commits := c.args(l), 0
			for more := true; more; commits++ {
				p, err := l.w.Plan(l.caps[id], l.w.NewCall(l.caps[id], l.w.System(), args))
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range p.Tx.Changes {
					if c.Kind != writ.ObjectTask {
						continue
					}
					if run := l.task(writ.TaskID(c.ID)).Run; p.Subject.Run == nil || p.Subject.Run.ID != run {
						t.Errorf("a task of %s is moved, the receipt is of %+v", run, p.Subject.Run)
					}
				}
				r, err := l.w.Commit(p)
				if err != nil {
					t.Fatal(err)
				}
				// Whoever is killed between two commits finds that the rest is due.
				more = body[Swept](l, r).More
				if _, due := l.w.Index(writ.IndexTodo)[c.due(l)]; due != more {
					t.Errorf("after %d commits: more is left %v, the follow-up is due %v", commits+1, more, due)
				}
			}
			for _, task := range tasks {
				l.wantState(task, c.want)
			}
			if commits < len(runs) || commits > len(tasks) {
				t.Errorf("%d tasks of %d runs took %d commits", len(tasks), len(runs), commits)
			}
			for _, l.run = range runs {
				audit(l)
			}
		})
	}
}
