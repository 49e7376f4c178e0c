package conformance

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	common "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	"github.com/sigstore/rekor-tiles/v2/pkg/types/hashedrekord"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"
)

// The code of Rekor v2's own server takes a receipt for an entry of its log, and makes
// of it byte for byte the entry that stands in ours.
func TestRekorMakesTheSameEntry(t *testing.T) {
	s := the(t)
	b, err := parse([]byte(read(t, s.bundle)))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(read(t, s.key)))
	if block == nil {
		t.Fatal("the receipt key is no PEM")
	}
	e := b.Envelope
	digest := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(e.Payload), e.Payload))
	algorithms, err := signature.NewAlgorithmRegistryConfig([]common.PublicKeyDetails{common.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256})
	if err != nil {
		t.Fatal(err)
	}
	request := func(sig []byte) *protobuf.HashedRekordRequestV002 {
		return &protobuf.HashedRekordRequestV002{
			Digest: digest[:],
			Signature: &protobuf.Signature{Content: sig, Verifier: &protobuf.Verifier{
				Verifier:   &protobuf.Verifier_PublicKey{PublicKey: &protobuf.PublicKey{RawBytes: block.Bytes}},
				KeyDetails: common.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
			}},
		}
	}
	entry, err := hashedrekord.ToLogEntry(request(e.Signatures[0].Sig), algorithms)
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = jsoncanonicalizer.Transform(text); err != nil {
		t.Fatal(err)
	}
	if ours := b.VerificationMaterial.TlogEntries[0].CanonicalizedBody; !bytes.Equal(text, ours) {
		t.Errorf("Rekor's entry\n%s\nours\n%s", text, ours)
	}
	if _, err := hashedrekord.ToLogEntry(request([]byte("no signature")), algorithms); err == nil {
		t.Error("it takes anything")
	}
}

// Tessera's fsck, made for logs of another program, reads the whole log and finds it whole.
func TestFsckFindsTheLogWhole(t *testing.T) {
	s := the(t)
	program := filepath.Join("..", ".tools", "fsck-v1.0.4")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: run make conformance, which builds it", err)
	}
	fsck := func(dir string, wait time.Duration) (string, error) {
		key := filepath.Join(t.TempDir(), "log.vkey")
		if err := os.WriteFile(key, []byte(s.logKey+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return offlineFor(t, wait, program, "-storage_url", "file://"+dir+"/", "-public_key", key, "-ui=false")
	}
	dir := filepath.Join(s.data, "log")
	if out, err := fsck(dir, time.Minute); err != nil || !strings.Contains(out, "Successfully fsck'd log") {
		t.Fatalf("%v: %s", err, out)
	}
	// Where an entry was changed it reads it again and again, and says so until it is stopped.
	broken := filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(broken, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	entries := filepath.Join(broken, "tile", "entries", "000")
	b, err := os.ReadFile(entries)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte("hashedrekord"), []byte("Hashedrekord"), 1)
	if err := os.WriteFile(entries, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := fsck(broken, 5*time.Second); err == nil || strings.Contains(out, "Successfully fsck'd log") {
		t.Errorf("it finds anything whole: %s", out)
	}
}
