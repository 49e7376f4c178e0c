package tlog

import (
	"bytes"
	"crypto/sha512"
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
// (PKIX); a foreign receipt has its own. It says nothing of what the receipt is about.
func Leaf(r writ.Receipt, public []byte) []byte {
	if r.Kind() == writ.FactForeign {
		public = r.Public
	}
	if isEd25519(public) {
		digest := sha512.Sum512(receipts.SignedText(r))
		return render(digest[:], r.Sig, public)
	}
	digest := receipts.SignedDigest(r)
	return render(digest[:], r.Sig, public)
}

// isEd25519 says of a key as DER whether it is an Ed25519 one (RFC 8410).
func isEd25519(public []byte) bool {
	return bytes.HasPrefix(public, []byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00})
}

var b64 = base64.StdEncoding

// render writes a leaf. Of an Ed25519 key, which only verifiers have, it says what stock
// verifiers work out and hold it to: the prehashed kind, and SHA-512, though what the
// signature is over is the text itself.
func render(digest, sig, public []byte) []byte {
	algorithm, details := "SHA2_256", "PKIX_ECDSA_P256_SHA_256"
	if isEd25519(public) {
		algorithm, details = "SHA2_512", "PKIX_ED25519_PH"
	}
	out := make([]byte, 0, 512)
	out = append(out, `{"apiVersion":"`+Version+`","kind":"`+Kind+`","spec":{"hashedRekordV002":{"data":{"algorithm":"`+algorithm+`","digest":"`...)
	out = b64.AppendEncode(out, digest)
	out = append(out, `"},"signature":{"content":"`...)
	out = b64.AppendEncode(out, sig)
	out = append(out, `","verifier":{"keyDetails":"`+details+`","publicKey":{"rawBytes":"`...)
	out = b64.AppendEncode(out, public)
	return append(out, `"}}}}}}`...)
}
