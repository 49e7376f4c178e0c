package keys_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/keys"
	"github.com/writ-gateway/writ/writtest"
)

// lab is a shard with the room on it. The public key of key "x" is any text with x in it.
type lab struct {
	*writtest.World
	testing.TB
	verbs    map[writ.CapabilityID]*writ.Capability
	op       writ.Caller
	public   []string // what a manifest was asked for
	receipts []writ.Receipt
}

func keyID(name string) string { return "SHA256:" + strings.Repeat(name, 43)[:43] }
func spki(name string) string  { return strings.Repeat(name, 64)[:64] }

func newLab(t testing.TB) *lab {
	l := &lab{World: writtest.New(), TB: t, verbs: map[writ.CapabilityID]*writ.Capability{}}
	cfg := keys.Config{
		Parse: func(pem string) (string, string, string, error) {
			if pem == "" || strings.Contains("0123456789abcdef", pem) == false {
				return "", "", "", errors.New("no key")
			}
			return spki(pem), keyID(pem), "pem of " + pem, nil
		},
		Public: func(id string) (string, bool) { return strings.TrimPrefix(id, "SHA256:")[:1], true },
		Manifest: func(public []string, receipts []writ.Receipt) (keys.Manifest, error) {
			l.public, l.receipts = public, receipts
			m := keys.Manifest{SignedBy: writ.KeyReceipt, File: writ.RawObject("{}")}
			for _, p := range public {
				name := strings.TrimPrefix(p, "pem of ")
				m.Keys = append(m.Keys, keys.Entry{KeyID: keyID(name), SPKI: spki(name), Purpose: writ.KeyReceipt, State: writ.KeyActive})
			}
			return m, nil
		},
	}
	for _, k := range keys.New(cfg).Capabilities() {
		l.verbs[k.ID] = k
	}
	l.op = writ.Caller{Tenant: "default", Principal: "olga", Role: writ.RoleOperator}
	l.Archive = func(q writ.ArchiveRead) []writ.Receipt {
		for _, f := range l.Facts {
			if f.Receipt == q.Receipt {
				return []writ.Receipt{{ID: f.Receipt, Seq: f.Version - 1}}
			}
		}
		return nil
	}
	l.Seed(writ.GateKey, writ.ObjectGate, writ.Gate{State: writ.GateOpen, ReceiptKeyID: keyID("a"), Schema: 1})
	l.alive("r-1", "r-2")
	return l
}

func (l *lab) alive(replicas ...string) {
	for _, r := range replicas {
		l.SetIndex(writ.IndexReplicas, r, l.Now+10_000)
	}
}

func (l *lab) do(id writ.CapabilityID, args any) (keys.KeyView, error) {
	l.Helper()
	reply, _, err := l.World.Call(l.verbs[id], l.op, args)
	var v keys.KeyView
	if err == nil {
		_ = json.Unmarshal(reply.JSON, &v)
	}
	l.Now++
	return v, err
}

func (l *lab) must(id writ.CapabilityID, args any) keys.KeyView {
	l.Helper()
	v, err := l.do(id, args)
	if err != nil {
		l.Fatalf("%s: %v", id, err)
	}
	return v
}

func (l *lab) refused(want writ.Code, id writ.CapabilityID, args any) *writ.Error {
	l.Helper()
	before := len(l.Facts)
	_, err := l.do(id, args)
	if writ.CodeOf(err) != want || len(l.Facts) != before {
		l.Fatalf("%s: want %s, got %v", id, want, err)
	}
	return writ.AsError("", err)
}

func (l *lab) introduce(name string) keys.KeyView {
	l.Helper()
	return l.must("key.introduce", &keys.KeyIntroduceArgs{PublicKey: name})
}

func (l *lab) held(name string, by ...string) {
	l.Helper()
	for _, r := range by {
		l.must("key.report", &keys.KeyReportArgs{SPKI: spki(name), Replica: r})
	}
}

func (l *lab) activate(name string) keys.KeyView {
	l.Helper()
	return l.must("key.activate", &keys.KeyActivateArgs{KeyID: keyID(name)})
}

func (l *lab) inForce() string {
	l.Helper()
	gate, _, _, err := writ.Get[writ.Gate](l.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.GateKey}}), writ.GateKey)
	if err != nil {
		l.Fatal(err)
	}
	return gate.ReceiptKeyID
}

func (l *lab) lastMoves() (out []string) {
	for _, c := range l.Facts[len(l.Facts)-1].Changes {
		out = append(out, c.Kind+" "+c.ID[:1]+" "+c.From+">"+c.To)
	}
	return out
}

func TestALife(t *testing.T) {
	l := newLab(t)
	v := l.introduce("b")
	if v.State != writ.KeyIntroduced || v.KeyID != keyID("b") || !slices.Equal(v.Waiting, []string{"r-1", "r-2"}) || l.inForce() != keyID("a") {
		t.Fatalf("got %+v", v)
	}
	if got := l.lastMoves(); !slices.Equal(got, []string{"key b >introduced", "key a >active"}) {
		t.Fatalf("got %q", got)
	}
	n := len(l.Facts)
	l.introduce("b") // again changes nothing
	if len(l.Facts) != n {
		t.Fatal("an introduction was repeated")
	}
	l.refused(writ.CodeIllegal, "key.introduce", &keys.KeyIntroduceArgs{PublicKey: "c"}) // one waits
	l.refused(writ.CodeIllegal, "key.introduce", &keys.KeyIntroduceArgs{PublicKey: "a"}) // it signs
	l.refused(writ.CodeInputInvalid, "key.introduce", &keys.KeyIntroduceArgs{PublicKey: "z"})

	none := l.refused(writ.CodeIllegal, "key.activate", &keys.KeyActivateArgs{KeyID: keyID("b"), Force: true})
	if !strings.Contains(none.Msg, "no replica") {
		t.Errorf("got %v", none)
	}
	l.held("b", "r-1", "r-gone")
	some := l.refused(writ.CodeIllegal, "key.activate", &keys.KeyActivateArgs{KeyID: keyID("b")})
	if some.Details["not_ready"] != "r-2" {
		t.Errorf("got %v", some.Details)
	}
	l.held("b", "r-2")
	if got := l.Members(writ.HeldKey(spki("b"))); !slices.Equal(got, []string{"r-1", "r-2"}) { // who is gone holds nothing
		t.Errorf("held by %q", got)
	}
	v = l.activate("b")
	if v.State != writ.KeyActive || l.inForce() != keyID("b") {
		t.Fatalf("got %+v", v)
	}
	if got := l.lastMoves(); !slices.Equal(got, []string{"key b introduced>active", "key a active>retired", "gate g open>open"}) {
		t.Fatalf("got %q", got)
	}
	n = len(l.Facts)
	l.activate("b")
	if len(l.Facts) != n {
		t.Fatal("an activation was repeated")
	}
	l.refused(writ.CodeIllegal, "key.activate", &keys.KeyActivateArgs{KeyID: keyID("a")}) // retired for good
	l.refused(writ.CodeNotFound, "key.activate", &keys.KeyActivateArgs{KeyID: keyID("c")})
	l.refused(writ.CodeIllegal, "key.retire", &keys.KeyRetireArgs{KeyID: keyID("b")})
	l.refused(writ.CodeIllegal, "key.revoke", &keys.KeyRevokeArgs{KeyID: keyID("b")})

	l.introduce("c")
	if got := l.lastMoves(); !slices.Equal(got, []string{"key c >introduced"}) {
		t.Fatalf("got %q", got)
	}
	l.refused(writ.CodeIllegal, "key.revoke", &keys.KeyRevokeArgs{KeyID: keyID("c")})
	if v := l.must("key.retire", &keys.KeyRetireArgs{KeyID: keyID("c")}); v.State != writ.KeyRetired {
		t.Fatalf("got %+v", v)
	}
	l.refused(writ.CodeIllegal, "key.introduce", &keys.KeyIntroduceArgs{PublicKey: "c"})
	if v := l.must("key.revoke", &keys.KeyRevokeArgs{KeyID: keyID("c"), Since: 1}); v.State != writ.KeyRevoked { // nothing rests on it
		t.Fatalf("got %+v", v)
	}
	last := l.refused(writ.CodeIllegal, "key.revoke", &keys.KeyRevokeArgs{KeyID: keyID("a"), Since: 1}).Details["signed_last"]
	end, err := strconv.ParseInt(last, 10, 64)
	if err != nil {
		t.Fatalf("signed_last %q", last)
	}
	// What follows rests on the receipt that made it the signing one: a's last.
	l.refused(writ.CodeIllegal, "key.revoke", &keys.KeyRevokeArgs{KeyID: keyID("a"), Since: end})
	if v := l.must("key.revoke", &keys.KeyRevokeArgs{KeyID: keyID("a"), Since: end, ReachBack: true}); v.State != writ.KeyRevoked {
		t.Fatalf("got %+v", v)
	}
	l.refused(writ.CodeIllegal, "key.revoke", &keys.KeyRevokeArgs{KeyID: keyID("a"), Since: end + 1}) // what was said stands
	n = len(l.Facts)
	l.must("key.revoke", &keys.KeyRevokeArgs{KeyID: keyID("a"), Since: end, ReachBack: true})
	if len(l.Facts) != n {
		t.Fatal("a revocation was repeated")
	}
	l.must("key.report", &keys.KeyReportArgs{SPKI: spki("e"), Replica: "r-1"})
	if got := l.Members(writ.HeldKey(spki("e"))); len(got) > 0 { // nobody introduced it
		t.Errorf("held by %q", got)
	}
}

// The key the log began with is the signing one from the beginning, and the first of the
// list whatever its name is.
func TestTheFirstKey(t *testing.T) {
	l := newLab(t)
	l.refused(writ.CodeIllegal, "key.introduce", &keys.KeyIntroduceArgs{PublicKey: "a"})
	l.introduce("1")
	l.must("key.list", &keys.KeyListArgs{})
	if !slices.Equal(l.public, []string{"pem of a", "pem of 1"}) {
		t.Errorf("got %q", l.public)
	}
}

// What is signed of a key says which it is, and of a revocation from when on it holds.
func TestWhatIsSignedOfAKey(t *testing.T) {
	l := newLab(t)
	signed := func(id writ.CapabilityID, args any) writ.KeyFact {
		t.Helper()
		p, err := l.Plan(l.verbs[id], l.NewCall(l.verbs[id], l.op, args))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Commit(p); err != nil {
			t.Fatal(err)
		}
		l.Now++
		return p.Tx.Key
	}
	fact := func(name string, since int64) writ.KeyFact {
		return writ.KeyFact{ID: keyID(name), Purpose: writ.KeyReceipt, SPKI: spki(name), Since: since}
	}
	if got := signed("key.introduce", &keys.KeyIntroduceArgs{PublicKey: "b"}); got != fact("b", 0) {
		t.Errorf("introduced: %+v", got)
	}
	l.held("b", "r-1", "r-2")
	if got := signed("key.activate", &keys.KeyActivateArgs{KeyID: keyID("b")}); got != fact("b", 0) {
		t.Errorf("activated: %+v", got)
	}
	if got := signed("key.revoke", &keys.KeyRevokeArgs{KeyID: keyID("a"), Since: 3, ReachBack: true}); got != fact("a", 3) {
		t.Errorf("revoked: %+v", got)
	}
	l.introduce("c")
	if got := signed("key.retire", &keys.KeyRetireArgs{KeyID: keyID("c")}); got != fact("c", 0) {
		t.Errorf("retired: %+v", got)
	}
}

// A log has so many keys and no more, also where each is retired at once.
func TestSoManyKeys(t *testing.T) {
	l := newLab(t)
	const names = "0123456789abcdef"
	for from := range names {
		for to := from + 2; to <= len(names); to++ {
			name := names[from:to]
			before := len(l.Members(writ.IndexKeys))
			if before >= writ.MaxKeys-1 {
				l.refused(writ.CodeIllegal, "key.introduce", &keys.KeyIntroduceArgs{PublicKey: name})
				return
			}
			l.introduce(name)
			l.must("key.retire", &keys.KeyRetireArgs{KeyID: keyID(name)})
		}
	}
	t.Fatalf("the limit was not met with %d", len(l.Members(writ.IndexKeys)))
}

// With force one replica that holds the key is enough.
func TestForce(t *testing.T) {
	l := newLab(t)
	l.introduce("b")
	l.held("b", "r-2")
	l.must("key.activate", &keys.KeyActivateArgs{KeyID: keyID("b"), Force: true})
	if l.inForce() != keyID("b") {
		t.Error("it is not in force")
	}
}

// The list is made of the first key, and of the receipts that say something of keys.
func TestTheList(t *testing.T) {
	l := newLab(t)
	l.must("key.list", &keys.KeyListArgs{})
	if !slices.Equal(l.public, []string{"pem of a"}) || len(l.receipts) != 0 {
		t.Fatalf("got %q, %d", l.public, len(l.receipts))
	}
	l.introduce("b")
	l.held("b", "r-1", "r-2")
	l.activate("b")
	l.must("key.revoke", &keys.KeyRevokeArgs{KeyID: keyID("a")})
	l.introduce("c")
	l.must("key.list", &keys.KeyListArgs{})
	if !slices.Equal(l.public, []string{"pem of a", "pem of b", "pem of c"}) || len(l.receipts) != 4 {
		t.Fatalf("got %q, %d", l.public, len(l.receipts))
	}
	for i, r := range l.receipts {
		if i > 0 && r.Seq <= l.receipts[i-1].Seq {
			t.Error("the receipts are out of order")
		}
	}
	l.Archive = nil
	l.refused(writ.CodeNotReady, "key.list", &keys.KeyListArgs{})
}
