package policies

import (
	"fmt"
	"testing"

	"github.com/writ-gateway/writ"
)

// What auditors are not shown of personal data is exactly this.
func TestWhatIsMasked(t *testing.T) {
	e := load(t)
	for id, want := range map[writ.CapabilityID]string{
		"task.get": "[/args /result /summary /handed_over /tasks/*/summary /response /approvals/*/args /approvals/*/response]",
	} {
		in := writ.PolicyInput{
			Call:       &writ.Call{Capability: id, Caller: writ.Caller{Kind: writ.KindHuman, Role: writ.RoleAuditor}},
			Capability: &writ.Capability{ID: id, Class: writ.Ordinary, Safety: writ.SafetyReadOnly},
			Session:    &writ.Session{ID: "ses_01J0000000000000000000000A", Role: writ.RoleAuditor, State: writ.SessionActive},
			Subject:    writ.Subject{Labels: []writ.Label{"pii.chat.message"}},
			Now:        1_790_000_000_123,
		}
		d := decide(t, e, in)
		var hidden []string
		for _, p := range d.Duties.Redact {
			hidden = append(hidden, p.Text)
		}
		if d.Effect != writ.EffectRedact || fmt.Sprint(hidden) != want {
			t.Errorf("%s: %s by %v, hides %v", id, d.Effect, d.Rules(), hidden)
		}
	}
}
