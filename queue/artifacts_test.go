package queue

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// nothing is a body that has come.
type nothing struct{}

func (nothing) Receive(context.Context, int64) (writ.Received, error) { return writ.Received{}, nil }
func (nothing) Keep(context.Context) error                            { return nil }

func makes(names ...string) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) {
		for _, n := range names {
			a.Produces = append(a.Produces, TaskProduce{Name: n, MediaType: "text/plain", Required: true})
		}
	}
}

func hexOfText(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// put is artifact.put as the door makes it once the body is there.
func (l *lab) put(by writ.Caller, g grip, name, text string, more ...func(*ArtifactPutArgs)) TaskMade {
	l.Helper()
	got := writ.Received{Digest: "sha256:" + hexOfText(text), Size: int64(len(text)), Small: []byte(text)}
	a := &ArtifactPutArgs{Task: g.task, Lease: g.lease, Fence: g.fence, Name: name}
	for _, f := range more {
		f(a)
	}
	if _, err := a.Received(got); err != nil {
		l.Fatal(err)
	}
	call := l.w.NewCall(l.caps["artifact.put"], by, a)
	call.Body, call.Received = nothing{}, &got
	r, _, err := l.w.Do(l.caps["artifact.put"], call)
	if err != nil {
		l.Fatalf("artifact.put: %v", err)
	}
	made := body[TaskArtifact](l, r)
	return TaskMade{Name: made.Name, Digest: made.Digest}
}

// wantHolders looks which tasks want the bytes of a text.
func (l *lab) wantHolders(text string, want ...writ.TaskID) {
	l.Helper()
	var ids []string
	for _, id := range want {
		ids = append(ids, string(id))
	}
	slices.Sort(ids)
	if got := l.w.Members(writ.BlobHolders(hexOfText(text))); !slices.Equal(got, ids) {
		l.Fatalf("%q is wanted by %v, want %v", text, got, ids)
	}
}

// Bytes are wanted for as long as a task has them: not once they were replaced, put
// for an attempt that is over, or left out of the completion.
func TestWhoWantsWhichBytes(t *testing.T) {
	l := newLab(t)
	one, two := l.enqueue("one", makes("x", "y"), backoff(0)), l.enqueue("two", makes("x"))
	g, h := l.claim(l.a, one), l.claim(l.b, two)
	l.put(l.a, g, "x", "first")
	l.put(l.a, g, "y", "first") // the same bytes under two names
	l.put(l.b, h, "x", "first")
	l.wantHolders("first", one, two)
	l.put(l.a, g, "x", "second")
	l.wantHolders("first", one, two)
	l.put(l.a, g, "y", "second")
	l.wantHolders("first", two)
	l.wantHolders("second", one)

	l.do("task.release", l.a, g.release())
	l.wantHolders("second", one) // until somebody tries again
	g = l.claim(l.b, one)
	l.wantHolders("second")
	x, y := l.put(l.b, g, "x", "third"), l.put(l.b, g, "y", "third")
	c := g.complete()
	c.Artifacts = []TaskMade{x, y}
	l.do("task.complete", l.b, c)
	l.wantHolders("third", one)

	purge := &ArtifactPurgeArgs{Task: one}
	l.do("artifact.purge", l.w.System(), purge)
	l.wantHolders("third", one) // the run has not ended
}

// The fence of the holder stays what the claim gave, however much it puts.
func TestPuttingKeepsTheFence(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one", makes("x")))
	for _, text := range []string{"a", "b", "c"} {
		l.put(l.a, g, "x", text)
	}
	l.do("task.heartbeat", l.a, g.beat())
	l.refused(writ.CodeInputInvalid, "task.complete", l.a, g.complete())
}

// Bytes are read again for whoever may accept them, and for nobody else.
func TestAcceptingReadsTheBytes(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", judged(1), makes("x"))
	g := l.claim(l.a, id)
	x := l.put(l.a, g, "x", "site")
	c := g.complete()
	c.Artifacts = []TaskMade{x}
	l.do("task.complete", l.a, c)

	accept := l.verdict(id, writ.VerdictAccept)
	own := l.w.Open(writ.RoleVerifier, "worker-a", "agent-a")
	l.refused(writ.CodeSoD, "task.verify", own, accept)
	l.refused(writ.CodeSoD, "task.verify", l.oper, accept)
	if len(l.w.Examined) != 0 {
		t.Fatalf("bytes were read for who may not judge: %v", l.w.Examined)
	}
	for _, state := range []writ.BlobState{writ.BlobAbsent, writ.BlobDamaged} {
		l.w.Blobs = map[string]writ.BlobState{x.Digest: state}
		if e := l.refused(writ.CodeArtifact, "task.verify", l.judge, accept); e.Details["digest"] != x.Digest || e.Details["state"] != string(state) {
			t.Errorf("got %+v", e)
		}
	}
	l.w.Blobs = map[string]writ.BlobState{x.Digest: writ.BlobIntact}
	l.do("task.verify", l.judge, accept)
}

// An artifact that was kept for long enough is let go once its run has ended.
func TestPurge(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", makes("x"))
	g := l.claim(l.a, id)
	x := l.put(l.a, g, "x", "site")
	due := l.w.Index(writ.IndexTodo)[todo(todoPurge, string(id))]
	if want := l.w.Now + 30*24*3600*1000; due != want {
		t.Fatalf("due at %d, want %d", due, want)
	}
	c := g.complete()
	c.Artifacts = []TaskMade{x}
	l.do("task.complete", l.a, c)
	l.w.Advance(31 * 24 * 3600)
	l.do("artifact.purge", l.w.System(), &ArtifactPurgeArgs{Task: id})
	l.wantHolders("site", id)
	run, _, _ := writtest.Get[writ.Run](l.w, writ.RunKey(l.run))
	run.State = writ.RunDone
	l.w.Seed(writ.RunKey(l.run), writ.ObjectRun, run)
	l.do("artifact.purge", l.w.System(), &ArtifactPurgeArgs{Task: id})
	l.wantHolders("site")
	if _, there := l.w.Index(writ.IndexTodo)[todo(todoPurge, string(id))]; there {
		t.Error("it is done again and again")
	}
}

// The name of the directory of artifacts is given once.
func TestAttach(t *testing.T) {
	l := newLab(t)
	one, two := &ArtifactAttachArgs{Store: strings.Repeat("1", 32)}, &ArtifactAttachArgs{Store: strings.Repeat("2", 32)}
	l.do("artifact.attach", l.w.System(), one)
	l.do("artifact.attach", l.w.System(), one)
	l.refused(writ.CodeExists, "artifact.attach", l.w.System(), two)
}

// A task that is given untrusted data is a task with untrusted data.
func TestLabelsTravel(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("make", func(a *TaskEnqueueArgs) {
		a.Produces = []TaskProduce{{Name: "x", MediaType: "text/plain", Required: true, Labels: []writ.Label{writ.LabelExternalUntrusted}}}
	})
	next := l.enqueue("use", after("make"), func(a *TaskEnqueueArgs) { a.Consumes = []TaskConsume{{Name: "x", From: "make"}} })
	g := l.claim(l.a, id)
	c := g.complete()
	c.Artifacts = []TaskMade{l.put(l.a, g, "x", "site")}
	l.do("task.complete", l.a, c)
	p, err := l.w.Plan(l.caps["task.claim"], l.w.NewCall(l.caps["task.claim"], l.b, &TaskClaimArgs{Task: next}))
	if err != nil || !slices.Contains(p.Subject.Labels, writ.LabelExternalUntrusted) {
		t.Fatalf("policy is told of %v, %v", p.Subject.Labels, err)
	}
	l.claim(l.b, next)
	if got := l.task(next); !slices.Contains(got.Labels, writ.LabelExternalUntrusted) || len(got.Artifacts) != 0 {
		t.Errorf("got %+v", got)
	}
}

// Nobody takes labels off: what a task makes carries what the task does, whatever
// its holder or its declaration say; and where a declaration does not allow for what
// it was given, it cannot be put.
func TestLabelsStay(t *testing.T) {
	l := newLab(t)
	wild := []writ.Label{writ.LabelExternalUntrusted}
	one := l.enqueue("make", makes("x"), func(a *TaskEnqueueArgs) { a.Labels = []writ.Label{writ.LabelPublic, writ.LabelExternalUntrusted} })
	two := l.enqueue("use", after("make"), func(a *TaskEnqueueArgs) {
		a.Consumes = []TaskConsume{{Name: "x", From: "make"}}
		a.Produces = []TaskProduce{
			{Name: "capped", MediaType: "text/plain", Labels: []writ.Label{writ.LabelPublic}},
			{Name: "open", MediaType: "text/plain"},
			{Name: "wild", MediaType: "text/plain", Labels: []writ.Label{writ.LabelPublic, writ.LabelExternalUntrusted}},
		}
	})
	g := l.claim(l.a, one)
	lower := func(a *ArtifactPutArgs) { a.Label = writ.LabelPublic }
	c := g.complete()
	c.Artifacts = []TaskMade{l.put(l.a, g, "x", "site", lower)}
	if got := l.task(one).Artifacts[0].Labels; !slices.Contains(got, writ.LabelExternalUntrusted) {
		t.Fatalf("put with %v", got)
	}
	l.do("task.complete", l.a, c)

	call := l.w.NewCall(l.caps["task.claim"], l.b, &TaskClaimArgs{Task: two})
	p, err := l.w.Plan(l.caps["task.claim"], call)
	if err != nil || !p.Subject.Task.Raised {
		t.Errorf("policy is not told that the task has more labels than were agreed to: %+v, %v", p.Subject.Task, err)
	}
	h := l.claim(l.b, two)
	for _, name := range []string{"open", "wild"} {
		l.put(l.b, h, name, "log", lower)
		if made, _ := l.task(two).Artifact(name); !slices.Contains(made.Labels, wild[0]) || !slices.Contains(made.Labels, writ.LabelInternalSystem) {
			t.Errorf("%s carries %v", name, made.Labels)
		}
	}
	a := &ArtifactPutArgs{Task: two, Lease: h.lease, Fence: h.fence, Name: "capped"}
	call = l.w.NewCall(l.caps["artifact.put"], l.b, a)
	call.Body = nothing{}
	if _, _, err := l.w.Do(l.caps["artifact.put"], call); writ.CodeOf(err) != writ.CodeInputInvalid || writ.AsError("", err).Fields[0].Pointer != "/name" {
		t.Errorf("got %v", err)
	}
}

// The largest task with the most artifacts goes through its moves.
func TestTheLargestTaskHasArtifacts(t *testing.T) {
	l := newLab(t)
	request := func(n int) *TaskEnqueueArgs {
		a := &TaskEnqueueArgs{Run: l.run, Key: "one", Capability: build, Domain: "web", Args: writ.RawObject(`{"x":"` + strings.Repeat("y", n) + `"}`)}
		for i := range writ.MaxArtifacts {
			name := fmt.Sprintf("%c%s", 'a'+i, strings.Repeat("x", 63))
			a.Produces = append(a.Produces, TaskProduce{Name: name, MediaType: "text/plain", Required: true, Labels: writ.Labels()})
		}
		return a
	}
	c := l.caps["task.enqueue"]
	n := sort.Search(MaxArgsBytes, func(n int) bool {
		_, err := l.w.Plan(c, l.w.NewCall(c, l.owner, request(n)))
		return err != nil
	}) - 1
	id := body[TaskView](l, l.do("task.enqueue", l.owner, request(n))).ID
	g := l.claim(l.a, id)
	done := g.complete()
	for i, p := range l.task(id).Produces {
		done.Artifacts = append(done.Artifacts, l.put(l.a, g, p.Name, fmt.Sprint("site ", i)))
	}
	done.Result = writ.RawObject(`{"x":"` + strings.Repeat("y", MaxArgsBytes-8) + `"}`)
	l.do("task.complete", l.a, done)
	l.wantState(id, writ.TaskDone)
}

// What a task had put that failed is of nobody.
func TestWhatAFailedTaskPutIsNotGiven(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("make", makes("x"))
	next := l.enqueue("use", func(a *TaskEnqueueArgs) {
		a.DependsOn = []TaskDependency{{Key: "make", OnFailure: writ.DependencyContinue}}
		a.Consumes = []TaskConsume{{Name: "x", From: "make", Optional: true}}
	})
	g := l.claim(l.a, id)
	x := l.put(l.a, g, "x", "half")
	l.do("task.fail", l.a, g.fail(false))
	l.do("task.unblock", l.w.System(), &TaskSweepArgs{Task: id})
	c := body[TaskClaimed](l, l.do("task.claim", l.b, &TaskClaimArgs{Task: next}))
	if len(c.Inputs) != 0 {
		t.Errorf("given %+v", c.Inputs)
	}
	l.refused(writ.CodeNotFound, "artifact.content", l.b, &ArtifactGetArgs{Digest: x.Digest, Task: next})
}

// gives is a task that is handed to who waits for it, with the digest of what it made.
func (g grip) gives(to string, made ...TaskMade) *TaskHandoffArgs {
	a := &TaskHandoffArgs{TaskHold: TaskHold{g.task, g.lease, g.fence}, To: HandoffTarget{Key: to}, Artifacts: made}
	for _, m := range made {
		a.Refs = append(a.Refs, HandoffRef{Name: m.Name, Kind: writ.RefArtifact, Ref: m.Digest})
	}
	return a
}

// A task is handed on with what it must make, and nothing else can be referred to:
// who goes on may read it, under the labels it has.
func TestArtifactsAreHandedOn(t *testing.T) {
	l := newLab(t)
	foreign := l.claim(l.b, l.enqueue("other", makes("x")))
	other := l.put(l.b, foreign, "x", "other")
	c := foreign.complete()
	c.Artifacts = []TaskMade{other}
	l.do("task.complete", l.b, c)

	id := l.enqueue("make", func(a *TaskEnqueueArgs) {
		a.Produces = []TaskProduce{{Name: "x", MediaType: "text/plain", Required: true, Labels: []writ.Label{writ.LabelExternalUntrusted}}, {Name: "y", MediaType: "text/plain"}}
	})
	next := l.enqueue("use", after("make"))
	g := l.claim(l.a, id)
	l.refused(writ.CodeInputInvalid, "task.handoff", l.a, g.gives("use")) // required
	x, left := l.put(l.a, g, "x", "site"), l.put(l.a, g, "y", "log")
	for _, ref := range []TaskMade{other, left, {Name: "x", Digest: "sha256:" + hexOfText("nothing")}} { // of another task, not named, nowhere
		bad := g.gives("use", x)
		bad.Refs = append(bad.Refs, HandoffRef{Name: "z", Kind: writ.RefArtifact, Ref: ref.Digest})
		if e := l.refused(writ.CodeInputInvalid, "task.handoff", l.a, bad); len(e.Fields) != 1 || e.Fields[0].Pointer != "/refs/1/ref" {
			t.Errorf("got %+v", e)
		}
	}
	l.do("task.handoff", l.a, g.gives("use", x))
	l.wantHolders("site", id)
	l.wantHolders("log")
	if got := l.task(next); !slices.Contains(got.Labels, writ.LabelExternalUntrusted) {
		t.Errorf("it goes on with %v", got.Labels)
	}
	get := &ArtifactGetArgs{Digest: x.Digest, Task: next}
	l.refused(writ.CodeNotFound, "artifact.content", l.b, get) // before it is held
	l.claim(l.b, next)
	if in := body[TaskInput](l, l.do("artifact.content", l.b, get)); in.From != id {
		t.Errorf("got %+v", in)
	}
	l.refused(writ.CodeNotFound, "artifact.content", l.b, &ArtifactGetArgs{Digest: left.Digest, Task: next})
	l.refused(writ.CodeNotFound, "artifact.content", l.b, &ArtifactGetArgs{Digest: other.Digest, Task: next})
}

// A task that begins when one of several has ended is given no more than it carries
// the labels of.
func TestWhatComesLaterIsGivenWithinLabels(t *testing.T) {
	l := newLab(t)
	first, late := l.enqueue("first", makes("x")), l.enqueue("late", func(a *TaskEnqueueArgs) {
		a.Produces = []TaskProduce{
			{Name: "x", MediaType: "text/plain"},
			{Name: "y", MediaType: "text/plain", Labels: []writ.Label{writ.LabelExternalUntrusted}},
		}
	})
	both := func(optional bool) *TaskEnqueueArgs {
		return &TaskEnqueueArgs{
			Run: l.run, Key: "use", Capability: build, Domain: "web", Join: writ.JoinAny, DependsOn: []TaskDependency{{Key: "first"}, {Key: "late"}},
			Consumes: []TaskConsume{{Name: "x", From: "first", Optional: optional}, {Name: "x", From: "late", Optional: true}, {Name: "y", From: "late", Optional: true}},
		}
	}
	l.refused(writ.CodeInputInvalid, "task.enqueue", l.owner, both(false))
	next := body[TaskView](l, l.do("task.enqueue", l.owner, both(true))).ID
	failed := &TaskEnqueueArgs{
		Run: l.run, Key: "mend", Capability: build, Domain: "web", DependsOn: []TaskDependency{{Key: "first", When: writ.EndFailed}},
		Consumes: []TaskConsume{{Name: "x", From: "first"}},
	}
	l.refused(writ.CodeInputInvalid, "task.enqueue", l.owner, failed)

	g, h := l.claim(l.a, first), l.claim(l.a, late)
	c := g.complete()
	c.Artifacts = []TaskMade{l.put(l.a, g, "x", "first")}
	l.do("task.complete", l.a, c)
	if in := body[TaskClaimed](l, l.do("task.claim", l.b, &TaskClaimArgs{Task: next})).Inputs; len(in) != 1 || in[0].From != first {
		t.Fatalf("given %+v", in)
	}
	x, y := l.put(l.a, h, "x", "plain"), l.put(l.a, h, "y", "wild")
	c = h.complete()
	c.Artifacts = []TaskMade{x, y}
	l.do("task.complete", l.a, c)
	l.do("artifact.content", l.b, &ArtifactGetArgs{Digest: x.Digest, Task: next})
	l.refused(writ.CodeNotFound, "artifact.content", l.b, &ArtifactGetArgs{Digest: y.Digest, Task: next})
}

// What is revived makes what the task that died was to make, and is given what that
// was given, which is there already.
func TestRevivedTasksHaveTheirArtifacts(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("make", makes("x"))
	next := l.enqueue("use", after("make"), makes("y"), attempts(1), func(a *TaskEnqueueArgs) { a.Consumes = []TaskConsume{{Name: "x", From: "make"}} })
	g := l.claim(l.a, id)
	c := g.complete()
	c.Artifacts = []TaskMade{l.put(l.a, g, "x", "site")}
	l.do("task.complete", l.a, c)
	g = l.claim(l.b, next)
	l.put(l.b, g, "y", "half")
	l.do("task.fail", l.b, g.fail(true))
	l.wantState(next, writ.TaskDead)

	elsewhere := &TaskReviveArgs{Task: next, Key: "again", Run: writ.RunID("run_01J00000000000000000000000")}
	if e := l.refused(writ.CodeInputInvalid, "task.revive", l.owner, elsewhere); len(e.Fields) != 1 || e.Fields[0].Pointer != "/run_id" {
		t.Errorf("got %+v", e)
	}
	again := body[TaskView](l, l.do("task.revive", l.owner, &TaskReviveArgs{Task: next, Key: "again"})).ID
	if got := body[TaskView](l, l.do("task.revive", l.owner, &TaskReviveArgs{Task: next, Key: "again"})).ID; got != again {
		t.Errorf("again is %s, then %s", again, got)
	}
	claimed := body[TaskClaimed](l, l.do("task.claim", l.b, &TaskClaimArgs{Task: again}))
	if len(claimed.Inputs) != 1 || claimed.Inputs[0].From != id || len(claimed.Task.Produces) != 1 || len(claimed.Task.Artifacts) != 0 {
		t.Errorf("got %+v", claimed)
	}
}

// What is handed on is nobody's before it is accepted, and no more of it than was
// referred to.
func TestHandedArtifactsAwaitTheVerdict(t *testing.T) {
	l := newLab(t)
	id, other := l.enqueue("make", judged(1), makes("x", "y")), l.enqueue("other")
	next := l.enqueue("use", after("make", "other"), func(a *TaskEnqueueArgs) { a.Join = writ.JoinAny })
	g := l.claim(l.a, id)
	x, y := l.put(l.a, g, "x", "site"), l.put(l.a, g, "y", "log")
	h := g.gives("use", x)
	h.Artifacts = append(h.Artifacts, y)
	l.do("task.handoff", l.a, h)
	l.do("task.complete", l.a, l.claim(l.a, other).complete())
	l.claim(l.b, next)
	l.refused(writ.CodeNotFound, "artifact.content", l.b, &ArtifactGetArgs{Digest: x.Digest, Task: next})
	l.w.Blobs = map[string]writ.BlobState{x.Digest: writ.BlobIntact, y.Digest: writ.BlobIntact}
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictAccept))
	l.do("artifact.content", l.b, &ArtifactGetArgs{Digest: x.Digest, Task: next})
	l.refused(writ.CodeNotFound, "artifact.content", l.b, &ArtifactGetArgs{Digest: y.Digest, Task: next})
}

// The lists by which bytes are kept, and found by who accepts the run, follow from
// the task until the run has ended.
func TestListsOfArtifactsFollow(t *testing.T) {
	l := newLab(t)
	l.setRun(func(r *writ.Run) { r.ClosePolicy = writ.CloseVerifier })
	id := l.enqueue("one", makes("x"))
	g := l.claim(l.a, id)
	c := g.complete()
	c.Artifacts = []TaskMade{l.put(l.a, g, "x", "site")}
	l.do("task.complete", l.a, c)
	for _, e := range []writ.Entry{
		{Index: writ.BlobHolders(hexOfText("site")), Member: string(id)},
		{Index: writ.RunArtifacts(l.run), Member: hexOfText("site") + " " + string(id)},
		{Index: writ.IndexTodo, Member: todo(todoPurge, string(id))},
	} {
		l.w.DropIndex(e.Index, e.Member)
		if got := l.wrong(id); len(got) != 1 || !got[0].Same(e) || got[0].Out {
			t.Errorf("got %+v, want %+v", got, e)
		}
		l.w.SetIndex(e.Index, e.Member, 0)
	}
	l.w.DropIndex(writ.BlobHolders(hexOfText("site")), string(id))
	l.setRun(func(r *writ.Run) { r.State = writ.RunDone })
	l.w.DropIndex(writ.IndexTodo, todo(todoPurge, string(id)))
	if got := l.wrong(id); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

// What was sent back is not among what the verdict on the run is about, until it is
// made again.
func TestWhatWasSentBackIsNotOfTheRun(t *testing.T) {
	for name, end := range map[string]func(l *lab, id writ.TaskID){
		"sent back": func(l *lab, id writ.TaskID) { l.do("task.verify", l.judge, l.verdict(id, writ.VerdictReject)) },
		"cancelled": func(l *lab, id writ.TaskID) { l.do("task.cancel", l.owner, &TaskCancelArgs{Task: id}) },
	} {
		l := newLab(t)
		l.setRun(func(r *writ.Run) { r.ClosePolicy = writ.CloseVerifier })
		id := l.enqueue("one", makes("x"), judged(2))
		make := func() {
			g := l.claim(l.a, id)
			c := g.complete()
			c.Artifacts = []TaskMade{l.put(l.a, g, "x", "site")}
			l.do("task.complete", l.a, c)
			if all := l.w.Members(writ.RunArtifacts(l.run)); !slices.Equal(all, []string{hexOfText("site") + " " + string(id)}) {
				t.Errorf("%s: made are %v", name, all)
			}
		}
		make()
		end(l, id)
		if all := l.w.Members(writ.RunArtifacts(l.run)); len(all) > 0 {
			t.Errorf("%s: left are %v", name, all)
		}
		if name == "sent back" {
			make()
		}
	}
}

// What a session says it has, of a result or of an artifact, it is held to when it is done
// with the task, as with what it was given.
func TestASessionIsHeldToWhatItSays(t *testing.T) {
	l := newLab(t)
	given := func() []writ.Label {
		got, err := writ.GivenTo(l.w.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.GivenKey(l.a.Session)}}), l.a.Session)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	id := l.enqueue("make", func(a *TaskEnqueueArgs) {
		a.Produces = []TaskProduce{{Name: "x", MediaType: "text/plain", Labels: []writ.Label{writ.LabelExternalUntrusted, writ.LabelInternalSystem}}}
	})
	g := l.claim(l.a, id)
	if had := given(); slices.Contains(had, writ.LabelExternalUntrusted) || slices.Contains(had, writ.LabelPIIAttachment) {
		t.Fatalf("it was given %v", had)
	}
	l.put(l.a, g, "x", "site", func(a *ArtifactPutArgs) { a.Label = writ.LabelExternalUntrusted })
	if had := given(); !slices.Contains(had, writ.LabelExternalUntrusted) {
		t.Errorf("after it was put: %v", had)
	}
	c := g.complete()
	c.Labels = []writ.Label{writ.LabelPIIAttachment}
	l.do("task.complete", l.a, c)
	if had := given(); !slices.Contains(had, writ.LabelPIIAttachment) || !slices.Contains(had, writ.LabelExternalUntrusted) {
		t.Errorf("after it was done: %v", had)
	}
}
