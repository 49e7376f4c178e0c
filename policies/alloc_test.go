package policies

import (
	"fmt"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// load200 is the built-in packs beside 191 that other calls are routed to.
func load200(t testing.TB) *Engine {
	t.Helper()
	f := sources(t)
	for i := range 191 {
		guardPack(f, fmt.Sprintf("team_%03d", i), fmt.Sprintf("team%d.*", i), "deny", `"effect": "deny", "code": "quota_exceeded"`, `input.run.state == "failed"`)
	}
	return loadFrom(t, from(f))
}

func TestPermitDoesNotAllocate(t *testing.T) {
	e := load(t)
	for _, c := range []writ.CapabilityID{"task.claim", "run.create", "no.such"} {
		if n := testing.AllocsPerRun(100, func() { e.Permit(writ.RoleExecutor, "default", c) }); n != 0 {
			t.Errorf("%s: Permit allocates %.0f times, want 0", c, n)
		}
	}
	policy, own := e.Revisions()
	said := writ.BindingSet{{Principal: "alice", Role: writ.RoleExecutor}: false}
	e.Bind("default", said)
	e.Under(policy, writ.BindingsRevision(own, said.Digest("default")), 1)
	for _, p := range []writ.PrincipalID{"alice", "bob"} {
		if n := testing.AllocsPerRun(100, func() { e.Bound(p, writ.RoleExecutor, "default") }); n != 0 {
			t.Errorf("%s: Bound allocates %.0f times, want 0", p, n)
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

func BenchmarkBound(b *testing.B) {
	e := load(b)
	for b.Loop() {
		e.Bound("alice", writ.RoleExecutor, "default")
	}
}
