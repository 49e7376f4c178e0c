package receipts

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

func TestEvidence(t *testing.T) {
	s := testSealer(t)
	salt := [16]byte{0xaa, 15: 0xbb}
	object := map[string]any{"who": "Ada Lovelace", "amount": 1.25, "list": []int{1, 2}}
	sum, sealed, err := s.Evidence(salt, rcp(1), object)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("Ada")) {
		t.Error("the sealed bytes show a name")
	}
	plain, err := OpenEvidence(testSecret, rcp(1), sealed)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"object":{"amount":1.25,"list":[1,2],"who":"Ada Lovelace"},"receipt":"` + string(rcp(1)) + `","salt":"aa0000000000000000000000000000bb"}`
	if string(plain) != want {
		t.Errorf("got  %s\nwant %s", plain, want)
	}
	if h := sha256.Sum256(plain); hex.EncodeToString(h[:]) != sum {
		t.Error("the digest is not that of the evidence")
	}
	if again, twice, err := s.Evidence(salt, rcp(1), object); err != nil || again != sum || !bytes.Equal(twice, sealed) {
		t.Errorf("sealed twice, not the same: %v", err)
	}

	// Digest, nonce and key depend on salt, receipt and object.
	seen := map[string]string{string(sealed[:12]): "first"}
	for name, f := range map[string]func() (string, []byte, error){
		"salt":    func() (string, []byte, error) { return s.Evidence([16]byte{}, rcp(1), object) },
		"receipt": func() (string, []byte, error) { return s.Evidence(salt, rcp(2), object) },
		"object":  func() (string, []byte, error) { return s.Evidence(salt, rcp(1), nil) },
	} {
		other, b, err := f()
		if err != nil {
			t.Fatal(err)
		}
		if other == sum {
			t.Errorf("another %s has the same digest", name)
		}
		if before, twice := seen[string(b[:12])]; twice {
			t.Errorf("%s: nonce of %s used again", name, before)
		}
		seen[string(b[:12])] = name
	}

	if _, err := OpenEvidence(testSecret, rcp(2), sealed); err == nil {
		t.Error("opened for another receipt")
	}
	if _, err := OpenEvidence([32]byte{}, rcp(1), sealed); err == nil {
		t.Error("opened with another key")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := OpenEvidence(testSecret, rcp(1), bad); err == nil {
			t.Fatalf("opened with byte %d changed", i)
		}
		if _, err := OpenEvidence(testSecret, rcp(1), sealed[:i]); err == nil {
			t.Fatalf("opened when cut at %d", i)
		}
	}
}

func TestEvidenceSize(t *testing.T) {
	s := testSealer(t)
	empty, err := json.Marshal(evidence{Object: "", Receipt: rcp(1), Salt: strings.Repeat("0", 32)})
	if err != nil {
		t.Fatal(err)
	}
	most := MaxEvidence - len(empty)
	if _, _, err := s.Evidence([16]byte{}, rcp(1), strings.Repeat("x", most)); err != nil {
		t.Errorf("at the cap: %v", err)
	}
	if _, _, err := s.Evidence([16]byte{}, rcp(1), strings.Repeat("x", most+1)); writ.CodeOf(err) != writ.CodeTooLarge {
		t.Errorf("over the cap: %v", err)
	}
	if _, _, err := s.Evidence([16]byte{}, rcp(1), func() {}); writ.CodeOf(err) != writ.CodeInternal {
		t.Errorf("no JSON: %v", err)
	}
}

func BenchmarkReceipt(b *testing.B) {
	s, v := testSealer(b), testVerifier(b)
	st := full()
	b.Run("draft", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := s.Draft(st); err != nil {
				b.Fatal(err)
			}
		}
	})
	head, tail, err := s.Draft(st)
	if err != nil {
		b.Fatal(err)
	}
	fact := writ.StoredFact{Fact: writ.Fact{ID: st.Receipt, Run: st.Run, KeyID: s.KeyID(), Head: head, Tail: tail}, Commit: writ.Committed{Epoch: "e", RunSeq: 1}}
	b.Run("seal", func(b *testing.B) {
		for b.Loop() {
			fact.Commit.Seq++ // or every other seal would find its signature
			if _, err := s.Seal(fact); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("evidence", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := s.Evidence([16]byte{}, st.Receipt, st); err != nil {
				b.Fatal(err)
			}
		}
	})
	r, err := s.Seal(fact)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			if _, err := v.Receipt(r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
