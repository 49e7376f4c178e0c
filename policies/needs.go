package policies

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// Obligations the host can carry out. Every finding that requires approval
// carries approval; notify says who should hear of a call that is allowed.
const (
	obligationApproval = "approval"
	obligationNotify   = "notify"
)

// obligations reads what a finding asks the host to do. ok is false for
// anything the host does not know or that has no place with the effect: such a
// finding denies.
func obligations(rule string, effect writ.Effect, v *ast.Term) (obligations []writ.Obligation, needs []writ.Need, ok bool) {
	if v == nil {
		return nil, nil, effect == writ.EffectAllow || effect == writ.EffectDeny
	}
	raw, err := ast.JSON(v.Value)
	if err != nil {
		return nil, nil, false
	}
	b, err := json.Marshal(raw)
	if err != nil || json.Unmarshal(b, &obligations) != nil {
		return nil, nil, false
	}
	switch effect {
	case writ.EffectDeny:
		return nil, nil, true // a denial owes nothing
	case writ.EffectAllow:
		others := func(o writ.Obligation) bool { return o.Type != obligationNotify }
		return obligations, nil, !slices.ContainsFunc(obligations, others)
	case writ.EffectRequireApproval:
	default:
		return nil, nil, false
	}
	for _, o := range obligations {
		if o.Type != obligationApproval {
			return nil, nil, false
		}
		n, ok := need(rule, o.Args)
		if !ok {
			return nil, nil, false
		}
		needs = append(needs, n)
	}
	return obligations, needs, len(needs) == 1 // a rule asks once; two rules may ask for two things
}

// needs are what a rule asks for, as its text and data.yaml have it; none for a
// rule that does not ask, or whose obligations deny.
func (p *pack) needs(r *rule) []writ.Need {
	if r.obligations == nil {
		return nil
	}
	v, err := ast.TransformRefs(r.obligations.Copy(), func(ref ast.Ref) (ast.Value, error) {
		entry, _ := p.configured(ref) // loading has held it to what is there
		return ast.InterfaceToValue(entry)
	})
	if err != nil {
		return nil
	}
	value, known := v.(ast.Value)
	if !known {
		return nil
	}
	if _, asked, ok := obligations(r.finding.Rule, r.finding.Effect, ast.NewTerm(value)); ok {
		return asked
	}
	return nil
}

// need reads the arguments of an approval obligation: those of writ.Need. What
// is left out is the default; an unknown argument, and a word or a number out
// of bounds, is not repaired: the finding denies.
func need(rule string, args map[string]any) (writ.Need, bool) {
	n := writ.Need{
		Kind: writ.ApproveEffect, Scope: writ.ScopeCall, Approvers: 1,
		Roles: []writ.Role{writ.RoleApprover}, ExpiresS: writ.DefaultApprovalLife, MaxUses: 1,
	}
	b, err := json.Marshal(args)
	if err != nil {
		return n, false
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil || n.Rule != "" {
		return n, false
	}
	n.Rule = rule
	extends := n.Kind == writ.ApproveBudgetExtension
	within := func(v, lo, hi int64) bool { return v >= lo && v <= hi }
	return n, slices.Contains(writ.ApprovalKinds(), n.Kind) &&
		slices.Contains(writ.ApprovalScopes(), n.Scope) &&
		within(n.Approvers, 1, writ.MaxApprovers) &&
		within(n.ExpiresS, 60, writ.MaxApprovalSeconds) &&
		within(n.MaxUses, 1, writ.MaxApprovalUses) &&
		within(n.Remember, 0, writ.MaxApprovalUses) &&
		len(n.Roles) > 0 && !slices.ContainsFunc(n.Roles, func(r writ.Role) bool { return !slices.Contains(allRoles, r) }) &&
		(extends == (n.Dimension != "")) && (extends == (n.Add > 0)) && n.Add <= writ.MaxAmount &&
		(!extends || slices.Contains(writ.BudgetDimensions(), n.Dimension))
}
