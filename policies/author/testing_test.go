package author

import (
	"strings"
	"testing"
	"time"
)

const testFile = pack + "protected_paths_test.rego"

func run(t *testing.T, files map[string][]byte, o TestOptions) (PackTests, error) {
	t.Helper()
	o.Packs = []string{ExamplePack}
	all, err := treeOf(t, own(files)).Test(t.Context(), o)
	if err != nil {
		return PackTests{}, err
	}
	return all[0], nil
}

func failed(p PackTests) []Case {
	var out []Case
	for _, c := range p.Cases {
		if !c.Passed {
			out = append(out, c)
		}
	}
	return out
}

// A failure says where, with what it printed, the case of a table, and a trace.
func TestFailuresAreTold(t *testing.T) {
	files := spoiled(t, testFile, "", "\ntest_wrong[note] if {\n\tsome note, call in {\"good\": base, \"bad\": {}}\n\tprint(\"judging\", note)\n\trules(call) == set()\n}\n")
	p, err := run(t, files, TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bad := failed(p)
	if len(bad) != 1 || p.Failed() != 1 {
		t.Fatalf("got %+v", bad)
	}
	c := bad[0]
	if c.Name != "test_wrong" || c.File != testFile || c.Line != 61 {
		t.Errorf("at the wrong place: %s %s:%d", c.Name, c.File, c.Line)
	}
	if !strings.Contains(c.Message, `"bad"`) || !strings.Contains(c.Output, "judging bad") || !strings.Contains(c.Trace, "protected_paths_test.rego") {
		t.Errorf("got %+v", c)
	}
}

func TestFixturesFail(t *testing.T) {
	files := spoiled(t, "fixtures/protected_paths/allowed.yaml", `requested: ["fs:repo/site/"]`, `requested: ["fs:repo/infra/"]`)
	p, err := run(t, files, TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if bad := failed(p); len(bad) != 1 || !strings.Contains(bad[0].Message, "got  deny rules [protected_paths.protected]") {
		t.Errorf("got %+v", bad)
	}
	files["fixtures/protected_paths/broken.yaml"] = []byte("name: x\n")
	if p, _ := run(t, files, TestOptions{}); p.Failed() != 2 {
		t.Errorf("a broken fixture passes: %+v", failed(p))
	}
}

func TestCoverageIsOfThePack(t *testing.T) {
	files := spoiled(t, pack+"protected_paths.rego", "", "\n_unused if {\n\tinput.run.id == \"a\"\n\tinput.run.state == \"b\"\n\tinput.agent.id == \"c\"\n\tinput.agent.domain == \"d\"\n}\n")
	p, err := run(t, files, TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Coverage > 95 || len(p.Files) != 1 || len(p.Files[0].Uncovered) == 0 || p.Files[0].Uncovered[0][0] < 64 {
		t.Errorf("got %.1f %+v", p.Coverage, p.Files)
	}
	if low := Low([]PackTests{p}, 100); len(low) != 1 || low[0].Line < 64 {
		t.Errorf("got %+v", low)
	}
	if low := Low([]PackTests{p}, 50); len(low) != 0 {
		t.Errorf("got %+v", low)
	}
	if one, err := run(t, files, TestOptions{Run: "test_allows_other"}); err != nil || len(one.Cases) != 1 {
		t.Errorf("--run: %+v %v", one, err)
	}
}

// Tests of a pack somebody else wrote reach nothing, and end.
func TestTestsAreConfined(t *testing.T) {
	for _, body := range []string{
		`http.send({"method": "get", "url": "http://127.0.0.1:1"}).status_code == 200`,
		`opa.runtime().env.HOME != ""`, `time.now_ns() > 1`, `rand.intn("x", 2) < 3`, `net.lookup_ip_addr("localhost") != set()`,
	} {
		_, err := run(t, spoiled(t, testFile, "", "\ntest_x if "+body+"\n"), TestOptions{})
		if err == nil || !strings.Contains(err.Error(), "undefined function") {
			t.Errorf("%s: got %v", body, err)
		}
	}
	files := spoiled(t, testFile, "", "\ntest_x if {\n\tn := numbers.range(1, 100000)\n\tsome i in n\n\tsome j in n\n\tsome k in n\n\ti + j + k < 0\n}\n")
	p, err := run(t, files, TestOptions{Run: "test_x$", Timeout: 200 * time.Millisecond})
	if err != nil || p.Failed() != 1 {
		t.Errorf("%+v %v", p, err)
	}
}

func TestTestRefuses(t *testing.T) {
	if _, err := run(t, example(t), TestOptions{Run: "("}); err == nil {
		t.Error("a broken expression")
	}
	if _, err := treeOf(t, example(t)).Test(t.Context(), TestOptions{Packs: []string{"nobody"}}); err == nil {
		t.Error("a pack that does not exist")
	}
	for _, file := range []string{testFile, pack + "protected_paths.rego"} {
		if _, err := run(t, spoiled(t, file, "", "\nx if {\n"), TestOptions{}); err == nil {
			t.Errorf("%s does not parse", file)
		}
	}
}

// A fixture is held against what the pack says, also where this host can only
// deny: effects, and obligations to the last argument.
func TestFixturesKnowObligations(t *testing.T) {
	files := spoiled(t, pack+"protected_paths.rego", `"effect": "deny",
	"code": "scope_denied",
	"message": "the work writes a protected path",
`, `"effect": "require_approval",
	"code": "scope_denied",
	"message": "the work writes a protected path",
	"obligations": [{"type": "approval", "args": {"roles": ["approver"], "approvers": 2}}],
`)
	files[pack+"pack.yaml"] = []byte(strings.Replace(string(files[pack+"pack.yaml"]), "[deny]", "[deny, require_approval]", 1))
	fixture := "fixtures/protected_paths/protected.yaml"
	base := strings.Replace(string(files[fixture]), "effect: deny", "effect: require_approval", 1)
	for _, tc := range []struct{ name, text, want string }{
		{"as it is", base + "  obligations: [{type: approval, args: {approvers: 2, roles: [approver]}}]\n", ""},
		{"left out", base, "obligations"},
		{"another argument", base + "  obligations: [{type: approval, args: {approvers: 1, roles: [approver]}}]\n", `"approvers":2`},
		{"another effect", strings.Replace(base, "require_approval", "deny", 1), "got  require_approval"},
		{"not of this host", "foreign: true\n" + strings.Replace(base, "input:\n", "input:\n  weather: rain\n", 1) + "  obligations: [{type: approval, args: {approvers: 2, roles: [approver]}}]\n", ""},
	} {
		files[fixture] = []byte(tc.text)
		p, err := run(t, files, TestOptions{Run: "an executor works in"})
		if err != nil || len(p.Cases) != 1 {
			t.Fatalf("%s: %+v %v", tc.name, p, err)
		}
		if c := p.Cases[0]; c.Passed != (tc.want == "") || !strings.Contains(c.Message, tc.want) {
			t.Errorf("%s: got %+v", tc.name, c)
		}
	}
}
