package packs.change_review_test

import data.packs.change_review

call(role, scopes) := {
	"call": {"capability": "task.claim", "safety": "mutating", "class": "ordinary"},
	"session": {"id": "ses_1", "role": role, "state": "active"},
	"scopes": {"requested": scopes},
}

rules(shown) := {f.rule | some f in change_review.findings with input as shown}

test_allows[note] if {
	some note, shown in {
		"another path": call("executor", ["fs:repo/site/"]),
		"an exempt role": call("operator", ["fs:repo/release/"]),
	}
	rules(shown) == set()
}

test_violation[note] if {
	some note, shown in {
		"empty": {},
		"no role": json.remove(call("executor", []), ["session/role"]),
		"no scopes": json.remove(call("executor", []), ["scopes"]),
		"nothing at all": call("executor", []),
		"a frozen path": call("executor", ["fs:repo/site/", "fs:repo/release/notes/"]),
	}
	rules(shown) == {"change_review.violation"}
}

test_denies_without_data if {
	found := change_review.findings with input as call("executor", ["fs:repo/site/"]) with data.change_review as {}
	{f.rule | some f in found} == {"change_review.violation"}
}
