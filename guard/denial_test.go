package guard_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/store"
)

// unsealed is the evidence of a fact.
func unsealed(t *testing.T, f writ.StoredFact) map[string]any {
	t.Helper()
	plain, err := receipts.OpenEvidence([32]byte{1}, f.ID, f.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	var ev struct {
		Object map[string]any `json:"object"`
	}
	if err := json.Unmarshal(plain, &ev); err != nil {
		t.Fatal(err)
	}
	return ev.Object
}

// Arguments too large to keep are in the evidence by digest; so are those of a
// call that was refused before they were read.
func TestLargeArgumentsAreKeptByDigest(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	large := thingArgs{Run: runID(1), Note: strings.Repeat("<", 30_000)} // six bytes each once escaped
	raw, err := json.Marshal(large)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(raw)
	want := hex.EncodeToString(sum[:])
	check := func(name string, id writ.ReceiptID) {
		t.Helper()
		facts := w.facts()
		last := facts[len(facts)-1]
		ev := unsealed(t, last)
		if last.ID != id || id == "" || ev["args"] != nil || ev["args_digest"] != want || ev["capability"] != "test.bump" || ev["call"] == "" {
			t.Errorf("%s: receipt %s, evidence %.300v", name, id, ev)
		}
	}
	_, receipt, err := w.call(alice, "test.bump", large, "")
	if err != nil {
		t.Fatal(err)
	}
	check("a transition", receipt.ID)
	w.law.deny["test.bump"] = writ.Finding{Rule: "p.rule", Effect: writ.EffectDeny, Code: "policy_denied"}
	_, _, err = w.call(alice, "test.bump", large, "")
	check("a denial by policy", asError(t, err, writ.CodePolicy).Receipt)
	w.law.forbid["test.bump"] = true
	_, _, err = w.call(alice, "test.bump", large, "")
	check("a denial unread", asError(t, err, writ.CodeRBAC).Receipt)
	// What fits is kept whole.
	clear(w.law.forbid)
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1), Note: "x"}, ""); err == nil {
		t.Fatal("allowed")
	}
	facts := w.facts()
	if ev := unsealed(t, facts[len(facts)-1]); ev["args_digest"] != nil || ev["args"].(map[string]any)["note"] != "x" {
		t.Errorf("evidence %v", ev)
	}
}

// wide reads more documents than one commit can guard.
func wide() *writ.Capability {
	return writ.Define[thingArgs, thingView](writ.Capability{ID: "test.wide", Summary: "Look at much.", Safety: writ.SafetyReadOnly},
		writ.Verb[thingArgs]{
			Reads: func(*writ.Call, *thingArgs, writ.Snapshot) (writ.ReadSet, error) {
				var rs writ.ReadSet
				for i := range 600 {
					rs.Docs = append(rs.Docs, writ.RunKey(writ.RunID(writ.MakeID(writ.PrefixRun, int64(i), [10]byte{}))))
				}
				return rs, nil
			},
			Plan: func(*writ.Call, *thingArgs, writ.Snapshot, writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
				return tx, r, writ.Refuse(writ.CodeIllegal, "test", "no", "").With("holder", "somebody")
			},
		})
}

// committed notes what was asked of the store.
type committed struct {
	store.Store
	last writ.Tx
}

func (c *committed) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	c.last = tx
	return c.Store.Commit(ctx, shard, tx)
}

// A denial of a call that read very much is held to who was denied and by which
// policies. Its evidence says what else it is about.
func TestWideDenialHasAReceipt(t *testing.T) {
	st := &committed{}
	w := newWorld(t, func(c *guard.Config) {
		reg, err := writ.NewRegistry(append(append(guard.Capabilities(), things()...), wide())...)
		if err != nil {
			t.Fatal(err)
		}
		st.Store, c.Store, c.Registry = c.Store, st, reg
	})
	alice := w.session("alice")
	_, _, err := w.call(alice, "test.wide", thingArgs{}, "")
	if e := asError(t, err, writ.CodeIllegal); e.Receipt == "" || e.Aggregated {
		t.Fatalf("got %+v", e)
	}
	facts := w.facts()
	if d, _ := unsealed(t, facts[len(facts)-1])["details"].(map[string]any); len(d) != 1 || d["holder"] != "somebody" {
		t.Errorf("details %v", d)
	}
	guarded := map[writ.Key]bool{}
	kinds := map[writ.GuardKind]int{}
	for _, g := range st.last.Guards {
		guarded[g.Key] = true
		kinds[g.Kind]++
	}
	if !guarded[writ.GateKey] || !guarded[writ.SessionKey(alice.Session)] || kinds[writ.GuardExpect] != 2 || kinds[writ.GuardEpoch] != 1 || kinds[writ.GuardNotAfter] != 1 {
		t.Errorf("guards: %+v", st.last.Guards)
	}
}

// draftless renders no statement of a denial.
type draftless struct{ *sealer }

func (d draftless) Draft(st writ.Statement) ([]byte, []byte, error) {
	if st.Outcome == writ.OutcomeOfDenial {
		return nil, nil, errors.New("cannot be stated")
	}
	return d.sealer.Draft(st)
}

// greedy adds more to a denial than a commit takes.
type greedy struct{}

func (greedy) Reads(*writ.Call, *writ.Capability, writ.Snapshot, writ.Subject) (rs writ.ReadSet, err error) {
	return
}

func (greedy) Facts(*writ.Call, *writ.Capability, writ.Snapshot, func() bool, *writ.Subject) error {
	return nil
}

func (greedy) Oblige(*writ.Call, *writ.Capability, writ.Snapshot, writ.Subject, *writ.Tx) (map[string]int64, []writ.BudgetWarning, error) {
	return nil, nil, nil
}

func (greedy) Denied(_ *writ.Call, _ writ.Snapshot, _ writ.Subject, _ writ.Decision, tx *writ.Tx) {
	for i := range writ.MaxOps {
		tx.Index(writ.IndexTodo, "x "+string(rune('a'+i%26)), int64(i))
	}
}

// A denial that makes no fact is counted; it is a denial still.
func TestDenialThatMakesNoFactIsCounted(t *testing.T) {
	for name, tune := range map[string]func(*guard.Config){
		"no statement": func(c *guard.Config) { c.Sealer = draftless{c.Sealer.(*sealer)} },
		"no commit":    func(c *guard.Config) { c.Obligors = []guard.Obligor{greedy{}} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tune)
			alice := w.session("alice")
			w.law.forbid["test.bump"] = true
			before := len(w.facts())
			_, receipt, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "")
			if e := asError(t, err, writ.CodeRBAC); !e.Aggregated || e.Receipt != "" || receipt != nil {
				t.Fatalf("got %+v", e)
			}
			if err := w.door.FlushDenials(t.Context()); err != nil {
				t.Fatal(err)
			}
			facts := w.facts()[before:]
			if len(facts) != 1 || predicate(t, facts[0])["outcome"] != "aggregate" || predicate(t, facts[0])["count"] != float64(1) {
				t.Fatalf("%d facts", len(facts))
			}
		})
	}
}
