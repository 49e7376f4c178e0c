package writ_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/runs"
	"github.com/writ-gateway/writ/writtest"
)

// closer is a run that waits for its verdict, and a verifier with a key.
func closer(t *testing.T) (w *writtest.World, judge writ.Caller, run writ.RunID, sign func() *runs.RunCloseArgs) {
	t.Helper()
	w = writtest.New()
	w.Archive = func(q writ.ArchiveRead) []writ.Receipt { return []writ.Receipt{sealed(q.Receipt)} }
	w.Seed(writ.GateKey, writ.ObjectGate, writ.Gate{State: writ.GateOpen, PolicyRevision: inForce})
	a := w.Agent("checker", "web", "site.build")
	a.Keys = []writ.PublicKey{{ID: "k1"}}
	w.Seed(writ.AgentKey("checker"), writ.ObjectAgent, a)
	owner := w.Open(writ.RoleOrchestrator, "orc", "")
	judge = w.Open(writ.RoleVerifier, "judge", "checker")
	reply, _, err := w.Call(verbs["run.create"], owner, &runs.RunCreateArgs{ClosePolicy: writ.CloseVerifier, Budget: runs.RunBudget{Steps: 10}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := writtest.Body[runs.RunView](reply)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Call(verbs["run.seal"], owner, &runs.RunSealArgs{RunID: v.RunID}); err != nil {
		t.Fatal(err)
	}
	return w, judge, v.RunID, func() *runs.RunCloseArgs {
		r, _, _ := writtest.Get[writ.Run](w, writ.RunKey(v.RunID))
		text, err := json.Marshal(inked{"k1", writ.VerdictWant{
			Agent: "checker", Properties: writ.VerdictProperties(writ.VerdictOn("run", string(v.RunID)), writ.VerdictAccept, nil, nil), Subjects: writ.VerdictSubjects(sealed(r.Receipt), nil), Policy: inForce, Now: w.Now,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return &runs.RunCloseArgs{RunID: v.RunID, Verdict: writ.VerdictAccept, Receipt: r.Receipt, Signed: string(text)}
	}
}

// What makes a signature count is expected by the commit: that the key is the agent's
// still, that the verdict is fresh, and that it was not used meanwhile.
func TestWhatASignedVerdictRestsOnIsGuarded(t *testing.T) {
	for name, meanwhile := range map[string]func(*writtest.World, *writtest.Planned){
		"the key is taken away": func(w *writtest.World, _ *writtest.Planned) {
			a, _, _ := writtest.Get[writ.Agent](w, writ.AgentKey("checker"))
			a.Keys = nil
			w.Seed(writ.AgentKey("checker"), writ.ObjectAgent, a)
		},
		"other policies": func(w *writtest.World, _ *writtest.Planned) {
			w.Seed(writ.GateKey, writ.ObjectGate, writ.Gate{State: writ.GateOpen, PolicyRevision: "sha256:1"})
		},
		"it grows old": func(w *writtest.World, _ *writtest.Planned) { w.Advance(writ.VerdictFreshMs/1000 + 1) },
		"it is used": func(w *writtest.World, p *writtest.Planned) {
			w.Seed(writ.VerdictKey(p.Tx.Verdict.Digest), "verdict", writ.UsedVerdict{})
		},
	} {
		w, judge, _, sign := closer(t)
		p, err := w.Plan(verbs["run.close"], w.NewCall(verbs["run.close"], judge, sign()))
		if err != nil {
			t.Fatal(err)
		}
		if p.Tx.Verdict == nil || p.Tx.Verdict.Key.ID != "k1" {
			t.Fatalf("%s: the transaction rests on %+v", name, p.Tx.Verdict)
		}
		meanwhile(w, p)
		var conflict *writtest.Conflict
		if _, err := w.Commit(p); !errors.As(err, &conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w, judge, _, sign := closer(t)
	if _, _, err := w.Call(verbs["run.close"], judge, sign()); err != nil {
		t.Error(err)
	}
}

// Where the receipt cannot be read, nothing is about it.
func TestAVerdictOnAReceiptNobodyFinds(t *testing.T) {
	for name, found := range map[string][]writ.Receipt{"none": nil, "another": {sealed("rcp_1")}} {
		w, judge, _, sign := closer(t)
		a := sign()
		if len(found) > 0 { // what is signed is about that one
			text, err := json.Marshal(inked{"k1", writ.VerdictWant{
				Agent: "checker", Properties: writ.VerdictProperties(writ.VerdictOn("run", string(a.RunID)), writ.VerdictAccept, nil, nil), Subjects: writ.VerdictSubjects(found[0], nil), Policy: inForce, Now: w.Now,
			}})
			if err != nil {
				t.Fatal(err)
			}
			a.Signed = string(text)
		}
		w.Archive = func(writ.ArchiveRead) []writ.Receipt { return found }
		if _, _, err := w.Call(verbs["run.close"], judge, a); writ.CodeOf(err) != writ.CodeVerdict {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Only who may judge has a signed verdict looked into, and nothing is looked up for it.
func TestOthersHaveNoVerdictLookedInto(t *testing.T) {
	w, _, _, sign := closer(t)
	looked := false
	w.Archive = func(q writ.ArchiveRead) []writ.Receipt { looked = true; return []writ.Receipt{sealed(q.Receipt)} }
	for _, role := range []writ.Role{writ.RoleVerifier, writ.RoleOperator} {
		by := w.Open(role, "orc", "") // who planned it
		if _, _, err := w.Call(verbs["run.close"], by, sign()); writ.CodeOf(err) != writ.CodeSoD {
			t.Errorf("%s: %v", role, err)
		}
	}
	if looked {
		t.Error("the receipt was read")
	}
}

// Without what checks them no signed verdict counts, and none that must be.
func TestNoVerdictCountsUnchecked(t *testing.T) {
	w, judge, _, sign := closer(t)
	unchecked := runs.Capabilities(runs.Config{})
	k := unchecked[slices.IndexFunc(unchecked, func(k *writ.Capability) bool { return k.ID == "run.close" })]
	a := sign()
	if _, _, err := w.Call(k, judge, a); writ.CodeOf(err) != writ.CodeVerdict {
		t.Errorf("signed: %v", err)
	}
	a.Signed = ""
	if _, _, err := w.Call(k, judge, a); writ.CodeOf(err) != writ.CodeVerdict {
		t.Errorf("unsigned: %v", err)
	}
}

// Who has no keys need not sign, unless policy wants that everybody does.
func TestWhoMustSign(t *testing.T) {
	key := []writ.PublicKey{{ID: "k1"}}
	for name, c := range map[string]struct {
		keys []writ.PublicKey
		duty bool
		must bool
	}{
		"nobody wants it": {},
		"the policy":      {duty: true, must: true},
		"the keys":        {keys: key, must: true},
		"both":            {keys: key, duty: true, must: true},
	} {
		var tx writ.Tx
		err := tx.Vouch("test", ink{}, "", writ.Snapshot{}, &writ.Call{}, writ.Decision{Duties: writ.Duties{SignVerdict: c.duty}}, "rcp_1", nil, writ.VerdictWant{Keys: c.keys})
		if refused := writ.CodeOf(err) == writ.CodeVerdict; refused != c.must || !refused && err != nil || tx.Verdict != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A signed verdict that was used is refused for as long as it would be fresh: what notes
// that outlives it, also when its clock was ahead.
func TestAUsedVerdictIsRefused(t *testing.T) {
	w, judge, _, sign := closer(t)
	a := sign()
	p, err := w.Plan(verbs["run.close"], w.NewCall(verbs["run.close"], judge, a))
	if err != nil {
		t.Fatal(err)
	}
	note := slices.IndexFunc(p.Tx.Ops, func(o writ.Op) bool { return o.Key == writ.VerdictKey(p.Tx.Verdict.Digest) })
	if note < 0 || p.Tx.Ops[note].Kind != writ.OpPut || p.Tx.Ops[note].TTLMs <= writ.VerdictFreshMs+writ.VerdictAheadMs {
		t.Fatalf("what notes that it was used: %+v", p.Tx.Ops)
	}
	w.Seed(writ.VerdictKey(p.Tx.Verdict.Digest), "verdict", writ.UsedVerdict{Receipt: "rcp_1"})
	_, _, err = w.Call(verbs["run.close"], judge, a)
	if e, ok := errors.AsType[*writ.Error](err); !ok || e.Code != writ.CodeVerdict || e.Details["reason"] != writ.BadVerdictUsed {
		t.Errorf("got %v", err)
	}
}

// The reasons of the call are signed too.
func TestReasonsAreSigned(t *testing.T) {
	for name, c := range map[string]struct {
		said []string
		want writ.Code
	}{"as the call says": {[]string{"late"}, ""}, "others": {[]string{"early"}, writ.CodeVerdict}, "none": {nil, writ.CodeVerdict}} {
		w, judge, _, sign := closer(t)
		a := sign()
		a.Verdict, a.Reasons = writ.VerdictReject, []string{"late"}
		text, err := json.Marshal(inked{"k1", writ.VerdictWant{
			Agent: "checker", Properties: writ.VerdictProperties(writ.VerdictOn("run", string(a.RunID)), writ.VerdictReject, nil, c.said), Subjects: writ.VerdictSubjects(sealed(a.Receipt), nil), Policy: inForce, Now: w.Now,
		}})
		if err != nil {
			t.Fatal(err)
		}
		a.Signed = string(text)
		if _, _, err := w.Call(verbs["run.close"], judge, a); writ.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// twofold reads one text in two ways.
type twofold struct{ ink }

func (t twofold) Check(text string, want writ.VerdictWant) (writ.SignedVerdict, error) {
	v, err := t.ink.Check(text, want)
	v.Digest = "another"
	return v, err
}

// What is noted as used is what was checked.
func TestAVerdictIsReadInOneWay(t *testing.T) {
	w, judge, _, sign := closer(t)
	for _, c := range []struct {
		v    writ.Verdicts
		want writ.Code
	}{{twofold{}, writ.CodeVerdict}, {ink{}, ""}} {
		list := runs.Capabilities(runs.Config{Verdicts: c.v})
		k := list[slices.IndexFunc(list, func(k *writ.Capability) bool { return k.ID == "run.close" })]
		if _, _, err := w.Call(k, judge, sign()); writ.CodeOf(err) != c.want {
			t.Errorf("%T: %v", c.v, err)
		}
	}
}

func TestVerdictProperties(t *testing.T) {
	got := writ.VerdictProperties(writ.VerdictOn("task", "tsk_1"), writ.VerdictReject, map[string]bool{"tests": false, "lint": true}, []string{"late", "late"})
	if want := []string{"WRIT_GATE_FAIL:tests", "WRIT_GATE_PASS:lint", "WRIT_REASON:late", "WRIT_VERDICT_ON:task/tsk_1", "WRIT_VERDICT_REJECT"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// The id of a logged verdict is that of its digest, and of no text that is none.
func TestVerdictIDFollowsFromTheDigest(t *testing.T) {
	for digest, want := range map[string]writ.ReceiptID{
		strings.Repeat("00", 32): "rcp_00000000000000000000000000",
		strings.Repeat("ff", 32): "rcp_7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
		"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08": "rcp_4ZGV88322CFNJSMBZAM32NNM0N",
	} {
		if id := writ.VerdictID(digest); id != want || !id.Valid() {
			t.Errorf("%s: got %s, want %s", digest, id, want)
		}
	}
	for _, digest := range []string{"", "00", strings.Repeat("g", 64)} {
		if id := writ.VerdictID(digest); id != "" {
			t.Errorf("%q: got %s", digest, id)
		}
	}
}
