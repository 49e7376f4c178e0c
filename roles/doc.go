// Package roles plans who is bound to which role: bindings of principals by
// capability, on top of the roles' file of the bundle in force, and the answers
// to who is bound and what a principal may do.
//
// It is pure planning: it holds no store, no clock and no rules. Its invariants:
//
//   - a change of bindings and the gate's bindings revision are one commit, so a
//     replica that does not hold the new bindings cannot commit;
//   - after unbind a principal is not bound, whatever file or everybody's binding
//     says, until it is bound again;
//   - nobody gets a role by his own call, nobody is bound to the gateway's own
//     role, and no call leaves the gateway without an operator who can get in.
package roles

import (
	"slices"
	"strconv"

	"github.com/writ-gateway/writ"
)

// Config is what the room needs from outside.
type Config struct {
	// File is what the roles' file of a bundle says in a tenant; false where this
	// replica does not hold the bundle. The same bundle MUST always give the same.
	File func(writ.BundleID, writ.Tenant) (File, bool)
	// Hold is told which bindings are about to be put in force in a tenant, so
	// that this replica judges by them as soon as the gate names them.
	Hold func(writ.Tenant, writ.BindingSet)
	// Public says whether callers may know a capability.
	Public func(writ.CapabilityID) bool
}

// File is a roles' file in one tenant.
type File struct {
	Revision string
	Bound    []FileBinding             // by role and principal
	Grants   func(writ.Role) []Granted // what rows say of a role, by capability
}

// FileBinding is a principal the file binds.
type FileBinding struct {
	writ.Bind
	Row Row
}

// Granted is a capability that rows say something about for a role.
type Granted struct {
	Capability writ.CapabilityID
	Allowed    bool
	By, Denied *Row
}

// Row is a row of the file.
type Row struct {
	Line int
	Text string
}

func (r *Row) String() string {
	if r == nil {
		return ""
	}
	return "roles/policy.csv:" + strconv.Itoa(r.Line) + ": " + r.Text
}

// Room plans bindings.
type Room struct{ cfg Config }

// New makes a Room.
func New(cfg Config) Room { return Room{cfg} }

// Capabilities are the verbs of this room.
func (r Room) Capabilities() []*writ.Capability {
	return []*writ.Capability{r.bind(), r.unbind(), r.list(), r.permissions()}
}

// standing is everything that says who is bound.
type standing struct {
	gate writ.Gate
	file File
	set  writ.BindingSet            // of the file
	over writ.BindingSet            // on top of it
	rows map[writ.Bind]*Row         // of the file
	said map[writ.Bind]writ.Binding // on top of it
}

// reads names what says who is bound, beside the file.
func reads() (writ.ReadSet, error) {
	return writ.ReadSet{Docs: append(writ.BindingsKeys(), writ.GateKey)}, nil
}

// load puts together who is bound, by the gate that was read.
func (r Room) load(op string, c *writ.Call, s writ.Snapshot) (st standing, err error) {
	gate, _, ok, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err != nil {
		return st, err
	}
	file, held := File{}, false
	if ok {
		file, held = r.cfg.File(gate.Bundle, c.Caller.Tenant)
	}
	if !held {
		return st, &writ.Error{
			Code: writ.CodePolicyDown, Op: op, RetryMs: 1000,
			Msg: "this replica does not hold the policies in force", Hint: "repeat the call; it may reach another replica",
		}
	}
	st = standing{gate: gate, file: file, set: writ.BindingSet{}, said: map[writ.Bind]writ.Binding{}, rows: map[writ.Bind]*Row{}}
	for i, b := range file.Bound {
		st.set[b.Bind] = true
		st.rows[b.Bind] = &file.Bound[i].Row
	}
	if st.over, err = writ.BindingsIn(s); err != nil {
		return st, err
	}
	for _, role := range writ.BindableRoles() {
		doc, _, _, err := writ.Get[writ.Bindings](s, writ.BindingsKey(role))
		if err != nil {
			return st, err
		}
		for _, b := range doc.Rows {
			st.said[writ.Bind{Principal: b.Principal, Role: role}] = b
		}
	}
	return st, nil
}

// bound says whether a principal is bound now.
func (st standing) bound(p writ.PrincipalID, role writ.Role) bool {
	return writ.Bound(st.set, st.over, p, role)
}

// seesAll says whether a role may ask about everybody.
func seesAll(r writ.Role) bool {
	switch r {
	case writ.RoleOperator, writ.RoleAuditor, writ.RoleApprover, writ.RoleSystem:
		return true
	}
	return false
}

// maySee says whether a caller may know how a principal is bound. What is said of
// everybody is said of the caller too.
func maySee(c writ.Caller, p writ.PrincipalID) bool {
	return seesAll(c.Role) || p == c.Principal || p == writ.Everybody
}

func validPrincipal(p writ.PrincipalID) bool { return p == writ.Everybody || p.Valid() }

func validRole(r writ.Role) bool { return slices.Contains(writ.BindableRoles(), r) }
