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
	some label in input.labels
	startswith(label, "secret.")
	count(input.sinks) > 0
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
# description: Redacted personal data would leave through egress. That needs an exception, and nobody can give one in this version.
# custom:
#   id: classification.redacted_egress
#   severity: high
#   control: data protection
findings contains {
	"rule": "classification.redacted_egress",
	"effect": "deny",
	"code": "classification_denied",
	"message": "redacted personal data leaves through egress only with an exception",
} if {
	"egress" in input.sinks
	"pii.redacted" in input.labels
	_moves_work
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
# description: Data from an untrusted outside would steer work that destroys.
# custom:
#   id: classification.untrusted_to_destructive
#   severity: critical
#   control: prompt injection
findings contains {
	"rule": "classification.untrusted_to_destructive",
	"effect": "deny",
	"code": "classification_denied",
	"message": "untrusted data may not reach destructive work",
} if {
	input.task.safety == "destructive"
	"external.untrusted" in input.labels
	_moves_work
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
