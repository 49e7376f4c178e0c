package receipts

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/writ-gateway/writ"
)

// rested is a run that ends on a signed verdict: entries of a log from 0 on, of which
// the last but one is the verdict.
func rested(t testing.TB, k *CosignKey) (entries []writ.Receipt, last Record) {
	t.Helper()
	s := testSealer(t)
	for _, rec := range story()[:2] {
		entries = append(entries, seal(t, s, rec.Statement, rec.Commit))
	}
	key := verdictKey(t, publicPEM(t, k.key.Public()))
	text, err := VerdictStatement(wanted(key), nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := CheckVerdict([]byte(signedText(t, k, text)), wanted(key))
	if err != nil {
		t.Fatal(err)
	}
	last = story()[4]
	last.Statement.Verdict = &writ.VerdictRef{Digest: signed.Digest, KeyID: key.ID}
	last.Statement.Parents = append(last.Statement.Parents, writ.VerdictID(signed.Digest))
	last.Commit = writ.Committed{Epoch: "e1", Seq: 3, RunSeq: 3, At: start + 9}
	fact := writ.StoredFact{Fact: *signed.Fact(last.Statement.Run), Commit: writ.Committed{Epoch: "e1", Seq: 2, At: start + 9}}
	r, err := s.Seal(fact)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Seal(fact); err != nil || !bytes.Equal(again.Sig, signed.Sig) || again.Kind() != writ.FactForeign {
		t.Errorf("got %+v, %v", again, err)
	}
	return append(entries, r, seal(t, s, last.Statement, last.Commit)), last
}

// pieces exports entries with a head behind each piece of n.
func pieces(t testing.TB, entries []writ.Receipt, n int) []byte {
	t.Helper()
	var out []byte
	for piece := range slices.Chunk(entries, n) {
		var b bytes.Buffer
		if err := WriteExport(&b, list(piece), testSealer(t), piece[0].Seq-1, start+20, piece[len(piece)-1].Seq != entries[len(entries)-1].Seq); err != nil {
			t.Fatal(err)
		}
		text := b.Bytes()
		if out != nil {
			text = text[bytes.IndexByte(text, '\n')+1:]
		}
		out = append(out, text...)
	}
	return out
}

// A verdict is in an export as it was signed, before the receipt that rests on it,
// wherever a piece ends and the export begins.
func TestExportOfForeign(t *testing.T) {
	entries, _ := rested(t, verifierWith(t, numberedKey(t, 7)))
	golden(t, "export-foreign.jsonl", pieces(t, entries, 10))
	for from := range entries {
		for n := 1; n <= 4; n++ {
			got := verify(t, pieces(t, entries[from:], n))
			if got.Verdict != Good || got.Receipts != int64(4-from) || got.FirstSeq != int64(from) || got.LastSeq != 3 {
				t.Errorf("from %d, in pieces of %d: %+v", from, n, got)
			}
		}
	}
	entries, _ = rested(t, verifierWith(t, ed25519.NewKeyFromSeed(make([]byte, 32))))
	if got := verify(t, pieces(t, entries, 10)); got.Verdict != Good {
		t.Errorf("with a key of the other kind: %+v", got)
	}
}

func TestForeignThatDoNotFit(t *testing.T) {
	k := verifierWith(t, numberedKey(t, 7))
	entries, rests := rested(t, k)
	s := testSealer(t)
	sealed := func(change func(*Record)) writ.Receipt {
		rec := rests
		rec.Statement.Parents = slices.Clone(rec.Statement.Parents)
		change(&rec)
		return seal(t, s, rec.Statement, rec.Commit)
	}
	other, _ := rested(t, verifierWith(t, numberedKey(t, 8)))
	for name, list := range map[string][]writ.Receipt{
		"left out":          {entries[0], entries[1], sealed(func(r *Record) { r.Commit.Seq = 2 })},
		"alone":             {entries[0], entries[1], entries[2], sealed(func(r *Record) { r.Statement.Verdict = nil })},
		"not named":         {entries[0], entries[1], entries[2], sealed(func(r *Record) { r.Statement.Parents = r.Statement.Parents[:2] })},
		"by another's key":  {entries[0], entries[1], other[2], entries[3]},
		"there is another":  {entries[0], entries[1], entries[2], at(entries[2], 3), sealed(func(r *Record) { r.Commit.Seq = 4 })},
		"there at the end":  {entries[0], entries[1], entries[2]},
		"of another digest": {entries[0], entries[1], entries[2], sealed(func(r *Record) { r.Statement.Verdict = &writ.VerdictRef{Digest: digest(nil), KeyID: entries[2].KeyID} })},
		"not before it":     {entries[0], entries[2], at(entries[1], 2), entries[3]},
	} {
		for i := range list {
			list[i].Seq = int64(i)
		}
		if got := verify(t, pieces(t, list, 10)); got.Verdict == Good {
			t.Errorf("%s: %+v", name, got)
		}
	}
	later := []writ.Receipt{entries[1], sealed(func(r *Record) { r.Commit.Seq, r.Commit.RunSeq = 2, 3 })} // whose parents nobody knows
	if got := verify(t, pieces(t, later, 10)); got.Verdict != Tampered {
		t.Errorf("left out of an export that begins later: %+v", got)
	}
	before := []writ.Receipt{at(entries[2], -1), sealed(func(r *Record) { r.Commit.Seq, r.Commit.RunSeq = 0, 3 })} // the log begins with 0, and so do its rules
	if got := verify(t, pieces(t, before, 10)); got.Verdict != Tampered {
		t.Errorf("before the beginning: %+v", got)
	}
	text := pieces(t, entries, 10)
	lines := bytes.SplitAfter(text, []byte("\n"))
	if !strings.Contains(string(lines[3]), `"kind":"foreign"`) {
		t.Fatalf("the line is %s", lines[3])
	}
	for i := range lines[3] {
		spoiled := bytes.Clone(lines[3])
		spoiled[i] ^= 1
		if got := verify(t, bytes.Join([][]byte{lines[0], lines[1], lines[2], spoiled, lines[4], lines[5]}, nil)); got.Verdict == Good {
			t.Errorf("byte %d of the line is %q, and that is good", i, spoiled[i])
		}
	}
	for name, line := range map[string]string{
		"in another order": regexp.MustCompile(`("kind":"foreign"),("publicKey":"[^"]*")`).ReplaceAllString(string(lines[3]), "$2,$1"),
		"with a space":     strings.Replace(string(lines[3]), `,"kind"`, `, "kind"`, 1),
	} {
		if line == string(lines[3]) {
			t.Fatalf("%s: it is no case of this", name)
		}
		if got := verify(t, bytes.Join([][]byte{lines[0], lines[1], lines[2], []byte(line), lines[4], lines[5]}, nil)); got.Verdict == Good {
			t.Errorf("the line %s is good", name)
		}
	}
	r := entries[2]
	wide := bytes.Clone(r.Public) // the same key: its point, of which the first bit is 0, one bit on
	point := wide[len(wide)-66:]
	point[0] = 1
	for i := 1; i < len(point); i++ {
		if point[i] <<= 1; i+1 < len(point) {
			point[i] |= point[i+1] >> 7
		}
	}
	if again, err := x509.ParsePKIXPublicKey(wide); err != nil || !k.key.Public().(*ecdsa.PublicKey).Equal(again) {
		t.Fatalf("it is another key, or none: %v", err)
	}
	for name, spoil := range map[string]func(f *writ.Fact){
		"another payload":         func(f *writ.Fact) { f.Head = append(bytes.Clone(f.Head), ' ') },
		"another signature":       func(f *writ.Fact) { f.Sig = other[2].Sig },
		"another key":             func(f *writ.Fact) { f.Public = other[2].Public },
		"another key's id":        func(f *writ.Fact) { f.KeyID = other[2].KeyID },
		"another id":              func(f *writ.Fact) { f.ID = rcp(9) },
		"a key written otherwise": func(f *writ.Fact) { f.Public = wide },
		"a key of another curve": func(f *writ.Fact) {
			strong, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			hash := sha256.Sum256(dsse.PAE(PayloadType, f.Head))
			if f.Sig, err = ecdsa.SignASN1(rand.Reader, strong, hash[:]); err != nil {
				t.Fatal(err)
			}
			if f.Public, err = x509.MarshalPKIXPublicKey(strong.Public()); err != nil {
				t.Fatal(err)
			}
			if f.KeyID, err = dsse.SHA256KeyID(strong.Public()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		f := writ.Fact{ID: r.ID, KeyID: r.KeyID, Head: r.Payload, Sig: r.Sig, Public: r.Public}
		spoil(&f)
		if _, err := s.Seal(writ.StoredFact{Fact: f}); err == nil {
			t.Errorf("%s is filed", name)
		}
	}
}

func verifierWith(t testing.TB, key crypto.Signer) *CosignKey {
	t.Helper()
	id, err := dsse.SHA256KeyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &CosignKey{key, id}
}

func at(r writ.Receipt, seq int64) writ.Receipt {
	r.Seq = seq
	return r
}
