package policies

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/writ-gateway/writ"
)

// asTerm keeps results as OPA's values: converting them to JSON and back costs
// more than the evaluation of a small pack.
func asTerm(t *ast.Term, _ *rego.EvalContext) (any, error) { return t, nil }

// eval runs the route's packs and returns their findings, strongest first. It
// gives up after the timeout.
func (r *route) eval(ctx context.Context, input ast.Value, timeout time.Duration) ([]writ.Finding, error) {
	cancel := topdown.NewCancel()
	timer := time.AfterFunc(timeout, cancel.Cancel)
	defer timer.Stop()
	results, err := r.query.Eval(ctx,
		rego.EvalParsedInput(input),
		rego.EvalMetrics(metrics.NoOp()),
		rego.EvalExternalCancel(cancel), // without it every Eval starts a goroutine
		rego.EvalGenerateJSON(asTerm),
	)
	if err != nil {
		return nil, err
	}
	if len(results) != 1 {
		return nil, errNoAnswer
	}
	x, _ := results[0].Bindings["x"].(*ast.Term)
	return r.merge(x)
}

// merge turns the array of findings sets, one per pack of the route in order,
// into one sorted list. Whatever is not exactly as the packs declared it is an
// error.
func (r *route) merge(x *ast.Term) ([]writ.Finding, error) {
	if x == nil {
		return nil, errNoAnswer
	}
	sets, ok := x.Value.(*ast.Array)
	if !ok || sets.Len() != len(r.packs) {
		return nil, errNoAnswer
	}
	var out []writ.Finding
	for i, p := range r.packs {
		set, ok := sets.Elem(i).Value.(ast.Set)
		if !ok {
			return nil, fmt.Errorf("pack %s: findings is not a set", p.ID)
		}
		if set.Len() == 0 {
			continue
		}
		for _, t := range set.Slice() {
			f, err := p.finding(t)
			if err != nil {
				return nil, err
			}
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b writ.Finding) int {
		if d := b.Effect.Rank() - a.Effect.Rank(); d != 0 {
			return d
		}
		if d := strings.Compare(a.Pack, b.Pack); d != 0 {
			return d
		}
		return strings.Compare(a.Rule, b.Rule)
	})
	return out, nil
}

var errMalformed = errors.New("a finding is not what the pack declares")

// finding reads one element of a findings set and holds it against the rule it
// names. An effect or an obligation the host cannot carry out becomes a denial
// with code policy_denied.
func (p *pack) finding(t *ast.Term) (writ.Finding, error) {
	object, ok := t.Value.(ast.Object)
	if !ok {
		return writ.Finding{}, fmt.Errorf("pack %s: %w", p.ID, errMalformed)
	}
	text := func(key *ast.Term) string {
		if v := object.Get(key); v != nil {
			s, _ := v.Value.(ast.String)
			return string(s)
		}
		return ""
	}
	declared := p.rules[text(keyRule)]
	if declared == nil {
		return writ.Finding{}, fmt.Errorf("pack %s: %w", p.ID, errMalformed)
	}
	f := declared.finding
	if text(keyEffect) != string(f.Effect) || text(keyCode) != f.Code || text(keyMessage) != f.Message {
		return writ.Finding{}, fmt.Errorf("rule %s: %w", f.Rule, errMalformed)
	}
	var known bool
	if f.Obligations, f.Needs, f.Duties, known = obligations(f.Rule, f.Effect, object.Get(keyObligations)); !known {
		f.Effect, f.Code, f.Needs, f.Duties = writ.EffectDeny, string(writ.CodePolicy), nil, writ.Duties{}
	}
	return f, nil
}

var (
	keyRule        = ast.StringTerm("rule")
	keyEffect      = ast.StringTerm("effect")
	keyCode        = ast.StringTerm("code")
	keyMessage     = ast.StringTerm("message")
	keyObligations = ast.StringTerm("obligations")
)
