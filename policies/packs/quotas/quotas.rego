# METADATA
# title: Quotas
# description: Nobody takes more of what is shared than their part.
package packs.quotas

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability, or has no list of quotas.
# custom:
#   id: quotas.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "quotas.incomplete",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the call cannot be judged: it does not say what it counts against",
} if {
	not _complete
}

# METADATA
# title: Over a quota
# description: The call would take more than a quota has left, and nobody is to be asked.
# custom:
#   id: quotas.exceeded
#   severity: medium
#   control: fair use
findings contains {
	"rule": "quotas.exceeded",
	"effect": "deny",
	"code": "quota_exceeded",
	"message": "a quota is used up; try again later",
} if {
	some quota in input.quotas
	not quota.fits == true
	not quota.on_exceed == "approval"
}

# METADATA
# title: Over a quota, an exception can be asked for
# description: The call would take more than a quota has left. A person may let it pass once.
# custom:
#   id: quotas.extend
#   severity: medium
#   control: fair use
findings contains {
	"rule": "quotas.extend",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "a quota is used up; a person may let this call pass",
	"obligations": [{"type": "approval", "args": {
		"kind": "policy_exception",
		"scope": "call",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	some quota in input.quotas
	not quota.fits == true
	quota.on_exceed == "approval"
}

# METADATA
# title: Unknown quota
# description: A quota counts something, or for somebody, that no rule here is known for.
# custom:
#   id: quotas.unknown
#   severity: high
#   control: fail closed
findings contains {
	"rule": "quotas.unknown",
	"effect": "deny",
	"code": "quota_exceeded",
	"message": "a quota counts something no rule is known for",
} if {
	some quota in input.quotas
	not _known(quota)
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	is_array(input.quotas)
}

_known(quota) if {
	quota.metric in data.quotas.config.metrics
	quota.subject in {"agent", "capability", "role", "session", "tenant"}
}
