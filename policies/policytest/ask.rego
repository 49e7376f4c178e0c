package packs.ask

import future.keywords.not

# METADATA
# title: Incomplete
# description: The input names no capability.
# custom: {id: ask.incomplete, severity: critical, control: fail closed}
findings contains {"rule": "ask.incomplete", "effect": "deny", "code": "policy_denied", "message": "the call cannot be judged"} if {
	not input.call.capability
}

# METADATA
# title: Runs
# description: An orchestrator starts a run.
# custom: {id: ask.run, severity: low, control: a person looks}
findings contains {
	"rule": "ask.run", "effect": "require_approval", "code": "policy_denied", "message": "a person agrees to every run",
	"obligations": [{"type": "approval", "args": {"kind": "effect", "scope": "call", "approvers": 1, "roles": ["approver"], "expires_s": 600, "remember": 2}}],
} if {
	input.call.capability == "run.create"
	input.session.role == "orchestrator"
}

# METADATA
# title: Destructive work
# description: Destructive work begins.
# custom: {id: ask.destructive, severity: high, control: a person looks}
findings contains {
	"rule": "ask.destructive", "effect": "require_approval", "code": "policy_denied", "message": "a person agrees to destructive work",
	"obligations": [{"type": "approval", "args": {"scope": "task", "expires_s": 600}}],
} if {
	input.call.capability == "task.claim"
	input.task.safety == "destructive"
}

# METADATA
# title: Publishing
# description: Something is published.
# custom: {id: ask.publish, severity: high, control: two people look}
findings contains {
	"rule": "ask.publish", "effect": "require_approval", "code": "policy_denied", "message": "two people agree before it is published",
	"obligations": [{"type": "approval", "args": {"scope": "call", "approvers": 2, "expires_s": 600}}],
} if {
	input.call.capability == "task.complete"
	input.task.capability == "site.publish"
}

# METADATA
# title: Stamping
# description: Something is stamped.
# custom: {id: ask.stamp, severity: low, control: a person looks}
findings contains {
	"rule": "ask.stamp", "effect": "require_approval", "code": "policy_denied", "message": "a person agrees before it is stamped",
	"obligations": [{"type": "approval", "args": {"scope": "call", "expires_s": 600}}],
} if {
	input.call.capability == "task.complete"
	input.task.capability == "site.stamp"
}
