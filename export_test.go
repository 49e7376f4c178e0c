package writ

import (
	"maps"
	"slices"
)

// Copy lets the worlds of this package's tests remember tasks in their decoded form.
// The door does not, since they change too often; histories look at the same few
// again and again.
func (t Task) Copy() Task {
	t.Args, t.Labels, t.Agents = slices.Clone(t.Args), slices.Clone(t.Labels), slices.Clone(t.Agents)
	t.DependsOn, t.Sinks, t.WriteScopes = slices.Clone(t.DependsOn), slices.Clone(t.Sinks), slices.Clone(t.WriteScopes)
	if t.Verify != nil {
		v := *t.Verify
		v.Agents, v.Gates = slices.Clone(v.Agents), slices.Clone(v.Gates)
		t.Verify = &v
	}
	if t.Lease != nil {
		l := *t.Lease
		l.Held = maps.Clone(l.Held)
		t.Lease = &l
	}
	if t.Failure != nil {
		f := *t.Failure
		t.Failure = &f
	}
	return t
}
