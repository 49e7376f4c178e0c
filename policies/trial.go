package policies

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/writ-gateway/writ"
)

// Trial is some packs of a draft, prepared to judge inputs as the engine would.
type Trial struct{ route *route }

// Trial prepares packs, which must be sorted by id, with their data or with
// none at all. It fails when the draft does not compile or lacks a pack.
func (d *Draft) Trial(ctx context.Context, ids []string, withData bool) (*Trial, error) {
	if d.compiler == nil {
		return nil, errors.New("the packs do not compile; run writ policy check")
	}
	r, mounted, refs := &route{}, map[string]*pack{}, []string(nil)
	for _, id := range ids {
		p := d.packs[id]
		if p == nil {
			return nil, fmt.Errorf("there is no pack %s", id)
		}
		r.packs = append(r.packs, p)
		r.refs = append(r.refs, writ.PackRef{ID: p.ID, Digest: p.digest})
		refs = append(refs, "data.packs."+id+".findings")
		if withData {
			mounted[id] = p
		}
	}
	store := inmem.NewFromObjectWithOpts(data(mounted), inmem.OptReturnASTValuesOnRead(true))
	var err error
	r.query, err = rego.New(
		rego.Query("x := ["+strings.Join(refs, ", ")+"]"), rego.Compiler(d.compiler), rego.Store(store), rego.StrictBuiltinErrors(true),
	).PrepareForEval(ctx)
	return &Trial{r}, err
}

// Decide is the decision of the packs on an input; an error is one that would
// refuse the call with code policy_unavailable.
func (t *Trial) Decide(ctx context.Context, input ast.Value, timeout time.Duration) (writ.Decision, error) {
	out := writ.Decision{Effect: writ.EffectDeny, Packs: t.route.refs}
	found, err := t.route.eval(ctx, input, timeout)
	if err != nil {
		return out, err
	}
	conclude(&out, found)
	return out, nil
}

// Said is what the packs say, strongest first, before a host makes anything of
// it: with the effects it cannot carry out and with all obligations. An error
// is one of Decide.
func (t *Trial) Said(ctx context.Context, input ast.Value, timeout time.Duration) ([]writ.Finding, error) {
	if _, err := t.route.eval(ctx, input, timeout); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	results, err := t.route.query.Eval(ctx, rego.EvalParsedInput(input))
	if err != nil {
		return nil, err
	}
	if len(results) != 1 {
		return nil, errNoAnswer
	}
	b, err := json.Marshal(results[0].Bindings["x"])
	if err != nil {
		return nil, err
	}
	var sets [][]writ.Finding
	if err := json.Unmarshal(b, &sets); err != nil || len(sets) != len(t.route.packs) {
		return nil, errors.Join(errMalformed, err)
	}
	out := []writ.Finding{}
	for i, p := range t.route.packs {
		for _, f := range sets[i] {
			f.Pack = p.ID
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b writ.Finding) int {
		return cmp.Or(b.Effect.Rank()-a.Effect.Rank(), strings.Compare(a.Pack, b.Pack), strings.Compare(a.Rule, b.Rule))
	})
	return out, nil
}
