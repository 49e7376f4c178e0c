package packs.egress_test

import data.packs.egress

base := {
	"call": {"capability": "egress.fetch", "safety": "mutating", "class": "ordinary"},
	"principal": {"kind": "agent"},
	"egress": {
		"scheme": "https",
		"private": false,
		"new_host": false,
		"pinned": true,
		"redirected": false,
		"secret": false,
		"jailed": true,
	},
}

rules(call) := {f.rule | some f in egress.findings with input as call}

codes(call) := {f.code | some f in egress.findings with input as call}

changed(patch) := object.union(base, patch)

to(patch) := changed({"egress": patch})

skill := {"skill": {"state": "active"}}

test_allows_a_declared_host if rules(base) == set()

test_denies_the_empty_call if rules({}) == {"egress.incomplete"}

test_denies_the_empty_call_without_data if {
	found := egress.findings with input as {} with data.egress as {}
	"egress.incomplete" in {f.rule | some f in found}
	"deny" in {f.effect | some f in found}
}

test_incomplete[note] if {
	some note, call in {
		"no capability": json.remove(base, ["call/capability"]),
		"no target": json.remove(base, ["egress"]),
		"no target of a message": object.union(json.remove(base, ["egress"]), {"call": {"capability": "message.send"}}),
	}
	"egress.incomplete" in rules(call)
	codes(call) == {"egress_denied"}
}

test_incomplete_allows_skills_that_stay_inside if {
	rules(object.union(json.remove(base, ["egress"]), {"call": {"capability": "skill.execute"}})) == set()
}

test_private_address[note] if {
	some note, call in {"private": to({"private": true}), "nobody says": json.remove(base, ["egress/private"])}
	rules(call) == {"egress.private_address"}
	codes(call) == {"egress_denied"}
}

test_private_address_allows_public if rules(to({"private": false})) == set()

test_scheme[note] if {
	some note, call in {
		"file": to({"scheme": "file"}),
		"http": to({"scheme": "http"}),
		"other case": to({"scheme": "HTTPS"}),
		"none": json.remove(base, ["egress/scheme"]),
	}
	rules(call) == {"egress.scheme"}
	codes(call) == {"egress_denied"}
}

test_scheme_denies_without_data if {
	found := egress.findings with input as base with data.egress as {}
	{f.rule | some f in found} == {"egress.scheme"}
}

test_scheme_allows_https if rules(to({"scheme": "https"})) == set()

test_redirected[note] if {
	some note, call in {"sent on": to({"redirected": true}), "nobody says": json.remove(base, ["egress/redirected"])}
	rules(call) == {"egress.redirected"}
	codes(call) == {"egress_denied"}
}

test_redirected_allows_straight_calls if rules(to({"redirected": false})) == set()

test_unpinned[note] if {
	some note, call in {
		"not declared": object.union(to({"pinned": false}), skill),
		"nobody says": object.union(json.remove(base, ["egress/pinned"]), skill),
	}
	rules(call) == {"egress.unpinned"}
	codes(call) == {"egress_denied"}
}

test_unpinned_allows[note] if {
	some note, call in {"declared": object.union(base, skill), "no skill acts": to({"pinned": false})}
	rules(call) == set()
}

test_secret_elsewhere[note] if {
	some note, call in {
		"foreign host": to({"secret": true, "pinned": false}),
		"nobody says whether a secret goes along": json.remove(to({"pinned": false}), ["egress/secret"]),
	}
	rules(call) == {"egress.secret_elsewhere"}
	codes(call) == {"egress_denied"}
}

test_secret_elsewhere_allows[note] if {
	some note, call in {"its own host": to({"secret": true}), "no secret": to({"pinned": false})}
	rules(call) == set()
}

test_unjailed[note] if {
	some note, call in {"outside": to({"jailed": false}), "nobody says": json.remove(base, ["egress/jailed"])}
	rules(call) == {"egress.unjailed"}
	codes(call) == {"egress_denied"}
}

test_unjailed_allows[note] if {
	some note, call in {"jailed": base, "a person": object.union(to({"jailed": false}), {"principal": {"kind": "human"}})}
	rules(call) == set()
}

test_unjailed_allows_by_configuration if {
	config := {"config": {"schemes": ["https"], "allow_unjailed": true}}
	found := egress.findings with input as to({"jailed": false}) with data.egress as config
	found == set()
}

test_all_reasons_are_given if {
	call := object.union(to({"private": true, "scheme": "file", "redirected": true, "pinned": false, "secret": true, "jailed": false}), skill)
	rules(call) == {
		"egress.private_address",
		"egress.redirected",
		"egress.scheme",
		"egress.secret_elsewhere",
		"egress.unjailed",
		"egress.unpinned",
	}
}
