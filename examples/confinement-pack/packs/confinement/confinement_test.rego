package packs.confinement_test

import data.packs.confinement

coming(role, capability, labels) := {
	"call": {"capability": capability, "class": "ordinary", "safety": "mutating"},
	"labels": labels,
	"session": {"role": role},
}

wants(call) := {[f.rule, f.effect, o.type, o.args.tier] |
	some f in confinement.findings with input as call
	some o in f.obligations
}

test_labels[note] if {
	some note, call in {
		"claims": coming("executor", "task.claim", ["pii.attachment", "public"]),
		"judges": coming("verifier", "task.verify", ["pii.redacted"]),
		"reads": coming("executor", "artifact.get", ["secret.token"]),
	}
	wants(call) == {["confinement.labels", "allow", "jail", "gvisor"]}
}

test_labels_allows[note] if {
	some note, call in {
		"open data": coming("executor", "task.claim", ["internal.system", "public"]),
		"no labels": coming("executor", "task.claim", []),
		"a person": coming("operator", "task.get", ["pii.attachment"]),
		"giving back": coming("executor", "task.release", ["pii.attachment"]),
		"the gateway's own": object.union(coming("executor", "task.expire", ["pii.attachment"]), {"call": {"class": "mandate"}}),
	}
	found := confinement.findings with input as call
	found == set()
}

test_spawn if {
	call := object.union(coming("operator", "session.spawn", []), {"agent": {"domain": "intake"}})
	wants(call) == {["confinement.spawn", "allow", "jail", "gvisor"]}
}

test_spawn_allows if {
	call := object.union(coming("operator", "session.spawn", []), {"agent": {"domain": "web"}})
	wants(call) == set()
}

test_incomplete[note] if {
	some note, call in {
		"nothing": {},
		"no labels": {"call": {"capability": "task.claim"}},
		"no capability": {"labels": []},
		"an empty capability": {"call": {"capability": ""}, "labels": []},
	}
	found := confinement.findings with input as call
	{[f.rule, f.effect, f.code] | some f in found} == {["confinement.incomplete", "deny", "policy_denied"]}
}
