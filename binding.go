package writ

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// A call is permitted when its principal is bound to the session's role and the
// role may invoke the capability. Who is bound is said in two places: in the
// roles' file of the bundle in force, and by role.bind and role.unbind, whose
// documents lie on top of whatever file is in force.

const (
	// Everybody, as the principal of a binding, is everybody who has a session.
	Everybody PrincipalID = "*"
	// MachineOperator is the principal of the session that the gateway opens for
	// whoever may read operator.token. No capability takes the role operator from
	// it: it is the way back in.
	MachineOperator PrincipalID = "operator"
)

// PatternBound is how callers write the principal of a binding.
const PatternBound = `^([a-z][a-z0-9-]{1,62}|\*)$`

// BindableRoles are the roles a principal can be bound to: all but the gateway's
// own.
func BindableRoles() []Role {
	return []Role{RoleOperator, RoleOrchestrator, RoleExecutor, RoleVerifier, RoleApprover, RoleAuditor, RoleConnector}
}

// Bind is a principal, or everybody, in a role.
type Bind struct {
	Principal PrincipalID
	Role      Role
}

// BindingSet is what one place says: true is bound, false is taken away, and of
// what is not in it the place says nothing.
type BindingSet map[Bind]bool

// Bound says whether a principal is bound to a role, by the file and what lies on
// top of it. It does not allocate.
func Bound(file, over BindingSet, p PrincipalID, r Role) bool {
	_, _, bound := Decides(file, over, p, r)
	return bound
}

// Decides says which binding decides whether a principal is bound to a role, and
// whether a capability said it; the zero Bind when nothing does. What is said of
// it by name goes before what is said of everybody, and what a capability said
// before the file. So taking a role from one principal takes effect whatever else
// there is.
func Decides(file, over BindingSet, p PrincipalID, r Role) (by Bind, capability, bound bool) {
	for _, who := range [...]PrincipalID{p, Everybody} {
		b := Bind{who, r}
		if is, said := over[b]; said {
			return b, true, is
		}
		if file[b] {
			return b, false, true
		}
	}
	return Bind{}, false, false
}

// AnyoneBound says whether somebody is bound to a role.
func AnyoneBound(file, over BindingSet, r Role) bool {
	for _, set := range []BindingSet{file, over} {
		for b := range set {
			if b.Role == r && Bound(file, over, b.Principal, r) {
				return true
			}
		}
	}
	return false
}

// Digest names what the set says in a tenant; "" when it says nothing. Two tenants
// never have the same digest: what is taken in one must not be found in the other.
func (b BindingSet) Digest(t Tenant) string {
	if len(b) == 0 {
		return ""
	}
	lines := make([]string, 0, len(b))
	for k, is := range b {
		word := " bound\n"
		if !is {
			word = " removed\n"
		}
		lines = append(lines, string(k.Role)+" "+string(k.Principal)+word)
	}
	slices.Sort(lines)
	h := sha256.Sum256([]byte(string(t) + "\n" + strings.Join(lines, "")))
	return "sha256:" + hex.EncodeToString(h[:])
}

// BindingsRevision names a roles' file, by its revision, with a set on top of it,
// by its digest. Without a set it is the revision of the file.
func BindingsRevision(file, over string) string {
	if over == "" {
		return file
	}
	h := sha256.Sum256([]byte("writ bindings v1\n" + file + "\n" + over + "\n"))
	return "sha256:" + hex.EncodeToString(h[:])
}

// Binding is what a capability said of a principal, in the document of a role.
type Binding struct {
	Principal PrincipalID `json:"principal"`
	Removed   bool        `json:"removed,omitempty"` // the file, or everybody's binding, would bind it
	By        PrincipalID `json:"by"`
	At        int64       `json:"at"` // milliseconds
	Receipt   ReceiptID   `json:"receipt"`
}

// MaxBindings bounds the bindings by capability of one role, so that they fit
// one document whatever the ids are.
const MaxBindings = 256

// Bindings is the document of one role: what capabilities said, by principal. It
// is the difference to any file and stays when another bundle becomes active. It
// changes with the gate only, in the same commit.
type Bindings struct {
	Role Role      `json:"role"`
	Rows []Binding `json:"rows"`
}

// BindingsKey is the document of a role's bindings; absent: there are none.
func BindingsKey(r Role) Key { return Key("bindings/" + string(r)) }

// BindingsKeys are the documents of all roles: together, what lies on top of the
// file.
func BindingsKeys() (keys []Key) {
	for _, r := range BindableRoles() {
		keys = append(keys, BindingsKey(r))
	}
	return keys
}

// BindingsIn is what the documents of a snapshot say.
func BindingsIn(s Snapshot) (BindingSet, error) {
	set := BindingSet{}
	for _, r := range BindableRoles() {
		doc, _, _, err := Get[Bindings](s, BindingsKey(r))
		if err != nil {
			return nil, err
		}
		for _, b := range doc.Rows {
			set[Bind{b.Principal, r}] = !b.Removed
		}
	}
	return set, nil
}
