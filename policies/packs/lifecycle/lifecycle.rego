# METADATA
# title: Lifecycle
# description: Only what is active acts, and only on what is still open.
package packs.lifecycle

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability, or neither a session nor the system.
# custom:
#   id: lifecycle.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "lifecycle.incomplete",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the call cannot be judged: it does not say what is called by whom",
} if {
	not _complete
}

# METADATA
# title: Inactive agent
# description: The agent the call acts for is not active. The gateway's own mandates are exempt.
# custom:
#   id: lifecycle.agent_inactive
#   severity: high
#   control: agent suspension
findings contains {
	"rule": "lifecycle.agent_inactive",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the agent is not active",
} if {
	input.agent
	not input.agent.status == "active"
	not input.call.class == "mandate"
}

# METADATA
# title: Inactive session
# description: The session is not active, and the call is not one that starts, recovers or ends a session.
# custom:
#   id: lifecycle.session_inactive
#   severity: high
#   control: session binding
findings contains {
	"rule": "lifecycle.session_inactive",
	"effect": "deny",
	"code": "illegal_transition",
	"message": "the session is not active; start it or send a heartbeat first",
} if {
	input.session
	not input.session.state == "active"
	not _recovers
}

# METADATA
# title: Closed run
# description: >-
#   The run has ended, or is in a state this pack does not know, and the call would change its work.
#   Reading, giving work back and cancelling stay possible.
# custom:
#   id: lifecycle.run_closed
#   severity: medium
#   control: run lifecycle
findings contains {
	"rule": "lifecycle.run_closed",
	"effect": "deny",
	"code": "illegal_transition",
	"message": "the run has ended; its work can no longer change",
} if {
	input.run
	not input.run.state == "active"
	not startswith(input.run.state, "paused")
	not input.run.state == "verifying"
	_changes_work
}

# METADATA
# title: Run that waits for its verdict
# description: Nothing in the run moves until somebody has judged it, so that the verdict is about what there is. Reading and cancelling stay possible.
# custom:
#   id: lifecycle.verifying
#   severity: medium
#   control: run lifecycle
findings contains {
	"rule": "lifecycle.verifying",
	"effect": "deny",
	"code": "illegal_transition",
	"message": "the run waits for its verdict; its work can no longer change",
} if {
	input.run.state == "verifying"
	not input.call.capability in data.lifecycle.config.when_verifying
	_changes_work
}

# METADATA
# title: Paused run
# description: The run waits, and the call would change its work. Reading, giving work back, cancelling and what it waits for stay possible.
# custom:
#   id: lifecycle.paused
#   severity: low
#   control: run lifecycle
findings contains {
	"rule": "lifecycle.paused",
	"effect": "deny",
	"code": "run_paused",
	"message": "the run is paused; try again when it goes on",
} if {
	startswith(input.run.state, "paused")
	not input.call.capability in data.lifecycle.config.when_paused
	_changes_work
}

# METADATA
# title: Work that is another's concern
# description: A task would be enqueued whose concern another agent owns, and it is not directed to that agent.
# custom:
#   id: lifecycle.boundary
#   severity: medium
#   control: domain boundaries
findings contains {
	"rule": "lifecycle.boundary",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the concern of this task belongs to another agent; direct the task to that one",
} if {
	input.call.capability in {"task.enqueue", "task.handoff"}
	input.task.owned_elsewhere == true
}

# METADATA
# title: Work the agent leaves to another
# description: An agent would claim or complete a task whose concern it leaves to another agent.
# custom:
#   id: lifecycle.defers
#   severity: medium
#   control: domain boundaries
findings contains {
	"rule": "lifecycle.defers",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the agent leaves work of this concern to another",
} if {
	input.call.capability in {"task.claim", "task.complete", "task.handoff"}
	input.task.deferred == true
}

# METADATA
# title: Agent without a contract
# description: An agent would become active in a domain that wants a contract for every agent, and its entry names none.
# custom:
#   id: lifecycle.contract_missing
#   severity: medium
#   control: domain boundaries
findings contains {
	"rule": "lifecycle.contract_missing",
	"effect": "deny",
	"code": "policy_denied",
	"message": "agents of this domain need a contract; register it again with contract_ref",
} if {
	input.entry.contract == false
	_wants_contract
}

_wants_contract if input.entry.domain in data.lifecycle.config.contract_domains

_wants_contract if "*" in data.lifecycle.config.contract_domains

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	_principal
}

_principal if input.session.id != ""

_principal if {
	input.principal.kind == "system"
	not input.session
}

_recovers if {
	input.session.state in {"opened", "suspended"}
	input.call.capability in data.lifecycle.config.session_recovery
}

_changes_work if {
	not input.call.safety == "read-only"
	not input.call.class == "mandate"
	not input.call.capability in data.lifecycle.config.gives_back
}
