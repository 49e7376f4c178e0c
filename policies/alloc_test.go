package policies

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
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

// forgetful is the built-in packs, none of which remembers.
func forgetful(t testing.TB) *Engine {
	t.Helper()
	f := sources(t)
	for name, b := range f {
		if strings.HasSuffix(name, "/pack.yaml") {
			f[name] = append(bytes.Clone(b), "  memo: false\n"...)
		}
	}
	return loadFrom(t, from(f))
}

// BenchmarkDecide is a whole decision, with input and digest: when no pack
// remembers, when one of six finds something new each time, and when none does.
func BenchmarkDecide(b *testing.B) {
	for _, kind := range []struct {
		name string
		load func(testing.TB) *Engine
		each func(in *writ.PolicyInput, n int64)
	}{
		{"memo=off", forgetful, func(*writ.PolicyInput, int64) {}},
		{"memo=one-misses", load, func(in *writ.PolicyInput, n int64) { in.Subject.Budget[0].Limit = n }},
		{"memo=all-miss", load, func(in *writ.PolicyInput, n int64) {
			in.Subject.Budget[0].Limit = n
			in.Capability.ID, in.Session.Role = "task.claim", writ.Role(strconv.FormatInt(n, 10))
			in.Subject.Labels[0], in.Subject.Task.Capability = writ.Label(in.Session.Role), writ.CapabilityID(in.Session.Role)
		}},
		{"memo=hit", load, func(*writ.PolicyInput, int64) {}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			e, in, n := kind.load(b), claim(), int64(0)
			b.ReportAllocs()
			for b.Loop() {
				n++
				kind.each(&in, n)
				if _, err := e.Decide(b.Context(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMemo is one pack: its key made and found, its key made and not found
// and the answer put in, and the evaluation that is saved.
func BenchmarkMemo(b *testing.B) {
	s := load(b).now.Load()
	in := claim()
	value, _, err := buildInput(in)
	if err != nil {
		b.Fatal(err)
	}
	written := newBuilder()
	if err := written.input(in); err != nil {
		b.Fatal(err)
	}
	for _, p := range s.routes["task.claim"].packs {
		b.Run("pack="+p.ID+"/hit", func(b *testing.B) {
			m, text := newMemo(), make([]byte, 0, 1024)
			m.put(p.reads.key(text, written), nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := m.get(p.reads.key(text, written)); !ok {
					b.Fatal("not found")
				}
			}
		})
		b.Run("pack="+p.ID+"/miss", func(b *testing.B) {
			m, text, n := newMemo(), make([]byte, 0, 1024), int64(0)
			b.ReportAllocs()
			for b.Loop() {
				n++
				key := strconv.AppendInt(p.reads.key(text, written), n, 10)
				if _, ok := m.get(key); ok {
					b.Fatal("found")
				}
				m.put(key, nil)
			}
		})
		b.Run("pack="+p.ID+"/asked", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.alone.eval(b.Context(), value, time.Minute); err != nil {
					b.Fatal(err)
				}
			}
		})
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
