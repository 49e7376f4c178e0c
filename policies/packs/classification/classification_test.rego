package packs.classification_test

import data.packs.classification

base := {
	"call": {"capability": "task.enqueue", "safety": "mutating", "class": "ordinary"},
	"task": {"safety": "mutating", "raised": false},
	"labels": ["internal.system", "public"],
	"sinks": ["egress", "log"],
}

raised(verb) := {"call": {"capability": verb}, "task": {"raised": true}}

asked(call) := {[f.effect, o.args.kind, o.args.scope, o.args.approvers] |
	some f in classification.findings with input as call
	some o in f.obligations
}

rules(call) := {f.rule | some f in classification.findings with input as call}

codes(call) := {f.code | some f in classification.findings with input as call}

changed(patch) := object.union(base, patch)

flow(labels, sinks) := changed({"labels": labels, "sinks": sinks})

test_allows_plain_data if rules(base) == set()

test_allows_nothing_carried if rules(flow([], [])) == set()

test_denies_the_empty_call if rules({}) == {"classification.incomplete"}

test_denies_the_empty_call_without_data if {
	found := classification.findings with input as {} with data.classification as {}
	{f.rule | some f in found} == {"classification.incomplete"}
}

test_incomplete[note] if {
	some note, call in {
		"no capability": json.remove(base, ["call/capability"]),
		"empty capability": changed({"call": {"capability": ""}}),
		"no labels": json.remove(base, ["labels"]),
		"no sinks": json.remove(base, ["sinks"]),
		"labels are no list": changed({"labels": "public"}),
	}
	"classification.incomplete" in rules(call)
	codes(call) == {"classification_denied"}
}

test_secret[note] if {
	some label in ["secret.credential", "secret.token"]
	some sink in ["egress", "memory", "log", "agent"]
	note := concat(" ", [label, sink])
	rules(flow(["public", label], [sink])) == {"classification.secret"}
	codes(flow([label], [sink])) == {"classification_denied"}
}

test_secret_allows_without_a_sink if rules(flow(["secret.token"], [])) == set()

test_pii_raw[note] if {
	some note in ["pii.chat.message", "pii.chat.metadata", "pii.attachment"]
	rules(flow([note], ["egress"])) == {"classification.pii_raw"}
	codes(flow([note], ["egress"])) == {"classification_denied"}
}

test_pii_raw_allows_inside[sink] if {
	some sink in ["memory", "log", "agent"]
	rules(flow(["pii.chat.message", "pii.attachment"], [sink])) == set()
}

test_redacted_egress[note] if {
	some note, labels in {
		"alone": ["pii.redacted"],
		"with public data beside it": ["pii.redacted", "public"],
	}
	rules(flow(labels, ["egress"])) == {"classification.redacted_egress"}
	codes(flow(labels, ["egress"])) == {"approval_required"}
	asked(flow(labels, ["egress"])) == {["require_approval", "policy_exception", "run", 1]}
}

test_redacted_egress_allows_inside if rules(flow(["pii.redacted"], ["memory"])) == set()

# Agreed to once, when the work was enqueued.
test_redacted_egress_allows_going_on[verb] if {
	some verb in ["task.claim", "task.complete", "task.handoff"]
	rules(object.union(flow(["pii.redacted"], ["egress"]), {"call": {"capability": verb}})) == set()
}

test_redacted_egress_again_when_more_is_possible[note] if {
	some note, call in {
		"raised": raised("task.claim"),
		"handed on": raised("task.handoff"),
		"nobody says": {"call": {"capability": "task.claim"}, "task": {"raised": "perhaps"}},
	}
	rules(object.union(flow(["pii.redacted"], ["egress"]), call)) == {"classification.redacted_egress"}
}

test_unknown[note] if {
	some note, call in {
		"label": flow(["pii.new"], []),
		"label with other case": flow(["Public"], []),
		"sink": flow([], ["Egress"]),
	}
	rules(call) == {"classification.unknown"}
	codes(call) == {"classification_denied"}
}

test_unknown_denies_without_data if {
	found := classification.findings with input as base with data.classification as {}
	{f.rule | some f in found} == {"classification.unknown"}
}

test_unknown_allows[label] if {
	some label in data.classification.config.labels
	rules(flow([label], [])) == set()
}

test_untrusted_to_destructive[note] if {
	some note, patch in {
		"enqueued": {},
		"claimed by a tool that can do more": raised("task.claim"),
	}
	call := object.union_n([flow(["external.untrusted"], []), patch, {"task": {"safety": "destructive"}}])
	rules(call) == {"classification.untrusted_to_destructive"}
	codes(call) == {"approval_required"}
	asked(call) == {["require_approval", "effect", "call", 1]}
}

test_untrusted_to_destructive_allows[note] if {
	some note, call in {
		"mutating work": flow(["external.untrusted"], ["log"]),
		"destructive work on trusted data": changed({"task": {"safety": "destructive"}}),
		"claiming what was agreed to": object.union(
			flow(["external.untrusted"], []),
			{"call": {"capability": "task.claim"}, "task": {"safety": "destructive"}},
		),
	}
	rules(call) == set()
}

said(labels, content) := object.union(flow(labels, []), {"content": content})

test_downgrade[note] if {
	some note, declared in {
		"nothing": [],
		"public": ["public"],
		"one of two": ["pii.redacted"],
	}
	call := said(["internal.system", "pii.redacted", "public"], {"declared": declared, "released": false, "verified": false})
	rules(call) == {"classification.downgrade"}
	codes(call) == {"classification_denied"}
}

test_downgrade_allows[note] if {
	some note, call in {
		"the same": said(["pii.redacted"], {"declared": ["pii.redacted"], "released": false, "verified": false}),
		"more": said(["public"], {"declared": ["pii.redacted", "internal.system"], "released": false, "verified": false}),
		"no word": said(["pii.redacted"], {"released": false, "verified": false}),
		"verified": said(["pii.redacted"], {"declared": ["public"], "released": true, "verified": true}),
	}
	rules(call) == set()
}

test_unverified[note] if {
	some note, content in {
		"no verifier": {"released": true, "verified": false},
		"nobody says": {"released": true},
		"nobody says anything": {},
	}
	rules(said(["pii.redacted"], content)) == {"classification.unverified"}
	codes(said(["pii.redacted"], content)) == {"classification_denied"}
}

test_unverified_allows[note] if {
	some note, content in {
		"verified": {"released": true, "verified": true},
		"not released": {"released": false, "verified": false},
	}
	rules(said(["pii.redacted"], content)) == set()
}

reading(role, labels) := object.union(flow(labels, []), {
	"call": {"capability": "task.get", "safety": "read-only"},
	"session": {"role": role},
})

test_masked[note] if {
	some note in ["pii.chat.message", "pii.attachment", "pii.redacted", "secret.token", "secret.credential"]
	found := classification.findings with input as reading("auditor", ["internal.system", note])
	{[f.rule, f.effect, o.type, o.args.fields] | some f in found; some o in f.obligations} == {[
		"classification.masked", "redact", "redact",
		data.classification.config.masked_fields,
	]}
}

test_masked_allows[note] if {
	some note, call in {
		"another role": reading("operator", ["pii.chat.message"]),
		"nothing of the kind": reading("auditor", ["external.untrusted", "public"]),
		"no labels": reading("auditor", []),
		"a change": object.union(reading("auditor", ["pii.chat.message"]), {"call": {"safety": "mutating"}}),
	}
	rules(call) == set()
}

test_what_moves_nothing_is_allowed[note] if {
	some note, call in {
		"reading": {"capability": "task.get", "safety": "read-only"},
		"giving back": {"capability": "task.release"},
		"cancelling": {"capability": "task.cancel"},
		"the gateway's own mandate": {"capability": "task.expire", "class": "mandate"},
	}
	rules(object.union(flow(["secret.token", "pii.chat.message", "pii.redacted", "nonsense"], ["egress"]), {"call": call})) == set()
}

test_all_reasons_are_given if {
	call := object.union(flow(["secret.token", "pii.attachment", "external.untrusted", "odd"], ["egress"]), {"task": {"safety": "destructive"}})
	rules(call) == {
		"classification.pii_raw",
		"classification.secret",
		"classification.unknown",
		"classification.untrusted_to_destructive",
	}
}
