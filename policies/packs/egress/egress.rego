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
# description: The host is, or resolves to, a loopback, private, link-local or metadata address, and no grant names the network it lies in.
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
	not input.egress.grant.private == true
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
	not _inside
	not input.egress.grant.found == false
}

# METADATA
# title: No grant
# description: No grant lets this agent reach the host in this way, in this run.
# custom:
#   id: egress.ungranted
#   severity: critical
#   control: least privilege
findings contains {
	"rule": "egress.ungranted",
	"effect": "deny",
	"code": "egress_denied",
	"message": "no grant lets this agent go there; operators give grants",
} if {
	input.egress.grant
	not input.egress.grant.found == true
}

# METADATA
# title: Grant that is over
# description: The time of the grant has ended.
# custom:
#   id: egress.expired
#   severity: high
#   control: least privilege
findings contains {
	"rule": "egress.expired",
	"effect": "deny",
	"code": "egress_denied",
	"message": "the grant is over; operators can give it anew",
} if {
	input.egress.grant.found == true
	not input.egress.grant.live == true
}

# METADATA
# title: Other method
# description: The grant does not let the method through.
# custom:
#   id: egress.method
#   severity: high
#   control: least privilege
findings contains {
	"rule": "egress.method",
	"effect": "deny",
	"code": "egress_denied",
	"message": "the grant does not let this method through",
} if {
	input.egress.grant.found == true
	not input.egress.grant.method == true
}

# METADATA
# title: Other path
# description: The path does not lie below the one the grant is for.
# custom:
#   id: egress.path
#   severity: high
#   control: least privilege
findings contains {
	"rule": "egress.path",
	"effect": "deny",
	"code": "egress_denied",
	"message": "the grant does not let this path through",
} if {
	input.egress.grant.found == true
	not input.egress.grant.path == true
}

# METADATA
# title: Kind of data the grant does not admit
# description: What the call carries has a label that may not leave under the grant.
# custom:
#   id: egress.classification
#   severity: critical
#   control: data protection
findings contains {
	"rule": "egress.classification",
	"effect": "deny",
	"code": "classification_denied",
	"message": "the grant does not admit this kind of data",
} if {
	input.egress.grant.found == true
	not _admitted
}

# METADATA
# title: Tunnel
# description: The agent would speak with the host itself, so that nobody sees methods, paths and data, and the configuration does not name the grant.
# custom:
#   id: egress.tunnel
#   severity: high
#   control: transport security
findings contains {
	"rule": "egress.tunnel",
	"effect": "deny",
	"code": "egress_denied",
	"message": "tunnels are not permitted; have the gateway make the request",
} if {
	input.egress.grant
	not input.egress.grant.mode == "request"
	not _tunnel_allowed
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
	not input.call.capability in _administration
	not input.egress.grant
}

_untold if {
	input.call.capability == "message.send"
	not input.egress
}

# Calls that decide who may go outside go nowhere themselves.
_administration := {"egress.grant", "egress.grants", "egress.revoke"}

# A grant names the network, and the scheme may be used in there.
_inside if {
	input.egress.grant.private == true
	input.egress.scheme in data.egress.config.schemes_inside
}

_admitted if {
	is_array(input.labels)
	is_array(input.egress.grant.admits)
	every label in input.labels {
		label in input.egress.grant.admits
	}
}

_tunnel_allowed if input.egress.grant.id in data.egress.config.tunnels
