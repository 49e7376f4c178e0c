package roster

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "write the golden files")

// A file with all there is, read, written and read again.
func TestRoundTrip(t *testing.T) {
	in, err := os.ReadFile("testdata/agents.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all, problems := Read(in)
	if !Sound(problems) {
		t.Fatalf("%+v", problems)
	}
	out, err := Write(all)
	if err != nil {
		t.Fatal(err)
	}
	writtest.Golden(t, *update, "export.yaml", out)
	again, problems := Read(out)
	if len(problems) > 0 || len(again) != len(all) {
		t.Fatalf("%d of %d, %+v", len(again), len(all), problems)
	}
	by := map[writ.AgentID]Entry{}
	for _, e := range all {
		by[e.ID] = e
	}
	for _, e := range again {
		if was := by[e.ID]; !Same(e, was) || e.State != was.State || e.SupersededBy != was.SupersededBy {
			t.Errorf("got  %+v\nwant %+v", e, was)
		}
	}
}

// Everything that is wrong is said at once, each with its place, and nothing that was
// written is repeated.
func TestEverythingThatIsWrong(t *testing.T) {
	in, err := os.ReadFile("testdata/wrong.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, problems := Read(in)
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "%d:%d %s: %s (%v)\n", p.Line, p.Column, p.Pointer, p.Msg, p.Warning)
	}
	if Sound(problems) || strings.Contains(b.String(), "s3cret") {
		t.Errorf("%s", b.String())
	}
	writtest.Golden(t, *update, "wrong.txt", []byte(b.String()))
}

// What makes a file say something else than it shows is refused.
func TestNotPlain(t *testing.T) {
	for name, in := range map[string]string{
		"nothing": "", "a list": "[]", "no list": "agents: 3", "a tag": "agents: !!seq []", "an alias": "agents: [&a {id: one-1}, *a]",
		"merge": "x: &x {id: a1}\nagents: [{<<: *x}]", "twice": "agents: []\nagents: []", "two documents": "agents: []\n---\nagents: []",
		"a number as a name": "agents: [{1: x}]", "deep": "agents: " + strings.Repeat("[", 100) + strings.Repeat("]", 100), "no YAML": "agents: [",
		"large": strings.Repeat("#", MaxBytes+1), "an unknown member": "agents: []\nmore: 1",
	} {
		if _, problems := Read([]byte(in)); Sound(problems) {
			t.Errorf("%s: nothing wrong", name)
		}
	}
}

// What is no YAML is said with its line, and without what was written.
func TestNoYAML(t *testing.T) {
	for _, c := range []struct {
		in        string
		line, col int
		msg       string
	}{
		{"", 1, 1, "is empty"},
		{"agents: [", 2, 1, "node content"},
		{"a: b: c", 1, 1, "mapping values"},
		{"agents:\n  - id: a\n   x: [", 2, 1, "'-' indicator"},
		{"agents:\n - {id: x\n - {id: y}\n", 2, 1, "',' or '}'"},
		{"a: b\n\tc: d\n", 2, 1, "tab character"},
		{"agents:\n  - id: \"x\n", 2, 1, "end of stream"},
		{"a\n- b: {\n", 2, 1, "mapping values"},
		{"agents: []\n---\na: [", 4, 1, "node content"},
		{"agents: []\n---\nagents: []", 2, 1, "more than one document"},
		{"x: 1\ny: *s3cret", 2, 4, "an alias"},
		{"agents:\n- id: a\n  name: é\xff\n", 3, 10, "no UTF-8"},
		{"agents:\n- \x00", 2, 3, "control character"},
		{"%YAML 3.0\n---\na", 1, 1, "incompatible"},
	} {
		_, problems := Read([]byte(c.in))
		if len(problems) != 1 {
			t.Errorf("%q: %+v", c.in, problems)
			continue
		}
		if p := problems[0]; p.Line != c.line || p.Column != c.col || p.Warning || !strings.Contains(p.Msg, c.msg) || strings.Contains(p.Msg, "s3cret") {
			t.Errorf("%q: %+v", c.in, p)
		}
	}
}

// What YAML or JSON would read as something else than it shows is refused.
func TestSaysWhatItShows(t *testing.T) {
	for in, pointer := range map[string]string{
		"name: 2026-01-02": "/agents/0/name",
		"tools: [{capability: a.b, input_schema: {const: 2026-01-02T03:04:05Z}}]": "/agents/0/tools/0/input_schema/const",
		"tools: [{capability: a.b, Safety: destructive}]":                         "/agents/0/tools/0",
		"tools: [{capability: a.b, \u017fafety: blocked}]":                        "/agents/0/tools/0",
		"defers: [{concern: pages, to: other, To: another}]":                      "/agents/0/defers",
		"routing: {Keywords: [x]}":                                                "/agents/0/routing",
	} {
		_, problems := Read([]byte("agents: [{id: builder, domain: web, " + in + "}]"))
		if len(problems) != 1 || problems[0].Pointer != pointer || problems[0].Line != 1 || problems[0].Column < 2 {
			t.Errorf("%s: %+v", in, problems)
		}
	}
	if _, problems := Read([]byte(`agents: [{id: builder, domain: web, name: "2026-01-02", tools: [{capability: a.b, input_schema: {properties: {Safety: {}}}}]}]`)); len(problems) > 0 {
		t.Errorf("%+v", problems)
	}
}

// An export of what was registered with other words for the same numbers changes
// nothing when it is imported, and loses no digit.
func TestNumbersComeBack(t *testing.T) {
	const schema = `{"properties":{"n":{"multipleOf":1.0,"minimum":1e2,"maximum":18446744073709551615,"exclusiveMinimum":0.25}}}`
	e := Entry{
		ID: "builder", Domain: "web", Archetypes: []writ.Role{writ.RoleExecutor}, State: writ.AgentActive,
		Tools: []writ.Tool{{Name: "site.build", Safety: writ.SafetyMutating, InputSchema: writ.RawObject(schema)}},
	}
	out, err := Write([]Entry{e})
	if err != nil {
		t.Fatal(err)
	}
	again, problems := Read(out)
	if len(problems) > 0 || len(again) != 1 || !Same(e, again[0]) || !strings.Contains(string(again[0].Tools[0].InputSchema), "18446744073709551615") {
		t.Errorf("%+v %s", problems, out)
	}
}

// exclude_keys win, and the older form means the same as the newer.
func TestScopes(t *testing.T) {
	read := func(more string) string {
		all, problems := Read([]byte("agents: [{id: builder, domain: web, " + more + "}]"))
		if !Sound(problems) {
			t.Fatalf("%s: %+v", more, problems)
		}
		var out []string
		for _, x := range all[0].Tools {
			out = append(out, string(x.Name))
		}
		return strings.Join(out, " ")
	}
	tools := "mcp_tools: [{name: site.build}, {name: site.drop, safety: blocked}, {name: mail.send}]"
	for more, want := range map[string]string{
		"capabilities: [site.build, mail.send]":                       "site.build mail.send",
		"capabilities_scope: {include_keys: [site.build, mail.send]}": "site.build mail.send",
		tools: "site.build site.drop mail.send",
		tools + ", capabilities_scope: {include_prefixes: [site.]}":                                       "site.build site.drop",
		tools + ", capabilities_scope: {include_prefixes: [site.], exclude_keys: [site.drop]}":            "site.build",
		tools + ", capabilities_scope: {include_keys: [site.drop, mail.send], exclude_keys: [site.drop]}": "mail.send",
	} {
		if got := read(more); got != want {
			t.Errorf("%s: got %s, want %s", more, got, want)
		}
	}
}

// No file brings the reader down, and what is read and sound can be written and read
// again to the same.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"agents.yaml", "wrong.yaml"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("agents: [{id: a1, domain: web, capabilities: [a.b]}]"))
	f.Fuzz(func(t *testing.T, in []byte) {
		all, problems := Read(in)
		if !Sound(problems) {
			return
		}
		out, err := Write(all)
		if err != nil {
			t.Fatalf("%v\n%s", err, in)
		}
		again, problems := Read(out)
		if !Sound(problems) || len(again) != len(all) {
			t.Fatalf("%+v\n%s\n%s", problems, in, out)
		}
		by := map[writ.AgentID]Entry{}
		for _, e := range all {
			by[e.ID] = e
		}
		for _, e := range again {
			if !Same(e, by[e.ID]) {
				t.Fatalf("got %+v, want %+v", e, by[e.ID])
			}
		}
	})
}
