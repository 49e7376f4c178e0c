package roles

import (
	"cmp"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// Where a binding comes from.
const (
	sourceFile       = "file"
	sourceCapability = "capability"
)

// BindingView is one binding, or one that was taken away.
type BindingView struct {
	Role      writ.Role        `json:"role" doc:"The role."`
	Principal writ.PrincipalID `json:"principal" doc:"Who is bound; * is everybody who has a session."`
	State     string           `json:"state" doc:"removed: a capability took it away from what the file or everybody's binding says." enum:"bound,removed"`
	Source    string           `json:"source" doc:"Where it is said." enum:"file,capability"`
	Row       string           `json:"row,omitempty" doc:"The row of the roles' file in force that binds it."`
	By        writ.PrincipalID `json:"by,omitempty" doc:"Who said it by capability."`
	At        string           `json:"at,omitempty" doc:"When (RFC 3339, UTC)."`
	Receipt   writ.ReceiptID   `json:"receipt,omitempty" doc:"Receipt of the change."`
}

// view shows what is said of a principal, or of everybody, by name.
func (st standing) view(b writ.Bind) BindingView {
	v := BindingView{Role: b.Role, Principal: b.Principal, State: "bound", Source: sourceFile, Row: st.rows[b].String()}
	if x, ok := st.said[b]; ok {
		v.Source, v.By, v.At, v.Receipt = sourceCapability, x.By, writ.FormatTime(x.At), x.Receipt
		if x.Removed {
			v.State = "removed"
		}
	}
	return v
}

// all lists everything that is said, by role and principal.
func (st standing) all() []writ.Bind {
	var out []writ.Bind
	for b := range st.set {
		out = append(out, b)
	}
	for b := range st.over {
		if !st.set[b] {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, compare)
	return out
}

func compare(a, b writ.Bind) int {
	return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Principal, b.Principal))
}

// RoleListArgs say which bindings.
type RoleListArgs struct {
	Principal writ.PrincipalID `json:"principal,omitempty" doc:"Only bindings of this principal, and everybody's, which hold for it too." pattern:"^([a-z][a-z0-9-]{1,62}|\\*)$"`
	Role      writ.Role        `json:"role,omitempty" doc:"Only bindings to this role." enum:"operator,orchestrator,executor,verifier,approver,auditor,connector"`
	After     string           `json:"after,omitempty" doc:"Value of next of the last page." pattern:"^[a-z]{1,20}/([a-z][a-z0-9-]{1,62}|\\*)$"`
	Limit     int64            `json:"limit,omitempty" doc:"Bindings per page." default:"100" minimum:"1" maximum:"500"`
}

// RoleList is a page of bindings.
type RoleList struct {
	Bindings []BindingView `json:"bindings" doc:"By role and principal. What is said of a principal by name goes before what is said of everybody."`
	Next     string        `json:"next,omitempty" doc:"Value of after for the next page; absent on the last one."`
}

func (r Room) list() *writ.Capability {
	const op = "roles.List"
	return writ.Define[RoleListArgs, RoleList](writ.Capability{
		ID: "role.list", Safety: writ.SafetyReadOnly,
		Example: `{"role":"approver"}`,
		Summary: "List who is bound to which role, and where that is said: all to operators, auditors and approvers, their own to others.",
	}, writ.Verb[RoleListArgs]{
		Reads: func(*writ.Call, *RoleListArgs, writ.Snapshot) (writ.ReadSet, error) { return reads() },
		Plan: func(c *writ.Call, a *RoleListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			st, err := r.load(op, c, s)
			if err != nil {
				return tx, reply, err
			}
			limit := 100
			if a.Limit > 0 {
				limit = int(min(a.Limit, 500))
			}
			role, principal, _ := strings.Cut(a.After, "/")
			last := writ.Bind{Principal: writ.PrincipalID(principal), Role: writ.Role(role)}
			out := RoleList{Bindings: []BindingView{}}
			for _, b := range st.all() {
				switch {
				case a.After != "" && compare(b, last) <= 0,
					a.Role != "" && b.Role != a.Role,
					a.Principal != "" && b.Principal != a.Principal && b.Principal != writ.Everybody,
					!maySee(c.Caller, b.Principal):
					continue
				}
				if len(out.Bindings) == limit {
					end := out.Bindings[limit-1]
					out.Next = string(end.Role) + "/" + string(end.Principal)
					break
				}
				out.Bindings = append(out.Bindings, st.view(b))
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
