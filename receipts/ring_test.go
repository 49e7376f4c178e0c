package receipts

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	reference "github.com/gowebpki/jcs"
	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/jcs"
)

// numberedKey is the n-th of the keys of these tests; the 0th is rfcKey.
func numberedKey(t testing.TB, n int) *ecdsa.PrivateKey {
	t.Helper()
	if n == 0 {
		return rfcKey(t)
	}
	d := sha256.Sum256([]byte{'k', byte(n)})
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pemOf(t testing.TB, pub any) []byte {
	t.Helper()
	text, err := PublicPEM(pub)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// keyStory is a log in which keys come and go.
type keyStory struct {
	t       testing.TB
	sealers []*Sealer
	spki    []string
	now     int
	out     []writ.Receipt
}

func newKeyStory(t testing.TB, keys int) *keyStory {
	s := &keyStory{t: t}
	for n := range keys {
		key := numberedKey(t, n)
		sealer, err := NewSealer(key, "writ.local", testSecret)
		if err != nil {
			t.Fatal(err)
		}
		spki, _, err := SPKIOf(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		s.sealers, s.spki = append(s.sealers, sealer), append(s.spki, spki)
	}
	return s
}

// by seals a statement with a key, as the next of the log.
func (s *keyStory) by(key int, st writ.Statement) *keyStory {
	s.t.Helper()
	n := len(s.out)
	st.Receipt, st.Tenant, st.Nonce = rcp(n+1), "default", [16]byte{byte(n)}
	st.Actor = writ.Actor{Kind: writ.KindHuman, Role: writ.RoleOperator}
	if st.Outcome == "" {
		st.Outcome = writ.OutcomeOfTransition
	}
	s.out = append(s.out, seal(s.t, s.sealers[key], st, writ.Committed{Epoch: "e1", Seq: int64(n), At: start + int64(n)}))
	return s
}

// work is a receipt that says nothing of keys.
func (s *keyStory) work(n int) *keyStory {
	for range n {
		s.by(s.now, writ.Statement{Transition: "role.bind"})
	}
	return s
}

func (s *keyStory) key(transition string, about int, since int64, moves ...writ.Change) writ.Statement {
	return writ.Statement{
		Transition: transition, Changes: moves,
		Key: writ.KeyFact{ID: s.sealers[about].KeyID(), Purpose: writ.KeyReceipt, SPKI: s.spki[about], Since: since},
	}
}

func (s *keyStory) move(key int, from, to writ.KeyState) writ.Change {
	return writ.Change{Kind: writ.ObjectKey, ID: s.spki[key], From: string(from), To: string(to)}
}

func (s *keyStory) introduce(key int) *keyStory {
	moves := []writ.Change{s.move(key, "", writ.KeyIntroduced)}
	if key == 1 {
		moves = append(moves, s.move(0, "", writ.KeyActive))
	}
	return s.by(s.now, s.key(writ.KeyIntroduce, key, 0, moves...))
}

func (s *keyStory) activate(key int) *keyStory {
	s.by(s.now, s.key(writ.KeyActivate, key, 0, s.move(key, writ.KeyIntroduced, writ.KeyActive), s.move(s.now, writ.KeyActive, writ.KeyRetired)))
	s.now = key
	return s
}

func (s *keyStory) retire(key int) *keyStory {
	return s.by(s.now, s.key(writ.KeyRetire, key, 0, s.move(key, writ.KeyIntroduced, writ.KeyRetired)))
}

func (s *keyStory) revoke(key int, since int64) *keyStory {
	return s.by(s.now, s.key(writ.KeyRevoke, key, since, s.move(key, writ.KeyRetired, writ.KeyRevoked)))
}

// events are the receipts of keys among them.
func (s *keyStory) events() (out []writ.Receipt) {
	for _, r := range s.out {
		if rec, err := Decode(r.Payload); err != nil {
			s.t.Fatal(err)
		} else if IsKeyEvent(rec) {
			out = append(out, r)
		}
	}
	return out
}

func (s *keyStory) ring() *Ring {
	s.t.Helper()
	r, err := NewRing(testVerifier(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, k := range s.sealers {
		if err := r.Show(pemOf(s.t, k.Public())); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, e := range s.events() {
		if err := r.Take(e); err != nil {
			s.t.Fatal(err)
		}
	}
	return r
}

// file is the file of keys of the story, its manifest signed by a key.
func (s *keyStory) file(signer any, others ...Other) []byte {
	s.t.Helper()
	r := s.ring()
	payload, err := Manifest(r, "writ.local", "default", others...)
	if err != nil {
		s.t.Fatal(err)
	}
	var env []byte
	switch k := signer.(type) {
	case *ecdsa.PrivateKey:
		env, err = SignManifest(payload, k)
	case ed25519.PrivateKey:
		env, err = SignManifest(payload, k)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	list, err := r.Envelopes()
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := json.Marshal(KeysFile{Format: KeysFormat, Manifest: env, Receipts: list})
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// life is a story with everything in it: 0 signs 0–5, 1 signs 6–9, 2 signs from 10 on;
// 3 was never used, and 0 is revoked.
func life(t testing.TB) *keyStory {
	s := newKeyStory(t, 4)
	s.work(2).introduce(1).work(1).introduce(3).activate(1)            // 0–5
	s.work(1).retire(3).introduce(2).activate(2).work(1).revoke(0, 12) // 6–11
	return s.work(3)                                                   // 12–14
}

func testRoot() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)) }

func testLogKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32)) }

func TestTheManifestIsPinned(t *testing.T) {
	s := life(t)
	others := []Other{{writ.KeyLog, testLogKey().Public()}, {writ.KeyRoot, testRoot().Public()}}
	payload, err := Manifest(s.ring(), "writ.local", "default", others...)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "key-manifest.json", payload)
	if err := jcs.Check(payload); err != nil {
		t.Error(err)
	}
	if other, err := reference.Transform(payload); err != nil || !bytes.Equal(other, payload) {
		t.Errorf("another implementation of RFC 8785 writes %s, %v", other, err)
	}
	golden(t, "keys.json", s.file(numberedKey(t, 2), others...))
	golden(t, "keys-root.json", s.file(testRoot(), others...))
	golden(t, "root.pub", pemOf(t, testRoot().Public()))
	for _, r := range s.events()[:1] {
		env, err := Envelope(r)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "key-introduce.dsse.json", env)
	}
}

// Who may sign what, by index.
func TestValidityIsByIndex(t *testing.T) {
	s := life(t)
	r, err := ReadRing(s.file(numberedKey(t, 2)), Trusted{Key: testPublic(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key  int
		seq  int64
		want error
	}{
		{0, 0, nil},
		{0, 5, nil},
		{0, 6, ErrKeyLate},
		{0, 11, ErrKeyRevoked},
		{0, 99, ErrKeyRevoked},
		{1, 1, ErrKeyEarly},
		{1, 2, ErrKeyEarly},
		{1, 5, ErrKeyEarly},
		{1, 6, nil},
		{1, 9, nil},
		{1, 10, ErrKeyLate},
		{2, 9, ErrKeyEarly},
		{2, 10, nil},
		{2, 1 << 40, nil},
		{3, 3, ErrKeyEarly},
		{3, 6, ErrKeyEarly},
		{3, 20, ErrKeyEarly},
	} {
		if err := r.May(s.sealers[c.key].KeyID(), c.seq); !errors.Is(err, c.want) {
			t.Errorf("key %d at %d: %v, want %v", c.key, c.seq, err, c.want)
		}
	}
	if err := r.May("SHA256:"+strings.Repeat("x", 43), 3); !errors.Is(err, ErrKeyUnknown) {
		t.Errorf("a key nobody introduced: %v", err)
	}
	for i, rc := range s.out {
		if err := r.May(rc.KeyID, rc.Seq); err != nil {
			t.Errorf("receipt %d: %v", i, err)
		}
	}
	for key, want := range []error{ErrKeyRevoked, ErrKeyLate, nil, ErrKeyEarly} {
		s.by(key, writ.Statement{Transition: "role.bind"})
		last := s.out[len(s.out)-1]
		if err := r.May(last.KeyID, last.Seq); !errors.Is(err, want) {
			t.Errorf("a receipt of key %d at the end: %v, want %v", key, err, want)
		}
	}
}

// A key whose public half nobody has shown proves nothing; shown later it does, also of
// what it had signed by then. A ring keeps no evidence.
func TestAHalfThatIsShownLater(t *testing.T) {
	s := newKeyStory(t, 2).introduce(1).activate(1).work(1)
	r, err := NewRing(testVerifier(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.events() {
		rec, err := Decode(e.Payload)
		e.Evidence = []byte("what was asked")
		if err == nil {
			err = r.Learn(rec, e)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range r.Events() {
		if e.Evidence != nil {
			t.Error("it keeps evidence")
		}
	}
	if _, err := r.verifier(s.out[2].KeyID); !errors.Is(err, ErrKeyUnknown) {
		t.Errorf("before: %v", err)
	}
	if err := r.Show(pemOf(t, s.sealers[1].Public())); err != nil {
		t.Fatal(err)
	}
	if _, err := r.verifier(s.out[2].KeyID); err != nil {
		t.Errorf("then: %v", err)
	}
	if k := r.Signing(); k.PEM == "" || k.Public == nil {
		t.Error("the signing key is not shown")
	}
}

// What a revoked key has signed from an index on is not believed, nor is what rests on it:
// the keys it introduced then, and those they introduced. A root can vouch for these. Either
// way such a history can be read to its end.
func TestRevocationReachesBack(t *testing.T) {
	root := testRoot()
	for name, c := range map[string]struct {
		story *keyStory
		signs int // at the end
	}{
		"one key after it":                   {newKeyStory(t, 2).work(3).introduce(1).activate(1).work(1).revoke(0, 2).work(1), 1},
		"and the log goes on":                {newKeyStory(t, 3).work(3).introduce(1).activate(1).revoke(0, 2).introduce(2).activate(2).work(1), 2},
		"two rotations do not wash it clean": {newKeyStory(t, 3).work(3).introduce(1).activate(1).work(1).introduce(2).activate(2).revoke(0, 2).work(1), 2},
	} {
		own, err := ReadRing(c.story.file(numberedKey(t, c.signs)), Trusted{Key: testPublic(t)})
		if err != nil {
			t.Fatal(name, err)
		}
		vouched, err := ReadRing(c.story.file(root), Trusted{Root: pemOf(t, root.Public())})
		if err != nil {
			t.Fatal(name, err)
		}
		for seq, rc := range c.story.out {
			var alone, withRoot error
			if seq >= 2 {
				alone = ErrKeyRevoked
			}
			if seq >= 2 && seq < 5 {
				withRoot = ErrKeyRevoked
			}
			if err := own.May(rc.KeyID, rc.Seq); !errors.Is(err, alone) {
				t.Errorf("%s: %d: %v, want %v", name, seq, err, alone)
			}
			if err := vouched.May(rc.KeyID, rc.Seq); !errors.Is(err, withRoot) {
				t.Errorf("%s: %d with the root: %v, want %v", name, seq, err, withRoot)
			}
		}
	}
}

// A log may have changed its key as often as it may: what a key rests on is known then at
// once, too.
func TestManyRotations(t *testing.T) {
	s := newKeyStory(t, writ.MaxKeys).work(1)
	for n := 1; n < writ.MaxKeys; n++ {
		s.introduce(n).activate(n)
	}
	r := s.revoke(0, 0).work(1).ring()
	last := s.out[len(s.out)-1]
	for range 1000 {
		if err := r.May(last.KeyID, last.Seq); err != nil {
			t.Fatal(err)
		}
	}
}

// An export is verified with what the root vouches for, too.
func TestAnExportARootVouchesFor(t *testing.T) {
	s := newKeyStory(t, 2).work(3).introduce(1).activate(1).work(1).revoke(0, 2).work(1)
	root := testRoot()
	for name, c := range map[string]struct {
		signer any
		trust  Trusted
		want   Verdict
	}{
		"with the root":    {root, Trusted{Root: pemOf(t, root.Public())}, Good},
		"without the root": {numberedKey(t, 1), Trusted{Key: testPublic(t)}, Tampered},
	} {
		ring, err := ReadRing(s.file(c.signer), c.trust)
		if err != nil {
			t.Fatal(err)
		}
		got, err := VerifyKeys(bytes.NewReader(s.exported(5, 8, 1)), ring)
		if err != nil || got.Verdict != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Who introduced a key is one thing, who made it the signing one another: neither may be
// what a stolen key has signed.
func TestAKeyRestsOnBoth(t *testing.T) {
	for name, c := range map[string]struct {
		story *keyStory
		bad   []int64 // what is not believed
	}{
		"introduced before, activated after": {newKeyStory(t, 2).introduce(1).work(2).activate(1).work(1).revoke(0, 2), []int64{2, 3, 4, 5}},
		"both before":                        {newKeyStory(t, 2).introduce(1).activate(1).work(1).revoke(0, 2), nil},
	} {
		r := c.story.ring()
		for n, rc := range c.story.out {
			if err := r.May(rc.KeyID, int64(n)); errors.Is(err, ErrKeyRevoked) != slices.Contains(c.bad, int64(n)) || err != nil && !errors.Is(err, ErrKeyRevoked) {
				t.Errorf("%s: %d: %v", name, n, err)
			}
		}
	}
}

// What a receipt says of a key is held to what the receipts before it said.
func TestLearnRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		story *keyStory
		next  func(s *keyStory) (key int, st writ.Statement)
		want  error
	}{
		"a second introduction": {newKeyStory(t, 2).introduce(1), func(s *keyStory) (int, writ.Statement) {
			return 0, s.key(writ.KeyIntroduce, 1, 0, s.move(1, "", writ.KeyIntroduced))
		}, ErrKeyEvent},
		"a key nobody introduced made the signing one": {newKeyStory(t, 3).introduce(1), func(s *keyStory) (int, writ.Statement) {
			return 0, s.key(writ.KeyActivate, 2, 0, s.move(2, writ.KeyIntroduced, writ.KeyActive), s.move(0, writ.KeyActive, writ.KeyRetired))
		}, ErrKeyEvent},
		"two signing keys": {newKeyStory(t, 2).introduce(1), func(s *keyStory) (int, writ.Statement) {
			return 0, s.key(writ.KeyActivate, 1, 0, s.move(1, writ.KeyIntroduced, writ.KeyActive))
		}, ErrKeyEvent},
		"by a retired key": {newKeyStory(t, 3).introduce(1).activate(1), func(s *keyStory) (int, writ.Statement) {
			return 0, s.key(writ.KeyIntroduce, 2, 0, s.move(2, "", writ.KeyIntroduced))
		}, ErrKeyLate},
		"by a key before its time": {newKeyStory(t, 3).introduce(1), func(s *keyStory) (int, writ.Statement) {
			return 1, s.key(writ.KeyIntroduce, 2, 0, s.move(2, "", writ.KeyIntroduced))
		}, ErrKeyEarly},
		"by a stranger": {newKeyStory(t, 3).introduce(1), func(s *keyStory) (int, writ.Statement) {
			return 2, s.key(writ.KeyIntroduce, 2, 0, s.move(2, "", writ.KeyIntroduced))
		}, ErrKeyUnknown},
		"the signing key revoked": {newKeyStory(t, 2).introduce(1), func(s *keyStory) (int, writ.Statement) {
			return 0, s.key(writ.KeyRevoke, 0, 0, s.move(0, writ.KeyActive, writ.KeyRevoked))
		}, ErrKeyEvent},
		"a retired key made the signing one": {newKeyStory(t, 2).introduce(1).retire(1), func(s *keyStory) (int, writ.Statement) {
			return 0, s.key(writ.KeyActivate, 1, 0, s.move(1, writ.KeyIntroduced, writ.KeyActive), s.move(0, writ.KeyActive, writ.KeyRetired))
		}, ErrKeyEvent},
		"none in its place": {newKeyStory(t, 2).introduce(1), func(s *keyStory) (int, writ.Statement) {
			return 0, s.key(writ.KeyActivate, 1, 0, s.move(0, writ.KeyActive, writ.KeyRetired), s.move(1, writ.KeyIntroduced, writ.KeyRetired))
		}, ErrKeyEvent},
		"one key with the id of another": {newKeyStory(t, 3).introduce(1), func(s *keyStory) (int, writ.Statement) {
			st := s.key(writ.KeyRetire, 1, 0, s.move(1, writ.KeyIntroduced, writ.KeyRetired))
			st.Key.ID = s.sealers[2].KeyID()
			return 0, st
		}, ErrKeyEvent},
		"a new key with the id of another": {newKeyStory(t, 2), func(s *keyStory) (int, writ.Statement) {
			st := s.key(writ.KeyIntroduce, 1, 0, s.move(1, "", writ.KeyIntroduced))
			st.Key.ID = s.sealers[0].KeyID()
			return 0, st
		}, ErrKeyEvent},
		"a new key with an id that is not its own": {newKeyStory(t, 2), func(s *keyStory) (int, writ.Statement) {
			st := s.key(writ.KeyIntroduce, 1, 0, s.move(1, "", writ.KeyIntroduced))
			st.Key.ID = "SHA256:" + strings.Repeat("A", 43)
			return 0, st
		}, ErrKeyEvent},
		"the signing key retired": {newKeyStory(t, 2).introduce(1), func(s *keyStory) (int, writ.Statement) {
			return 0, s.key(writ.KeyRetire, 0, 0, s.move(0, writ.KeyActive, writ.KeyRetired))
		}, ErrKeyEvent},
		"one key too many": {manyKeys(t), func(s *keyStory) (int, writ.Statement) {
			return 0, s.key(writ.KeyIntroduce, writ.MaxKeys, 0, s.move(writ.MaxKeys, "", writ.KeyIntroduced))
		}, ErrKeyEvent},
		"no key": {newKeyStory(t, 2).introduce(1), func(*keyStory) (int, writ.Statement) {
			return 0, writ.Statement{Transition: "role.bind"}
		}, ErrKeyEvent},
	} {
		r := c.story.ring()
		key, st := c.next(c.story)
		c.story.by(key, st)
		rc := c.story.out[len(c.story.out)-1]
		rec, err := Decode(rc.Payload)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := r.Learn(rec, rc); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	other := newKeyStory(t, 2)
	r := other.introduce(1).ring()
	again := newKeyStory(t, 2)
	again.work(1)
	st := again.key(writ.KeyRetire, 1, 0, again.move(1, writ.KeyIntroduced, writ.KeyRetired))
	st.Tenant, st.Receipt, st.Outcome = "another", rcp(9), writ.OutcomeOfTransition
	rc := seal(t, again.sealers[0], st, writ.Committed{Epoch: "e1", Seq: 1, At: start})
	if err := r.Take(rc); !errors.Is(err, ErrKeyEvent) {
		t.Errorf("of another tenant: %v", err)
	}
	foreign, err := NewSealer(numberedKey(t, 0), "writ.elsewhere", testSecret)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		sealer *Sealer
		seq    int64
	}{"of another log": {foreign, 1}, "out of order": {again.sealers[0], 0}} {
		st.Tenant = "default"
		rc := seal(t, c.sealer, st, writ.Committed{Epoch: "e1", Seq: c.seq, At: start})
		if err := r.Take(rc); !errors.Is(err, ErrKeyEvent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(r.Events()) != 1 || r.Signing() != r.First() {
		t.Error("what was refused was learned")
	}
}

// manyKeys has introduced as many keys as a log may have.
func manyKeys(t testing.TB) *keyStory {
	s := newKeyStory(t, writ.MaxKeys+1)
	for n := 1; n < writ.MaxKeys; n++ {
		s.introduce(n).retire(n)
	}
	return s
}

// A root vouches for the keys of its manifest, and for none that came later: what rests on
// a revoked key falls, whatever other keys the root stands for.
func TestARootVouchesForWhatItHasSeen(t *testing.T) {
	s := newKeyStory(t, 3).work(1).introduce(1).activate(1)
	root := testRoot()
	r, err := ReadRing(s.file(root), Trusted{Root: pemOf(t, root.Public())})
	if err != nil {
		t.Fatal(err)
	}
	seen := len(s.events())
	s.work(1).introduce(2).activate(2)
	since := int64(len(s.out)) - 2 // the introduction
	s.revoke(1, since).work(1)
	for _, e := range s.events()[seen:] {
		rec, err := Decode(e.Payload)
		if err == nil {
			err = r.Learn(rec, e)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for n, want := range []error{nil, nil, nil, nil, ErrKeyRevoked, ErrKeyRevoked, ErrKeyRevoked, ErrKeyRevoked} {
		if err := r.May(s.out[n].KeyID, int64(n)); !errors.Is(err, want) {
			t.Errorf("%d: %v, want %v", n, err, want)
		}
	}
}

// A file of keys that anybody has changed is refused.
func TestAChangedManifestIsRefused(t *testing.T) {
	s := life(t)
	root := testRoot()
	rootPEM := pemOf(t, root.Public())
	good := s.file(root)
	if _, err := ReadRing(good, Trusted{Root: rootPEM}); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRing(good, Trusted{Key: testPublic(t)}); err != nil { // the root adds, it takes nothing away
		t.Fatal(err)
	}
	var laid bytes.Buffer
	if err := json.Indent(&laid, good, "", "  "); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRing(laid.Bytes(), Trusted{Root: rootPEM}); err != nil {
		t.Errorf("laid out anew: %v", err)
	}
	for i := 0; i < len(good); i += 37 {
		b := bytes.Clone(good)
		b[i] ^= 1
		if _, err := ReadRing(b, Trusted{Root: rootPEM}); err == nil {
			t.Fatalf("byte %d changed from %q to %q: accepted", i, good[i], b[i])
		}
	}
	var f KeysFile
	if err := json.Unmarshal(good, &f); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*KeysFile){
		"a receipt left out":       func(f *KeysFile) { f.Receipts = f.Receipts[:len(f.Receipts)-1] },
		"the first left out":       func(f *KeysFile) { f.Receipts = f.Receipts[1:] },
		"receipts in other order":  func(f *KeysFile) { f.Receipts = append(f.Receipts[1:2:2], f.Receipts[0]) },
		"a receipt twice":          func(f *KeysFile) { f.Receipts = append(f.Receipts, f.Receipts[0]) },
		"an earlier manifest":      func(f *KeysFile) { f.Manifest = manifestOf(t, newKeyStory(t, 2).introduce(1).file(root)) },
		"signed by a retired key":  func(f *KeysFile) { f.Manifest = manifestOf(t, s.file(numberedKey(t, 1))) },
		"signed by another's root": func(f *KeysFile) { f.Manifest = manifestOf(t, s.file(testLogKey())) },
	} {
		g := f
		g.Receipts = append([]json.RawMessage{}, f.Receipts...)
		change(&g)
		text, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadRing(text, Trusted{Root: rootPEM}); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadRing(s.file(numberedKey(t, 1)), Trusted{Key: testPublic(t)}); !errors.Is(err, ErrManifest) {
		t.Errorf("signed by a retired key, without a root: %v", err)
	}
	if _, err := ReadRing(good, Trusted{}); !errors.Is(err, ErrManifest) {
		t.Errorf("nothing trusted: %v", err)
	}
	if _, err := ReadRing(good, Trusted{Key: pemOf(t, &numberedKey(t, 1).PublicKey)}); !errors.Is(err, ErrManifest) {
		t.Errorf("another first key: %v", err)
	}
}

func manifestOf(t testing.TB, file []byte) json.RawMessage {
	t.Helper()
	var f KeysFile
	if err := json.Unmarshal(file, &f); err != nil {
		t.Fatal(err)
	}
	return f.Manifest
}

// exported is the story as an export, its head signed by a key.
func (s *keyStory) exported(from, to int, head int) []byte {
	s.t.Helper()
	var out bytes.Buffer
	if err := WriteExport(&out, list(s.out[from:to]), s.sealers[head], int64(from)-1, start+99, false); err != nil {
		s.t.Fatal(err)
	}
	return out.Bytes()
}

// An export that was signed with several keys verifies with the file of keys, whole and in
// part; and what a key signed out of its time is named.
func TestAnExportWithSeveralKeys(t *testing.T) {
	s := life(t)
	file := s.file(numberedKey(t, 2))
	ring, err := ReadRing(file, Trusted{Key: testPublic(t)})
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, text []byte, ring *Ring, want Verdict, reason string) Report {
		t.Helper()
		r, err := VerifyKeys(bytes.NewReader(text), ring)
		if err != nil || r.Verdict != want || !strings.Contains(r.Reason, reason) {
			t.Errorf("%s: %+v, %v; want %v, %q", name, r, err, want, reason)
		}
		return r
	}
	n := len(s.out)
	r := check("whole", s.exported(0, n, 2), ring, Good, "")
	if !strings.Contains(r.Note, "revoked from 11 on; the 6 receipts") {
		t.Errorf("the revocation is not said: %q", r.Note)
	}
	check("in part", s.exported(4, n, 2), ring, Good, "")
	check("an early part, exported later", s.exported(0, 4, 2), ring, Good, "")
	check("an early part, with the head of a key that is revoked since", s.exported(0, 4, 0), ring, Incomplete, "export again")
	var piece bytes.Buffer
	if err := WriteExport(&piece, list(s.out[:4]), s.sealers[0], -1, start+99, true); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(s.exported(4, n, 2), []byte("\n"))
	check("in pieces, one ended before the key was revoked", append(piece.Bytes(), rest...), ring, Good, "")
	if r := check("a part with the head of a key that is retired since", s.exported(0, 9, 1), ring, Good, ""); !strings.Contains(r.Note, "only the log shows") || !strings.Contains(r.Note, "behind 8") {
		t.Errorf("what the head of a retired key shows: %q", r.Note)
	}
	if strings.Contains(r.Note, "only the log shows") {
		t.Errorf("the key of the head is not retired: %q", r.Note)
	}
	check("a late part with the head of a retired key", s.exported(8, n, 1), ring, Tampered, "head: signed after its key was retired")
	check("with the head of a key that never signed", s.exported(0, n, 3), ring, Tampered, "never made the signing one")

	alone, err := NewRing(testVerifier(t))
	if err != nil {
		t.Fatal(err)
	}
	check("without the public halves", s.exported(0, n, 2), alone, Incomplete, "not at hand")
	stranger := newKeyStory(t, 4)
	stranger.work(1).by(3, writ.Statement{Transition: "role.bind"})
	check("a key that was never introduced", stranger.exported(0, 2, 0), alone, Tampered, "another key")

	// What is signed with the right key at the wrong time.
	late := life(t)
	late.now = 1
	late.work(1)
	check("after its retirement", late.exported(0, n+1, 2), ring, Tampered, ErrKeyLate.Error())
	late = life(t)
	late.now = 0
	late.work(1)
	check("revoked", late.exported(0, n+1, 2), ring, Tampered, ErrKeyRevoked.Error())
	late = newKeyStory(t, 2).work(1).introduce(1)
	late.now = 1
	late.work(1)
	early, err := ReadRing(newKeyStory(t, 2).work(1).introduce(1).file(rfcKey(t)), Trusted{Key: testPublic(t)})
	if err != nil {
		t.Fatal(err)
	}
	check("before its time", late.exported(0, 3, 0), early, Tampered, ErrKeyEarly.Error())

	// A revocation the file does not know yet is learned from the export itself.
	after := life(t)
	after.revoke(1, 7)
	check("a revocation that came later", after.exported(0, n+1, 2), ring, Tampered, "earlier receipt is not to be believed")
	after = life(t)
	after.revoke(1, 10)
	if r := check("of nothing that was signed", after.exported(0, n+1, 2), ring, Good, ""); !strings.Contains(r.Note, "the 4 receipts") {
		t.Errorf("got %q", r.Note)
	}

	// Another history of keys than the file has.
	other := newKeyStory(t, 4)
	other.work(2).introduce(1).work(1).work(1).activate(1)
	check("a receipt of keys left out", other.exported(0, 6, 1), ring, Tampered, "different receipts of keys")
}
