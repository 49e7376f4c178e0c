package guard

import (
	"context"
	"io"

	"github.com/writ-gateway/writ"
)

// Decider is what the door asks of policy. package policies implements it.
type Decider interface {
	// Bound says whether a principal may act in a role in a tenant, Permit whether
	// the role may invoke a capability there. A call needs both. Default deny.
	// They must not allocate.
	Bound(p writ.PrincipalID, role writ.Role, tenant writ.Tenant) bool
	Permit(role writ.Role, tenant writ.Tenant, c writ.CapabilityID) bool
	// Decide evaluates the packs routed to the capability. An error means that
	// policy could not answer: the door fails closed with policy_unavailable.
	// The returned decision always names packs and revisions. What its findings
	// oblige the door to stands in Needs and Duties; a finding that asks for
	// anything else must come back as a denial.
	Decide(ctx context.Context, in writ.PolicyInput) (writ.Decision, error)
	// Revisions of what is loaded now.
	Revisions() (policy, bindings string)
}

// RoleGiver is implemented by arguments of calls that give somebody a role: the
// door refuses the call unless the principal is bound to it by the rules the call
// is judged by.
type RoleGiver interface {
	GivesRole() (writ.PrincipalID, writ.Role)
}

// VerdictCarrier is implemented by arguments of calls that are verdicts: they can
// carry the signature of the verifier's own key, and their capabilities plan with it.
type VerdictCarrier interface{ SignedVerdict() string }

// Switcher is a Decider that can hold several sets of rules. A call is judged,
// from its role to its packs, by the set its own snapshot's gate names.
type Switcher interface {
	Decider
	// Under gives the rules of a gate, if this replica has them compiled.
	// version is the version of the gate.
	Under(policy, bindings string, version int64) (Decider, bool)
}

// Sealer is what the door asks of receipts.
type Sealer interface {
	// KeyID of the receipt key in use.
	KeyID() string
	// Use says whether the receipt key a gate of this version names is held, and
	// makes it the one in use.
	Use(keyID string, version int64) bool
	// Ready says whether the key can sign now. The door asks before every
	// commit, so it must cost next to nothing while the key is in use.
	Ready() error
	// Draft renders the statement, cut where the commit goes.
	Draft(st writ.Statement) (head, tail []byte, err error)
	// Evidence salts, digests and encrypts an evidence object: the digest goes
	// into the statement, the sealed bytes into the fact.
	Evidence(salt [16]byte, receipt writ.ReceiptID, object any) (digest string, sealed []byte, err error)
	// Seal signs a stored fact. The same fact always gives the same bytes.
	Seal(f writ.StoredFact) (writ.Receipt, error)
}

// Archive answers reads of receipts: what the ledger holds, then what is still
// in the outbox. package receipts/ledger implements it.
type Archive interface {
	Read(ctx context.Context, shard writ.Tenant, q writ.ArchiveRead) ([]writ.Receipt, error)
}

// Blobs says how stored bytes are, and stores some. package store/blobs implements it.
type Blobs interface {
	// Put stores bytes, durably, and says under which digest.
	Put(ctx context.Context, r io.Reader) (digest string, err error)
	// Examine reads the bytes of a digest to their end.
	Examine(ctx context.Context, digest string) (writ.BlobState, error)
}

// Validator decodes raw arguments into a new value of the capability's Args
// type: strictly (unknown, duplicate and case-variant keys refused), against
// the one schema derived from the type. It returns *writ.Error with
// CodeMalformed or CodeInputInvalid, never echoing a value.
type Validator interface {
	Decode(c *writ.Capability, raw []byte) (any, error)
	// Tool validates task arguments against a schema an agent declared.
	Schema(schema writ.RawObject, value writ.RawObject) error
}

// Approver answers for calls that policy allows only with approval. package
// approvals implements it.
type Approver interface {
	// Reads names what must be known to settle such a call, given what has been
	// read; the door asks until nothing new is named.
	Reads(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject, d writ.Decision) (writ.ReadSet, error)
	// Settle says whether the decision's needs are met. If they are, tx records
	// the use of the approval and becomes part of the call's own transaction.
	// If not, tx (empty when people have been asked already) asks them and stops
	// what must not go on meanwhile, and reply is what the caller gets. An error
	// is a refusal: people have said no. holds says whether whoever cast a vote
	// still has the role it was cast in.
	Settle(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject, d writ.Decision, holds func(writ.Vote) bool) (tx writ.Tx, reply writ.Reply, met bool, err error)
}

// Cosigner checks what callers sign with keys of their own. package receipts
// implements it.
type Cosigner interface {
	// ArgsDigest is the SHA-256 in hex of arguments in canonical JSON. An error
	// says why there is none, and nothing of them.
	ArgsDigest(raw []byte) (string, error)
	// Verify says whether a signature is the key's over a call.
	Verify(key writ.PublicKey, c writ.Cosigned, signature []byte) bool
}

// Effector carries out what calls of one capability of class effect do outside.
type Effector interface {
	// Act makes one attempt. It MUST end soon after its context does, which ends when
	// the call may not go on, and count in a.Meter what it uses. Its reply has an outcome
	// and a body. An error says that it did not happen, or not all of it: CodeEffectUnknown
	// that nobody can tell, and then only an idempotent effect is attempted again.
	Act(ctx context.Context, a *writ.Acting) (writ.Reply, error)
}

// Obligor adds a room's conditions to every call: budgets do. The door calls
// the three in order for each try.
type Obligor interface {
	// Reads names what it must see for a subject, given what has been read; the
	// door asks until nothing new is named.
	Reads(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject) (writ.ReadSet, error)
	// Facts adds what policy should know (sub.Budget). moves says whether the
	// call would move an object if it were allowed; it costs a plan.
	Facts(c *writ.Call, k *writ.Capability, s writ.Snapshot, moves func() bool, sub *writ.Subject) error
	// Oblige adds guards and operations to the transaction of an allowed call,
	// and says what the call is charged and which marks of its budget the run
	// reaches with it for the first time.
	Oblige(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject, tx *writ.Tx) (map[string]int64, []writ.BudgetWarning, error)
	// Denied may add follow-up index entries to the transaction of a denial.
	Denied(c *writ.Call, s writ.Snapshot, sub writ.Subject, d writ.Decision, tx *writ.Tx)
}

// Asking is an Obligor that also holds requests for approval to something.
type Asking interface {
	// Asked adds guards to the transaction that asks people about a call, or
	// refuses the call instead.
	Asked(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject, tx *writ.Tx) error
}
