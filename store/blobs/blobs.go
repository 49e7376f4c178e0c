// Package blobs keeps bodies too large for a document: artifacts, policy
// bundles, evidence, each under the digest of its bytes. It is not a file
// store: a blob has no name, owner or end, and nothing is ever changed.
//
// Its invariant: what Get hands out until io.EOF has the digest it was asked
// for; a reader of other bytes gets an error instead of the end.
package blobs

import (
	"context"
	"encoding/hex"
	"io"
	"strings"

	"github.com/writ-gateway/writ"
)

// Blobs is the seam: a directory now, an object store for several replicas.
// All methods are safe for concurrent use. Failures are *writ.Error.
type Blobs interface {
	// Put stores what r gives and returns its digest, "sha256:" and 64
	// lower-case hex digits. It is durable when Put returns; storing the same
	// bytes again changes nothing. More bytes than the store takes are
	// CodeTooLarge; nothing is stored then, nor when r fails.
	Put(ctx context.Context, r io.Reader) (digest string, err error)
	// Get opens a blob; the caller closes it. CodeNotFound when there is none,
	// CodeMalformed when digest is none. Reading fails with CodeStore, at the
	// latest in place of io.EOF, when the stored bytes are not those of digest.
	Get(ctx context.Context, digest string) (io.ReadCloser, error)
	// Has says whether a blob is stored.
	Has(ctx context.Context, digest string) (bool, error)
}

const prefix = "sha256:"

// ParseDigest returns the 64 hex digits of a digest. Only the one form that
// Put returns is accepted, so that a digest can be part of a path.
func ParseDigest(digest string) (string, error) {
	digits, ok := strings.CutPrefix(digest, prefix)
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != 32 || strings.ToLower(digits) != digits {
		return "", writ.Refuse(writ.CodeMalformed, "blobs.ParseDigest", "not a blob digest",
			`a digest is "sha256:" and 64 lower-case hex digits`)
	}
	return digits, nil
}
