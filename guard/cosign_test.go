package guard_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/receipts"
)

// signer is a key of an agent's own.
func signer(t *testing.T) (*receipts.CosignKey, writ.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write := func(kind string, der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	key, kerr := receipts.NewCosignKey(write("PRIVATE KEY", der, err))
	if kerr != nil {
		t.Fatal(kerr)
	}
	der, err = x509.MarshalPKIXPublicKey(public)
	known, perr := receipts.ParsePublicKey(string(write("PUBLIC KEY", der, err)))
	if perr != nil {
		t.Fatal(perr)
	}
	return key, known
}

// signed is the signature of a call.
func signed(t *testing.T, k *receipts.CosignKey, c *writ.Credential, id writ.CapabilityID, args []byte, key string) *writ.Cosignature {
	t.Helper()
	header, err := k.Header(writ.Cosigned{Capability: id, IdempotencyKey: key, Session: c.Session, Tenant: c.Tenant}, args)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(header, " ")
	sig, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	return &writ.Cosignature{KeyID: parts[1], Signature: sig}
}

// agentSession opens a session of an agent that has keys.
func (w *world) agentSession(keys ...writ.PublicKey) *writ.Credential {
	w.t.Helper()
	id := writ.SessionID(writ.MakeID(writ.PrefixSession, w.now.Load(), [10]byte([]byte("builder___"))))
	hash := sha256.Sum256([]byte("secret of builder"))
	w.keys(keys...)
	_, _, err := w.door.System(w.t.Context(), shard, "test.session", sessionArgs{
		ID: id, Hash: hex.EncodeToString(hash[:]), Principal: "builder", Role: writ.RoleExecutor, Agent: "builder",
	}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &writ.Credential{Tenant: shard, Session: id, SecretHash: hash}
}

// keys gives the agent other keys.
func (w *world) keys(keys ...writ.PublicKey) {
	w.t.Helper()
	if _, _, err := w.door.System(w.t.Context(), shard, "test.agent", writ.Agent{ID: "builder", Keys: keys}, nil); err != nil {
		w.t.Fatal(err)
	}
}

// cosigned is a door that policy makes ask for signatures of test.bump.
func cosigned(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, func(c *guard.Config) { c.Cosigner = receipts.Cosigner{} })
	f := writ.Finding{Rule: "p.cosign", Effect: writ.EffectAllow, Duties: writ.Duties{Cosign: true}}
	w.law.deny["test.bump"], w.law.deny["test.look"] = f, f
	return w
}

func (w *world) send(c *writ.Credential, id writ.CapabilityID, raw, key string, sig *writ.Cosignature) (writ.Reply, *writ.Receipt, error) {
	w.t.Helper()
	call := &writ.Call{Capability: id, Credential: c, Raw: json.RawMessage(raw), IdempotencyKey: key, Cosignature: sig}
	if err := w.door.Stamp(call); err != nil {
		w.t.Fatal(err)
	}
	return w.door.Do(w.t.Context(), call)
}

func TestCosignedCall(t *testing.T) {
	w := cosigned(t)
	key, public := signer(t)
	other, _ := signer(t)
	builder := w.agentSession(public)
	raw := `{ "note": "\u0061", "run_id": "` + string(runID(1)) + `" }`
	good := signed(t, key, builder, "test.bump", []byte(raw), "k")
	alice := w.session("alice")
	broken := *good
	broken.Signature = append([]byte{broken.Signature[0] ^ 1}, broken.Signature[1:]...)
	stranger := *signed(t, other, builder, "test.bump", []byte(raw), "k")
	stranger.KeyID = public.ID
	for name, tt := range map[string]struct {
		by   *writ.Credential
		raw  string
		key  string
		sig  *writ.Cosignature
		hint string
	}{
		"nothing":                    {builder, raw, "k", nil, "Cosignature: v1"},
		"no Idempotency-Key":         {builder, raw, "", good, "Idempotency-Key"},
		"another Idempotency-Key":    {builder, raw, "k2", good, "Cosignature: v1"},
		"other arguments":            {builder, strings.Replace(raw, "0061", "0062", 1), "k", good, "Cosignature: v1"},
		"another bit":                {builder, raw, "k", &broken, "Cosignature: v1"},
		"an unknown key":             {builder, raw, "k", signed(t, other, builder, "test.bump", []byte(raw), "k"), "agent.info"},
		"an unknown key, misnamed":   {builder, raw, "k", &stranger, "Cosignature: v1"},
		"another call":               {builder, raw, "k", signed(t, key, builder, "test.look", []byte(raw), "k"), "Cosignature: v1"},
		"another session":            {builder, raw, "k", signed(t, key, alice, "test.bump", []byte(raw), "k"), "Cosignature: v1"},
		"a person":                   {alice, raw, "k", signed(t, key, alice, "test.bump", []byte(raw), "k"), "session of an agent"},
		"a number nobody can digest": {builder, `{"run_id":"` + string(runID(1)) + `","more":9007199254740993}`, "k", good, "whole numbers"},
	} {
		before := w.count()
		_, _, err := w.send(tt.by, "test.bump", tt.raw, tt.key, tt.sig)
		e := writ.AsError("", err)
		if e.Code != writ.CodePolicy || e.Receipt == "" || strings.Join(e.Rules, " ") != "p.cosign" || !strings.Contains(e.Hint, tt.hint) || w.count() != before {
			t.Errorf("%s: got %v (%s, receipt %s, rules %v), counted %d", name, err, e.Hint, e.Receipt, e.Rules, w.count()-before)
		}
	}
	reply, receipt, err := w.send(builder, "test.bump", raw, "k", good)
	if err != nil || receipt == nil {
		t.Fatal(err)
	}
	facts := w.facts()
	ev, err := json.Marshal(unsealed(t, facts[len(facts)-1])["cosigned"])
	if err != nil {
		t.Fatal(err)
	}
	var kept struct {
		writ.Cosignature
		Signed writ.Cosigned `json:"signed"`
	}
	if err := json.Unmarshal(ev, &kept); err != nil || kept.KeyID != public.ID || !(receipts.Cosigner{}).Verify(public, kept.Signed, kept.Signature) {
		t.Errorf("the evidence does not prove it: %s, %v", ev, err)
	}
	// Whoever gets hold of it repeats the call, and no more.
	again, _, err := w.send(builder, "test.bump", raw, "k", good)
	if err != nil || !again.Replayed || string(again.JSON) != string(reply.JSON) {
		t.Errorf("replayed %v: %s, %v", again.Replayed, again.JSON, err)
	}
	// There is nothing to sign in a read, so a rule that wants it denies.
	if _, _, err := w.send(builder, "test.look", raw, "look", signed(t, key, builder, "test.look", []byte(raw), "look")); writ.CodeOf(err) != writ.CodePolicy {
		t.Errorf("a read: got %v", err)
	}
}

// count is how often test.bump has happened.
func (w *world) count() int64 {
	w.t.Helper()
	s, err := w.store.Read(w.t.Context(), shard, writ.ReadSet{Docs: []writ.Key{writ.RunKey(runID(1))}})
	if err != nil {
		w.t.Fatal(err)
	}
	run, _, _, err := writ.Get[thing](s, writ.RunKey(runID(1)))
	if err != nil {
		w.t.Fatal(err)
	}
	return run.Count
}

// A key that is taken away between judgement and commit signs nothing any more.
func TestRevokedKeyCannotCommit(t *testing.T) {
	w := cosigned(t)
	key, public := signer(t)
	builder := w.agentSession(public)
	raw := `{"run_id":"` + string(runID(1)) + `"}`
	sig := signed(t, key, builder, "test.bump", []byte(raw), "k")
	w.law.deciding = func() {
		w.law.deciding = nil
		w.keys()
	}
	if _, _, err := w.send(builder, "test.bump", raw, "k", sig); writ.CodeOf(err) != writ.CodePolicy || w.count() != 0 {
		t.Fatalf("got %v, counted %d", err, w.count())
	}
}

// Without somebody to check signatures nothing that wants one happens.
func TestNoCosigner(t *testing.T) {
	w := cosigned(t)
	key, public := signer(t)
	bare := newWorld(t)
	bare.law.deny["test.bump"] = w.law.deny["test.bump"]
	builder := bare.agentSession(public)
	raw := `{"run_id":"` + string(runID(1)) + `"}`
	if _, _, err := bare.send(builder, "test.bump", raw, "k", signed(t, key, builder, "test.bump", []byte(raw), "k")); writ.CodeOf(err) != writ.CodePolicy {
		t.Fatalf("got %v", err)
	}
}
