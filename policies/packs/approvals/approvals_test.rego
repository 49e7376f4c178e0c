package packs.approvals_test

import data.packs.approvals

base := {
	"call": {"capability": "task.enqueue", "safety": "mutating", "class": "ordinary"},
	"principal": {"kind": "agent"},
	"task": {"capability": "site.build", "safety": "mutating", "approval": "auto", "raised": false},
}

rules(call) := {f.rule | some f in approvals.findings with input as call}

codes(call) := {f.code | some f in approvals.findings with input as call}

changed(patch) := object.union(base, patch)

asked(call) := {[o.args.kind, o.args.scope, o.args.approvers] |
	some f in approvals.findings with input as call
	f.effect == "require_approval"
	some o in f.obligations
}

deciding(patch) := object.union(
	{
		"call": {"capability": "approval.decide", "safety": "mutating", "class": "ordinary"},
		"principal": {"kind": "human"},
		"session": {"id": "ses_1", "role": "approver", "state": "active"},
		"approval": {"kind": "effect", "scope": "call", "state": "pending", "excluded": false, "voted": false, "stale": false},
	},
	patch,
)

calling(capability) := {"call": {"capability": capability, "safety": "mutating", "class": "ordinary"}, "principal": {"kind": "agent"}}

test_allows_ordinary_work if rules(base) == set()

test_denies_the_empty_call if rules({}) == {"approvals.incomplete"}

test_denies_the_empty_call_without_data if {
	found := approvals.findings with input as {} with data.approvals as {}
	"approvals.incomplete" in {f.rule | some f in found}
	"deny" in {f.effect | some f in found}
}

test_incomplete[note] if {
	some note, call in {
		"no capability": json.remove(base, ["call/capability"]),
		"empty capability": changed({"call": {"capability": ""}}),
		"no task": json.remove(base, ["task"]),
		"nobody says how dangerous": json.remove(base, ["task/safety"]),
		"nobody says whether consent is needed": json.remove(base, ["task/approval"]),
		"handed on, nobody says how dangerous": json.remove(handing({"raised": false}), ["task/safety"]),
		"handed on, nobody says whether people must agree": json.remove(handing({"raised": false}), ["task/approval"]),
	}
	rules(call) == {"approvals.incomplete"}
	codes(call) == {"policy_denied"}
}

test_manual if {
	call := changed({"task": {"approval": "manual"}})
	rules(call) == {"approvals.manual"}
	codes(call) == {"approval_required"}
	asked(call) == {["effect", "call", 1]}
}

test_manual_allows[note] if {
	some note, call in {
		"auto": base,
		"claiming what was agreed to": changed({"task": {"approval": "manual"}, "call": {"capability": "task.claim"}}),
		"reading": changed({"task": {"approval": "manual"}, "call": {"capability": "task.get", "safety": "read-only"}}),
	}
	rules(call) == set()
}

test_four_eyes if {
	call := changed({"task": {"safety": "destructive"}})
	rules(call) == {"approvals.four_eyes"}
	codes(call) == {"approval_required"}
	asked(call) == {["effect", "call", 2]}
}

test_four_eyes_for_high_risk if {
	found := approvals.findings with input as base with data.approvals as {"config": {"high_risk": ["site.build"]}}
	{f.rule | some f in found} == {"approvals.four_eyes"}
}

test_four_eyes_for_everything_without_data if {
	found := approvals.findings with input as base with data.approvals as {}
	{f.rule | some f in found} == {"approvals.four_eyes"}
}

test_four_eyes_allows[note] if {
	some note, call in {
		"mutating": base,
		"reading work": changed({"task": {"safety": "read-only"}}),
		"claiming what was agreed to": changed({"task": {"safety": "destructive"}, "call": {"capability": "task.claim"}}),
	}
	rules(call) == set()
}

test_four_eyes_and_consent_are_both_asked_for if {
	call := changed({"task": {"safety": "destructive", "approval": "manual"}})
	rules(call) == {"approvals.four_eyes", "approvals.manual"}
	asked(call) == {["effect", "call", 1], ["effect", "call", 2]}
}

claiming(task) := changed({"call": {"capability": "task.claim"}, "task": task})

handing(task) := changed({"call": {"capability": "task.handoff"}, "task": task})

test_raised[note] if {
	some note, call in {
		"destroys now": claiming({"safety": "destructive", "raised": true}),
		"needs consent now": claiming({"approval": "manual", "raised": true}),
		"nobody says": json.remove(claiming({"safety": "destructive"}), ["task/raised"]),
	}
	rules(call) == {"approvals.raised"}
	codes(call) == {"approval_required"}
	asked(call) == {["effect", "task", 2]}
}

test_handed_on[note] if {
	some note, call in {
		"destroys": handing({"safety": "destructive", "raised": true}),
		"needs consent": handing({"approval": "manual", "raised": true}),
		"nobody says": json.remove(handing({"safety": "destructive"}), ["task/raised"]),
	}
	rules(call) == {"approvals.handed_on"}
	codes(call) == {"approval_required"}
	asked(call) == {["effect", "call", 2]}
}

test_handed_on_high_risk if {
	call := handing({"capability": "site.publish", "raised": true})
	rules(call) == {"approvals.handed_on"} with data.approvals.config.high_risk as ["site.publish"]
}

test_handed_on_allows[note] if {
	some note, call in {
		"as agreed": handing({"safety": "destructive", "raised": false}),
		"harmless": handing({"raised": true}),
	}
	rules(call) == set()
}

test_raised_allows[note] if {
	some note, call in {
		"as dangerous as before": claiming({"safety": "destructive"}),
		"another sink only": claiming({"raised": true}),
		"a poll that names no task": calling("task.claim"),
	}
	rules(call) == set()
}

test_sod[note] if {
	some verb in ["approval.decide", "approval.respond"]
	some what, call in {
		"stands behind it": deciding({"approval": {"excluded": true}}),
		"has decided": deciding({"approval": {"voted": true}}),
		"an agent": deciding({"principal": {"kind": "agent"}}),
		"a service": deciding({"principal": {"kind": "service"}}),
		"nobody": json.remove(deciding({}), ["principal"]),
		"no facts": json.remove(deciding({}), ["approval/excluded", "approval/voted"]),
	}
	note := concat(" ", [verb, what])
	rules(object.union(call, {"call": {"capability": verb}})) == {"approvals.sod"}
	codes(object.union(call, {"call": {"capability": verb}})) == {"sod_violation"}
}

test_sod_allows[note] if {
	some note, call in {
		"a person who is free to decide": deciding({}),
		"and to answer": deciding({"call": {"capability": "approval.respond"}}),
		"reading one's own request": deciding({
			"call": {"capability": "approval.get", "safety": "read-only"},
			"approval": {"excluded": true},
			"principal": {"kind": "agent"},
		}),
	}
	rules(call) == set()
}

test_digest[note] if {
	some note, call in {
		"another call": object.union(calling("egress.fetch"), {"approval": {"stale": true, "excluded": true, "voted": false}}),
		"nobody says": object.union(calling("egress.fetch"), {"approval": {"excluded": true, "voted": false}}),
	}
	rules(call) == {"approvals.digest"}
	codes(call) == {"approval_denied"}
}

test_digest_allows[note] if {
	some note, call in {
		"the same call": object.union(calling("egress.fetch"), {"approval": {"stale": false, "excluded": true, "voted": false}}),
		"no approval": calling("egress.fetch"),
	}
	rules(call) == set()
}

triggers := {
	"approvals.trigger.http_host": ["http_host", object.union(calling("egress.fetch"), {"egress": {"new_host": true}})],
	"approvals.trigger.skill_enable": ["skill_enable", object.union(calling("skill.load"), {"skill": {"effects": true}})],
	"approvals.trigger.secret_write": ["secret_write", calling("secret.put")],
	"approvals.trigger.channel_connection": ["channel_connection", calling("connector.register")],
}

test_people_store_secrets if {
	rules(object.union(calling("secret.put"), {"principal": {"kind": "human"}})) == set()
}

test_trigger[rule] if {
	some rule, case in triggers
	rules(case[1]) == {rule}
	codes(case[1]) == {"approval_required"}
	asked(case[1]) == {[case[0], "call", 1]}
}

test_trigger_when_nobody_says[note] if {
	some note, call in {
		"which host": object.union(calling("egress.fetch"), {"egress": {}}),
		"which effects": calling("skill.load"),
	}
	count(rules(call)) == 1
}

test_trigger_allows[note] if {
	some note, call in {
		"a known host": object.union(calling("egress.fetch"), {"egress": {"new_host": false}}),
		"a skill that only computes": object.union(calling("skill.load"), {"skill": {"effects": false}}),
		"executing a skill": object.union(calling("skill.execute"), {"skill": {"effects": true}}),
		"deleting a secret": calling("secret.delete"),
		"looking after a connector": calling("connector.health"),
	}
	rules(call) == set()
}
