package roles

import "github.com/writ-gateway/writ"

// RolePermissionsArgs name who is asked about.
type RolePermissionsArgs struct {
	Principal writ.PrincipalID `json:"principal,omitempty" doc:"Who is asked about; the caller when left out. Operators, auditors and approvers may ask about anybody." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Role      writ.Role        `json:"role,omitempty" doc:"Only this role: what it may invoke is told whether the principal is bound to it or not." enum:"operator,orchestrator,executor,verifier,approver,auditor,connector"`
}

// RolePermissions is what a principal may do at all; what policies say of a call
// comes after.
type RolePermissions struct {
	Principal    writ.PrincipalID     `json:"principal" doc:"Who was asked about."`
	Revision     string               `json:"bindings_revision" doc:"Bindings revision that says so."`
	Roles        []RoleStanding       `json:"roles" doc:"Every role, or the one asked for, and whether the principal is bound to it."`
	Capabilities []CapabilityStanding `json:"capabilities" doc:"What it may invoke, per role it is bound to, or of the role asked for."`
}

// RoleStanding says whether a principal is bound to a role, and why.
type RoleStanding struct {
	Role  writ.Role `json:"role" doc:"The role."`
	Bound bool      `json:"bound" doc:"Whether the principal may act in it."`
	Why   string    `json:"why" doc:"Which binding decides."`
	Row   string    `json:"row,omitempty" doc:"The row of the roles' file in force that binds it."`
	By    string    `json:"by,omitempty" doc:"Who said it by capability."`
	At    string    `json:"at,omitempty" doc:"When (RFC 3339, UTC)."`

	Receipt writ.ReceiptID `json:"receipt,omitempty" doc:"Receipt of the change."`
}

// CapabilityStanding says whether a role may invoke a capability, and which rows
// say so.
type CapabilityStanding struct {
	Role       writ.Role         `json:"role" doc:"The role."`
	Capability writ.CapabilityID `json:"capability" doc:"The capability."`
	Allowed    bool              `json:"allowed" doc:"Whether the role may invoke it."`
	Row        string            `json:"row,omitempty" doc:"The row of the roles' file that grants it."`
	Denied     string            `json:"denied_by,omitempty" doc:"The row that denies it, whatever grants it."`
}

func (r Room) permissions() *writ.Capability {
	const op = "roles.Permissions"
	return writ.Define[RolePermissionsArgs, RolePermissions](writ.Capability{
		ID: "role.permissions", Safety: writ.SafetyReadOnly,
		Example: `{"principal":"alice"}`,
		Summary: "Show what a principal may invoke: its roles, and per role every capability with the row that grants or denies it.",
	}, writ.Verb[RolePermissionsArgs]{
		Reads: func(*writ.Call, *RolePermissionsArgs, writ.Snapshot) (writ.ReadSet, error) { return reads() },
		Plan: func(c *writ.Call, a *RolePermissionsArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			st, err := r.load(op, c, s)
			if err != nil {
				return tx, reply, err
			}
			who := a.Principal
			if who == "" {
				who = c.Caller.Principal
			}
			own := a.Role == "" || a.Role == c.Caller.Role || st.bound(who, a.Role)
			if !maySee(c.Caller, who) || !own && !seesAll(c.Caller.Role) {
				return tx, reply, writ.Refuse(writ.CodeNotFound, op, "this is not yours to know",
					"leave principal and role out to ask about yourself; operators, auditors and approvers may ask about anybody")
			}
			out := RolePermissions{Principal: who, Revision: st.gate.BindingsRevision, Roles: []RoleStanding{}, Capabilities: []CapabilityStanding{}}
			for _, role := range writ.BindableRoles() {
				if a.Role != "" && role != a.Role {
					continue
				}
				one := st.of(who, role)
				out.Roles = append(out.Roles, one)
				if one.Bound || role == a.Role {
					out.Capabilities = append(out.Capabilities, r.granted(st, role)...)
				}
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

// of says how a principal stands to a role.
func (st standing) of(p writ.PrincipalID, role writ.Role) RoleStanding {
	by, _, bound := writ.Decides(st.set, st.over, p, role)
	out := RoleStanding{Role: role, Bound: bound}
	if by == (writ.Bind{}) {
		out.Why = "not bound: nothing binds it; role.bind would"
		return out
	}
	v := st.view(by)
	out.Row, out.By, out.At, out.Receipt = v.Row, string(v.By), v.At, v.Receipt
	switch named := by.Principal != writ.Everybody; {
	case bound && named:
		out.Why = "bound by name"
	case bound:
		out.Why = "bound as one of everybody"
	case named:
		out.Why = "not bound: taken from it by name; role.bind gives it back"
	default:
		out.Why = "not bound: taken from everybody; role.bind would bind it by name"
	}
	return out
}

// granted is what rows say a role may invoke, of what callers may know.
func (r Room) granted(st standing, role writ.Role) (out []CapabilityStanding) {
	for _, g := range st.file.Grants(role) {
		if r.cfg.Public(g.Capability) {
			out = append(out, CapabilityStanding{Role: role, Capability: g.Capability, Allowed: g.Allowed, Row: g.By.String(), Denied: g.Denied.String()})
		}
	}
	return out
}
