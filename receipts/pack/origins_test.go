package pack

import (
	"bytes"
	"testing"

	"github.com/writ-gateway/writ"
)

// What is revived in another run asks for what died there does, however that came to be, and
// the pack of its run says what that was.
func TestRevivedInAnotherRun(t *testing.T) {
	o := node(t)
	const lint = "site.lint"
	// ward is a lab where a task died, two more verifiers and somebody who checks.
	type ward struct {
		*lab
		cast
		jim, checker writ.Actor
		from         writ.RunID // where it died
		died         string
	}
	made := func(h ward, run writ.RunID, args map[string]any) {
		h.do(call{what: "run.create", by: h.planner, run: run, args: args, moves: []writ.Change{move("run", string(run), "", "active")}})
	}
	task := func(h ward, what string, by writ.Actor, run writ.RunID, id string, args map[string]any, more ...writ.Change) {
		h.do(call{what: what, by: by, run: run, args: args, moves: append(more, move("task", id, "", "queued"))})
	}
	claims := func(h ward, run writ.RunID, id string, by writ.Actor) {
		h.do(call{what: "task.claim", by: by, run: run, args: map[string]any{}, moves: []writ.Change{move("task", id, "queued", "running")}})
	}
	dies := func(h ward, run writ.RunID, id string) {
		claims(h, run, id, h.worker)
		h.do(call{what: "task.fail", by: h.worker, run: run, args: map[string]any{}, moves: []writ.Change{move("task", id, "running", "dead")}})
	}
	revives := func(h ward, died string, run writ.RunID, id string, args map[string]any) {
		args["task_id"], args["key"], args["run_id"] = died, "again", run
		h.do(call{what: "task.revive", by: h.planner, run: run, args: args, parents: []writ.ReceiptID{h.last["task/"+died]}, moves: []writ.Change{move("task", id, "", "queued")}})
	}
	asks := func() map[string]any {
		return map[string]any{"key": "one", "capability": "site.build", "verify": map[string]any{"required": true, "quorum": 2, "gates": []string{"style", lint}}}
	}
	bare := func(more map[string]any) map[string]any {
		out := map[string]any{"key": "next", "capability": "site.build"}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	enqueued := func(h ward) {
		task(h, "task.enqueue", h.planner, h.from, h.died, asks())
		dies(h, h.from, h.died)
	}
	begins := func(h ward, args map[string]any) {
		made(h, h.run, map[string]any{"close_policy": "verifier"})
		revives(h, h.died, h.run, h.task, args)
	}
	works := func(h ward, to string) {
		claims(h, h.run, h.task, h.worker)
		h.do(call{what: "task.complete", by: h.worker, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", h.task, "running", to)}})
	}
	looks := func(h ward) writ.ReceiptID {
		id := ulid("tsk", 9)
		task(h, "task.enqueue", h.planner, h.run, id, map[string]any{"key": "look", "capability": lint, "depends_on": []any{map[string]any{"key": "again", "when": "given"}}})
		claims(h, h.run, id, h.checker)
		return h.do(call{what: "task.complete", by: h.checker, run: h.run, args: map[string]any{"gate": "pass"}, moves: []writ.Change{move("task", id, "running", "done")}})
	}
	cites := func(h ward, look writ.ReceiptID) map[string]any {
		gates := []any{map[string]any{"gate": "style", "status": "pass"}}
		if look != "" {
			gates = append(gates, map[string]any{"gate": lint, "status": "pass", "receipt_id": look})
		}
		return map[string]any{"receipt_id": h.last["task/"+h.task], "gates": gates}
	}
	votes := func(h ward, args map[string]any) writ.ReceiptID {
		return h.do(call{what: "task.verify", by: h.judge, run: h.run, args: args, parents: []writ.ReceiptID{h.last["task/"+h.task]}, moves: []writ.Change{move("ballot", h.task, "", "open")}})
	}
	accepts := func(h ward, args map[string]any, before ...writ.ReceiptID) {
		x := call{
			what: "task.verify", by: h.jim, run: h.run, args: args, parents: append(before, h.last["task/"+h.task]),
			moves: []writ.Change{move("task", h.task, "verifying", "done"), move("run", string(h.run), "active", "verifying")},
		}
		if len(before) > 0 {
			x.moves = append(x.moves, move("ballot", h.task, "open", "carried"))
		}
		h.do(x)
	}
	closes := func(h ward, from string) {
		h.do(call{what: "run.close", by: h.judge, run: h.run, args: map[string]any{"receipt_id": h.last["run/"+string(h.run)]}, parents: []writ.ReceiptID{h.last["run/"+string(h.run)]}, moves: []writ.Change{move("run", string(h.run), from, "done")}})
	}
	rightly := func(h ward) {
		works(h, "verifying")
		args := cites(h, looks(h))
		accepts(h, args, votes(h, args))
		closes(h, "verifying")
	}
	plain := func() map[string]any { return map[string]any{} }
	lab := func(t *testing.T) ward {
		l := world(t)
		h := ward{lab: l, cast: l.cast(), from: writ.RunID(ulid("run", 2)), died: ulid("tsk", 2)}
		h.jim = l.open(h.operator, ses(6), "jim", writ.KindHuman, writ.RoleVerifier, "", "")
		l.declares(h.operator, "checker", map[string]any{"tools": []any{map[string]any{"name": lint, "gate": true}}})
		h.checker = l.open(h.operator, ses(8), "checker", writ.KindAgent, writ.RoleExecutor, "checker", "")
		made(h, h.from, plain())
		return h
	}
	for name, x := range map[string]struct {
		died func(h ward) // how it came to be and died
		play func(h ward)
		want string
	}{
		"it asks for all of it": {enqueued, func(h ward) { begins(h, plain()); rightly(h) }, ""},
		"one verdict is gone": {enqueued, func(h ward) {
			begins(h, plain())
			works(h, "verifying")
			accepts(h, cites(h, looks(h)))
			closes(h, "verifying")
		}, "quorum_missing"},
		"the gate is gone": {enqueued, func(h ward) {
			begins(h, plain())
			works(h, "verifying")
			args := cites(h, "")
			accepts(h, args, votes(h, args))
			closes(h, "verifying")
		}, "gate_missing"},
		"all of it is dropped": {enqueued, func(h ward) {
			begins(h, map[string]any{"verify": map[string]any{"required": false}})
			works(h, "verifying")
			accepts(h, map[string]any{"receipt_id": h.last["task/"+h.task]})
			closes(h, "verifying")
		}, "gate_missing quorum_missing verdict_gate"},
		"and there is no verdict": {enqueued, func(h ward) {
			begins(h, map[string]any{"verify": map[string]any{"required": false}})
			works(h, "done")
			h.do(call{what: "run.settle", by: system, run: h.run, args: plain(), moves: []writ.Change{move("run", string(h.run), "active", "verifying")}})
			closes(h, "verifying")
		}, "gate_missing verdict_missing"},
		"revived once before": {func(h ward) {
			other := ulid("tsk", 3)
			task(h, "task.enqueue", h.planner, h.from, other, asks())
			dies(h, h.from, other)
			third := writ.RunID(ulid("run", 3))
			made(h, third, plain())
			revives(h, other, third, h.died, plain())
			dies(h, third, h.died)
		}, func(h ward) { begins(h, plain()); rightly(h) }, ""},
		"revived once before, and dropped": {func(h ward) {
			other := ulid("tsk", 3)
			task(h, "task.enqueue", h.planner, h.from, other, asks())
			dies(h, h.from, other)
			revives(h, other, h.from, h.died, plain())
			dies(h, h.from, h.died)
		}, func(h ward) {
			begins(h, plain())
			works(h, "verifying")
			accepts(h, cites(h, looks(h)))
			closes(h, "verifying")
		}, "quorum_missing"},
		"handed on before": {func(h ward) {
			other := ulid("tsk", 3)
			task(h, "task.enqueue", h.planner, h.from, other, asks())
			claims(h, h.from, other, h.worker)
			task(h, "task.handoff", h.worker, h.from, h.died, map[string]any{"task_id": other, "to": map[string]any{"task": bare(nil)}}, move("task", other, "running", "verifying"))
			dies(h, h.from, h.died)
		}, func(h ward) { begins(h, plain()); rightly(h) }, ""},
		"given away before, and dropped": {func(h ward) {
			other := ulid("tsk", 3)
			task(h, "task.enqueue", h.planner, h.from, other, asks())
			claims(h, h.from, other, h.worker)
			h.do(call{
				what: "agent.delegate", by: h.worker, run: h.from, args: map[string]any{"task_id": other, "task": bare(nil)},
				parents: []writ.ReceiptID{h.last["task/"+other]}, moves: []writ.Change{move("task", h.died, "", "queued")},
			})
			dies(h, h.from, h.died)
		}, func(h ward) {
			begins(h, plain())
			works(h, "verifying")
			args := cites(h, "")
			accepts(h, args)
			closes(h, "verifying")
		}, "gate_missing quorum_missing"},
		"given nothing of what others made elsewhere": {func(ward) {}, func(h ward) {
			look := ulid("tsk", 9)
			made(h, h.run, map[string]any{"close_policy": "verifier"})
			task(h, "task.enqueue", h.planner, h.run, h.task, map[string]any{"key": "one", "capability": "site.build", "verify": map[string]any{"required": true, "gates": []string{lint}}})
			works(h, "verifying")
			task(h, "task.enqueue", h.planner, h.from, h.died, map[string]any{"key": "two", "capability": lint, "depends_on": []any{map[string]any{"key": "one"}}, "consumes": []any{map[string]any{"optional": true}}})
			dies(h, h.from, h.died)
			revives(h, h.died, h.run, look, plain())
			claims(h, h.run, look, h.checker)
			r := h.do(call{what: "task.complete", by: h.checker, run: h.run, args: map[string]any{"gate": "pass"}, moves: []writ.Change{move("task", look, "running", "done")}})
			accepts(h, cites(h, r))
			closes(h, "verifying")
		}, "gate_missing"},
		"made nobody says with what": {func(h ward) { task(h, "task.enqueue", h.planner, h.from, h.died, nil); dies(h, h.from, h.died) }, func(h ward) { begins(h, plain()); works(h, "done") }, "evidence_missing run_open"},
		"handed on from another run": {enqueued, func(h ward) { // which cannot be
			made(h, h.run, map[string]any{"close_policy": "verifier"})
			task(h, "task.handoff", h.worker, h.run, h.task, map[string]any{"task_id": h.died, "to": map[string]any{"task": bare(nil)}})
			works(h, "done")
		}, "evidence_missing run_open"},
	} {
		t.Run(name, func(t *testing.T) {
			h := lab(t)
			x.died(h)
			x.play(h)
			for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: h.run}} {
				f := h.export(Options{Scope: scope})
				a := both(t, o, name+scope.Kind, f, f, h.trust(), Ask{Run: h.run, Close: true})
				if got := a.each(); got != x.want {
					t.Errorf("%s: got %q, want %q", scope.Kind, got, x.want)
				}
			}
		})
	}
	// A task of another run is none of this one, and what it asks for is missed where it was left out.
	h := lab(t)
	asked := len(h.list)
	enqueued(h)
	begins(h, plain())
	rightly(h)
	f := h.export(Options{Scope: Scope{Kind: ScopeRun, Run: h.run}})
	if a := both(t, o, "whole", f, f, h.trust(), Ask{Run: h.run, Close: true}); a.Run.Tasks != 2 || a.Run.Links != 1 {
		t.Errorf("%d tasks, %d links", a.Run.Tasks, a.Run.Links)
	}
	for name, x := range map[string]struct {
		change func(files)
		want   string
	}{
		"how it was made": {h.without(asked), "evidence_missing"},
		"what it asked for": {func(p files) {
			p[FileManifest] = bytes.Replace(p[FileManifest], []byte(`"evidence":true`), []byte(`"evidence":false`), 1)
			delete(p, evidenceName(int64(asked)))
		}, "evidence_missing"},
		"that it died": {h.without(asked + 2), "parent_missing"},
	} {
		if got := both(t, o, "gone", f, f.with(x.change), h.trust(), Ask{Run: h.run, Close: true}).each(); got != x.want {
			t.Errorf("without %s: got %q, want %q", name, got, x.want)
		}
	}
}
