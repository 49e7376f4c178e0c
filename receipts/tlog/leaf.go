package tlog

import (
	"crypto/sha256"
	"encoding/base64"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// Kind and Version name the form of a leaf, as Rekor v2 does.
const (
	Kind    = "hashedrekord"
	Version = "0.0.2"
)

// Leaf is what the log holds of a receipt: the digest of what was signed, the
// signature and the public key, in the canonical form of a Rekor v2 hashedrekord
// 0.0.2 entry (sigstore/rekor-tiles, CLIENTS.md). public is the receipt key as DER
// (PKIX). It says nothing of what the receipt is about.
func Leaf(r writ.Receipt, public []byte) []byte {
	return render(receipts.SignedDigest(r), r.Sig, public)
}

var b64 = base64.StdEncoding

func render(digest [sha256.Size]byte, sig, public []byte) []byte {
	out := make([]byte, 0, 512)
	out = append(out, `{"apiVersion":"`+Version+`","kind":"`+Kind+`","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"`...)
	out = b64.AppendEncode(out, digest[:])
	out = append(out, `"},"signature":{"content":"`...)
	out = b64.AppendEncode(out, sig)
	out = append(out, `","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","publicKey":{"rawBytes":"`...)
	out = b64.AppendEncode(out, public)
	return append(out, `"}}}}}}`...)
}
