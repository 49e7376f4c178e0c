package policies

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

func refused(t *testing.T, src Source, want string) {
	t.Helper()
	e, err := Load(t.Context(), src, Options{Capabilities: verbs})
	if e != nil || writ.CodeOf(err) != writ.CodePolicyDown {
		t.Fatalf("got %v, want a refusal with code %s", err, writ.CodePolicyDown)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got  %s\nwant %s in it", err, want)
	}
}

const head = `package packs.extra

import future.keywords.not

`

const incomplete = `# METADATA
# title: Incomplete
# description: Says nothing.
# custom: {id: extra.incomplete, severity: low, control: fail closed}
findings contains {"rule": "extra.incomplete", "effect": "deny", "code": "policy_denied", "message": "m"} if not input.call.capability

`

const meta = `# METADATA
# title: Rule
# description: D.
# custom: {id: extra.rule, severity: low, control: c}
`

// A pack that breaks the contract is refused with file and line, and nothing
// of the source is loaded.
func TestContract(t *testing.T) {
	const finding = `findings contains {"rule": "extra.rule", "effect": "deny", "code": "policy_denied", "message": "m"} if `
	for _, tc := range []struct{ name, rego, want string }{
		{"good", head + incomplete + meta + finding + `input.run.id == "x"` + "\n", ""},
		{"does not parse", head + "findings contains if", "packs/extra/extra.rego:5"},
		{"other package", strings.Replace(head, "extra", "budgets", 1) + incomplete, "packs/extra/extra.rego:1: the package must be packs.extra"},
		{"package above", strings.Replace(head, "packs.extra", "packs", 1) + incomplete, "packs/extra/extra.rego:1: the package"},
		{"typo in the input", head + incomplete + meta + finding + `input.run.idd == "x"`, "extra.rego:15"},
		{"unknown part of the input", head + incomplete + meta + finding + `input.secrets`, "extra.rego:15"},
		{"clock", head + incomplete + meta + finding + `time.now_ns() > 0`, "undefined function time.now_ns"},
		{"network", head + incomplete + meta + finding + `http.send({"method": "get", "url": "http://x"}).status_code == 200`, "undefined function http.send"},
		{"host", head + incomplete + meta + finding + `opa.runtime().env.HOME`, "undefined function opa.runtime"},
		{"chance", head + incomplete + meta + finding + `rand.intn("x", 2) == 1`, "undefined function rand.intn"},
		{"sprintf", head + incomplete + meta + finding + `sprintf("%v", [input.run.id]) == "x"`, "undefined function sprintf"},
		{"trace", head + incomplete + meta + finding + `trace(input.run.id)`, "undefined function trace"},
		{"unused variable", head + incomplete + meta + finding + `x := input.run.id`, "extra.rego:15"},
		{"other pack's rules", head + incomplete + meta + finding + `count(data.packs.budgets.findings) > 0`, "extra.rego:15: a pack reads its own"},
		{"any pack's rules", head + incomplete + meta + finding + `some id; data.packs[id].findings`, "extra.rego:15"},
		{"other pack's data", head + incomplete + meta + finding + `data.budgets.config.late_percent > 0`, "extra.rego:15: a pack reads its own"},
		{"its manifest", head + incomplete + meta + finding + `data.extra.manifest.id == "x"`, "extra.rego:15: a pack reads its own"},
		{"all data", head + incomplete + meta + finding + `some k; data[k].config`, "extra.rego:15"},
		{"all data by a name", head + incomplete + meta + finding + `x := data; x.budgets`, "extra.rego:15"},
		{"import of other data", head + "import data.budgets.config\n\n" + incomplete, "extra.rego:5: packs import language features only"},
		{"import of the input", head + "import input.run\n\n" + incomplete, "extra.rego:5: packs import language features only"},
		{"with", head + incomplete + meta + finding + `input.run.id == "x" with input as {}`, "extra.rego:15: with is for tests"},
		{"unsound not", strings.Replace(head, "import future.keywords.not", "", 1) + incomplete, "extra.rego:9: not is used without"},
		{"unsound not in a helper", "package packs.extra\n\n_h if {\n\tevery s in input.scopes.requested {\n\t\tnot s == \"x\"\n\t}\n}\n", "extra.rego:5: not is used without"},
		{"second export", head + incomplete + "allowed := true\n", "extra.rego:11: a pack exports findings only"},
		{"helper", head + incomplete + "_allowed := true\n", ""},
		{"no findings", head + "_x := 1\n", "no rule adds to findings"},
		{"findings is a value", head + "findings := {1}\n", "extra.rego:5: findings must be a set"},
		{"findings is a function", head + "findings(_) := {1}\n", "extra.rego:5: findings must be a set"},
		{"findings is an object", head + "findings[x] := 1 if x := input.run.id\n", "extra.rego:5: "},
		{"default findings", head + incomplete + "default findings := set()\n", "extra.rego:11: findings must be a set"},
		{"finding by a name", head + incomplete + meta + "findings contains f if f := {\"rule\": \"extra.rule\"}\n", "extra.rego:15: a finding must be written out"},
		{"computed rule id", head + incomplete + meta + `findings contains {"rule": $"extra.{input.run.id}", "effect": "deny", "code": "policy_denied", "message": "m"} if true`, "extra.rego:15: rule must be a constant text"},
		{"computed message", head + incomplete + meta + `findings contains {"rule": "extra.rule", "effect": "deny", "code": "policy_denied", "message": input.run.id} if true`, "extra.rego:15: message must be a constant text"},
		{"further key", head + incomplete + meta + `findings contains {"rule": "extra.rule", "effect": "deny", "code": "policy_denied", "message": "m", "x": 1} if true`, "extra.rego:15: a finding has"},
		{"no code", head + incomplete + meta + `findings contains {"rule": "extra.rule", "effect": "deny", "message": "m"} if true`, "extra.rego:15: a finding needs"},
		{"unknown code", head + incomplete + meta + `findings contains {"rule": "extra.rule", "effect": "deny", "code": "because", "message": "m"} if true`, "extra.rego:15: code must be one"},
		{"code without a receipt", head + incomplete + meta + `findings contains {"rule": "extra.rule", "effect": "deny", "code": "internal", "message": "m"} if true`, "extra.rego:15: code must be one"},
		{"effect not in the manifest", head + incomplete + meta + `findings contains {"rule": "extra.rule", "effect": "allow", "code": "policy_denied", "message": "m"} if true`, "extra.rego:15: effect is not one"},
		{"other pack's rule id", head + incomplete + meta + `findings contains {"rule": "budgets.rule", "effect": "deny", "code": "policy_denied", "message": "m"} if true`, "extra.rego:15: rule ids look like"},
		{"rule id twice", head + incomplete + incomplete, "extra.rego:15: rule extra.incomplete is there twice"},
		{"no metadata", head + incomplete + finding + "true\n", "extra.rego:11: METADATA with title"},
		{"metadata of another rule", head + incomplete + strings.Replace(meta, "extra.rule", "extra.other", 1) + finding + "true\n", "extra.rego:15: custom.id in METADATA must be extra.rule"},
		{"unknown severity", head + incomplete + strings.Replace(meta, "low", "meh", 1) + finding + "true\n", "extra.rego:15: custom.severity"},
		{"no control", head + incomplete + strings.Replace(meta, ", control: c", "", 1) + finding + "true\n", "extra.rego:15: custom.control"},
		{"lets the empty call through", head + meta + finding + `input.run.id == "x"`, "packs/extra: the pack does not deny an empty call"},
		{"denies the empty call by an error", head + meta + finding + `input.budget.steps.limit == 1 / count(input.labels)`, "packs/extra: the pack does not deny an empty call"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := sources(t)
			guardPack(f, "extra", "task.*", "deny", `"effect": "deny", "code": "policy_denied"`, "true")
			f["packs/extra/extra.rego"] = []byte(tc.rego)
			if tc.want == "" {
				loadFrom(t, from(f))
				return
			}
			refused(t, from(f), tc.want)
		})
	}
}

func TestManifest(t *testing.T) {
	const good = "manifest: {id: extra, version: 1.2.3, title: T, owner: me, kind: guard, match: {capabilities: [task.claim, run.*]}, effects: [deny]}\n"
	for _, tc := range []struct{ name, from, to, want string }{
		{"good", "", "", ""},
		{"no manifest", good, "{}\n", "has no manifest"},
		{"empty", good, "", "packs/extra/pack.yaml: is empty: want the one top key manifest"},
		{"a list for a text", "owner: me", "owner: [me]", "line 1: a value of another kind is wanted"},
		{"other top key", "manifest:", "pack:", "line 1"},
		{"second top key", good, good + "config: {}\n", "line 2"},
		{"second document", good, good + "---\nx: 1\n", "more than one document"},
		{"unknown field", "owner:", "colour: red, owner:", "line 1: there is no field colour"},
		{"enforced", "kind:", "stage: enforce, kind:", ""},
		{"in shadow", "kind:", "stage: shadow, kind:", ""},
		{"unknown stage", "kind:", "stage: off, kind:", "stage must be enforce or shadow"},
		{"mandatory in shadow", "kind: guard", "stage: shadow, kind: mandatory", "a mandatory pack cannot be in shadow"},
		{"remembered", "owner:", "memo: true, owner:", ""},
		{"not remembered", "owner:", "memo: false, owner:", ""},
		{"memo is a word", "owner:", "memo: never, owner:", "line 1: a value of another kind is wanted"},
		{"twice", "owner:", "owner: you, owner:", "line 1"},
		{"other id", "id: extra", "id: other", "id is \"other\" but the directory is \"extra\""},
		{"version", "1.2.3", "1.2", "major.minor.patch"},
		{"no title", "title: T", "title: ''", "title and owner"},
		{"kind", "kind: guard", "kind: advisory", "kind must be"},
		{"no selector", "[task.claim, run.*]", "[]", "never be asked"},
		{"selector in the middle", "run.*", "run.*.x", "is neither an id"},
		{"half a word", "run.*", "ru*", "is neither an id"},
		{"no effects", "[deny]", "[]", "effects is empty"},
		{"unknown effect", "[deny]", "[deny, shrug]", "unknown effect"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := sources(t)
			guardPack(f, "extra", "*", "deny", `"effect": "deny", "code": "policy_denied"`, `input.run.id == "x"`)
			f["packs/extra/pack.yaml"] = []byte(strings.Replace(good, tc.from, tc.to, 1))
			if tc.want == "" {
				loadFrom(t, from(f))
				return
			}
			refused(t, from(f), tc.want)
		})
	}
}

func TestSources(t *testing.T) {
	without := func(prefix string) func(files) {
		return func(f files) {
			for name := range f {
				if strings.HasPrefix(name, prefix) {
					delete(f, name)
				}
			}
		}
	}
	put := func(name, text string) func(files) { return func(f files) { f[name] = []byte(text) } }
	for _, tc := range []struct {
		name   string
		change func(files)
		want   string
	}{
		{"no lifecycle", without("packs/lifecycle/"), "packs/lifecycle: this mandatory pack is missing"},
		{"no packs at all", without("packs/"), "this mandatory pack is missing"},
		{"mandatory pack made a guard", func(f files) {
			f["packs/budgets/pack.yaml"] = []byte(strings.Replace(string(f["packs/budgets/pack.yaml"]), "mandatory", "guard", 1))
		}, "packs/budgets/pack.yaml: kind must be mandatory"},
		{"mandatory pack routed to less", func(f files) {
			f["packs/write_scopes/pack.yaml"] = []byte(strings.Replace(string(f["packs/write_scopes/pack.yaml"]), "task.*", "task.claim", 1))
		}, "packs/write_scopes/pack.yaml: kind must be mandatory and match.capabilities must cover \"task.*\""},
		{"mandatory pack routed to half of it", func(f files) {
			f["packs/sod/pack.yaml"] = []byte(strings.Replace(string(f["packs/sod/pack.yaml"]), "approval.*", "approval.decide", 1))
		}, "packs/sod/pack.yaml: kind must be mandatory and match.capabilities must cover \"approval.*\""},
		{"data with two keys", put("packs/budgets/data.yaml", "config: {}\nmanifest: {}\n"), "packs/budgets/data.yaml: the one top key must be config"},
		{"data without config", put("packs/budgets/data.yaml", "late_percent: 80\n"), "packs/budgets/data.yaml: the one top key must be config"},
		{"data is a list", put("packs/budgets/data.yaml", "config: [1]\n"), "packs/budgets/data.yaml: config must be a mapping"},
		{"data is no YAML", put("packs/budgets/data.yaml", "config: {\n"), "packs/budgets/data.yaml"},
		{"pack without a manifest", without("packs/budgets/pack.yaml"), "packs/budgets/pack.yaml: is missing"},
		{"pack without rules", without("packs/budgets/budgets.rego"), "packs/budgets: no rule adds to findings"},
		{"pack called packs", func(f files) {
			guardPack(f, "packs", "*", "deny", `"effect": "deny", "code": "policy_denied"`, "true")
		}, "is not a pack id"},
		{"pack with a strange name", put("packs/Extra/pack.yaml", "manifest: {id: Extra}\n"), "is not a pack id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := sources(t)
			tc.change(f)
			refused(t, from(f), tc.want)
		})
	}
}

// layout writes the shipped sources to a directory.
func layout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range sources(t) {
		write(t, filepath.Join(dir, filepath.FromSlash(name)), string(b))
	}
	return dir
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestDirectory(t *testing.T) {
	dir := layout(t)
	write(t, filepath.Join(dir, "packs", "budgets", "budgets_test.rego"), "package nonsense")
	write(t, filepath.Join(dir, "packs", "budgets", "NOTES.md"), "prose")
	write(t, filepath.Join(dir, "packs", "budgets", ".budgets.rego.swp"), "editor")
	write(t, filepath.Join(dir, "packs", "README.md"), "prose")
	got, _ := loadFrom(t, Directory(dir)).Revisions()
	if want, _ := load(t).Revisions(); got != want {
		t.Errorf("the same packs from a directory: got revision %s, want %s", got, want)
	}
	refused(t, Directory(filepath.Join(dir, "nowhere")), "no such file")

	for _, tc := range []struct{ name, text, want string }{
		{"packs/stray.rego", "package stray", "packs/stray.rego: a pack is a directory"},
		{"packs/data.json", "{}", "packs/data.json: a pack is a directory"},
		{"packs/budgets/more.yaml", "x: 1", "packs/budgets/more.yaml: a pack holds"},
		{"packs/budgets/data.json", "{}", "packs/budgets/data.json: a pack holds"},
		{"packs/budgets/deep/x.rego", "package x", "packs/budgets/deep: a pack holds no directories"},
		{"packs/budgets/big.rego", strings.Repeat("#", maxFileBytes+1), "packs/budgets/big.rego: more than"},
	} {
		dir := layout(t)
		write(t, filepath.Join(dir, tc.name), tc.text)
		refused(t, Directory(dir), tc.want)
	}
}

// A link may not lead out of the directory, and only files are read.
func TestDirectoryIsClosed(t *testing.T) {
	dir := layout(t)
	outside := filepath.Join(t.TempDir(), "x.rego")
	write(t, outside, "package packs.budgets\n")
	if err := os.Symlink(outside, filepath.Join(dir, "packs", "budgets", "x.rego")); err != nil {
		t.Fatal(err)
	}
	refused(t, Directory(dir), "packs/budgets/x.rego")

	dir = layout(t)
	if err := os.Remove(filepath.Join(dir, "roles", "policy.csv")); err != nil {
		t.Fatal(err)
	}
	refused(t, Directory(dir), "roles/policy.csv")
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no capabilities": {},
		"bad capability":  {Capabilities: []writ.CapabilityID{"Task"}},
		"bad tenant":      {Capabilities: verbs, Tenants: []writ.Tenant{"*"}},
	} {
		if e, err := Load(t.Context(), Shipped(), o); e != nil || err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}
