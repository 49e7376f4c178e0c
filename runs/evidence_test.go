package runs

import (
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// Evidence is shredded once its run has ended, and again for what was noted after that;
// the document says by which receipt, and for the how many-th time.
func TestShredding(t *testing.T) {
	r := newRoom(t)
	run := r.created(r.orc, "")
	args := &EvidenceShredArgs{RunID: run, Reason: "legal_order"}
	r.refused(writ.CodeNotFound, writ.CapabilityShred, r.ops, &EvidenceShredArgs{RunID: "run_01J00000000000000000000009", Reason: "legal_order"})
	for _, state := range []writ.RunState{writ.RunActive, writ.RunPausedApproval, writ.RunVerifying} {
		doc := r.run(run)
		doc.State = state
		r.Seed(writ.RunKey(run), writ.ObjectRun, doc)
		r.refused(writ.CodeIllegal, writ.CapabilityShred, r.ops, args)
	}
	r.must("run.cancel", r.ops, &RunCancelArgs{RunID: run})
	before := r.run(run)
	for n := int64(1); n <= 3; n++ {
		v := body[EvidenceView](t, r.must(writ.CapabilityShred, r.ops, args))
		if v.Run != run || v.State != writ.EvidenceShredded || v.Reason != args.Reason || v.ShreddedAt != writ.FormatTime(r.Now) || v.Times != n {
			t.Errorf("%d: %+v", n, v)
		}
		fact := r.Facts[len(r.Facts)-1]
		from := ""
		if n > 1 {
			from = string(writ.EvidenceShredded)
		}
		if fact.Receipt != v.Receipt || len(fact.Changes) != 1 || fact.Changes[0] != (writ.Change{Kind: writ.ObjectEvidence, ID: string(run), From: from, To: string(writ.EvidenceShredded)}) {
			t.Errorf("%d: %+v", n, fact)
		}
		e, _, ok := writtest.Get[writ.Evidence](r.World, writ.EvidenceKey(run))
		if !ok || e.Receipt != v.Receipt || e.Times != n || e.ShreddedAt != r.Now || e.Reason != args.Reason {
			t.Errorf("%d: %+v", n, e)
		}
		r.Advance(1)
	}
	if r.run(run).Receipt != before.Receipt {
		t.Error("the run has moved")
	}
	p, err := r.Plan(r.caps[writ.CapabilityShred], r.NewCall(r.caps[writ.CapabilityShred], r.ops, args))
	if err != nil || !p.Tx.Mandate {
		t.Errorf("it waits for room, which it makes: %v", err)
	}
	// Of two at once one comes first: each is counted.
	if _, err := r.Commit(p); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Commit(p); err == nil {
		t.Error("two are counted as one")
	}
}
