package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
)

// ReceiptView is a receipt: the signed envelope, and what it says in the clear.
type ReceiptView struct {
	ReceiptID writ.ReceiptID `json:"receipt_id" doc:"The receipt."`
	RunKey    string         `json:"run_key,omitempty" doc:"Another name of it, that people can read and sort: when, what, and the id without rcp_."`
	Seq       int64          `json:"seq" doc:"Its place in the log, from 0 without a gap."`
	Kind      string         `json:"kind" doc:"sealed: the gateway signed it. foreign: somebody else did, and the receipt after it rests on it: a verdict signed by its verifier." enum:"sealed,foreign"`
	Envelope  writ.RawObject `json:"envelope" doc:"DSSE envelope as it was signed; check this one."`
	Statement writ.RawObject `json:"statement" doc:"The envelope's payload, for reading: an in-toto statement."`
	Bundle    writ.RawObject `json:"bundle,omitempty" doc:"The receipt as a Sigstore bundle (v0.3), which cosign and other stock tools check; with the proof that the transparency log has it, if included. Shown by receipt.get."`
	Proof     string         `json:"tlog_proof,omitempty" doc:"The same proof as a C2SP tlog-proof, with the envelope as its extra data. Shown by receipt.get, if included."`
	Included  bool           `json:"included,omitempty" doc:"Whether the bundle holds that proof: the latest checkpoint covers the receipt."`
}

func (c Config) view(r writ.Receipt) (ReceiptView, error) {
	if c.Envelope == nil || c.Bundle == nil || c.Proof == nil {
		return ReceiptView{}, notReady("registry.Receipt")
	}
	env, err := c.Envelope(r)
	if err != nil {
		return ReceiptView{}, writ.AsError("registry.Receipt", err)
	}
	return ReceiptView{ReceiptID: r.ID, RunKey: runKey(r), Seq: r.Seq, Kind: r.Kind(), Envelope: env, Statement: r.Payload}, nil
}

// runKey names a receipt for people: CAP-<yyyymmdd-hhmmss>__<transition>__R<the rest of its
// id>. It says nothing the receipt does not, and the id is in it whole, so no two are alike.
func runKey(r writ.Receipt) string {
	var st struct {
		Predicate struct {
			Transition string `json:"transition"`
			Commit     struct {
				At time.Time `json:"at"`
			} `json:"commit"`
		} `json:"predicate"`
	}
	_, rest, ok := strings.Cut(string(r.ID), "_")
	if err := json.Unmarshal(r.Payload, &st); err != nil || !ok || st.Predicate.Transition == "" {
		return ""
	}
	return "CAP-" + st.Predicate.Commit.At.UTC().Format("20060102-150405") + "__" + st.Predicate.Transition + "__R" + rest
}

func notReady(op string) error {
	return writ.Refuse(writ.CodeNotReady, op, "receipts cannot be read yet", "try again in a moment")
}

// ReceiptGetArgs name the receipt to show.
type ReceiptGetArgs struct {
	ReceiptID writ.ReceiptID `json:"receipt_id" doc:"The receipt." pattern:"^rcp_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Wait      string         `json:"wait,omitempty" doc:"Wait a few seconds until a checkpoint of the transparency log covers it." enum:"included"`
}

func getReceipt(cfg Config) *writ.Capability {
	read := func(a *ReceiptGetArgs) writ.ArchiveRead {
		return writ.ArchiveRead{Receipt: a.ReceiptID, Limit: 1, Proof: true, Wait: a.Wait == "included"}
	}
	return writ.Define[ReceiptGetArgs, ReceiptView](writ.Capability{
		ID: "receipt.get", Safety: writ.SafetyReadOnly, Summary: "Show a receipt.",
		Example: `{"receipt_id":"rcp_01M89R8776WWQMDZ1SS4766DAD"}`,
	}, writ.Verb[ReceiptGetArgs]{
		Reads: func(_ *writ.Call, a *ReceiptGetArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Archive: []writ.ArchiveRead{read(a)}}, nil
		},
		Plan: func(_ *writ.Call, a *ReceiptGetArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			found := s.Archive[read(a)]
			if len(found) == 0 || found[0].ID != a.ReceiptID {
				return tx, r, writ.Refuse(writ.CodeNotFound, "registry.GetReceipt", "there is no such receipt", "receipt.list shows the receipts there are")
			}
			out, err := cfg.view(found[0])
			if err != nil {
				return tx, r, err
			}
			if out.Bundle, err = cfg.Bundle(found[0]); err != nil {
				return tx, r, writ.AsError("registry.Receipt", err)
			}
			if out.Included = found[0].Inclusion != nil; out.Included {
				proof, err := cfg.Proof(found[0])
				if err != nil {
					return tx, r, writ.AsError("registry.Receipt", err)
				}
				out.Proof = string(proof)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

// ReceiptListArgs page through the log.
type ReceiptListArgs struct {
	After *int64     `json:"after,omitempty" doc:"Only receipts after this sequence; -1, the start, when left out." minimum:"-1" maximum:"100000000000000"`
	Limit int64      `json:"limit,omitempty" doc:"Receipts per page." default:"50" minimum:"1" maximum:"200"`
	RunID writ.RunID `json:"run_id,omitempty" doc:"Only receipts of this run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// ReceiptList is a page of the log.
type ReceiptList struct {
	Receipts  []ReceiptView `json:"receipts" doc:"Receipts, oldest first."`
	NextAfter int64         `json:"next_after" doc:"Value of after for the next page, or for asking again later."`
	More      bool          `json:"more" doc:"Whether more may follow now."`
}

// pageAfter is the archive read of a page.
func pageAfter(after *int64, limit, byDefault, most int64, run writ.RunID) writ.ArchiveRead {
	q := writ.ArchiveRead{After: -1, Limit: int(byDefault), Run: run}
	if after != nil && *after > -1 {
		q.After = *after
	}
	if limit > 0 {
		q.Limit = int(min(limit, most))
	}
	return q
}

func listReceipts(cfg Config) *writ.Capability {
	read := func(a *ReceiptListArgs) writ.ArchiveRead { return pageAfter(a.After, a.Limit, 50, 200, a.RunID) }
	return writ.Define[ReceiptListArgs, ReceiptList](writ.Capability{
		ID: "receipt.list", Safety: writ.SafetyReadOnly, Summary: "List receipts in the order of the log.",
		Example: `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N","limit":20}`,
	}, writ.Verb[ReceiptListArgs]{
		Reads: func(_ *writ.Call, a *ReceiptListArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Archive: []writ.ArchiveRead{read(a)}}, nil
		},
		Plan: func(_ *writ.Call, a *ReceiptListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			q := read(a)
			out := ReceiptList{Receipts: []ReceiptView{}, NextAfter: q.After, More: len(s.Archive[q]) >= q.Limit}
			for _, rc := range s.Archive[q] {
				v, err := cfg.view(rc)
				if err != nil {
					return tx, r, err
				}
				out.Receipts = append(out.Receipts, v)
				out.NextAfter = rc.Seq
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

// ReceiptExportArgs say where the export begins.
type ReceiptExportArgs struct {
	After *int64 `json:"after,omitempty" doc:"Only receipts after this sequence; -1, the start, when left out." minimum:"-1" maximum:"100000000000000"`
	Limit int64  `json:"limit,omitempty" doc:"Receipts in the export." default:"1000" minimum:"1" maximum:"1000"`
}

// ReceiptExport is a signed piece of an export. Header, receipts and head, each
// written on a line of its own in this order, are the file `writ receipt verify`
// reads; of further pieces only receipts and head are added.
type ReceiptExport struct {
	Header    writ.RawObject   `json:"header" doc:"First line: format and log."`
	Receipts  []writ.RawObject `json:"receipts" doc:"One entry a line, sequences without a gap: its DSSE envelope; of a foreign one with kind and public key beside it."`
	Head      writ.RawObject   `json:"head" doc:"Last line: a signed statement about all of them, so that a removed end shows."`
	NextAfter int64            `json:"next_after" doc:"Value of after for the next export."`
	More      bool             `json:"more" doc:"Whether more may follow now."`
}

func exportReceipts(cfg Config) *writ.Capability {
	const op = "registry.Export"
	read := func(a *ReceiptExportArgs) writ.ArchiveRead { return pageAfter(a.After, a.Limit, 1000, 1000, "") }
	return writ.Define[ReceiptExportArgs, ReceiptExport](writ.Capability{
		ID: "receipt.export", Safety: writ.SafetyReadOnly, Summary: "Export receipts with a signed head, for checking them elsewhere.",
		Example: `{"after":1024,"limit":100}`,
	}, writ.Verb[ReceiptExportArgs]{
		Reads: func(_ *writ.Call, a *ReceiptExportArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Archive: []writ.ArchiveRead{read(a)}}, nil
		},
		Plan: func(_ *writ.Call, a *ReceiptExportArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if cfg.Export == nil {
				return tx, r, notReady(op)
			}
			q := read(a)
			found := s.Archive[q]
			more := len(found) >= q.Limit
			text, err := cfg.Export(found, q.After, s.Now, more)
			if err != nil {
				return tx, r, writ.AsError(op, err)
			}
			lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
			if len(lines) != len(found)+2 {
				return tx, r, writ.Fault(writ.CodeInternal, op, errors.New("the export does not have a line per receipt, a header and a head"))
			}
			out := ReceiptExport{
				Header: lines[0], Receipts: []writ.RawObject{}, Head: lines[len(lines)-1],
				NextAfter: q.After, More: more,
			}
			for i, rc := range found {
				out.Receipts = append(out.Receipts, lines[i+1])
				out.NextAfter = rc.Seq
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
