# METADATA
# title: Write scopes
# description: Work writes inside the write scope of the agent that does it, and nowhere else.
package packs.write_scopes

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability or does not list the requested scopes.
# custom:
#   id: write_scopes.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "write_scopes.incomplete",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the call cannot be judged: it does not say what it would write",
} if {
	not _complete
}

# METADATA
# title: Scope outside the agent's
# description: An agent claims or completes work that writes somewhere its own write scope does not cover, or a session of it claims to write there.
# custom:
#   id: write_scopes.outside
#   severity: high
#   control: least privilege
findings contains {
	"rule": "write_scopes.outside",
	"effect": "deny",
	"code": "scope_denied",
	"message": "the work writes outside the agent's write scope",
} if {
	input.call.capability in {"session.start", "task.claim", "task.complete", "task.handoff"}
	input.agent
	some scope in input.scopes.requested
	not _covered(scope)
}

# METADATA
# title: Role that never writes
# description: A session whose role is not one of those that do work asks to write.
# custom:
#   id: write_scopes.readonly_role
#   severity: high
#   control: separation of duty
findings contains {
	"rule": "write_scopes.readonly_role",
	"effect": "deny",
	"code": "scope_denied",
	"message": "sessions of this role never write",
} if {
	count(input.scopes.requested) > 0
	input.session
	not input.session.role in data.write_scopes.config.writing_roles
	_moves_work
}

# METADATA
# title: Scope not canonical
# description: A requested scope is not in the one spelling scopes are compared in, so comparing it would prove nothing.
# custom:
#   id: write_scopes.canonical
#   severity: high
#   control: path traversal
findings contains {
	"rule": "write_scopes.canonical",
	"effect": "deny",
	"code": "scope_denied",
	"message": "a requested scope is not canonical",
} if {
	some scope in input.scopes.requested
	not _canonical(scope)
	_moves_work
}

# METADATA
# title: Scope the session does not hold
# description: The call writes somewhere that none of the session's claims covers.
# custom:
#   id: write_scopes.unclaimed
#   severity: high
#   control: write collisions
findings contains {
	"rule": "write_scopes.unclaimed",
	"effect": "deny",
	"code": "scope_denied",
	"message": "the call writes outside what the session has claimed",
} if {
	input.scopes.claimed
	some scope in input.scopes.requested
	not _claimed(scope)
	_moves_work
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	is_array(input.scopes.requested)
}

# Reading shows a task and moves nothing. Giving work back, and what the gateway
# carries out by itself, must go on whatever the task is.
_moves_work if {
	not input.call.safety == "read-only"
	not input.call.class == "mandate"
	not input.call.capability in {"task.cancel", "task.fail", "task.heartbeat", "task.release"}
}

# Both end in "/", so a prefix is whole segments.
_covered(scope) if {
	some own in input.agent.write_scope
	endswith(own, "/")
	startswith(scope, own)
}

_claimed(scope) if {
	some own in input.scopes.claimed
	endswith(own, "/")
	startswith(scope, own)
}

# <scheme>:<segment>/<segment>/…/ where a segment is printable ASCII without
# space % * ? # / or backslash, and neither "." nor "..": it has something else
# after at most two dots, or starts with three.
_canonical(scope) if {
	count(scope) <= 513
	regex.match(`^(fs|mem|conn|http|task|secret):((\.{0,2}[!"$&-)+,\-0->@-\[\]-~]|\.{3})[!"$&-)+-.0->@-\[\]-~]*/)+$`, scope)
}
