# METADATA
# title: Skills
# description: Only what says what it does is loaded, and only what is ready is executed.
package packs.skills

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability, or does not say which skill is loaded or executed.
# custom:
#   id: skills.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "skills.incomplete",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the call cannot be judged: it does not say what the skill is",
} if {
	not _complete
}

# METADATA
# title: Source that is not permitted
# description: The skill is loaded from a file by somebody who is not permitted to, or from a kind of source that is not known.
# custom:
#   id: skills.source
#   severity: critical
#   control: request forgery
findings contains {
	"rule": "skills.source",
	"effect": "deny",
	"code": "egress_denied",
	"message": "skills are not loaded from there",
} if {
	input.call.capability == "skill.load"
	input.skill
	not _source
}

# METADATA
# title: Host inside
# description: The skill names a loopback, private, link-local or metadata host.
# custom:
#   id: skills.private_host
#   severity: critical
#   control: request forgery
findings contains {
	"rule": "skills.private_host",
	"effect": "deny",
	"code": "egress_denied",
	"message": "skills name no private hosts",
} if {
	input.call.capability == "skill.load"
	input.skill
	not input.skill.private == false
}

# METADATA
# title: Name that is taken
# description: The id lies in the namespace of the gateway, or another owner has a skill of it.
# custom:
#   id: skills.reserved
#   severity: high
#   control: supply chain
findings contains {
	"rule": "skills.reserved",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the name of the skill is not free",
} if {
	input.call.capability == "skill.load"
	input.skill
	not input.skill.reserved == false
}

# METADATA
# title: Uses what it does not declare
# description: An operation uses a host or a secret that the skill does not declare.
# custom:
#   id: skills.undeclared
#   severity: high
#   control: supply chain
findings contains {
	"rule": "skills.undeclared",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the skill uses something it does not declare",
} if {
	input.call.capability == "skill.load"
	input.skill
	not input.skill.undeclared == false
}

# METADATA
# title: Other bytes than expected
# description: The skill is not, byte for byte, what the caller or the registry expects.
# custom:
#   id: skills.tampered
#   severity: critical
#   control: supply chain
findings contains {
	"rule": "skills.tampered",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the skill is not the one that was expected",
} if {
	input.call.capability in {"skill.load", "skill.execute"}
	input.skill
	not input.skill.intact == true
}

# METADATA
# title: More than the version before
# description: A new version of an active skill can do more, or its callers would notice.
# custom:
#   id: skills.changed
#   severity: high
#   control: supply chain
findings contains {
	"rule": "skills.changed",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "a person must agree before a skill is replaced by one that can do more",
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
	input.skill
	not input.skill.changed == false
}

# METADATA
# title: Skill is not active
# description: The skill that would be executed is not active, nor a version that is being replaced.
# custom:
#   id: skills.inactive
#   severity: high
#   control: supply chain
findings contains {
	"rule": "skills.inactive",
	"effect": "deny",
	"code": "capability_unavailable",
	"message": "the skill is not active",
} if {
	input.call.capability == "skill.execute"
	input.skill
	not input.skill.state in {"active", "superseded"}
}

# METADATA
# title: Skill is not set up
# description: A secret or a step of the setup that the operation needs is not there.
# custom:
#   id: skills.not_ready
#   severity: medium
#   control: safe operation
findings contains {
	"rule": "skills.not_ready",
	"effect": "deny",
	"code": "capability_unavailable",
	"message": "the skill is not set up yet",
} if {
	input.call.capability == "skill.execute"
	input.skill
	not input.skill.ready == true
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	not _untold
}

_untold if {
	input.call.capability in {"skill.load", "skill.execute"}
	not input.skill
}

_source if input.skill.source in {"inline", "artifact", "url"}

_source if {
	input.skill.source == "file"
	input.session.role in data.skills.config.file_roles
}
