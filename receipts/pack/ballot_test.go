package pack

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// Where several verdicts are asked for, they are there: on one receipt, of verifiers who are
// told apart, and named by the last.
func TestSeveralVerdicts(t *testing.T) {
	o := node(t)
	// hall is a lab with two verifiers more.
	type hall struct {
		*lab
		cast
		jim, jo writ.Actor
	}
	of := func(h hall, kind string) (id, from string) {
		if kind == "task" {
			return h.task, "verifying"
		}
		return string(h.run), "verifying"
	}
	// votes is a verdict that accepts and is not the last.
	votes := func(h hall, kind string, by writ.Actor, ballot string, on writ.ReceiptID) writ.ReceiptID {
		id, _ := of(h, kind)
		return h.do(call{
			what: map[string]string{"task": "task.verify", "run": "run.close"}[kind], by: by, run: h.run, args: map[string]any{"receipt_id": on},
			parents: []writ.ReceiptID{h.last[kind+"/"+id]}, moves: []writ.Change{move("ballot", id, ballot, "open")},
		})
	}
	// ends is the last one, which names those before.
	ends := func(h hall, kind string, by writ.Actor, before ...writ.ReceiptID) {
		id, from := of(h, kind)
		x := call{what: "run.close", by: by, run: h.run, args: map[string]any{"receipt_id": h.last[kind+"/"+id]}, parents: append(before, h.last[kind+"/"+id])}
		x.moves = []writ.Change{move(kind, id, from, "done")}
		if kind == "task" {
			x.what, x.moves = "task.verify", append(x.moves, move("run", string(h.run), "active", "verifying"))
		}
		if len(before) > 0 && h.last["ballot/"+id] == before[len(before)-1] {
			x.moves = append(x.moves, move("ballot", id, "open", "carried"))
		}
		h.do(x)
	}
	task := func(h hall) { ends(h, "task", h.jim, votes(h, "task", h.judge, "", h.last["task/"+h.task])) }
	run := func(h hall) { ends(h, "run", h.jo, votes(h, "run", h.judge, "", h.last["run/"+string(h.run)])) }
	good := func(h hall) writ.ReceiptID { return votes(h, "task", h.judge, "", h.last["task/"+h.task]) }
	for name, x := range map[string]struct {
		quorum any // of run and task
		play   func(h hall)
		want   string
	}{
		"by two": {2, func(h hall) { task(h); run(h) }, ""},
		"by three": {3, func(h hall) {
			first := good(h)
			ends(h, "task", h.jo, first, votes(h, "task", h.jim, "open", h.last["task/"+h.task]))
			first = votes(h, "run", h.jo, "", h.last["run/"+string(h.run)])
			ends(h, "run", h.judge, first, votes(h, "run", h.jim, "open", h.last["run/"+string(h.run)]))
		}, ""},
		"by one, who is enough":      {1, func(h hall) { ends(h, "task", h.jim); ends(h, "run", h.jim) }, ""},
		"a vote on the task is gone": {2, func(h hall) { ends(h, "task", h.jim); run(h) }, "quorum_missing"},
		"a vote on the run is gone":  {2, func(h hall) { task(h); ends(h, "run", h.jo) }, "quorum_missing"},
		"one of three is gone":       {3, func(h hall) { ends(h, "task", h.jim, good(h)) }, "quorum_missing run_open"},
		"a vote that is not named":   {2, func(h hall) { good(h); ends(h, "task", h.jim); run(h) }, "quorum_missing"},
		"the same voter twice":       {2, func(h hall) { ends(h, "task", h.judge, good(h)); run(h) }, "quorum_missing quorum_twice"},
		"one voter twice, and another": {2, func(h hall) {
			first := good(h)
			ends(h, "task", h.jim, first, votes(h, "task", h.judge, "open", h.last["task/"+h.task]))
			run(h)
		}, "quorum_twice"},
		"the same person elsewhere": {2, func(h hall) {
			ends(h, "task", h.open(h.operator, ses(9), "vera", writ.KindHuman, writ.RoleVerifier, "", ""), good(h))
			run(h)
		}, "quorum_missing quorum_twice"},
		"one who answers to the other": {2, func(h hall) {
			ends(h, "task", h.open(h.operator, ses(9), "twin", writ.KindHuman, writ.RoleVerifier, "", "vera"), good(h))
			run(h)
		}, "quorum_missing quorum_twice"},
		"one whom the other let in": {2, func(h hall) {
			ends(h, "task", h.open(h.judge, ses(9), "guest", writ.KindHuman, writ.RoleVerifier, "", ""), good(h))
			run(h)
		}, "quorum_missing quorum_twice"},
		"a vote about another receipt": {2, func(h hall) {
			ends(h, "task", h.jim, votes(h, "task", h.judge, "", h.last["run/"+string(h.run)]))
			run(h)
		}, "quorum_missing verdict_other"},
		"a vote on the run, for the task": {2, func(h hall) {
			ends(h, "task", h.jim, votes(h, "run", h.judge, "", h.last["run/"+string(h.run)]))
			ends(h, "run", h.jo)
		}, "quorum_missing verdict_stale"},
		"a vote on what was sent back": {2, func(h hall) {
			first := good(h)
			h.do(call{what: "task.verify", by: h.jim, run: h.run, args: map[string]any{"receipt_id": h.last["task/"+h.task], "reasons": []string{"incomplete"}}, moves: []writ.Change{move("task", h.task, "verifying", "queued"), move("ballot", h.task, "open", "void")}})
			h.do(call{what: "task.claim", by: h.worker, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", h.task, "queued", "running")}})
			h.do(call{what: "task.complete", by: h.worker, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", h.task, "running", "verifying")}})
			ends(h, "task", h.jo, first)
			run(h)
		}, "quorum_missing"},
		"by two, once more": {2, func(h hall) {
			good(h)
			h.do(call{what: "task.verify", by: h.jim, run: h.run, args: map[string]any{"receipt_id": h.last["task/"+h.task], "reasons": []string{"incomplete"}}, moves: []writ.Change{move("task", h.task, "verifying", "queued"), move("ballot", h.task, "open", "void")}})
			h.do(call{what: "task.claim", by: h.worker, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", h.task, "queued", "running")}})
			h.do(call{what: "task.complete", by: h.worker, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", h.task, "running", "verifying")}})
			ends(h, "task", h.jim, votes(h, "task", h.judge, "void", h.last["task/"+h.task]))
			run(h)
		}, ""},
		"by one who has worked since": {2, func(h hall) {
			first := good(h)
			second := ulid("tsk", 2)
			h.do(call{what: "task.enqueue", by: h.planner, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "", "queued")}})
			h.do(call{what: "task.claim", by: h.judge, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "running")}})
			h.do(call{what: "task.cancel", by: h.planner, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "running", "cancelled")}})
			ends(h, "task", h.jim, first)
			ends(h, "run", h.jo, votes(h, "run", h.jim, "", h.last["run/"+string(h.run)]))
		}, "lineage_controller lineage_session"},
		"a vote of who worked": {2, func(h hall) { ends(h, "task", h.jim, votes(h, "task", h.worker, "", h.last["task/"+h.task])); run(h) }, "close_role lineage_agent lineage_controller lineage_session lineage_unknown quorum_missing quorum_twice"},
		"handed on, to one verdict": {2, func(h hall) {
			second := ulid("tsk", 2)
			h.do(call{what: "task.handoff", by: h.worker, run: h.run, args: map[string]any{"task_id": h.task}, moves: []writ.Change{move("task", second, "", "queued")}})
			h.do(call{what: "task.claim", by: h.worker, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "queued", "running")}})
			h.do(call{what: "task.complete", by: h.worker, run: h.run, args: map[string]any{}, moves: []writ.Change{move("task", second, "running", "verifying")}})
			h.do(call{what: "task.verify", by: h.jim, run: h.run, args: map[string]any{"receipt_id": h.last["task/"+second]}, moves: []writ.Change{move("task", second, "verifying", "done")}})
			task(h)
			run(h)
		}, "quorum_missing"},
		"more than can be asked for": {6, func(h hall) { task(h); run(h) }, "evidence_missing"},
		"a part of one":              {1.5, func(h hall) { task(h); run(h) }, "evidence_missing"},
		"none":                       {0, func(h hall) { task(h); run(h) }, "evidence_missing"},
		"in a word":                  {"2", func(h hall) { task(h); run(h) }, "evidence_missing"},
	} {
		t.Run(name, func(t *testing.T) {
			l := world(t)
			h := hall{lab: l, cast: l.cast()}
			h.jim = l.open(h.operator, ses(5), "jim", writ.KindHuman, writ.RoleVerifier, "", "")
			h.jo = l.open(h.operator, ses(6), "jo", writ.KindHuman, writ.RoleVerifier, "", "")
			l.asks(h.cast, map[string]any{"close_quorum": x.quorum}, map[string]any{"quorum": x.quorum}, map[string]any{})
			x.play(h)
			l.judged(t, o, name, h.run, x.want, x.want)
		})
	}
}
