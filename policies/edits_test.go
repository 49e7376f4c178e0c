package policies

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/writ-gateway/writ"
)

// edit changes one field of a call.
type edit struct {
	name string
	do   func(*writ.PolicyInput)
}

// pools are the values fields are given, by their type.
var pools = map[reflect.Type][]any{
	reflect.TypeFor[writ.AgentState]():    {writ.AgentActive, writ.AgentPlanned, writ.AgentSuspended},
	reflect.TypeFor[writ.RunState]():      {writ.RunActive, writ.RunDone, writ.RunPausedApproval},
	reflect.TypeFor[writ.SessionState]():  {writ.SessionActive, writ.SessionOpened, writ.SessionSuspended},
	reflect.TypeFor[writ.TaskState]():     {writ.TaskQueued, writ.TaskRunning},
	reflect.TypeFor[writ.ApprovalState](): {writ.ApprovalPending, writ.ApprovalApproved},
	reflect.TypeFor[writ.ApprovalKind]():  {writ.ApproveEffect, writ.ApproveHumanAction},
	reflect.TypeFor[writ.ApprovalScope](): {writ.ScopeCall, writ.ScopeRun},
	reflect.TypeFor[writ.ToolApproval]():  {writ.ApprovalAuto, writ.ApprovalManual},
	reflect.TypeFor[writ.Role]():          {writ.RoleExecutor, writ.RoleOrchestrator, writ.RoleVerifier, writ.RoleApprover, writ.RoleOperator},
	reflect.TypeFor[writ.Safety]():        {writ.SafetyReadOnly, writ.SafetyMutating, writ.SafetyDestructive},
	reflect.TypeFor[writ.Class]():         {writ.Ordinary, writ.Mandate},
	reflect.TypeFor[writ.CapabilityID]():  {writ.CapabilityID("site.build"), writ.CapabilityID("capability.invoke"), writ.CapabilityID("")},
	reflect.TypeFor[[]writ.Label](): {
		[]writ.Label(nil),
		[]writ.Label{},
		[]writ.Label{writ.LabelPublic},
		[]writ.Label{writ.LabelSecretToken},
		[]writ.Label{writ.LabelPIIRedacted},
		[]writ.Label{writ.LabelPIIAttachment, writ.LabelInternalSystem},
		[]writ.Label{writ.LabelInternalSystem, writ.LabelPIIAttachment},
		[]writ.Label{"odd"},
	},
	reflect.TypeFor[[]writ.Sink]():            {[]writ.Sink(nil), []writ.Sink{writ.SinkEgress}, writ.Sinks(), []writ.Sink{"odd"}},
	reflect.TypeFor[[]string]():               {[]string(nil), []string{}, []string{"fs:repo/site/"}, []string{"fs:repo/../x/", "mem:notes/"}, []string{"fs:repo/site/assets/"}},
	reflect.TypeFor[[]writ.BudgetFacts]():     budgets(),
	reflect.TypeFor[*writ.EgressGrantFacts](): grants(),
	reflect.TypeFor[[]writ.QuotaFacts](): {
		[]writ.QuotaFacts(nil),
		[]writ.QuotaFacts{{Metric: "running_tasks", Subject: "agent", Limit: 4, Fits: true, OnExceed: "queue"}},
		[]writ.QuotaFacts{{Metric: "running_tasks", Subject: "agent", Limit: 4, OnExceed: "deny"}},
		[]writ.QuotaFacts{{Metric: "queued_tasks", Subject: "tenant", Limit: 4, OnExceed: "approval"}},
		[]writ.QuotaFacts{{Metric: "unheard_of", Fits: true}},
	},
}

// budgets are that of nothing, and for each dimension those that are used up.
func budgets() []any {
	out := []any{
		[]writ.BudgetFacts(nil),
		[]writ.BudgetFacts{{Dimension: writ.BudgetSteps, Limit: 1000, Cost: 1, Band: 80, Fits: true, OnExceed: "soft_warn"}},
	}
	for _, d := range append(writ.BudgetDimensions(), "web") {
		for _, e := range []writ.BudgetFacts{
			{Band: 100, OnExceed: "hard_stop"}, {Band: 100, OnExceed: "approval_required"}, {Band: 100, Waits: true, OnExceed: "approval_required"},
		} {
			e.Dimension, e.Limit, e.Cost = d, 1000, 1
			out = append(out, []writ.BudgetFacts{e})
		}
	}
	return out
}

// grants are none, one that lets everything through, and those that lack one thing.
func grants() []any {
	out := []any{(*writ.EgressGrantFacts)(nil)}
	good := writ.EgressGrantFacts{ID: "site-api", Found: true, Live: true, Method: true, Path: true, Mode: writ.EgressRequest, Admits: []writ.Label{writ.LabelInternalSystem}}
	for _, change := range []func(*writ.EgressGrantFacts){
		func(*writ.EgressGrantFacts) {},
		func(g *writ.EgressGrantFacts) { g.ID = "" },
		func(g *writ.EgressGrantFacts) { g.Found = false },
		func(g *writ.EgressGrantFacts) { g.Live = false },
		func(g *writ.EgressGrantFacts) { g.Method = false },
		func(g *writ.EgressGrantFacts) { g.Path = false },
		func(g *writ.EgressGrantFacts) { g.Private = true },
		func(g *writ.EgressGrantFacts) { g.Mode = writ.EgressTunnel },
		func(g *writ.EgressGrantFacts) { g.Admits = nil },
	} {
		g := good
		change(&g)
		out = append(out, &g)
	}
	return out
}

// pool is the values of a type that is not in the table.
func pool(t reflect.Type) []any {
	if p := pools[t]; p != nil {
		return p
	}
	switch t.Kind() {
	case reflect.Bool:
		return []any{false, true}
	case reflect.Int64:
		return []any{int64(0), int64(7), int64(5000)}
	case reflect.String:
		var out []any
		for _, s := range []string{"", "x", "https", "12", `"\`} {
			out = append(out, reflect.ValueOf(s).Convert(t).Interface())
		}
		return out
	}
	panic("no values for " + t.String())
}

// edits are single changes of everything packs can see, by reflection: a field
// that is added to the facts is edited too.
func edits() []edit {
	var out []edit
	add := func(name string, v any, do func(*writ.PolicyInput)) {
		out = append(out, edit{fmt.Sprintf("%s = %v", name, v), do})
	}
	subject := reflect.TypeFor[writ.Subject]()
	for i := range subject.NumField() {
		f := subject.Field(i)
		if f.Type == reflect.TypeFor[writ.Charge]() {
			continue // packs see it as Budget
		}
		if f.Type.Kind() != reflect.Pointer {
			for _, v := range pool(f.Type) {
				add(f.Name, v, func(in *writ.PolicyInput) { reflect.ValueOf(&in.Subject).Elem().Field(i).Set(reflect.ValueOf(v)) })
			}
			continue
		}
		add(f.Name, nil, func(in *writ.PolicyInput) { reflect.ValueOf(&in.Subject).Elem().Field(i).SetZero() })
		add(f.Name, "{}", func(in *writ.PolicyInput) {
			reflect.ValueOf(&in.Subject).Elem().Field(i).Set(reflect.New(f.Type.Elem()))
		})
		for j := range f.Type.Elem().NumField() {
			inner := f.Type.Elem().Field(j)
			for _, v := range pool(inner.Type) {
				add(f.Name+"."+inner.Name, v, func(in *writ.PolicyInput) {
					at := reflect.ValueOf(&in.Subject).Elem().Field(i)
					fresh := reflect.New(f.Type.Elem()) // calls share nothing
					if !at.IsNil() {
						fresh.Elem().Set(at.Elem())
					}
					fresh.Elem().Field(j).Set(reflect.ValueOf(v))
					at.Set(fresh)
				})
			}
		}
	}
	for _, v := range everything {
		add("Capability", v, func(in *writ.PolicyInput) { c := *in.Capability; c.ID = v; in.Capability = &c })
	}
	for _, v := range pool(reflect.TypeFor[writ.Class]()) {
		add("Class", v, func(in *writ.PolicyInput) { c := *in.Capability; c.Class = v.(writ.Class); in.Capability = &c })
	}
	for _, v := range pool(reflect.TypeFor[writ.Safety]()) {
		add("Safety", v, func(in *writ.PolicyInput) { c := *in.Capability; c.Safety = v.(writ.Safety); in.Capability = &c })
	}
	for _, v := range []writ.PrincipalKind{writ.KindAgent, writ.KindHuman, writ.KindSystem} {
		add("Kind", v, func(in *writ.PolicyInput) { c := *in.Call; c.Caller.Kind = v; in.Call = &c })
	}
	for _, v := range []writ.CapabilityID{"", "capability.invoke", "x"} {
		add("Via", v, func(in *writ.PolicyInput) { c := *in.Call; c.Via = v; in.Call = &c })
	}
	session := func(name string, v any, set func(*writ.Session)) {
		add(name, v, func(in *writ.PolicyInput) {
			var s writ.Session
			if in.Session != nil {
				s = *in.Session
			}
			set(&s)
			in.Session = &s
		})
	}
	add("Session", nil, func(in *writ.PolicyInput) { in.Session = nil })
	for _, v := range []writ.SessionID{"", "ses_1", "ses_2"} {
		session("Session.ID", v, func(s *writ.Session) { s.ID = v })
	}
	for _, v := range pool(reflect.TypeFor[writ.Role]()) {
		session("Session.Role", v, func(s *writ.Session) { s.Role = v.(writ.Role) })
	}
	for _, v := range pool(reflect.TypeFor[writ.SessionState]()) {
		session("Session.State", v, func(s *writ.Session) { s.State = v.(writ.SessionState) })
	}
	for _, v := range []int64{1_790_000_000_123, 1_790_000_000_456, 1_790_000_001_000, 0} {
		add("Now", v, func(in *writ.PolicyInput) { in.Now = v })
	}
	return out
}

// The edits reach every part of the input.
func TestEditsReachEverything(t *testing.T) {
	reached := map[place]bool{}
	for _, base := range []writ.PolicyInput{claim(), full()} {
		before := newBuilder()
		if err := before.input(base); err != nil {
			t.Fatal(err)
		}
		for _, e := range edits() {
			in := base
			e.do(&in)
			b := newBuilder()
			if err := b.input(in); err != nil {
				t.Fatalf("%s: %v", e.name, err)
			}
			for _, m := range before.members {
				one := readSet{places: []place{m.place}}
				if !bytes.Equal(one.key(nil, before), one.key(nil, b)) {
					reached[m.place] = true
				}
			}
		}
	}
	b := newBuilder()
	if err := b.input(full()); err != nil {
		t.Fatal(err)
	}
	for _, m := range b.members {
		if !reached[m.place] {
			t.Errorf("no edit changes %s", b.json[m.from:m.to])
		}
	}
}
