package packs.skills_test

import data.packs.skills

base := {
	"call": {"capability": "skill.load", "safety": "mutating", "class": "ordinary"},
	"session": {"id": "ses_1", "role": "executor", "state": "active"},
	"skill": {
		"source": "inline",
		"effects": true,
		"changed": false,
		"reserved": false,
		"undeclared": false,
		"private": false,
		"intact": true,
		"ready": false,
	},
}

rules(call) := {f.rule | some f in skills.findings with input as call}

codes(call) := {f.code | some f in skills.findings with input as call}

changed(patch) := object.union(base, patch)

asked(call) := {[o.args.kind, o.args.scope, o.args.approvers] |
	some f in skills.findings with input as call
	f.effect == "require_approval"
	some o in f.obligations
}

loaded(patch) := changed({"skill": patch})

without(fact) := json.remove(base, [concat("/", ["skill", fact])])

executed(patch) := object.union(
	{
		"call": {"capability": "skill.execute", "safety": "mutating", "class": "ordinary"},
		"session": base.session,
		"skill": {"state": "active", "intact": true, "ready": true},
	},
	{"skill": patch},
)

test_allows_a_sound_skill if rules(base) == set()

test_allows_executing if rules(executed({})) == set()

test_allows_listing if rules({"call": {"capability": "skill.list", "safety": "read-only"}}) == set()

test_denies_the_empty_call if rules({}) == {"skills.incomplete"}

test_denies_the_empty_call_without_data if {
	found := skills.findings with input as {} with data.skills as {}
	"skills.incomplete" in {f.rule | some f in found}
	"deny" in {f.effect | some f in found}
}

test_incomplete[note] if {
	some note, call in {
		"no capability": json.remove(base, ["call/capability"]),
		"nothing is loaded": json.remove(base, ["skill"]),
		"nothing is executed": json.remove(executed({}), ["skill"]),
	}
	"skills.incomplete" in rules(call)
	"policy_denied" in codes(call)
}

test_source[note] if {
	some note, call in {
		"file": loaded({"source": "file"}),
		"a source of tomorrow": loaded({"source": "carrier-pigeon"}),
		"none": without("source"),
	}
	rules(call) == {"skills.source"}
	codes(call) == {"egress_denied"}
}

test_source_denies_files_without_data if {
	call := object.union(loaded({"source": "file"}), {"session": {"role": "operator"}})
	found := skills.findings with input as call with data.skills as {}
	{f.rule | some f in found} == {"skills.source"}
}

test_source_allows[note] if {
	some note, call in {
		"artifact": loaded({"source": "artifact"}),
		"url": loaded({"source": "url"}),
		"the operator's directory": object.union(loaded({"source": "file"}), {"session": {"role": "operator"}}),
	}
	rules(call) == set()
}

test_private_host[note] if {
	some note, call in {"private": loaded({"private": true}), "nobody says": without("private")}
	rules(call) == {"skills.private_host"}
	codes(call) == {"egress_denied"}
}

test_private_host_allows_public if rules(loaded({"private": false})) == set()

test_reserved[note] if {
	some note, call in {"taken": loaded({"reserved": true}), "nobody says": without("reserved")}
	rules(call) == {"skills.reserved"}
	codes(call) == {"policy_denied"}
}

test_reserved_allows_free_names if rules(loaded({"reserved": false})) == set()

test_undeclared[note] if {
	some note, call in {"undeclared": loaded({"undeclared": true}), "nobody says": without("undeclared")}
	rules(call) == {"skills.undeclared"}
	codes(call) == {"policy_denied"}
}

test_undeclared_allows_declared if rules(loaded({"undeclared": false})) == set()

test_tampered[note] if {
	some note, call in {
		"other bytes": loaded({"intact": false}),
		"nobody says": without("intact"),
		"other bytes are executed": executed({"intact": false}),
	}
	rules(call) == {"skills.tampered"}
	codes(call) == {"policy_denied"}
}

test_tampered_allows[note] if {
	some note, call in {
		"the expected bytes": loaded({"intact": true}),
		"unloading whatever it is": object.union(executed({"intact": false}), {"call": {"capability": "skill.unload"}}),
	}
	rules(call) == set()
}

test_changed[note] if {
	some note, call in {"can do more": loaded({"changed": true}), "nobody says": without("changed")}
	rules(call) == {"skills.changed"}
	codes(call) == {"approval_required"}
	asked(call) == {["skill_enable", "call", 1]}
}

test_changed_allows_the_same if rules(loaded({"changed": false})) == set()

test_inactive[note] if {
	some note, call in {
		"waits": executed({"state": "pending_approval"}),
		"revoked": executed({"state": "revoked"}),
		"none": json.remove(executed({}), ["skill/state"]),
	}
	rules(call) == {"skills.inactive"}
	codes(call) == {"capability_unavailable"}
}

test_inactive_allows[state] if {
	some state in ["active", "superseded"]
	rules(executed({"state": state})) == set()
}

test_not_ready[note] if {
	some note, call in {"not set up": executed({"ready": false}), "nobody says": json.remove(executed({}), ["skill/ready"])}
	rules(call) == {"skills.not_ready"}
	codes(call) == {"capability_unavailable"}
}

test_not_ready_allows[note] if {
	some note, call in {"set up": executed({"ready": true}), "loading": loaded({"ready": false})}
	rules(call) == set()
}
