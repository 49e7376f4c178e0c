package writ_test

import (
	"encoding/json"
	"errors"
	"slices"
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
	w.Seed(writ.GateKey, writ.ObjectGate, writ.Gate{State: writ.GateOpen})
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
			Agent: "checker", Properties: writ.VerdictProperties(writ.VerdictAccept, nil, nil), Subjects: writ.VerdictSubjects(sealed(r.Receipt), nil), Now: w.Now,
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

func TestVerdictProperties(t *testing.T) {
	got := writ.VerdictProperties(writ.VerdictReject, map[string]bool{"tests": false, "lint": true}, []string{"late", "late"})
	if want := []string{"WRIT_GATE_FAIL:tests", "WRIT_GATE_PASS:lint", "WRIT_REASON:late", "WRIT_VERDICT_REJECT"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
