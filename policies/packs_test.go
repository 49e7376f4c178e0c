package policies

import (
	"bytes"
	"context"
	"encoding/json"
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
	plain := func(v any) (out any) {
		b, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(b, &out)
		}
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	got, want := plain(data(packs)), plain(opaLoad(t, "packs").Documents)
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
			for name, f := range coverage.Report(modules).Files {
				if !strings.HasSuffix(name, "_test.rego") && f.Coverage < leastCoverage {
					t.Errorf("%s: the pack's tests cover %.0f %%, want %d; not %v", name, f.Coverage, leastCoverage, f.NotCovered)
				}
			}
		})
	}
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
// engine could run.
type fixture struct {
	Name  string         `yaml:"name"`
	Input map[string]any `yaml:"input"`
	Want  struct {
		Effect writ.Effect `yaml:"effect"`
		Rules  []string    `yaml:"rules"`
		Codes  []string    `yaml:"codes"`
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

func TestFixtures(t *testing.T) {
	e := load(t)
	schema := schemaQuery(t)
	for _, p := range e.now.Load().packs {
		r := alone(t, p, data(map[string]*pack{p.ID: p}))
		for name, f := range fixtures(t, p.ID) {
			t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
				if len(f.Input) > 0 {
					matchSchema(t, schema, f.Input)
				}
				in, err := ast.InterfaceToValue(f.Input)
				if err != nil {
					t.Fatal(err)
				}
				found, err := r.eval(context.Background(), in, time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				d := writ.Decision{Effect: writ.EffectAllow, Findings: found}
				codes := []string{}
				for _, x := range found {
					d.Effect = found[0].Effect
					if !slices.Contains(codes, x.Code) {
						codes = append(codes, x.Code)
					}
				}
				slices.Sort(codes)
				if d.Effect != f.Want.Effect || !slices.Equal(d.Rules(), f.Want.Rules) || !slices.Equal(codes, f.Want.Codes) {
					t.Errorf("%s (%s):\ngot  %s %v %v\nwant %s %v %v", name, f.Name, d.Effect, d.Rules(), codes, f.Want.Effect, f.Want.Rules, f.Want.Codes)
				}
			})
		}
	}
}

// Rules, METADATA, tests and prose speak of the same rules: every rule is
// denied by a fixture and named in the README, every fixture's rule exists,
// and every pack also lets something through.
func TestRulesAreTestedAndTold(t *testing.T) {
	for _, p := range load(t).now.Load().packs {
		readme, err := os.ReadFile(filepath.Join("packs", p.ID, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		rego, err := os.ReadFile(filepath.Join("packs", p.ID, p.ID+"_test.rego"))
		if err != nil {
			t.Fatal(err)
		}
		hit, allowed := map[string]bool{}, false
		for _, f := range fixtures(t, p.ID) {
			allowed = allowed || f.Want.Effect == writ.EffectAllow
			for _, id := range f.Want.Rules {
				hit[id] = true
			}
		}
		if !allowed {
			t.Errorf("%s: no fixture is allowed", p.ID)
		}
		for id := range p.rules {
			if !hit[id] {
				t.Errorf("%s: no fixture is denied by it", id)
			}
			if !bytes.Contains(readme, []byte("`"+id+"`")) {
				t.Errorf("%s: the README does not tell of it", id)
			}
			if !bytes.Contains(rego, []byte(`"`+id+`"`)) {
				t.Errorf("%s: no Rego test names it", id)
			}
		}
		for id := range hit {
			if p.rules[id] == nil {
				t.Errorf("%s: a fixture names a rule that does not exist", id)
			}
		}
	}
	if entries, _ := os.ReadDir("fixtures"); len(entries) != len(packIDs(t)) {
		t.Errorf("fixtures of %d packs, want %d", len(entries), len(packIDs(t)))
	}
}

// The lists the classification pack is configured with are the dictionary's.
func TestClosedLists(t *testing.T) {
	packs, err := loadPacks(sources(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(packs["classification"].config)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Labels []writ.Label `json:"labels"`
		Sinks  []writ.Sink  `json:"sinks"`
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got.Labels)
	slices.Sort(got.Sinks)
	if want := slices.Sorted(slices.Values(writ.Labels())); !slices.Equal(got.Labels, want) {
		t.Errorf("labels: got %v, want %v", got.Labels, want)
	}
	if want := slices.Sorted(slices.Values(writ.Sinks())); !slices.Equal(got.Sinks, want) {
		t.Errorf("sinks: got %v, want %v", got.Sinks, want)
	}
}
