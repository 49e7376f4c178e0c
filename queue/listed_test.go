package queue

import (
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
)

// Policy is told what kinds of data are in the tasks that are listed.
func TestWhatIsListedHasLabels(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", func(a *TaskEnqueueArgs) { a.Labels = []writ.Label{writ.LabelSecretToken} })
	a := &TaskListArgs{Run: l.run}
	s := l.w.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.RunKey(l.run), writ.TaskKey(id)}, Ranges: []writ.Range{page(a)}})
	sub, err := describeListed(&writ.Call{Caller: l.oper}, a, s)
	if err != nil || !slices.Contains(sub.Labels, writ.LabelSecretToken) {
		t.Errorf("got %v, %v", sub.Labels, err)
	}
}
