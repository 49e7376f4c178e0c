package writ

// Cosigned is what an agent's own key signs for a call: which call, with which
// arguments, by which session, and under which Idempotency-Key. So a signature
// that somebody else gets hold of can only ever repeat that one call. In JSON
// the members are in canonical order.
type Cosigned struct {
	ArgsDigest     string       `json:"args_digest"` // SHA-256 in hex of the arguments in canonical JSON (RFC 8785)
	Capability     CapabilityID `json:"capability"`
	IdempotencyKey string       `json:"idempotency_key"`
	Session        SessionID    `json:"session"`
	Tenant         Tenant       `json:"tenant"`
}

// Cosignature is a caller's own signature of a call.
type Cosignature struct {
	KeyID     string `json:"key_id"`
	Signature []byte `json:"signature"` // Ed25519, or ECDSA P-256 over SHA-256 in ASN.1 with the lower s
}

// PublicKey is a key somebody signs with.
type PublicKey struct {
	ID  string `json:"id" doc:"Fingerprint of the key: SHA256: and 43 characters, as OpenSSH writes it."`
	PEM string `json:"pem" doc:"The key in PEM (PKIX)."`
}

// MaxAgentKeys is how many keys one agent may register.
const MaxAgentKeys = 4
