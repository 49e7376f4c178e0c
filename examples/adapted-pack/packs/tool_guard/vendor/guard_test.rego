package agents.tools.guard_test

import data.agents.tools.guard
import rego.v1

test_executor_may_not_destroy if {
    not guard.allow with input as {"action": "destroy", "tool": "disk.wipe", "user": {"role": "executor"}}
}

test_operator_may_destroy if {
    guard.allow with input as {"action": "destroy", "tool": "disk.wipe", "user": {"role": "operator"}}
}
