package author

import (
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
)

// A row for a capability that is not there denies nothing.
func TestSlipsInRows(t *testing.T) {
	const rows = "roles/policy.csv"
	found := treeOf(t, spoiled(t, rows, "", "\np, role:executor, *, task.clame, invoke, deny\np, role:executor, *, jail.start, invoke, deny\n")).Lint(t.Context(), options)
	found = slices.DeleteFunc(found, func(f Finding) bool { return f.ID != "unknown-capability" })
	if len(found) != 1 || found[0].File != rows || found[0].Message != "the row names task.clame, which is no capability; did you mean task.claim?" {
		t.Errorf("got %+v", found)
	}
}

func TestSlip(t *testing.T) {
	caps := []writ.CapabilityID{"task.claim", "task.complete", "run.create", "policy.stage"}
	for name, want := range map[string]string{
		"task.claim": "", "task.*": "", "*": "", "policy.*": "", // fit
		"task.clame": "task.claim", "task.lcaim": "task.claim", "tsk.claim": "task.claim", "taks.*": "task.*", "runs.*": "run.*", "run.crate": "run.create",
		"egress.fetch": "", "skill.*": "", "site.build": "", "task": "", "": "", "Task.claim": "", // are like none, or are no names
	} {
		if got := slip(name, caps); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
