package packs.write_scopes_test

import data.packs.write_scopes

base := {
	"call": {"capability": "task.claim", "safety": "mutating", "class": "ordinary"},
	"session": {"id": "ses_1", "role": "executor", "state": "active"},
	"agent": {"id": "builder-1", "status": "active", "write_scope": ["fs:repo/site/", "mem:notes/"]},
	"scopes": {"requested": ["fs:repo/site/assets/"]},
}

rules(call) := {f.rule | some f in write_scopes.findings with input as call}

codes(call) := {f.code | some f in write_scopes.findings with input as call}

changed(patch) := object.union(base, patch)

wanting(scope) := changed({"scopes": {"requested": [scope]}})

test_allows_inside if rules(base) == set()

test_allows_no_scopes if rules(changed({"scopes": {"requested": []}})) == set()

test_denies_the_empty_call if rules({}) == {"write_scopes.incomplete"}

test_denies_the_empty_call_without_data if {
	found := write_scopes.findings with input as {} with data.write_scopes as {}
	{f.rule | some f in found} == {"write_scopes.incomplete"}
}

test_incomplete[note] if {
	some note, call in {
		"no capability": json.remove(base, ["call/capability"]),
		"empty capability": changed({"call": {"capability": ""}}),
		"no scopes": json.remove(base, ["scopes"]),
		"scopes are no list": changed({"scopes": {"requested": "fs:repo/site/"}}),
	}
	"write_scopes.incomplete" in rules(call)
	"policy_denied" in codes(call)
}

test_outside[note] if {
	some note, call in {
		"elsewhere": wanting("fs:repo/ops/"),
		"neighbour with the same beginning": wanting("fs:repo/site2/"),
		"parent": wanting("fs:repo/"),
		"other scheme": wanting("mem:repo/site/"),
		"one of two": changed({"scopes": {"requested": ["fs:repo/site/", "fs:repo/ops/"]}}),
		"at the end": object.union(wanting("fs:repo/ops/"), {"call": {"capability": "task.complete"}}),
		"handed on": object.union(wanting("fs:repo/ops/"), {"call": {"capability": "task.handoff"}}),
		"claimed by a session": object.union(wanting("fs:repo/ops/"), {"call": {"capability": "session.start"}}),
		"agent without a scope": json.remove(base, ["agent/write_scope"]),
		"agent with an empty scope": changed({"agent": {"write_scope": [""]}}),
		"agent with an unfinished scope": changed({"agent": {"write_scope": ["fs:repo/si"]}}),
	}
	rules(call) == {"write_scopes.outside"}
	codes(call) == {"scope_denied"}
}

test_outside_allows[note] if {
	some note, call in {
		"the scope itself": wanting("fs:repo/site/"),
		"far below": wanting("fs:repo/site/a/b/c/"),
		"the second scope": wanting("mem:notes/today/"),
		"enqueued by an operator": {
			"call": {"capability": "task.enqueue", "safety": "mutating", "class": "ordinary"},
			"session": {"id": "ses_2", "role": "operator", "state": "active"},
			"scopes": {"requested": ["fs:repo/ops/"]},
		},
		"given back": object.union(wanting("fs:repo/ops/"), {"call": {"capability": "task.release"}}),
		"claimed by a session": object.union(base, {"call": {"capability": "session.start"}}),
		"a session that claims nothing": object.union(changed({"scopes": {"requested": []}}), {"call": {"capability": "session.start"}}),
		"a person's session": object.union(json.remove(wanting("fs:repo/ops/"), ["agent"]), {"call": {"capability": "session.start"}}),
	}
	rules(call) == set()
}

test_readonly_role[note] if {
	some note in ["verifier", "auditor", "approver", "connector", "role-of-tomorrow"]
	every verb in ["session.start", "task.enqueue"] {
		call := changed({"session": {"role": note}, "call": {"capability": verb}})
		rules(call) == {"write_scopes.readonly_role"}
		codes(call) == {"scope_denied"}
	}
}

test_readonly_role_allows[note] if {
	some note, call in {
		"operator": changed({"session": {"role": "operator"}}),
		"orchestrator": changed({"session": {"role": "orchestrator"}}),
		"verifier that writes nothing": changed({"session": {"role": "verifier"}, "scopes": {"requested": []}}),
		"verifier that reads": changed({"session": {"role": "verifier"}, "call": {"capability": "task.get", "safety": "read-only"}}),
		"the system": {
			"call": {"capability": "task.expire", "safety": "mutating", "class": "mandate"},
			"scopes": {"requested": ["fs:repo/ops/"]},
		},
	}
	rules(call) == set()
}

test_readonly_role_denies_without_data if {
	call := changed({"call": {"capability": "task.enqueue"}})
	found := write_scopes.findings with input as call with data.write_scopes as {}
	{f.rule | some f in found} == {"write_scopes.readonly_role"}
}

test_canonical[scope] if {
	some scope in [
		"fs:repo/site",
		"fs:repo//site/",
		"fs:repo/../site/",
		"fs:repo/./site/",
		"fs:../",
		"fs:./",
		"fs:/repo/",
		"fs:",
		"",
		"/",
		"repo/site/",
		"ftp:repo/",
		"FS:repo/",
		"fs:repo/a b/",
		"fs:repo/%2e%2e/",
		`fs:repo\site/`,
		"fs:repo/*/",
		"fs:repo/a?/",
		"fs:repo/a#/",
		"fs:repö/",
		"fs:repo/\n/",
	]
	call := object.union(wanting(scope), {"call": {"capability": "task.enqueue"}})
	rules(call) == {"write_scopes.canonical"}
	codes(call) == {"scope_denied"}
}

test_canonical_allows[scope] if {
	some scope in [
		"fs:repo/",
		"fs:repo/.hidden/",
		"fs:repo/..a/",
		"fs:repo/.../",
		"fs:a.b/c..d/e./",
		"http:example.org:443/x/",
		"secret:vault/key_1/",
		"task:t-1/",
		"conn:chat/",
		"mem:notes/~me/",
	]
	rules(object.union(wanting(scope), {"call": {"capability": "task.enqueue"}})) == set()
}

test_canonical_is_not_asked_of_readers if {
	rules(object.union(wanting("fs:repo/../"), {"call": {"capability": "task.get", "safety": "read-only"}})) == set()
}

holding(claimed, requested) := changed({"call": {"capability": "memory.put"}, "scopes": {"claimed": claimed, "requested": requested}})

test_unclaimed[note] if {
	some note, call in {
		"nothing held": holding([], ["mem:notes/today/"]),
		"elsewhere": holding(["mem:notes/today/"], ["mem:notes/tomorrow/"]),
		"neighbour with the same beginning": holding(["mem:notes/a/"], ["mem:notes/ab/"]),
		"parent": holding(["mem:notes/a/"], ["mem:notes/"]),
		"one of two": holding(["mem:notes/a/"], ["mem:notes/a/", "mem:notes/b/"]),
		"unfinished claim": holding(["mem:notes/to"], ["mem:notes/today/"]),
		"work elsewhere": changed({"scopes": {"claimed": ["fs:repo/site/docs/"], "requested": ["fs:repo/site/assets/"]}}),
		"work around it": changed({"scopes": {"claimed": ["fs:repo/site/assets/css/"], "requested": ["fs:repo/site/assets/"]}}),
	}
	rules(call) == {"write_scopes.unclaimed"}
	codes(call) == {"scope_denied"}
}

test_unclaimed_allows[note] if {
	some note, call in {
		"what is held": holding(["mem:notes/a/"], ["mem:notes/a/"]),
		"below it": holding(["mem:notes/a/"], ["mem:notes/a/b/"]),
		"nothing written": holding([], []),
		"work below it": changed({"scopes": {"claimed": ["fs:repo/site/"], "requested": ["fs:repo/site/assets/"]}}),
		"work given back": object.union(holding(["mem:notes/a/"], ["fs:repo/site/"]), {"call": {"capability": "task.release"}}),
		"a call under no claims": json.remove(holding([], ["mem:notes/a/"]), ["scopes/claimed"]),
	}
	rules(call) == set()
}
