package policies

import (
	"reflect"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// needArgs are the names of what an approval obligation may say: writ.Need's, but
// for the rule, which is the finding's.
var needArgs = func() (names []string) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[writ.Need]()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "rule" {
			names = append(names, name)
		}
	}
	return names
}()

// need reads the arguments of an approval obligation: those of writ.Need. What
// is left out is the default; an unknown argument, and a word or a number out
// of bounds, is not repaired: the finding denies.
func need(rule string, args map[string]any) (writ.Need, bool) {
	n := writ.Need{
		Kind: writ.ApproveEffect, Scope: writ.ScopeCall, Approvers: 1,
		Roles: []writ.Role{writ.RoleApprover}, ExpiresS: writ.DefaultApprovalLife, MaxUses: 1,
	}
	for name, v := range args { // Go's decoder takes names that differ in case, and leaves out what is null
		if v == nil || !slices.Contains(needArgs, name) {
			return n, false
		}
	}
	if err := decode(args, &n); err != nil {
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
