package policies

import (
	"fmt"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// Allocations are counted exactly, unlike time: what a decision costs is held
// to numbers.
const (
	mostForEvaluation = 560 // six packs, allowed call: 537 measured, 90 a pack
	mostForDecision   = 690 // with building the input and its digest: 657 measured
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

// load200 is the built-in packs beside 191 that other calls are routed to.
func load200(t testing.TB) *Engine {
	t.Helper()
	f := sources(t)
	for i := range 191 {
		guardPack(f, fmt.Sprintf("team_%03d", i), fmt.Sprintf("team%d.*", i), "deny", `"effect": "deny", "code": "quota_exceeded"`, `input.run.state == "failed"`)
	}
	return loadFrom(t, from(f))
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates too; the numbers are checked without it")
		return
	}
	e := load(t)
	few := evaluation(t, e)
	if few > mostForEvaluation {
		t.Errorf("an evaluation allocates %.0f times, want at most %d", few, mostForEvaluation)
	}
	in := claim()
	all := testing.AllocsPerRun(200, func() { decide(t, e, in) })
	if all > mostForDecision {
		t.Errorf("a decision allocates %.0f times, want at most %d", all, mostForDecision)
	}

	// Packs that are not routed to a call cost it nothing.
	many := evaluation(t, load200(t))
	if many > few*1.1 {
		t.Errorf("with 200 packs an evaluation allocates %.0f times, with the built-in ones %.0f; want at most 10 %% more", many, few)
	}
	t.Logf("evaluation %.0f, with 200 packs %.0f, decision %.0f", few, many, all)
}

func TestPermitDoesNotAllocate(t *testing.T) {
	e := load(t)
	for _, c := range []writ.CapabilityID{"task.claim", "run.create", "no.such"} {
		if n := testing.AllocsPerRun(100, func() { e.Permit(writ.RoleExecutor, "default", c) }); n != 0 {
			t.Errorf("%s: Permit allocates %.0f times, want 0", c, n)
		}
	}
}

// BenchmarkEvaluate is the evaluation alone; `make bench` quotes it.
func BenchmarkEvaluate(b *testing.B) {
	for _, packs := range []struct {
		n    int
		load func(testing.TB) *Engine
	}{{9, load}, {200, load200}} {
		b.Run(fmt.Sprintf("packs=%d", packs.n), func(b *testing.B) {
			r := packs.load(b).now.Load().routes["task.claim"]
			input, _, err := buildInput(claim())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.eval(b.Context(), input, time.Minute); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	e := load(b)
	in := claim()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Decide(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPermit(b *testing.B) {
	e := load(b)
	for b.Loop() {
		e.Permit(writ.RoleExecutor, "default", "task.claim")
	}
}
