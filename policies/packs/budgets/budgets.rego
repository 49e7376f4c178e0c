# METADATA
# title: Budgets
# description: A run spends what it was given and no more.
package packs.budgets

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability or has no budget list.
# custom:
#   id: budgets.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "budgets.incomplete",
	"effect": "deny",
	"code": "policy_denied",
	"message": "the call cannot be judged: it does not say what it would spend",
} if {
	not _complete
}

# METADATA
# title: Steps used up
# description: The call would take more steps than the run has left.
# custom:
#   id: budgets.hard_stop.steps
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.steps",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the run's steps are used up",
} if {
	some entry in input.budget
	entry.dimension == "steps"
	not entry.fits == true
}

# METADATA
# title: Unknown dimension
# description: The run's budget limits something this pack has no rule for.
# custom:
#   id: budgets.unknown_dimension
#   severity: high
#   control: fail closed
findings contains {
	"rule": "budgets.unknown_dimension",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the run's budget limits something no rule is known for",
} if {
	some entry in input.budget
	not entry.dimension == "steps"
}

# METADATA
# title: Destructive work late in a budget
# description: >-
#   Destructive work would begin when most of the budget is gone, so it may not be able to finish.
#   It would need approval, and nobody can be asked in this version.
# custom:
#   id: budgets.late_destructive
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.late_destructive",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "too little of the budget is left to begin destructive work",
} if {
	input.task.safety == "destructive"
	input.call.capability in {"task.claim", "task.enqueue"}
	some entry in input.budget
	not entry.band < data.budgets.config.late_percent
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	is_array(input.budget)
}
