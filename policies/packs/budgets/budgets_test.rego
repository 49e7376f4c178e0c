package packs.budgets_test

import data.packs.budgets

base := {
	"call": {"capability": "task.claim", "safety": "mutating", "class": "ordinary"},
	"principal": {"kind": "agent"},
	"session": {"id": "ses_1", "role": "executor", "state": "active"},
	"task": {"safety": "mutating"},
	"budget": {"steps": {"limit": 100, "cost": 1, "fits": true, "band": 50, "on_exceed": "hard_stop"}},
}

rules(call) := {f.rule | some f in budgets.findings with input as call}

codes(call) := {f.code | some f in budgets.findings with input as call}

effects(call) := {f.effect | some f in budgets.findings with input as call}

obligations(call) := {o | some f in budgets.findings with input as call; some o in f.obligations}

changed(patch) := object.union(base, patch)

steps(patch) := changed({"budget": {"steps": patch}})

over(dimension, consequence) := json.patch(base, [{
	"op": "replace",
	"path": "/budget",
	"value": {dimension: {"limit": 100, "cost": 1, "fits": false, "band": 100, "on_exceed": consequence}},
}])

destructive(patch) := object.union(steps(patch), {"task": {"safety": "destructive"}})

dimensions := {
	"children",
	"cost_microusd",
	"llm_tokens",
	"net_egress_bytes",
	"net_ingress_bytes",
	"retries",
	"retries_per_step",
	"sandbox_cpu_ms",
	"sandbox_mem_peak_bytes",
	"steps",
	"storage_write_bytes",
	"wall_ms",
}

test_allows_what_fits if rules(base) == set()

test_allows_no_budget if rules(json.patch(base, [{"op": "replace", "path": "/budget", "value": {}}])) == set()

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
		"budget is no object": changed({"budget": "none"}),
		"nobody says whether it fits": json.remove(base, ["budget/steps/fits"]),
		"fits is a text": steps({"fits": "true"}),
		"nobody says how late it is": json.remove(base, ["budget/steps/band"]),
	}
	rules(call) == {"budgets.incomplete"}
	codes(call) == {"policy_denied"}
}

test_hard_stop[dimension] if {
	some dimension in dimensions
	rules(over(dimension, "hard_stop")) == {concat(".", ["budgets.hard_stop", dimension])}
	codes(over(dimension, "hard_stop")) == {"budget_exceeded"}
	effects(over(dimension, "hard_stop")) == {"deny"}
}

# The rules by name, so that a missing one is missed.
test_hard_stop_and_extend_by_name if {
	{r | some d in dimensions; some r in rules(over(d, "hard_stop"))} == {
		"budgets.hard_stop.children",
		"budgets.hard_stop.cost_microusd",
		"budgets.hard_stop.llm_tokens",
		"budgets.hard_stop.net_egress_bytes",
		"budgets.hard_stop.net_ingress_bytes",
		"budgets.hard_stop.retries",
		"budgets.hard_stop.retries_per_step",
		"budgets.hard_stop.sandbox_cpu_ms",
		"budgets.hard_stop.sandbox_mem_peak_bytes",
		"budgets.hard_stop.steps",
		"budgets.hard_stop.storage_write_bytes",
		"budgets.hard_stop.wall_ms",
	}
	{r | some d in dimensions; some r in rules(over(d, "approval_required"))} == {
		"budgets.extend.children",
		"budgets.extend.cost_microusd",
		"budgets.extend.llm_tokens",
		"budgets.extend.net_egress_bytes",
		"budgets.extend.net_ingress_bytes",
		"budgets.extend.retries",
		"budgets.extend.retries_per_step",
		"budgets.extend.sandbox_cpu_ms",
		"budgets.extend.sandbox_mem_peak_bytes",
		"budgets.extend.steps",
		"budgets.extend.storage_write_bytes",
		"budgets.extend.wall_ms",
	}
}

# Nobody is asked for what comes back by itself.
test_what_waits_is_refused_for_now[dimension] if {
	some dimension in dimensions
	call := json.patch(over(dimension, "approval_required"), [{"op": "add", "path": concat("/", ["budget", dimension, "waits"]), "value": true}])
	rules(call) == {concat(".", ["budgets.hard_stop", dimension])}
}

# A peak is not used up, so it is never late.
test_late_destructive_is_not_about_peaks[dimension] if {
	some dimension in {"retries_per_step", "sandbox_mem_peak_bytes"}
	call := json.patch(changed({"task": {"safety": "destructive"}, "call": {"capability": "task.claim"}}), [{
		"op": "add", "path": concat("/", ["budget", dimension]),
		"value": {"band": 100, "cost": 1, "fits": true, "limit": 1, "on_exceed": "hard_stop"},
	}])
	rules(call) == set()
}

test_hard_stop_whatever_is_unclear[note] if {
	some note, call in {
		"nobody says what follows": json.remove(over("steps", "hard_stop"), ["budget/steps/on_exceed"]),
		"a consequence of tomorrow": over("steps", "shrug"),
	}
	rules(call) == {"budgets.hard_stop.steps"}
}

test_hard_stop_without_grants[note] if {
	some note, config in {
		"no data": {},
		"nothing listed": {"config": {"grants": {}}},
		"nothing to give": {"config": {"grants": {"steps": 0}}},
		"a part of one": {"config": {"grants": {"steps": 0.5}}},
		"a text": {"config": {"grants": {"steps": "10"}}},
	}
	found := budgets.findings with input as over("steps", "approval_required") with data.budgets as config
	{f.rule | some f in found} == {"budgets.hard_stop.steps"}
}

test_hard_stop_allows_the_last[dimension] if {
	some dimension in dimensions
	call := object.union(over(dimension, "hard_stop"), {"budget": {dimension: {"fits": true}}})
	rules(call) == set()
}

test_extend[dimension] if {
	some dimension in dimensions
	call := over(dimension, "approval_required")
	rules(call) == {concat(".", ["budgets.extend", dimension])}
	codes(call) == {"approval_required"}
	effects(call) == {"require_approval"}
	obligations(call) == {{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": dimension,
		"add": data.budgets.config.grants[dimension],
	}}}
}

test_extend_allows_what_fits[dimension] if {
	some dimension in dimensions
	call := object.union(over(dimension, "approval_required"), {"budget": {dimension: {"fits": true}}})
	rules(call) == set()
}

test_extend_as_the_configuration_says if {
	config := {"config": {"on_exceed": {"steps": "approval_required"}, "grants": {"steps": 5}}}
	found := budgets.findings with input as over("steps", "hard_stop") with data.budgets as config
	{[f.rule, f.obligations[0].args.add] | some f in found} == {["budgets.extend.steps", 5]}
}

test_warn[dimension] if {
	some dimension in dimensions
	call := over(dimension, "soft_warn")
	rules(call) == {"budgets.warn"}
	effects(call) == {"allow"}
	obligations(call) == {{"type": "notify", "args": {"roles": ["operator"]}}}
}

test_warn_allows_in_silence if rules(steps({"on_exceed": "soft_warn", "band": 100})) == set()

test_warn_is_no_cover_for_a_stop if {
	call := object.union(over("steps", "soft_warn"), {"budget": {"wall_ms": {"fits": false, "band": 100, "on_exceed": "hard_stop"}}})
	rules(call) == {"budgets.hard_stop.wall_ms", "budgets.warn"}
}

test_unknown_dimension if {
	rules(changed({"budget": {"patience": {"fits": true, "band": 0}}})) == {"budgets.unknown_dimension"}
	codes(changed({"budget": {"patience": {"fits": true, "band": 0}}})) == {"budget_exceeded"}
}

test_unknown_dimension_allows_known[dimension] if {
	some dimension in dimensions
	rules(changed({"budget": {dimension: {"fits": true, "band": 0}}})) == set()
}

test_late_destructive[note] if {
	some note, patch in {"at 80": {"band": 80}, "at 100": {"band": 100}}
	rules(destructive(patch)) == {"budgets.late_destructive"}
	codes(destructive(patch)) == {"approval_required"}
	{[o.args.kind, o.args.scope] | some o in obligations(destructive(patch))} == {["effect", "task"]}
}

test_late_destructive_enqueue[verb] if {
	some verb in ["task.enqueue", "task.handoff"]
	call := object.union(destructive({"band": 80}), {"call": {"capability": verb}})
	rules(call) == {"budgets.late_destructive.enqueue"}
	codes(call) == {"approval_required"}
	{[o.args.kind, o.args.scope] | some o in obligations(call)} == {["effect", "call"]}
}

test_late_destructive_allows[note] if {
	some note, call in {
		"destructive at 50": destructive({"band": 50}),
		"planned at 50": object.union(destructive({"band": 50}), {"call": {"capability": "task.enqueue"}}),
		"mutating at 100": steps({"band": 100}),
		"finishing at 100": object.union(destructive({"band": 100}), {"call": {"capability": "task.complete"}}),
		"giving back at 100": object.union(destructive({"band": 100}), {"call": {"capability": "task.release"}}),
	}
	rules(call) == set()
}

test_late_destructive_without_data if {
	found := budgets.findings with input as destructive({"band": 0}) with data.budgets as {}
	{f.rule | some f in found} == {"budgets.late_destructive"}
}

giving(role, grant) := changed({"session": {"role": role}, "call": {"capability": "run.create"}, "grant": grant})

test_inherit[note] if {
	some note, grant in {
		"more than the parent has": {"child": true, "fits": false},
		"nobody says how much the parent has": {"child": true},
	}
	rules(giving("executor", grant)) == {"budgets.inherit"}
	codes(giving("executor", grant)) == {"budget_exceeded"}
}

test_inherit_allows[role] if {
	some role in ["executor", "orchestrator", "operator"]
	rules(giving(role, {"child": true, "fits": true})) == set()
}

test_self_grant[note] if {
	some note, call in {
		"executor": giving("executor", {"child": false, "fits": true}),
		"orchestrator": giving("orchestrator", {"child": false, "fits": true}),
		"nobody says to whom": giving("executor", {"fits": true}),
		"nobody": json.remove(giving("operator", {"child": false, "fits": true}), ["session"]),
	}
	rules(call) == {"budgets.self_grant"}
	codes(call) == {"budget_exceeded"}
}

test_self_grant_allows[note] if {
	some note, call in {
		"approver": giving("approver", {"child": false, "fits": true}),
		"operator": giving("operator", {"child": false, "fits": true}),
		"the gateway": object.union(json.remove(giving("x", {"child": false, "fits": true}), ["session"]), {"principal": {"kind": "system"}}),
	}
	rules(call) == set()
}

test_self_grant_denies_without_data if {
	found := budgets.findings with input as giving("operator", {"child": false, "fits": true}) with data.budgets as {}
	{f.rule | some f in found} == {"budgets.self_grant"}
}

test_unpriced[note] if {
	some note, price in {"no price": {"known": false, "microusd": 0}, "nobody says": {"microusd": 5}}
	rules(changed({"price": price})) == {"budgets.unpriced"}
	codes(changed({"price": price})) == {"budget_exceeded"}
}

test_unpriced_allows[note] if {
	some note, call in {
		"a price": changed({"price": {"known": true, "microusd": 250}}),
		"free of charge": changed({"price": {"known": true, "microusd": 0}}),
		"nothing outside": base,
	}
	rules(call) == set()
}

test_all_reasons_are_given if {
	rules(destructive({"band": 100, "fits": false})) == {"budgets.hard_stop.steps", "budgets.late_destructive"}
}
