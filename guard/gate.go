package guard

import "github.com/writ-gateway/writ"

const gateSet writ.CapabilityID = "gate.set"

// policyAdopt opens a gate that is not open, or that names policies of before
// there were bundles; so it is not held against the gate.
const policyAdopt writ.CapabilityID = "policy.adopt"

// GateSetArgs name the policies, bindings and receipt key that are in force
// from this commit on.
type GateSetArgs struct {
	PolicyRevision   string `json:"policy_revision" doc:"Revision of the policy packs."`
	BindingsRevision string `json:"bindings_revision" doc:"Revision of the role bindings."`
	ReceiptKeyID     string `json:"receipt_key_id" doc:"Fingerprint of the receipt key."`
}

// GateSetReply confirms the gate.
type GateSetReply struct {
	Version int64 `json:"version" doc:"Version of the gate document."`
}

// Capabilities are the door's own: what the gateway does to a shard itself.
func Capabilities() []*writ.Capability {
	return []*writ.Capability{writ.Define[GateSetArgs, GateSetReply](writ.Capability{
		ID: gateSet, Summary: "Put policies, role bindings and the receipt key in force.",
		Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
	}, writ.Verb[GateSetArgs]{
		Locks: func(*writ.Call, *GateSetArgs) []writ.Key { return []writ.Key{writ.GateKey} },
		Reads: func(*writ.Call, *GateSetArgs, writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.GateKey}}, nil
		},
		Plan: planGate,
	})}
}

func planGate(c *writ.Call, a *GateSetArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	var tx writ.Tx
	old, version, ok, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err != nil {
		return tx, writ.Reply{}, err
	}
	if ok && old.Schema > writ.Schema {
		return tx, writ.Reply{}, writ.Refuse(writ.CodeUpgrade, "guard.gate", "this replica is too old for its store", "upgrade this replica")
	}
	gate := old
	gate.State, gate.Schema = writ.GateOpen, writ.Schema
	if old.ReceiptKeyID == "" { // else only key.activate changes it
		gate.ReceiptKeyID = a.ReceiptKeyID
	}
	if old.Bundle == "" { // else only an activation changes what is in force
		gate.PolicyRevision, gate.BindingsRevision = a.PolicyRevision, a.BindingsRevision
	}
	if ok && gate == old {
		return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: GateSetReply{Version: version}}, nil
	}
	gate.Receipt = writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
	tx.Mandate = true
	tx.Move(writ.ObjectGate, "gate", string(old.State), string(gate.State))
	if err := tx.PutDoc(s, writ.GateKey, writ.ObjectGate, gate); err != nil {
		return tx, writ.Reply{}, err
	}
	return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: GateSetReply{}, Versioned: []string{"version"}}, nil
}
