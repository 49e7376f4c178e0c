package policies

import (
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// An obligation that could be undefined would make the whole finding disappear.
func TestObligationsAreKnownWhenLoaded(t *testing.T) {
	for _, tc := range []struct{ obligations, refused string }{
		{`[{"type": "approval", "args": {"approvers": 2}}]`, ""},
		{`[{"type": "approval", "args": {"approvers": data.extra.config.people}}]`, ""},
		{`[{"type": "notify", "args": {"run": input.run.id}}]`, "obligations hold constants"},
		{`[{"type": "approval", "args": {"approvers": data.extra.config.nobody}}]`, "obligations hold constants"},
		{`[{"type": "approval", "args": {"roles": data.extra.config.list}}]`, ""},
		{`[{"type": "approval", "args": {"roles": data.extra.config.deep}}]`, "obligations hold constants"},
		{`[{"type": "approval", "args": {"roles": data.extra.config.table}}]`, "obligations hold constants"},
		{`[{"type": "approval", "args": {"roles": data.extra.config}}]`, "obligations hold constants"},
		{`[{"type": "approval", "args": {"approvers": count(input.labels)}}]`, "obligations must be constant"},
		{`[o | some o in input.labels]`, "obligations must be written out as an array"},
		{`_helper`, "obligations must be written out as an array"},
	} {
		f := sources(t)
		guardPack(f, "extra", "task.claim", "require_approval, deny", `"effect": "require_approval", "code": "approval_required", "obligations": `+tc.obligations, "input.call.capability")
		f["packs/extra/data.yaml"] = []byte("config: {people: 2, list: [approver], deep: [[approver]], table: {a: approver}}\n")
		_, err := Load(t.Context(), from(f), Options{Capabilities: verbs})
		switch {
		case tc.refused == "" && err != nil:
			t.Errorf("%s: %v", tc.obligations, err)
		case tc.refused != "" && (err == nil || !strings.Contains(err.Error(), tc.refused) || !strings.Contains(err.Error(), "extra.rego:")):
			t.Errorf("%s: got %v, want %s", tc.obligations, err, tc.refused)
		}
	}
}

// Every obligation, with its bounds and beside every effect.
func TestObligationsAreRead(t *testing.T) {
	const approval = `{"type": "approval"}`
	redact := func(fields string) string { return `{"type": "redact", "args": {"fields": ` + fields + `}}` }
	for _, tc := range []struct {
		effect      writ.Effect
		obligations string
		want        string // the duties; "" when the finding denies
	}{
		{writ.EffectAllow, ``, `{}`},
		{writ.EffectAllow, `{"type": "notify"}`, `{notify: x.y}`},
		{writ.EffectAllow, `{"type": "notify", "args": {"whom": "us"}}`, `{notify: x.y}`},
		{writ.EffectAllow, redact(`["/a"]`), ``},
		{writ.EffectAllow, `{"type": "shrug"}`, ``},
		{writ.EffectAllow, `{"type": "notify", "whom": "us"}`, ``},
		{writ.EffectAllow, `{"Type": "shrug"}`, ``},
		{writ.EffectAllow, `"notify"`, ``},

		{writ.EffectRedact, ``, ``},
		{writ.EffectRedact, `{"type": "notify"}`, ``},
		{writ.EffectRedact, redact(`["/a"]`), `{redact: /a}`},
		{writ.EffectRedact, redact(`["/a", "/b/*/c"]`) + `,` + redact(`["/a", "/d"]`) + `, {"type": "notify"}`, `{redact: /a /b/*/c /d, notify: x.y}`},
		{writ.EffectRedact, redact(`["/a"]`) + `,` + approval, ``},
		{writ.EffectRedact, redact(`["/a"]`) + `, {"type": "shrug"}`, ``},
		{writ.EffectRedact, redact(`[]`), ``},
		{writ.EffectRedact, redact(`"/a"`), ``},
		{writ.EffectRedact, redact(`["a"]`), ``},
		{writ.EffectRedact, redact(`["/a", ""]`), ``},
		{writ.EffectRedact, redact(`["/task/labels"]`), ``},
		{writ.EffectRedact, redact(`[1]`), ``},
		{writ.EffectRedact, redact(`["/` + strings.Join(slices.Repeat([]string{"a"}, writ.MaxPointers+1), `", "/`) + `"]`), ``},
		{writ.EffectRedact, `{"type": "redact"}`, ``},
		{writ.EffectRedact, `{"type": "redact", "fields": ["/a"]}`, ``},
		{writ.EffectRedact, `{"type": "redact", "args": {"Fields": ["/a"]}}`, ``},
		{writ.EffectRedact, `{"type": "redact", "args": {"fields": ["/a"], "method": "hash"}}`, ``},

		{writ.EffectRequireApproval, ``, ``},
		{writ.EffectRequireApproval, approval, `{}`},
		{writ.EffectRequireApproval, approval + `,` + approval, ``},
		{writ.EffectRequireApproval, approval + `,` + redact(`["/a"]`) + `, {"type": "notify"}`, `{redact: /a, notify: x.y}`},
		{writ.EffectRequireApproval, redact(`["/a"]`), ``},
		{writ.EffectRequireApproval, approval + `, {"type": "shrug"}`, ``},

		{writ.EffectDeny, `{"type": "retry_after"}`, `{}`},
		{"maybe", `{"type": "notify"}`, ``},
	} {
		list, needs, duties, ok := obligations("x.y", tc.effect, ast.MustParseTerm("["+tc.obligations+"]"))
		got := ""
		if ok {
			got = owed(duties)
		} else if list != nil || needs != nil {
			t.Errorf("%s %s: denies, and owes %v %v", tc.effect, tc.obligations, list, needs)
		}
		if got != tc.want || ok && (tc.effect == writ.EffectRequireApproval) != (len(needs) == 1) {
			t.Errorf("%s %s: got %s, %d needs; want %s", tc.effect, tc.obligations, got, len(needs), tc.want)
		}
	}
}

// owed writes duties down.
func owed(d writ.Duties) string {
	var parts []string
	var redact []string
	for _, p := range d.Redact {
		redact = append(redact, p.Text)
	}
	if len(redact) > 0 {
		parts = append(parts, "redact: "+strings.Join(redact, " "))
	}
	if len(d.Notify) > 0 {
		parts = append(parts, "notify: "+strings.Join(d.Notify, " "))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// All that is asked of any pack is owed, unless one of them denies.
func TestDutiesAreUnited(t *testing.T) {
	f := sources(t)
	guardPack(f, "aaa", "task.claim", "redact, deny", `"effect": "redact", "code": "policy_denied", "obligations": [{"type": "redact", "args": {"fields": ["/a", "/b"]}}]`, "input.call.capability")
	guardPack(f, "bbb", "task.claim", "allow, deny", `"effect": "allow", "code": "policy_denied", "obligations": [{"type": "notify"}]`, "input.call.capability")
	guardPack(f, "ccc", "task.claim", "require_approval, deny", `"effect": "require_approval", "code": "policy_denied", "obligations": [{"type": "approval"}, {"type": "redact", "args": {"fields": data.ccc.config.hidden}}]`, "input.call.capability")
	f["packs/ccc/data.yaml"] = []byte("config: {hidden: [/b, /c]}\n")
	e := loadFrom(t, from(f))
	for range 2 { // deciding changes nothing that is shared
		d := decide(t, e, claim())
		if got, want := owed(d.Duties), "{redact: /b /c /a, notify: bbb.rule}"; d.Effect != writ.EffectRequireApproval || got != want || len(d.Needs) != 1 {
			t.Fatalf("got %s %s %v, want %s", d.Effect, got, d.Needs, want)
		}
	}
	guardPack(f, "ddd", "task.claim", "deny", `"effect": "deny", "code": "policy_denied"`, "input.call.capability")
	if d := decide(t, loadFrom(t, from(f)), claim()); d.Effect != writ.EffectDeny || owed(d.Duties) != "{}" || d.Needs != nil {
		t.Fatalf("got %s %s %v", d.Effect, owed(d.Duties), d.Needs)
	}
}
