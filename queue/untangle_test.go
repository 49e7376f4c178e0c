package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
)

// awaiting says with a heartbeat what a holder waits for.
func (l *lab) awaiting(by writ.Caller, g grip, ids ...string) {
	l.Helper()
	b := g.beat()
	b.Awaits = ids
	l.do("task.heartbeat", by, b)
}

func (l *lab) untangle(id writ.TaskID) Untangled {
	l.Helper()
	return body[Untangled](l, l.do("task.untangle", l.w.System(), &TaskSweepArgs{Task: id}))
}

func (l *lab) lookAgain(id writ.TaskID) (at int64, ok bool) {
	at, ok = l.w.Index(writ.IndexTodo)[todo(todoUntangle, string(id))]
	return at, ok
}

// What waits in a circle is taken apart: who costs least is taken back, rests so that
// those it kept come first, and is tried again.
func TestWhoWaitsInACircleIsTakenBack(t *testing.T) {
	l := newLab(t)
	outer := l.enqueue("outer", scopes("fs:site/"), backoff(0))
	g := l.claim(l.a, outer)
	inner := l.enqueue("inner", scopes("fs:site/docs/"), backoff(0))
	l.awaiting(l.a, g, string(inner))
	if at, ok := l.lookAgain(outer); !ok || at != l.w.Now+deadlockEvery {
		t.Fatalf("looked at again at %d, %v", at, ok)
	}
	if _, err := l.dispatch(l.b, l.lane(), inner); err != nil { // it waits for the scope
		t.Fatal(err)
	}
	l.w.Advance(10)
	got := l.untangle(outer)
	if got.Victim != outer || got.Waits || !slices.Equal(got.Circle, []string{string(outer), string(inner)}) {
		t.Fatalf("%+v", got)
	}
	task := l.wantState(outer, writ.TaskQueued)
	if task.Failure == nil || task.Failure.Code != "deadlock" || task.NotBefore != l.w.Now+deadlockEvery {
		t.Errorf("%+v", task)
	}
	if _, ok := l.lookAgain(outer); ok {
		t.Error("it is looked at again")
	}
	if !l.inLane(inner) {
		t.Error("what it kept was not woken")
	}
	l.refused(writ.CodeLeaseLost, "task.complete", l.a, g.complete())
	l.do("task.complete", l.b, l.claim(l.b, inner).complete())
	l.w.Advance(10)
	l.sweep("task.ready", &TaskSweepArgs{Task: outer})
	l.do("task.complete", l.a, l.claim(l.a, outer).complete())
	audit(l)
}

// The task of the lowest priority is taken back, of those the one claimed last.
func TestWhoIsTakenBack(t *testing.T) {
	for name, priorities := range map[string][2]int64{"the lower one": {3, 7}, "the later one": {5, 5}} {
		l := newLab(t)
		prio := func(n int64) func(*TaskEnqueueArgs) { return func(a *TaskEnqueueArgs) { a.Priority = &n } }
		one := l.enqueue("one", scopes("fs:x/"), prio(priorities[0]))
		two := l.enqueue("two", scopes("fs:y/"), prio(priorities[1]))
		g, h := l.claim(l.a, one), l.claim(l.b, two)
		needsY, needsX := l.enqueue("needs-y", scopes("fs:y/")), l.enqueue("needs-x", scopes("fs:x/"))
		l.awaiting(l.a, g, string(needsY))
		l.awaiting(l.b, h, string(needsX))
		want := one
		if priorities[0] == priorities[1] {
			want = two
		}
		for _, from := range []writ.TaskID{one, two} { // whichever is looked at first
			call := l.w.NewCall(l.caps["task.untangle"], l.w.System(), &TaskSweepArgs{Task: from})
			p, err := l.w.Plan(l.caps["task.untangle"], call)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Reply.Body.(Untangled); got.Victim != want || len(got.Circle) != 4 {
				t.Errorf("%s: %+v", name, got)
			}
		}
		l.untangle(one)
		l.wantState(want, writ.TaskQueued)
		audit(l)
	}
}

// Nobody is taken back who waits for what people, a clock or somebody at work decide.
func TestWhoWaitsForWorkIsLeftAlone(t *testing.T) {
	l := newLab(t)
	outer := l.enqueue("outer", scopes("fs:site/"))
	g := l.claim(l.a, outer)
	other := l.enqueue("other", scopes("fs:else/"))
	h := l.claim(l.b, other)
	inner := l.enqueue("inner", scopes("fs:else/"))
	l.awaiting(l.a, g, string(inner)) // which waits for other, which works
	l.w.Advance(10)
	if got := l.untangle(outer); got.Victim != "" || !got.Waits {
		t.Errorf("%+v", got)
	}
	if at, ok := l.lookAgain(outer); !ok || at != l.w.Now+deadlockEvery {
		t.Errorf("looked at again at %d, %v", at, ok)
	}
	l.awaiting(l.b, h, string(outer)) // now it does not
	l.awaiting(l.a, g)                // but outer goes on
	if got := l.untangle(outer); got.Victim != "" || got.Waits {
		t.Errorf("%+v", got)
	}
	if _, ok := l.lookAgain(outer); ok {
		t.Error("it is looked at again")
	}
	if got := l.untangle(other); got.Victim != "" || !got.Waits {
		t.Errorf("%+v", got)
	}
	held := l.enqueue("held", after("outer"), func(a *TaskEnqueueArgs) { a.Join = writ.JoinManual })
	l.awaiting(l.a, g, string(held))
	if got := l.untangle(outer); got.Victim != "" {
		t.Errorf("people decide about it: %+v", got)
	}
	l.wantState(outer, writ.TaskRunning)
	audit(l)
}

// Of what somebody waits for only what is there, and in the same tree of runs, counts.
func TestWhatIsAwaited(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	elsewhere := l.run
	l.run = l.w.Run("boss", 1000).ID
	other := l.enqueue("other")
	l.run = elsewhere
	for _, id := range []string{string(other), string(g.task), l.w.NewID(writ.PrefixTask), l.w.NewID(writ.PrefixRun)} {
		b := g.beat()
		b.Awaits = []string{string(l.run), id}
		e := l.refused(writ.CodeInputInvalid, "task.heartbeat", l.a, b)
		if len(e.Fields) != 1 {
			t.Errorf("%+v", e.Fields)
		}
	}
	two := l.enqueue("two")
	b := g.beat()
	b.Awaits = []string{string(two), string(l.run), string(two)}
	r, tx, err := l.try("task.heartbeat", l.a, b)
	if err != nil || len(tx.Changes) != 1 || body[TaskHeartbeat](l, r).Control != "continue" {
		t.Fatalf("%+v, %+v, %v", r, tx.Changes, err)
	}
	if got := l.task(g.task).Lease.Awaits; !slices.Equal(got, []string{string(l.run), string(two)}) {
		t.Errorf("%v", got)
	}
	if _, tx, err = l.try("task.heartbeat", l.a, b); err != nil || len(tx.Changes) != 0 {
		t.Errorf("the same again: %+v, %v", tx.Changes, err)
	}
	receipts := 0
	for i := range 60 { // says this and that, a second each
		l.w.Advance(1)
		if b.Awaits = []string{string(two)}; i%2 == 0 {
			b.Awaits = nil
		}
		_, tx, err := l.try("task.heartbeat", l.a, b)
		if err != nil {
			t.Fatal(err)
		}
		receipts += len(tx.Changes)
	}
	if receipts > 13 {
		t.Errorf("%d receipts in a minute", receipts)
	}
	l.w.Advance(10)
	b.Awaits = []string{string(two), string(l.run)}
	l.do("task.heartbeat", l.a, b)
	if got := l.untangle(g.task); got.Victim != g.task { // its own run, which waits for it
		t.Errorf("%+v", got)
	}
	audit(l)
}

// However much waits for however much, a look fits into its transaction.
func TestUntanglingFits(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("top", scopes("fs:top/")))
	var level []string
	for i := range 8 {
		var seconds []string
		for j := range 3 {
			var leaves []string
			for k := range writ.MaxDependencies {
				leaves = append(leaves, fmt.Sprintf("leaf-%d-%d-%d", i, j, k))
				l.enqueue(leaves[k], after("top"))
			}
			seconds = append(seconds, fmt.Sprintf("second-%d-%d", i, j))
			l.enqueue(seconds[j], after(leaves...))
		}
		first := fmt.Sprint("first-", i)
		l.enqueue(first, after(seconds...))
		level = append(level, string(l.taskOf(first)))
	}
	k := l.caps["task.untangle"]
	for n, want := range map[int]writ.TaskID{1: g.task, 8: ""} { // of so many not all can be seen
		l.w.Advance(10)
		l.awaiting(l.a, g, level[:n]...)
		p, err := l.w.Plan(k, l.w.NewCall(k, l.w.System(), &TaskSweepArgs{Task: g.task}))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(p.Tx.Guards) + len(p.Tx.Ops); n > writ.MaxOps-16 {
			t.Errorf("%d guards and operations", n)
		}
		if got := p.Reply.Body.(Untangled); got.Victim != want {
			t.Errorf("of %d: %+v", n, got)
		}
	}
}

// A heartbeat says what else the holder must know.
func TestHeartbeatControls(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	control := func(want string) {
		t.Helper()
		if got := body[TaskHeartbeat](l, l.do("task.heartbeat", l.a, g.beat())).Control; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	control("continue")
	l.setRun(func(r *writ.Run) { r.State = writ.RunPausedApproval })
	control("pause")
	l.setRun(func(r *writ.Run) { r.State = writ.RunActive })
	for range 29 {
		l.w.Advance(60)
		control("continue")
	}
	l.w.Advance(1) // less than a minute is left of the half hour
	control("checkpoint")
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: g.task})
	control("cancel")
}

// What is found stuck is what no order of ends could free, and every circle is one.
func TestStuckIsStuck(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	found := 0
	for round := range 5000 {
		w := waitGraph{nodes: map[string]*node{}}
		n := 2 + rng.IntN(6)
		for i := range n {
			x := &node{any: rng.IntN(3) == 0}
			for range rng.IntN(3) {
				x.on = append(x.on, fmt.Sprint(rng.IntN(n+1))) // the last one was not seen
			}
			w.nodes[fmt.Sprint(i)], w.order = x, append(w.order, fmt.Sprint(i))
		}
		stuck := w.stuck()
		// The oracle: what ends, in any order, as long as something does.
		ended := map[string]bool{fmt.Sprint(n): true}
		for _, i := range slices.Repeat(rng.Perm(n), n) {
			id := fmt.Sprint(i)
			x, done := w.nodes[id], 0
			for _, on := range x.on {
				if ended[on] {
					done++
				}
			}
			if len(x.on) == 0 || x.any && done > 0 || done == len(x.on) {
				ended[id] = true
			}
		}
		for id := range w.nodes {
			if ended[id] == stuck[id] {
				t.Fatalf("seed %d, round %d: %s ends %v, and is stuck %v: %+v", seed, round, id, ended[id], stuck[id], w)
			}
			if !stuck[id] {
				continue
			}
			way := w.circle(id, stuck)
			for i, at := range way {
				if on := way[(i+1)%len(way)]; !slices.Contains(w.nodes[at].on, on) || !stuck[at] {
					t.Fatalf("seed %d, round %d: no circle: %v", seed, round, way)
				}
			}
			if way != nil {
				found++
			}
		}
		if len(stuck) > 0 && !slices.ContainsFunc(w.order, func(id string) bool { return stuck[id] && w.circle(id, stuck) != nil }) {
			t.Fatalf("seed %d, round %d: some are stuck in no circle: %+v", seed, round, w)
		}
	}
	if found < 1000 {
		t.Errorf("%d circles", found)
	}
}
