# Changes to frozen paths. Written for an admission controller: input.review is the
# request, input.parameters what the constraint says.
package changes.review

import rego.v1

violation contains {"msg": msg, "details": {"path": path, "frozen": frozen}} if {
    some path in input.review.object.paths
    some frozen in input.parameters.frozen
    startswith(path, frozen)
    not exempt(input.review.userInfo)
    msg := sprintf("%v is frozen: %v", [path, frozen])
}

violation contains {"msg": "nothing is changed at all", "details": {}} if {
    input.review.operation == "UPDATE"
    count(input.review.object.paths) == 0
}

exempt(user) if user.role in input.parameters.exempt_roles
