package runs

import "github.com/writ-gateway/writ"

// EvidenceShredArgs name the run whose evidence is to be destroyed, and why.
type EvidenceShredArgs struct {
	RunID  writ.RunID `json:"run_id" doc:"The run; it has ended." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Reason string     `json:"reason" doc:"Why it is destroyed." enum:"data_subject_request,retention_expired,contract_ended,legal_order,collected_by_mistake"`
}

// EvidenceView is the evidence of a run that was shredded.
type EvidenceView struct {
	Run        writ.RunID         `json:"run_id" doc:"The run."`
	State      writ.EvidenceState `json:"state" doc:"What became of its evidence." enum:"shredded"`
	Reason     string             `json:"reason" doc:"Why it was destroyed."`
	ShreddedAt string             `json:"shredded_at" doc:"When (RFC 3339, UTC)."`
	Times      int64              `json:"times" doc:"How often: what is noted about a run after a shredding is destroyed by the next."`
	Receipt    writ.ReceiptID     `json:"receipt_id" doc:"Receipt of the shredding."`
}

// shred says that nobody shall read the evidence of a run any more. From the
// commit on receipt.evidence refuses it; whoever keeps the ledger destroys the
// key when it files this receipt. What is noted of the run afterwards, a refused
// call for example, is evidence again, and can be shredded again.
func shred() *writ.Capability {
	const op = "runs.Shred"
	return writ.Define[EvidenceShredArgs, EvidenceView](writ.Capability{
		ID: writ.CapabilityShred, Safety: writ.SafetyDestructive,
		Example: `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N","reason":"data_subject_request"}`,
		Summary: "Destroy the evidence of a run that has ended, for good: the arguments of its calls. Its receipts stay and verify.",
	}, writ.Verb[EvidenceShredArgs]{
		Locks: func(_ *writ.Call, a *EvidenceShredArgs) []writ.Key { return []writ.Key{writ.EvidenceKey(a.RunID)} },
		Reads: func(_ *writ.Call, a *EvidenceShredArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.RunID), writ.EvidenceKey(a.RunID)}}, nil
		},
		Describe: func(_ *writ.Call, a *EvidenceShredArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(s, a.RunID)
		},
		Plan: func(call *writ.Call, a *EvidenceShredArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			if !ok {
				return tx, r, noRun(op)
			}
			if !writ.RunMoves.Terminal(run.State) {
				return tx, r, writ.Refuse(writ.CodeIllegal, op, "the run has not ended, so its evidence is still needed", "cancel it, or wait until it has ended").
					With("state", string(run.State))
			}
			key := writ.EvidenceKey(a.RunID)
			e, _, _, err := writ.Get[writ.Evidence](s, key)
			if err != nil {
				return tx, r, err
			}
			tx.Move(writ.ObjectEvidence, string(run.ID), string(e.State), string(writ.EvidenceShredded))
			e = writ.Evidence{
				Run: run.ID, State: writ.EvidenceShredded, Reason: a.Reason, ShreddedAt: s.Now, Times: e.Times + 1,
				Receipt: writ.ReceiptID(call.NewID(writ.PrefixReceipt, 0)),
			}
			tx.Mandate = true // it makes room, and does not wait for any
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: EvidenceView{
				Run: e.Run, State: e.State, Reason: e.Reason, ShreddedAt: writ.FormatTime(e.ShreddedAt), Times: e.Times, Receipt: e.Receipt,
			}}, tx.PutDoc(s, key, writ.ObjectEvidence, e)
		},
	})
}
