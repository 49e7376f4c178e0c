// Package workflow reads what is to be done in which order, and says everything
// that is wrong with it at once, before anything is done. It calls no gateway. That a step begins only when those before it have ended is not its
// business but the queue's.
package workflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// MaxSteps is how many steps a workflow may have.
const MaxSteps = 10_000

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
}

// Step is one task: what task.enqueue takes, but for the run and the key.
type Step struct {
	client.TaskOptions
	DependsOn []Edge `json:"depends_on,omitempty"`
}

// Edge is a step that must end before another one begins. A name alone will do.
type Edge client.Dependency

func (e *Edge) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &e.Key)
	}
	return strictly(b, (*client.Dependency)(e))
}

// Problem is one thing that is wrong, or, if it is only a warning, may be.
type Problem struct {
	Pointer string `json:"pointer"` // JSON pointer (RFC 6901) into the workflow
	Msg     string `json:"message"`
	Warning bool   `json:"warning,omitempty"`
}

// Errors says whether any of them is more than a warning.
func Errors(all []Problem) bool {
	return slices.ContainsFunc(all, func(p Problem) bool { return !p.Warning })
}

// Parse reads a workflow, JSON, and gives all that is wrong with it.
func Parse(b []byte) (Workflow, []Problem) {
	var w Workflow
	var raw struct {
		Workflow
		Steps map[string]json.RawMessage `json:"steps"`
	}
	if err := strictly(b, &raw); err != nil {
		return w, []Problem{{Pointer: "", Msg: reason(err)}}
	}
	w = raw.Workflow
	w.Steps = make(map[string]Step, len(raw.Steps))
	var all []Problem
	for _, key := range sorted(raw.Steps) {
		var s Step
		if err := strictly(raw.Steps[key], &s); err != nil {
			all = append(all, Problem{Pointer: at("steps", key), Msg: reason(err)})
		}
		w.Steps[key] = s
	}
	if len(all) > 0 { // the rest would say things that follow from it
		return w, all
	}
	return w, w.check()
}

// strictly decodes one value with no unknown members and nothing after it.
func strictly(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("more than one value")
	}
	return nil
}

// reason is what a decoder says, in our words and without its own.
func reason(err error) string {
	msg := strings.TrimPrefix(err.Error(), "json: ")
	if what, ok := strings.CutPrefix(msg, "unknown field "); ok {
		return "there is no member " + what
	}
	if what, ok := strings.CutPrefix(msg, "cannot unmarshal "); ok {
		return "has another form: " + what
	}
	return msg
}

func sorted[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// at is a JSON pointer.
func at(path ...any) string {
	var b strings.Builder
	for _, p := range path {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(fmt.Sprint(p)))
	}
	return b.String()
}

// Before are the steps a step waits for, each once: those it names, then the one
// before it in the sequence.
func (w Workflow) Before(key string) []Edge {
	out := slices.Clone(w.Steps[key].DependsOn)
	if i := slices.Index(w.Sequence, key); i > 0 {
		if last := w.Sequence[i-1]; !slices.ContainsFunc(out, func(e Edge) bool { return e.Key == last }) {
			out = append(out, Edge{Key: last})
		}
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
