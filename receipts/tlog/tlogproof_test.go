package tlog

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/writtest"
)

// proved is the tlog-proof of the third of five receipts, which are what they are each time, with the keys it is checked with.
func proved(t testing.TB) (text []byte, logKey string, ring *receipts.Ring, all []writ.Receipt) {
	t.Helper()
	return provedIn(t, testKey(t), testKey(t).Name())
}

// provedIn is the same of a log whose receipts name it origin.
func provedIn(t testing.TB, key *Key, origin string) (text []byte, logKey string, ring *receipts.Ring, all []writ.Receipt) {
	t.Helper()
	seed := sha256.Sum256([]byte("receipts"))
	priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := receipts.NewSealer(priv, origin, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	der, err := PublicDER(&priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.TempDir(), key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		id := writ.ReceiptID("rcp_01KEDVDNA0000000000000000" + string(rune('0'+i)))
		st := writ.Statement{
			Receipt: id, Tenant: "default", Log: origin, Transition: "run.create", Outcome: writ.OutcomeOfTransition, KeyID: sealer.KeyID(),
			Actor: writ.Actor{Kind: writ.KindSystem, Role: writ.RoleSystem},
		}
		head, tail, err := sealer.Draft(st)
		if err != nil {
			t.Fatal(err)
		}
		r, err := sealer.Seal(writ.StoredFact{Fact: writ.Fact{ID: id, KeyID: st.KeyID, Head: head, Tail: tail}, Commit: writ.Committed{Seq: int64(i), At: 1_767_225_600_000, Epoch: "e1"}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
		if err := l.Append([][]byte{Leaf(r, der)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Publish(); err != nil {
		t.Fatal(err)
	}
	p, ok, err := l.Include(2)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	r := all[2]
	r.Inclusion = p.Receipt()
	if text, err = Proof(r); err != nil {
		t.Fatal(err)
	}
	return text, verifierOf(t, key), ringOf(t, &priv.PublicKey), all
}

// The form is that of C2SP, and pinned: others read it.
func TestProofsArePinned(t *testing.T) {
	text, logKey, ring, all := proved(t)
	writtest.GoldenFile(t, *update, "testdata/receipt.tlog-proof", text)
	rec, cp, err := CheckProof(text, logKey, ring)
	if err != nil || rec.Statement.Receipt != all[2].ID || cp.Size != 5 {
		t.Errorf("got %s under %d, %v", rec.Statement.Receipt, cp.Size, err)
	}
	if _, err := Proof(all[2]); err == nil {
		t.Error("there is a proof of what no checkpoint covers")
	}
}

// Receipts name the log and not its shard; a proof in a later one holds all the same.
func TestAProofInALaterShardHolds(t *testing.T) {
	for name, good := range map[string]bool{"s2.log.example.org": true, "s1.log.example.org": false, "x2.log.example.org": false} {
		key := NewKey(name, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
		text, logKey, ring, _ := provedIn(t, key, "log.example.org")
		if _, _, err := CheckProof(text, logKey, ring); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every changed byte shows, and so does whatever is put together out of good parts.
func TestAChangedProofProvesNothing(t *testing.T) {
	text, logKey, ring, all := proved(t)
	for i := range text {
		changed := bytes.Clone(text)
		changed[i] ^= 1
		if _, _, err := CheckProof(changed, logKey, ring); err == nil {
			t.Fatalf("byte %d, %q, counts for nothing", i, text[i])
		}
	}
	env, err := receipts.Envelope(all[3])
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Split(string(text), "\n")
	other[1] = "extra " + b64.EncodeToString(env)
	lines := func(change func([]string) []string) []byte {
		return []byte(strings.Join(change(strings.Split(string(text), "\n")), "\n"))
	}
	form := func(err error) bool { return errors.Is(err, ErrProofForm) }
	for name, c := range map[string]struct {
		text []byte
		form bool
	}{
		"another receipt":         {[]byte(strings.Join(other, "\n")), false},
		"another index":           {bytes.Replace(text, []byte("\nindex 2\n"), []byte("\nindex 3\n"), 1), false},
		"an index with a zero":    {bytes.Replace(text, []byte("\nindex 2\n"), []byte("\nindex 02\n"), 1), true},
		"no index":                {bytes.Replace(text, []byte("\nindex 2\n"), []byte("\n"), 1), true},
		"no extra data":           {lines(func(l []string) []string { return append(l[:1], l[2:]...) }), true},
		"one hash less":           {lines(func(l []string) []string { return append(l[:3], l[4:]...) }), false},
		"one hash twice":          {lines(func(l []string) []string { return append(l[:4], l[3:]...) }), false},
		"a hash that is too long": {bytes.Replace(text, []byte("=\n"), []byte("==\n"), 1), true},
		"an empty line more":      {bytes.Replace(text, []byte("\n\n"), []byte("\n\n\n"), 1), false},
		"a line that ends on DOS": {bytes.Replace(text, []byte("\nindex"), []byte("\r\nindex"), 1), true},
		"something behind it":     {append(bytes.Clone(text), "x"...), false},
		"nothing":                 {nil, true},
		"a header":                {[]byte(ProofHeader + "\n"), true},
		"too much":                {append(bytes.Clone(text), make([]byte, MaxProof)...), true},
	} {
		if _, _, err := CheckProof(c.text, logKey, ring); err == nil || form(err) != c.form {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, _, err := CheckProof(text, "other.example.org+"+logKey[strings.Index(logKey, "+")+1:], ring); err == nil {
		t.Error("it counts for a log of another name")
	}
	stranger, trust := written(t, 1)
	if _, _, err := CheckProof(text, logKey, trust.Keys); !errors.Is(err, receipts.ErrKeyUnknown) {
		t.Errorf("with another receipt key, of %s: got %v", stranger, err)
	}
}

// A receipt is proved where it says it is, and nowhere else, whatever the log's key signed.
func TestAProofIsOfTheIndexTheReceiptSays(t *testing.T) {
	_, logKey, ring, all := proved(t)
	der, err := PublicDER(ring.Get(all[2].KeyID).Public)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.TempDir(), testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all[1:] { // the first is left out
		if err := l.Append([][]byte{Leaf(r, der)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Publish(); err != nil {
		t.Fatal(err)
	}
	p, ok, err := l.Include(1)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	r := all[2]
	r.Inclusion = p.Receipt()
	text, err := Proof(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := CheckProof(text, logKey, ring); err == nil || !strings.Contains(err.Error(), "at index 1") {
		t.Errorf("got %v", err)
	}
}

// What is read is written again the same, or refused.
func FuzzParseProof(f *testing.F) {
	text, logKey, ring, _ := proved(f)
	f.Add(text)
	f.Add([]byte(ProofHeader + "\nextra \nindex 0\n\nx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseProof(b)
		if err == nil && !bytes.Equal(renderProof(p.envelope, p.index, p.hashes, p.checkpoint), b) {
			t.Errorf("%q is read as something else", b)
		}
		if _, _, err := CheckProof(b, logKey, ring); err == nil && !bytes.Equal(b, text) {
			t.Errorf("%q was never made", b)
		}
	})
}
