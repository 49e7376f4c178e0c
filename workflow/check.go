package workflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
)

var (
	gate    = regexp.MustCompile(`^[a-z][a-z0-9_.-]{0,63}$`)
	refName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
)

// maxArgs is how long the arguments of a step may be.
const maxArgs = 48 << 10

// length is how long a value is as the gateway stores it.
func length(v any) int {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // it came from JSON
	return b.Len() - 1
}

// check is everything a workflow says by itself.
func (w Workflow) check() []Problem {
	var all []Problem
	bad := func(msg string, path ...any) { all = append(all, Problem{Pointer: at(path...), Msg: msg}) }
	if w.Version != 1 {
		bad("must be 1", "version")
	}
	if w.ClosePolicy != "" && w.ClosePolicy != writ.CloseAuto && w.ClosePolicy != writ.CloseManual && w.ClosePolicy != writ.CloseVerifier {
		bad("must be auto, verifier or manual", "close_policy")
	}
	switch {
	case w.CloseQuorum < 0 || w.CloseQuorum > writ.MaxQuorum:
		bad("must be 1 to 5", "close_quorum")
	case w.CloseQuorum > 1 && w.ClosePolicy != writ.CloseVerifier:
		bad("means nothing unless close_policy is verifier", "close_quorum")
	}
	if len(w.Title) > 200 {
		bad("is longer than 200", "title")
	}
	if len(w.Goal) > 4000 {
		bad("is longer than 4000", "goal")
	}
	w.checkBudget(bad)
	if len(w.Steps) == 0 || len(w.Steps) > MaxSteps {
		bad(fmt.Sprintf("must be 1 to %d", MaxSteps), "steps")
		return all
	}
	keys := sorted(w.Steps)
	for _, key := range keys {
		w.checkStep(key, bad)
	}
	w.checkCeilings(bad)
	w.checkSequence(bad)
	w.checkOutputs(bad)
	if len(all) == 0 { // of a known shape
		w.checkCircles(bad)
	}
	return all
}

// named is the key of a step where one is said: what is no key is not repeated.
func named(key string) string {
	if writ.ValidSlug(key) {
		return key
	}
	return "it depends on"
}

func (w Workflow) checkBudget(bad func(string, ...any)) {
	known := writ.BudgetDimensions()
	for _, dim := range sorted(w.Budget) {
		switch {
		case !slices.Contains(known, dim):
			bad("is no dimension of a budget: "+strings.Join(known, ", "), "budget", dim)
		case w.Budget[dim] < 0:
			bad("must not be negative", "budget", dim)
		}
	}
	steps, stated := w.Budget[writ.BudgetSteps]
	least := int64(len(w.Steps)) * writ.StepsOfAttempt
	for _, s := range w.Steps {
		for _, p := range s.Produces {
			if p.Required { // putting it is a call of its own
				least++
			}
		}
	}
	switch {
	case !stated:
		bad("is required: how many calls may change something", "budget", writ.BudgetSteps)
	case steps < least:
		bad(fmt.Sprintf("is less than the workflow takes if nothing goes wrong, which is %d", least), "budget", writ.BudgetSteps)
	}
}

func (w Workflow) checkStep(key string, bad func(string, ...any)) {
	s := w.Steps[key]
	here := func(msg string, path ...any) { bad(msg, append([]any{"steps", key}, path...)...) }
	between := func(v *int64, lo, hi int64, name string) {
		if v != nil && (*v < lo || *v > hi) {
			here(fmt.Sprintf("must be %d to %d", lo, hi), name)
		}
	}
	if s.Run != "" {
		here("is not for a workflow to say: each submission makes a run", "run_id")
	}
	if s.Key != "" {
		here("is not for a step to say: it is the name it stands under", "key")
	}
	s = w.shortened(key, here)
	if s.Args != nil {
		if _, object := s.Args.(map[string]any); !object {
			here("must be an object", "args")
		}
	}
	if !writ.ValidSlug(key) {
		here("is no key: a slug of 2 to 63 small letters, digits and dashes")
	}
	if !s.Capability.Valid() {
		here("is required: the dotted name of what an agent must declare", "capability")
	}
	if s.RouteInput != "" {
		routedOnly(s, here)
	} else if !writ.ValidSlug(s.Domain) {
		here("is required: the domain an agent must have, a slug; or route_input, by which an agent is found", "required_domain")
	}
	if len(s.Summary) > 500 {
		here("is longer than 500", "summary")
	}
	if s.Concern != "" && !writ.ValidSlug(s.Concern) {
		here("is no slug", "concern")
	}
	if length(s.Args) > maxArgs {
		here(fmt.Sprintf("are longer than %d", maxArgs), "args")
	}
	for i, a := range s.Agents {
		if !a.Valid() {
			here("is no agent's id", "required_agents", i)
		}
	}
	for i, l := range s.Labels {
		if !slices.Contains(writ.Labels(), l) {
			here("is no label", "labels", i)
		}
	}
	for i, scope := range s.WriteScopes {
		if _, err := writ.CanonicalScope(scope); err != nil {
			here("is no canonical resource URI; "+writ.ScopeForm, "write_scopes", i)
		}
	}
	between(s.Priority, 0, 9, "priority")
	between(s.LeaseSeconds, 1, 600, "lease_ttl_s")
	between(s.MaxAttempts, 1, 20, "max_attempts")
	between(s.BackoffMs, 0, 600_000, "backoff_ms")
	between(s.DeadlineS, 1, 366*24*3600, "deadline_s")
	if s.NotBefore != "" {
		if _, err := time.Parse(time.RFC3339, s.NotBefore); err != nil {
			here("must be a time as in RFC 3339", "not_before")
		}
	}
	checkCeiling(s, here)
	w.checkArtifacts(key, here)
	if v := s.Verify; v != nil {
		for i, a := range v.Agents {
			if !a.Valid() {
				here("is no agent's id", "verify", "agents", i)
			}
		}
		for i, g := range v.Gates {
			if !gate.MatchString(g) {
				here("is no name of a check", "verify", "gates", i)
			}
		}
		if v.MaxRework != nil && (*v.MaxRework < 0 || *v.MaxRework > 20) {
			here("must be 0 to 20", "verify", "max_rework")
		}
		if n := v.Quorum; n != nil {
			agents := slices.Clone(v.Agents)
			slices.Sort(agents)
			switch agents = slices.Compact(agents); {
			case *n < 1 || *n > writ.MaxQuorum:
				here("must be 1 to 5", "verify", "quorum")
			case len(agents) > 0 && *n > int64(len(agents)):
				here("is more than the agents that may judge", "verify", "quorum")
			}
		}
	}
	if h := s.Handoff; h != nil {
		for i, r := range h.Refs {
			if !refName.MatchString(r.Name) {
				here("is no name: small letters, digits and underscores", "handoff", "refs", i, "name")
			}
			if r.Kind != "" && !r.Kind.Valid() {
				here("must be task, receipt, artifact, commit or file", "handoff", "refs", i, "kind")
			}
		}
	}
	seen := map[string]bool{}
	for i, e := range s.DependsOn {
		_, known := w.Steps[e.Key]
		switch {
		case e.Key == key:
			here("is the step itself", "depends_on", i)
		case !known:
			here("names no step", "depends_on", i)
		case seen[e.Key]:
			here("is named twice", "depends_on", i)
		}
		seen[e.Key] = true
		switch e.OnFailure {
		case "", writ.DependencyFail, writ.DependencySkip, writ.DependencyContinue:
		default:
			here("must be fail, skip or continue", "depends_on", i, "on_failure")
		}
		switch {
		case e.When != "" && e.When != writ.EndDone && e.When != writ.EndGiven && e.When != writ.EndFailed:
			here("must be done, given or failed", "depends_on", i, "when")
		case e.When == writ.EndFailed && e.OnFailure != "":
			here("means nothing for a step that waits for a failure", "depends_on", i, "on_failure")
		}
	}
	switch s.Join {
	case "", writ.JoinAll, writ.JoinManual:
	case writ.JoinAny, writ.JoinFirst:
		if len(s.DependsOn) == 0 {
			here("needs something to choose from", "join")
		}
	default:
		here("must be all_of, any_of, first_success or manual", "join")
	}
}

// checkCeiling: what a step may take of its own.
func checkCeiling(s Step, here func(string, ...any)) {
	known := 0
	for _, dim := range writ.TaskBudgetDimensions() {
		n, limits := s.Budget[dim]
		if limits {
			known++
		}
		if n < 0 || n > writ.MaxAmount {
			here(fmt.Sprintf("must be 0 to %d", int64(writ.MaxAmount)), "budget", dim)
		}
	}
	if len(s.Budget) > known {
		here("has nothing but "+strings.Join(writ.TaskBudgetDimensions(), ", "), "budget")
	}
}

// checkCeilings: what the steps may take of their own, all together, is a part of what the
// run may, so that none finds taken what it was promised.
func (w Workflow) checkCeilings(bad func(string, ...any)) {
	for _, dim := range writ.TaskBudgetDimensions() {
		all := int64(0)
		for _, s := range w.Steps {
			all += max(0, min(s.Budget[dim], writ.MaxAmount)) // MaxSteps of these fit
		}
		if most, stated := w.Budget[dim]; stated && all > most {
			bad(fmt.Sprintf("is less than the steps may take together, which is %d", all), "budget", dim)
		}
	}
}

// routedOnly says what a step cannot have whose agent is found by words.
func routedOnly(s Step, here func(string, ...any)) {
	if len(s.RouteInput) > 512 || strings.TrimSpace(s.RouteInput) == "" {
		here("must be words, at most 512 letters", "route_input")
	}
	others := map[string]bool{
		"required_domain": s.Domain != "", "required_agents": len(s.Agents) > 0, "concern": s.Concern != "", "produces": len(s.Produces) > 0, "consumes": len(s.Consumes) > 0,
		"handoff": s.Handoff != nil, "budget": len(s.Budget) > 0, "lease_ttl_s": s.LeaseSeconds != nil, "backoff_ms": s.BackoffMs != nil, "not_before": s.NotBefore != "",
	}
	for _, name := range sorted(others) {
		if others[name] {
			here("is not for a step with route_input", name)
		}
	}
}

// checkSequence: a sequence names every step once.
func (w Workflow) checkSequence(bad func(string, ...any)) {
	if len(w.Sequence) == 0 {
		return
	}
	seen := map[string]bool{}
	for _, key := range sorted(w.Steps) {
		if w.Steps[key].Join.Any() {
			bad("has no place in a sequence, in which each step waits for the one before", "steps", key, "join")
		}
	}
	for i, key := range w.Sequence {
		switch _, known := w.Steps[key]; {
		case !known:
			bad("names no step", "sequence", i)
		case seen[key]:
			bad("is named twice", "sequence", i)
		}
		seen[key] = true
	}
	for _, key := range sorted(w.Steps) {
		if !seen[key] {
			bad("does not name the step "+named(key), "sequence")
		}
	}
}

// checkCircles names one circle, step by step; with that mended another may show.
func (w Workflow) checkCircles(bad func(string, ...any)) {
	left := map[string]bool{}
	for key := range w.Steps {
		left[key] = true
	}
	for _, level := range w.Levels() {
		for _, key := range level {
			delete(left, key)
		}
	}
	if len(left) == 0 {
		return
	}
	// Everything left waits for something left: going that way comes round.
	key := sorted(left)[0]
	at := map[string]int{}
	var path []string
	for {
		if i, been := at[key]; been {
			circle := path[i:]
			bad("waits for itself: "+strings.Join(append(slices.Clone(circle), circle[0]), " → "), "steps", circle[0], "depends_on")
			return
		}
		at[key] = len(path)
		path = append(path, key)
		for _, e := range w.Before(key) {
			if left[e.Key] {
				key = e.Key
				break
			}
		}
	}
}

// mostCompared bounds how many pairs of steps are looked at for overlaps.
const mostCompared = 1000

// overlaps warns of steps that may run at the same time and write to the same
// place: one will wait for the other, in an order nobody has said.
func (w Workflow) overlaps() (all []Problem) {
	var writers []string
	for _, level := range w.Levels() {
		for _, key := range level {
			if len(w.Steps[key].WriteScopes) > 0 {
				writers = append(writers, key)
			}
		}
	}
	if len(writers) > mostCompared {
		return nil
	}
	before := w.ancestors(writers)
	for i, a := range writers {
		for k, b := range writers[i+1:] {
			if before[b].has(i) || before[a].has(i+1+k) {
				continue
			}
			if j, ok := overlap(w.Steps[a].WriteScopes, w.Steps[b].WriteScopes); ok {
				all = append(all, Problem{
					Pointer: at("steps", b, "write_scopes", j), Warning: true,
					Msg: "overlaps a scope of " + a + ", which may run at the same time; one of them will wait",
				})
			}
		}
	}
	return all
}

// bits is a set of small numbers.
type bits []uint64

func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }

// ancestors says, for every step, which of some steps it comes after, by their
// place.
func (w Workflow) ancestors(of []string) map[string]bits {
	place := map[string]int{}
	for i, key := range of {
		place[key] = i
	}
	all := make(map[string]bits, len(w.Steps))
	for _, level := range w.Levels() {
		for _, key := range level {
			mine := make(bits, len(of)/64+1)
			for _, e := range w.Before(key) {
				if i, ok := place[e.Key]; ok {
					mine[i/64] |= 1 << (i % 64)
				}
				for i, word := range all[e.Key] {
					mine[i] |= word
				}
			}
			all[key] = mine
		}
	}
	return all
}

func overlap(a, b []string) (int, bool) {
	for j, y := range b {
		cy, err := writ.CanonicalScope(y)
		if err != nil {
			continue
		}
		for _, x := range a {
			if cx, err := writ.CanonicalScope(x); err == nil && writ.ScopesOverlap(cx, cy) {
				return j, true
			}
		}
	}
	return 0, false
}

// shortened is a step with no list longer than it may be: what is too long is said
// once, and the rest of it not walked.
func (w Workflow) shortened(key string, here func(string, ...any)) Step {
	s := w.Steps[key]
	s.Agents = atMost(s.Agents, 8, here, "required_agents")
	s.Labels = atMost(s.Labels, 9, here, "labels")
	s.WriteScopes = atMost(s.WriteScopes, 16, here, "write_scopes")
	s.Consumes = atMost(s.Consumes, writ.MaxArtifacts, here, "consumes")
	s.Produces = slices.Clone(atMost(s.Produces, writ.MaxArtifacts, here, "produces"))
	for i, p := range s.Produces {
		s.Produces[i].Labels = atMost(p.Labels, 9, here, "produces", i, "labels")
	}
	if s.Verify != nil {
		v := *s.Verify
		v.Agents, v.Gates = atMost(v.Agents, 8, here, "verify", "agents"), atMost(v.Gates, 16, here, "verify", "gates")
		s.Verify = &v
	}
	if s.Handoff != nil {
		h := *s.Handoff
		h.Refs = atMost(h.Refs, 8, here, "handoff", "refs")
		s.Handoff = &h
	}
	s.DependsOn = atMost(s.DependsOn, writ.MaxDependencies, here, "depends_on")
	w.Steps[key] = s
	if len(w.Before(key)) > writ.MaxDependencies {
		here(fmt.Sprintf("are more than %d", writ.MaxDependencies), "depends_on")
	}
	return s
}

func atMost[T any](list []T, most int, here func(string, ...any), path ...any) []T {
	if len(list) > most {
		here(fmt.Sprintf("are more than %d", most), path...)
		list = list[:most]
	}
	return list
}
