package packs.sod_test

import data.packs.sod

base := {
	"call": {"capability": "task.verify", "safety": "mutating", "class": "ordinary"},
	"session": {"id": "ses_1", "role": "verifier", "state": "active"},
	"duty": {"executed": false, "planned": false, "requested": false},
}

rules(call) := {f.rule | some f in sod.findings with input as call}

codes(call) := {f.code | some f in sod.findings with input as call}

changed(patch) := object.union(base, patch)

test_allows_a_verifier_with_no_part_in_it if rules(base) == set()

test_allows_work if rules({"call": {"capability": "task.claim"}, "session": {"id": "ses_1", "role": "executor"}}) == set()

test_denies_the_empty_call if rules({}) == {"sod.incomplete"}

test_denies_the_empty_call_without_data if {
	found := sod.findings with input as {} with data.sod as {}
	"sod.incomplete" in {f.rule | some f in found}
	"deny" in {f.effect | some f in found}
}

test_incomplete[note] if {
	some note, call in {
		"no capability": json.remove(base, ["call/capability"]),
		"no duty facts at a verdict": json.remove(base, ["duty"]),
		"none at a close": object.union(json.remove(base, ["duty"]), {"call": {"capability": "run.close"}}),
	}
	"sod.incomplete" in rules(call)
	"policy_denied" in codes(call)
}

test_role[note] if {
	some verb, role in {
		"approval.decide": "verifier",
		"approval.respond": "operator",
		"run.close": "orchestrator",
		"task.verify": "executor",
	}
	note := concat(" ", [verb, role])
	call := changed({"call": {"capability": verb}, "session": {"role": role}})
	rules(call) == {"sod.role"}
	codes(call) == {"sod_violation"}
}

test_role_denies_nobody if rules(json.remove(base, ["session"])) == {"sod.role"}

test_role_denies_without_data if {
	found := sod.findings with input as base with data.sod as {}
	{f.rule | some f in found} == {"sod.role"}
}

test_role_allows[note] if {
	some verb, role in {
		"approval.decide": "approver",
		"approval.respond": "approver",
		"run.close": "verifier",
		"task.verify": "verifier",
		"approval.revoke": "operator",
		"approval.get": "auditor",
	}
	note := concat(" ", [verb, role])
	rules(changed({"call": {"capability": verb}, "session": {"role": role}})) == set()
}

test_executor[note] if {
	some note, call in {
		"worked on it": changed({"duty": {"executed": true}}),
		"nobody says": json.remove(base, ["duty/executed"]),
		"closing": changed({"duty": {"executed": true}, "call": {"capability": "run.close"}}),
		"deciding": changed({"duty": {"executed": true}, "call": {"capability": "approval.decide"}, "session": {"role": "approver"}}),
	}
	rules(call) == {"sod.executor"}
	codes(call) == {"sod_violation"}
}

test_executor_allows if rules(changed({"duty": {"executed": false}})) == set()

test_orchestrator[note] if {
	some note, call in {
		"planned it": changed({"duty": {"planned": true}}),
		"nobody says": json.remove(base, ["duty/planned"]),
	}
	rules(call) == {"sod.orchestrator"}
	codes(call) == {"sod_violation"}
}

test_orchestrator_allows if rules(changed({"duty": {"planned": false}})) == set()

test_requester[note] if {
	some note, call in {
		"asked": changed({"duty": {"requested": true}}),
		"nobody says": json.remove(base, ["duty/requested"]),
	}
	rules(call) == {"sod.requester"}
	codes(call) == {"sod_violation"}
}

test_requester_allows if rules(changed({"duty": {"requested": false}})) == set()

test_all_reasons_are_given if {
	call := changed({"session": {"role": "executor"}, "duty": {"executed": true, "planned": true, "requested": true}})
	rules(call) == {"sod.executor", "sod.orchestrator", "sod.requester", "sod.role"}
}
