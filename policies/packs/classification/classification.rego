# METADATA
# title: Classification
# description: Labelled data flows only where its labels allow.
package packs.classification

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability, or does not list labels and sinks.
# custom:
#   id: classification.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "classification.incomplete",
	"effect": "deny",
	"code": "classification_denied",
	"message": "the call cannot be judged: it does not say what data goes where",
} if {
	not _complete
}

# METADATA
# title: Secret leaves its place
# description: Data labelled secret.* would flow to any sink at all.
# custom:
#   id: classification.secret
#   severity: critical
#   control: secret handling
findings contains {
	"rule": "classification.secret",
	"effect": "deny",
	"code": "classification_denied",
	"message": "secrets may not flow to any sink",
} if {
	count(input.sinks) > 0
	some label in input.labels
	startswith(label, "secret.")
	_moves_work
}

# METADATA
# title: Raw personal data to the outside
# description: Chat content, chat metadata or an attachment of a person would leave through egress.
# custom:
#   id: classification.pii_raw
#   severity: critical
#   control: data protection
findings contains {
	"rule": "classification.pii_raw",
	"effect": "deny",
	"code": "classification_denied",
	"message": "personal data may not leave through egress",
} if {
	"egress" in input.sinks
	some label in input.labels
	_raw(label)
	_moves_work
}

# METADATA
# title: Redacted personal data to the outside
# description: Redacted personal data would leave through egress. A person may make an exception for the caller in this run.
# custom:
#   id: classification.redacted_egress
#   severity: high
#   control: data protection
findings contains {
	"rule": "classification.redacted_egress",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "redacted personal data leaves through egress only with an exception",
	"obligations": [{"type": "approval", "args": {
		"kind": "policy_exception",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	"pii.redacted" in input.labels
	"egress" in input.sinks
	_begins
}

# METADATA
# title: Unknown label or sink
# description: A label or a sink is outside the closed lists, so no rule knows what it stands for.
# custom:
#   id: classification.unknown
#   severity: high
#   control: fail closed
findings contains {
	"rule": "classification.unknown",
	"effect": "deny",
	"code": "classification_denied",
	"message": "a label or sink is not one of the known ones",
} if {
	_unknown
	_moves_work
}

# METADATA
# title: Untrusted data into destructive work
# description: Data from an untrusted outside would steer work that destroys. A person must see it first.
# custom:
#   id: classification.untrusted_to_destructive
#   severity: critical
#   control: prompt injection
findings contains {
	"rule": "classification.untrusted_to_destructive",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "untrusted data reaches destructive work only when a person agrees",
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
	input.task.safety == "destructive"
	"external.untrusted" in input.labels
	_begins
}

# METADATA
# title: Label lower than the data's
# description: The caller puts labels on data that leave out what the gateway knows to be in it.
# custom:
#   id: classification.downgrade
#   severity: high
#   control: data protection
findings contains {
	"rule": "classification.downgrade",
	"effect": "deny",
	"code": "classification_denied",
	"message": "labels can only be added, and these leave some out",
} if {
	input.content.declared
	some label in input.labels
	label != "public"
	not label in input.content.declared
	not input.content.verified == true
}

# METADATA
# title: Public without a verifier
# description: Data whose sources are not public would count as public, and no verifier has accepted these very bytes.
# custom:
#   id: classification.unverified
#   severity: high
#   control: data protection
findings contains {
	"rule": "classification.unverified",
	"effect": "deny",
	"code": "classification_denied",
	"message": "data becomes public only when a verifier accepts these very bytes",
} if {
	input.content
	not input.content.released == false
	not input.content.verified == true
}

# METADATA
# title: Personal data and secrets are masked
# description: A role that must know what happened, and not about whom, reads something that carries personal data or secrets.
# custom:
#   id: classification.masked
#   severity: medium
#   control: data minimisation
findings contains {
	"rule": "classification.masked",
	"effect": "redact",
	"code": "classification_denied",
	"message": "personal data and secrets are not shown to this role",
	"obligations": [{"type": "redact", "args": {"fields": data.classification.config.masked_fields}}],
} if {
	input.call.safety == "read-only"
	input.session.role in data.classification.config.masked_roles
	some label in input.labels
	some kind in ["pii.", "secret."]
	startswith(label, kind)
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	is_array(input.labels)
	is_array(input.sinks)
}

# Reading shows a task and moves nothing. Giving work back, and what the gateway
# carries out by itself, must go on whatever the task is.
_moves_work if {
	not input.call.safety == "read-only"
	not input.call.class == "mandate"
	not input.call.capability in {"task.cancel", "task.fail", "task.heartbeat", "task.release"}
}

# What was agreed to when work was enqueued holds for its claim and completion,
# unless the claiming agent's tool can do more than was known then; and for work
# that is handed on, unless it is new or carries other data now.
_begins if {
	not input.call.capability in {"task.claim", "task.complete", "task.handoff"}
	_moves_work
}

_begins if {
	input.call.capability in {"task.claim", "task.complete", "task.handoff"}
	not input.task.raised == false
	_moves_work
}

_raw(label) if startswith(label, "pii.chat.")

_raw("pii.attachment")

_unknown if {
	some label in input.labels
	not label in data.classification.config.labels
}

_unknown if {
	some sink in input.sinks
	not sink in data.classification.config.sinks
}
