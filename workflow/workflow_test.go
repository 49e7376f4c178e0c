package workflow

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

const good = `{
  "version": 1, "title": "publish", "close_policy": "verifier", "budget": {"steps": 40},
  "steps": {
    "build":   {"capability": "site.build", "required_domain": "web", "write_scopes": ["fs:site/dist/"]},
    "test":    {"capability": "site.test", "required_domain": "web", "depends_on": ["build"], "args": {"n": 1}},
    "docs":    {"capability": "site.docs", "required_domain": "web", "depends_on": [{"key": "build", "on_failure": "skip"}]},
    "publish": {"capability": "site.publish", "required_domain": "web", "depends_on": ["test", "docs"], "verify": {"required": true, "gates": ["links"]}}
  }
}`

func TestAWorkflowIsRead(t *testing.T) {
	w, all := Parse([]byte(good))
	if len(all) > 0 {
		t.Fatalf("got %+v", all)
	}
	if got := fmt.Sprint(w.Levels()); got != "[[build] [docs test] [publish]]" {
		t.Errorf("levels %s", got)
	}
	if e := w.Steps["docs"].DependsOn[0]; e.Key != "build" || e.OnFailure != writ.DependencySkip {
		t.Errorf("got %+v", e)
	}
	w.Sequence = []string{"build", "docs", "test", "publish"}
	w.order()
	if all := w.check(); len(all) > 0 {
		t.Errorf("in sequence: %+v", all)
	}
	if got := fmt.Sprint(w.Levels()); got != "[[build] [docs] [test] [publish]]" {
		t.Errorf("levels in sequence %s", got)
	}
	if got := fmt.Sprint(w.Before("test")); got != "[{build  } {docs  }]" {
		t.Errorf("before test: %s", got)
	}
}

// Everything that is wrong is said at once, with where it stands.
func TestAllProblemsAtOnce(t *testing.T) {
	step := func(more string) string {
		return `{"capability": "site.build", "required_domain": "web"` + more + `}`
	}
	for name, c := range map[string]struct {
		text string
		want []string // "<pointer> <beginning of the message>"
	}{
		"artifacts": {
			`{"version": 1, "budget": {"steps": 19}, "steps": {
				"make": ` + step(`, "produces": [
					{"name": "site", "media_type": "text/plain", "required": true}, {"name": "log", "media_type": "text/plain"},
					{"name": "site", "media_type": "Text", "schema": {}, "max_bytes": 99999999, "labels": ["x"]}, {"name": "../x", "media_type": "a/b", "schema": 1}]`) + `,
				"use": ` + step(`, "depends_on": ["make"], "consumes": [
					{"name": "site", "from": "make"}, {"name": "none", "from": "make"}, {"name": "site", "from": "use"}, {"name": "log", "from": "make"},
					{"name": "log", "from": "make", "media_type": "text/html", "optional": true}]`) + `,
				"goes-on": ` + step(`, "depends_on": [{"key": "make", "on_failure": "continue"}], "consumes": [{"name": "site", "from": "make"}]`) + `,
				"mend": ` + step(`, "depends_on": [{"key": "make", "when": "failed"}], "consumes": [{"name": "site", "from": "make"}]`) + `,
				"either": ` + step(`, "depends_on": ["make", "mend"], "join": "any_of", "consumes": [{"name": "site", "from": "make"}]`) + `}}`,
			[]string{
				`/steps/either/consumes/0/optional must be true: this step begins when another`,
				`/steps/goes-on/consumes/0/optional must be true: this step goes on`,
				`/steps/make/produces/2/schema is for JSON`, `/steps/make/produces/2/name is declared twice`, `/steps/make/produces/2/media_type must be`,
				`/steps/make/produces/2/max_bytes must be at most 49152`, `/steps/make/produces/2/labels/0 is no label`,
				`/steps/make/produces/3/schema must be an object`, `/steps/make/produces/3/name is no name`,
				`/steps/mend/consumes/0/optional must be true: this step goes on`,
				`/steps/use/consumes/1/name is nothing the step make makes`, `/steps/use/consumes/2/from must be a step`,
				`/steps/use/consumes/3/optional must be true: the step make`, `/steps/use/consumes/4 is declared twice`, `/steps/use/consumes/4/media_type is not what`,
			},
		},
		"a budget without the artifacts": {
			`{"version": 1, "budget": {"steps": 4}, "steps": {"make": ` + step(`, "produces": [
				{"name": "site", "media_type": "text/plain", "required": true}, {"name": "log", "media_type": "text/plain"}]`) + `, "use": ` + step("") + `}}`,
			[]string{`/budget/steps is less than the workflow takes if nothing goes wrong, which is 5`},
		},
		"no JSON":        {`{`, []string{` is no JSON`}},
		"two values":     {good + good, []string{` more than one`}},
		"unknown member": {`{"version": 1, "step": {}}`, []string{` there is no member "step"`}},
		"unknown in a step": {
			`{"version": 1, "budget": {"steps": 9}, "steps": {"aa": ` + step(`, "timeout": 3`) + `, "bb": ` + step(`, "priority": "high"`) + `}}`,
			[]string{`/steps/aa there is no member "timeout"`, `/steps/bb/priority must be a whole number`},
		},
		"another case, another form": {
			`{"version": 1.5, "budget": {"steps": "x"}, "Title": "t", "sequence": {}, "steps": {"aa": {"Capability": "a.b", "verify": {"Required": true, "gates": [1]}, "args": {"Any": [1]}}, "bb": 3}}`,
			[]string{` there is no member "Title"`, `/budget/steps must be a whole`, `/sequence must be a list`, `/steps/aa there is no member "Capability"`, `/steps/aa/verify there is no member "Required"`, `/steps/aa/verify/gates/0 must be a text`, `/steps/bb must be an object`, `/version must be a whole`},
		},
		"too much of it": {
			`{"version": 1, "budget": {"steps": 9}, "steps": {"aa": ` + step(`, "concern": "X Y", "required_agents": [`+strings.Repeat(`"a-b",`, 8)+`"a-b"], "args": {"x": "`+strings.Repeat("y", 50<<10)+`"}, "write_scopes": [`+strings.Repeat(`"fs:x/",`, 16)+`"fs:x/"]`) + `}}`,
			[]string{"/steps/aa/required_agents are more than 8", "/steps/aa/write_scopes are more than 16", "/steps/aa/concern is no slug", "/steps/aa/args are longer"},
		},
		"what it gives": {
			`{"version": 1, "budget": {"steps": 9}, "outputs": {"site": {"from": "aa", "name": "site"}, "log": {"from": "aa", "name": "log"}, "x": {"from": "zz", "name": "x"}, "y": {"from": "aa", "name": "y"}, "Z Z": {"from": "aa", "name": "site"}},
				"steps": {"aa": ` + step(`, "produces": [{"name": "site", "media_type": "text/plain", "required": true}, {"name": "log", "media_type": "text/plain"}]`) + `}}`,
			[]string{"/outputs/Z Z is no name", "/outputs/log/name can be missing", "/outputs/x/from names no step", "/outputs/y/name is nothing the step aa makes"},
		},
		"found by words": {
			`{"version": 1, "budget": {"steps": 9}, "steps": {"aa": {"capability": "a.b", "route_input": "movie night"},
				"bb": {"capability": "a.b", "route_input": " ", "required_domain": "web", "backoff_ms": 1, "depends_on": ["aa"]}}}`,
			[]string{"/steps/bb/route_input must be words", "/steps/bb/backoff_ms is not for", "/steps/bb/required_domain is not for"},
		},
		"unknown in an edge": {
			`{"version": 1, "budget": {"steps": 9}, "steps": {"aa": ` + step(`, "depends_on": [{"key": "bb", "until": 1}]`) + `}}`,
			[]string{`/steps/aa/depends_on/0 there is no member "until"`},
		},
		"the run": {
			`{"version": 2, "close_policy": "never", "budget": {"money": 3, "retries": -1}, "steps": {}}`,
			[]string{"/version must", "/close_policy must", "/budget/money is no dimension", "/budget/retries must not", "/budget/steps is required", "/steps must be 1"},
		},
		"too small": {`{"version": 1, "budget": {"steps": 3}, "steps": {"aa": ` + step("") + `, "bb": ` + step("") + `}}`, []string{"/budget/steps is less than"}},
		"a step": {
			`{"version": 1, "budget": {"steps": 9}, "steps": {"A/b~": {"capability": "build", "labels": ["secret"], "required_agents": ["X"], "write_scopes": ["fs:../x"],
				"priority": 10, "lease_ttl_s": 0, "max_attempts": 21, "backoff_ms": -1, "deadline_s": 0, "handoff": {"refs": [{"name": "A", "kind": "word"}]}, "not_before": "tomorrow",
				"verify": {"required": true, "agents": ["?"], "gates": ["A B"], "max_rework": 21, "quorum": 6}}}}`,
			[]string{
				"/steps/A~1b~0 is no key", "/steps/A~1b~0/capability is required", "/steps/A~1b~0/required_domain is required", "/steps/A~1b~0/required_agents/0 is no",
				"/steps/A~1b~0/labels/0 is no", "/steps/A~1b~0/write_scopes/0 is no canonical", "/steps/A~1b~0/priority must", "/steps/A~1b~0/lease_ttl_s must",
				"/steps/A~1b~0/max_attempts must", "/steps/A~1b~0/backoff_ms must", "/steps/A~1b~0/deadline_s must", "/steps/A~1b~0/not_before must", "/steps/A~1b~0/verify/agents/0 is no",
				"/steps/A~1b~0/verify/gates/0 is no", "/steps/A~1b~0/verify/max_rework must", "/steps/A~1b~0/verify/quorum must",
				"/steps/A~1b~0/handoff/refs/0/name is no", "/steps/A~1b~0/handoff/refs/0/kind must",
			},
		},
		"what a step may take": {
			`{"version": 1, "budget": {"steps": 9}, "steps": {"aa": ` + step(`, "budget": {"cost_microusd": 11, "llm_tokens": -1, "sandbox_cpu_ms": 5}`) + `, "bb": ` + step(`, "budget": {"cost_microusd": 10, "steps": 4}`) + `,
				"cc": {"capability": "a.b", "route_input": "words", "budget": {"llm_tokens": 1}}}}`,
			[]string{"/steps/aa/budget/llm_tokens must", "/steps/bb/budget has nothing but", "/steps/cc/budget is not for"},
		},
		"what all steps may take": {
			`{"version": 1, "budget": {"steps": 9, "cost_microusd": 20, "llm_tokens": 7}, "steps": {"aa": ` + step(`, "budget": {"cost_microusd": 11, "llm_tokens": 3, "sandbox_cpu_ms": 5}`) + `, "bb": ` + step(`, "budget": {"cost_microusd": 10, "llm_tokens": 4}`) + `, "cc": ` + step(``) + `}}`,
			[]string{"/budget/cost_microusd is less than the steps may take together, which is 21"},
		},
		"what is not for a step": {
			`{"version": 1, "budget": {"steps": 9}, "steps": {"aa": ` + step(`, "run_id": "x", "key": "bb", "args": [1]`) + `}}`,
			[]string{"/steps/aa/run_id is not", "/steps/aa/key is not", "/steps/aa/args must"},
		},
		"edges": {
			`{"version": 1, "budget": {"steps": 90}, "steps": {"aa": ` + step(`, "depends_on": ["aa", "zz", "bb", "bb", {"key": "cc", "on_failure": "retry"}, {"key": "dd", "when": "late"}, {"key": "ee", "when": "failed", "on_failure": "skip"}]`) + `, "dd": ` + step(`, "join": "any_of"`) + `, "ee": ` + step(`, "join": "most"`) + `, "bb": ` + step("") + `, "cc": ` + step("") + `}}`,
			[]string{"/steps/aa/depends_on/0 is the step itself", "/steps/aa/depends_on/1 names no step", "/steps/aa/depends_on/3 is named twice", "/steps/aa/depends_on/4/on_failure must", "/steps/aa/depends_on/5/when must", "/steps/aa/depends_on/6/on_failure means nothing", "/steps/dd/join needs", "/steps/ee/join must"},
		},
		"a circle": {
			`{"version": 1, "budget": {"steps": 9}, "steps": {"aa": ` + step(`, "depends_on": ["cc"]`) + `, "bb": ` + step(`, "depends_on": ["aa"]`) + `, "cc": ` + step(`, "depends_on": ["bb"]`) + `, "dd": ` + step(`, "depends_on": ["cc"]`) + `}}`,
			[]string{"/steps/aa/depends_on waits for itself: aa → cc → bb → aa"},
		},
		"a circle of the sequence": {
			`{"version": 1, "budget": {"steps": 9}, "sequence": ["aa", "bb"], "steps": {"aa": ` + step(`, "depends_on": ["bb"]`) + `, "bb": ` + step("") + `}}`,
			[]string{"/steps/aa/depends_on waits for itself: aa → bb → aa"},
		},
		"a race in a sequence": {
			`{"version": 1, "budget": {"steps": 9}, "sequence": ["aa", "bb"], "steps": {"aa": ` + step("") + `, "bb": ` + step(`, "depends_on": ["aa"], "join": "any_of"`) + `}}`,
			[]string{"/steps/bb/join has no place in a sequence"},
		},
		"the sequence": {
			`{"version": 1, "budget": {"steps": 9}, "sequence": ["aa", "zz", "aa"], "steps": {"aa": ` + step("") + `, "bb": ` + step("") + `}}`,
			[]string{"/sequence/1 names no step", "/sequence/2 is named twice", "/sequence does not name the step bb"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, all := Parse([]byte(c.text))
			if !Errors(all) || len(all) != len(c.want) {
				t.Fatalf("got %+v", all)
			}
			for i, p := range all {
				if !strings.HasPrefix(p.Pointer+" "+p.Text(), c.want[i]) {
					t.Errorf("got %s %s, want %s", p.Pointer, p.Msg, c.want[i])
				}
			}
		})
	}
}

// Steps that may run at the same time and write to one place are worth a warning,
// and no more.
func TestOverlapsAreWarnedOf(t *testing.T) {
	step := func(scope string, after ...string) Step {
		s := Step{TaskOptions: client.TaskOptions{Capability: "site.build", Domain: "web", WriteScopes: []string{"mem:x/", scope}}}
		if scope == "" {
			s.WriteScopes = nil
		}
		for _, a := range after {
			s.DependsOn = append(s.DependsOn, Edge{Key: a})
		}
		return s
	}
	w := Workflow{Version: 1, Budget: map[string]int64{writ.BudgetSteps: 20}, Steps: map[string]Step{
		"aa": step("fs:site/"), "bb": step("", "aa"), "cc": step("fs:site/dist/", "bb"), // through bb, one after the other
		"dd": step("fs:site/dist/js/"),
	}}
	all := append(w.check(), w.overlaps()...)
	if Errors(all) || len(all) != 2 || !slices.ContainsFunc(all, func(p Problem) bool { return p.Pointer == "/steps/dd/write_scopes/0" && strings.Contains(p.Msg, "aa") }) {
		t.Errorf("got %+v", all)
	}
}

// A large workflow is checked in no time worth mention.
func TestALargeWorkflow(t *testing.T) {
	w := Workflow{Version: 1, Budget: map[string]int64{writ.BudgetSteps: 2 * MaxSteps}, Steps: map[string]Step{}}
	for i := range MaxSteps {
		s := Step{TaskOptions: client.TaskOptions{Capability: "site.build", Domain: "web"}}
		for _, back := range []int{1, 7, 100} {
			if i >= back {
				s.DependsOn = append(s.DependsOn, Edge{Key: fmt.Sprintf("step-%d", i-back)})
			}
		}
		if i%20 == 0 {
			s.WriteScopes = []string{fmt.Sprintf("fs:site/%d/", i)}
		}
		w.Steps[fmt.Sprintf("step-%d", i)] = s
	}
	b, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	again, all := Parse(b)
	if len(all) > 0 || len(again.Levels()) != MaxSteps {
		t.Errorf("got %d levels, %+v", len(again.Levels()), all)
	}
	w.Steps["one-more"] = w.Steps["step-0"]
	if all := w.check(); !Errors(all) {
		t.Error("one more is too many")
	}
}

// ordered says whether every step comes after all it waits for.
func ordered(t interface{ Errorf(string, ...any) }, w Workflow) {
	done := map[string]bool{}
	for _, level := range w.Levels() {
		for _, key := range level {
			for _, e := range w.Before(key) {
				if !done[e.Key] {
					t.Errorf("%s comes before %s", key, e.Key)
				}
			}
		}
		for _, key := range level {
			done[key] = true
		}
	}
	if len(done) != len(w.Steps) {
		t.Errorf("%d of %d steps have a place", len(done), len(w.Steps))
	}
}

// Edges that lead back only are no circle; with one that closes a circle there is
// a problem that names it.
func TestCircles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 12).Draw(t, "steps")
		w := Workflow{Version: 1, Budget: map[string]int64{writ.BudgetSteps: 99}, Steps: map[string]Step{}}
		key := func(i int) string { return fmt.Sprintf("step-%d", i) }
		for i := range n {
			s := Step{TaskOptions: client.TaskOptions{Capability: "site.build", Domain: "web"}}
			for j := range i {
				if rapid.Bool().Draw(t, "edge") {
					s.DependsOn = append(s.DependsOn, Edge{Key: key(j)})
				}
			}
			w.Steps[key(i)] = s
		}
		if all := w.check(); len(all) > 0 {
			t.Fatalf("got %+v", all)
		}
		ordered(t, w)
		// One edge against the others closes a circle if it leads to what comes after.
		from := rapid.IntRange(1, n-1).Draw(t, "from")
		s, first := w.Steps[key(from)], w.Steps[key(0)]
		if !slices.Contains(s.DependsOn, Edge{Key: key(0)}) {
			s.DependsOn = append(s.DependsOn, Edge{Key: key(0)})
			w.Steps[key(from)] = s
		}
		first.DependsOn = append(first.DependsOn, Edge{Key: key(from)})
		w.Steps[key(0)] = first
		all := w.check()
		if len(all) != 1 || !strings.Contains(all[0].Msg, "→") {
			t.Fatalf("got %+v", all)
		}
	})
}

// Whatever is read without a problem can be carried out.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"version":1,"budget":{"steps":9},"sequence":["aa","bb"],"steps":{"aa":{"capability":"a.b","required_domain":"ab"},"bb":{"capability":"a.b","required_domain":"ab","depends_on":["aa"]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, all := Parse(b)
		if !Errors(all) {
			ordered(t, w)
		}
	})
}

// What is too long is said once, and not walked.
func TestOverlongLists(t *testing.T) {
	s := Step{TaskOptions: client.TaskOptions{Capability: "site.build", Domain: "web"}}
	for range 5000 {
		s.DependsOn = append(s.DependsOn, Edge{Key: "no-such-step"})
		s.Consumes = append(s.Consumes, client.Consume{Name: "x", From: "no-such-step"})
		s.Produces = append(s.Produces, client.Produce{Name: "Bad Name"})
		s.Labels = append(s.Labels, "no-label")
	}
	b, err := json.Marshal(Workflow{Version: 1, Steps: map[string]Step{"one": s, "two": s}})
	if err != nil {
		t.Fatal(err)
	}
	if _, all := Parse(b); len(all) == 0 || len(all) > 2*(9+2*writ.MaxDependencies+4*writ.MaxArtifacts) {
		t.Fatalf("%d problems", len(all))
	}
}
