package receipts

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	reference "github.com/gowebpki/jcs"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/jcs"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const vectors = "../testdata/vectors/receipts"

// golden compares with a file of the vectors, or rewrites it with -update: what
// is signed must not change.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	writtest.GoldenFile(t, *update, filepath.Join(vectors, name), got)
}

// rfcKey is the P-256 key of RFC 6979 A.2.5: known to everybody, so the
// vectors can be made again with any tool.
func rfcKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	d, err := hex.DecodeString("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var testSecret = [32]byte{1, 2, 3}

func testSealer(t testing.TB) *Sealer {
	t.Helper()
	s, err := NewSealer(rfcKey(t), "writ.local", testSecret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testPublic(t testing.TB) []byte {
	t.Helper()
	pub, err := cryptoutils.MarshalPublicKeyToPEM(&rfcKey(t).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func testVerifier(t testing.TB) *Verifier {
	t.Helper()
	v, err := NewVerifier(testPublic(t))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// id makes the n-th id with a prefix.
func id(prefix string, n int) string {
	return writ.MakeID(prefix, 1_767_225_600_000, [10]byte{8: byte(n >> 8), 9: byte(n)})
}

func rcp(n int) writ.ReceiptID { return writ.ReceiptID(id(writ.PrefixReceipt, n)) }

// full is a statement with every field in use.
func full() writ.Statement {
	run, task := writ.RunID(id(writ.PrefixRun, 1)), writ.TaskID(id(writ.PrefixTask, 2))
	return writ.Statement{
		Receipt: rcp(3), Call: writ.CallID(id(writ.PrefixCall, 4)), Tenant: "default", Log: "writ.local",
		Transition: "task.complete", Version: "1", Outcome: writ.OutcomeOfTransition,
		Actor:   writ.Actor{Agent: "builder", Kind: writ.KindAgent, Role: writ.RoleExecutor, Session: writ.SessionID(id(writ.PrefixSession, 5))},
		Changes: []writ.Change{{Kind: "task", ID: string(task), From: "running", To: "done"}, {Kind: "run", ID: string(run), From: "active", To: "done"}},
		Run:     run, Task: task, Fence: 17, Labels: []writ.Label{writ.LabelInternalSystem, writ.LabelPIIRedacted},
		Decision: writ.Decision{
			Effect:         writ.EffectAllow,
			Findings:       []writ.Finding{{Rule: "baseline.observe"}},
			Packs:          []writ.PackRef{{ID: "baseline", Digest: "sha256:" + strings.Repeat("ab", 32)}},
			PolicyRevision: strings.Repeat("cd", 32), BindingsRevision: strings.Repeat("ef", 32), InputDigest: strings.Repeat("01", 32),
		},
		Budget: map[string]int64{"steps": 1, "egress": 2}, Parents: []writ.ReceiptID{rcp(1), rcp(2)},
		Evidence: strings.Repeat("23", 32), Nonce: [16]byte{0xa1, 15: 0xff},
	}
}

func denial() writ.Statement {
	st := full()
	st.Outcome, st.Code, st.Changes, st.Budget, st.Evidence, st.Parents = writ.OutcomeOfDenial, writ.CodePolicy, nil, nil, "", nil
	st.Decision.Effect = writ.EffectDeny
	return st
}

func aggregate() writ.Statement {
	return writ.Statement{
		Receipt: rcp(9), Tenant: "default", Log: "writ.local", Transition: "policy.denials", Outcome: writ.OutcomeOfAggregate, Code: writ.CodeRBAC,
		Actor: writ.Actor{Kind: writ.KindSystem, Role: writ.RoleSystem}, Count: 41, Nonce: [16]byte{7},
	}
}

// judged rests on a signed verdict.
func judged() writ.Statement {
	st := full()
	st.Transition, st.Verdict = "task.verify", &writ.VerdictRef{Digest: strings.Repeat("0f", 32), KeyID: "SHA256:" + strings.Repeat("k", 43)}
	return st
}

// intended begins an effect, settled says late what became of it.
func intended() writ.Statement {
	st := full()
	st.Transition, st.Changes = "egress.fetch", []writ.Change{{Kind: writ.ObjectEffect, ID: id(writ.PrefixEffect, 6), From: "", To: "intended"}}
	st.Effect = &writ.EffectFact{Attempt: 1, Held: map[string]int64{writ.BudgetEgress: 4096}, Secrets: []writ.SecretUse{{ID: writ.SecretID(id(writ.PrefixSecret, 7)), Version: 2}}}
	return st
}

func settled() writ.Statement {
	st := full()
	st.Transition, st.Actor, st.Fence = "effect.settle", writ.Actor{Kind: writ.KindSystem, Role: writ.RoleSystem}, 0
	st.Changes = []writ.Change{{Kind: writ.ObjectEffect, ID: id(writ.PrefixEffect, 6), From: "unknown", To: "error"}}
	st.Budget = map[string]int64{writ.BudgetEgress: -1096}
	st.Effect = &writ.EffectFact{Attempt: 1, Late: true, Code: writ.CodeEffectFailed, Settled: map[string]int64{writ.BudgetEgress: 3000, writ.BudgetIngress: 17}}
	return st
}

// seal drafts and seals a statement as commit c stored it.
func seal(t testing.TB, s *Sealer, st writ.Statement, c writ.Committed) writ.Receipt {
	t.Helper()
	head, tail, err := s.Draft(st)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Seal(writ.StoredFact{Fact: writ.Fact{ID: st.Receipt, Run: st.Run, KeyID: s.KeyID(), Head: head, Tail: tail}, Commit: c})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGolden(t *testing.T) {
	s, v := testSealer(t), testVerifier(t)
	golden(t, "receipt.pub", testPublic(t))
	for name, st := range map[string]writ.Statement{"transition": full(), "denial": denial(), "aggregate": aggregate(), "verdict": judged(), "effect-intent": intended(), "effect-outcome": settled()} {
		c := writ.Committed{Epoch: "e1-0123456789abcdef", Seq: 12, At: 1_767_225_601_234}
		if st.Run != "" {
			c.RunSeq = 3
		}
		r := seal(t, s, st, c)
		golden(t, name+".json", r.Payload)
		env, err := Envelope(r)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".dsse.json", env)

		if err := jcs.Check(r.Payload); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if other, err := reference.Transform(r.Payload); err != nil || !bytes.Equal(other, r.Payload) {
			t.Errorf("%s: another implementation of RFC 8785 writes %s, %v", name, other, err)
		}
		rec, err := v.Receipt(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		st.KeyID = s.KeyID()
		if !reflect.DeepEqual(rec, Record{Statement: st, Commit: c}) {
			t.Errorf("%s: read back %+v\nwant %+v", name, rec, Record{Statement: st, Commit: c})
		}
		if again, err := v.Envelope(env); err != nil || !reflect.DeepEqual(again, rec) {
			t.Errorf("%s: by envelope %+v, %v", name, again, err)
		}
	}
}

// The text is canonical only while struct fields stand in the order of their
// JSON names.
func TestShapesAreSorted(t *testing.T) {
	for _, v := range []any{statement{}, subject{}, predicate{}, actor{}, call{}, change{}, commit{}, decision{}, pack{}, origin{}, evidence{}, headStatement{}, headPredicate{}, keyFact{}, effect{}, secret{}, manifestStatement{}, manifestPredicate{}, ManifestKey{}} {
		var names []string
		for f := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			names = append(names, name)
		}
		if !slices.IsSorted(names) || slices.Contains(names, "") {
			t.Errorf("%T: fields %q are not in the order of their names", v, names)
		}
	}
}

func TestDraftRefuses(t *testing.T) {
	s := testSealer(t)
	for name, spoil := range map[string]func(*writ.Statement){
		"receipt":              func(st *writ.Statement) { st.Receipt = "rcp_1" },
		"call":                 func(st *writ.Statement) { st.Call = "cll_hello there" },
		"tenant":               func(st *writ.Statement) { st.Tenant = "Acme" },
		"other log":            func(st *writ.Statement) { st.Log = "other.local" },
		"other key":            func(st *writ.Statement) { st.KeyID = "SHA256:x" },
		"transition":           func(st *writ.Statement) { st.Transition = "task complete" },
		"no transition":        func(st *writ.Statement) { st.Transition = "" },
		"version":              func(st *writ.Statement) { st.Version = "1\n" },
		"outcome":              func(st *writ.Statement) { st.Outcome = "maybe" },
		"code":                 func(st *writ.Statement) { st.Outcome, st.Changes, st.Code = "denial", nil, "he said so" },
		"no code":              func(st *writ.Statement) { st.Outcome, st.Changes = "denial", nil },
		"code of a transition": func(st *writ.Statement) { st.Code = writ.CodePolicy },
		"agent":                func(st *writ.Statement) { st.Actor.Agent = "Bobby Tables" },
		"kind":                 func(st *writ.Statement) { st.Actor.Kind = "robot" },
		"role":                 func(st *writ.Statement) { st.Actor.Role = "king" },
		"session":              func(st *writ.Statement) { st.Actor.Session = "ses_\"" },
		"change kind":          func(st *writ.Statement) { st.Changes[0].Kind = "file" },
		"change id":            func(st *writ.Statement) { st.Changes[0].ID = "report for Eve.csv" },
		"change to nothing":    func(st *writ.Statement) { st.Changes[0].To = "" },
		"change state":         func(st *writ.Statement) { st.Changes[0].From = "<b>" },
		"run":                  func(st *writ.Statement) { st.Run = "run_" },
		"task":                 func(st *writ.Statement) { st.Task = "my secret task" },
		"fence":                func(st *writ.Statement) { st.Fence = -1 },
		"label":                func(st *writ.Statement) { st.Labels = append(st.Labels, "gossip") },
		"parent":               func(st *writ.Statement) { st.Parents = append(st.Parents, "rcp_2") },
		"pack":                 func(st *writ.Statement) { st.Decision.Packs[0].ID = "päck" },
		"pack digest":          func(st *writ.Statement) { st.Decision.Packs[0].Digest = "a b" },
		"rule":                 func(st *writ.Statement) { st.Decision.Findings[0].Rule = "no, because \"I\" say" },
		"effect":               func(st *writ.Statement) { st.Decision.Effect = "shrug" },
		"revision":             func(st *writ.Statement) { st.Decision.PolicyRevision = strings.Repeat("x", 201) },
		"input":                func(st *writ.Statement) { st.Decision.InputDigest = "{}" },
		"budget name":          func(st *writ.Statement) { st.Budget = map[string]int64{"two words": 1} },
		"budget amount":        func(st *writ.Statement) { st.Budget = map[string]int64{"steps": jcs.MaxInt + 1} },
		"evidence":             func(st *writ.Statement) { st.Evidence = "sha256:00" },
		"count":                func(st *writ.Statement) { st.Count = 1 },
		"denial moves":         func(st *writ.Statement) { st.Outcome, st.Code = "denial", writ.CodePolicy },
		"aggregate moves":      func(st *writ.Statement) { st.Outcome, st.Count = "aggregate", 2 },
		"verdict":              func(st *writ.Statement) { st.Verdict = &writ.VerdictRef{Digest: "00", KeyID: judged().Verdict.KeyID} },
		"key of a verdict":     func(st *writ.Statement) { st.Verdict = &writ.VerdictRef{Digest: judged().Verdict.Digest, KeyID: "me"} },
		"verdict denied": func(st *writ.Statement) {
			*st = denial()
			st.Verdict = judged().Verdict
		},
		"effect without a move":      func(st *writ.Statement) { st.Effect = intended().Effect },
		"move without an effect":     func(st *writ.Statement) { st.Changes = intended().Changes },
		"two effects":                func(st *writ.Statement) { *st = intended(); st.Changes = append(st.Changes, st.Changes[0]) },
		"no effect":                  func(st *writ.Statement) { *st = intended(); st.Changes[0].ID = "eff_1" },
		"no attempt":                 func(st *writ.Statement) { *st = intended(); st.Effect.Attempt = 0 },
		"an intent with a code":      func(st *writ.Statement) { *st = intended(); st.Effect.Code = writ.CodeBudget },
		"a word for a code":          func(st *writ.Statement) { *st = settled(); st.Effect.Code = "because" },
		"late in time":               func(st *writ.Statement) { *st = settled(); st.Changes[0].From = "intended" },
		"held when it is over":       func(st *writ.Statement) { *st = settled(); st.Effect.Held = st.Effect.Settled },
		"secrets when it is over":    func(st *writ.Statement) { *st = settled(); st.Effect.Secrets = intended().Effect.Secrets },
		"a secret by its name":       func(st *writ.Statement) { *st = intended(); st.Effect.Secrets[0].ID = "stripe" },
		"a secret without a version": func(st *writ.Statement) { *st = intended(); st.Effect.Secrets[0].Version = 0 },
		"an effect that gives back":  func(st *writ.Statement) { *st = settled(); st.Effect.Settled[writ.BudgetEgress] = -1 },
		"an effect of other things":  func(st *writ.Statement) { *st = settled(); st.Effect.Settled["apples"] = 1 },
		"aggregate of nothing":       func(st *writ.Statement) { st.Outcome, st.Changes = "aggregate", nil },
	} {
		st := full()
		spoil(&st)
		if head, _, err := s.Draft(st); err == nil {
			t.Errorf("%s: drafted %s", name, head)
		} else if writ.CodeOf(err) != writ.CodeInternal || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No word of a statement, whatever it holds, reaches a draft unless it is of
// the closed alphabet.
func FuzzDraftWords(f *testing.F) {
	for _, s := range []string{"plain", `","x":"`, "é", hole} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		st := full()
		st.KeyID, st.Decision.PolicyRevision, st.Changes[0].ID, st.Decision.Findings[0].Rule = "SHA256:x", s, s, s
		head, tail, err := Draft(st)
		if err != nil {
			return
		}
		if !word(s) {
			t.Fatalf("drafted %q", s)
		}
		payload := writ.StoredFact{Fact: writ.Fact{Run: st.Run, Head: head, Tail: tail}, Commit: writ.Committed{Epoch: "e", RunSeq: 1}}.Payload()
		if _, err := Decode(payload); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
	})
}

// RFC 6979 A.2.5, SHA-256; of s and n−s the lower one.
func TestSignVectors(t *testing.T) {
	for message, want := range map[string][2]string{
		"sample": {"EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716", "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"},
		"test":   {"F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367", "019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083"},
	} {
		sig, err := sign(rfcKey(t), []byte(message))
		if err != nil {
			t.Fatal(err)
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(sig, &rs); err != nil {
			t.Fatal(err)
		}
		r, _ := new(big.Int).SetString(want[0], 16)
		s, _ := new(big.Int).SetString(want[1], 16)
		if n := elliptic.P256().Params().N; new(big.Int).Lsh(s, 1).Cmp(n) > 0 {
			s.Sub(n, s)
		}
		if rs.R.Cmp(r) != 0 || rs.S.Cmp(s) != 0 {
			t.Errorf("%s: got %X %X, want %s", message, rs.R, rs.S, want)
		}
	}
}

// From a signature (r, s) anybody can make (r, n−s), which holds just as well.
// Here only one of them is a signature.
func TestOneReceiptHasOneSignature(t *testing.T) {
	s, v := testSealer(t), testVerifier(t)
	n := elliptic.P256().Params().N
	for i := range 64 {
		st := full()
		st.Receipt = rcp(i)
		head, tail, err := s.Draft(st)
		if err != nil {
			t.Fatal(err)
		}
		good, err := s.Seal(writ.StoredFact{
			Fact:   writ.Fact{ID: st.Receipt, Run: st.Run, KeyID: s.KeyID(), Head: head, Tail: tail},
			Commit: writ.Committed{Epoch: "e", RunSeq: 1},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Receipt(good); err != nil {
			t.Fatal(err)
		}
		h := sha256.Sum256(dsse.PAE(PayloadType, good.Payload))
		if !ecdsa.VerifyASN1(s.Public(), h[:], good.Sig) {
			t.Fatal("a stock verifier refuses it")
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(good.Sig, &rs); err != nil {
			t.Fatal(err)
		}
		rs.S.Sub(n, rs.S)
		other := good
		if other.Sig, err = asn1.Marshal(rs); err != nil {
			t.Fatal(err)
		}
		if !ecdsa.VerifyASN1(s.Public(), h[:], other.Sig) {
			t.Fatal("this is no second signature")
		}
		if _, err := v.Receipt(other); err == nil || !strings.Contains(err.Error(), "high s") {
			t.Fatalf("a second signature: %v", err)
		}
		env, err := Envelope(other)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Envelope(env); err == nil || !strings.Contains(err.Error(), "high s") {
			t.Fatalf("a second envelope: %v", err)
		}
	}
}

const childKeys = "WRIT_TEST_RECEIPT_KEYS"

// Every replica that holds the key gives the same bytes.
func TestSealIsTheSameInEveryProcess(t *testing.T) {
	dir := os.Getenv(childKeys)
	child := dir != ""
	if !child {
		dir = filepath.Join(t.TempDir(), "keys")
	}
	sealed := func() []byte {
		k, err := LoadOrCreate(dir, KeyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := k.Sealer()
		if err != nil {
			t.Fatal(err)
		}
		sum, ev, err := s.Evidence([16]byte{5}, rcp(3), map[string]any{"b": 1.5, "a": "x"})
		if err != nil {
			t.Fatal(err)
		}
		st := full()
		st.Evidence = sum
		r := seal(t, s, st, writ.Committed{Epoch: "e1", Seq: 1, RunSeq: 1, At: 1_767_225_600_000})
		r.Evidence = ev
		out, err := json.Marshal([]any{r, ev})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := sealed()
	if child {
		if err := os.WriteFile(os.Getenv(childKeys+"_OUT"), first, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if again := sealed(); !bytes.Equal(first, again) {
		t.Errorf("a key loaded twice seals differently:\n%s\n%s", first, again)
	}
	out := filepath.Join(t.TempDir(), "out")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), childKeys+"="+dir, childKeys+"_OUT="+out)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	other, err := os.ReadFile(out)
	if err != nil || !bytes.Equal(first, other) {
		t.Errorf("another process seals differently (%v):\n%s\n%s", err, first, other)
	}
}

func TestSealRefuses(t *testing.T) {
	s := testSealer(t)
	head, tail, err := s.Draft(full())
	if err != nil {
		t.Fatal(err)
	}
	good := writ.StoredFact{Fact: writ.Fact{ID: rcp(3), Run: full().Run, KeyID: s.KeyID(), Head: head, Tail: tail}, Commit: writ.Committed{Epoch: "e", RunSeq: 1}}
	if _, err := s.Seal(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*writ.StoredFact){
		"key":   func(f *writ.StoredFact) { f.KeyID = "SHA256:other" },
		"seq":   func(f *writ.StoredFact) { f.Commit.Seq = -1 },
		"epoch": func(f *writ.StoredFact) { f.Commit.Epoch = `","x":"` },
		"none":  func(f *writ.StoredFact) { f.Commit.Epoch = "" },
		"run":   func(f *writ.StoredFact) { f.Commit.RunSeq = 0 },
	} {
		f := good
		spoil(&f)
		if _, err := s.Seal(f); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
}

// A key that does not sign is found out before it is needed: at first, after a
// failure, and when it has not signed for a while.
func TestReadyTriesTheKey(t *testing.T) {
	good := rfcKey(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bad := *good
	bad.PublicKey = other.PublicKey // signs nothing its public key would verify

	s, err := NewSealer(good, "writ.local", [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(); err != nil {
		t.Fatal(err)
	}
	s.keys[s.keyID] = &bad
	if err := s.Ready(); err != nil {
		t.Errorf("asked again within a second it tried again: %v", err)
	}
	s.vouch(errors.New("it failed"))
	if err := s.Ready(); writ.CodeOf(err) != writ.CodeNotReady {
		t.Errorf("after a failure: %v", err)
	}
	s.keys[s.keyID] = good
	if err := s.Ready(); err != nil {
		t.Errorf("mended: %v", err)
	}
	s.keys[s.keyID] = &bad
	s.born = s.born.Add(-proven) // the last signature is a second old
	if err := s.Ready(); writ.CodeOf(err) != writ.CodeNotReady {
		t.Errorf("after a while: %v", err)
	}
}

func BenchmarkReady(b *testing.B) {
	s, err := NewSealer(rfcKey(b), "writ.local", [32]byte{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.Ready(); err != nil {
			b.Fatal(err)
		}
	}
}

// What is no key is told what to give instead.
func TestWhatIsNoKeyIsNamed(t *testing.T) {
	key := string(testPublic(t))
	for _, text := range []string{"", "writ.local+1a2b3c4d+AbCd", key + key, key + "x"} {
		if _, err := NewVerifier([]byte(text)); err == nil || !strings.Contains(err.Error(), "is not one public key in PEM: give it from BEGIN") {
			t.Errorf("%.24q: %v", text, err)
		}
	}
}
