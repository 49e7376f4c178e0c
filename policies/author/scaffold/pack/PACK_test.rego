package packs.PACK_test

import data.packs.PACK

base := {
	"call": {"capability": "task.claim", "safety": "mutating", "class": "ordinary"},
	"session": {"id": "ses_1", "role": "executor", "state": "active"},
	"scopes": {"requested": ["fs:repo/site/"]},
}

rules(call) := {f.rule | some f in PACK.findings with input as call}

changed(patch) := object.union(base, patch)

wanting(scope) := changed({"scopes": {"requested": [scope]}})

test_allows_other_paths if rules(base) == set()

test_denies_the_empty_call if rules({}) == {"PACK.incomplete"}

test_denies_the_empty_call_without_data if {
	found := PACK.findings with input as {} with data.PACK as {}
	{f.rule | some f in found} == {"PACK.incomplete"}
}

test_incomplete[note] if {
	some note, call in {
		"no capability": json.remove(base, ["call/capability"]),
		"empty capability": changed({"call": {"capability": ""}}),
		"no scopes": json.remove(base, ["scopes"]),
	}
	"PACK.incomplete" in rules(call)
}

test_protected[note] if {
	some note, call in {
		"the path": wanting("fs:repo/infra/"),
		"below it": wanting("fs:repo/infra/dns/"),
		"around it": wanting("fs:repo/"),
		"one of two": changed({"scopes": {"requested": ["fs:repo/site/", "fs:repo/infra/"]}}),
		"enqueued": object.union(wanting("fs:repo/infra/"), {"call": {"capability": "task.enqueue"}}),
		"no role": json.remove(wanting("fs:repo/infra/"), ["session/role"]),
	}
	rules(call) == {"PACK.protected"}
}

test_protected_allows[note] if {
	some note, call in {
		"an operator": object.union(wanting("fs:repo/infra/"), {"session": {"role": "operator"}}),
		"a neighbour": wanting("fs:repo/infrastructure/"),
		"giving back": object.union(wanting("fs:repo/infra/"), {"call": {"capability": "task.release"}}),
	}
	rules(call) == set()
}

test_everything_is_protected_without_data if {
	found := PACK.findings with input as base with data.PACK as {}
	{f.rule | some f in found} == {"PACK.protected"}
}
