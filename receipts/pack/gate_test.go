package pack

import (
	"bytes"
	"testing"

	"github.com/writ-gateway/writ"
)

// A result passes a gate by the receipt of a task of that gate: somebody else's, begun after
// it, of an agent that has the gate as a tool, and the last word on it.
func TestResultsPassTheirGates(t *testing.T) {
	o := node(t)
	const lint = "site.lint"
	tool := func(name string, gate bool) map[string]any { return map[string]any{"name": name, "gate": gate} }
	asks := func(gates ...string) map[string]any { return map[string]any{"gates": gates} }
	// shop is a lab with somebody who checks.
	type shop struct {
		*lab
		cast
		checker writ.Actor
	}
	// task makes one, that depends on what the first gave unless args say otherwise.
	task := func(h shop, n int, args map[string]any) (id string) {
		id = ulid("tsk", n)
		if args["capability"] == nil {
			args["capability"] = lint
		}
		if args["depends_on"] == nil {
			args["depends_on"] = []any{map[string]any{"key": "one", "when": "given"}}
		}
		h.do(call{what: "task.enqueue", by: h.planner, run: h.run, args: args, moves: []writ.Change{move("task", id, "", "queued")}})
		return id
	}
	claims := func(h shop, id string, by writ.Actor) {
		h.do(call{what: "task.claim", by: by, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", id, "queued", "running")}})
	}
	ends := func(h shop, id string, by writ.Actor, gate any) writ.ReceiptID {
		args := map[string]any{}
		if gate != nil {
			args["gate"] = gate
		}
		return h.do(call{what: "task.complete", by: by, run: h.run, args: args, moves: []writ.Change{move("task", id, "running", "done")}})
	}
	looks := func(h shop, n int, by writ.Actor, says any, args map[string]any) writ.ReceiptID {
		id := task(h, n, args)
		claims(h, id, by)
		return ends(h, id, by, says)
	}
	plain := func() map[string]any { return map[string]any{} }
	look := func(h shop) writ.ReceiptID { return looks(h, 2, h.checker, "pass", plain()) }
	cited := func(receipt writ.ReceiptID) map[string]any {
		return map[string]any{"gate": lint, "status": "pass", "receipt_id": receipt}
	}
	accepts := func(h shop, gates ...any) {
		h.do(call{
			what: "task.verify", by: h.judge, run: h.run, args: map[string]any{"receipt_id": h.last["task/"+h.task], "gates": gates},
			moves: []writ.Change{move("task", h.task, "verifying", "done"), move("run", string(h.run), "active", "verifying")},
		})
		h.do(call{what: "run.close", by: h.judge, run: h.run, args: map[string]any{"receipt_id": h.last["run/"+string(h.run)]}, moves: []writ.Change{move("run", string(h.run), "verifying", "done")}})
	}
	again := func(h shop) { // it is sent back and done once more
		h.do(call{what: "task.verify", by: h.judge, run: h.run, args: map[string]any{"receipt_id": h.last["task/"+h.task], "reasons": []string{"incomplete"}}, moves: []writ.Change{move("task", h.task, "verifying", "queued")}})
		claims(h, h.task, h.worker)
		h.do(call{what: "task.complete", by: h.worker, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", h.task, "running", "verifying")}})
	}
	// by has somebody else look.
	by := func(who func(h shop) writ.Actor) func(h shop) {
		return func(h shop) { accepts(h, cited(looks(h, 2, who(h), "pass", plain()))) }
	}
	worksWith := func(more map[string]any) func(h shop) { return func(h shop) { h.declares(h.operator, "worker", more) } }
	nothing := func(shop) {}
	for name, x := range map[string]struct {
		before func(h shop)
		gates  []string // that the task names
		play   func(h shop)
		want   string
	}{
		"it passes":            {nothing, []string{lint}, func(h shop) { accepts(h, cited(look(h))) }, ""},
		"nobody looked":        {nothing, []string{lint}, func(h shop) { accepts(h) }, "gate_missing"},
		"nobody looked, cited": {nothing, []string{lint}, func(h shop) { accepts(h, cited(writ.ReceiptID(ulid("rcp", 999)))) }, "gate_missing"},
		"it is not cited":      {nothing, []string{lint}, func(h shop) { look(h); accepts(h) }, "gate_missing"},
		"cited by nothing":     {nothing, []string{lint}, func(h shop) { look(h); accepts(h, cited("")) }, "gate_missing"},
		"another is cited":     {nothing, []string{lint}, func(h shop) { look(h); accepts(h, cited(h.last["task/"+h.task])) }, "gate_missing"},
		"cited as a failure": {nothing, []string{lint}, func(h shop) {
			r := look(h)
			accepts(h, map[string]any{"gate": lint, "status": "fail", "receipt_id": r})
		}, "gate_missing"},
		"it fails":            {nothing, []string{lint}, func(h shop) { accepts(h, cited(looks(h, 2, h.checker, "fail", plain()))) }, "gate_missing"},
		"it fails afterwards": {nothing, []string{lint}, func(h shop) { r := look(h); looks(h, 3, h.checker, "fail", plain()); accepts(h, cited(r)) }, "gate_missing"},
		"it fails, then not":  {nothing, []string{lint}, func(h shop) { looks(h, 3, h.checker, "fail", plain()); accepts(h, cited(look(h))) }, ""},
		"it says nothing":     {nothing, []string{lint}, func(h shop) { accepts(h, cited(looks(h, 2, h.checker, nil, plain()))) }, "gate_missing"},
		"in another form":     {nothing, []string{lint}, func(h shop) { accepts(h, cited(looks(h, 2, h.checker, 5, plain()))) }, "evidence_missing"},
		"of what was before":  {nothing, []string{lint}, func(h shop) { r := look(h); again(h); accepts(h, cited(r)) }, "gate_missing"},
		"begun before": {nothing, []string{lint}, func(h shop) {
			id := task(h, 2, plain())
			claims(h, id, h.checker)
			again(h)
			accepts(h, cited(ends(h, id, h.checker, "pass")))
		}, "gate_missing"},
		"once more": {nothing, []string{lint}, func(h shop) { looks(h, 3, h.checker, "pass", plain()); again(h); accepts(h, cited(look(h))) }, ""},
		"looks at another": {nothing, []string{lint}, func(h shop) {
			accepts(h, cited(looks(h, 2, h.checker, "pass", map[string]any{"depends_on": []any{map[string]any{"key": "two"}}})))
		}, "gate_missing"},
		"looks if it fails": {nothing, []string{lint}, func(h shop) {
			accepts(h, cited(looks(h, 2, h.checker, "pass", map[string]any{"depends_on": []any{map[string]any{"key": "one", "when": "failed"}}})))
		}, "gate_missing"},
		"another gate": {nothing, []string{lint}, func(h shop) {
			accepts(h, cited(looks(h, 2, h.checker, "pass", map[string]any{"capability": "site.test"})))
		}, "gate_missing"},
		"its own agent": {worksWith(map[string]any{"tools": []any{tool(lint, true)}}), []string{lint}, by(func(h shop) writ.Actor { return h.worker }), "gate_missing"},
		"its own agent, in another session": {worksWith(map[string]any{"tools": []any{tool(lint, true)}}), []string{lint}, by(func(h shop) writ.Actor {
			return h.open(h.operator, ses(9), "other", writ.KindAgent, writ.RoleExecutor, "worker", "")
		}), "gate_missing"},
		"its own principal": {nothing, []string{lint}, by(func(h shop) writ.Actor {
			return h.open(h.operator, ses(9), "worker", writ.KindAgent, writ.RoleExecutor, "checker", "")
		}), "gate_missing"},
		"let in by the worker": {nothing, []string{lint}, by(func(h shop) writ.Actor {
			return h.open(h.worker, ses(9), "guest", writ.KindAgent, writ.RoleExecutor, "checker", "")
		}), "gate_missing"},
		"with the worker's key": {func(h shop) {
			for _, a := range []string{"worker", "checker"} {
				h.declares(h.operator, a, map[string]any{"keys": []string{string(h.pub())}, "tools": []any{tool(lint, a == "checker")}})
			}
		}, []string{lint}, by(func(h shop) writ.Actor { return h.checker }), "gate_missing"},
		"by whose tool it is not":   {func(h shop) { h.declares(h.operator, "checker", map[string]any{"tools": []any{tool(lint, false)}}) }, []string{lint}, by(func(h shop) writ.Actor { return h.checker }), "gate_missing"},
		"by whom nobody registered": {nothing, []string{lint}, by(func(h shop) writ.Actor { return h.planner }), "lineage_unknown"},
		"of whom nobody registered": {func(h shop) { h.worker.Agent = "stranger" }, nil, func(h shop) {
			h.do(call{what: "task.claim", by: writ.Actor{Agent: "stranger", Session: h.worker.Session}, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", task(h, 2, plain()), "queued", "running")}})
			ends(h, ulid("tsk", 2), writ.Actor{Agent: "stranger", Session: h.worker.Session}, nil)
			accepts(h)
		}, "lineage_unknown"},
		"what the agent's work must pass": {worksWith(map[string]any{"work_gates": []string{lint}}), nil, func(h shop) { accepts(h, cited(look(h))) }, ""},
		"which it has not":                {worksWith(map[string]any{"work_gates": []string{lint}}), nil, func(h shop) { accepts(h) }, "gate_missing"},
		"which is not of gates":           {worksWith(map[string]any{"work_gates": []string{lint}, "tools": []any{tool("site.build", true)}}), nil, func(h shop) { accepts(h) }, ""},
		"which it was no more": {func(h shop) {
			worksWith(map[string]any{"work_gates": []string{lint}})(h)
			worksWith(map[string]any{})(h)
		}, nil, func(h shop) { accepts(h) }, ""},
		"of the run, where nobody judges it": {worksWith(map[string]any{"work_gates": []string{lint}}), nil, func(h shop) {
			r := look(h)
			looks(h, 3, h.worker, nil, map[string]any{"capability": "site.build"})
			accepts(h, cited(r))
		}, "gate_missing"},
		"of the run, where nobody does, passed": {worksWith(map[string]any{"work_gates": []string{lint}}), nil, func(h shop) {
			r := look(h)
			looks(h, 3, h.worker, nil, map[string]any{"capability": "site.build", "key": "two"})
			looks(h, 4, h.checker, "pass", map[string]any{"depends_on": []any{map[string]any{"key": "two"}}})
			accepts(h, cited(r))
		}, ""},
		"delegated": {nothing, []string{lint}, func(h shop) {
			h.do(call{what: "agent.delegate", by: h.planner, run: h.run, args: map[string]any{"task": map[string]any{"capability": lint, "depends_on": []any{map[string]any{"key": "one", "when": "given"}}}}, moves: []writ.Change{move("task", ulid("tsk", 2), "", "queued")}})
			claims(h, ulid("tsk", 2), h.checker)
			accepts(h, cited(ends(h, ulid("tsk", 2), h.checker, "pass")))
		}, ""},
		"handed on": {nothing, []string{lint}, func(h shop) {
			h.do(call{what: "task.handoff", by: h.worker, run: h.run, args: map[string]any{"task_id": h.task, "to": map[string]any{"task": map[string]any{"capability": lint}}}, moves: []writ.Change{move("task", ulid("tsk", 2), "", "queued")}})
			claims(h, ulid("tsk", 2), h.checker)
			r := ends(h, ulid("tsk", 2), h.checker, "pass") // which asks for a verdict, as what it comes from
			accepts(h, cited(r))
		}, "gate_missing verdict_missing"},
		"revived": {nothing, []string{lint}, func(h shop) {
			dead := task(h, 2, map[string]any{"key": "look", "consumes": []any{map[string]any{"from": "one"}}})
			h.do(call{what: "task.revive", by: h.planner, run: h.run, args: map[string]any{"task_id": dead, "key": "look-again"}, moves: []writ.Change{move("task", ulid("tsk", 3), "", "queued")}})
			h.do(call{what: "task.cancel", by: h.planner, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", dead, "queued", "cancelled")}})
			claims(h, ulid("tsk", 3), h.checker)
			accepts(h, cited(ends(h, ulid("tsk", 3), h.checker, "pass")))
		}, ""},
		"revived, and given nothing": {nothing, []string{lint}, func(h shop) {
			dead := task(h, 2, map[string]any{"key": "look"})
			h.do(call{what: "task.revive", by: h.planner, run: h.run, args: map[string]any{"task_id": dead, "key": "look-again"}, moves: []writ.Change{move("task", ulid("tsk", 3), "", "queued")}})
			h.do(call{what: "task.cancel", by: h.planner, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", dead, "queued", "cancelled")}})
			claims(h, ulid("tsk", 3), h.checker)
			accepts(h, cited(ends(h, ulid("tsk", 3), h.checker, "pass")))
		}, "gate_missing"},
	} {
		t.Run(name, func(t *testing.T) {
			l := world(t)
			h := shop{lab: l, cast: l.cast()}
			l.declares(h.operator, "checker", map[string]any{"tools": []any{tool(lint, true), tool("site.test", true)}})
			h.checker = l.open(h.operator, ses(8), "checker", writ.KindAgent, writ.RoleExecutor, "checker", "")
			x.before(h)
			l.asks(h.cast, map[string]any{}, asks(x.gates...), map[string]any{})
			x.play(h)
			l.judged(t, o, name, h.run, x.want, x.want)
		})
	}
	// What was left out of a pack is missed.
	l := world(t)
	h := shop{lab: l, cast: l.cast()}
	registered := len(l.list)
	l.declares(h.operator, "checker", map[string]any{"tools": []any{tool(lint, true)}})
	h.checker = l.open(h.operator, ses(8), "checker", writ.KindAgent, writ.RoleExecutor, "checker", "")
	l.asks(h.cast, map[string]any{}, asks(lint), map[string]any{})
	r := look(h)
	shown := len(l.list) - 1
	accepts(h, cited(r))
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: h.run}})
	mute := func(seq int) func(files) {
		return func(p files) {
			p[FileManifest] = bytes.Replace(p[FileManifest], []byte(`"evidence":true`), []byte(`"evidence":false`), 1)
			delete(p, evidenceName(int64(seq)))
		}
	}
	for name, x := range map[string]struct {
		change func(files)
		want   string
	}{
		"the receipt":            {l.without(shown), "gate_missing run_gap run_tasks_gap"},
		"what it says":           {mute(shown), "evidence_missing"},
		"at what it looks":       {mute(shown - 2), "evidence_missing"},
		"that it is a gate":      {mute(registered), "lineage_unknown"},
		"its agent":              {l.without(registered), "lineage_unknown parent_missing"},
		"what the worker's owes": {l.without(3), "lineage_unknown parent_missing"},
	} {
		if got := both(t, o, "gone", f, f.with(x.change), l.trust(), Ask{Run: h.run, Close: true}).each(); got != x.want {
			t.Errorf("without %s: got %q, want %q", name, got, x.want)
		}
	}
	// Where nobody says what a gate said last, it may have said that the result does not pass.
	l = world(t)
	h = shop{lab: l, cast: l.cast()}
	l.declares(h.operator, "checker", map[string]any{"tools": []any{tool(lint, true)}})
	h.checker = l.open(h.operator, ses(8), "checker", writ.KindAgent, writ.RoleExecutor, "checker", "")
	l.asks(h.cast, map[string]any{}, asks(lint), map[string]any{})
	r = look(h)
	second := task(h, 3, map[string]any{"key": "again", "depends_on": []any{map[string]any{"key": "one", "when": "given"}}})
	claims(h, second, h.checker)
	ends(h, second, h.checker, "fail")
	said := len(l.list) - 1
	accepts(h, cited(r))
	for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: h.run}} {
		f := l.export(Options{Scope: scope})
		for name, x := range map[string]struct {
			change func(files)
			want   string
		}{"all": {func(files) {}, "gate_missing"}, "not what it said last": {mute(said), "evidence_missing"}} {
			if got := both(t, o, name+scope.Kind, f, f.with(x.change), l.trust(), Ask{Run: h.run, Close: true}).each(); got != x.want {
				t.Errorf("%s, %s: got %q, want %q", scope.Kind, name, got, x.want)
			}
		}
	}
}
