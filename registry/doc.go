// Package registry answers what there is: the capabilities that can be called,
// the policies in force, and the receipts of what happened.
//
// It only reads and is pure planning; it holds no registry of its own. Its
// invariants: internal capabilities are never shown, and nobody is shown one his
// role may not invoke; a task capability is shown exactly while an active agent
// declares it, and as callable only when one of them may run it; receipts are handed out as they were signed.
package registry

import (
	"reflect"

	"github.com/writ-gateway/writ"
)

// Config is what the room needs from outside. The functions are called when a
// capability is planned, not before, so they may be set up late; one that is
// missing makes its part of the answers empty.
type Config struct {
	// Builtin lists the gateway's own capabilities, this room's among them.
	Builtin func() []*writ.Capability
	// Rights is what a role may invoke by the policies of a bundle, if they are held.
	Rights func(writ.BundleID, writ.Tenant, writ.Role) (may func(writ.CapabilityID) bool, held bool)
	// Schemas gives the JSON Schemas of a capability's arguments and result.
	Schemas func(*writ.Capability) (args, result writ.RawObject)
	// PolicyInfo says what policies are in force, as a value of PolicyInfoType, a
	// struct whose schema the API publishes.
	PolicyInfo     func() any
	PolicyInfoType reflect.Type
	// Record reads the decision a receipt is of, from its statement and its
	// evidence; Explain says why it was taken, as a value of ExplainType.
	Record      func(writ.Receipt) (PolicyRecord, error)
	Explain     func(PolicyRecord) (any, error)
	ExplainType reflect.Type
	// Shadow is the packs in shadow, by id, and what was counted about them here
	// and is not in the store yet.
	Shadow func(writ.Tenant) (now []writ.PackVer, pending []writ.ShadowPack)
	// Envelope renders a receipt as a DSSE envelope in JSON.
	Envelope func(writ.Receipt) ([]byte, error)
	// Bundle renders a receipt, with its inclusion if it has one, as a Sigstore bundle.
	Bundle func(writ.Receipt) ([]byte, error)
	// Proof renders one that is included as a C2SP tlog-proof.
	Proof func(writ.Receipt) ([]byte, error)
	// LogHead is the transparency log as it is published, proved against a checkpoint
	// of an earlier size unless that is 0.
	LogHead func(since, until int64) (LogHead, error)
	// Evidence decrypts the evidence beside a receipt: the bytes whose SHA-256 the
	// receipt states.
	Evidence func(writ.Receipt) ([]byte, error)
	// Export renders the receipts after a sequence, without a gap, as a signed
	// export: JSON Lines, a header first, then one envelope a line, the signed
	// head last. at is the
	// time the head states, in milliseconds; more says that another piece follows.
	Export func(list []writ.Receipt, after, at int64, more bool) ([]byte, error)
}

// Capabilities are the verbs of this room.
func Capabilities(cfg Config) []*writ.Capability {
	return []*writ.Capability{
		list(cfg), get(cfg), invoke(cfg), policyInfo(cfg), explainPolicy(cfg), policyRecords(cfg), policyShadow(cfg), getReceipt(cfg), listReceipts(cfg), exportReceipts(cfg), readEvidence(cfg), logHead(cfg), logPublish(),
	}
}

// builtins are the capabilities callers may know.
func (c Config) builtins() []*writ.Capability {
	if c.Builtin == nil {
		return nil
	}
	var out []*writ.Capability
	for _, k := range c.Builtin() {
		if !k.Internal {
			out = append(out, k)
		}
	}
	return out
}

// PolicyInfoArgs are empty.
type PolicyInfoArgs struct{}

func policyInfo(cfg Config) *writ.Capability {
	k := writ.Define[PolicyInfoArgs, struct{}](writ.Capability{
		ID: "policy.info", Safety: writ.SafetyReadOnly, Summary: "Show the policies and roles in force.",
		Example: `{}`,
	}, writ.Verb[PolicyInfoArgs]{
		Plan: func(*writ.Call, *PolicyInfoArgs, writ.Snapshot, writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if cfg.PolicyInfo == nil {
				return tx, r, writ.Refuse(writ.CodeNotReady, "registry.PolicyInfo", "policies are not loaded yet", "try again in a moment")
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: cfg.PolicyInfo()}, nil
		},
	})
	if cfg.PolicyInfoType != nil {
		k.Result = cfg.PolicyInfoType
	}
	return k
}
