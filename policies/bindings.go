package policies

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// principalPrefix marks a principal among the subjects of policy.csv.
const principalPrefix = "principal:"

// principal is who a g row binds, if it binds a principal.
func (r *row) principal() (writ.PrincipalID, bool) {
	if r.kind != "g" {
		return "", false
	}
	id, ok := strings.CutPrefix(r.fields[0], principalPrefix)
	return writ.PrincipalID(id), ok
}

// in says whether a row holds in a tenant.
func (r *row) in(t writ.Tenant) bool { return r.tenant == "*" || r.tenant == string(t) }

// boundBy is who the rows bind in a tenant. A binding is to the very role it
// names: that a role is also another one gives nobody a session of the other.
func boundBy(rows []row, tenant writ.Tenant) writ.BindingSet {
	set := writ.BindingSet{}
	for i := range rows {
		if p, ok := rows[i].principal(); ok && rows[i].in(tenant) {
			set[writ.Bind{Principal: p, Role: roleOf(rows[i].fields[1])}] = true
		}
	}
	return set
}

func roleOf(subject string) writ.Role { return writ.Role(strings.TrimPrefix(subject, "role:")) }

// operated refuses bindings under which nobody could open a session or put other
// bindings in force.
func (r roles) operated(o Options) error {
	for _, t := range o.Tenants {
		if !writ.AnyoneBound(r.bound[t], nil, writ.RoleOperator) {
			return fmt.Errorf(`%s: nobody is bound to role:operator in %s; add the row "g, principal:%s, role:operator, *" for whoever may read operator.token, or "g, principal:*, role:operator, *" for everybody who has a session`,
				rowsFile, t, writ.MachineOperator)
		}
	}
	return nil
}

// Bound says whether a principal may act in a role in a tenant. Nobody is bound
// to the gateway's own role, and the gateway needs no binding. It does not
// allocate.
func (s *snapshot) Bound(p writ.PrincipalID, role writ.Role, tenant writ.Tenant) bool {
	return role != writ.RoleSystem && writ.Bound(s.roles.bound[tenant], s.over.on(tenant), p, role)
}

// Row is a row of policy.csv as it stands there.
type Row struct {
	Line int
	Text string
}

func (r *row) show() *Row {
	return &Row{Line: r.line, Text: r.kind + ", " + strings.Join(r.fields, ", ")}
}

// FileBinding is a principal the roles' file binds to a role.
type FileBinding struct {
	Principal writ.PrincipalID
	Role      writ.Role
	Row       *Row
}

// FileRevision is the revision of the roles' file alone.
func (s *snapshot) FileRevision() string { return s.own }

// FileBindings lists whom the roles' file binds in a tenant, by role and
// principal; of several rows that say the same, the first.
func (s *snapshot) FileBindings(tenant writ.Tenant) []FileBinding {
	first := map[writ.Bind]*row{}
	for i := range s.roles.rows {
		r := &s.roles.rows[i]
		p, ok := r.principal()
		if !ok || !r.in(tenant) {
			continue
		}
		if b := (writ.Bind{Principal: p, Role: roleOf(r.fields[1])}); first[b] == nil {
			first[b] = r
		}
	}
	out := make([]FileBinding, 0, len(first))
	for b, r := range first {
		out = append(out, FileBinding{Principal: b.Principal, Role: b.Role, Row: r.show()})
	}
	slices.SortFunc(out, func(a, b FileBinding) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Principal, b.Principal))
	})
	return out
}

// Grant is one capability that rows say something about for a role.
type Grant struct {
	Capability writ.CapabilityID
	Allowed    bool
	By         *Row // grants it; nil when only a denial names it
	Denied     *Row // denies it, whatever grants it
}

// Grants lists what rows say a role may invoke in a tenant, its own and those of
// the roles it also is, by capability. It says of every capability what Permit
// says.
func (s *snapshot) Grants(role writ.Role, tenant writ.Tenant) []Grant {
	is := s.roles.closure(role, tenant)
	found := map[writ.CapabilityID]*Grant{}
	all := slices.Collect(maps.Keys(s.routes)) // every capability there is
	for i := range s.roles.rows {
		r := &s.roles.rows[i]
		if r.kind != "p" || !r.in(tenant) || !is[roleOf(r.fields[0])] {
			continue
		}
		named := all
		if r.fields[2] != "*" {
			named = []writ.CapabilityID{writ.CapabilityID(r.fields[2])}
		}
		for _, c := range named {
			if s.routes[c] == nil {
				continue // rows for what does not exist grant nothing
			}
			g := found[c]
			if g == nil {
				g = &Grant{Capability: c}
				found[c] = g
			}
			switch allow := r.fields[4] == "allow"; {
			case allow && g.By == nil:
				g.By = r.show()
			case !allow && g.Denied == nil:
				g.Denied = r.show()
			}
		}
	}
	out := make([]Grant, 0, len(found))
	for _, c := range slices.Sorted(maps.Keys(found)) {
		g := found[c]
		g.Allowed = g.By != nil && g.Denied == nil
		out = append(out, *g)
	}
	return out
}

// closure is a role and every role it also is in a tenant.
func (r roles) closure(role writ.Role, tenant writ.Tenant) map[writ.Role]bool {
	is := map[writ.Role]bool{role: true}
	for grown := true; grown; {
		grown = false
		for i := range r.rows {
			x := &r.rows[i]
			if _, isPrincipal := x.principal(); x.kind != "g" || isPrincipal || !x.in(tenant) {
				continue
			}
			if to := roleOf(x.fields[1]); is[roleOf(x.fields[0])] && !is[to] {
				is[to], grown = true, true
			}
		}
	}
	return is
}
