# METADATA
# title: Protected paths
# description: Some paths are written by few roles only.
package packs.PACK

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability or does not list the requested scopes.
# custom:
#   id: PACK.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "PACK.incomplete",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the call cannot be judged: it does not say what it would write",
} if {
	not _complete
}

# METADATA
# title: Protected path
# description: A session without a trusted role would begin or finish work that writes a protected path.
# custom:
#   id: PACK.protected
#   severity: high
#   control: change management
findings contains {
	"rule": "PACK.protected",
	"effect": "deny",
	"code": "scope_denied",
	"message": "the work writes a protected path",
} if {
	input.call.capability in {"task.enqueue", "task.handoff", "task.claim", "task.complete"}
	some scope in input.scopes.requested
	_protected(scope)
	not input.session.role in data.PACK.config.trusted_roles
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	is_array(input.scopes.requested)
}

# Scopes end in "/", so a prefix is whole segments.
_protected(scope) if {
	some prefix in data.PACK.config.protected
	startswith(scope, prefix)
}

# A scope around a protected path covers it.
_protected(scope) if {
	some prefix in data.PACK.config.protected
	startswith(prefix, scope)
}

# Without the list every path is protected.
_protected(_) if not is_array(data.PACK.config.protected)
