package packs.budgets_test

import data.packs.budgets

base := {
	"call": {"capability": "task.claim", "safety": "mutating", "class": "ordinary"},
	"task": {"safety": "mutating"},
	"budget": [{"dimension": "steps", "limit": 100, "cost": 1, "fits": true, "band": 50, "on_exceed": "hard_stop"}],
}

rules(call) := {f.rule | some f in budgets.findings with input as call}

codes(call) := {f.code | some f in budgets.findings with input as call}

changed(patch) := object.union(base, patch)

steps(patch) := changed({"budget": [object.union(base.budget[0], patch)]})

destructive(patch) := object.union(steps(patch), {"task": {"safety": "destructive"}})

test_allows_what_fits if rules(base) == set()

test_allows_no_budget if rules(changed({"budget": []})) == set()

test_denies_the_empty_call if rules({}) == {"budgets.incomplete"}

test_denies_the_empty_call_without_data if {
	found := budgets.findings with input as {} with data.budgets as {}
	{f.rule | some f in found} == {"budgets.incomplete"}
}

test_incomplete[note] if {
	some note, call in {
		"no capability": json.remove(base, ["call/capability"]),
		"empty capability": changed({"call": {"capability": ""}}),
		"no budget": json.remove(base, ["budget"]),
		"budget is no list": changed({"budget": "none"}),
	}
	"budgets.incomplete" in rules(call)
	"policy_denied" in codes(call)
}

test_hard_stop_steps[note] if {
	some note, call in {
		"does not fit": steps({"fits": false, "band": 100}),
		"nobody says whether it fits": changed({"budget": [json.remove(base.budget[0], ["fits"])]}),
		"fits is a text": steps({"fits": "true"}),
	}
	rules(call) == {"budgets.hard_stop.steps"}
	codes(call) == {"budget_exceeded"}
}

test_hard_stop_allows_the_last_step if rules(steps({"fits": true, "band": 100})) == set()

test_unknown_dimension[note] if {
	some note, call in {
		"another": steps({"dimension": "microusd"}),
		"none": changed({"budget": [json.remove(base.budget[0], ["dimension"])]}),
	}
	rules(call) == {"budgets.unknown_dimension"}
	codes(call) == {"budget_exceeded"}
}

test_late_destructive[note] if {
	some note, call in {
		"claim at 80": destructive({"band": 80}),
		"claim at 100": destructive({"band": 100}),
		"enqueue at 80": object.union(destructive({"band": 80}), {"call": {"capability": "task.enqueue"}}),
		"nobody says how late": object.union(
			changed({"budget": [json.remove(base.budget[0], ["band"])]}),
			{"task": {"safety": "destructive"}},
		),
	}
	rules(call) == {"budgets.late_destructive"}
	codes(call) == {"budget_exceeded"}
}

test_late_destructive_allows[note] if {
	some note, call in {
		"destructive at 50": destructive({"band": 50}),
		"mutating at 100": steps({"band": 100}),
		"finishing at 100": object.union(destructive({"band": 100}), {"call": {"capability": "task.complete"}}),
		"giving back at 100": object.union(destructive({"band": 100}), {"call": {"capability": "task.release"}}),
	}
	rules(call) == set()
}

test_late_destructive_denies_without_data if {
	found := budgets.findings with input as destructive({"band": 0}) with data.budgets as {}
	{f.rule | some f in found} == {"budgets.late_destructive"}
}

test_all_reasons_are_given if {
	rules(destructive({"band": 100, "fits": false})) == {"budgets.hard_stop.steps", "budgets.late_destructive"}
}
