package guard

import (
	"github.com/writ-gateway/writ"
)

// cosigned is what the evidence keeps of a signature that held: with the key it
// names, anybody can check it again.
type cosigned struct {
	writ.Cosignature
	Text writ.Cosigned `json:"signed"`
}

// cosign holds the call to the signature of its caller's own key, when policy
// wants one. The keys are those of the agent as it was read in this try, so the
// commit fails if one was taken away meanwhile.
func (t *try) cosign() error {
	if !t.dec.Duties.Cosign {
		return nil
	}
	const how = `send Idempotency-Key, and Cosignature: v1 KEYID SIGNATURE by a key of the agent; docs/policies.md says what is signed, and writ --cosign-key FILE does it`
	c := t.call
	switch {
	case t.d.cfg.Cosigner == nil:
		return t.owes("policy wants this call signed by its caller, and this gateway checks no such signatures", "give it a Cosigner")
	case t.k.ReadOnly():
		return t.owes("policy wants this call signed by its caller, and a call that changes nothing has nothing to sign",
			"operators: let the rule hold of changes only")
	case c.Caller.Agent == "":
		return t.owes("policy wants this call signed by its caller, and only agents have keys", "make it in the session of an agent that has registered keys")
	case t.blind:
		return t.owes("policy wants this call signed by its caller, with what comes in its body", "say the digest of the body among the arguments, and sign them")
	case c.IdempotencyKey == "" || c.Cosignature == nil:
		return t.owes("policy wants this call signed by its caller", how)
	}
	agent, _, ok, err := writ.Get[writ.Agent](t.snap, writ.AgentKey(c.Caller.Agent))
	if err != nil {
		return err
	}
	key, known := agent.Key(c.Cosignature.KeyID)
	if !ok || !known {
		return t.owes("the call is signed with a key its agent has not registered", "sign with one of keys in agent.info, or register it")
	}
	sent := c.Raw
	if c.Sent != nil {
		sent = c.Sent
	}
	digest, err := t.d.cfg.Cosigner.ArgsDigest(sent)
	if err != nil {
		return t.owes("policy wants this call signed by its caller, and "+err.Error(), "send whole numbers as text, or smaller ones")
	}
	text := writ.Cosigned{
		ArgsDigest: digest, Capability: t.k.ID, IdempotencyKey: c.IdempotencyKey, Session: c.Caller.Session, Tenant: c.Caller.Tenant,
	}
	if !t.d.cfg.Cosigner.Verify(key, text, c.Cosignature.Signature) {
		return t.owes("the signature of the call does not hold", how)
	}
	t.signed = &cosigned{*c.Cosignature, text}
	return nil
}
