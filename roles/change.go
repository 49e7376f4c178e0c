package roles

import (
	"cmp"
	"maps"
	"slices"

	"github.com/writ-gateway/writ"
)

// RoleBindArgs name a principal and the role it is to have.
type RoleBindArgs struct {
	Principal writ.PrincipalID `json:"principal" doc:"Who is bound; * is everybody who has a session." pattern:"^([a-z][a-z0-9-]{1,62}|\\*)$"`
	Role      writ.Role        `json:"role" doc:"The role its sessions may have." enum:"operator,orchestrator,executor,verifier,approver,auditor,connector"`
}

// RoleUnbindArgs name a principal and the role it is to lose.
type RoleUnbindArgs struct {
	Principal writ.PrincipalID `json:"principal" doc:"Who loses the role; * takes everybody's binding away and leaves those who are bound by name." pattern:"^([a-z][a-z0-9-]{1,62}|\\*)$"`
	Role      writ.Role        `json:"role" doc:"The role." enum:"operator,orchestrator,executor,verifier,approver,auditor,connector"`
}

// RoleChanged says how a principal stands now.
type RoleChanged struct {
	Principal writ.PrincipalID `json:"principal" doc:"The principal."`
	Role      writ.Role        `json:"role" doc:"The role."`
	Bound     bool             `json:"bound" doc:"Whether the principal is bound to the role now."`
	Changed   bool             `json:"changed" doc:"Whether this call changed anything."`
	Revision  string           `json:"bindings_revision" doc:"Bindings revision in force now; receipts name it."`
	Receipt   writ.ReceiptID   `json:"receipt,omitempty" doc:"Receipt of the change."`
}

// gateOnly are the locks of a change: changes of bindings queue at the gate.
func gateOnly() []writ.Key { return []writ.Key{writ.GateKey} }

func (r Room) bind() *writ.Capability {
	const op = "roles.Bind"
	return writ.Define[RoleBindArgs, RoleChanged](writ.Capability{
		ID: "role.bind", Safety: writ.SafetyMutating, Summary: "Bind a principal to a role, on every replica, in one commit.",
		Example: `{"principal":"alice","role":"approver"}`,
	}, writ.Verb[RoleBindArgs]{
		Locks: func(*writ.Call, *RoleBindArgs) []writ.Key { return gateOnly() },
		Reads: func(*writ.Call, *RoleBindArgs, writ.Snapshot) (writ.ReadSet, error) { return reads() },
		Plan: func(c *writ.Call, a *RoleBindArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			return r.change(op, c, s, writ.Bind{Principal: a.Principal, Role: a.Role}, true)
		},
	})
}

func (r Room) unbind() *writ.Capability {
	const op = "roles.Unbind"
	return writ.Define[RoleUnbindArgs, RoleChanged](writ.Capability{
		ID: "role.unbind", Safety: writ.SafetyMutating, Summary: "Take a role from a principal: its next call in the role is denied on every replica.",
		Example: `{"principal":"mallory","role":"executor"}`,
	}, writ.Verb[RoleUnbindArgs]{
		Locks: func(*writ.Call, *RoleUnbindArgs) []writ.Key { return gateOnly() },
		Reads: func(*writ.Call, *RoleUnbindArgs, writ.Snapshot) (writ.ReadSet, error) { return reads() },
		Plan: func(c *writ.Call, a *RoleUnbindArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			return r.change(op, c, s, writ.Bind{Principal: a.Principal, Role: a.Role}, false)
		},
	})
}

// change binds or unbinds, and puts the result in force.
func (r Room) change(op string, c *writ.Call, s writ.Snapshot, b writ.Bind, to bool) (tx writ.Tx, reply writ.Reply, err error) {
	if err := check(op, b); err != nil {
		return tx, reply, err
	}
	st, err := r.load(op, c, s)
	if err != nil {
		return tx, reply, err
	}
	out := RoleChanged{Principal: b.Principal, Role: b.Role, Bound: to, Revision: st.gate.BindingsRevision}
	if st.is(b, to) {
		return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
	}
	after := maps.Clone(st.over)
	delete(after, b)
	if to || writ.Bound(st.set, after, b.Principal, b.Role) {
		after[b] = to // else nothing else binds it, and there is nothing to take away
	}
	if err := st.allowed(op, c.Caller, b, after); err != nil {
		return tx, reply, err
	}
	doc, _, _, err := writ.Get[writ.Bindings](s, writ.BindingsKey(b.Role))
	if err != nil {
		return tx, reply, err
	}
	receipt := writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
	doc.Role = b.Role
	doc.Rows = slices.DeleteFunc(slices.Clone(doc.Rows), func(x writ.Binding) bool { return x.Principal == b.Principal })
	if is, said := after[b]; said {
		doc.Rows = append(doc.Rows, writ.Binding{Principal: b.Principal, Removed: !is, By: c.Caller.Principal, At: s.Now, Receipt: receipt})
	}
	if len(doc.Rows) > writ.MaxBindings {
		return tx, reply, writ.Refuse(writ.CodeQuota, op, "a role can have 256 bindings by capability, and this one has them",
			"put those that last into roles/policy.csv, activate it, and unbind what is not wanted any more")
	}
	if doc.Rows == nil {
		doc.Rows = []writ.Binding{}
	}
	slices.SortFunc(doc.Rows, func(x, y writ.Binding) int { return cmp.Compare(x.Principal, y.Principal) })
	if err := tx.PutDoc(s, writ.BindingsKey(b.Role), "bindings", doc); err != nil {
		return tx, reply, err
	}
	r.cfg.Hold(c.Caller.Tenant, after)
	gate := st.gate
	gate.BindingsRevision, gate.Receipt = writ.BindingsRevision(st.file.Revision, after.Digest(c.Caller.Tenant)), receipt
	tx.Move(writ.ObjectGate, "gate", string(gate.State), string(gate.State))
	if err := tx.PutDoc(s, writ.GateKey, writ.ObjectGate, gate); err != nil {
		return tx, reply, err
	}
	out.Changed, out.Revision, out.Receipt = true, gate.BindingsRevision, receipt
	return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
}

// is says whether nothing needs to change: bound by name already, by whichever
// place, or not bound at all. Who is bound only as one of everybody is not bound
// by name, and would lose the role with everybody.
func (st standing) is(b writ.Bind, to bool) bool {
	if !to {
		return !st.bound(b.Principal, b.Role)
	}
	by, _, bound := writ.Decides(st.set, st.over, b.Principal, b.Role)
	return bound && by == b
}

// check refuses what is no principal or no role to be bound to. It repeats the
// schema: what is written here decides who may act.
func check(op string, b writ.Bind) error {
	var wrong []writ.FieldError
	if !validPrincipal(b.Principal) {
		wrong = append(wrong, writ.FieldError{Pointer: "/principal", Msg: "is neither an id (2 to 63 of a-z, 0-9 and -) nor *"})
	}
	if !validRole(b.Role) {
		wrong = append(wrong, writ.FieldError{Pointer: "/role", Msg: "is no role a principal can be bound to"})
	}
	if len(wrong) == 0 {
		return nil
	}
	return &writ.Error{Code: writ.CodeInputInvalid, Op: op, Fields: wrong, Msg: "this cannot be bound", Hint: "correct every field named in errors"}
}

// allowed refuses a change by which somebody would help himself to a role, or
// after which nobody could get in as operator.
func (st standing) allowed(op string, c writ.Caller, b writ.Bind, after writ.BindingSet) error {
	role := b.Role
	bound := func(p writ.PrincipalID) bool { return writ.Bound(st.set, after, p, role) }
	openers := c.Openers
	if b.Principal == writ.Everybody { // it is behind every session, so nobody could ever open a role again
		openers = slices.DeleteFunc(slices.Clone(openers), func(p writ.PrincipalID) bool { return p == writ.MachineOperator })
	}
	for _, me := range append([]writ.PrincipalID{c.Principal, c.Controller}, openers...) {
		if me != "" && bound(me) && !st.bound(me, role) {
			return writ.Refuse(writ.CodeSoD, op, "the change would give a role to somebody who stands behind this session and does not have it",
				"another operator, in a session that he neither opened nor answers for, must do it; or a row in roles/policy.csv")
		}
	}
	if role != writ.RoleOperator {
		return nil
	}
	refuse := func(msg, hint string) error {
		return writ.Refuse(writ.CodeIllegal, op, msg, hint).With("kind", writ.ObjectGate).With("role", string(role))
	}
	switch {
	case !writ.AnyoneBound(st.set, after, role):
		return refuse("nobody could act as operator any more", "bind another operator by name first, with role.bind")
	case !bound(writ.MachineOperator) && st.bound(writ.MachineOperator, role):
		hint := "bind the principal operator by name first, with role.bind"
		if b.Principal == writ.MachineOperator {
			hint = "activate a bundle whose roles/policy.csv does not bind it"
		}
		return refuse("the principal operator would lose the role operator: it is whoever may read operator.token, the way back in", hint)
	case !bound(c.Principal) && st.bound(c.Principal, role):
		return refuse("the change would take the role operator from its caller", "bind yourself by name first, or let another operator do it")
	}
	return nil
}
