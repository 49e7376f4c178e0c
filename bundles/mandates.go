package bundles

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// PolicyAdoptArgs are what a replica was started with.
type PolicyAdoptArgs struct {
	Bundle     Upload `json:"bundle" doc:"The bundle, base64, canonical, compressed."`
	Replica    string `json:"replica" doc:"The replica; it holds the bundle compiled."`
	ReceiptKey string `json:"receipt_key_id" doc:"Fingerprint of the receipt key."`
	Force      bool   `json:"force,omitempty" doc:"Put it in force although another one is."`
}

// Witnessed is what the evidence keeps of the arguments.
func (a *PolicyAdoptArgs) Witnessed() any {
	return struct {
		Replica string `json:"replica"`
		Force   bool   `json:"force,omitempty"`
	}{a.Replica, a.Force}
}

// PolicyAdopted says what became of it.
type PolicyAdopted struct {
	Adopted bool   `json:"adopted" doc:"Whether it is in force by this call."`
	Active  string `json:"active" doc:"Digest of the bundle in force."`
}

// adopt stages a bundle and puts it in force in one commit: on a store that has
// no bundle yet, new or made before there were bundles; when the bundle in
// force has other revisions under this version of the program; or, with force,
// because whoever starts the replica says so. It is a mandate, so that no bundle
// can lock out the one that is to replace it.
func (r Room) adopt() *writ.Capability {
	const op = "bundles.Adopt"
	return writ.Define[PolicyAdoptArgs, PolicyAdopted](writ.Capability{
		ID: "policy.adopt", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Put the bundle in force that a replica was started with.",
	}, writ.Verb[PolicyAdoptArgs]{
		Locks: func(*writ.Call, *PolicyAdoptArgs) []writ.Key { return []writ.Key{writ.GateKey} },
		Reads: func(_ *writ.Call, a *PolicyAdoptArgs, s writ.Snapshot) (rs writ.ReadSet, err error) {
			got, err := r.open(op, a.Bundle, s, writ.Gate{}, false)
			if err != nil {
				return rs, err
			}
			return readSwitch(s, got.ID)
		},
		Plan: func(c *writ.Call, a *PolicyAdoptArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			tx.Mandate = true
			gate, _, opened, err := writ.Get[writ.Gate](s, writ.GateKey)
			if err != nil {
				return tx, reply, err
			}
			if opened && gate.Schema > writ.Schema {
				return tx, reply, writ.Refuse(writ.CodeUpgrade, op, "this replica is too old for its store", "upgrade this replica")
			}
			got, err := r.open(op, a.Bundle, s, writ.Gate{}, false)
			if err != nil {
				return tx, reply, err
			}
			reply = writ.Reply{Outcome: writ.OutcomeDone, Body: PolicyAdopted{Active: gate.Bundle.Digest()}}
			others := alive(s)
			others = slices.DeleteFunc(others, func(name string) bool { return name == a.Replica })
			over, err := writ.BindingsIn(s)
			if err != nil {
				return tx, reply, err
			}
			same := gate.Bundle == got.ID
			switch {
			case same && gate.PolicyRevision == got.Policy && gate.BindingsRevision == writ.BindingsRevision(got.Bindings, over.Digest(c.Caller.Tenant)),
				gate.Bundle != "" && !same && !a.Force:
				return tx, reply, nil
			case same && len(others) > 0 && !a.Force:
				return tx, reply, notReady(op, []string{a.Replica}, others)
			}
			old, _, known, err := writ.Get[writ.Bundle](s, writ.BundleKey(got.ID))
			if err != nil {
				return tx, reply, err
			}
			b := old
			if !known || old.State != writ.BundleActive && old.State != writ.BundleStaged {
				if b, err = r.put(op, c, s, &tx, old, got, "", writ.SourceFolder); err != nil {
					return tx, reply, err
				}
			}
			if gate.ReceiptKeyID == "" {
				gate.ReceiptKeyID = a.ReceiptKey
			}
			if err := enforce(op, c, s, &tx, gate, &b, got, over); err != nil {
				return tx, reply, err
			}
			reply.Body = PolicyAdopted{Adopted: true, Active: b.ID.Digest()}
			return tx, reply, nil
		},
	})
}

// PolicyReportArgs are what a replica says about a bundle.
type PolicyReportArgs struct {
	Digest  string `json:"digest" doc:"Digest of the bundle." pattern:"^sha256:[0-9a-f]{64}$"`
	Replica string `json:"replica" doc:"The replica." pattern:"^[a-z0-9-]{1,64}$"`
	OK      bool   `json:"ok,omitempty" doc:"Whether it holds the bundle compiled."`
	Reason  string `json:"reason,omitempty" doc:"What the compiler said, if not." maxLength:"2000"`
}

// Noted says what a mandate did.
type Noted struct {
	State writ.BundleState `json:"state,omitempty" doc:"State of the bundle." enum:"staged,active,retired,refused,withdrawn"`
}

// report notes that a replica holds a bundle compiled, which is an entry of an
// index and no fact; or refuses the bundle, which is one.
func (r Room) report() *writ.Capability {
	return writ.Define[PolicyReportArgs, Noted](writ.Capability{
		ID: "policy.report", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Note that a replica is ready for a policy bundle, or refuse the bundle because it does not compile.",
	}, writ.Verb[PolicyReportArgs]{
		Reads: func(_ *writ.Call, a *PolicyReportArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			id := writ.BundleOf(a.Digest)
			return writ.ReadSet{Docs: withBytes(id), Ranges: []writ.Range{replicas, ready(id)}}, nil
		},
		Plan: func(c *writ.Call, a *PolicyReportArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			tx.Mandate = true
			b, err := load("bundles.Report", s, a.Digest)
			if err != nil {
				return tx, reply, err
			}
			reply = writ.Reply{Outcome: writ.OutcomeDone, Body: Noted{State: b.State}}
			switch {
			case a.OK && wanted(b):
				living := alive(s)
				for _, m := range s.Ranges[ready(b.ID)].Members {
					switch {
					case m.Name == a.Replica:
					case !slices.Contains(living, m.Name):
						tx.Unindex(writ.ReadyOn(b.ID), m.Name)
					case m.Score != 0: // an earlier version put it there, and none is found among others
						tx.Index(writ.ReadyOn(b.ID), m.Name, 0)
					}
				}
				tx.Index(writ.ReadyOn(b.ID), a.Replica, 0)
				return tx, reply, nil
			case a.OK || b.State != writ.BundleStaged:
				return tx, reply, nil // it is too late for a refusal
			}
			b.State, b.Reason, b.Replica = writ.BundleRefused, a.Reason, a.Replica
			drop(s, &tx, &b)
			forget(s, &tx, b.ID)
			if err := move(c, s, &tx, &b, writ.BundleStaged); err != nil {
				return tx, reply, err
			}
			reply.Body = Noted{State: b.State}
			return tx, reply, nil
		},
	})
}

// PolicyBeatArgs say that a replica lives.
type PolicyBeatArgs struct {
	Replica string `json:"replica" doc:"The replica." pattern:"^[a-z0-9-]{1,64}$"`
	Seconds int64  `json:"seconds" doc:"How long it counts as alive without another beat; 0: it is going." minimum:"0" maximum:"600"`
	Tidy    bool   `json:"tidy,omitempty" doc:"Forget the replicas that are gone."`
	Alone   bool   `json:"alone,omitempty" doc:"There can be no other: forget them all."`
}

// beat keeps a replica among those an activation waits for. It moves a score and
// leaves no fact.
func (r Room) beat() *writ.Capability {
	return writ.Define[PolicyBeatArgs, Noted](writ.Capability{
		ID: "policy.beat", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Note that a replica is alive.",
	}, writ.Verb[PolicyBeatArgs]{
		Reads: func(_ *writ.Call, a *PolicyBeatArgs, _ writ.Snapshot) (rs writ.ReadSet, err error) {
			if a.Tidy || a.Alone {
				rs.Ranges = []writ.Range{replicas}
			}
			return rs, nil
		},
		Plan: func(_ *writ.Call, a *PolicyBeatArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			tx.Mandate = true
			for _, m := range s.Ranges[replicas].Members {
				if m.Name != a.Replica && (a.Alone || m.Score < s.Now) {
					tx.Unindex(writ.IndexReplicas, m.Name)
				}
			}
			if a.Seconds == 0 {
				tx.Unindex(writ.IndexReplicas, a.Replica)
			} else {
				tx.Index(writ.IndexReplicas, a.Replica, s.Now+a.Seconds*1000)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: Noted{}}, nil
		},
	})
}
