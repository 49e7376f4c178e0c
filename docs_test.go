package writ_test

import (
	"fmt"
	"go/ast"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// lesson is one row of docs/lessons.md: its number, the prefix of the tests it
// names and the package they are in.
var lesson = regexp.MustCompile("^\\| (N[0-9]+) \\|.*`(TestN[0-9]+)…` in (?:`([a-z0-9/]+)`|the root package) \\|$")

// Every test that docs/lessons.md promises exists where it says.
func TestLessonsNameTests(t *testing.T) {
	text, err := os.ReadFile("docs/lessons.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string][]string{} // package → its tests
	for _, f := range sources(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil {
				tests[f.pkg] = append(tests[f.pkg], fn.Name.Name)
			}
		}
	}
	for i := range 14 { // those of the task protocol
		if row := fmt.Sprintf("\n| N%d |", i+1); !strings.Contains(string(text), row) {
			t.Errorf("the page has no row%s", row[1:])
		}
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if !strings.HasPrefix(line, "| N") {
			continue
		}
		rows++
		m := lesson.FindStringSubmatch(line)
		switch {
		case m == nil:
			t.Errorf("a row that names no test and package: %s", line)
		case m[2] != "Test"+m[1]:
			t.Errorf("%s names the test %s", m[1], m[2])
		case !named(tests[m[3]], m[2]):
			t.Errorf("%s: no test %s… in package %q", m[1], m[2], m[3])
		}
	}
	if rows == 0 {
		t.Error("no row was found: the page has another form")
	}
}

// named says whether a test has the prefix, followed by a word and not by
// another digit.
func named(tests []string, prefix string) bool {
	for _, name := range tests {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" && (rest[0] < '0' || rest[0] > '9') {
			return true
		}
	}
	return false
}

// The front page tells things in the order a reader needs them.
func TestReadmeOrder(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, part := range []string{
		"# writ\n\nA policy-as-code governance gateway", // what it is
		"## Run it\n", "\nmake run\n", // the one command
		"## One governed call\n", "curl -si $URL/v1/runs", "HTTP/1.1 201 Created", "curl -s $URL/v1/receipts/rcp_", `{"receipt_id":"rcp_`,
		"## Verify it\n", "receipt verify ",
		"## Run it on Redis\n",
		"## What holds, and what does not yet\n", "Holds, and is tested", "Not there yet",
	} {
		i := strings.Index(string(text)[at:], part)
		if i < 0 {
			t.Fatalf("README.md has no %q after its first %d bytes", part, at)
		}
		at += i + len(part)
	}
}

// The page tells the steps of a call in the order the door makes them.
func TestLifeOfACallIsInOrder(t *testing.T) {
	text, err := os.ReadFile("docs/life-of-a-call.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "## 2. ")
	list, _, _ = strings.Cut(list, "## 3. ")
	at, steps := 0, 0
	for _, f := range sources(t) {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || f.pkg != "guard" || f.test || fn.Name.Name != "once" {
				continue
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				step := "`" + sel.Sel.Name + "`"
				if i := strings.Index(list, step); i >= 0 && i < at {
					t.Errorf("the page tells of %s too early", step)
				} else if i >= 0 {
					at, steps = i, steps+1
				}
				return true
			})
		}
	}
	if steps != 17 {
		t.Errorf("the page tells of %d steps of the door's, want 17", steps)
	}
}

// The page about health names every status, reason and code there is.
func TestHealthIsDescribed(t *testing.T) {
	page, err := os.ReadFile("docs/health.md")
	if err != nil {
		t.Fatal(err)
	}
	words := []string{"preflight_unhealthy", "healthy", "degraded", "unhealthy", "unknown", "stale", "endpoints", "heartbeat", "both", "none"}
	for _, r := range writ.HealthReasons() {
		words = append(words, string(r))
	}
	for _, w := range words {
		if !strings.Contains(string(page), "`"+w+"`") {
			t.Errorf("the page does not tell of %s", w)
		}
	}
}

// The page about webhooks tells of every event, and its example body is one
// that is sent.
func TestWebhooksAreDescribed(t *testing.T) {
	page, err := os.ReadFile("docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range append(writ.Events(), "webhook.test") {
		body, err := os.ReadFile("testdata/vectors/webhooks/" + string(e) + ".json")
		if err != nil {
			t.Fatal(err)
		}
		_, row, ok := strings.Cut(string(page), "\n| `"+string(e)+"` |")
		row, _, _ = strings.Cut(row, "\n")
		if !ok {
			t.Errorf("the page does not tell of %s", e)
		}
		if strings.HasSuffix(row, "the same |") {
			continue
		}
		for _, m := range regexp.MustCompile("(?m)^    \"([a-z_]+)\":").FindAllStringSubmatch(string(body), -1) {
			if !strings.Contains(row, "`"+m[1]+"`") {
				t.Errorf("the page does not tell that %s has %s", e, m[1])
			}
		}
	}
}

// The page on repairs says of every name that is stored what a repair does about it.
func TestRepairKnowsEveryName(t *testing.T) {
	text, err := os.ReadFile("docs/design/repair.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{} // "<what> <name>"
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[2], -1) {
				said[strings.TrimSpace(cells[1])+" "+name[1]] = true
			}
		}
	}
	for _, file := range []string{"testdata/vectors/stored/names.txt", "queue/testdata/stored/names.txt", "runs/testdata/stored/names.txt", "agents/testdata/stored/names.txt"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			what, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			name = strings.TrimSpace(name)
			want := ""
			switch first, _, _ := strings.Cut(name, " "); what {
			case "document":
				kind, _, _ := strings.Cut(name, "/")
				want = "documents " + kind
			case "index":
				sort, _, _ := strings.Cut(writ.Index(name).Sort(), ".run_") // of a run itself
				want = "indexes " + sort
			case "todo":
				want = "follow-ups " + first
			case "counter":
				entity, field, _ := strings.Cut(strings.Trim(name, "{}"), " ")
				want = "counters " + writ.Counter{Entity: entity, Field: field}.Sort()
			default:
				continue // members, and parts of names
			}
			if !said[want] {
				t.Errorf("%s: docs/design/repair.md has no row of %q", file, want)
			}
		}
	}
}
