package writ

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
)

// What a task gives beyond its result are artifacts: bytes under their digest.
// What is known of them stands in the task; the bytes lie in a store of their own.

// Limits of artifacts.
const (
	MaxArtifacts      = 8        // that one task makes, and that it is given
	MaxArtifactBytes  = 64 << 20 // of one of them
	MaxArtifactSchema = 4 << 10  // bytes of the schema one of them must meet
	MaxCheckedBytes   = 48 << 10 // of an artifact that is held to a schema
	MaxRunArtifacts   = 256      // of a run that somebody else must accept: all of them are looked at then
	MaxMediaType      = 127      // characters
	PatternArtifact   = `^[a-z][a-z0-9_.-]{0,63}$`
	PatternMediaType  = `^[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}$`
	PatternDigest     = `^sha256:[0-9a-f]{64}$`
)

var (
	artifactName = regexp.MustCompile(PatternArtifact)
	mediaType    = regexp.MustCompile(PatternMediaType)
	blobDigest   = regexp.MustCompile(PatternDigest)
)

// ValidArtifactName, ValidMediaType and ValidDigest say whether a text has the
// form of PatternArtifact, PatternMediaType and PatternDigest.
func ValidArtifactName(s string) bool { return artifactName.MatchString(s) }
func ValidMediaType(s string) bool    { return mediaType.MatchString(s) }
func ValidDigest(s string) bool       { return blobDigest.MatchString(s) }

// Produce is an artifact that a task is to make.
type Produce struct {
	Name      string    `json:"name"`
	MediaType string    `json:"media_type"`
	Schema    RawObject `json:"schema,omitempty"` // what its JSON must meet
	Labels    []Label   `json:"labels"`           // the most it may carry; none: what the task carries
	MaxBytes  int64     `json:"max_bytes"`
	Required  bool      `json:"required,omitempty"`
}

// Consume is an artifact of a task it depends on that a task is given.
type Consume struct {
	Name      string `json:"name"`
	From      string `json:"from"` // key in the run
	MediaType string `json:"media_type"`
	Optional  bool   `json:"optional,omitempty"` // it works without
}

// Artifact is what a task has made under a name: put by who holds the task, of
// the task once it was completed with it.
type Artifact struct {
	Name   string  `json:"name"`
	Digest string  `json:"digest"`
	Size   int64   `json:"size"`
	Labels []Label `json:"labels"`
}

// Produced finds what a task is to make under a name.
func (t Task) Produced(name string) (Produce, bool) {
	for _, p := range t.Produces {
		if p.Name == name {
			return p, true
		}
	}
	return Produce{}, false
}

// Artifact finds what a task has made under a name.
func (t Task) Artifact(name string) (Artifact, bool) {
	for _, a := range t.Artifacts {
		if a.Name == name {
			return a, true
		}
	}
	return Artifact{}, false
}

// BlobHolders lists the tasks whose artifacts have a digest, and the runs whose workflow
// has: while there is one,
// the bytes are kept. hex is the digest without its prefix.
func BlobHolders(hex string) Index { return Index("list/blob/" + hex) }

// RunArtifacts lists "<hex> <task>" of what the tasks of a run were completed
// with, where somebody else must accept the run.
func RunArtifacts(id RunID) Index { return Index("list/artifacts/" + string(id)) }

// BlobState is how the stored bytes of a digest are, read to their end.
type BlobState string

const (
	BlobIntact  BlobState = "intact"
	BlobDamaged BlobState = "damaged" // they have another digest
	BlobAbsent  BlobState = "absent"
)

// Body is what comes with a call besides its arguments and is taken in only when
// the call, as it stands, would be accepted. It is used by one goroutine.
type Body interface {
	// Receive takes it in, once: at most max bytes, more are CodeTooLarge. Nothing
	// is stored yet.
	Receive(ctx context.Context, max int64) (Received, error)
	// Keep stores what was received, durably. It may be called again.
	Keep(ctx context.Context) error
}

// Received is a body that was taken in.
type Received struct {
	Digest string
	Size   int64
	Small  []byte // all of it, if it has at most MaxCheckedBytes
}

// Keeper is implemented by arguments that hold bytes too large for a document. The
// commit names their digest, and they are stored before it.
type Keeper interface{ Kept() []byte }

// DigestOf is the digest bytes are stored under.
func DigestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Receiver is implemented by arguments of calls that come with a body.
type Receiver interface {
	// Received puts what came into the arguments, or refuses it if they say
	// something else. blind is true when they did not say its digest.
	Received(r Received) (blind bool, err error)
}

// IndexBlobStore holds the name of the one store of blobs that all replicas of a
// store of state use, once one of them has started.
const IndexBlobStore Index = "v/blobstore"

// Unsound is the refusal for stored bytes that are not those of their digest.
func Unsound(op, digest string, state BlobState) *Error {
	e := Refuse(CodeArtifact, op, "the stored bytes of an artifact are gone, or not those its digest names",
		"reject, so that it is made again; operators: restore it from a backup").With("digest", digest)
	if state != "" {
		e = e.With("state", string(state))
	}
	return e
}
