package policies

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkSizes prints what bundles of a team's size come to, for the documentation.
func BenchmarkSizes(t *testing.B) {
	for _, n := range []int{0, 20, 100, 200} {
		f := sources(t)
		for i := range n {
			guardPack(f, fmt.Sprintf("team_%03d", i), "task.*", "deny", `"effect": "deny", "code": "policy_denied"`, fmt.Sprintf(`input.run.id == "x%d"`, i))
		}
		b, err := writeBundle(f)
		if err != nil {
			t.Fatal(err)
		}
		c, err := OpenBundle(b, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := OpenBundle(c.Packed, b, false); err != nil {
			t.Fatal(err)
		}
		opened := time.Since(start)
		e := load(t)
		start = time.Now()
		if _, err := e.Prepare(t.Context(), c.Bundle); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d packs: %d bytes, %d packed, %d in base64, opened in %v, compiled in %v", len(c.Packs), len(b), len(c.Packed), (len(c.Packed)+2)/3*4, opened, time.Since(start))
	}
}

func BenchmarkUnder(b *testing.B) {
	e := load(b)
	p, r := e.Revisions()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := e.Under(p, r, 1); !ok {
			b.Fatal()
		}
	}
}
