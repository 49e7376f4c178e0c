package daemon

import (
	"context"
	"fmt"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/roles"
)

// standing reads the gate with the bindings by capability, in one read, and makes
// the bindings ready. That is all a replica needs when only they have changed.
func (d *Daemon) standing(ctx context.Context) (gate writ.Gate, version int64, ok bool, err error) {
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Docs: append(writ.BindingsKeys(), writ.GateKey)})
	if err != nil {
		return gate, 0, false, fmt.Errorf("store: %w", err)
	}
	set, err := writ.BindingsIn(s)
	if err != nil {
		return gate, 0, false, err
	}
	d.engine.Bind(shard, set)
	return writ.Get[writ.Gate](s, writ.GateKey)
}

// rolesConfig joins the room of roles with the rules this replica holds.
func (d *Daemon) rolesConfig() roles.Config {
	return roles.Config{
		File: func(id writ.BundleID, tenant writ.Tenant) (roles.File, bool) {
			rules := d.engine.Holds(id.Digest())
			if rules == nil {
				return roles.File{}, false
			}
			return rolesFile(rules, tenant), true
		},
		Hold:   d.engine.Bind,
		Public: func(id writ.CapabilityID) bool { k := d.registry.Get(id); return k != nil && !k.Internal },
	}
}

// rights is what a role may invoke by the policies of a bundle, if they are held here.
func (d *Daemon) rights(id writ.BundleID, tenant writ.Tenant, role writ.Role) (may func(writ.CapabilityID) bool, held bool) {
	rules := d.engine.Holds(id.Digest())
	if rules == nil {
		return nil, false
	}
	return func(c writ.CapabilityID) bool { return rules.Permit(role, tenant, c) }, true
}

// rolesFile is what the rules' own file says, whatever lies on top of it.
func rolesFile(rules *policies.Rules, tenant writ.Tenant) roles.File {
	f := roles.File{Revision: rules.FileRevision()}
	for _, b := range rules.FileBindings(tenant) {
		f.Bound = append(f.Bound, roles.FileBinding{Bind: writ.Bind{Principal: b.Principal, Role: b.Role}, Row: roles.Row(*b.Row)})
	}
	f.Grants = func(role writ.Role) (out []roles.Granted) {
		for _, g := range rules.Grants(role, tenant) {
			out = append(out, roles.Granted{Capability: g.Capability, Allowed: g.Allowed, By: (*roles.Row)(g.By), Denied: (*roles.Row)(g.Denied)})
		}
		return out
	}
	return f
}
