# METADATA
# title: Separation of duty
# description: Nobody judges what they had a part in.
package packs.sod

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability, or a verdict does not say what the caller had to do with the work.
# custom:
#   id: sod.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "sod.incomplete",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the call cannot be judged: it does not say who had a part in the work",
} if {
	not _complete
}

# METADATA
# title: Verdict by a role that gives none
# description: A session decides, verifies or closes, and its role is not one that does.
# custom:
#   id: sod.role
#   severity: high
#   control: separation of duty
findings contains {
	"rule": "sod.role",
	"effect": "deny",
	"code": "sod_violation",
	"message": "sessions of this role give no verdict of this kind",
} if {
	input.call.capability in {"approval.decide", "approval.respond", "run.close", "task.verify"}
	not input.session.role in data.sod.config.judges[input.call.capability]
}

# METADATA
# title: Judges own work
# description: The caller, or its agent, worked on what it judges.
# custom:
#   id: sod.executor
#   severity: critical
#   control: separation of duty
findings contains {
	"rule": "sod.executor",
	"effect": "deny",
	"code": "sod_violation",
	"message": "who did the work, or stands behind who did, does not judge it",
} if {
	input.duty
	not input.duty.executed == false
}

# METADATA
# title: Judges own plan
# description: The caller planned or owns what it judges.
# custom:
#   id: sod.orchestrator
#   severity: critical
#   control: separation of duty
findings contains {
	"rule": "sod.orchestrator",
	"effect": "deny",
	"code": "sod_violation",
	"message": "who planned the work, or stands behind who did, does not judge it",
} if {
	input.duty
	not input.duty.planned == false
}

# METADATA
# title: Judges after asking
# description: The caller asked for an approval in what it judges.
# custom:
#   id: sod.requester
#   severity: high
#   control: separation of duty
findings contains {
	"rule": "sod.requester",
	"effect": "deny",
	"code": "sod_violation",
	"message": "who asked for an approval in it does not judge it",
} if {
	input.duty
	not input.duty.requested == false
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	not _untold
}

_untold if {
	input.call.capability in {"run.close", "task.verify"}
	not input.duty
}
