package policies

import (
	"reflect"
	"testing"

	"github.com/writ-gateway/writ"
)

// A pack that adapts another host's package is remembered by what its wrapper
// reads of the input: every edit of a call gets the answer it gets without a memo.
func TestAdaptedPacksAreRememberedByWhatTheyShow(t *testing.T) {
	f := adapter(t)
	e := loadFrom(t, from(f))
	r := e.now.Load().routes["task.claim"]
	remembered := 0
	for _, p := range r.packs {
		if p.Adapts == nil {
			continue
		}
		if p.memo == nil {
			t.Fatalf("pack %s is evaluated for every call", p.ID)
		}
		remembered++
	}
	if remembered == 0 {
		t.Fatal("no pack of the route adapts anything: this tests nothing")
	}
	fresh := loadFrom(t, from(f))
	for _, p := range fresh.now.Load().packs {
		p.memo = nil
	}
	for _, edit := range edits() {
		in := claim()
		in.Capability = &writ.Capability{ID: "task.claim", Class: writ.Ordinary, Safety: writ.SafetyMutating}
		_, _ = e.Decide(t.Context(), claim()) // what could be taken for it
		edit.do(&in)
		if in.Capability.ID != "task.claim" {
			continue
		}
		got, gerr := e.Decide(t.Context(), in)
		want, werr := fresh.Decide(t.Context(), in)
		if (gerr == nil) != (werr == nil) || !reflect.DeepEqual(got.Findings, want.Findings) {
			t.Fatalf("%s: remembered %v (%v), evaluated %v (%v)", edit.name, got.Findings, gerr, want.Findings, werr)
		}
	}
}
