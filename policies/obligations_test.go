package policies

import (
	"fmt"
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
		{`[{"type": "approval", "args": {"approvers": data.extra.config[0]}}]`, "obligations hold constants"},
		{`[{"type": "approval", "args": {"roles": data.extra.config}}]`, "obligations hold constants"},
		{`[{"type": "approval", "args": {"approvers": count(input.labels)}}]`, "obligations must be constant"},
		{`[o | some o in input.labels]`, "obligations must be written out as an array"},
		{`_helper`, "obligations must be written out as an array"},
	} {
		f := sources(t)
		guardPack(f, "extra", "task.claim", "require_approval, deny", `"effect": "require_approval", "code": "approval_required", "obligations": `+tc.obligations, "input.call.capability")
		f["packs/extra/data.yaml"] = []byte("config: {people: 2, \"\": 2, list: [approver], deep: [[approver]], table: {a: approver}}\n")
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

		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s", "max": 60}}`, `{limit: wait_s=60}`},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s", "max": 0}}`, `{limit: wait_s=0}`},
		{writ.EffectRedact, `{"type": "limit", "args": {"argument": "wait_s", "max": 60}},` + redact(`["/a"]`), `{redact: /a, limit: wait_s=60}`},
		{writ.EffectRedact, `{"type": "limit", "args": {"argument": "wait_s", "max": 60}}`, ``},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s", "max": 60}}, {"type": "limit", "args": {"argument": "wait_s", "max": 30}}, {"type": "limit", "args": {"argument": "wait_s", "max": 45}}, {"type": "limit", "args": {"argument": "n", "max": 1}}`, `{limit: wait_s=30 n=1}`},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s"}}`, ``},
		{writ.EffectAllow, `{"type": "limit", "args": {"max": 60}}`, ``},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s", "max": -1}}`, ``},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s", "max": 1.5}}`, ``},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s", "max": 9007199254740992}}`, ``},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s", "max": "60"}}`, ``},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s", "max": null}}`, ``},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "/wait_s", "max": 60}}`, ``},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s", "Max": 60}}`, ``},
		{writ.EffectAllow, `{"type": "limit", "args": {"argument": "wait_s", "max": 60, "min": 1}}`, ``},

		{writ.EffectAllow, `{"type": "durability", "args": {"level": "committed"}}`, `{durability: committed}`},
		{writ.EffectAllow, `{"type": "durability", "args": {"level": "logged"}}, {"type": "durability", "args": {"level": "buffered"}}`, `{durability: logged}`},
		{writ.EffectAllow, `{"type": "durability", "args": {"level": "buffered"}}, {"type": "durability", "args": {"level": "committed"}}`, `{durability: committed}`},
		{writ.EffectAllow, `{"type": "durability", "args": {"level": "eternal"}}`, ``},
		{writ.EffectAllow, `{"type": "durability", "args": {"level": ""}}`, ``},
		{writ.EffectAllow, `{"type": "durability"}`, ``},
		{writ.EffectAllow, `{"type": "durability", "args": {"level": "committed", "require": "logged_parent"}}, {"type": "durability", "args": {"level": "logged"}}`, `{durability: logged, built on logged}`},
		{writ.EffectAllow, `{"type": "durability", "args": {"level": "committed", "require": ""}}`, ``},
		{writ.EffectAllow, `{"type": "durability", "args": {"level": "committed", "require": null}}`, ``},
		{writ.EffectAllow, `{"type": "durability", "args": {"require": "logged_parent"}}`, ``},

		{writ.EffectAllow, `{"type": "jail", "args": {"tier": "host"}}`, `{jail: host}`},
		{writ.EffectAllow, `{"type": "jail", "args": {"tier": "gvisor"}}, {"type": "jail", "args": {"tier": "host"}}`, `{jail: gvisor}`},
		{writ.EffectAllow, `{"type": "jail", "args": {"tier": "firecracker"}}`, ``},
		{writ.EffectAllow, `{"type": "jail", "args": {"tier": ""}}`, ``},
		{writ.EffectAllow, `{"type": "jail", "args": {"tier": "host", "profile": "strict"}}`, ``},
		{writ.EffectAllow, `{"type": "jail"}`, ``},
		{writ.EffectAllow, `{"type": "cosign"}`, `{cosign}`},
		{writ.EffectAllow, `{"type": "cosign", "args": {}}, {"type": "cosign"}`, `{cosign}`},
		{writ.EffectAllow, `{"type": "cosign", "args": {"key": "any"}}`, ``},
		{writ.EffectAllow, `{"type": "sign_verdict"}`, `{sign_verdict}`},
		{writ.EffectAllow, `{"type": "sign_verdict"}, {"type": "cosign", "args": {}}`, `{cosign, sign_verdict}`},
		{writ.EffectAllow, `{"type": "sign_verdict", "args": {"by": "anybody"}}`, ``},
		{writ.EffectRedact, redact(`["/a"]`) + `, {"type": "cosign"}`, `{redact: /a, cosign}`},

		{writ.EffectRequireApproval, ``, ``},
		{writ.EffectRequireApproval, approval + `, {"type": "cosign"}`, `{cosign}`},
		{writ.EffectRequireApproval, approval + `, {"type": "limit", "args": {"argument": "n", "max": 1}}, {"type": "durability", "args": {"level": "buffered"}}`, `{limit: n=1, durability: buffered}`},
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
	if len(d.Limits) > 0 {
		var limits []string
		for _, l := range d.Limits {
			limits = append(limits, fmt.Sprintf("%s=%d", l.Argument, l.Max))
		}
		parts = append(parts, "limit: "+strings.Join(limits, " "))
	}
	if d.Durability != "" {
		parts = append(parts, "durability: "+string(d.Durability))
	}
	if d.BuiltOnLogged {
		parts = append(parts, "built on logged")
	}
	if d.Cosign {
		parts = append(parts, "cosign")
	}
	if d.Jail != "" {
		parts = append(parts, "jail: "+string(d.Jail))
	}
	if d.SignVerdict {
		parts = append(parts, "sign_verdict")
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
	guardPack(f, "bbb", "task.claim", "allow, deny", `"effect": "allow", "code": "policy_denied", "obligations": [{"type": "notify"}, {"type": "limit", "args": {"argument": "wait_s", "max": 5}}]`, "input.call.capability")
	guardPack(f, "ccc", "task.claim", "require_approval, deny", `"effect": "require_approval", "code": "policy_denied", "obligations": [{"type": "approval"}, {"type": "limit", "args": {"argument": "wait_s", "max": 9}}, {"type": "redact", "args": {"fields": data.ccc.config.hidden}}]`, "input.call.capability")
	f["packs/ccc/data.yaml"] = []byte("config: {hidden: [/b, /c]}\n")
	e := loadFrom(t, from(f))
	for range 2 { // deciding changes nothing that is shared
		d := decide(t, e, claim())
		if got, want := owed(d.Duties), "{redact: /b /c /a, limit: wait_s=5, notify: bbb.rule}"; d.Effect != writ.EffectRequireApproval || got != want || len(d.Needs) != 1 {
			t.Fatalf("got %s %s %v, want %s", d.Effect, got, d.Needs, want)
		}
	}
	guardPack(f, "ddd", "task.claim", "deny", `"effect": "deny", "code": "policy_denied"`, "input.call.capability")
	if d := decide(t, loadFrom(t, from(f)), claim()); d.Effect != writ.EffectDeny || owed(d.Duties) != "{}" || d.Needs != nil {
		t.Fatalf("got %s %s %v", d.Effect, owed(d.Duties), d.Needs)
	}
}
