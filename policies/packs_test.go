package policies

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/writ-gateway/writ"
	"go.yaml.in/yaml/v3"
)

const leastCoverage = 90 // percent of the lines of each pack, by its own tests

// opaLoad reads a directory exactly as `opa test DIR` does.
func opaLoad(t *testing.T, dir string) *loader.Result {
	t.Helper()
	r, err := loader.NewFileLoader().WithProcessAnnotation(true).WithRegoVersion(ast.RegoV1).All([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The engine mounts the tree that OPA's own tools mount, so a pack that works
// in `opa test` works here.
func TestMountedDataIsOPAs(t *testing.T) {
	packs, err := loadPacks(sources(t))
	if err != nil {
		t.Fatal(err)
	}
	decoded := func(v any) (out any) {
		b, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(b, &out)
		}
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	got, want := decoded(data(packs)), decoded(opaLoad(t, "packs").Documents)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Every Rego test runs here too, and covers its pack.
func TestRego(t *testing.T) {
	for _, id := range packIDs(t) {
		t.Run(id, func(t *testing.T) {
			loaded := opaLoad(t, filepath.Join("packs", id))
			store := inmem.NewFromObject(map[string]any{id: loaded.Documents})
			modules := loaded.ParsedModules()
			coverage := cover.New()
			runner := tester.NewRunner().SetStore(store).SetModules(modules).RaiseBuiltinErrors(true).
				SetTimeout(time.Minute).SetCoverageQueryTracer(coverage)
			ran := 0
			err := storage.Txn(t.Context(), store, storage.TransactionParams{}, func(txn storage.Transaction) error {
				results, err := runner.RunTests(t.Context(), txn)
				if err != nil {
					return err
				}
				for r := range results {
					ran++
					t.Run(r.Name, func(t *testing.T) {
						if r.Error != nil || !r.Pass() {
							t.Errorf("%s: %v; run go tool -modfile=tools.mod opa test -v policies/packs", r.Location, r.Error)
						}
					})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if ran == 0 {
				t.Fatal("the pack has no tests")
			}
			report := coverage.Report(modules)
			for _, m := range modules {
				for _, r := range m.Rules {
					if id := ruleOf(r); id != "" && !report.IsCovered(r.Head.Location.File, r.Head.Location.Row) {
						t.Errorf("%s: no Rego test makes it hold", id)
					}
				}
			}
			for name, f := range report.Files {
				if !strings.HasSuffix(name, "_test.rego") && f.Coverage < leastCoverage {
					t.Errorf("%s: the pack's tests cover %.0f %%, want %d; not %v", name, f.Coverage, leastCoverage, f.NotCovered)
				}
			}
		})
	}
}

// ruleOf is the id in the finding a rule makes; "" if it makes none.
func ruleOf(r *ast.Rule) string {
	if r.Head.Ref().String() != "findings" {
		return ""
	}
	id, _ := r.Head.Key.Value.(ast.Object).Get(keyRule).Value.(ast.String)
	return string(id)
}

func packIDs(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("packs")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// alone prepares one pack by itself, over the data given.
func alone(t *testing.T, p *pack, under map[string]any) *route {
	t.Helper()
	c, err := compile([]*pack{p})
	if err != nil {
		t.Fatal(err)
	}
	store := inmem.NewFromObjectWithOpts(under, inmem.OptReturnASTValuesOnRead(true))
	q, err := rego.New(rego.Query("x := [data.packs."+p.ID+".findings]"), rego.Compiler(c), rego.Store(store), rego.StrictBuiltinErrors(true)).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &route{packs: []*pack{p}, query: q}
}

// A pack that can tell nothing denies, also when its configuration is lost.
func TestEveryPackDeniesTheEmptyCall(t *testing.T) {
	for _, p := range load(t).now.Load().packs {
		for name, under := range map[string]map[string]any{
			"with its data": data(map[string]*pack{p.ID: p}), "with empty data": {},
		} {
			found, err := alone(t, p, under).eval(t.Context(), ast.NewObject(), time.Minute)
			if err != nil || len(found) == 0 || found[0].Effect != writ.EffectDeny {
				t.Errorf("%s %s: got %v %v, want a denial", p.ID, name, found, err)
			}
		}
	}
}

// fixture is one call and what one pack must say about it, in a form that any
// engine could run: what the pack says, before a host makes anything of it.
type fixture struct {
	Name    string         `yaml:"name"`
	Foreign bool           `yaml:"foreign"` // this host makes no such input
	Input   map[string]any `yaml:"input"`
	Want    struct {
		Effect      writ.Effect       `yaml:"effect"`      // the strongest
		Rules       []string          `yaml:"rules"`       // strongest first, then by id
		Codes       []string          `yaml:"codes"`       // sorted
		Obligations []writ.Obligation `yaml:"obligations"` // in the order of the rules
	} `yaml:"want"`
}

func fixtures(t *testing.T, id string) map[string]fixture {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("fixtures", id, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]fixture{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var f fixture
		d := yaml.NewDecoder(bytes.NewReader(b))
		d.KnownFields(true)
		if err := d.Decode(&f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = f
	}
	return out
}

// said is what a pack says about an input, strongest first. The host has had no
// part in it yet.
func said(t *testing.T, r *route, input map[string]any) []writ.Finding {
	t.Helper()
	rs, err := r.query.Eval(t.Context(), rego.EvalInput(input))
	if err != nil || len(rs) != 1 {
		t.Fatalf("got %d answers, %v", len(rs), err)
	}
	b, err := json.Marshal(rs[0].Bindings["x"].([]any)[0])
	if err != nil {
		t.Fatal(err)
	}
	var found []writ.Finding
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&found); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(found, func(a, b writ.Finding) int {
		return cmp.Or(b.Effect.Rank()-a.Effect.Rank(), strings.Compare(a.Rule, b.Rule))
	})
	return found
}

func TestFixtures(t *testing.T) {
	e := load(t)
	schema := schemaQuery(t)
	for _, p := range e.now.Load().packs {
		r := alone(t, p, data(map[string]*pack{p.ID: p}))
		for name, f := range fixtures(t, p.ID) {
			t.Run(p.ID+"/"+strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
				if len(f.Input) > 0 && !f.Foreign {
					matchSchema(t, schema, f.Input)
				}
				found := said(t, r, f.Input)
				d := writ.Decision{Effect: writ.EffectAllow, Findings: found}
				codes, obligations := []string{}, []writ.Obligation(nil)
				for _, x := range found {
					declared := p.rules[x.Rule]
					if declared == nil || declared.finding.Effect != x.Effect || declared.finding.Code != x.Code || declared.finding.Message != x.Message {
						t.Errorf("%+v is not what the pack declares: %+v", x, declared)
					}
					obliges(t, x)
					d.Effect = found[0].Effect
					obligations = append(obligations, x.Obligations...)
					if !slices.Contains(codes, x.Code) {
						codes = append(codes, x.Code)
					}
				}
				slices.Sort(codes)
				if d.Effect != f.Want.Effect || !slices.Equal(d.Rules(), f.Want.Rules) || !slices.Equal(codes, f.Want.Codes) {
					t.Errorf("%s (%s):\ngot  %s %v %v\nwant %s %v %v", name, f.Name, d.Effect, d.Rules(), codes, f.Want.Effect, f.Want.Rules, f.Want.Codes)
				}
				if got, want := plain(t, obligations), plain(t, f.Want.Obligations); got != want {
					t.Errorf("%s (%s):\ngot  %s\nwant %s", name, f.Name, got, want)
				}
			})
		}
	}
}

func plain(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// obliges checks that a finding asks for what its effect needs, and for nothing
// a host could not understand.
func obliges(t *testing.T, f writ.Finding) {
	t.Helper()
	switch {
	case f.Effect == writ.EffectDeny && len(f.Obligations) > 0:
		t.Errorf("%s: a denial obliges to nothing", f.Rule)
	case f.Effect != writ.EffectRequireApproval:
		term, err := ast.InterfaceToValue(f.Obligations)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, known := obligations(f.Rule, f.Effect, ast.NewTerm(term)); !known {
			t.Errorf("%s: the host cannot carry out %+v", f.Rule, f.Obligations)
		}
		return
	case len(f.Obligations) != 1 || f.Obligations[0].Type != "approval":
		t.Fatalf("%s: want one obligation, of type approval: %+v", f.Rule, f.Obligations)
	}
	if f.Effect == writ.EffectDeny {
		return
	}
	if f.Code != string(writ.CodeApprovalRequired) {
		t.Errorf("%s: code %s, want %s", f.Rule, f.Code, writ.CodeApprovalRequired)
	}
	n := writ.Need{}
	d := json.NewDecoder(strings.NewReader(plain(t, f.Obligations[0].Args)))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil {
		t.Fatalf("%s: %v", f.Rule, err)
	}
	dimension, extends := strings.CutPrefix(f.Rule, "budgets.extend.")
	switch {
	case !slices.Contains(writ.ApprovalKinds(), n.Kind), !slices.Contains(writ.ApprovalScopes(), n.Scope),
		n.Approvers < 1 || n.Approvers > writ.MaxApprovers, len(n.Roles) == 0,
		n.ExpiresS < 1 || n.ExpiresS > writ.MaxApprovalSeconds, n.MaxUses < 1 || n.MaxUses > writ.MaxApprovalUses, n.Remember < 0:
		t.Errorf("%s: not a need: %+v", f.Rule, n)
	case extends != (n.Kind == writ.ApproveBudgetExtension), extends && (n.Dimension != dimension || n.Add < 1), !extends && (n.Dimension != "" || n.Add != 0):
		t.Errorf("%s: not the extension its name says: %+v", f.Rule, n)
	}
	for _, r := range n.Roles {
		if !slices.Contains(allRoles, r) {
			t.Errorf("%s: no such role %q", f.Rule, r)
		}
	}
}

// The closed lists packs are configured with are the dictionary's.
func TestClosedLists(t *testing.T) {
	packs, err := loadPacks(sources(t))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Labels  []string         `json:"labels"`
		Sinks   []string         `json:"sinks"`
		Metrics []string         `json:"metrics"`
		Grants  map[string]int64 `json:"grants"`
	}
	for _, id := range []string{"budgets", "classification", "quotas"} {
		if err := json.Unmarshal([]byte(plain(t, packs[id].config)), &got); err != nil {
			t.Fatal(err)
		}
	}
	for what, lists := range map[string][2][]string{
		"labels":  {got.Labels, texts(writ.Labels())},
		"sinks":   {got.Sinks, texts(writ.Sinks())},
		"metrics": {got.Metrics, writ.QuotaMetrics()},
		"grants":  {slices.Collect(maps.Keys(got.Grants)), writ.BudgetDimensions()},
	} {
		slices.Sort(lists[0])
		slices.Sort(lists[1])
		if !slices.Equal(lists[0], lists[1]) {
			t.Errorf("%s: got %v, want %v", what, lists[0], lists[1])
		}
	}
}
