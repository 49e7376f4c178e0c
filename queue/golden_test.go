package queue

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "write the golden files")

func TestStoredDocuments(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("build"))
	a := g.complete()
	a.Labels = []writ.Label{writ.LabelPublic}
	l.do("task.complete", l.a, a)
	for name, k := range map[string]writ.Key{"result.json": writ.ResultKey(g.task), "taskname.json": writ.TaskNameKey(l.run, "build")} {
		writtest.GoldenDoc(t, *update, name, l.w.Snapshot(writ.ReadSet{Docs: []writ.Key{k}}).Docs[k].Body)
	}
}

func TestStoredNames(t *testing.T) {
	const (
		task    = "tsk_01ARYZ6S410000000000000000"
		run     = "run_01ARYZ6S410000000000000000"
		session = "ses_01ARYZ6S410000000000000000"
	)
	var b strings.Builder
	for _, c := range []writ.Counter{leaseEnd(task), progressSeq(task), progressPct(task), readiedUpTo(task), writ.TaskUnmet(task)} {
		fmt.Fprintf(&b, "counter %v\n", c)
	}
	fmt.Fprintf(&b, "index   %s\n", writ.Dependents(task))
	for _, m := range []string{
		todo(todoWake, task), todo(todoUnblock, task), todo(todoRun, run), todo(todoSession, session), todoRefillOf(run, writ.LaneOf("site.build", "web", 5)), todo(todoRecall, "site-builder"), todo(todoWithdraw, "site-builder"),
		todo(todoUntangle, task), todo(todoPurge, task), todo(todoDeadline, task), todo(todoUnreserve, task), todo(todoOutrun, task), todo(todoReoffer, task), todo(todoOffer, run),
	} {
		fmt.Fprintf(&b, "todo    %s\n", m)
	}
	for _, agents := range [][]writ.AgentID{nil, {"site-builder"}, {"site-builder", "site-tester"}} {
		w := writ.Task{ID: task, Run: run, Capability: "site.build", Domain: "web", Priority: 5, Agents: agents}
		fmt.Fprintf(&b, "member  %s\n", waiterMember(w, w.Lanes()[0]))
	}
	writtest.Golden(t, *update, "names.txt", []byte(b.String()))
}
