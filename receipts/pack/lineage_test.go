package pack

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// Whoever said how a call was to be made, which another then changed once more, had a part in it, too.
func TestWhoSaidFirst(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner")
	l.begin(c)
	second := ulid("tsk", 2)
	apr := func(n int) string { return ulid("apr", n) }
	modifies := func(by writ.Actor, n int) {
		l.do(call{
			what: "approval.decide", by: by, args: map[string]any{"decision": "modify"},
			moves: []writ.Change{move("approval", apr(n), "pending", "superseded"), move("approval", apr(n+1), "", "pending")},
		})
	}
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, request: true, args: map[string]any{}, moves: []writ.Change{move("approval", apr(1), "", "pending")}})
	first := len(l.list)
	modifies(c.judge, 1)
	modifies(c.operator, 2)
	l.do(call{what: "approval.decide", by: c.operator, args: map[string]any{"decision": "approve"}, moves: []writ.Change{move("approval", apr(3), "pending", "approved")}})
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "", "queued"), move("approval", apr(3), "approved", "consumed")}})
	l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "cancelled")}})
	l.accept(c, c.judge)
	l.leftOut(t, o, c.run, map[int]string{-1: "lineage_controller lineage_session", first: "lineage_unknown"})
}

// Who said how a call was made is known from how its approval came to be: where that is taken
// from the pack of a run nobody can say that it was not who judges.
func TestHowAnApprovalCameToBe(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.begin(c)
	asked, second := ulid("apr", 1), ulid("tsk", 2)
	at := len(l.list)
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, request: true, args: map[string]any{}, moves: []writ.Change{{Kind: "approval", ID: asked, To: "pending"}}})
	l.do(call{what: "approval.decide", by: c.operator, args: map[string]any{"decision": "approve"}, moves: []writ.Change{{Kind: "approval", ID: asked, From: "pending", To: "approved"}}})
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{{Kind: "task", ID: second, To: "queued"}, {Kind: "approval", ID: asked, From: "approved", To: "consumed"}}})
	l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{{Kind: "task", ID: second, From: "queued", To: "cancelled"}}})
	l.accept(c, c.judge)
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	for seq, want := range map[int]string{at: "lineage_unknown", -1: ""} {
		changed := f
		if seq >= 0 {
			changed = f.with(l.without(seq))
		}
		a := both(t, o, "asked", f, changed, l.trust(), Ask{Run: c.run, Close: true})
		found := slices.ContainsFunc(a.Codes, func(s string) bool { return strings.HasPrefix(s, "lineage_unknown@") })
		if found != (want != "") || (want == "") != (a.Exit == 0) {
			t.Errorf("without %d: got %v", seq, a.Codes)
		}
	}
}

// With which keys somebody judges is told by evidence, and where that is not there nobody
// says that they are others than those of who worked.
func TestKeysThatNobodyTells(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner")
	first := len(l.list)
	l.register(c.operator, string(l.pub()), "worker", "judge")
	l.do(call{what: "agent.register", by: c.operator, args: map[string]any{"agent_id": "planner"}, moves: []writ.Change{move("agent", "planner", "planned", "planned")}})
	begun := int64(len(l.list))
	l.begin(c)
	l.accept(c, l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera"))
	mute := func(seqs ...int) func(files) {
		return func(p files) {
			p[FileManifest] = bytes.Replace(p[FileManifest], []byte(`"evidence":true`), []byte(`"evidence":false`), 1)
			for _, n := range seqs {
				delete(p, evidenceName(int64(n)))
			}
		}
	}
	for name, x := range map[string]struct {
		scope  Scope
		change func(files)
		want   string
	}{
		"all is there":                      {Scope{Kind: ScopeLog}, func(files) {}, "lineage_key verdict_unsigned"},
		"not what the worker has":           {Scope{Kind: ScopeLog}, mute(first), "lineage_unknown verdict_unsigned"},
		"not what the judge has":            {Scope{Kind: ScopeLog}, mute(first + 1), "lineage_unknown"},
		"not what the planner had first":    {Scope{Kind: ScopeLog}, mute(first - 1), "lineage_key verdict_unsigned"},
		"not what the planner has now":      {Scope{Kind: ScopeLog}, mute(first + 2), "lineage_key lineage_unknown verdict_unsigned"},
		"in the pack of a run":              {Scope{Kind: ScopeRun, Run: c.run}, mute(first, first+1), "lineage_unknown"},
		"in the pack of a run, cut out":     {Scope{Kind: ScopeRun, Run: c.run}, l.without(first, first+1), "lineage_unknown parent_missing"},
		"the first of the planner, cut out": {Scope{Kind: ScopeRun, Run: c.run}, l.without(first - 1), "lineage_key verdict_unsigned"},
		"in a range that begins behind":     {Scope{Kind: ScopeRange, First: begun, Last: int64(len(l.list)) - 1}, func(files) {}, "lineage_unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			f := l.export(Options{Scope: x.scope})
			a := both(t, o, name, f, f.with(x.change), l.trust(), Ask{Run: c.run, Close: true})
			if got := a.each(); got != x.want {
				t.Errorf("got %q, want %q", got, x.want)
			}
		})
	}
	// A key that cannot be read is one that nobody knows, and more of them than any agent has are none.
	five := []string{string(l.pub()), string(l.pub()), string(l.pub()), string(l.pub()), string(l.pub())}
	for name, keys := range map[string][]string{"unread": {"no key"}, "many": five} {
		l = world(t)
		c = l.cast()
		l.register(c.operator, "", "planner", "worker")
		l.declares(c.operator, "judge", map[string]any{"keys": keys})
		l.begin(c)
		l.accept(c, l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera"))
		l.judged(t, o, name, c.run, "lineage_unknown", "lineage_unknown")
	}
}

// A verdict may name a task of which it is itself the first that the pack of a run has.
func TestAVerdictThatNamesItsOwnTask(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.do(call{what: "run.create", by: c.planner, run: c.run, args: map[string]any{"close_policy": "verifier"}, moves: []writ.Change{move("run", string(c.run), "", "active")}})
	l.do(call{what: "task.enqueue", by: c.planner, run: writ.RunID(ulid("run", 5)), args: map[string]any{}, moves: []writ.Change{move("task", c.task, "", "queued")}})
	l.do(call{
		what: "task.verify", by: c.judge, run: c.run, moves: []writ.Change{move("task", c.task, "verifying", "done")},
		args: map[string]any{"receipt_id": "rcp_x", "tasks": []any{map[string]any{"task_id": c.task, "receipt_id": "rcp_x"}}},
	})
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	if a := both(t, o, "own", f, f, l.trust(), Ask{Run: c.run, Close: true}); a.each() != "run_open" { // it is no task of this run
		t.Errorf("got %v", a.Codes)
	}
}

// A registration that was in force is missed where it is left out of the pack of a run: what the agent
// did names the last change of its entry, and each of those the one before. Those of before say nothing
// of who acted.
func TestRegistrationsLeftOut(t *testing.T) {
	o := node(t)
	at := map[string]int{}
	play := func(silent string) (*lab, cast) {
		l := world(t)
		l.silent = silent
		c := l.cast()
		declares := func(name, agent string, more map[string]any) {
			at[name] = len(l.list)
			l.declares(c.operator, agent, more)
		}
		declares("planner's only", "planner", map[string]any{})
		declares("worker's before the last", "worker", map[string]any{"keys": []string{string(l.pub())}})
		declares("worker's last", "worker", map[string]any{})
		declares("judge's first", "judge", map[string]any{})
		declares("judge's last", "judge", map[string]any{})
		at["judge's activation"] = len(l.list)
		l.do(call{what: "agent.activate", by: c.operator, args: map[string]any{"agent_id": "judge"}, moves: []writ.Change{move("agent", "judge", "planned", "active")}})
		judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
		l.begin(c)
		for what, by := range map[string]writ.Actor{"task.complete": c.worker, "task.verify": judge} { // refused before anybody looked who calls
			l.silent = what
			l.do(call{what: what, by: by, run: c.run, code: writ.CodePolicy})
		}
		l.silent = silent
		l.accept(c, judge)
		return l, c
	}
	l, c := play("")
	at["nothing"] = -1
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	for name, want := range map[string]string{
		"nothing":                  "",
		"planner's only":           "lineage_unknown parent_missing",
		"worker's before the last": "",
		"worker's last":            "lineage_unknown parent_missing",
		"judge's first":            "",
		"judge's last":             "lineage_unknown",
		"judge's activation":       "lineage_unknown parent_missing",
	} {
		if got := both(t, o, name, f, f.with(l.without(at[name])), l.trust(), Ask{Run: c.run, Close: true}).each(); got != want {
			t.Errorf("without %s: got %q, want %q", name, got, want)
		}
	}
	// Where receipts name none, only the whole log tells.
	for silent, want := range map[string]string{
		"run.create": "lineage_unknown", "task.enqueue": "", "task.claim": "lineage_unknown", "task.complete": "lineage_unknown", "task.verify": "lineage_unknown", "run.close": "lineage_unknown",
	} {
		l, c := play(silent)
		l.judged(t, o, silent, c.run, "", want)
	}
}

// Whatever else is said to have acted in a session, who acted in it first had a part.
func TestPartsAreNotTakenBack(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner", "nobody")
	judge := l.open(c.operator, ses(9), "jane", writ.KindAgent, writ.RoleVerifier, "worker", "joe")
	l.begin(c)
	as := c.worker
	as.Agent = "nobody"
	l.do(call{what: "task.heartbeat", by: as, run: c.run, args: map[string]any{}, moves: []writ.Change{move("run", string(c.run), "active", "active")}})
	l.accept(c, judge)
	l.judged(t, o, "", c.run, "lineage_agent", "lineage_agent")
}

// Who had a part is known by the keys its agent had then, as the gateway has it: what it was registered with
// before says nothing of that, as where a key was another's by mistake and was taken away again.
func TestKeysOfBefore(t *testing.T) {
	o := node(t)
	for name, keys := range map[string][]string{"the judge's was the worker's": {"worker", "judge"}, "the worker's was the judge's": {"judge", "worker"}} {
		l := world(t)
		c := l.cast()
		key := string(l.pub())
		l.register(c.operator, "", "planner")
		l.register(c.operator, key, keys[0])
		l.register(c.operator, "", keys[0])
		l.register(c.operator, key, keys[1])
		judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
		l.begin(c)
		l.accept(c, judge)
		want := ""
		if keys[1] == "judge" {
			want = "verdict_unsigned"
		}
		l.judged(t, o, name, c.run, want, want)
	}
}

// What is registered later says nothing either, so a log and the pack of a run say the same.
func TestKeysOfLater(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	key := string(l.pub())
	l.register(c.operator, "", "planner")
	l.register(c.operator, key, "judge")
	judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
	l.begin(c)
	l.register(c.operator, key, "worker")
	l.do(call{what: "task.heartbeat", by: c.worker, run: c.run, args: map[string]any{}, moves: []writ.Change{move("run", string(c.run), "active", "active")}})
	l.accept(c, judge)
	l.judged(t, o, "", c.run, "verdict_unsigned", "verdict_unsigned")
}

// Whoever does the work of a run has a part in it, whatever the receipt that says so is named, and
// wherever it is filed.
func TestWhoeverWorks(t *testing.T) {
	o := node(t)
	for name, x := range map[string]struct {
		run  writ.RunID
		what string
	}{
		"by another name":     {writ.RunID(ulid("run", 1)), "task.admit"},
		"filed nowhere":       {"", "task.claim"},
		"filed under another": {writ.RunID(ulid("run", 2)), "task.claim"},
	} {
		l := world(t)
		c := l.cast()
		l.register(c.operator, "", "planner")
		l.do(call{what: "run.create", by: c.planner, run: writ.RunID(ulid("run", 2)), args: map[string]any{}, moves: []writ.Change{move("run", ulid("run", 2), "", "active")}})
		l.do(call{what: "run.create", by: c.planner, run: c.run, args: map[string]any{"close_policy": "verifier"}, moves: []writ.Change{move("run", string(c.run), "", "active")}})
		l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "one", "capability": "site.build", "verify": map[string]any{"required": true}}, moves: []writ.Change{move("task", c.task, "", "queued")}})
		end := x.what
		if end == "task.claim" {
			end = "task.complete"
		}
		l.do(call{what: x.what, by: c.judge, run: x.run, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "queued", "running")}})
		l.do(call{what: end, by: c.judge, run: x.run, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "running", "verifying")}})
		l.accept(c, c.judge)
		l.judged(t, o, name, c.run, "lineage_controller lineage_session", "lineage_controller lineage_session")
	}
}

// A sweep through several runs is filed under none of them. What it did to the tasks of one is in its pack,
// and where that was left out nobody can say that the task is open.
func TestSweepsAreInThePackOfARun(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner")
	l.begin(c)
	second := ulid("tsk", 2)
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "two", "capability": "site.build"}, moves: []writ.Change{move("task", second, "", "queued")}})
	swept := len(l.list)
	l.do(call{what: "task.recall", by: system, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "cancelled")}})
	l.accept(c, c.judge)
	l.leftOut(t, o, c.run, map[int]string{-1: "", swept: "run_tasks_gap"})
}

// A sweep through several runs can be filed under one of them: the tasks of others that it moves are not that one's.
func TestASweepFiledUnderARun(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner")
	other, theirs, left := writ.RunID(ulid("run", 2)), ulid("tsk", 7), ulid("tsk", 8)
	l.do(call{what: "run.create", by: c.planner, run: other, args: map[string]any{}, moves: []writ.Change{move("run", string(other), "", "active")}})
	l.do(call{what: "task.enqueue", by: c.planner, run: other, args: map[string]any{"key": "theirs", "capability": "site.build"}, moves: []writ.Change{move("task", theirs, "", "queued")}})
	l.do(call{what: "task.claim", by: c.worker, run: other, args: map[string]any{}, moves: []writ.Change{move("task", theirs, "queued", "running")}})
	l.begin(c)
	l.do(call{what: "task.verify", by: c.judge, run: c.run, moves: []writ.Change{move("task", c.task, "verifying", "done")}, args: map[string]any{"receipt_id": l.last["task/"+c.task], "gates": []any{map[string]any{"gate": "lint", "status": "pass"}}}})
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "left", "capability": "site.build"}, moves: []writ.Change{move("task", left, "", "queued")}})
	l.do(call{what: "session.cleanup", by: system, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", left, "queued", "cancelled"), move("task", theirs, "running", "queued"), move("run", string(c.run), "active", "verifying")}})
	l.do(call{what: "task.claim", by: c.worker, run: other, args: map[string]any{}, moves: []writ.Change{move("task", theirs, "queued", "running")}})
	l.do(call{what: "run.close", by: c.judge, run: c.run, moves: []writ.Change{move("run", string(c.run), "verifying", "done")}, args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]}})
	l.do(call{what: "task.complete", by: c.worker, run: other, args: map[string]any{}, moves: []writ.Change{move("task", theirs, "running", "done")}})
	l.judged(t, o, "", c.run, "", "")
}

// What is done in the receipt that ends a run, or behind it, the verdict did not see.
func TestWhatIsDoneAtTheEnd(t *testing.T) {
	o := node(t)
	for name, x := range map[string]struct {
		with bool
		log  string
	}{"with it": {true, "verdict_stale"}, "behind it": {false, "run_tasks_open"}} {
		l := world(t)
		c := l.cast()
		l.register(c.operator, "", "planner")
		left := ulid("tsk", 8)
		l.begin(c)
		l.do(call{what: "task.verify", by: c.judge, run: c.run, moves: []writ.Change{move("task", c.task, "verifying", "done")}, args: map[string]any{"receipt_id": l.last["task/"+c.task], "gates": []any{map[string]any{"gate": "lint", "status": "pass"}}}})
		l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "left", "capability": "site.build"}, moves: []writ.Change{move("task", left, "", "queued")}})
		l.do(call{what: "task.claim", by: c.worker, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", left, "queued", "running")}})
		l.do(call{what: "run.seal", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("run", string(c.run), "active", "verifying")}})
		end := call{what: "run.close", by: c.judge, run: c.run, moves: []writ.Change{move("run", string(c.run), "verifying", "done")}, args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]}}
		done := move("task", left, "running", "cancelled")
		if x.with {
			end.moves = append(end.moves, done)
		}
		l.do(end)
		if !x.with {
			l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{done}})
		}
		l.judged(t, o, name, c.run, x.log, strings.Replace(x.log, "open", "gap", 1))
	}
}

// What comes out of itself comes out of nothing.
func TestATaskRevivedFromItself(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	l.register(c.operator, "", "planner")
	l.begin(c)
	self := ulid("tsk", 2)
	l.do(call{what: "task.revive", by: c.planner, run: c.run, args: map[string]any{"task_id": self, "key": "two"}, moves: []writ.Change{move("task", self, "", "queued")}})
	l.do(call{what: "task.cancel", by: c.planner, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", self, "queued", "cancelled")}})
	l.accept(c, c.judge)
	f := l.export(Options{})
	if got := both(t, o, "itself", f, f, l.trust(), Ask{Run: c.run, Close: true}).each(); got != "evidence_missing" {
		t.Errorf("got %q", got)
	}
}

// Whoever does something for a run has a part in it, however the gateway says that it was done.
func TestPartsThatAreSaidOddly(t *testing.T) {
	o := node(t)
	other, second, asked, next := writ.RunID(ulid("run", 2)), ulid("tsk", 6), ulid("apr", 1), ulid("apr", 2)
	create := func(l *lab, by writ.Actor, under, run writ.RunID) {
		l.do(call{what: "run.create", by: by, run: under, args: map[string]any{"close_policy": "verifier"}, moves: []writ.Change{move("run", string(run), "", "active")}})
	}
	work := func(l *lab, by writ.Actor, run writ.RunID, task string, end string) {
		l.do(call{what: "task.claim", by: by, run: run, args: map[string]any{}, moves: []writ.Change{move("task", task, "queued", "running")}})
		l.do(call{what: "task.complete", by: by, run: run, args: map[string]any{}, moves: []writ.Change{move("task", task, "running", end)}})
	}
	enqueue := func(l *lab, what string, by writ.Actor, run writ.RunID, task string, verify bool) {
		l.do(call{what: what, by: by, run: run, args: map[string]any{"key": "k" + task[len(task)-1:], "capability": "site.build", "verify": map[string]any{"required": verify}}, moves: []writ.Change{move("task", task, "", "queued")}})
	}
	for name, x := range map[string]struct {
		play func(l *lab, c cast, judge writ.Actor)
		want string // in the whole log
	}{
		"without a session": {func(l *lab, c cast, judge writ.Actor) {
			create(l, c.planner, c.run, c.run)
			enqueue(l, "task.enqueue", c.planner, c.run, c.task, true)
			work(l, writ.Actor{Agent: "judge", Kind: writ.KindAgent, Role: writ.RoleExecutor}, c.run, c.task, "verifying")
		}, "lineage_agent lineage_unknown"},
		"as the gateway, and an agent": {func(l *lab, c cast, judge writ.Actor) {
			create(l, c.planner, c.run, c.run)
			enqueue(l, "task.enqueue", c.planner, c.run, c.task, true)
			work(l, writ.Actor{Agent: "judge", Kind: writ.KindSystem, Role: writ.RoleSystem}, c.run, c.task, "verifying")
		}, "lineage_agent lineage_unknown"},
		"as the gateway": {func(l *lab, c cast, judge writ.Actor) {
			create(l, c.planner, c.run, c.run)
			enqueue(l, "task.enqueue", system, c.run, c.task, true)
			work(l, c.worker, c.run, c.task, "verifying")
		}, ""},
		"in a run that is in this one, and this one in it": {func(l *lab, c cast, judge writ.Actor) {
			create(l, c.planner, other, c.run)
			create(l, c.planner, c.run, other)
			enqueue(l, "task.enqueue", c.planner, other, second, false)
			work(l, judge, other, second, "done")
			enqueue(l, "task.enqueue", c.planner, c.run, c.task, true)
			work(l, c.worker, c.run, c.task, "verifying")
		}, "lineage_agent lineage_controller lineage_session"},
		"by another word, in a run in this one": {func(l *lab, c cast, judge writ.Actor) {
			create(l, c.planner, c.run, c.run)
			create(l, c.planner, c.run, other)
			enqueue(l, "task.admit", judge, other, second, false)
			enqueue(l, "task.enqueue", c.planner, c.run, c.task, true)
			work(l, c.worker, c.run, c.task, "verifying")
		}, "lineage_agent lineage_controller lineage_session"},
		"by another word on how it is done": {func(l *lab, c cast, judge writ.Actor) {
			create(l, c.planner, c.run, c.run)
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, request: true, args: map[string]any{}, moves: []writ.Change{{Kind: "approval", ID: asked, To: "pending"}}})
			l.do(call{what: "approval.respond", by: judge, args: map[string]any{}, moves: []writ.Change{{Kind: "approval", ID: asked, From: "pending", To: "superseded"}, {Kind: "approval", ID: next, To: "pending"}}})
			l.do(call{what: "approval.decide", by: c.operator, args: map[string]any{}, moves: []writ.Change{{Kind: "approval", ID: next, From: "pending", To: "approved"}}})
			l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "one", "capability": "site.build", "verify": map[string]any{"required": true}}, moves: []writ.Change{move("task", c.task, "", "queued"), {Kind: "approval", ID: next, From: "approved", To: "consumed"}}})
			work(l, c.worker, c.run, c.task, "verifying")
		}, "lineage_agent lineage_controller lineage_session"},
	} {
		t.Run(name, func(t *testing.T) {
			l := world(t)
			c := l.cast()
			l.register(c.operator, "", "planner", "judge")
			judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
			x.play(l, c, judge)
			l.accept(c, judge)
			ofRun := x.want
			if strings.Contains(name, "in a run") { // the pack of a run tells of that one only
				ofRun = ""
			}
			l.judged(t, o, name, c.run, x.want, ofRun)
		})
	}
}

// A session is opened once, whatever else the pack has of it: by a second time nobody takes back who is behind it.
func TestASessionIsOpenedOnce(t *testing.T) {
	o := node(t)
	for _, what := range []string{"session", "agent"} {
		l := world(t)
		c := l.cast()
		l.register(c.operator, "", "planner", "judge")
		judge := l.opens(c.operator, ses(9), "worker", writ.KindAgent, writ.RoleVerifier, "judge", "worker")
		if what == "session" {
			judge = l.opens(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
		} else {
			l.do(call{what: "agent.register", by: c.operator, args: map[string]any{"agent_id": "judge"}, moves: []writ.Change{move("agent", "judge", "", "planned")}})
		}
		l.begin(c)
		l.accept(c, judge)
		l.judged(t, o, what, c.run, "move_from", "move_from")
	}
}

// Who has a part already, and plans on with other keys, is known by those it had first, as the gateway has it: so a
// registration that its receipt does not name says nothing, and is not missed.
func TestWhoPlansOn(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	key := string(l.pub())
	l.register(c.operator, "", "planner")
	l.register(c.operator, key, "judge")
	judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
	l.begin(c)
	l.register(c.operator, key, "planner")
	l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "two", "capability": "site.build"}, moves: []writ.Change{move("task", ulid("tsk", 6), "", "queued")}})
	l.do(call{what: "task.cancel", by: c.operator, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", ulid("tsk", 6), "queued", "cancelled")}})
	l.register(c.operator, "", "planner")
	l.accept(c, judge)
	l.judged(t, o, "", c.run, "verdict_unsigned", "verdict_unsigned")
}
