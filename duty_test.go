package writ_test

import (
	"reflect"
	"testing"

	"github.com/writ-gateway/writ"
)

// What one finding owes is shared between calls: joining others changes none of it.
func TestJoinedDutiesAreTheirOwn(t *testing.T) {
	p, _ := writ.ParsePointer("/a")
	q, _ := writ.ParsePointer("/b")
	one := func() writ.Duties {
		return writ.Duties{
			Redact: append(make([]writ.Pointer, 0, 4), p), Limits: append(make([]writ.Limit, 0, 4), writ.Limit{Argument: "n", Max: 9}),
			Durability: writ.DurabilityBuffered, Notify: append(make([]string, 0, 4), "x.one"),
		}
	}
	two := writ.Duties{
		Redact: []writ.Pointer{p, q}, Limits: []writ.Limit{{Argument: "m", Max: 1}, {Argument: "n", Max: 3}},
		Durability: writ.DurabilityCommitted, Notify: []string{"x.two"},
	}
	want := writ.Duties{
		Redact: []writ.Pointer{p, q}, Limits: []writ.Limit{{Argument: "n", Max: 3}, {Argument: "m", Max: 1}},
		Durability: writ.DurabilityCommitted, Notify: []string{"x.one", "x.two"},
	}
	shared := one()
	for range 2 {
		var d writ.Duties
		d.Join(shared)
		d.Join(two)
		if !reflect.DeepEqual(d, want) {
			t.Fatalf("got %+v, want %+v", d, want)
		}
		if full := shared.Redact[:2]; !reflect.DeepEqual(shared, one()) || full[1].Text != "" {
			t.Fatalf("a finding was changed: %+v, %+v", shared, full)
		}
	}
}
