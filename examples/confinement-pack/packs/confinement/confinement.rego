# METADATA
# title: Confinement
# description: Which data is only for agents in a strong jail.
package packs.confinement

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability, or does not list labels.
# custom:
#   id: confinement.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "confinement.incomplete",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the call cannot be judged: it does not say what data it is about",
} if {
	not _complete
}

# METADATA
# title: Data for strong jails
# description: An agent comes to data that only agents in a strong jail may have.
# custom:
#   id: confinement.labels
#   severity: high
#   control: isolation
findings contains {
	"rule": "confinement.labels",
	"effect": "allow",
	"code": "policy_denied",
	"message": "this data is for agents in a strong jail",
	"obligations": [{"type": "jail", "args": {"tier": data.confinement.config.tier}}],
} if {
	input.principal.kind == "agent"
	some label in input.labels
	not label in data.confinement.config.open_labels
	not input.call.class == "mandate"
	not input.call.capability in {"task.cancel", "task.fail", "task.heartbeat", "task.release"}
}

# METADATA
# title: Agents for strong jails
# description: An agent is spawned whose domain deals with such data.
# custom:
#   id: confinement.spawn
#   severity: high
#   control: isolation
findings contains {
	"rule": "confinement.spawn",
	"effect": "allow",
	"code": "policy_denied",
	"message": "agents of this domain run in a strong jail",
	"obligations": [{"type": "jail", "args": {"tier": data.confinement.config.tier}}],
} if {
	input.call.capability == "session.spawn"
	input.agent.domain in data.confinement.config.strong_domains
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	is_array(input.labels)
}
