package policies

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// Examining finds everything at once, by place; loading stops at the first.
func TestExamineFindsEverything(t *testing.T) {
	f := sources(t)
	guardPack(f, "extra", "*", "deny", `"effect": "deny", "code": "policy_denied"`, "true")
	f["packs/extra/pack.yaml"] = []byte("manifest: {id: other, version: x, title: T, owner: me, kind: guard, match: {capabilities: [\"*\"]}, effects: [deny]}\n")
	f["packs/extra/data.yaml"] = []byte("limit: 1\n")
	f["packs/extra/extra.rego"] = []byte(head + incomplete + "allowed := true\n\nmore if input.run.idd == sprintf(\"%v\", [1]) with input as {}\n\n_idd if input.run.idd == \"x\"\n")
	f["packs/second/pack.yaml"] = []byte("manifest: {}\n")
	f["packs/second/second.rego"] = []byte("package packs.second\n\nfindings contains if\n")
	f["roles/policy.csv"] = append(f["roles/policy.csv"], "p, role:nobody, *, task.claim, invoke, allow\nx\n"...)
	delete(f, "packs/lifecycle/pack.yaml")
	src := from(f)
	o := Options{Capabilities: verbs}
	var got []string
	for _, p := range Examine(t.Context(), src, o).Problems() {
		got = append(got, p.Error())
	}
	for _, want := range []string{
		"packs/extra/data.yaml: the one top key must be config",
		"packs/extra/extra.rego:11: a pack exports findings only",
		"packs/extra/extra.rego:13: a pack exports findings only",
		"packs/extra/extra.rego:13: with is for tests",
		"packs/extra/extra.rego:15: rego_type_error: undefined ref",
		"packs/extra/extra.rego:13: rego_type_error: undefined function sprintf",
		"packs/extra/pack.yaml: id is \"other\" but",
		"packs/extra/pack.yaml: version must be",
		"packs/lifecycle/pack.yaml: is missing",
		"packs/lifecycle: this mandatory pack is missing",
		"packs/second/pack.yaml: title and owner",
		"packs/second/second.rego:3: rego_parse_error",
		"roles/policy.csv:",
	} {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("%q is not in\n%s", want, strings.Join(got, "\n"))
		}
	}
	e, err := Load(t.Context(), src, o)
	if e != nil || err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("loading says more than the first: %v", err)
	}
}

func TestExamineShipped(t *testing.T) {
	d := Examine(t.Context(), Shipped(), Options{Capabilities: verbs})
	if p := d.Problems(); len(p) > 0 {
		t.Fatal(p)
	}
	if d.Compiler() == nil || len(d.Packs()) < 4 || len(d.Route("task.claim")) < 4 {
		t.Error("the draft lacks what the source has")
	}
	for _, p := range d.Packs() {
		for _, r := range p.Rules {
			if r.Line == 0 || !strings.HasPrefix(r.File, "packs/"+p.ID+"/") {
				t.Errorf("%s stands nowhere", r.ID)
			}
		}
	}
	trial, err := d.Trial(t.Context(), d.Route("task.claim"), true)
	if err != nil {
		t.Fatal(err)
	}
	in, _ := input(t, claim())
	got, err := trial.Decide(t.Context(), in, time.Minute)
	if err != nil || got.Effect != writ.EffectAllow || len(got.Packs) < 4 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Packs that never end are found when they are warmed up.
func TestExaminePacksThatNeverEnd(t *testing.T) {
	f := files{}
	guardPack(f, "extra", "*", "deny", `"effect": "deny", "code": "policy_denied"`,
		"n := numbers.range(1, 100000)\nsome i in n\nsome j in n\nsome k in n\ni + j + k < 0")
	d := ExaminePacks(context.Background(), from(f), 100*time.Millisecond)
	if p := d.Problems(); len(p) != 1 || !strings.Contains(p[0].Msg, "warm-up: ") {
		t.Errorf("got %v", p)
	}
	if _, err := d.Trial(t.Context(), []string{"none"}, true); err == nil {
		t.Error("a pack that is not there")
	}
}
