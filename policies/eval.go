package policies

import (
	"cmp"
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

// deadline cancels evaluations after the timeout. stop frees it.
func deadline(timeout time.Duration) (cancel topdown.Cancel, stop func() bool) {
	cancel = topdown.NewCancel()
	return cancel, time.AfterFunc(timeout, cancel.Cancel).Stop
}

// eval runs the route's packs and returns their findings, strongest first. It
// gives up after the timeout.
func (r *route) eval(ctx context.Context, input ast.Value, timeout time.Duration) ([]writ.Finding, error) {
	cancel, stop := deadline(timeout)
	defer stop()
	found := make([][]writ.Finding, len(r.packs))
	if err := r.ask(ctx, input, cancel, found); err != nil {
		return nil, err
	}
	return strongest(found), nil
}

// ask runs the route's packs and fills in what each of them found, in order.
func (r *route) ask(ctx context.Context, input ast.Value, cancel topdown.Cancel, found [][]writ.Finding) error {
	results, err := r.query.Eval(ctx,
		rego.EvalParsedInput(input),
		rego.EvalMetrics(metrics.NoOp()),
		rego.EvalExternalCancel(cancel), // without it every Eval starts a goroutine
		rego.EvalGenerateJSON(asTerm),
	)
	if err != nil {
		return err
	}
	if len(results) != 1 {
		return errNoAnswer
	}
	x, _ := results[0].Bindings["x"].(*ast.Term)
	return r.read(x, found)
}

// read takes the array of findings sets apart, one per pack of the route in
// order. Whatever is not exactly as the packs declared it is an error.
func (r *route) read(x *ast.Term, found [][]writ.Finding) error {
	if x == nil {
		return errNoAnswer
	}
	sets, ok := x.Value.(*ast.Array)
	if !ok || sets.Len() != len(r.packs) {
		return errNoAnswer
	}
	for i, p := range r.packs {
		set, ok := sets.Elem(i).Value.(ast.Set)
		if !ok {
			return fmt.Errorf("pack %s: findings is not a set", p.ID)
		}
		if set.Len() == 0 {
			continue
		}
		out := make([]writ.Finding, 0, set.Len())
		for _, t := range set.Slice() {
			f, err := p.finding(t)
			if err != nil {
				return err
			}
			out = append(out, f)
		}
		slices.SortFunc(out, stronger)
		found[i] = out
	}
	return nil
}

// strongest joins what packs found. What comes from one pack alone is shared with
// whoever else holds it: its capacity is its length, and nobody changes it.
func strongest(found [][]writ.Finding) []writ.Finding {
	var out []writ.Finding
	for _, f := range found {
		switch {
		case len(f) == 0:
		case out == nil:
			out = slices.Clip(f)
		default:
			out = append(out, f...)
		}
	}
	if !slices.IsSortedFunc(out, stronger) { // then it is of several packs, and a copy
		slices.SortFunc(out, stronger)
	}
	return out
}

// stronger is the order of findings: by effect, strongest first, pack and rule.
func stronger(a, b writ.Finding) int {
	return cmp.Or(b.Effect.Rank()-a.Effect.Rank(), strings.Compare(a.Pack, b.Pack), strings.Compare(a.Rule, b.Rule))
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
