package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/writ-gateway/writ"
)

// ReceiptEvidenceArgs name the receipt whose evidence to show.
type ReceiptEvidenceArgs struct {
	ReceiptID writ.ReceiptID `json:"receipt_id" doc:"The receipt." pattern:"^rcp_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// ReceiptEvidence is what a receipt's digest stands for.
type ReceiptEvidence struct {
	ReceiptID writ.ReceiptID `json:"receipt_id" doc:"The receipt."`
	Digest    string         `json:"digest" doc:"SHA-256 of text in hex: what the signed statement has as evidence."`
	Text      string         `json:"text" doc:"The exact text the digest is over: a JSON object of object, receipt and salt. Arguments may hold personal data."`
	Evidence  writ.RawObject `json:"evidence" doc:"The same, for reading."`
}

// readEvidence shows what a call was about. The statement has its digest only,
// because the arguments of a call may hold personal data: so this is for those
// who must look into a matter, and not for everybody who may see receipts.
func readEvidence(cfg Config) *writ.Capability {
	const op = "registry.Evidence"
	read := func(a *ReceiptEvidenceArgs) writ.ArchiveRead {
		return writ.ArchiveRead{Receipt: a.ReceiptID, Limit: 1}
	}
	return writ.Define[ReceiptEvidenceArgs, ReceiptEvidence](writ.Capability{
		ID: "receipt.evidence", Safety: writ.SafetyReadOnly,
		Example: `{"receipt_id":"rcp_01M89R8776WWQMDZ1SS4766DAD"}`,
		Summary: "Show the evidence of a receipt, decrypted: the call's arguments, which may hold personal data.",
	}, writ.Verb[ReceiptEvidenceArgs]{
		Reads: func(_ *writ.Call, a *ReceiptEvidenceArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.ReadSet{Archive: []writ.ArchiveRead{read(a)}}
			if run := runOf(s.Archive[read(a)]); run != "" {
				rs.Docs = []writ.Key{writ.EvidenceKey(run)}
			}
			return rs, nil
		},
		Plan: func(_ *writ.Call, a *ReceiptEvidenceArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if cfg.Evidence == nil {
				return tx, r, notReady(op)
			}
			found := s.Archive[read(a)]
			if len(found) == 0 || found[0].ID != a.ReceiptID {
				return tx, r, writ.Refuse(writ.CodeNotFound, op, "there is no such receipt", "receipt.list shows the receipts there are")
			}
			if len(found[0].Evidence) == 0 {
				return tx, r, writ.Refuse(writ.CodeNotFound, op, "the receipt has no evidence", "receipt.get shows what it states")
			}
			if err := shredded(op, s, found[0]); err != nil {
				return tx, r, err
			}
			text, err := cfg.Evidence(found[0])
			if err != nil {
				return tx, r, writ.AsError(op, err)
			}
			sum := sha256.Sum256(text)
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: ReceiptEvidence{
				ReceiptID: a.ReceiptID, Digest: hex.EncodeToString(sum[:]), Text: string(text), Evidence: text,
			}}, nil
		},
	})
}

// runOf is the run of a receipt, as its statement has it.
func runOf(found []writ.Receipt) writ.RunID {
	if len(found) == 0 {
		return ""
	}
	var st struct {
		Predicate struct {
			Run writ.RunID `json:"run"`
		} `json:"predicate"`
	}
	if json.Unmarshal(found[0].Payload, &st) != nil || !st.Predicate.Run.Valid() {
		return ""
	}
	return st.Predicate.Run
}

// shredded refuses evidence that was shredded, from the commit on that says so:
// the key is destroyed a little later, where the ledger is.
func shredded(op string, s writ.Snapshot, receipt writ.Receipt) error {
	run := runOf([]writ.Receipt{receipt})
	if run == "" {
		return nil
	}
	e, version, ok, err := writ.Get[writ.Evidence](s, writ.EvidenceKey(run))
	if err != nil || !ok || receipt.ID == e.Receipt || receipt.Seq >= version-1 {
		return err
	}
	return writ.Shredded(op, e.Receipt)
}
