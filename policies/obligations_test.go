package policies

import (
	"strings"
	"testing"
)

// An obligation that could be undefined would make the whole finding disappear.
func TestObligationsAreKnownWhenLoaded(t *testing.T) {
	for _, tc := range []struct{ obligations, refused string }{
		{`[{"type": "approval", "args": {"approvers": 2}}]`, ""},
		{`[{"type": "approval", "args": {"approvers": data.extra.config.people}}]`, ""},
		{`[{"type": "notify", "args": {"run": input.run.id}}]`, "obligations hold constants"},
		{`[{"type": "approval", "args": {"approvers": data.extra.config.nobody}}]`, "obligations hold constants"},
		{`[{"type": "approval", "args": {"approvers": data.extra.config.list}}]`, "obligations hold constants"},
		{`[{"type": "approval", "args": {"approvers": count(input.labels)}}]`, "obligations must be constant"},
		{`[o | some o in input.labels]`, "obligations must be written out as an array"},
		{`_helper`, "obligations must be written out as an array"},
	} {
		f := sources(t)
		guardPack(f, "extra", "task.claim", "require_approval, deny", `"effect": "require_approval", "code": "approval_required", "obligations": `+tc.obligations, "input.call.capability")
		f["packs/extra/data.yaml"] = []byte("config: {people: 2, list: [1]}\n")
		_, err := Load(t.Context(), from(f), Options{Capabilities: verbs})
		switch {
		case tc.refused == "" && err != nil:
			t.Errorf("%s: %v", tc.obligations, err)
		case tc.refused != "" && (err == nil || !strings.Contains(err.Error(), tc.refused) || !strings.Contains(err.Error(), "extra.rego:")):
			t.Errorf("%s: got %v, want %s", tc.obligations, err, tc.refused)
		}
	}
}
