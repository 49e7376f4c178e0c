package receipts

import (
	"bytes"
	"fmt"
	"regexp"
	"sync"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
)

func storedFact(s *Sealer, n int) writ.StoredFact {
	return writ.StoredFact{
		Fact:   writ.Fact{ID: rcp(n), KeyID: s.KeyID(), Head: []byte(`{"n":`), Tail: fmt.Appendf(nil, `,"x":%d}`, n)},
		Commit: writ.Committed{Epoch: "1.aa", Seq: int64(n), At: 1_767_225_600_000},
	}
}

// However often, by whomever and in what order facts are sealed: each gets the
// signature of its own text, as a sealer without memory makes it.
func TestSealingAgainChangesNothing(t *testing.T) {
	key := rfcKey(t)
	rapid.Check(t, func(t *rapid.T) {
		s, err := NewSealer(key, "writ.local", testSecret)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 3), 1, 12).Draw(t, "facts") {
			f := storedFact(s, n)
			if rapid.Bool().Draw(t, "moved") {
				f.Commit.Seq += 100
			}
			r, err := s.Seal(f)
			if err != nil {
				t.Fatal(err)
			}
			want, err := sign(s.keys[s.keyID], dsse.PAE(PayloadType, f.Payload()))
			if err != nil || !bytes.Equal(r.Sig, want) || !bytes.Equal(r.Payload, f.Payload()) {
				t.Fatalf("fact %d: another signature than its own (%v)", n, err)
			}
			clear(r.Sig) // what one holder does to it is not seen by the next
		}
	})
}

// Signatures nobody comes for are forgotten, and sealing at once is safe.
func TestSignaturesAreBounded(t *testing.T) {
	var s signatures
	for i := range 3 * len(s.order) {
		s.keep([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, []byte{1})
	}
	if len(s.by) != len(s.order) {
		t.Errorf("%d signatures are kept", len(s.by))
	}
	sealer := testSealer(t)
	want, err := sealer.Seal(storedFact(sealer, 1))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				if r, err := sealer.Seal(storedFact(sealer, 1)); err != nil || !bytes.Equal(r.Sig, want.Sig) {
					t.Errorf("another signature: %v", err)
				}
			}
		})
	}
	all.Wait()
}

// The checks made by hand say what their patterns say.
func TestHandMadeChecks(t *testing.T) {
	for pattern, valid := range map[string]func(string) bool{`^[0-9a-f]{64}$`: hexDigest} {
		re := regexp.MustCompile(pattern)
		rapid.Check(t, func(t *rapid.T) {
			s := rapid.OneOf(rapid.StringMatching(pattern), rapid.StringMatching(`[0-9a-g]{63,65}`), rapid.String()).Draw(t, "text")
			if b := []byte(s); len(b) > 0 && rapid.Bool().Draw(t, "change") {
				b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.SampledFrom([]byte("\n/0:9@AF`fg")).Draw(t, "to")
				s = string(b)
			}
			if valid(s) != re.MatchString(s) {
				t.Fatalf("%q: %v, %s says otherwise", s, valid(s), pattern)
			}
		})
	}
}
