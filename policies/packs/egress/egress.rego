# METADATA
# title: Egress
# description: What leaves goes where somebody answers for it, in the open, and through the gateway.
package packs.egress

import future.keywords.not

# METADATA
# title: Incomplete call
# description: The input names no capability, or a call that goes outside does not say where.
# custom:
#   id: egress.incomplete
#   severity: critical
#   control: fail closed
findings contains {
	"rule": "egress.incomplete",
	"effect": "deny",
	"code": "egress_denied",
	"message": "the call cannot be judged: it does not say where it goes",
} if {
	not _complete
}

# METADATA
# title: Into the house
# description: The host is, or resolves to, a loopback, private, link-local or metadata address.
# custom:
#   id: egress.private_address
#   severity: critical
#   control: request forgery
findings contains {
	"rule": "egress.private_address",
	"effect": "deny",
	"code": "egress_denied",
	"message": "calls to the outside do not reach private addresses",
} if {
	input.egress
	not input.egress.private == false
}

# METADATA
# title: Other scheme
# description: The call uses a scheme that is not among the permitted ones, for example file or plain http.
# custom:
#   id: egress.scheme
#   severity: high
#   control: transport security
findings contains {
	"rule": "egress.scheme",
	"effect": "deny",
	"code": "egress_denied",
	"message": "this scheme is not permitted",
} if {
	input.egress
	not input.egress.scheme in data.egress.config.schemes
}

# METADATA
# title: Sent on by somebody else
# description: An answer of one host would send the call to another host.
# custom:
#   id: egress.redirected
#   severity: high
#   control: request forgery
findings contains {
	"rule": "egress.redirected",
	"effect": "deny",
	"code": "egress_denied",
	"message": "calls are not sent on to other hosts",
} if {
	input.egress
	not input.egress.redirected == false
}

# METADATA
# title: Host the skill does not declare
# description: A skill acts, and the host is not among those it declares.
# custom:
#   id: egress.unpinned
#   severity: high
#   control: least privilege
findings contains {
	"rule": "egress.unpinned",
	"effect": "deny",
	"code": "egress_denied",
	"message": "a skill reaches only the hosts it declares",
} if {
	input.skill
	input.egress
	not input.egress.pinned == true
}

# METADATA
# title: Secret to a foreign host
# description: A secret would be put into a request to a host that the skill or connector does not declare.
# custom:
#   id: egress.secret_elsewhere
#   severity: critical
#   control: secret handling
findings contains {
	"rule": "egress.secret_elsewhere",
	"effect": "deny",
	"code": "egress_denied",
	"message": "secrets go only to hosts that were declared for them",
} if {
	input.egress
	not input.egress.secret == false
	not input.egress.pinned == true
}

# METADATA
# title: Agent outside the jail
# description: An agent that could also go around the gateway would act outside.
# custom:
#   id: egress.unjailed
#   severity: high
#   control: agent isolation
findings contains {
	"rule": "egress.unjailed",
	"effect": "deny",
	"code": "egress_denied",
	"message": "agents act outside only from within their jail",
} if {
	input.egress
	input.principal.kind == "agent"
	not input.egress.jailed == true
	not data.egress.config.allow_unjailed == true
}

_complete if {
	is_string(input.call.capability)
	input.call.capability != ""
	not _untold
}

_untold if {
	startswith(input.call.capability, "egress.")
	not input.egress
}

_untold if {
	input.call.capability == "message.send"
	not input.egress
}
