# METADATA
# title: Budgets
# description: A run spends what it was given and no more.
package packs.budgets

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability, or does not say of every dimension whether the call fits and which mark it reaches.
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
	input.budget.steps.fits == false
	_stops("steps")
}

# METADATA
# title: Time used up
# description: The run has worked longer than it may.
# custom:
#   id: budgets.hard_stop.wall_ms
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.wall_ms",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the run's time is used up",
} if {
	input.budget.wall_ms.fits == false
	_stops("wall_ms")
}

# METADATA
# title: Model tokens used up
# description: The call would use more model tokens than the run has left.
# custom:
#   id: budgets.hard_stop.llm_tokens
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.llm_tokens",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the run's model tokens are used up",
} if {
	input.budget.llm_tokens.fits == false
	_stops("llm_tokens")
}

# METADATA
# title: Money used up
# description: The call would cost more than the run has left.
# custom:
#   id: budgets.hard_stop.cost_microusd
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.cost_microusd",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the run's money is used up",
} if {
	input.budget.cost_microusd.fits == false
	_stops("cost_microusd")
}

# METADATA
# title: Outgoing bytes used up
# description: The call would send more bytes outside than the run has left.
# custom:
#   id: budgets.hard_stop.net_egress_bytes
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.net_egress_bytes",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the bytes the run may send outside are used up",
} if {
	input.budget.net_egress_bytes.fits == false
	_stops("net_egress_bytes")
}

# METADATA
# title: Incoming bytes used up
# description: The call would receive more bytes from outside than the run has left.
# custom:
#   id: budgets.hard_stop.net_ingress_bytes
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.net_ingress_bytes",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the bytes the run may receive from outside are used up",
} if {
	input.budget.net_ingress_bytes.fits == false
	_stops("net_ingress_bytes")
}

# METADATA
# title: Written bytes used up
# description: The call would write more bytes than the run has left.
# custom:
#   id: budgets.hard_stop.storage_write_bytes
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.storage_write_bytes",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the bytes the run may write are used up",
} if {
	input.budget.storage_write_bytes.fits == false
	_stops("storage_write_bytes")
}

# METADATA
# title: Processor time used up
# description: The run's sandboxes would use more processor time than the run has left.
# custom:
#   id: budgets.hard_stop.sandbox_cpu_ms
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.sandbox_cpu_ms",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the run's processor time is used up",
} if {
	input.budget.sandbox_cpu_ms.fits == false
	_stops("sandbox_cpu_ms")
}

# METADATA
# title: Memory used up
# description: A sandbox of the run would need more memory than it may have.
# custom:
#   id: budgets.hard_stop.sandbox_mem_peak_bytes
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.sandbox_mem_peak_bytes",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the run's sandboxes may not have more memory",
} if {
	input.budget.sandbox_mem_peak_bytes.fits == false
	_stops("sandbox_mem_peak_bytes")
}

# METADATA
# title: Retries used up
# description: Something would be tried again more often than the run has attempts left.
# custom:
#   id: budgets.hard_stop.retries
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.retries",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the run's retries are used up",
} if {
	input.budget.retries.fits == false
	_stops("retries")
}

# METADATA
# title: Retries of one step used up
# description: One step would be tried again more often than a step may.
# custom:
#   id: budgets.hard_stop.retries_per_step
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.retries_per_step",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the retries of this step are used up",
} if {
	input.budget.retries_per_step.fits == false
	_stops("retries_per_step")
}

# METADATA
# title: Child runs used up
# description: The run would start more child runs than it may.
# custom:
#   id: budgets.hard_stop.children
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.hard_stop.children",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the run may start no more child runs",
} if {
	input.budget.children.fits == false
	_stops("children")
}

# METADATA
# title: Steps used up, more can be asked for
# description: The call would take more steps than the run has left. A person may give the run more.
# custom:
#   id: budgets.extend.steps
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.steps",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the run's steps are used up; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "steps",
		"add": data.budgets.config.grants.steps,
	}}],
} if {
	input.budget.steps.fits == false
	_extends("steps")
}

# METADATA
# title: Time used up, more can be asked for
# description: The run has worked longer than it may. A person may give the run more.
# custom:
#   id: budgets.extend.wall_ms
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.wall_ms",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the run's time is used up; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "wall_ms",
		"add": data.budgets.config.grants.wall_ms,
	}}],
} if {
	input.budget.wall_ms.fits == false
	_extends("wall_ms")
}

# METADATA
# title: Model tokens used up, more can be asked for
# description: The call would use more model tokens than the run has left. A person may give the run more.
# custom:
#   id: budgets.extend.llm_tokens
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.llm_tokens",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the run's model tokens are used up; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "llm_tokens",
		"add": data.budgets.config.grants.llm_tokens,
	}}],
} if {
	input.budget.llm_tokens.fits == false
	_extends("llm_tokens")
}

# METADATA
# title: Money used up, more can be asked for
# description: The call would cost more than the run has left. A person may give the run more.
# custom:
#   id: budgets.extend.cost_microusd
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.cost_microusd",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the run's money is used up; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "cost_microusd",
		"add": data.budgets.config.grants.cost_microusd,
	}}],
} if {
	input.budget.cost_microusd.fits == false
	_extends("cost_microusd")
}

# METADATA
# title: Outgoing bytes used up, more can be asked for
# description: The call would send more bytes outside than the run has left. A person may give the run more.
# custom:
#   id: budgets.extend.net_egress_bytes
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.net_egress_bytes",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the bytes the run may send outside are used up; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "net_egress_bytes",
		"add": data.budgets.config.grants.net_egress_bytes,
	}}],
} if {
	input.budget.net_egress_bytes.fits == false
	_extends("net_egress_bytes")
}

# METADATA
# title: Incoming bytes used up, more can be asked for
# description: The call would receive more bytes from outside than the run has left. A person may give the run more.
# custom:
#   id: budgets.extend.net_ingress_bytes
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.net_ingress_bytes",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the bytes the run may receive from outside are used up; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "net_ingress_bytes",
		"add": data.budgets.config.grants.net_ingress_bytes,
	}}],
} if {
	input.budget.net_ingress_bytes.fits == false
	_extends("net_ingress_bytes")
}

# METADATA
# title: Written bytes used up, more can be asked for
# description: The call would write more bytes than the run has left. A person may give the run more.
# custom:
#   id: budgets.extend.storage_write_bytes
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.storage_write_bytes",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the bytes the run may write are used up; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "storage_write_bytes",
		"add": data.budgets.config.grants.storage_write_bytes,
	}}],
} if {
	input.budget.storage_write_bytes.fits == false
	_extends("storage_write_bytes")
}

# METADATA
# title: Processor time used up, more can be asked for
# description: The run's sandboxes would use more processor time than the run has left. A person may give the run more.
# custom:
#   id: budgets.extend.sandbox_cpu_ms
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.sandbox_cpu_ms",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the run's processor time is used up; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "sandbox_cpu_ms",
		"add": data.budgets.config.grants.sandbox_cpu_ms,
	}}],
} if {
	input.budget.sandbox_cpu_ms.fits == false
	_extends("sandbox_cpu_ms")
}

# METADATA
# title: Memory used up, more can be asked for
# description: A sandbox of the run would need more memory than it may have. A person may give the run more.
# custom:
#   id: budgets.extend.sandbox_mem_peak_bytes
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.sandbox_mem_peak_bytes",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the run's sandboxes may not have more memory; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "sandbox_mem_peak_bytes",
		"add": data.budgets.config.grants.sandbox_mem_peak_bytes,
	}}],
} if {
	input.budget.sandbox_mem_peak_bytes.fits == false
	_extends("sandbox_mem_peak_bytes")
}

# METADATA
# title: Retries used up, more can be asked for
# description: Something would be tried again more often than the run has attempts left. A person may give the run more.
# custom:
#   id: budgets.extend.retries
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.retries",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the run's retries are used up; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "retries",
		"add": data.budgets.config.grants.retries,
	}}],
} if {
	input.budget.retries.fits == false
	_extends("retries")
}

# METADATA
# title: Retries of one step used up, more can be asked for
# description: One step would be tried again more often than a step may. A person may give the run more.
# custom:
#   id: budgets.extend.retries_per_step
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.retries_per_step",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the retries of this step are used up; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "retries_per_step",
		"add": data.budgets.config.grants.retries_per_step,
	}}],
} if {
	input.budget.retries_per_step.fits == false
	_extends("retries_per_step")
}

# METADATA
# title: Child runs used up, more can be asked for
# description: The run would start more child runs than it may. A person may give the run more.
# custom:
#   id: budgets.extend.children
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.extend.children",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "the run may start no more child runs; a person may give it more",
	"obligations": [{"type": "approval", "args": {
		"kind": "budget_extension",
		"scope": "run",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
		"dimension": "children",
		"add": data.budgets.config.grants.children,
	}}],
} if {
	input.budget.children.fits == false
	_extends("children")
}

# METADATA
# title: Over a soft limit
# description: The call spends more than the run was given of something whose limit only warns. It may go on, and the operators are told.
# custom:
#   id: budgets.warn
#   severity: low
#   control: runaway work
findings contains {
	"rule": "budgets.warn",
	"effect": "allow",
	"code": "budget_exceeded",
	"message": "the run spends more than it was given",
	"obligations": [{"type": "notify", "args": {"roles": ["operator"]}}],
} if {
	some dimension, entry in input.budget
	entry.fits == false
	_consequence(dimension) == "soft_warn"
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
	some dimension, _ in input.budget
	not dimension in {
		"children",
		"cost_microusd",
		"llm_tokens",
		"net_egress_bytes",
		"net_ingress_bytes",
		"retries",
		"retries_per_step",
		"sandbox_cpu_ms",
		"sandbox_mem_peak_bytes",
		"steps",
		"storage_write_bytes",
		"wall_ms",
	}
}

# METADATA
# title: Destructive work claimed late in a budget
# description: Destructive work would begin when most of the budget is gone, so it may not be able to finish.
# custom:
#   id: budgets.late_destructive
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.late_destructive",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "little of the budget is left; a person decides whether destructive work begins",
	"obligations": [{"type": "approval", "args": {
		"kind": "effect",
		"scope": "task",
		"approvers": 1,
		"roles": ["approver"],
		"expires_s": 86400,
		"max_uses": 1,
		"remember": 0,
	}}],
} if {
	input.task.safety == "destructive"
	input.call.capability == "task.claim"
	_late
}

# METADATA
# title: Destructive work enqueued late in a budget
# description: Destructive work would be planned when most of the budget is gone, so it may not be able to finish.
# custom:
#   id: budgets.late_destructive.enqueue
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.late_destructive.enqueue",
	"effect": "require_approval",
	"code": "approval_required",
	"message": "little of the budget is left; a person decides whether destructive work is planned",
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
	_plans
	_late
}

# METADATA
# title: More than the parent has
# description: A child run would get more of something than its parent may have at all.
# custom:
#   id: budgets.inherit
#   severity: high
#   control: runaway work
findings contains {
	"rule": "budgets.inherit",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "a child run gets no more than its parent may have",
} if {
	input.grant
	not input.grant.fits == true
}

# METADATA
# title: Budget for oneself
# description: Somebody who works in runs, and does not answer for them, would give a run more.
# custom:
#   id: budgets.self_grant
#   severity: critical
#   control: separation of duty
findings contains {
	"rule": "budgets.self_grant",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "who works in a run gives it no budget",
} if {
	input.grant
	not input.grant.child == true
	not input.principal.kind == "system"
	not input.session.role in data.budgets.config.granting_roles
}

# METADATA
# title: No price
# description: The run limits something only the tool can know, such as money, and the tool does not state how much it uses.
# custom:
#   id: budgets.unpriced
#   severity: medium
#   control: runaway work
findings contains {
	"rule": "budgets.unpriced",
	"effect": "deny",
	"code": "budget_exceeded",
	"message": "the tool does not state what it uses of something the run limits",
} if {
	input.price
	not input.price.known == true
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	is_object(input.budget)
	not _malformed
}

_malformed if {
	some entry in input.budget
	not is_boolean(entry.fits)
}

_malformed if {
	some entry in input.budget
	not is_number(entry.band)
}

# What becomes of a run that wants more: as the configuration says, else as the
# host says.
_consequence(dimension) := chosen if {
	chosen := data.budgets.config.on_exceed[dimension]
} else := input.budget[dimension].on_exceed

# Whatever is not clearly something milder stops.
_stops(dimension) if {
	not _consequence(dimension) == "soft_warn"
	not _extends(dimension)
}

# Nothing can be asked for where nobody says how much; and nobody is asked for
# what will be there when what others hold comes back.
_extends(dimension) if {
	_consequence(dimension) == "approval_required"
	not input.budget[dimension].waits == true
	add := data.budgets.config.grants[dimension]
	is_number(add)
	add > 0
	add == floor(add)
}

# Peaks are not used up, so they are never late.
_late if {
	some dimension, entry in input.budget
	not dimension in {"retries_per_step", "sandbox_mem_peak_bytes"}
	not entry.band < data.budgets.config.late_percent
}

_plans if input.call.capability == "task.enqueue"

_plans if {
	input.call.capability == "task.handoff"
	not input.task.raised == false
}
