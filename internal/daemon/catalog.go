package daemon

import (
	"fmt"
	"reflect"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/agents"
	"github.com/writ-gateway/writ/approvals"
	"github.com/writ-gateway/writ/effects"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/grants"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/keys"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/queue"
	"github.com/writ-gateway/writ/quotas"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
	"github.com/writ-gateway/writ/registry"
	"github.com/writ-gateway/writ/roles"
	"github.com/writ-gateway/writ/runs"
	"github.com/writ-gateway/writ/secrets"
)

// rooms is what the rooms need of each other and of the outside.
type rooms struct {
	secret        func(*writ.Call) string
	policyInfo    func() any
	gate          func(id string) bool // whether a policy pack or rule is loaded
	record        func(writ.Receipt) (registry.PolicyRecord, error)
	explain       func(registry.PolicyRecord) (any, error)
	export        func(list []writ.Receipt, after, at int64, more bool) ([]byte, error)
	evidence      func(writ.Receipt) ([]byte, error)
	shadow        func(writ.Tenant) ([]writ.PackVer, []writ.ShadowPack)
	logHead       func(since, until int64) (registry.LogHead, error)
	keys          keys.Config
	minLease      int64
	keepArtifacts int64                                        // milliseconds
	vet           func(sent []byte) (signer string, err error) // nil: bundles need no signature
	tell          writ.Subscribers
	bound         func(writ.PrincipalID, writ.Role, writ.Tenant) bool
	rights        func(writ.BundleID, writ.Tenant, writ.Role) (may func(writ.CapabilityID) bool, held bool)
	roles         roles.Config
}

// build collects the capabilities of every room, with the validator of their
// arguments.
func build(r rooms) (*writ.Registry, *gateway.Validator, error) {
	// The validator is derived from the registry, and enqueueing and approvals
	// check arguments with it; no call runs before both are there.
	var v *gateway.Validator
	reg, err := collect(r, &v)
	if err == nil {
		v, err = gateway.NewValidator(reg)
	}
	return reg, v, err
}

// collect puts the capabilities of every room together. v is where their validator will
// be once calls are made.
func collect(r rooms, v **gateway.Validator) (reg *writ.Registry, err error) {
	var all []*writ.Capability
	builtin := map[writ.CapabilityID]bool{}
	all = append(all, guard.Capabilities()...)
	all = append(all, agents.Capabilities(agents.Config{
		Secret: r.secret, Builtin: func(id writ.CapabilityID) bool { return builtin[id] },
		CheckSchema: func(schema writ.RawObject) error { return (*v).CheckSchema(schema) },
		PublicKey:   receipts.SigningKey,
		Gate:        r.gate,
	})...)
	all = append(all, runs.Capabilities(runs.Config{Verdicts: receipts.Verdicts{}, Workflow: checkWorkflow})...)
	all = append(all, queue.Capabilities(queue.Config{MinLeaseSeconds: r.minLease, Alive: agents.Alive{}, Router: router{}, Health: agents.Health{}, Verdicts: receipts.Verdicts{}, Followers: followers(), KeepArtifactsMs: r.keepArtifacts, CheckSchema: func(schema writ.RawObject) error { return (*v).CheckSchema(schema) }, Validate: func(schema, args writ.RawObject) error {
		if len(schema) == 0 {
			return nil // the agent asks for nothing in particular
		}
		return (*v).Schema(schema, args)
	}})...)
	all = append(all, newApprovals(approvals.Config{
		Tell:       r.tell,
		Bound:      r.bound,
		Validate:   func(schema, value writ.RawObject) error { return (*v).Schema(schema, value) },
		Capability: func(id writ.CapabilityID) *writ.Capability { return reg.Get(id) },
		Decode:     func(k *writ.Capability, raw []byte) (any, error) { return (*v).Decode(k, raw) },
	}).Capabilities()...)
	all = append(all, effects.Capabilities()...)
	all = append(all, grants.Capabilities()...)
	all = append(all, secrets.Capabilities()...)
	all = append(all, newBundles(r.vet).Capabilities()...)
	all = append(all, keys.New(r.keys).Capabilities()...)
	all = append(all, roles.New(r.roles).Capabilities()...)
	all = append(all, quotas.New(quotas.Config{Capability: func(id writ.CapabilityID) *writ.Capability { return reg.Get(id) }}).Capabilities()...)
	all = append(all, registry.Capabilities(registry.Config{
		Builtin: func() []*writ.Capability { return all }, Rights: r.rights,
		PolicyInfo: r.policyInfo, PolicyInfoType: reflect.TypeFor[policies.Info](),
		Record: r.record, Explain: r.explain, ExplainType: reflect.TypeFor[policies.Explanation](),
		Schemas:  func(k *writ.Capability) (args, result writ.RawObject) { return (*v).Schemas(k) },
		Envelope: receipts.Envelope, Bundle: tlog.Bundle, Proof: tlog.Proof, Export: r.export, Evidence: r.evidence, Shadow: r.shadow, LogHead: r.logHead,
	})...)
	for _, k := range all {
		builtin[k.ID] = true
	}
	reg, err = writ.NewRegistry(all...)
	return reg, err
}

// newApprovals joins the room of approvals with the rooms whose objects wait
// while people decide. What is in cfg its capabilities need; settling calls at
// the door needs none of it.
func newApprovals(cfg approvals.Config) approvals.Room {
	cfg.Waiters = []approvals.Waiter{queue.Parking{}, runs.Pausing{}}
	return approvals.New(cfg)
}

// Catalog is the registry without anything behind it: for descriptions, help
// and generated files. Its capabilities describe themselves and plan nothing
// real.
func Catalog() *writ.Registry {
	r, err := collect(rooms{secret: func(*writ.Call) string { return "" }, policyInfo: func() any { return nil }}, new(*gateway.Validator))
	if err != nil {
		panic(fmt.Sprintf("the built-in capabilities are inconsistent: %v", err))
	}
	return r
}

// IDs lists every capability, internal ones included.
func IDs(r *writ.Registry) []writ.CapabilityID {
	var out []writ.CapabilityID
	for _, k := range r.All() {
		out = append(out, k.ID)
	}
	return out
}

// dues says which mandate each deadline index calls for. Leases, heartbeats and
// lives are quiet after an outage: nobody could renew them.
func dues() []guard.Due {
	one := func(id writ.CapabilityID, arg string) func(string) (writ.CapabilityID, map[string]any, bool) {
		return func(member string) (writ.CapabilityID, map[string]any, bool) {
			return id, map[string]any{arg: member}, true
		}
	}
	kind := func(id writ.CapabilityID, arg string) func(string) (writ.CapabilityID, map[string]any) {
		return func(member string) (writ.CapabilityID, map[string]any) { return id, map[string]any{arg: member} }
	}
	return []guard.Due{
		{Index: writ.IndexLeases, Call: one("task.expire", "task_id"), Grace: true},
		{Index: writ.IndexEffectLeases, Call: one("effect.expire", "effect_id"), Grace: true},
		{Index: writ.IndexBeats, Call: one("session.lapse", "session_id"), Grace: true},
		{Index: writ.IndexLives, Call: one("session.expire", "session_id")},
		{Index: writ.IndexExpiries, Call: one("approval.expire", "approval_id")},
		{Index: writ.IndexReady, Call: one("task.ready", "task_id")},
		{Index: writ.IndexQuotas, Call: func(member string) (writ.CapabilityID, map[string]any, bool) {
			return "quota.tidy", quotas.TidyArgs(member), true
		}},
		guard.Todo(map[string]func(string) (writ.CapabilityID, map[string]any){
			"session":   kind("session.cleanup", "session_id"),
			"jail":      kind("session.jail.lapse", "session_id"),
			"agent":     kind("agent.cleanup", "agent_id"),
			"run":       kind("run.reap", "run_id"),
			"offer":     func(rest string) (writ.CapabilityID, map[string]any) { return "run.offer", queue.OfferArgs(rest) },
			"refill":    func(rest string) (writ.CapabilityID, map[string]any) { return "task.refill", queue.RefillArgs(rest) },
			"reoffer":   kind("task.reoffer", "task_id"),
			"health":    kind("agent.health.record", "agent_id"),
			"wake":      kind("task.wake", "task_id"),
			"unblock":   kind("task.unblock", "task_id"),
			"unreserve": kind("task.unreserve", "task_id"),
			"outrun":    kind("task.outrun", "task_id"),
			"deadline":  kind("task.overdue", "task_id"),
			"untangle":  kind("task.untangle", "task_id"),
			"stall":     kind("run.stall", "run_id"),
			"exhaust":   func(rest string) (writ.CapabilityID, map[string]any) { return "run.exhaust", runs.ExhaustArgs(rest) },
			"overrun":   kind("run.overrun", "run_id"),
			"settle":    kind("run.settle", "run_id"),
			"cascade":   kind("run.cascade", "run_id"),
			"recall":    kind("task.recall", "agent_id"),
			"withdraw":  kind("approval.withdraw", "agent_id"),
			"settled":   kind("agent.settle", "agent_id"),
			"artifacts": kind("artifact.purge", "task_id"),
		}),
	}
}

// router lets the queue find agents the way agent.route does.
type router struct{}

func (router) Reads(input string, s writ.Snapshot) writ.ReadSet { return agents.FindReads(input, s) }

func (router) Route(input string, s writ.Snapshot) (queue.Routed, error) {
	found, err := agents.Find(input, s)
	out := queue.Routed{Input: found.Data.Input, MatchType: found.Data.MatchType, Matched: found.Data.Matched, Revision: found.Data.Revision, Candidates: []writ.AgentID{}}
	for _, c := range found.Data.Candidates {
		out.Candidates = append(out.Candidates, c.ID)
	}
	return out, err
}
