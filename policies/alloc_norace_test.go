//go:build !race

package policies

import (
	"testing"
	"time"
)

// Allocations are counted exactly, unlike time: what a decision costs is held
// to numbers. The race detector allocates too, so these tests do not exist
// under it and `make check` runs them without it.
const (
	mostForEvaluation = 560 // six packs, allowed call: 537 measured, 90 a pack
	mostForDecision   = 690 // with building the input and its digest, nothing remembered: 672 measured
	mostForRemembered = 6   // the same when every pack remembers: 5 measured
)

// evaluation is what evaluating a claim allocates; the input is made first.
func evaluation(t testing.TB, e *Engine) float64 {
	t.Helper()
	r := e.now.Load().routes["task.claim"]
	input, _, err := buildInput(claim())
	if err != nil {
		t.Fatal(err)
	}
	return testing.AllocsPerRun(200, func() {
		if found, err := r.eval(t.Context(), input, time.Minute); err != nil || len(found) > 0 {
			t.Fatal(found, err)
		}
	})
}

func TestAllocations(t *testing.T) {
	e := load(t)
	few := evaluation(t, e)
	if few > mostForEvaluation {
		t.Errorf("an evaluation allocates %.0f times, want at most %d", few, mostForEvaluation)
	}
	in, none := claim(), forgetful(t)
	all := testing.AllocsPerRun(200, func() { decide(t, none, in) })
	if all > mostForDecision {
		t.Errorf("a decision allocates %.0f times, want at most %d", all, mostForDecision)
	}
	hit := testing.AllocsPerRun(200, func() { decide(t, e, in) })
	if hit > mostForRemembered {
		t.Errorf("a remembered decision allocates %.0f times, want at most %d", hit, mostForRemembered)
	}

	// Packs that are not routed to a call cost it nothing.
	many := evaluation(t, load200(t))
	if many > few*1.1 {
		t.Errorf("with 200 packs an evaluation allocates %.0f times, with the built-in ones %.0f; want at most 10 %% more", many, few)
	}
	t.Logf("evaluation %.0f, with 200 packs %.0f, decision %.0f, remembered %.0f", few, many, all, hit)
}
