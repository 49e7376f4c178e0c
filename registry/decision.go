package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/writ-gateway/writ"
)

// PolicyExplainArgs name the receipt whose decision is to be explained.
type PolicyExplainArgs struct {
	ReceiptID writ.ReceiptID `json:"receipt_id" doc:"Receipt of the transition, request or denial." pattern:"^rcp_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// explainPolicy says which rules held of a recorded decision, and where the
// others stopped.
func explainPolicy(cfg Config) *writ.Capability {
	const op = "registry.PolicyExplain"
	read := func(a *PolicyExplainArgs) writ.ArchiveRead { return writ.ArchiveRead{Receipt: a.ReceiptID, Limit: 1} }
	k := writ.Define[PolicyExplainArgs, struct{}](writ.Capability{
		ID: "policy.explain", Safety: writ.SafetyReadOnly,
		Example: `{"receipt_id":"rcp_01M89R8776WWQMDZ1SS4766DAD"}`,
		Summary: "Explain a recorded decision: which rules held, which did not, and where they stopped.",
	}, writ.Verb[PolicyExplainArgs]{
		Reads: func(_ *writ.Call, a *PolicyExplainArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Archive: []writ.ArchiveRead{read(a)}}, nil
		},
		Plan: func(_ *writ.Call, a *PolicyExplainArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			found := s.Archive[read(a)]
			if len(found) == 0 || found[0].ID != a.ReceiptID {
				return tx, r, writ.Refuse(writ.CodeNotFound, op, "there is no such receipt", "receipt.list shows the receipts there are")
			}
			if cfg.Record == nil || cfg.Explain == nil {
				return tx, r, notReady(op)
			}
			rec, err := cfg.Record(found[0])
			if err != nil {
				return tx, r, writ.AsError(op, err)
			}
			out, err := cfg.Explain(rec)
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, err
		},
	})
	if cfg.ExplainType != nil {
		k.Result = cfg.ExplainType
	}
	return k
}

// PolicyRecord is one decision of the past, as other packs can be asked about
// it: without arguments, names of people or texts of callers.
type PolicyRecord struct {
	ReceiptID      writ.ReceiptID    `json:"receipt_id" doc:"Receipt of the decision."`
	Seq            int64             `json:"seq" doc:"Its place in the log."`
	At             string            `json:"at" doc:"When it was (RFC 3339, UTC)."`
	Capability     writ.CapabilityID `json:"capability" doc:"What was called."`
	Outcome        string            `json:"outcome" doc:"What became of it." enum:"transition,request,denial"`
	Code           writ.Code         `json:"code,omitempty" doc:"Why it was denied."`
	Effect         writ.Effect       `json:"effect" doc:"What policy decided." enum:"allow,redact,require_approval,deny"`
	Rules          []string          `json:"rule_ids" doc:"Rules that held, strongest first."`
	Obliged        []RecordedDuty    `json:"obligations" doc:"What those rules asked the gateway to do."`
	PolicyRevision string            `json:"policy_revision" doc:"Policies that decided."`
	Input          writ.RawObject    `json:"input,omitempty" doc:"What they were shown. Absent: not replayable, see why_not."`
	WhyNot         string            `json:"why_not,omitempty" doc:"Why the decision cannot be replayed."`
	Agrees         *bool             `json:"agrees,omitempty" doc:"Whether the same policies still decide the same; absent when they are not held any more. False is an alarm: something was changed that must not be."`
}

// RecordedDuty is one obligation of a rule that held.
type RecordedDuty struct {
	Rule string         `json:"rule" doc:"Id of the rule."`
	Type string         `json:"type" doc:"Kind of obligation."`
	Args writ.RawObject `json:"args,omitempty" doc:"Its arguments, as the rule gave them."`
}

// PolicyRecordsArgs page through the decisions of the past.
type PolicyRecordsArgs struct {
	After      *int64            `json:"after,omitempty" doc:"Only decisions after this sequence; -1, the start, when left out." minimum:"-1" maximum:"100000000000000"`
	Limit      int64             `json:"limit,omitempty" doc:"Receipts looked at per page." default:"100" minimum:"1" maximum:"200"`
	Capability writ.CapabilityID `json:"capability,omitempty" doc:"Only decisions about this capability." pattern:"^[a-z][a-z0-9_-]{0,62}(\\.[a-z0-9_-]{1,63}){1,5}$"`
}

// PolicyRecords is a page of decisions.
type PolicyRecords struct {
	Records   []PolicyRecord `json:"records" doc:"Decisions, oldest first. Receipts of what policy did not decide are left out."`
	NextAfter int64          `json:"next_after" doc:"Value of after for the next page."`
	More      bool           `json:"more" doc:"Whether more may follow now."`
}

// recordsPage bounds the receipts of one page: each is opened.
const recordsPage = 200

func policyRecords(cfg Config) *writ.Capability {
	const op = "registry.PolicyRecords"
	return writ.Define[PolicyRecordsArgs, PolicyRecords](writ.Capability{
		ID: "policy.records", Safety: writ.SafetyReadOnly,
		Example: `{"capability":"task.claim","limit":50}`,
		Summary: "List decisions of the past with what they were made on, for trying other policies on them.",
	}, writ.Verb[PolicyRecordsArgs]{
		Reads: func(_ *writ.Call, a *PolicyRecordsArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Archive: []writ.ArchiveRead{pageAfter(a.After, a.Limit, 100, recordsPage, "")}}, nil
		},
		Plan: func(_ *writ.Call, a *PolicyRecordsArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if cfg.Record == nil {
				return tx, r, notReady(op)
			}
			page := pageAfter(a.After, a.Limit, 100, recordsPage, "")
			found := s.Archive[page]
			out := PolicyRecords{Records: []PolicyRecord{}, NextAfter: page.After, More: len(found) == page.Limit}
			for _, receipt := range found {
				out.NextAfter = receipt.Seq
				rec, err := cfg.Record(receipt)
				if err != nil {
					return tx, r, writ.AsError(op, err)
				}
				if rec.Effect == "" || a.Capability != "" && rec.Capability != a.Capability {
					continue
				}
				out.Records = append(out.Records, rec)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

// recorded reads the part of a statement a record is made of.
type recorded struct {
	Predicate struct {
		Call struct {
			Capability writ.CapabilityID `json:"capability"`
		} `json:"call"`
		Code   writ.Code `json:"code"`
		Commit struct {
			At string `json:"at"`
		} `json:"commit"`
		Decision struct {
			Effect writ.Effect `json:"effect"`
			Policy string      `json:"policy"`
			Rules  []string    `json:"rules"`
		} `json:"decision"`
		Evidence string `json:"evidence"`
		Outcome  string `json:"outcome"`
	} `json:"predicate"`
}

// RecordOf makes the record of a receipt from what it states and from its
// opened evidence; opened is nil when the evidence cannot be opened.
func RecordOf(r writ.Receipt, opened []byte) (PolicyRecord, error) {
	var st recorded
	if err := json.Unmarshal(r.Payload, &st); err != nil {
		return PolicyRecord{}, writ.Fault(writ.CodeInternal, "registry.RecordOf", err)
	}
	p := st.Predicate
	out := PolicyRecord{
		ReceiptID: r.ID, Seq: r.Seq, At: p.Commit.At, Capability: p.Call.Capability, Outcome: p.Outcome, Code: p.Code,
		Effect: p.Decision.Effect, Rules: p.Decision.Rules, PolicyRevision: p.Decision.Policy,
	}
	if out.Rules == nil {
		out.Rules = []string{}
	}
	out.Obliged = []RecordedDuty{}
	if r.Kind() == writ.FactForeign {
		out.WhyNot = "it is no decision: somebody signed it, and the receipt after it rests on it"
		return out, nil
	}
	if p.Outcome == writ.OutcomeOfAggregate {
		out.Effect = "" // counts, not a decision
		return out, nil
	}
	var ev struct {
		Object struct {
			Record   writ.RawObject `json:"policy_record"`
			Findings []struct {
				Rule        string `json:"rule"`
				Obligations []struct {
					Type string         `json:"type"`
					Args writ.RawObject `json:"args"`
				} `json:"obligations"`
			} `json:"findings"`
		} `json:"object"`
	}
	switch {
	case opened == nil:
		out.WhyNot = "its evidence cannot be opened here"
	case digest(opened) != p.Evidence:
		out.WhyNot = "its evidence is not what the receipt states"
	case json.Unmarshal(opened, &ev) != nil:
		out.WhyNot = "its evidence is damaged"
	case len(ev.Object.Record) == 0:
		out.WhyNot = "policy was not asked, or an earlier version kept no record"
	default:
		out.Input = ev.Object.Record
		for _, f := range ev.Object.Findings {
			for _, o := range f.Obligations {
				out.Obliged = append(out.Obliged, RecordedDuty{f.Rule, o.Type, o.Args})
			}
		}
	}
	return out, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
