package writ

// KeyPurpose says what a key signs.
type KeyPurpose string

const (
	KeyReceipt KeyPurpose = "receipt" // receipts: ECDSA P-256, held by every replica
	KeyLog     KeyPurpose = "log"     // checkpoints of the transparency log: Ed25519
	KeyRoot    KeyPurpose = "root"    // key manifests, nothing else: kept away from the gateway

	// The gateway never has the private half of these.
	KeyVerifier KeyPurpose = "verifier" // verdicts: ECDSA P-256, its verifier's own
	KeyWitness  KeyPurpose = "witness"  // checkpoints of a log that only grew: Ed25519, of somebody who does not run it
)

// KeyState is the state of a receipt key.
type KeyState string

const (
	KeyIntroduced KeyState = "introduced" // known, and signs nothing yet
	KeyActive     KeyState = "active"     // the one the gate names
	KeyRetired    KeyState = "retired"    // signs nothing any more; what it has signed stays valid
	KeyRevoked    KeyState = "revoked"    // and what it has signed from an index on does not
)

// KeyMoves: the first key of a log is active from the beginning. A key is retired by
// the commit that makes another one active, or before it ever was.
var KeyMoves = Table[KeyState]{
	"":            {KeyIntroduced, KeyActive},
	KeyIntroduced: {KeyActive, KeyRetired},
	KeyActive:     {KeyRetired},
	KeyRetired:    {KeyRevoked},
	KeyRevoked:    {},
}

// SigningKey is the document of a receipt key. From which index of the log to which it
// signs is not in it: the receipts named here say so, and nobody else.
type SigningKey struct {
	SPKI       string     `json:"spki"`   // SHA-256 of the public key (DER, PKIX), hex: its id among objects
	KeyID      string     `json:"key_id"` // SHA256:…, as receipts name it
	Purpose    KeyPurpose `json:"purpose"`
	PEM        string     `json:"pem"` // public half
	State      KeyState   `json:"state"`
	Introduced ReceiptID  `json:"introduced,omitempty"` // none: the log began with it
	Activated  ReceiptID  `json:"activated,omitempty"`
	Retired    ReceiptID  `json:"retired,omitempty"`
	Revoked    ReceiptID  `json:"revoked,omitempty"`
	Since      int64      `json:"since,omitempty"` // of a revocation; 0: from its own receipt on
	CreatedAt  int64      `json:"created_at"`
	UpdatedAt  int64      `json:"updated_at"`
	Receipt    ReceiptID  `json:"receipt"`
}

// WasActive says whether the key is or was the signing one.
func (k SigningKey) WasActive() bool { return k.Activated != "" || k.Introduced == "" }

// MaxKeys bounds the keys of a shard.
const MaxKeys = 100

// IndexKeys lists the receipt keys by SPKI, score: when introduced. It is versioned: what a
// change of keys relies on is that there are no others.
const IndexKeys Index = "v/keys"

// SigningKeyKey is the document of a receipt key.
func SigningKeyKey(spki string) Key { return Key(ObjectKey + "/" + spki) }

// HeldKey lists the replicas that hold the private half of a receipt key.
func HeldKey(spki string) Index { return Index("v/keys/" + spki) }

// KeyFact is what a receipt says of the key it is about.
type KeyFact struct {
	ID      string     // SHA256:…
	Purpose KeyPurpose //
	SPKI    string     // SHA-256 of the public key, hex
	Since   int64      // of a revocation: index from which nothing it signed is to be believed; 0: from this receipt on
}

// Transitions that say something of a receipt key.
const (
	KeyIntroduce = "key.introduce"
	KeyActivate  = "key.activate"
	KeyRetire    = "key.retire"
	KeyRevoke    = "key.revoke"
)

// KeyTransitions lists them.
func KeyTransitions() []string { return []string{KeyIntroduce, KeyActivate, KeyRetire, KeyRevoke} }
