package main

import (
	"encoding/json"
	"reflect"
	"slices"

	"github.com/writ-gateway/writ"
)

// duty is an obligation of a rule that held.
type duty struct {
	Rule string         `json:"rule"`
	Type string         `json:"type"`
	Args map[string]any `json:"args"`
}

// dutiesOf lists what findings oblige to. They are read as the gateway hands out
// those of the past, so that the same obligation is equal.
func dutiesOf(found []writ.Finding) (out []duty) {
	for _, f := range found {
		for _, o := range f.Obligations {
			d := duty{f.Rule, o.Type, nil}
			if text, err := json.Marshal(o.Args); err == nil {
				_ = json.Unmarshal(text, &d.Args) // an object, since it was one
			}
			out = append(out, d)
		}
	}
	return out
}

// compareDuties says whether other things must be done now than were, and whether
// less: an obligation is gone or weaker. What cannot be compared counts as weaker:
// a person looks.
func compareDuties(was, now []duty) (less, other bool) {
	for _, w := range was {
		i := slices.IndexFunc(now, func(n duty) bool { return n.Rule == w.Rule && n.Type == w.Type && equalArgs(n.Args, w.Args) })
		if i >= 0 {
			continue
		}
		other = true
		i = slices.IndexFunc(now, func(n duty) bool { return n.Rule == w.Rule && n.Type == w.Type })
		less = less || i < 0 || !atLeastAs(w, now[i])
	}
	for _, n := range now {
		other = other || !slices.ContainsFunc(was, func(w duty) bool { return w.Rule == n.Rule && w.Type == n.Type && equalArgs(w.Args, n.Args) })
	}
	return less, other
}

func equalArgs(a, b map[string]any) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

// atLeastAs says whether n asks for everything w asked for.
func atLeastAs(w, n duty) bool {
	number := func(d duty, name string, byDefault float64) float64 {
		if v, ok := d.Args[name].(float64); ok {
			return v
		}
		return byDefault
	}
	switch w.Type {
	case "approval":
		scopes := writ.ApprovalScopes()
		scope := func(d duty) int {
			s, _ := d.Args["scope"].(string)
			return max(0, slices.Index(scopes, writ.ApprovalScope(s)))
		}
		kind := func(d duty) any {
			if k, ok := d.Args["kind"]; ok {
				return k
			}
			return string(writ.ApproveEffect)
		}
		roles := func(d duty) []any {
			if r, ok := d.Args["roles"].([]any); ok {
				return r
			}
			return []any{string(writ.RoleApprover)}
		}
		return kind(n) == kind(w) && reflect.DeepEqual(n.Args["response_schema"], w.Args["response_schema"]) &&
			n.Args["dimension"] == w.Args["dimension"] && number(n, "add", 0) <= number(w, "add", 0) &&
			number(n, "approvers", 1) >= number(w, "approvers", 1) &&
			number(n, "expires_s", writ.DefaultApprovalLife) <= number(w, "expires_s", writ.DefaultApprovalLife) &&
			number(n, "max_uses", 1) <= number(w, "max_uses", 1) && number(n, "remember", 0) <= number(w, "remember", 0) &&
			scope(n) <= scope(w) && subset(roles(n), roles(w))
	case "redact":
		was, _ := w.Args["fields"].([]any)
		now, _ := n.Args["fields"].([]any)
		return subset(was, now)
	case "limit":
		return n.Args["argument"] == w.Args["argument"] && number(n, "max", 0) <= number(w, "max", 0)
	}
	return false
}

func subset(of, all []any) bool {
	return !slices.ContainsFunc(of, func(x any) bool { return !slices.Contains(all, x) })
}
