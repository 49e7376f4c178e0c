package tlog

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"strconv"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// Media types of what stock tools read.
const (
	BundleType      = "application/vnd.dev.sigstore.bundle.v0.3+json"
	TrustedRootType = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
)

// bundle is a Sigstore bundle v0.3 (sigstore/protobuf-specs, sigstore_bundle.proto), as
// protobuf writes it in JSON: 64-bit numbers are strings, bytes base64.
type bundle struct {
	MediaType string             `json:"mediaType"`
	Material  bundleMaterial     `json:"verificationMaterial"`
	Envelope  bundleDSSEEnvelope `json:"dsseEnvelope"`
}

type bundleMaterial struct {
	PublicKey struct {
		Hint string `json:"hint"`
	} `json:"publicKey"`
	Entries []bundleEntry `json:"tlogEntries,omitempty"`
}

type bundleDSSEEnvelope struct {
	Payload     []byte            `json:"payload"`
	PayloadType string            `json:"payloadType"`
	Signatures  []bundleSignature `json:"signatures"`
}

type bundleSignature struct {
	Sig   []byte `json:"sig"`
	KeyID string `json:"keyid"`
}

type bundleEntry struct {
	Index string      `json:"logIndex"`
	LogID bundleLogID `json:"logId"`
	Kind  struct {
		Kind    string `json:"kind"`
		Version string `json:"version"`
	} `json:"kindVersion"`
	Proof bundleProof `json:"inclusionProof"`
	Body  []byte      `json:"canonicalizedBody"`
}

type bundleLogID struct {
	KeyID []byte `json:"keyId"`
}

type bundleProof struct {
	Index      string   `json:"logIndex"`
	Root       []byte   `json:"rootHash"`
	Size       string   `json:"treeSize"`
	Hashes     [][]byte `json:"hashes"`
	Checkpoint struct {
		Envelope string `json:"envelope"`
	} `json:"checkpoint"`
}

// Bundle is a receipt as a Sigstore bundle: its envelope, and where the log's checkpoint
// covers it the proof of that. cosign verify-blob-attestation and @sigstore/verify check
// both, without asking anybody.
func Bundle(r writ.Receipt) ([]byte, error) {
	b := bundle{MediaType: BundleType, Envelope: bundleDSSEEnvelope{
		Payload: r.Payload, PayloadType: receipts.PayloadType, Signatures: []bundleSignature{{Sig: r.Sig, KeyID: r.KeyID}},
	}}
	b.Material.PublicKey.Hint = r.KeyID
	if p := r.Inclusion; p != nil {
		e := bundleEntry{Index: strconv.FormatInt(p.Index, 10), LogID: bundleLogID{p.LogID}, Body: p.Leaf}
		e.Kind.Kind, e.Kind.Version = Kind, Version
		e.Proof = bundleProof{Index: e.Index, Root: p.Root, Size: strconv.FormatInt(p.Size, 10), Hashes: p.Hashes}
		if e.Proof.Hashes == nil {
			e.Proof.Hashes = [][]byte{}
		}
		e.Proof.Checkpoint.Envelope = string(p.Checkpoint)
		b.Material.Entries = []bundleEntry{e}
	}
	out, err := json.Marshal(b)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, "tlog.Bundle", err)
	}
	return out, nil
}

// trustedRoot names the log to stock tools (sigstore/protobuf-specs,
// sigstore_trustroot.proto).
type trustedRoot struct {
	MediaType string           `json:"mediaType"`
	Logs      []trustedRootLog `json:"tlogs"`
}

type trustedRootLog struct {
	BaseURL   string `json:"baseUrl"`
	Hash      string `json:"hashAlgorithm"`
	PublicKey struct {
		Raw      []byte `json:"rawBytes"`
		Details  string `json:"keyDetails"`
		ValidFor struct {
			Start string `json:"start"`
		} `json:"validFor"`
	} `json:"publicKey"`
	LogID bundleLogID `json:"logId"`
}

// TrustedRoot is what tells stock tools to believe a log's checkpoints, from a time on.
// The host name in it is the name of the log; nobody asks it anything.
func TrustedRoot(origin string, key ed25519.PublicKey, from time.Time) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, "tlog.TrustedRoot", err)
	}
	l := trustedRootLog{BaseURL: "https://" + origin, Hash: "SHA2_256", LogID: bundleLogID{LogID(origin, key)}}
	l.PublicKey.Raw, l.PublicKey.Details = der, "PKIX_ED25519"
	l.PublicKey.ValidFor.Start = from.UTC().Format(time.RFC3339)
	out, err := json.MarshalIndent(trustedRoot{TrustedRootType, []trustedRootLog{l}}, "", "  ")
	return append(out, '\n'), err
}
