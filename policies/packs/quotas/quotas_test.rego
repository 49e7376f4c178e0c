package packs.quotas_test

import data.packs.quotas

base := {
	"call": {"capability": "run.create", "safety": "mutating", "class": "ordinary"},
	"quotas": [{"metric": "open_approvals", "subject": "tenant", "limit": 100, "fits": true, "on_exceed": "deny"}],
}

rules(call) := {f.rule | some f in quotas.findings with input as call}

codes(call) := {f.code | some f in quotas.findings with input as call}

changed(patch) := object.union(base, patch)

asked(call) := {[o.args.kind, o.args.scope, o.args.approvers] |
	some f in quotas.findings with input as call
	f.effect == "require_approval"
	some o in f.obligations
}

counted(patch) := changed({"quotas": [object.union(base.quotas[0], patch)]})

test_allows_what_fits if rules(base) == set()

test_allows_no_quotas if rules(changed({"quotas": []})) == set()

test_denies_the_empty_call if rules({}) == {"quotas.incomplete"}

test_denies_the_empty_call_without_data if {
	found := quotas.findings with input as {} with data.quotas as {}
	"quotas.incomplete" in {f.rule | some f in found}
	"deny" in {f.effect | some f in found}
}

test_incomplete[note] if {
	some note, call in {
		"no capability": json.remove(base, ["call/capability"]),
		"no quotas": json.remove(base, ["quotas"]),
		"quotas are no list": changed({"quotas": "none"}),
	}
	rules(call) == {"quotas.incomplete"}
	codes(call) == {"policy_denied"}
}

test_exceeded[note] if {
	some note, call in {
		"deny": counted({"fits": false}),
		"queue": counted({"fits": false, "on_exceed": "queue"}),
		"nobody says what follows": changed({"quotas": [json.remove(object.union(base.quotas[0], {"fits": false}), ["on_exceed"])]}),
		"nobody says whether it fits": changed({"quotas": [json.remove(base.quotas[0], ["fits"])]}),
		"one of two": changed({"quotas": [base.quotas[0], object.union(base.quotas[0], {"subject": "agent", "fits": false})]}),
	}
	rules(call) == {"quotas.exceeded"}
	codes(call) == {"quota_exceeded"}
}

test_exceeded_allows_the_last if rules(counted({"fits": true})) == set()

test_extend if {
	call := counted({"fits": false, "on_exceed": "approval"})
	rules(call) == {"quotas.extend"}
	codes(call) == {"approval_required"}
	asked(call) == {["policy_exception", "call", 1]}
}

test_extend_allows_what_fits if rules(counted({"on_exceed": "approval"})) == set()

test_extend_is_no_cover_for_a_denial if {
	call := changed({"quotas": [
		object.union(base.quotas[0], {"fits": false, "on_exceed": "approval"}),
		object.union(base.quotas[0], {"fits": false, "subject": "agent"}),
	]})
	rules(call) == {"quotas.exceeded", "quotas.extend"}
}

test_unknown[note] if {
	some note, patch in {
		"metric": {"metric": "smiles_per_hour"},
		"subject": {"subject": "planet"},
	}
	rules(counted(patch)) == {"quotas.unknown"}
	codes(counted(patch)) == {"quota_exceeded"}
}

test_unknown_denies_without_data if {
	found := quotas.findings with input as base with data.quotas as {}
	{f.rule | some f in found} == {"quotas.unknown"}
}

test_unknown_allows[metric] if {
	some metric in data.quotas.config.metrics
	rules(counted({"metric": metric})) == set()
}
