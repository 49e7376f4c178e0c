package packs.tool_guard_test

import data.packs.tool_guard

base := {
	"call": {"capability": "task.claim", "safety": "mutating", "class": "ordinary"},
	"session": {"id": "ses_1", "role": "executor", "state": "active"},
	"task": {"id": "tsk_1", "capability": "site.build"},
	"labels": ["internal.system"],
}

rules(call) := {f.rule | some f in tool_guard.findings with input as call}

changed(patch) := object.union(base, patch)

everything := {"tool_guard.not_allowed", "tool_guard.denied", "tool_guard.warned"}

test_allows_what_they_allow if rules(base) == set()

# What cannot be shown to them is denied, whatever they would say.
test_denies_what_they_cannot_be_asked[note] if {
	some note, call in {
		"empty": {},
		"no tool": json.remove(base, ["task/capability"]),
		"no role": json.remove(base, ["session/role"]),
		"no safety": json.remove(base, ["call/safety"]),
		"no labels": json.remove(base, ["labels"]),
		"an unknown safety": changed({"call": {"safety": "odd"}}),
	}
	rules(call) == everything
}

test_denies_without_data if {
	found := tool_guard.findings with input as base with data.tool_guard as {}
	{f.rule | some f in found} == everything
}

test_denied[note] if {
	some note, call in {
		"destruction": changed({"call": {"safety": "destructive"}}),
		"a secret": changed({"labels": ["secret.token"]}),
	}
	rules(call) == {"tool_guard.not_allowed", "tool_guard.denied"}
}

test_not_allowed if rules(changed({"session": {"role": "verifier"}})) == {"tool_guard.not_allowed"}

test_warned if rules(changed({"task": {"capability": "beta.build"}})) == {"tool_guard.warned"}

# The wrapper itself, whatever their rules say today.
test_follows_their_answers if {
	found := tool_guard.findings with input as base
		with data.agents.tools.guard.allow as false
		with data.agents.tools.guard.deny as {"no"}
		with data.agents.tools.guard.warn as {"hm"}
	{f.rule | some f in found} == everything
}
