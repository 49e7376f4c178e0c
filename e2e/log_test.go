package e2e

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ"
)

// bundled is what stock tools read out of a Sigstore bundle.
type bundled struct {
	MediaType string `json:"mediaType"`
	Material  struct {
		Entries []struct {
			Index string `json:"logIndex"`
			Proof struct {
				Index      string   `json:"logIndex"`
				Root       []byte   `json:"rootHash"`
				Size       string   `json:"treeSize"`
				Hashes     [][]byte `json:"hashes"`
				Checkpoint struct {
					Envelope string `json:"envelope"`
				} `json:"checkpoint"`
			} `json:"inclusionProof"`
			Body []byte `json:"canonicalizedBody"`
		} `json:"tlogEntries"`
	} `json:"verificationMaterial"`
	Envelope struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig []byte `json:"sig"`
		} `json:"signatures"`
	} `json:"dsseEnvelope"`
}

type head struct {
	Origin      string   `json:"origin"`
	Size        int64    `json:"size"`
	Root        []byte   `json:"root"`
	Checkpoint  string   `json:"checkpoint"`
	Consistency [][]byte `json:"consistency"`
	Key         string   `json:"verifier_key"`
}

func hashes(t *testing.T, list [][]byte) (out []tlog.Hash) {
	t.Helper()
	for _, h := range list {
		if len(h) != tlog.HashSize {
			t.Fatalf("a hash of %d bytes", len(h))
		}
		out = append(out, tlog.Hash(h))
	}
	return out
}

// signedTree checks a checkpoint with the log's key and gives what it says.
func signedTree(t *testing.T, text, key string) (size int64, root tlog.Hash) {
	t.Helper()
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open([]byte(text), note.VerifierList(v))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	var origin, hash string
	if _, err := fmt.Sscanf(n.Text, "%s\n%d\n%s\n", &origin, &size, &hash); err != nil || origin != v.Name() {
		t.Fatalf("%q: %v", n.Text, err)
	}
	b, err := base64.StdEncoding.DecodeString(hash)
	if err != nil || len(b) != tlog.HashSize {
		t.Fatalf("%q: %v", n.Text, err)
	}
	return size, tlog.Hash(b)
}

// A receipt is checked by nothing but its bundle, the log's key and published rules: its
// signature, and that the log has it; and the log itself, that it only grows, whoever
// restarts in between.
func TestReceiptsAreInTheLog(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("one", nil))
		done := c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil)).str("receipt")

		auditor := w.session("ada", writ.RoleAuditor, "").at(w.gw[0])
		read := func(since int64) (h head) {
			t.Helper()
			path := "/v1/log/head"
			if since > 0 {
				path += "?since=" + strconv.FormatInt(since, 10)
			}
			if err := json.Unmarshal(auditor.ok(200, "GET", path, nil).body, &h); err != nil {
				t.Fatal(err)
			}
			return h
		}
		key := read(0).Key
		r := auditor.ok(200, "GET", "/v1/receipts/"+done+"?wait=included", nil)
		var got struct {
			Included bool            `json:"included"`
			Bundle   bundled         `json:"bundle"`
			Seq      int64           `json:"seq"`
			Raw      json.RawMessage `json:"-"`
		}
		if err := json.Unmarshal(r.body, &got); err != nil {
			t.Fatal(err)
		}
		if !got.Included || len(got.Bundle.Material.Entries) != 1 || got.Bundle.MediaType != "application/vnd.dev.sigstore.bundle.v0.3+json" {
			t.Fatalf("got %s", r)
		}
		e, env := got.Bundle.Material.Entries[0], got.Bundle.Envelope
		size, root := signedTree(t, e.Proof.Checkpoint.Envelope, key)
		if e.Index != strconv.FormatInt(got.Seq, 10) || e.Proof.Index != e.Index || e.Proof.Size != strconv.FormatInt(size, 10) || string(e.Proof.Root) != string(root[:]) {
			t.Errorf("got %+v", e)
		}
		if err := tlog.CheckRecord(hashes(t, e.Proof.Hashes), size, root, got.Seq, tlog.RecordHash(e.Body)); err != nil {
			t.Errorf("it is not in the log: %v", err)
		}
		// The leaf is of this envelope, and its key signed it.
		var leaf struct {
			Spec struct {
				Rekord struct {
					Data      struct{ Digest []byte }
					Signature struct {
						Content  []byte
						Verifier struct {
							PublicKey struct {
								Raw []byte `json:"rawBytes"`
							}
						}
					}
				} `json:"hashedRekordV002"`
			}
		}
		if err := json.Unmarshal(e.Body, &leaf); err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(env.PayloadType), env.PayloadType, len(env.Payload), env.Payload))
		pub, err := x509.ParsePKIXPublicKey(leaf.Spec.Rekord.Signature.Verifier.PublicKey.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if string(leaf.Spec.Rekord.Data.Digest) != string(digest[:]) || string(leaf.Spec.Rekord.Signature.Content) != string(env.Signatures[0].Sig) ||
			!ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), digest[:], env.Signatures[0].Sig) {
			t.Error("the leaf is of something else")
		}

		// Every reply of every replica carries a checkpoint, once it knows one.
		for _, gw := range w.gw {
			within(t, 10*time.Second, "a replica tells of the log", func() bool {
				text, err := base64.StdEncoding.DecodeString(auditor.at(gw).ok(200, "GET", "/v1/runs/"+c.run, nil).header.Get("Writ-Checkpoint"))
				if err != nil || len(text) == 0 {
					return false
				}
				got, _ := signedTree(t, string(text), key)
				return got >= size
			})
		}
		auditor.refused(422, writ.CodeInputInvalid, "GET", "/v1/log/head?until=3", nil)
		auditor.refused(422, writ.CodeInputInvalid, "GET", "/v1/log/head?since=3&until=2", nil)
		auditor.refused(422, writ.CodeInputInvalid, "GET", "/v1/log/head?since=3&until=100000", nil)

		w.gw[0].kill()
		w.gw[0].start()
		w.ready()
		c.enqueue("two", nil)
		last := w.op.ok(200, "GET", "/v1/runs/"+c.run, nil).str("receipt")
		auditor.ok(200, "GET", "/v1/receipts/"+last+"?wait=included", nil)
		h := read(size)
		newer, newRoot := signedTree(t, h.Checkpoint, key)
		if newer < size || h.Size != newer || h.Key != key || h.Origin != "writ.local" {
			t.Fatalf("got %+v", h)
		}
		if err := tlog.CheckTree(hashes(t, h.Consistency), newer, newRoot, size, root); err != nil {
			t.Errorf("the log is another one: %v", err)
		}
		auditor.refused(422, writ.CodeInputInvalid, "GET", "/v1/log/head?since=100000", nil)
		auditor.refused(422, writ.CodeInputInvalid, "GET", "/v1/receipts/"+done+"?wait=long", nil)
		if len(w.gw) > 1 {
			w.session("ada", writ.RoleAuditor, "").at(w.gw[1]).refused(404, writ.CodeNotFound, "GET", "/v1/log/head", nil)
		}
		w.audited()
	})
}

// Who is told that a run is closed can show it: its receipt is in the log by then, on
// whichever replica the verifier calls.
func TestAClosedRunIsInTheLog(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		judge := w.verifier("judge", "vera", "")
		auditor := w.session("ada", writ.RoleAuditor, "").at(w.gw[0])
		for _, gw := range w.gw {
			c.judgedRun()
			c.builder.complete(c.builder.claim(c.enqueue("one", nil)))
			c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
			path, b := judge.verdict("/v1/runs/"+c.run, "accept", nil)
			r := judge.at(gw).ok(200, "POST", path, b)
			if got := auditor.ok(200, "GET", "/v1/receipts/"+string(r.receipt()), nil); got.at("included") != true {
				t.Errorf("the close of a run is answered before it is in the log: %s", got)
			}
		}
	})
}
