package packs.lifecycle_test

import data.packs.lifecycle

base := {
	"call": {"capability": "task.claim", "safety": "mutating", "class": "ordinary"},
	"principal": {"kind": "agent"},
	"session": {"id": "ses_1", "role": "executor", "state": "active"},
	"agent": {"id": "builder-1", "status": "active", "domain": "web", "write_scope": []},
	"run": {"id": "run_1", "state": "active"},
}

system := {
	"call": {"capability": "task.expire", "safety": "mutating", "class": "mandate"},
	"principal": {"kind": "system"},
}

rules(call) := {f.rule | some f in lifecycle.findings with input as call}

codes(call) := {f.code | some f in lifecycle.findings with input as call}

changed(patch) := object.union(base, patch)

test_allows_an_active_call if rules(base) == set()

test_allows_the_system if rules(system) == set()

test_denies_the_empty_call if rules({}) == {"lifecycle.incomplete"}

test_denies_the_empty_call_without_data if {
	found := lifecycle.findings with input as {} with data.lifecycle as {}
	{f.rule | some f in found} == {"lifecycle.incomplete"}
}

test_incomplete[note] if {
	some note, call in {
		"no call": json.remove(base, ["call"]),
		"no capability": json.remove(base, ["call/capability"]),
		"empty capability": changed({"call": {"capability": ""}}),
		"capability is a number": changed({"call": {"capability": 7}}),
		"nobody calls": json.remove(base, ["session"]),
		"session without an id": json.remove(base, ["session/id"]),
		"system with a broken session": object.union(system, {"session": {"state": "active"}}),
	}
	"lifecycle.incomplete" in rules(call)
	"policy_denied" in codes(call)
}

test_agent_inactive[note] if {
	some note, call in {
		"planned": changed({"agent": {"status": "planned"}}),
		"suspended": changed({"agent": {"status": "suspended"}}),
		"unknown status": changed({"agent": {"status": "happy"}}),
		"no status": json.remove(base, ["agent/status"]),
	}
	rules(call) == {"lifecycle.agent_inactive"}
	codes(call) == {"policy_denied"}
}

test_agent_inactive_allows[note] if {
	some note, call in {
		"no agent": json.remove(base, ["agent"]),
		"active": base,
		"a mandate": object.union(system, {"agent": {"status": "suspended"}}),
	}
	rules(call) == set()
}

test_session_inactive[note] if {
	some note, call in {
		"opened": changed({"session": {"state": "opened"}}),
		"suspended": changed({"session": {"state": "suspended"}}),
		"closed": changed({"session": {"state": "closed"}}),
		"closed, and starts": changed({"session": {"state": "closed"}, "call": {"capability": "session.start"}}),
		"revoked, and beats": changed({"session": {"state": "revoked"}, "call": {"capability": "session.heartbeat"}}),
		"no state": json.remove(base, ["session/state"]),
	}
	rules(call) == {"lifecycle.session_inactive"}
	codes(call) == {"illegal_transition"}
}

test_session_inactive_allows_recovery[note] if {
	some state in ["opened", "suspended"]
	some verb in ["session.start", "session.get", "session.close", "session.heartbeat"]
	note := concat(" ", [state, verb])
	rules(changed({"session": {"state": state}, "call": {"capability": verb}})) == set()
}

test_session_recovery_needs_data if {
	call := changed({"session": {"state": "opened"}, "call": {"capability": "session.start"}})
	found := lifecycle.findings with input as call with data.lifecycle as {}
	{f.rule | some f in found} == {"lifecycle.session_inactive"}
}

test_run_closed[note] if {
	some state in ["done", "failed", "cancelled", "a state of tomorrow"]
	some verb in ["task.enqueue", "task.claim", "task.complete", "run.seal", "task.verb_of_tomorrow"]
	note := concat(" ", [state, verb])
	call := changed({"run": {"state": state}, "call": {"capability": verb}})
	rules(call) == {"lifecycle.run_closed"}
	codes(call) == {"illegal_transition"}
}

test_paused[note] if {
	some state in ["paused", "paused_approval", "paused_event"]
	some verb in ["task.enqueue", "task.claim", "run.seal"]
	note := concat(" ", [state, verb])
	call := changed({"run": {"state": state}, "call": {"capability": verb}})
	rules(call) == {"lifecycle.paused"}
	codes(call) == {"run_paused"}
}

test_verifying[verb] if {
	some verb in ["task.enqueue", "task.claim", "task.complete", "run.seal", "run.create"]
	call := changed({"run": {"state": "verifying"}, "call": {"capability": verb}})
	rules(call) == {"lifecycle.verifying"}
	codes(call) == {"illegal_transition"}
}

test_verifying_allows[verb] if {
	some verb in ["run.close", "run.cancel", "task.release"]
	rules(changed({"run": {"state": "verifying"}, "call": {"capability": verb}})) == set()
}

test_verifying_allows_reading if {
	rules(changed({"run": {"state": "verifying"}, "call": {"capability": "run.get", "safety": "read-only"}})) == set()
}

# A run of which no state is known is not an open one.
test_run_closed_without_a_state if {
	rules(json.remove(changed({"run": {"state": "done"}}), ["run/state"])) == {"lifecycle.run_closed"}
}

test_run_closed_allows_giving_back[note] if {
	some state in ["done", "failed", "cancelled", "paused"]
	some verb in ["task.heartbeat", "task.release", "task.fail", "task.cancel", "run.cancel", "evidence.shred"]
	note := concat(" ", [state, verb])
	rules(changed({"run": {"state": state}, "call": {"capability": verb}})) == set()
}

test_paused_allows_what_it_waits_for[verb] if {
	some verb in ["approval.decide", "approval.respond", "approval.revoke", "task.complete", "task.verify"]
	rules(changed({"run": {"state": "paused_approval"}, "call": {"capability": verb}})) == set()
}

test_run_closed_is_not_decided_about if {
	rules(changed({"run": {"state": "done"}, "call": {"capability": "approval.decide"}})) == {"lifecycle.run_closed"}
}

test_paused_allows_reading[note] if {
	some state in ["done", "paused"]
	some verb in ["task.get", "task.list", "run.get"]
	note := concat(" ", [state, verb])
	rules(changed({"run": {"state": state}, "call": {"capability": verb, "safety": "read-only"}})) == set()
}

test_run_closed_allows_mandates if rules(object.union(system, {"run": {"state": "done"}})) == set()

work(verb, facts) := changed({"call": {"capability": verb}, "task": facts})

test_boundary if {
	some verb in ["task.enqueue", "task.handoff"]
	call := work(verb, {"owned_elsewhere": true, "deferred": false})
	rules(call) == {"lifecycle.boundary"}
	codes(call) == {"policy_denied"}
}

test_boundary_allows[note] if {
	some note, call in {
		"one's own concern": work("task.enqueue", {"owned_elsewhere": false, "deferred": false}),
		"cancelling it": work("task.cancel", {"owned_elsewhere": true, "deferred": false}),
	}
	rules(call) == set()
}

test_defers[verb] if {
	some verb in ["task.claim", "task.complete", "task.handoff"]
	rules(work(verb, {"owned_elsewhere": false, "deferred": true})) == {"lifecycle.defers"}
	codes(work(verb, {"owned_elsewhere": false, "deferred": true})) == {"policy_denied"}
}

test_defers_allows[note] if {
	some note, call in {
		"its own concern": work("task.claim", {"owned_elsewhere": false, "deferred": false}),
		"giving it back": work("task.release", {"owned_elsewhere": false, "deferred": true}),
		"enqueueing it for the other": work("task.enqueue", {"owned_elsewhere": false, "deferred": true}),
	}
	rules(call) == set()
}

activates(contract) := object.union(base, {
	"call": {"capability": "agent.activate"},
	"entry": {"contract": contract, "domain": "finance", "safety": "mutating"},
})

contract_rules(call, domains) := {f.rule |
	some f in lifecycle.findings with input as call with data.lifecycle.config.contract_domains as domains
}

test_contract_missing[note] if {
	some note, domains in {"its domain": ["finance"], "every domain": ["*"]}
	contract_rules(activates(false), domains) == {"lifecycle.contract_missing"}
}

test_contract_missing_allows[note] if {
	some note, args in {
		"with one": [activates(true), ["finance"]],
		"another domain": [activates(false), ["web"]],
		"no domain wants one": [activates(false), []],
	}
	contract_rules(args[0], args[1]) == set()
}

test_all_reasons_are_given if {
	call := changed({"session": {"state": "closed"}, "agent": {"status": "planned"}, "run": {"state": "done"}})
	rules(call) == {"lifecycle.agent_inactive", "lifecycle.run_closed", "lifecycle.session_inactive"}
}
