# METADATA
# title: Tool guard
# description: Asks the rules of agents.tools.guard, which were written for another host.
package packs.tool_guard

import future.keywords.not

# What their rules see as input. When a part of it is undefined all of it is, and every finding below denies.
_host_input := {
	"action": data.tool_guard.config.actions[input.call.safety],
	"tool": input.task.capability,
	"user": {"role": input.session.role},
	"data": {"labels": input.labels},
}

# METADATA
# title: Not allowed
# description: Their rule allow does not hold, or they could not be asked.
# custom:
#   id: tool_guard.not_allowed
#   severity: high
#   control: tool use
findings contains {
	"rule": "tool_guard.not_allowed",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the tool guard does not allow the call",
} if {
	not _allowed
}

# METADATA
# title: Denied
# description: A rule deny of theirs holds, or they could not be asked.
# custom:
#   id: tool_guard.denied
#   severity: high
#   control: tool use
findings contains {
	"rule": "tool_guard.denied",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the tool guard denies the call",
} if {
	not _clean
}

# METADATA
# title: Warned
# description: A rule warn of theirs holds. A person decides.
# custom:
#   id: tool_guard.warned
#   severity: medium
#   control: tool use
findings contains {
	"rule": "tool_guard.warned",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the tool guard warns of the call; a person may let it happen",
	"obligations": [{"type": "approval", "args": {"kind": "effect", "scope": "call", "approvers": 1, "roles": ["approver"]}}],
} if {
	not _quiet
}

_allowed if data.agents.tools.guard.allow == true with input as _host_input

_clean if count(data.agents.tools.guard.deny) == 0 with input as _host_input

_quiet if count(data.agents.tools.guard.warn) == 0 with input as _host_input
