package policies

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gowebpki/jcs"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/writ-gateway/writ"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func input(t testing.TB, in writ.PolicyInput) (ast.Value, []byte) {
	t.Helper()
	v, b, err := buildInput(in)
	if err != nil {
		t.Fatal(err)
	}
	return v, b
}

// The JSON is the value: same document, in the canonical form of RFC 8785 by
// somebody else's implementation.
func sameDocument(t testing.TB, v ast.Value, b []byte) {
	t.Helper()
	x, err := ast.JSON(v)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	want, err := jcs.Transform(plain)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Fatalf("got  %s\nwant %s", b, want)
	}
}

func TestInputGolden(t *testing.T) {
	v, b := input(t, full())
	sameDocument(t, v, b)
	var got bytes.Buffer
	if err := json.Indent(&got, b, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	const golden = "testdata/input.json"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got %s\nwant %s\n(go test ./policies -update rewrites it)", got.Bytes(), want)
	}
}

func TestInputAbsentParts(t *testing.T) {
	v, b := input(t, writ.PolicyInput{
		Call:       &writ.Call{Caller: writ.Caller{Kind: writ.KindSystem}},
		Capability: &writ.Capability{ID: "task.expire", Class: writ.Mandate, Safety: writ.SafetyMutating},
		Now:        1999,
	})
	sameDocument(t, v, b)
	const want = `{"budget":{},"call":{"capability":"task.expire","class":"mandate","safety":"mutating"},"env":{"now_ms":1000},` +
		`"labels":[],"principal":{"kind":"system"},"quotas":[],"scopes":{"requested":[]},"sinks":[]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

// Two calls in one second have one record, so a decision can be looked up; any
// other difference that policy can see changes it.
func TestRecordIsTheInput(t *testing.T) {
	e := load(t)
	first := decide(t, e, claim()).Record
	in := claim()
	in.Now += 876
	if got := decide(t, e, in).Record; !bytes.Equal(got, first) {
		t.Errorf("later in the same second: got %s, want %s", got, first)
	}
	in.Now++
	if got := decide(t, e, in).Record; bytes.Equal(got, first) {
		t.Error("the next second has the same record")
	}
	if _, b := input(t, claim()); !bytes.Equal(first, b) {
		t.Errorf("got %s, want the canonical input", first)
	}
}

// schemaQuery validates documents against schema/input.json.
func schemaQuery(t testing.TB) rego.PreparedEvalQuery {
	t.Helper()
	q, err := rego.New(rego.Query(`x := json.match_schema(input.doc, input.schema)`)).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func matchSchema(t testing.TB, q rego.PreparedEvalQuery, doc any) {
	t.Helper()
	rs, err := q.Eval(t.Context(), rego.EvalInput(map[string]any{"doc": doc, "schema": string(schemaJSON)}))
	if err != nil {
		t.Fatal(err)
	}
	if x := rs[0].Bindings["x"].([]any); x[0] != true {
		t.Fatalf("the document does not meet the schema: %v", x[1])
	}
}

// The builder makes what the schema describes: every property somewhere, and
// nothing besides. The schema is closed at every level.
func TestInputMeetsSchema(t *testing.T) {
	v, _ := input(t, full())
	doc, err := ast.JSON(v)
	if err != nil {
		t.Fatal(err)
	}
	matchSchema(t, schemaQuery(t), doc)
	var schema map[string]any
	if err := json.Unmarshal(schemaJSON, &schema); err != nil {
		t.Fatal(err)
	}
	compare(t, "input", schema, doc)
}

func compare(t *testing.T, at string, schema map[string]any, doc any) {
	t.Helper()
	switch doc := doc.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		if schema["type"] != "object" || schema["additionalProperties"] != false {
			t.Errorf("%s: the schema must be a closed object", at)
		}
		for k := range properties {
			if _, ok := doc[k]; !ok {
				t.Errorf("%s.%s is in the schema and not in the fullest input", at, k)
			}
		}
		for k, v := range doc {
			p, ok := properties[k].(map[string]any)
			if !ok {
				t.Errorf("%s.%s is built and not in the schema", at, k)
				continue
			}
			compare(t, at+"."+k, p, v)
		}
	case []any:
		items, _ := schema["items"].(map[string]any)
		if schema["type"] != "array" || len(doc) == 0 {
			t.Errorf("%s: got an array of %d, the schema says %v", at, len(doc), schema["type"])
		}
		for _, v := range doc {
			compare(t, at+"[]", items, v)
		}
	default:
		if want := map[string]string{"string": "string", "json.Number": "integer", "bool": "boolean"}[reflect.TypeOf(doc).String()]; schema["type"] != want {
			t.Errorf("%s: got %T, the schema says %v", at, doc, schema["type"])
		}
	}
}

// The closed lists of the schema are those of the dictionary.
func TestSchemaEnums(t *testing.T) {
	var schema struct {
		Properties map[string]struct {
			Properties map[string]struct {
				Enum []string `json:"enum"`
			} `json:"properties"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(schemaJSON, &schema); err != nil {
		t.Fatal(err)
	}
	same := func(part, key string, want []string) {
		t.Helper()
		got := slices.Sorted(slices.Values(schema.Properties[part].Properties[key].Enum))
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s.%s: got %v, want %v", part, key, got, want)
		}
	}
	same("session", "state", states(writ.SessionMoves))
	same("agent", "status", states(writ.AgentMoves))
	same("task", "state", states(writ.TaskMoves))
	same("approval", "state", states(writ.ApprovalMoves))
	same("session", "role", texts(allRoles))
}

func states[S ~string](table writ.Table[S]) []string {
	var out []string
	for s := range table {
		if s != "" {
			out = append(out, string(s))
		}
	}
	return out
}

func texts[S ~string](list []S) []string {
	var out []string
	for _, s := range list {
		out = append(out, string(s))
	}
	return out
}

// The dimensions of the schema are those of the dictionary.
func TestSchemaDimensions(t *testing.T) {
	var schema struct {
		Properties struct {
			Budget struct {
				Properties map[string]any `json:"properties"`
			} `json:"budget"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(schemaJSON, &schema); err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(maps.Keys(schema.Properties.Budget.Properties))
	if want := slices.Sorted(slices.Values(writ.BudgetDimensions())); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The order in which a host found the dimensions is not part of the input, and
// a budget that cannot be written down is not judged.
func TestInputBudget(t *testing.T) {
	in := full()
	_, want := input(t, in)
	slices.Reverse(in.Subject.Budget)
	first := in.Subject.Budget[0]
	if _, got := input(t, in); !bytes.Equal(got, want) {
		t.Errorf("in another order:\ngot  %s\nwant %s", got, want)
	}
	if in.Subject.Budget[0] != first {
		t.Error("the caller's list was re-ordered")
	}
	for _, bad := range []string{"", "steps", "Steps", "st\u00e9ps", `st"ps`} {
		in := claim()
		in.Subject.Budget = append(in.Subject.Budget, writ.BudgetFacts{Dimension: bad})
		if _, _, err := buildInput(in); err == nil {
			t.Errorf("%q beside steps: got no error", bad)
		}
	}
}

// Whatever the strings hold, the digest is over the canonical form.
func TestInputCanonical(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		in := claim()
		text := rapid.String()
		in.Subject.Agent.Domain = text.Draw(rt, "domain")
		in.Subject.Scopes = rapid.SliceOf(text).Draw(rt, "scopes")
		in.Subject.Task.Domain = "\x00\x1f\b\f\n\r\t\"\\/<>&\u2028\U0001f600" + text.Draw(rt, "task")
		in.Subject.Budget[0].Limit = rapid.Int64Range(-writ.MaxAmount, writ.MaxAmount).Draw(rt, "limit")
		in.Subject.Labels = rapid.SliceOf(rapid.SampledFrom(writ.Labels())).Draw(rt, "labels")
		for _, d := range rapid.SliceOfDistinct(rapid.StringMatching(`[a-rt-z_][a-z0-9_]{0,20}`), rapid.ID).Draw(rt, "dimensions") {
			in.Subject.Budget = append(in.Subject.Budget, writ.BudgetFacts{Dimension: d, OnExceed: text.Draw(rt, "consequence")})
		}
		for range rapid.IntRange(0, 3).Draw(rt, "quotas") {
			in.Subject.Quotas = append(in.Subject.Quotas, writ.QuotaFacts{Metric: text.Draw(rt, "metric"), Subject: text.Draw(rt, "subject")})
		}
		v, b, err := buildInput(in)
		if err != nil {
			rt.Fatal(err)
		}
		sameDocument(t, v, b)
	})
}

// The pack and the dictionary agree on which scopes are canonical.
func TestCanonicalScopeAgrees(t *testing.T) {
	e := load(t)
	in := claim()
	in.Capability = &writ.Capability{ID: "task.enqueue", Class: writ.Ordinary, Safety: writ.SafetyMutating}
	check := func(fail func(string, ...any), scope string) {
		canonical, err := writ.CanonicalScope(scope)
		want := err == nil && canonical == scope
		in.Subject.Scopes = []string{scope}
		d, err := e.Decide(t.Context(), in)
		if err != nil {
			fail("%q: %v", scope, err)
		}
		if got := !slices.Contains(d.Rules(), "write_scopes.canonical"); got != want {
			fail("%q: the pack says canonical %t, the dictionary %t", scope, got, want)
		}
	}
	for c := range 0x80 { // every byte alone, first, last and in the middle
		for _, form := range []string{"fs:X/", "fs:aX/", "fs:Xa/", "fs:aXa/", "X:a/", "fs:.X/", "fs:..X/"} {
			check(t.Fatalf, strings.ReplaceAll(form, "X", string(rune(c))))
		}
	}
	part := rapid.SampledFrom([]string{"fs", ":", "/", ".", "..", "...", "a", "B", "-", " ", "%", "~", "é", "mem:", "//", "a/", "#"})
	rapid.Check(t, func(rt *rapid.T) {
		s := strings.Join(rapid.SliceOfN(part, 0, 12).Draw(rt, "parts"), "")
		check(rt.Fatalf, s)
		check(rt.Fatalf, "fs:"+s+"/")
	})
}
