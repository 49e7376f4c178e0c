package writ_test

import (
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// A capability that is not whole, or that this gateway could not run under its
// rules, keeps the registry from being made, and is named.
func TestNewRegistryRefuses(t *testing.T) {
	type none struct{}
	plan := func(*writ.Call, *none, writ.Snapshot, writ.Decision) (writ.Tx, writ.Reply, error) {
		return writ.Tx{}, writ.Reply{}, nil
	}
	define := func(id writ.CapabilityID, change func(*writ.Capability)) *writ.Capability {
		c := writ.Define[none, none](writ.Capability{ID: id, Summary: "Does a thing.", Safety: writ.SafetyMutating}, writ.Verb[none]{Plan: plan})
		if change != nil {
			change(c)
		}
		return c
	}
	for _, tt := range []struct {
		name   string
		change func(*writ.Capability)
		want   string // "": accepted
	}{
		{"whole", nil, ""},
		{"read-only", func(c *writ.Capability) { c.Safety = writ.SafetyReadOnly }, ""},
		{"destructive", func(c *writ.Capability) { c.Safety = writ.SafetyDestructive }, ""},
		{"internal mandate", func(c *writ.Capability) { c.Class, c.Internal = writ.Mandate, true }, ""},
		{"no id", func(c *writ.Capability) { c.ID = "" }, "id"},
		{"id outside the pattern", func(c *writ.Capability) { c.ID = "Test.Do it" }, "id"},
		{"defined twice", func(c *writ.Capability) { c.ID = "test.other" }, "twice"},
		{"one effect", func(c *writ.Capability) { c.Effects = []string{"egress"} }, "effects"},
		{"an effect without a name", func(c *writ.Capability) { c.Effects = []string{""} }, "effects"},
		{"an effect of a mandate", func(c *writ.Capability) {
			c.Effects, c.Class, c.Internal = []string{"egress"}, writ.Mandate, true
		}, "effects"},
		{"an effect of a read", func(c *writ.Capability) { c.Effects, c.Safety = []string{"egress"}, writ.SafetyReadOnly }, "effects"},
		{"no summary", func(c *writ.Capability) { c.Summary = "" }, "summary"},
		{"no safety", func(c *writ.Capability) { c.Safety = "" }, "safety"},
		{"unknown safety", func(c *writ.Capability) { c.Safety = "harmless" }, "safety"},
		{"no class", func(c *writ.Capability) { c.Class = "" }, "class"},
		{"unknown class", func(c *writ.Capability) { c.Class = "other" }, "class"},
		{"acts outside", func(c *writ.Capability) { c.Class, c.Effects = writ.Effectful, []string{"egress"} }, ""},
		{"acts outside, once more too", func(c *writ.Capability) {
			c.Class, c.Effects, c.Idempotent = writ.Effectful, []string{"egress"}, true
		}, ""},
		{"acts outside without saying how", func(c *writ.Capability) { c.Class = writ.Effectful }, "effects"},
		{"acts outside namelessly", func(c *writ.Capability) { c.Class, c.Effects = writ.Effectful, []string{""} }, "effects"},
		{"acts outside and only reads", func(c *writ.Capability) {
			c.Class, c.Effects, c.Safety = writ.Effectful, []string{"egress"}, writ.SafetyReadOnly
		}, "acts outside"},
		{"acts outside by itself", func(c *writ.Capability) {
			c.Class, c.Effects, c.Internal = writ.Effectful, []string{"egress"}, true
		}, "acts outside"},
		{"idempotent without effects", func(c *writ.Capability) { c.Idempotent = true }, "idempotent"},
		{"no plan", func(c *writ.Capability) { c.Plan = nil }, "no plan"},
		{"judged as another", func(c *writ.Capability) { c.JudgedAs = "test.other" }, ""},
		{"judged as what there is not", func(c *writ.Capability) { c.JudgedAs = "test.none" }, "judged as"},
		{"judged as what does less", func(c *writ.Capability) {
			c.JudgedAs, c.Safety = "test.other", writ.SafetyDestructive
		}, "judged as"},
		{"a mandate anybody may call", func(c *writ.Capability) { c.Class = writ.Mandate }, "internal"},
	} {
		c := define("test.do", tt.change)
		reg, err := writ.NewRegistry(define("test.other", nil), c)
		switch {
		case tt.want == "" && (err != nil || reg.Get(c.ID) != c || len(reg.All()) != 2):
			t.Errorf("%s: refused: %v", tt.name, err)
		case tt.want != "" && (err == nil || reg != nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), string(c.ID))):
			t.Errorf("%s: got %v, want %q named with its id", tt.name, err, tt.want)
		}
	}
}
