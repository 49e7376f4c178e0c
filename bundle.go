package writ

import (
	"regexp"
	"strconv"
	"strings"
)

// BundleID names a policy bundle: the SHA-256 of its canonical, uncompressed
// form, in hex. The same sources have the same id wherever they are packed.
type BundleID string

var bundlePattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// PatternBundle is how callers write a bundle's digest.
const PatternBundle = `^sha256:[0-9a-f]{64}$`

func (id BundleID) Valid() bool { return bundlePattern.MatchString(string(id)) }

// Digest is the id as people and receipts write digests.
func (id BundleID) Digest() string {
	if id == "" {
		return ""
	}
	return "sha256:" + string(id)
}

// BundleOf is the bundle a digest names; it is not valid when the digest is none.
func BundleOf(digest string) BundleID {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok {
		return ""
	}
	return BundleID(hex)
}

// BundleState is where a policy bundle stands.
type BundleState string

const (
	// BundleStaged: by policy.stage. Every replica compiles it beside the rules
	// in force and says whether it is ready.
	BundleStaged BundleState = "staged"
	// BundleActive: by policy.activate or policy.rollback. One bundle of a shard is.
	BundleActive BundleState = "active"
	// BundleRetired: it was active until another bundle took its place.
	BundleRetired BundleState = "retired"
	// BundleRefused: it does not compile. Its document says why.
	BundleRefused BundleState = "refused"
	// BundleWithdrawn: by policy.withdraw, before it became active.
	BundleWithdrawn BundleState = "withdrawn"
)

// BundleMoves are the legal moves of a bundle. Only staged and retired bundles
// become active. What was refused, withdrawn or retired may be staged again:
// another version of the program may compile it. active → active records that
// the same bundle is in force under another engine.
var BundleMoves = Table[BundleState]{
	"":              {BundleStaged},
	BundleStaged:    {BundleActive, BundleRefused, BundleWithdrawn},
	BundleActive:    {BundleActive, BundleRetired},
	BundleRetired:   {BundleActive, BundleStaged},
	BundleRefused:   {BundleStaged},
	BundleWithdrawn: {BundleStaged},
}

// Bundle is a set of policy packs and role bindings, staged as one. Its bytes
// lie beside it, see ChunkKey.
type Bundle struct {
	ID         BundleID    `json:"id"`
	State      BundleState `json:"state"`
	Packs      []PackVer   `json:"packs"` // by id
	Policy     string      `json:"policy_revision"`
	Bindings   string      `json:"bindings_revision"`  // of its roles' file alone
	Chunks     int         `json:"chunks"`             // 0: the bytes are gone
	InForce    bool        `json:"in_force,omitempty"` // it was once, so receipts name its packs: the bytes are kept for good
	Bytes      int64       `json:"bytes"`              // uncompressed
	Note       string      `json:"note,omitempty"`
	Source     string      `json:"source"`           // closed enum: who brought it
	Reason     string      `json:"reason,omitempty"` // why it was refused
	Replica    string      `json:"replica,omitempty"`
	Replaced   BundleID    `json:"replaced,omitempty"` // active before this one
	Signer     string      `json:"signer,omitempty"`   // id of the key that signed it
	StagedBy   PrincipalID `json:"staged_by"`
	StagedRole Role        `json:"staged_role"`
	CreatedAt  int64       `json:"created_at"` // milliseconds
	UpdatedAt  int64       `json:"updated_at"`
	Receipt    ReceiptID   `json:"receipt"`
}

// PackVer names one pack of a bundle.
type PackVer struct {
	ID      string `json:"id" doc:"Id of the pack."`
	Version string `json:"version" doc:"Its version."`
	Digest  string `json:"digest" doc:"sha256 over the files a decision depends on."`
	Stage   string `json:"stage,omitempty" doc:"shadow: evaluated after the answer and never enforced. Absent: enforced." enum:"shadow"`
}

// StageShadow is the stage of a pack that is evaluated and never enforced.
const StageShadow = "shadow"

// Sources of bundles.
const (
	SourceCall   = "call"   // somebody staged it
	SourceFolder = "folder" // a replica was started with it
)

// Limits of bundles. Compressed and in base64 one fits MaxChunks documents, and
// with its receipt one transaction.
const (
	ChunkBytes     = 48 << 10
	MaxChunks      = 3
	MaxBundlePacks = 300
	MaxStaged      = 8 // at once; replicas hold all of them compiled
	MaxReplicas    = 256
)

// Chunk is a piece of a bundle: gzip, base64.
type Chunk struct {
	Data string `json:"data"`
}

// BundleKey is the document of a bundle, ChunkKey the n-th piece of its bytes.
func BundleKey(id BundleID) Key       { return Key("bundle/" + string(id)) }
func ChunkKey(id BundleID, n int) Key { return Key("chunk/" + string(id) + "/" + strconv.Itoa(n)) }

// ChunkKeys are the documents that may hold a bundle's bytes.
func ChunkKeys(id BundleID) (keys []Key) {
	for n := range MaxChunks {
		keys = append(keys, ChunkKey(id, n))
	}
	return keys
}

// Indexes of bundles. Replicas and Ready are versioned: an activation is
// committed only if the replicas it counted are the replicas there are.
const (
	IndexBundles  Index = "list/bundles"        // ids, score: when first staged
	IndexStaged   Index = "list/bundles/staged" // ids, score: when staged
	IndexReplicas Index = "v/replicas"          // replicas, score: until when they count as alive
)

// ReadyOn lists the replicas that hold a bundle compiled, score 0: each looks
// itself up by name.
func ReadyOn(id BundleID) Index { return Index("v/ready/" + string(id)) }
