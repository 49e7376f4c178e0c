package policies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/writ-gateway/writ"
)

// Options say what the policies are for.
type Options struct {
	// Capabilities is every capability there is, internal ones included. What
	// is not in it is permitted to nobody and cannot be judged.
	Capabilities []writ.CapabilityID
	// Tenants that roles are expanded to. Default: "default".
	Tenants []writ.Tenant
	// Timeout of one evaluation. Default and at most reasonable: 500 ms; much
	// less gives false refusals on a busy machine.
	Timeout time.Duration
	// WarmUp is how long the evaluation of an empty call may take when policies
	// are loaded. Default: 10 s, because nobody waits for the answer and a busy
	// machine must not keep the gateway from starting.
	WarmUp time.Duration
}

func (o Options) withDefaults() Options {
	if len(o.Tenants) == 0 {
		o.Tenants = []writ.Tenant{"default"}
	}
	if o.Timeout <= 0 {
		o.Timeout = 500 * time.Millisecond
	}
	if o.WarmUp <= 0 {
		o.WarmUp = warmUpTimeout
	}
	return o
}

func (o Options) validate() error {
	if len(o.Capabilities) == 0 {
		return errors.New("Options.Capabilities is empty")
	}
	for _, c := range o.Capabilities {
		if !c.Valid() {
			return fmt.Errorf("Options.Capabilities: %q is not a capability id", c)
		}
	}
	for _, t := range o.Tenants {
		if !t.Valid() {
			return fmt.Errorf("Options.Tenants: %q is not a tenant", t)
		}
	}
	return nil
}

// Engine answers from the snapshot loaded last. All methods are safe for
// concurrent use; a call that is being decided keeps the snapshot it started
// with.
type Engine struct {
	options Options
	now     atomic.Pointer[snapshot]
	memo    MemoCount // of all rules there have been
	candidates
	overlays
}

// Load compiles a source. Every failure is a *writ.Error with code
// policy_unavailable whose Err names file and line.
func Load(ctx context.Context, src Source, o Options) (*Engine, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, writ.Fault(writ.CodeInternal, "policies.Load", err)
	}
	e := &Engine{options: o, candidates: candidates{missed: make(chan struct{}, 1)}}
	if err := e.Reload(ctx, src); err != nil {
		return nil, err
	}
	return e, nil
}

// Reload compiles a source beside the snapshot in use and then swaps. On an
// error the one in use stays.
func (e *Engine) Reload(ctx context.Context, src Source) error {
	s, err := e.build(ctx, src, e.options)
	if err != nil {
		return &writ.Error{
			Code: writ.CodePolicyDown, Op: "policies.Load", Msg: "the policies do not load",
			Hint: "mend the file it names, or start without --policies for the built-in ones",
			Err:  fmt.Errorf("%s: %w", src.name, first(err)),
		}
	}
	e.now.Store(s)
	return nil
}

func (e *Engine) build(ctx context.Context, src Source, o Options) (*snapshot, error) {
	s, err := build(ctx, src, o)
	if err != nil {
		return nil, err
	}
	s.counts = append(s.counts, &e.memo)
	return s, nil
}

// Memo counts over all rules the engine ever answered from.
func (e *Engine) Memo() *MemoCount { return &e.memo }

// Bundle is the loaded sources as one file, with the sha256 that names it. The
// bytes are shared and must not be changed.
func (e *Engine) Bundle() (b []byte, digest string) {
	s := e.now.Load()
	return s.bundle, s.digest
}

// Revisions names what is loaded: policy covers packs, engine and the shape of
// the input, bindings the roles' model and rows and what lies on top of them.
func (e *Engine) Revisions() (policy, bindings string) {
	s := e.now.Load()
	return s.policy, s.bindings
}

// Permit says whether a role may invoke a capability in a tenant at all. An
// unknown role, tenant or capability is denied. Who may act in the role is
// Bound's question.
func (e *Engine) Permit(role writ.Role, tenant writ.Tenant, c writ.CapabilityID) bool {
	return e.now.Load().Permit(role, tenant, c)
}

// Bound is (*Rules).Bound of the rules loaded last.
func (e *Engine) Bound(p writ.PrincipalID, role writ.Role, tenant writ.Tenant) bool {
	return e.now.Load().Bound(p, role, tenant)
}

// Decide is (*Rules).Decide of the rules loaded last.
func (e *Engine) Decide(ctx context.Context, in writ.PolicyInput) (writ.Decision, error) {
	return e.now.Load().Decide(ctx, in)
}

// Rules are packs and roles, compiled. They never change.
type Rules = snapshot

// Revisions names the rules.
func (s *snapshot) Revisions() (policy, bindings string) { return s.policy, s.bindings }

// Digest names the bundle the rules were made from.
func (s *snapshot) Digest() string { return s.digest }

// Memo counts over the calls these rules have judged.
func (s *snapshot) Memo() *MemoCount { return s.counts[0] }

// Permit says whether a role may invoke a capability in a tenant at all.
func (s *snapshot) Permit(role writ.Role, tenant writ.Tenant, c writ.CapabilityID) bool {
	return s.roles.permit(role, tenant, c)
}

// Decide evaluates the packs routed to the capability. The strongest finding
// is the effect, all findings are returned. A finding that obliges the host to
// what it does not know comes back as a denial with code policy_denied. Needs
// holds what must be approved, Duties what else must be done. Revisions and
// packs are set even when an error (always *writ.Error with code
// policy_unavailable) says that there is no decision; its effect is then deny.
// Packs and findings are shared: do not change them.
func (s *snapshot) Decide(ctx context.Context, in writ.PolicyInput) (writ.Decision, error) {
	d := writ.Decision{Effect: writ.EffectDeny, PolicyRevision: s.policy, BindingsRevision: s.bindings}
	fail := func(err error) (writ.Decision, error) {
		return d, &writ.Error{
			Code: writ.CodePolicyDown, Op: "policies.Decide", Msg: "policy cannot answer",
			Hint: "try again; if it stays, the gateway's log says why", Err: err,
		}
	}
	if in.Call == nil || in.Capability == nil {
		return fail(errors.New("no call to judge"))
	}
	r := s.routes[in.Capability.Judged()]
	if r == nil {
		return fail(fmt.Errorf("no route for capability %s", in.Capability.ID))
	}
	d.Packs = r.refs
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	b := newBuilder()
	if err := b.input(in); err != nil {
		return fail(err)
	}
	found, err := s.answer(ctx, r, in, b)
	if err != nil {
		return fail(err)
	}
	conclude(&d, found)
	d.Record = b.json
	return d, nil
}

// oneQuestion makes denials of findings that ask people different questions: an
// approval holds one answer, which could not be of every form they want. What was
// found may be remembered, so a copy says so.
func oneQuestion(found []writ.Finding) []writ.Finding {
	var first *writ.Need
	differ := false
	for _, f := range found {
		for _, n := range f.Needs {
			switch {
			case n.Kind != writ.ApproveHumanAction:
			case first == nil:
				first = &n
			default: // the names in a schema that was read are in order
				differ = differ || !bytes.Equal(first.Schema, n.Schema)
			}
		}
	}
	if !differ {
		return found
	}
	found = slices.Clone(found)
	for i, f := range found {
		if slices.ContainsFunc(f.Needs, func(n writ.Need) bool { return n.Kind == writ.ApproveHumanAction }) {
			f.Effect, f.Code, f.Needs, f.Duties = writ.EffectDeny, string(writ.CodePolicy), nil, writ.Duties{}
			f.Message = "rules ask people different questions about this call, which can have one answer"
			found[i] = f
		}
	}
	slices.SortFunc(found, stronger)
	return found
}

// conclude makes the decision of what was found: the strongest finding, and
// unless that denies, all that any of the findings obliges to.
func conclude(d *writ.Decision, found []writ.Finding) {
	found = oneQuestion(found)
	d.Findings, d.Effect = found, writ.EffectAllow
	if len(found) > 0 {
		d.Effect = found[0].Effect
	}
	if d.Effect == writ.EffectDeny {
		return
	}
	for _, f := range found {
		d.Needs = append(d.Needs, f.Needs...)
		d.Duties.Join(f.Duties)
	}
}
