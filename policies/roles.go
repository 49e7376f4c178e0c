package policies

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	"github.com/writ-gateway/writ"
)

const (
	modelFile = "roles/model.conf"
	rowsFile  = "roles/policy.csv"
)

// roles is what the roles' file says: everything any role may invoke in any
// tenant, worked out once, and who is bound to which role. It never changes.
// Casbin's own cached enforcers are not used: they keep granting after a role or
// a row is taken away.
type roles struct {
	may   map[permission]struct{}
	bound map[writ.Tenant]writ.BindingSet
	rows  []row
}

type permission struct {
	tenant     writ.Tenant
	role       writ.Role
	capability writ.CapabilityID
}

func (r roles) permit(role writ.Role, tenant writ.Tenant, c writ.CapabilityID) bool {
	_, ok := r.may[permission{tenant, role, c}]
	return ok
}

// check refuses a file that would lock out the gateway itself, or everybody else.
func (r roles) check(o Options) error {
	if err := r.system(o); err != nil {
		return err
	}
	return r.operated(o)
}

// system refuses bindings under which the gateway could not do its own work:
// nothing would expire, and no other policies could be put in force.
func (r roles) system(o Options) error {
	for _, t := range o.Tenants {
		for _, c := range o.Capabilities {
			if !r.permit(writ.RoleSystem, t, c) {
				return fmt.Errorf("%s: role:system must be allowed every capability, and is not allowed %s in %s", rowsFile, c, t)
			}
		}
	}
	return nil
}

var allRoles = []writ.Role{
	writ.RoleOperator, writ.RoleOrchestrator, writ.RoleExecutor, writ.RoleVerifier,
	writ.RoleApprover, writ.RoleAuditor, writ.RoleConnector, writ.RoleSystem,
}

// theModel is the only model for which looking a permission up equals asking
// the enforcer: exact comparisons, deny over allow, roles by domain.
var theModel = map[string]string{
	"r": "sub, dom, obj, act",
	"p": "sub, dom, obj, act, eft",
	"g": "_, _, _",
	"e": "some(where (p_eft == allow)) && !some(where (p_eft == deny))",
	"m": "r_act == p_act && r_obj == p_obj && r_dom == p_dom && g(r_sub, p_sub, r_dom)",
}

func loadRoles(f files, o Options) (roles, error) {
	rows, err := parseRows(f[rowsFile])
	if err != nil {
		return roles{}, err
	}
	out := roles{may: map[permission]struct{}{}, bound: map[writ.Tenant]writ.BindingSet{}, rows: rows}
	for _, tenant := range o.Tenants {
		e, err := enforcer(f[modelFile], rows, tenant, o.Capabilities)
		if err != nil {
			return roles{}, err
		}
		for _, role := range allRoles {
			if err := out.add(e, tenant, role); err != nil {
				return roles{}, fmt.Errorf("%s: %w", rowsFile, err)
			}
		}
		out.bound[tenant] = boundBy(rows, tenant)
	}
	return out, nil
}

// add reads what a role, and every role it also is, may do out of an enforcer.
func (r roles) add(e *casbin.Enforcer, tenant writ.Tenant, role writ.Role) error {
	found, err := e.GetImplicitPermissionsForUser(subject(role), string(tenant))
	if err != nil {
		return err
	}
	for _, row := range found {
		if row[4] == "allow" {
			r.may[permission{tenant, role, writ.CapabilityID(row[2])}] = struct{}{}
		}
	}
	for _, row := range found {
		if row[4] == "deny" {
			delete(r.may, permission{tenant, role, writ.CapabilityID(row[2])})
		}
	}
	return nil
}

func subject(r writ.Role) string { return "role:" + string(r) }

// row is one line of policy.csv, checked.
type row struct {
	line   int
	kind   string // p or g
	tenant string // or *
	fields []string
}

// parseRows reads policy.csv: "p, role, tenant, capability, invoke, effect",
// "g, role, role, tenant" and "g, principal, role, tenant", comments after #,
// empty lines.
func parseRows(b []byte) ([]row, error) {
	var out []row
	var all []error
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, maxFileBytes)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(text) == "" {
			continue
		}
		fields := strings.Split(text, ",")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		r := row{line: n, kind: fields[0], fields: fields[1:]}
		if err := r.check(); err != nil {
			all = append(all, Problem{File: rowsFile, Line: n, Msg: err.Error()})
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(append(all, inFile(rowsFile, lines.Err()))...)
}

func (r *row) check() error {
	isRole := func(s string) bool {
		return slices.ContainsFunc(allRoles, func(x writ.Role) bool { return subject(x) == s })
	}
	f := r.fields
	switch {
	case r.kind == "p" && len(f) == 5:
		r.tenant = f[1]
		switch {
		case !isRole(f[0]):
			return errors.New("the subject is not role:<one of the roles>")
		case f[2] == "*" && f[0] != subject(writ.RoleSystem):
			return errors.New("only role:system may have * as capability")
		case f[2] != "*" && !writ.CapabilityID(f[2]).Valid():
			return errors.New("the object is not a capability id")
		case f[3] != "invoke":
			return errors.New("the action must be invoke")
		case f[4] != "allow" && f[4] != "deny":
			return errors.New("the effect must be allow or deny")
		}
	case r.kind == "g" && len(f) == 3:
		r.tenant = f[2]
		who, isPrincipal := r.principal()
		switch {
		case isPrincipal && who != writ.Everybody && !who.Valid():
			return errors.New("the principal is neither an id (2 to 63 of a-z, 0-9 and -) nor *")
		case isPrincipal && !isRole(f[1]):
			return errors.New("the second subject must be role:<one of the roles>")
		case isPrincipal && f[1] == subject(writ.RoleSystem):
			return errors.New("nobody can be bound to the role of the gateway itself")
		case isPrincipal:
		case !isRole(f[0]) || !isRole(f[1]):
			return errors.New("both subjects must be role:<one of the roles>, or the first principal:<id>")
		case f[0] == f[1]:
			return errors.New("a role is itself already")
		case f[1] == subject(writ.RoleSystem):
			return errors.New("no role may also be the gateway itself")
		}
	default:
		return errors.New("a row is p with five fields or g with three")
	}
	if r.tenant != "*" && !writ.Tenant(r.tenant).Valid() {
		return errors.New("the tenant is neither a tenant nor *")
	}
	return nil
}

// enforcer holds the rows of one tenant, with * expanded: to this tenant, and
// to every capability there is. Rows for capabilities that do not exist grant
// nothing.
func enforcer(modelText []byte, rows []row, tenant writ.Tenant, caps []writ.CapabilityID) (*casbin.Enforcer, error) {
	m, err := model.NewModelFromString(string(modelText))
	if err != nil {
		return nil, inFile(modelFile, err)
	}
	for key, want := range theModel {
		if got := m[key][key]; len(m[key]) != 1 || got.Value != want {
			return nil, Problem{File: modelFile, Msg: key + " must stay as shipped: permissions are read out of exactly this model"}
		}
	}
	e, err := casbin.NewEnforcer(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", modelFile, err)
	}
	add := func(kind string, fields ...string) (err error) {
		if kind == "g" {
			_, err = e.AddNamedGroupingPolicy("g", fields)
		} else {
			_, err = e.AddNamedPolicy("p", fields)
		}
		return err // a row that is there already is no error
	}
	for _, r := range rows {
		if r.tenant != "*" && r.tenant != string(tenant) {
			continue
		}
		var err error
		switch f := r.fields; {
		case r.kind == "g":
			err = add("g", f[0], f[1], string(tenant))
		case f[2] == "*":
			for _, c := range caps {
				err = errors.Join(err, add("p", f[0], string(tenant), string(c), f[3], f[4]))
			}
		case slices.Contains(caps, writ.CapabilityID(f[2])):
			err = add("p", f[0], string(tenant), f[2], f[3], f[4])
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", rowsFile, err)
		}
	}
	return e, nil
}
