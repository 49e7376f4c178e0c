package packs.confinement_test

import data.packs.confinement

coming(kind, capability, labels) := {
	"call": {"capability": capability, "class": "ordinary", "safety": "mutating"},
	"labels": labels,
	"principal": {"kind": kind},
}

wants(call) := {[f.rule, f.effect, o.type, o.args.tier] |
	some f in confinement.findings with input as call
	some o in f.obligations
}

test_labels[note] if {
	some note, call in {
		"claims": coming("agent", "task.claim", ["pii.attachment", "public"]),
		"judges": coming("agent", "task.verify", ["pii.redacted"]),
		"reads": coming("agent", "artifact.get", ["secret.token"]),
	}
	wants(call) == {["confinement.labels", "allow", "jail", "gvisor"]}
}

test_labels_allows[note] if {
	some note, call in {
		"open data": coming("agent", "task.claim", ["internal.system", "public"]),
		"no labels": coming("agent", "task.claim", []),
		"a person": coming("human", "task.get", ["pii.attachment"]),
		"giving back": coming("agent", "task.release", ["pii.attachment"]),
		"the gateway's own": object.union(coming("agent", "task.expire", ["pii.attachment"]), {"call": {"class": "mandate"}}),
	}
	found := confinement.findings with input as call
	found == set()
}

test_spawn if {
	call := object.union(coming("human", "session.spawn", []), {"agent": {"domain": "intake"}})
	wants(call) == {["confinement.spawn", "allow", "jail", "gvisor"]}
}

test_spawn_allows if {
	call := object.union(coming("human", "session.spawn", []), {"agent": {"domain": "web"}})
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
