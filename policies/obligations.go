package policies

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// Obligations the host can carry out.
const (
	obligationApproval   = "approval"   // people agree first
	obligationNotify     = "notify"     // somebody hears of it
	obligationRedact     = "redact"     // the reply does not show it
	obligationLimit      = "limit"      // an argument is at most so much
	obligationDurability = "durability" // the reply means so much
	obligationCosign     = "cosign"     // the caller's own key signs the call
	obligationJail       = "jail"       // the caller runs in a jail, of a tier at least

	obligationVerdict = "sign_verdict" // a verdict counts only signed with the verifier's own key
)

// requireLoggedParent, of durability, is that what the call builds on is in the log.
const requireLoggedParent = "logged_parent"

// obligations reads what a finding asks the host to do. ok is false for
// anything the host does not know, whose arguments are wrong, or that has no
// place with the effect: such a finding denies.
func obligations(rule string, effect writ.Effect, v *ast.Term) (list []writ.Obligation, needs []writ.Need, duties writ.Duties, ok bool) {
	fail := func() ([]writ.Obligation, []writ.Need, writ.Duties, bool) { return nil, nil, writ.Duties{}, false }
	if v != nil {
		raw, err := ast.JSON(v.Value)
		if err != nil || decode(raw, &list) != nil {
			return fail()
		}
	}
	if effect == writ.EffectDeny {
		return nil, nil, writ.Duties{}, true // a denial owes nothing
	}
	for _, o := range list {
		if o.Type == obligationApproval {
			n, ok := need(rule, o.Args)
			if !ok {
				return fail()
			}
			needs = append(needs, n)
			continue
		}
		d, ok := duty(rule, o)
		if !ok {
			return fail()
		}
		duties.Join(d)
	}
	asks, hides := len(needs), len(duties.Redact) > 0
	switch effect {
	case writ.EffectAllow:
		ok = asks == 0 && !hides
	case writ.EffectRedact:
		ok = asks == 0 && hides
	case writ.EffectRequireApproval:
		ok = asks == 1 // a rule asks once; two rules may ask for two things
	}
	if !ok {
		return fail()
	}
	return list, needs, duties, true
}

// duty reads one obligation that is the host's own to carry out. An argument
// that is unknown, missing or out of bounds is not repaired.
func duty(rule string, o writ.Obligation) (d writ.Duties, ok bool) {
	switch o.Type {
	case obligationNotify: // whom, is the pack's to say
		return writ.Duties{Notify: []string{rule}}, true
	case obligationRedact:
		var args struct {
			Fields []string `json:"fields"`
		}
		if !only(o.Args, "fields") || decode(o.Args, &args) != nil || len(args.Fields) == 0 || len(args.Fields) > writ.MaxPointers {
			return d, false
		}
		for _, text := range args.Fields {
			p, ok := writ.ParsePointer(text)
			if !ok {
				return d, false
			}
			d.Redact = append(d.Redact, p)
		}
		return d, true
	case obligationCosign:
		return writ.Duties{Cosign: true}, only(o.Args)
	case obligationVerdict:
		return writ.Duties{SignVerdict: true}, only(o.Args)
	case obligationJail:
		var args struct {
			Tier writ.JailTier `json:"tier"`
		}
		if !only(o.Args, "tier") || decode(o.Args, &args) != nil || !slices.Contains(writ.JailTiers(), args.Tier) {
			return d, false
		}
		return writ.Duties{Jail: args.Tier}, true
	case obligationLimit:
		var l writ.Limit
		if !only(o.Args, "argument", "max") || decode(o.Args, &l) != nil || !argumentName.MatchString(l.Argument) || l.Max < 0 || l.Max > 1<<53-1 {
			return d, false
		}
		return writ.Duties{Limits: []writ.Limit{l}}, true
	case obligationDurability:
		var args struct {
			Level   writ.Durability `json:"level"`
			Require string          `json:"require"`
		}
		names := []string{"level"}
		if _, ok := o.Args["require"]; ok {
			names = append(names, "require")
		}
		if !only(o.Args, names...) || decode(o.Args, &args) != nil || !slices.Contains(writ.Durabilities(), args.Level) || len(names) > 1 && args.Require != requireLoggedParent {
			return d, false
		}
		return writ.Duties{Durability: args.Level, BuiltOnLogged: len(names) > 1}, true
	}
	return d, false
}

var argumentName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// only says whether exactly these arguments are there: Go's decoder takes names
// that differ in case, and leaves out what is null.
func only(args map[string]any, names ...string) bool {
	for name, v := range args {
		if v == nil || !slices.Contains(names, name) {
			return false
		}
	}
	return len(args) == len(names)
}

// decode turns plain values into a struct that knows all their members.
func decode(from, into any) error {
	b, err := json.Marshal(from)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
