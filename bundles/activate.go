package bundles

import (
	"strings"

	"github.com/writ-gateway/writ"
)

// PolicyActivateArgs name the bundle that is to be in force.
type PolicyActivateArgs struct {
	Digest string `json:"digest" doc:"Digest of a staged bundle." pattern:"^sha256:[0-9a-f]{64}$"`
	Force  bool   `json:"force,omitempty" doc:"Do not wait for replicas that are not ready: they answer 503 until they have compiled it. One must be ready all the same."`
}

func (r Room) activate() *writ.Capability {
	const op = "bundles.Activate"
	return writ.Define[PolicyActivateArgs, BundleView](writ.Capability{
		ID: "policy.activate", Safety: writ.SafetyMutating, Summary: "Put a staged policy bundle in force on every replica, in one commit.",
		Example: `{"digest":"sha256:4ca9f4fc0a9cdcf5a4b2bb9f3d8b8b1e6f7d2c0a9e5b4c3d2e1f0a9b8c7d6e5f"}`,
	}, writ.Verb[PolicyActivateArgs]{
		Locks: func(*writ.Call, *PolicyActivateArgs) []writ.Key { return []writ.Key{writ.GateKey} },
		Reads: func(_ *writ.Call, a *PolicyActivateArgs, s writ.Snapshot) (writ.ReadSet, error) {
			return readSwitch(s, writ.BundleOf(a.Digest))
		},
		Plan: func(c *writ.Call, a *PolicyActivateArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			b, err := load(op, s, a.Digest)
			if err != nil {
				return tx, reply, err
			}
			return r.switchTo(op, c, s, b, a.Force)
		},
	})
}

// PolicyRollbackArgs may say what is wrong.
type PolicyRollbackArgs struct {
	From string `json:"from,omitempty" doc:"Digest of the bundle to be rid of; refused when another one is in force by now." pattern:"^sha256:[0-9a-f]{64}$"`
}

func (r Room) rollback() *writ.Capability {
	const op = "bundles.Rollback"
	return writ.Define[PolicyRollbackArgs, BundleView](writ.Capability{
		ID: "policy.rollback", Safety: writ.SafetyMutating, Summary: "Put the policy bundle in force again that was before the present one.",
		Example: `{"from":"sha256:4ca9f4fc0a9cdcf5a4b2bb9f3d8b8b1e6f7d2c0a9e5b4c3d2e1f0a9b8c7d6e5f"}`,
	}, writ.Verb[PolicyRollbackArgs]{
		Locks: func(*writ.Call, *PolicyRollbackArgs) []writ.Key { return []writ.Key{writ.GateKey} },
		Reads: func(_ *writ.Call, _ *PolicyRollbackArgs, s writ.Snapshot) (writ.ReadSet, error) {
			now, ok, err := current(s)
			if err != nil || !ok {
				return readSwitch(s, "")
			}
			return readSwitch(s, now.Replaced)
		},
		Plan: func(c *writ.Call, a *PolicyRollbackArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			now, ok, err := current(s)
			switch {
			case err != nil:
				return tx, reply, err
			case ok && a.From != "" && a.From != now.ID.Digest():
				return tx, reply, writ.Refuse(writ.CodeIllegal, op, "the bundle in force is another one by now", "read policy.list again").
					With("kind", writ.ObjectBundle).With("active", now.ID.Digest())
			case !ok || now.Replaced == "":
				return tx, reply, writ.Refuse(writ.CodeIllegal, op, "there was no bundle before the present one", "stage and activate another one").
					With("kind", writ.ObjectBundle)
			}
			b, err := load(op, s, now.Replaced.Digest())
			if err != nil {
				return tx, reply, err
			}
			// Whoever rolls back is in a hurry: one ready replica is enough.
			return r.switchTo(op, c, s, b, true)
		},
	})
}

// current is the bundle in force. ok is false when it was not read yet, or the
// gate names none.
func current(s writ.Snapshot) (b writ.Bundle, ok bool, err error) {
	if !s.Has(writ.GateKey) {
		return b, false, nil
	}
	gate, _, ok, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err != nil || !ok || gate.Bundle == "" || !s.Has(writ.BundleKey(gate.Bundle)) {
		return b, false, err
	}
	b, _, ok, err = writ.Get[writ.Bundle](s, writ.BundleKey(gate.Bundle))
	return b, ok, err
}

// readSwitch names what putting a bundle in force must see: the gate, the bundle
// with its bytes, who is alive and ready, what is in force, and what was before,
// and the bindings by capability, which stay.
func readSwitch(s writ.Snapshot, to writ.BundleID) (rs writ.ReadSet, err error) {
	rs.Docs = append(writ.BindingsKeys(), writ.GateKey)
	rs.Ranges = []writ.Range{replicas}
	if to != "" {
		rs.Docs = append(rs.Docs, withBytes(to)...)
		rs.Ranges = append(rs.Ranges, ready(to))
	}
	if !s.Has(writ.GateKey) {
		return rs, nil
	}
	gate, _, ok, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err != nil || !ok || gate.Bundle == "" {
		return rs, err
	}
	rs.Docs = append(rs.Docs, writ.BundleKey(gate.Bundle))
	now, ok, err := current(s)
	if ok && now.Replaced != "" {
		rs.Ranges = append(rs.Ranges, ready(now.Replaced))
	}
	return rs, err
}

// switchTo puts a bundle in force if the replicas are ready for it.
func (r Room) switchTo(op string, c *writ.Call, s writ.Snapshot, b writ.Bundle, force bool) (tx writ.Tx, reply writ.Reply, err error) {
	gate, err := gateOf(s)
	if err != nil {
		return tx, reply, err
	}
	if gate.Bundle == b.ID {
		return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(s, b)}, nil
	}
	if !wanted(b) {
		return tx, reply, writ.IllegalMove(op, writ.ObjectBundle, string(b.State), string(writ.BundleActive))
	}
	if r.cfg.Vet != nil && b.State == writ.BundleStaged && b.Signer == "" {
		return tx, reply, writ.Refuse(writ.CodePolicy, op, "the bundle is not signed: it was staged before this gateway asked for signatures", "withdraw it and stage it signed")
	}
	have, missing := readiness(s, b.ID)
	if len(have) == 0 || len(missing) > 0 && !force {
		return tx, reply, notReady(op, have, missing)
	}
	canonical, err := r.bytesOf(op, s, b.ID)
	if err != nil {
		return tx, reply, err
	}
	got, err := r.cfg.Open(canonical, nil, false)
	if err != nil {
		return tx, reply, err
	}
	over, err := writ.BindingsIn(s)
	if err == nil {
		err = enforce(op, c, s, &tx, gate, &b, got, over)
	}
	if err != nil {
		return tx, reply, err
	}
	return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(s, b), Versioned: []string{"version"}, ETag: -1}, nil
}

func notReady(op string, have, missing []string) *writ.Error {
	e := writ.Refuse(writ.CodeIllegal, op, "these replicas do not hold the bundle compiled: "+strings.Join(missing, ", "),
		"wait until policy.list shows them as ready, or use force if they are not coming").
		With("kind", writ.ObjectBundle).With("not_ready", strings.Join(missing, ","))
	if len(have) == 0 {
		e.Msg = "no replica holds the bundle compiled yet"
		e.Hint = "wait until policy.list shows one as ready; not even force puts rules in force that nobody can compile"
	}
	return e
}

// enforce retires the bundle in force and puts b in its place, in one
// transaction. What capabilities bound and unbound stays on top of it.
func enforce(op string, c *writ.Call, s writ.Snapshot, tx *writ.Tx, gate writ.Gate, b *writ.Bundle, got Contents, over writ.BindingSet) error {
	if !writ.AnyoneBound(got.Bound(c.Caller.Tenant), over, writ.RoleOperator) {
		return writ.Refuse(writ.CodeIllegal, op, "under this bundle nobody could act as operator: what its roles bind was taken away by capability",
			"bind an operator by name first, with role.bind, or name one in roles/policy.csv").With("kind", writ.ObjectBundle)
	}
	from, before := b.State, gate
	b.State, b.Policy, b.Bindings = writ.BundleActive, got.Policy, got.Bindings
	if gate.Bundle != b.ID {
		b.Replaced = gate.Bundle
	}
	if err := move(c, s, tx, b, from); err != nil {
		return err
	}
	if before.Bundle != "" && before.Bundle != b.ID {
		old, _, ok, err := writ.Get[writ.Bundle](s, writ.BundleKey(before.Bundle))
		if err != nil {
			return err
		}
		if ok && old.State == writ.BundleActive {
			old.State = writ.BundleRetired
			if err := move(c, s, tx, &old, writ.BundleActive); err != nil {
				return err
			}
			// Replicas hold what is in force and what was before, nothing older.
			if old.Replaced != "" && old.Replaced != b.ID {
				forget(s, tx, old.Replaced)
			}
		}
	}
	gate.Bundle, gate.PolicyRevision, gate.BindingsRevision = b.ID, got.Policy, writ.BindingsRevision(got.Bindings, over.Digest(c.Caller.Tenant))
	gate.State, gate.Schema = writ.GateOpen, max(gate.Schema, writ.Schema)
	gate.Receipt = writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
	tx.Move(writ.ObjectGate, "gate", string(before.State), string(gate.State))
	return tx.PutDoc(s, writ.GateKey, writ.ObjectGate, gate)
}
