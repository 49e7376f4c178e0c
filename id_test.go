package writ_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
)

// idChecks pairs every check of an id with the pattern that documents it.
var idChecks = []struct {
	name, pattern string
	valid         func(string) bool
}{
	{"slug", writ.PatternSlug, writ.ValidSlug},
	{"agent", writ.PatternSlug, func(s string) bool { return writ.AgentID(s).Valid() }},
	{"principal", writ.PatternSlug, func(s string) bool { return writ.PrincipalID(s).Valid() }},
	{"tenant", writ.PatternTenant, func(s string) bool { return writ.Tenant(s).Valid() }},
	{"capability", writ.PatternCapability, func(s string) bool { return writ.CapabilityID(s).Valid() }},
	{"run", writ.PatternRun, func(s string) bool { return writ.RunID(s).Valid() }},
	{"task", writ.PatternTask, func(s string) bool { return writ.TaskID(s).Valid() }},
	{"session", writ.PatternSession, func(s string) bool { return writ.SessionID(s).Valid() }},
	{"lease", writ.PatternLease, func(s string) bool { return writ.LeaseID(s).Valid() }},
	{"receipt", writ.PatternReceipt, func(s string) bool { return writ.ReceiptID(s).Valid() }},
	{"approval", writ.PatternApproval, func(s string) bool { return writ.ApprovalID(s).Valid() }},
	{"effect", writ.PatternEffect, func(s string) bool { return writ.EffectID(s).Valid() }},
	{"secret", writ.PatternSecret, func(s string) bool { return writ.SecretID(s).Valid() }},
	{"quota", writ.PatternQuota, func(s string) bool { return writ.QuotaID(s).Valid() }},
	{"call", strings.Replace(writ.PatternRun, "run_", "cll_", 1), func(s string) bool { return writ.CallID(s).Valid() }},
}

// The checks made by hand say what the published patterns say: for texts of
// the pattern, for such texts with one byte changed, and for any text.
func TestIDChecksAreTheirPatterns(t *testing.T) {
	for _, c := range idChecks {
		re := regexp.MustCompile(c.pattern)
		t.Run(c.name, rapid.MakeCheck(func(t *rapid.T) {
			s := rapid.OneOf(
				rapid.StringMatching(c.pattern),
				rapid.StringMatching(`[a-z][a-z0-9._-]{0,70}`),
				rapid.StringMatching(`([a-z0-9_-]{0,3}\.?){0,8}`),
				rapid.String(),
			).Draw(t, "text")
			if b := []byte(s); len(b) > 0 && rapid.Bool().Draw(t, "change") {
				b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.OneOf(
					rapid.Byte(), rapid.SampledFrom([]byte("\x00\n./:@[`{-_059AGHILOUZaz")),
				).Draw(t, "to")
				s = string(b)
			}
			if got, want := c.valid(s), re.MatchString(s); got != want {
				t.Fatalf("%q: %v, its pattern says %v", s, got, want)
			}
		}))
		// The edges a random text hardly meets.
		for _, s := range []string{"", "\n", "a", "a\n", "aa", "a.", ".a", "a.b", "a..b", "a.b.", "1a.b", "a.b.c.d.e.f", "a.b.c.d.e.f.g", "é", "é.a"} {
			for _, pad := range []int{0, 31, 32, 62, 63} {
				text := s + strings.Repeat("x", pad)
				if got, want := c.valid(text), re.MatchString(text); got != want {
					t.Errorf("%s %q: %v, its pattern says %v", c.name, text, got, want)
				}
			}
		}
	}
}

func BenchmarkValid(b *testing.B) {
	for b.Loop() {
		if !writ.RunID("run_01ARYZ6S410000000000000000").Valid() || !writ.CapabilityID("task.enqueue").Valid() {
			b.Fatal("refused")
		}
	}
}
