package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// Whatever is wrong with the form of a workflow is said before anything is made of it,
// with where it stands; a circle with its path. The gateway itself says of each task
// what is wrong with it in the same way.
func TestM3T1W3T3StaticErrors(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		token := c.orc.tokenFile()
		step := obj{"capability": tool, "required_domain": "web"}
		for name, tt := range map[string]struct {
			steps         map[string]obj
			more          obj
			pointer, says string
			warning       bool
		}{
			"unknown":  {steps: map[string]obj{"aa": with(step, "depends_on", []string{"zz"})}, pointer: "/steps/aa/depends_on/0", says: "names no step"},
			"itself":   {steps: map[string]obj{"aa": with(step, "depends_on", []string{"aa"})}, pointer: "/steps/aa/depends_on/0", says: "the step itself"},
			"twice":    {steps: map[string]obj{"aa": step, "bb": with(step, "depends_on", []string{"aa", "aa"})}, pointer: "/steps/bb/depends_on/1", says: "named twice"},
			"circle":   {steps: map[string]obj{"aa": with(step, "depends_on", []string{"cc"}), "bb": with(step, "depends_on", []string{"aa"}), "cc": with(step, "depends_on", []string{"bb"})}, pointer: "/steps/aa/depends_on", says: "aa → cc → bb → aa"},
			"join":     {steps: map[string]obj{"aa": with(step, "join", "any_of")}, pointer: "/steps/aa/join", says: "needs"},
			"budget":   {steps: map[string]obj{"aa": step, "bb": step}, more: obj{"budget": obj{"steps": 3}}, pointer: "/budget/steps", says: "less than"},
			"scope":    {steps: map[string]obj{"aa": with(step, "write_scopes", []string{"fs:repo/../x"})}, pointer: "/steps/aa/write_scopes/0", says: "canonical"},
			"member":   {steps: map[string]obj{"aa": with(step, "timeout", 3)}, pointer: "/steps/aa", says: "no member"},
			"sequence": {steps: map[string]obj{"aa": step, "bb": step}, more: obj{"sequence": []string{"aa"}}, pointer: "/sequence", says: "bb"},
			"against":  {steps: map[string]obj{"aa": with(step, "depends_on", []string{"bb"}), "bb": step}, more: obj{"sequence": []string{"aa", "bb"}}, pointer: "/steps/aa/depends_on", says: "aa → bb → aa"},
			"overlap":  {steps: map[string]obj{"aa": with(step, "write_scopes", []string{"fs:repo/"}), "bb": with(step, "write_scopes", []string{"fs:repo/x/"})}, pointer: "/steps/bb/write_scopes/0", says: "aa", warning: true},
		} {
			body := obj{"version": 1, "budget": obj{"steps": 40}, "steps": tt.steps}
			for k, v := range tt.more {
				body[k] = v
			}
			file := filepath.Join(t.TempDir(), name+".json")
			if err := os.WriteFile(file, []byte(mustJSON(t, body)), 0o600); err != nil {
				t.Fatal(err)
			}
			r := command(t, "workflow", "validate", file, "-o", "json")
			var said struct {
				Problems []struct{ Pointer, Message string }
			}
			if err := json.Unmarshal([]byte(r.stdout), &said); err != nil || r.code == 0 != tt.warning || len(said.Problems) != 1 || said.Problems[0].Pointer != tt.pointer || !strings.Contains(said.Problems[0].Message, tt.says) {
				t.Errorf("%s: want %s … %s: %v %s", name, tt.pointer, tt.says, err, r)
			}
			if name == "circle" {
				if r := command(t, "workflow", "submit", file, "--url", w.last().url, "--token-file", token); r.code == 0 || !strings.Contains(r.stderr, tt.says) {
					t.Errorf("submitted: %s", r)
				}
			}
		}
		if runs, _ := c.orc.ok(200, "GET", "/v1/runs", nil).at("runs").([]any); len(runs) != 1 {
			t.Errorf("something was made of a wrong one: %d runs", len(runs))
		}

		c.enqueue("there", nil)
		c.enqueue("second", nil)
		for pointer, more := range map[string]obj{
			"/depends_on/0/key":        on("new"), // itself: a task names those that are there, so no circle can close
			"/depends_on/1/key":        on("there", "nowhere"),
			"/depends_on/2/key":        on("there", "second", "there"),
			"/join":                    {"join": "any_of"},
			"/write_scopes/0":          {"write_scopes": []string{"fs:repo/../x"}},
			"/depends_on/0/on_failure": {"depends_on": []obj{{"key": "there", "on_failure": "retry"}}},
		} {
			r := c.orc.at(w.last()).refused(422, writ.CodeInputInvalid, "POST", "/v1/tasks", c.task("new", more))
			if !strings.Contains(string(r.body), `"pointer":"`+pointer+`"`) {
				t.Errorf("want %s: %s", pointer, r)
			}
		}
		if tasks, _ := c.orc.ok(200, "GET", "/v1/tasks?run_id="+c.run, nil).at("tasks").([]any); len(tasks) != 2 {
			t.Errorf("something was queued: %d tasks", len(tasks))
		}
		w.audited()
	})
}

// tokenFile is a file with the token, for the command line.
func (c caller) tokenFile() string {
	c.t.Helper()
	path := filepath.Join(c.t.(interface{ TempDir() string }).TempDir(), "token")
	if err := os.WriteFile(path, []byte(c.token), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// With a sequence the steps are one after the other, whoever asks for work: at no time
// can anybody have but the next one.
func TestM3T4SequenceIsATotalOrder(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		order := []string{"publish", "build", "audit", "test", "clean"}
		steps := obj{}
		for _, key := range order {
			steps[key] = obj{"capability": tool, "required_domain": "web"}
		}
		steps["clean"] = obj{"capability": tool, "required_domain": "web", "depends_on": []string{"build"}, "priority": 9}
		file := filepath.Join(t.TempDir(), "strict.json")
		if err := os.WriteFile(file, []byte(mustJSON(t, obj{"version": 1, "budget": obj{"steps": 40}, "steps": steps, "sequence": order})), 0o600); err != nil {
			t.Fatal(err)
		}
		r := command(t, "workflow", "submit", file, "--url", w.gw[0].url, "--token-file", c.orc.tokenFile(), "-o", "json")
		var made struct {
			Run   string `json:"run_id"`
			Tasks []struct {
				Key  string
				Task string `json:"task_id"`
			}
		}
		if err := json.Unmarshal([]byte(r.stdout), &made); err != nil || r.code != 0 || len(made.Tasks) != len(order) {
			t.Fatalf("%v: %s", err, r)
		}
		ids := map[string]string{}
		for _, m := range made.Tasks {
			ids[m.Key] = m.Task
		}
		workers := []caller{c.builder, c.another().at(w.last())}
		for i, key := range order {
			by, other := workers[i%2], workers[(i+1)%2]
			for _, later := range order[i+1:] {
				if s := c.state(ids[later]); s != writ.TaskBlocked {
					t.Fatalf("at %s: %s is %s", key, later, s)
				}
				other.refused(409, writ.CodeDeps, "POST", "/v1/tasks/"+ids[later]+"/claim", nil)
			}
			l := by.claimNext()
			if l.task != ids[key] {
				t.Fatalf("at %s: %s was handed out", key, l.task)
			}
			if r := other.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
				t.Fatalf("while %s is worked on: %s", key, r)
			}
			by.complete(l)
		}
		if s := w.runState(made.Run); s != "done" {
			t.Fatalf("the run is %s", s)
		}
		var ended []string
		_, all := w.export()
		for _, s := range all {
			if s.Predicate.Run == made.Run && s.Predicate.Transition == "task.complete" {
				ended = append(ended, s.Predicate.Task)
			}
		}
		for i, key := range order {
			if slices.Index(ended, ids[key]) != i {
				t.Errorf("%s ended as number %d", key, slices.Index(ended, ids[key]))
			}
		}
		w.audited()
	})
}
