# METADATA
# title: Approvals
# description: What a person must agree to first, and who may be that person.
package packs.approvals

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability, or not what kind of task would be enqueued.
# custom:
#   id: approvals.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "approvals.incomplete",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the call cannot be judged: it does not say what would be done",
} if {
	not _complete
}

# METADATA
# title: Always with consent
# description: An agent that may run the task declares its tool as one that a person must agree to each time.
# custom:
#   id: approvals.manual
#   severity: high
#   control: human oversight
findings contains {
	"rule": "approvals.manual",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "a person must agree before this is enqueued",
	"obligations": [{"type": "approval", "args": {
		"kind": "effect",
		"scope": "call",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	input.call.capability == "task.enqueue"
	input.task.approval == "manual"
}

# METADATA
# title: Two people for what is dangerous
# description: Work that destroys, or that the configuration lists as high risk, would be enqueued.
# custom:
#   id: approvals.four_eyes
#   severity: critical
#   control: human oversight
findings contains {
	"rule": "approvals.four_eyes",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "two people must agree before this is enqueued",
	"obligations": [{"type": "approval", "args": {
		"kind": "effect",
		"scope": "call",
		"approvers": 2,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	input.call.capability == "task.enqueue"
	_dangerous
}

# METADATA
# title: More dangerous than agreed to
# description: The claiming agent would run the task with a tool that destroys or needs consent, and that was not so when the task was enqueued.
# custom:
#   id: approvals.raised
#   severity: critical
#   control: human oversight
findings contains {
	"rule": "approvals.raised",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "two people must agree: the task has become more dangerous since it was enqueued",
	"obligations": [{"type": "approval", "args": {
		"kind": "effect",
		"scope": "task",
		"approvers": 2,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	input.call.capability == "task.claim"
	not input.task.raised == false
	_alarming
}

# METADATA
# title: Handed on, and nobody has agreed to it
# description: >-
#   Work that destroys, needs consent, or is listed as high risk would be handed on, and it is new, or carries other data now.
#   The consent is for this very call: other arguments are other work.
# custom:
#   id: approvals.handed_on
#   severity: critical
#   control: human oversight
findings contains {
	"rule": "approvals.handed_on",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "two people must agree before this is handed on",
	"obligations": [{"type": "approval", "args": {
		"kind": "effect",
		"scope": "call",
		"approvers": 2,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	input.call.capability == "task.handoff"
	not input.task.raised == false
	_risky
}

# METADATA
# title: Decided by the wrong one
# description: Whoever decides or answers stands behind the request, has decided already, or is no person.
# custom:
#   id: approvals.sod
#   severity: critical
#   control: separation of duty
findings contains {
	"rule": "approvals.sod",
	"effect": "deny",
	"code": "sod_violation",
	"message": "this one may not decide this request",
} if {
	input.call.capability in {"approval.decide", "approval.respond"}
	not _may_decide
}

# METADATA
# title: Approval of something else
# description: An approval is named for use by a call other than the one it was asked for.
# custom:
#   id: approvals.digest
#   severity: critical
#   control: approval binding
findings contains {
	"rule": "approvals.digest",
	"effect": "deny",
	"code": "approval_denied",
	"message": "the approval was given for another call",
} if {
	input.approval
	not input.approval.stale == false
}

# METADATA
# title: New host
# description: The call would reach a host that no skill, connector or approval names yet.
# custom:
#   id: approvals.trigger.http_host
#   severity: high
#   control: egress control
findings contains {
	"rule": "approvals.trigger.http_host",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "a person must agree before a new host is reached",
	"obligations": [{"type": "approval", "args": {
		"kind": "http_host",
		"scope": "call",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	input.egress
	not input.egress.new_host == false
}

# METADATA
# title: Skill with effects
# description: A skill is loaded that acts outside, takes a secret or names a host that is not known.
# custom:
#   id: approvals.trigger.skill_enable
#   severity: high
#   control: supply chain
findings contains {
	"rule": "approvals.trigger.skill_enable",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "a person must agree before a skill with effects is enabled",
	"obligations": [{"type": "approval", "args": {
		"kind": "skill_enable",
		"scope": "call",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	input.call.capability == "skill.load"
	not input.skill.effects == false
}

# METADATA
# title: Secret is stored by no person
# description: A secret would be stored or replaced, and not by a person. Who is a person and may store secrets needs nobody else.
# custom:
#   id: approvals.trigger.secret_write
#   severity: high
#   control: secret handling
findings contains {
	"rule": "approvals.trigger.secret_write",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "a person must agree before a secret is stored",
	"obligations": [{"type": "approval", "args": {
		"kind": "secret_write",
		"scope": "call",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	input.call.capability == "secret.put"
	not input.principal.kind == "human"
}

# METADATA
# title: Channel is connected
# description: A connector would be registered, and through it the outside could speak to agents.
# custom:
#   id: approvals.trigger.channel_connection
#   severity: high
#   control: connector onboarding
findings contains {
	"rule": "approvals.trigger.channel_connection",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "a person must agree before a channel is connected",
	"obligations": [{"type": "approval", "args": {
		"kind": "channel_connection",
		"scope": "call",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	input.call.capability == "connector.register"
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	not _vague
}

# Nobody can tell whether a task needs consent that does not say how dangerous it is.
_vague if {
	input.call.capability in {"task.enqueue", "task.handoff"}
	not _described
}

_described if {
	is_string(input.task.safety)
	is_string(input.task.approval)
}

_dangerous if input.task.safety == "destructive"

_dangerous if input.task.capability in data.approvals.config.high_risk

# Without the list everything is high risk.
_dangerous if not is_array(data.approvals.config.high_risk)

_alarming if input.task.safety == "destructive"

_alarming if input.task.approval == "manual"

_risky if _alarming

_risky if _dangerous

_may_decide if {
	input.principal.kind == "human"
	input.approval.excluded == false
	input.approval.voted == false
}
