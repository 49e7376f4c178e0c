package packs.egress_test

import data.packs.egress

base := {
	"call": {"capability": "egress.fetch", "safety": "mutating", "class": "ordinary"},
	"labels": ["internal.system"],
	"principal": {"kind": "agent"},
	"egress": {
		"grant": {
			"id": "site-api",
			"found": true,
			"live": true,
			"method": true,
			"path": true,
			"private": false,
			"mode": "request",
			"admits": ["internal.system", "public"],
		},
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
		"no word of a grant": json.remove(base, ["egress/grant"]),
		"another call of the kind": json.remove(object.union(base, {"call": {"capability": "egress.other"}}), ["egress"]),
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

granted(patch) := to({"grant": patch})

test_incomplete_allows_administration[id] if {
	some id in ["egress.grant", "egress.grants", "egress.revoke"]
	rules(object.union(json.remove(base, ["egress"]), {"call": {"capability": id}})) == set()
}

test_private_address_allows_where_the_grant_names_it if {
	rules(to({"private": true, "grant": {"private": true}})) == set()
}

test_scheme_inside[note] if {
	some note, call in {
		"not granted": to({"scheme": "http"}),
		"another scheme": to({"scheme": "file", "private": true, "grant": {"private": true}}),
	}
	"egress.scheme" in rules(call)
}

test_scheme_allows_http_inside if rules(to({"scheme": "http", "private": true, "grant": {"private": true}})) == set()

test_ungranted[note] if {
	some note, call in {
		"none": granted({"found": false}),
		"none, with no scheme": json.remove(granted({"found": false}), ["egress/scheme"]),
		"nobody says": json.remove(base, ["egress/grant/found"]),
	}
	rules(call) == {"egress.ungranted"}
	codes(call) == {"egress_denied"}
}

test_ungranted_allows_what_needs_none if {
	call := json.remove(changed({"call": {"capability": "message.send"}}), ["egress/grant"])
	rules(call) == set()
}

test_expired_allows_what_fits if rules(granted({"live": true})) == set()

test_expired[note] if {
	some note, call in {"over": granted({"live": false}), "nobody says": json.remove(base, ["egress/grant/live"])}
	rules(call) == {"egress.expired"}
}

test_method_allows_what_fits if rules(granted({"method": true})) == set()

test_method[note] if {
	some note, call in {"other": granted({"method": false}), "nobody says": json.remove(base, ["egress/grant/method"])}
	rules(call) == {"egress.method"}
}

test_path_allows_what_fits if rules(granted({"path": true})) == set()

test_path[note] if {
	some note, call in {"other": granted({"path": false}), "nobody says": json.remove(base, ["egress/grant/path"])}
	rules(call) == {"egress.path"}
}

test_classification[note] if {
	some note, call in {
		"not admitted": changed({"labels": ["internal.system", "pii.redacted"]}),
		"nothing is admitted": granted({"admits": []}),
		"nobody says what is": json.remove(base, ["egress/grant/admits"]),
		"nobody says what it carries": json.remove(base, ["labels"]),
	}
	rules(call) == {"egress.classification"}
	codes(call) == {"classification_denied"}
}

test_classification_allows[note] if {
	some note, call in {
		"admitted": changed({"labels": ["pii.redacted"], "egress": {"grant": {"admits": ["pii.redacted"]}}}),
		"no labels": changed({"labels": []}),
	}
	rules(call) == set()
}

test_tunnel[note] if {
	some note, call in {"tunnel": granted({"mode": "tunnel"}), "nobody says": json.remove(base, ["egress/grant/mode"])}
	rules(call) == {"egress.tunnel"}
}

test_tunnel_denies_without_data if {
	found := egress.findings with input as granted({"mode": "tunnel"}) with data.egress as {"config": {"schemes": ["https"]}}
	{f.rule | some f in found} == {"egress.tunnel"}
}

test_tunnel_allows_by_configuration if {
	config := {"config": {"schemes": ["https"], "tunnels": ["site-api"]}}
	found := egress.findings with input as granted({"mode": "tunnel"}) with data.egress as config
	found == set()
	other := egress.findings with input as granted({"mode": "tunnel", "id": "other-api"}) with data.egress as config
	{f.rule | some f in other} == {"egress.tunnel"}
}
