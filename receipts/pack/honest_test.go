package pack

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/writ-gateway/writ"
)

// What an honest gateway does is never said to be tampered with: what cannot be seen in a pack is incomplete.

// signedClose is a run that the judge closes with a verdict of its own key.
func signedClose(t *testing.T) (l *lab, c cast, own ed25519.PrivateKey, begun int64) {
	t.Helper()
	seed := sha256.Sum256([]byte("judge"))
	own = ed25519.NewKeyFromSeed(seed[:])
	l = world(t)
	c = l.cast()
	l.register(c.operator, "", "planner")
	l.register(c.operator, pemOf(t, own), "judge")
	judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
	begun = int64(len(l.list))
	l.begin(c)
	run := "run/" + string(c.run)
	l.do(call{
		what: "task.verify", by: judge, run: c.run, policy: inForce, signed: signs(t, own, l.statement(l.wants("task/"+c.task, acceptsLinted))),
		args:  map[string]any{"receipt_id": l.last["task/"+c.task], "gates": []any{map[string]any{"gate": "lint", "status": "pass"}}},
		moves: []writ.Change{move("task", c.task, "verifying", "done"), move("run", string(c.run), "active", "verifying")},
	})
	l.do(call{
		what: "run.close", by: judge, run: c.run, policy: inForce, signed: signs(t, own, l.statement(l.wants(run, accepts))),
		args: map[string]any{"receipt_id": l.last[run]}, moves: []writ.Change{move("run", string(c.run), "verifying", "done")},
	})
	return l, c, own, begun
}

// Where what a verdict rests on is not in the pack nobody says that it is not good: but whose key the receipt names.
func TestVerdictsNobodyCanRead(t *testing.T) {
	o := node(t)
	l, c, own, _ := signedClose(t)
	mine, others := l.trust(), l.trust()
	mine.Verifiers, others.Verifiers = [][]byte{[]byte(pemOf(t, own))}, [][]byte{[]byte(pemOf(t, privateKey(t, 9)))}
	for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}} {
		l.denied = false
		f := l.export(Options{Scope: scope})
		if a := both(t, o, scope.Kind+"told", f, f, mine, Ask{Run: c.run, Close: true}); a.Exit != 0 || a.Run.Word == WordUnread {
			t.Errorf("%s: got %v, the word of %q", scope.Kind, a.Codes, a.Run.Word)
		}
		l.denied = true
		f = l.export(Options{Scope: scope})
		if a := both(t, o, scope.Kind+"untold", f, f, mine, Ask{Run: c.run, Close: true}); a.Exit != 3 || a.Run.Word != WordUnread {
			t.Errorf("%s: without evidence: got %v, the word of %q", scope.Kind, a.Codes, a.Run.Word)
		}
		if a := both(t, o, scope.Kind+"untold", f, f, others, Ask{Run: c.run, Close: true}); a.Exit != 1 {
			t.Errorf("%s: without evidence, another's key: got %v", scope.Kind, a.Codes)
		}
	}
}

// A pack that begins behind a run says nothing whole of it.
func TestPacksThatBeginBehindARun(t *testing.T) {
	o := node(t)
	l, c, _, begun := signedClose(t)
	child := writ.RunID(ulid("run", 2))
	l.do(call{what: "run.create", by: c.planner, run: child, args: map[string]any{}, moves: []writ.Change{move("run", string(child), "", "active")}})
	end := int64(len(l.list)) - 1
	for first := begun; first <= end; first++ {
		for _, ask := range []Ask{{Run: c.run}, {Run: c.run, Close: true}} {
			f := l.export(Options{Scope: Scope{Kind: ScopeRange, First: first, Last: end}})
			want := "run_gap"
			switch {
			case first == end:
				want = "run_unknown"
			case first == begun && ask.Close:
				want = "lineage_unknown" // the sessions are older
			case first == begun:
				want = ""
			}
			if got := both(t, o, fmt.Sprint("from", first), f, f, l.trust(), ask).each(); got != want {
				t.Errorf("from %d on, %+v: got %q, want %q", first-begun, ask, got, want)
			}
		}
	}
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: child}})
	if a := both(t, o, "another", f, f, l.trust(), Ask{Run: c.run, Close: true}); a.Exit != 3 {
		t.Errorf("the pack of another run: got %v", a.Codes)
	}
}

// Policy may take less of a number than was asked for: of as many verdicts it took as few.
func TestQuorumsThatPolicyLimits(t *testing.T) {
	o := node(t)
	limit := func(argument string, most any) map[string]any {
		return map[string]any{"argument": argument, "max": most}
	}
	for name, x := range map[string]struct {
		limited any
		want    string
	}{
		"to one":               {[]any{limit("close_quorum", 1)}, ""},
		"to two":               {[]any{limit("close_quorum", 2)}, "quorum_missing"},
		"to more":              {[]any{limit("close_quorum", 7)}, "quorum_missing"},
		"twice":                {[]any{limit("close_quorum", 2), limit("close_quorum", 1), limit("close_quorum", 3)}, ""},
		"another":              {[]any{limit("steps", 1), nil}, "quorum_missing"},
		"not":                  {[]any{}, "quorum_missing"},
		"to none":              {[]any{limit("close_quorum", 0)}, "evidence_missing"},
		"to a part":            {[]any{limit("close_quorum", 1.5)}, "evidence_missing"},
		"to a word":            {[]any{limit("close_quorum", "1")}, "evidence_missing"},
		"to what is no number": {[]any{limit("close_quorum", json.Number("1e999"))}, "evidence_missing"},
		"as a word":            {"close_quorum", "evidence_missing"},
		"to nothing said":      {[]any{map[string]any{"argument": "close_quorum"}}, "evidence_missing"},
		"where none is asked":  {[]any{limit("close_quorum", -1)}, ""},
	} {
		var asked any = 3
		if name == "where none is asked" {
			asked = nil
		}
		l := world(t)
		c := l.cast()
		l.register(c.operator, "", "planner")
		run := func(x call) { x.run = c.run; l.do(x) }
		run(call{what: "run.create", by: c.planner, args: map[string]any{"close_policy": "verifier", "close_quorum": asked}, limited: x.limited, moves: []writ.Change{move("run", string(c.run), "", "active")}})
		run(call{what: "task.enqueue", by: c.planner, args: map[string]any{"key": "one", "capability": "site.build"}, moves: []writ.Change{move("task", c.task, "", "queued")}})
		run(call{what: "task.claim", by: c.worker, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "queued", "running")}})
		run(call{what: "task.complete", by: c.worker, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "running", "done"), move("run", string(c.run), "active", "verifying")}})
		run(call{what: "run.close", by: c.judge, args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]}, moves: []writ.Change{move("run", string(c.run), "verifying", "done")}})
		l.judged(t, o, name, c.run, x.want, x.want)
	}
}

// Of a run that is cancelled or has failed what is under way is told to stop, and stops later.
func TestWhatStopsAfterTheEnd(t *testing.T) {
	o := node(t)
	for _, end := range []string{"cancelled", "failed"} {
		l := world(t)
		c := l.cast()
		l.register(c.operator, "", "planner")
		run := func(what, kind, id, from, to string) {
			l.do(call{what: what, by: c.operator, run: c.run, args: map[string]any{"close_policy": "manual"}, moves: []writ.Change{move(kind, id, from, to)}})
		}
		run("run.create", "run", string(c.run), "", "active")
		l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "one"}, moves: []writ.Change{move("task", c.task, "", "queued")}})
		run("task.claim", "task", c.task, "queued", "running")
		run("run.cancel", "run", string(c.run), "active", end)
		run("task.cancel", "task", c.task, "running", "running")
		run("task.park", "task", c.task, "running", "parked")
		run("task.resume", "task", c.task, "parked", "running")
		run("task.fail", "task", c.task, "running", "cancelled")
		l.judged(t, o, end, c.run, "", "")
		l.do(call{what: "task.enqueue", by: c.planner, run: c.run, args: map[string]any{"key": "two"}, moves: []writ.Change{move("task", ulid("tsk", 6), "", "queued")}})
		l.judged(t, o, end+" and goes on", c.run, "run_after_end", "run_after_end")
	}
}

// What a gateway that is not honest gains by that is nothing: a range does not hide what came before the run, nor does
// evidence that nobody can read a signature that does not hold.
func TestWhatIsNotThereHidesNothing(t *testing.T) {
	o := node(t)
	run := func(l *lab, c cast, what string, by writ.Actor, moves ...writ.Change) {
		l.do(call{what: what, by: by, run: c.run, args: map[string]any{"key": "one", "capability": "site.build", "close_policy": "verifier"}, moves: moves})
	}
	for name, before := range map[string]func(l *lab, c cast, judge writ.Actor){
		"worked in": func(l *lab, c cast, judge writ.Actor) {
			run(l, c, "task.enqueue", judge, move("task", ulid("tsk", 6), "", "queued"))
			run(l, c, "task.claim", judge, move("task", ulid("tsk", 6), "queued", "running"))
		},
		"made": func(l *lab, c cast, judge writ.Actor) {
			run(l, c, "run.create", judge, move("run", string(c.run), "", "active"))
		},
	} {
		l := world(t)
		c := l.cast()
		before(l, c, c.judge)
		from := int64(len(l.list))
		c.operator = l.open(system, ses(11), "operator", writ.KindHuman, writ.RoleOperator, "", "")
		l.register(c.operator, "", "planner", "worker")
		c.planner = l.open(c.operator, ses(12), "planner", writ.KindAgent, writ.RoleOrchestrator, "planner", "")
		c.worker = l.open(c.operator, ses(13), "worker", writ.KindAgent, writ.RoleExecutor, "worker", "")
		judge := l.open(c.operator, ses(14), "vera", writ.KindHuman, writ.RoleVerifier, "", "")
		l.begin(c)
		l.accept(c, judge)
		for _, first := range []int64{from, from - 1} {
			f := l.export(Options{Scope: Scope{Kind: ScopeRange, First: first, Last: int64(len(l.list)) - 1}})
			if got := both(t, o, fmt.Sprint(name, first), f, f, l.trust(), Ask{Run: c.run, Close: true}).each(); got != "run_begin run_gap" && got != "move_from" {
				t.Errorf("%s before, from %d on: got %q", name, first-from, got)
			}
		}
	}

	own, another := ed25519.NewKeyFromSeed(sha256Of([]byte("judge"))), privateKey(t, 9)
	for name, keys := range map[string][]string{"whose keys one can read": {pemOf(t, own)}, "whose keys nobody can read": {pemOf(t, own), "no key"}} {
		l := world(t)
		c := l.cast()
		l.register(c.operator, "", "planner")
		l.declares(c.operator, "judge", map[string]any{"keys": keys})
		judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
		l.begin(c)
		l.do(call{what: "task.cancel", by: c.operator, run: c.run, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "verifying", "cancelled"), move("run", string(c.run), "active", "verifying")}})
		forged := signs(t, another, l.statement(l.wants("run/"+string(c.run), accepts)))
		forged.KeyID = signs(t, own, forged.Payload).KeyID
		l.do(call{
			what: "run.close", by: judge, run: c.run, policy: inForce, signed: forged,
			args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]}, moves: []writ.Change{move("run", string(c.run), "verifying", "done")},
		})
		trust := l.trust()
		trust.Verifiers = [][]byte{[]byte(pemOf(t, own))}
		want := "verdict_signature verdict_untrusted"
		if len(keys) > 1 {
			want = "lineage_unknown " + want
		}
		for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}} {
			f := l.export(Options{Scope: scope})
			if got := both(t, o, scope.Kind+name, f, f, trust, Ask{Run: c.run, Close: true}).each(); got != want {
				t.Errorf("forged by one %s, %s: got %q, want %q", name, scope.Kind, got, want)
			}
		}
	}
}
