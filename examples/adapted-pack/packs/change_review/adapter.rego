# METADATA
# title: Change review
# description: Asks the rules of changes.review, which were written for an admission controller.
package packs.change_review

import future.keywords.not

# What their rules see as input. When a part of it is undefined all of it is, and the finding below denies.
_host_input := {
	"review": {
		"operation": "UPDATE",
		"object": {"paths": input.scopes.requested},
		"userInfo": {"role": input.session.role},
	},
	"parameters": data.change_review.config.parameters,
}

# METADATA
# title: Violation
# description: A rule violation of theirs holds, or they could not be asked.
# custom:
#   id: change_review.violation
#   severity: high
#   control: change management
findings contains {
	"rule": "change_review.violation",
	"effect": "deny",
	"code": "scope_denied",
	"message": "the work changes a frozen path",
} if {
	not _clean
}

_clean if count(data.changes.review.violation) == 0 with input as _host_input
