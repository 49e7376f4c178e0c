package queue

import (
	"reflect"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// Every verb about one task refuses when If-Match names another version.
func TestIfMatch(t *testing.T) {
	for _, v := range []struct {
		id   writ.CapabilityID
		from writ.TaskState
		by   func(*lab) writ.Caller
		args func(grip) any
	}{
		{"task.cancel", writ.TaskQueued, func(l *lab) writ.Caller { return l.owner }, func(g grip) any { return &TaskCancelArgs{Task: g.task} }},
		{"task.cancel", writ.TaskRunning, func(l *lab) writ.Caller { return l.owner }, func(g grip) any { return &TaskCancelArgs{Task: g.task} }},
		{"task.claim", writ.TaskQueued, func(l *lab) writ.Caller { return l.a }, func(g grip) any { return &TaskClaimArgs{Task: g.task} }},
		{"task.complete", writ.TaskRunning, func(l *lab) writ.Caller { return l.a }, func(g grip) any { return g.complete() }},
		{"task.fail", writ.TaskRunning, func(l *lab) writ.Caller { return l.a }, func(g grip) any { return g.fail(false) }},
		{"task.release", writ.TaskRunning, func(l *lab) writ.Caller { return l.a }, func(g grip) any { return g.release() }},
		{"task.heartbeat", writ.TaskRunning, func(l *lab) writ.Caller { return l.a }, func(g grip) any { return g.beat() }},
	} {
		t.Run(string(v.id)+"/"+string(v.from), func(t *testing.T) {
			l := newLab(t)
			g := bring(l, v.from)
			_, version, _ := writtest.Get[writ.Task](l.w, writ.TaskKey(g.task))
			for _, c := range []struct {
				named int64
				want  writ.Code
			}{{version - 1, writ.CodeVersion}, {version + 1, writ.CodeVersion}, {version, ""}} {
				call := l.w.NewCall(l.caps[v.id], v.by(l), v.args(g))
				call.IfVersion = c.named
				if _, _, err := l.w.Do(l.caps[v.id], call); writ.CodeOf(err) != c.want {
					t.Fatalf("named %d of %d: got %v, want %q", c.named, version, err, c.want)
				}
			}
			audit(l)
		})
	}
}

// A completion that is repeated with the If-Match it was made with is the same
// completion.
func TestIfMatchOfARepeatedCompletion(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	for range 2 {
		call := l.w.NewCall(l.caps["task.complete"], l.a, g.complete())
		call.IfVersion = g.fence
		if _, _, err := l.w.Do(l.caps["task.complete"], call); err != nil {
			t.Fatal(err)
		}
	}
}

// A poll names no task: what its If-Match says is not about the one it gets.
func TestIfMatchOfAPoll(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one")
	call := l.w.NewCall(l.caps["task.claim"], l.a, &TaskClaimArgs{Task: id})
	call.IfVersion, call.Entry = 1, entry(l.lane(), id)
	if _, _, err := l.w.Do(l.caps["task.claim"], call); err != nil {
		t.Fatal(err)
	}
}

// Receipts state the fence of every call that carries one, and it is one that
// canonical JSON can state.
func TestFenceCarried(t *testing.T) {
	found := 0
	for _, c := range Capabilities(Config{}) {
		f, ok := c.Args.FieldByName("Fence")
		if !ok {
			continue
		}
		found++
		args := reflect.New(c.Args)
		args.Elem().FieldByName("Fence").SetInt(41)
		if a, ok := args.Interface().(interface{ FenceCarried() int64 }); !ok || a.FenceCarried() != 41 {
			t.Errorf("the receipts of %s do not state its fence", c.ID)
		}
		if got := f.Tag.Get("maximum"); got != "9007199254740991" {
			t.Errorf("%s: the maximum of fence is %q", c.ID, got)
		}
	}
	if found != 7 {
		t.Fatalf("%d verbs carry a fence, want 7", found)
	}
}
