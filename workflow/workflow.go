// Package workflow reads what is to be done in which order, and says everything
// that is wrong with it at once, before anything is done. It calls no gateway. That a step begins only when those before it have ended is not its
// business but the queue's.
package workflow

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// MaxSteps is how many steps a workflow may have.
const MaxSteps = writ.MaxWorkflowSteps

// Workflow is a run and its tasks as somebody writes them down.
type Workflow struct {
	Version     int              `json:"version"` // 1
	Title       string           `json:"title,omitempty"`
	Goal        string           `json:"goal,omitempty"`
	ClosePolicy writ.ClosePolicy `json:"close_policy,omitempty"`
	CloseQuorum int64            `json:"close_quorum,omitempty"` // with close_policy verifier: how many must accept it; 0 is one
	Budget      map[string]int64 `json:"budget"`                 // dimension → limit
	Sequence    []string         `json:"sequence,omitempty"`     // every step, each to begin when the one before has ended; else only depends_on orders them
	Steps       map[string]Step  `json:"steps"`

	Outputs map[string]Output `json:"outputs,omitempty"` // what the run gives, by name

	after map[string]string // the step before it in the sequence
}

// Output is an artifact of a step that is a result of the run.
type Output struct {
	From string `json:"from"`
	Name string `json:"name"`
}

// Gives are the outputs, by name.
func (w Workflow) Gives() (out []writ.RunOutput) {
	for _, name := range sorted(w.Outputs) {
		out = append(out, writ.RunOutput{Name: name, Step: w.Outputs[name].From, Artifact: w.Outputs[name].Name})
	}
	return out
}

// Step is one task: what task.enqueue takes, but for the run and the key; or what
// agent.delegate does.
type Step struct {
	client.TaskOptions
	DependsOn []Edge `json:"depends_on,omitempty"`

	// RouteInput are words by which the agent is found, and its domain with it, when
	// the step is made a task: agent.delegate takes them, and what it takes of a task.
	RouteInput string `json:"route_input,omitempty"`
}

// Edge is a step that must end before another one begins. A name alone will do.
type Edge client.Dependency

func (e *Edge) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &e.Key)
	}
	return fill(b, (*client.Dependency)(e))
}

// Problem is one thing that is wrong, or, if it is only a warning, may be.
type Problem struct {
	Pointer string `json:"pointer"`        // JSON pointer (RFC 6901) into the workflow
	Msg     string `json:"message"`        // in our words, with no other of the workflow's than keys of steps
	Name    string `json:"name,omitempty"` // the word of the workflow it is about, where one says more
	Warning bool   `json:"warning,omitempty"`
}

// Errors says whether any of them is more than a warning.
func Errors(all []Problem) bool {
	return slices.ContainsFunc(all, func(p Problem) bool { return !p.Warning })
}

// Text is what is wrong, with the word it is about.
func (p Problem) Text() string {
	if p.Name == "" {
		return p.Msg
	}
	return p.Msg + " " + strconv.Quote(p.Name)
}

// Parse reads a workflow, JSON, and gives all that is wrong with it.
func Parse(b []byte) (Workflow, []Problem) {
	var w Workflow
	if all := read(b, &w); len(all) > 0 {
		return w, all
	}
	w.order()
	all := w.check()
	if len(all) == 0 {
		all = w.overlaps()
	}
	return w, all
}

// graph is what of a workflow is not of its run.
type graph struct {
	Version  int             `json:"version"`
	Sequence []string        `json:"sequence,omitempty"`
	Steps    map[string]Step `json:"steps"`

	Outputs map[string]Output `json:"outputs,omitempty"`
}

// ParseGraph reads version, sequence and steps of a workflow of a run that is known
// otherwise, and gives all that is wrong with it. Steps that may stand in each other's
// way are no matter for it.
func ParseGraph(b []byte, budget map[string]int64) (Workflow, []Problem) {
	var g graph
	if all := read(b, &g); len(all) > 0 {
		return Workflow{}, all
	}
	w := Workflow{Version: g.Version, Budget: budget, Sequence: g.Sequence, Steps: g.Steps, Outputs: g.Outputs}
	w.order()
	return w, w.check()
}

// Graph is the part of a workflow that ParseGraph reads, as it stands.
func Graph(b []byte) (json.RawMessage, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	out := map[string]json.RawMessage{}
	for name := range members(reflect.TypeFor[graph]()) {
		if v, ok := all[name]; ok {
			out[name] = v
		}
	}
	return json.Marshal(out)
}

// read decodes a value, or says all that is wrong with its form: the rest would say
// things that follow from that.
func read(b []byte, into any) (all []Problem) {
	v, err := decode(b)
	if err != nil {
		return []Problem{{Msg: err.Error()}}
	}
	if _, object := v.(map[string]any); !object {
		return []Problem{{Msg: "must be an object"}}
	}
	shape(v, reflect.TypeOf(into), func(p Problem) { all = append(all, p) })
	if len(all) > 0 {
		return all
	}
	if err := fill(b, into); err != nil {
		return []Problem{{Msg: "cannot be read"}}
	}
	return nil
}

// order notes which step of the sequence comes before which.
func (w *Workflow) order() {
	w.after = make(map[string]string, len(w.Sequence))
	for i, key := range w.Sequence {
		if _, twice := w.after[key]; i > 0 && !twice {
			w.after[key] = w.Sequence[i-1]
		}
	}
}

func sorted[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

var pointer = strings.NewReplacer("~", "~0", "/", "~1")

// at is a JSON pointer.
func at(path ...any) string {
	var b strings.Builder
	for _, p := range path {
		b.WriteByte('/')
		b.WriteString(pointer.Replace(fmt.Sprint(p)))
	}
	return b.String()
}

// Before are the steps a step waits for, each once: those it names, then the one
// before it in the sequence.
func (w Workflow) Before(key string) []Edge {
	out := slices.Clone(w.Steps[key].DependsOn)
	if last, ok := w.after[key]; ok && !slices.ContainsFunc(out, func(e Edge) bool { return e.Key == last }) {
		out = append(out, Edge{Key: last})
	}
	return out
}

// Task is a step as a task of a run.
func (w Workflow) Task(run writ.RunID, key string) client.TaskOptions {
	t := w.Steps[key].TaskOptions
	t.Run, t.Key = run, key
	for _, e := range w.Before(key) {
		t.DependsOn = append(t.DependsOn, client.Dependency(e))
	}
	return t
}

// Call is what makes a step a task of a run.
func (w Workflow) Call(run writ.RunID, key string) (writ.CapabilityID, any) {
	t := w.Task(run, key)
	input := w.Steps[key].RouteInput
	if input == "" {
		return "task.enqueue", t
	}
	return "agent.delegate", map[string]any{"run_id": run, "input": input, "task": routed{
		Key: key, Summary: t.Summary, Capability: t.Capability, Args: t.Args, Labels: t.Labels, Verify: t.Verify, WriteScopes: t.WriteScopes,
		Priority: t.Priority, MaxAttempts: t.MaxAttempts, DeadlineS: t.DeadlineS, DependsOn: t.DependsOn, Join: t.Join,
	}}
}

// routed is a task whose agent is found by words.
type routed struct {
	Key         string               `json:"key"`
	Summary     string               `json:"summary,omitempty"`
	Capability  writ.CapabilityID    `json:"capability"`
	Args        any                  `json:"args,omitempty"`
	Labels      []writ.Label         `json:"labels,omitempty"`
	Verify      *client.Verification `json:"verify,omitempty"`
	WriteScopes []string             `json:"write_scopes,omitempty"`
	Priority    *int64               `json:"priority,omitempty"`
	MaxAttempts *int64               `json:"max_attempts,omitempty"`
	DeadlineS   *int64               `json:"deadline_s,omitempty"`
	DependsOn   []client.Dependency  `json:"depends_on,omitempty"`
	Join        writ.Join            `json:"join,omitempty"`
}

// Levels are the steps in an order in which each comes after all it waits for:
// those of one level can run at the same time. Steps of a circle, and those after
// one, are in none.
func (w Workflow) Levels() [][]string {
	waits, next := map[string]int{}, map[string][]string{}
	for key := range w.Steps {
		for _, e := range w.Before(key) {
			if _, known := w.Steps[e.Key]; known {
				waits[key]++
				next[e.Key] = append(next[e.Key], key)
			}
		}
	}
	var ready []string
	for key := range w.Steps {
		if waits[key] == 0 {
			ready = append(ready, key)
		}
	}
	var out [][]string
	for len(ready) > 0 {
		slices.Sort(ready)
		out = append(out, ready)
		var then []string
		for _, key := range ready {
			for _, n := range next[key] {
				if waits[n]--; waits[n] == 0 {
					then = append(then, n)
				}
			}
		}
		ready = then
	}
	return out
}
