# Which tools agents may use. Written for a host that asks for `allow` and shows people `deny` and `warn`.
package agents.tools.guard

import rego.v1

default allow := false

allow if {
    input.user.role in {"operator", "executor"}
    count(deny) == 0
}

deny contains msg if {
    input.action == "destroy"
    input.user.role != "operator"
    msg := sprintf("%s may not destroy anything with %s", [input.user.role, input.tool])
}

deny contains {"msg": msg, "label": label} if {
    some label in input.data.labels
    kind := split(label, ".")[0]
    startswith(label, "secret.")
    msg := sprintf("%s is not for tools", [label])
}

warn contains msg if {
    startswith(input.tool, "beta.")
    msg := sprintf("%s is not released yet", [input.tool])
}

# This host has no ticket to show: see ignores in pack.yaml.
warn contains "the ticket is closed" if input.ticket.state == "closed"
