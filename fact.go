package writ

import (
	"slices"
	"strconv"
	"time"
)

// Fact is what a transition or denial leaves behind: a finished statement, cut
// at the one place where the commit's values go in. Nothing is rendered after
// the commit, so every replica that holds the key signs the same bytes.
type Fact struct {
	ID       ReceiptID
	Run      RunID  // counts this fact in the run's sequence
	KeyID    string // the receipt key the statement names
	Head     []byte // the statement up to and including `"commit":`
	Tail     []byte // the rest
	Evidence []byte // sealed evidence object; nil when there is none

	Sig, Public []byte // of a foreign fact: its signature, and the key that made it as DER (PKIX)
}

// Kinds of facts (closed list). Everything in the log is one.
const (
	FactSealed  = "sealed"  // what the gateway states, and signs when it is read
	FactForeign = "foreign" // what somebody else signed and a transition rests on: Head is all of it
)

// Foreign says whether a fact is of that kind. It is committed directly before the fact
// that rests on it, by the same commit, and filed under the same run, in whose sequence
// it does not count.
func (f Fact) Foreign() bool { return len(f.Public) > 0 }

// StoredFact is a fact with the commit that stored it.
type StoredFact struct {
	Fact
	Commit Committed
}

// Payload is the statement that is signed: of a foreign fact as it came, else head, commit values, tail. The
// commit is canonical JSON (RFC 8785): {"at","epoch","runSeq","seq"}, runSeq
// only for facts of a run.
func (f StoredFact) Payload() []byte {
	if f.Foreign() {
		return slices.Clone(f.Head)
	}
	b := make([]byte, 0, len(f.Head)+len(f.Tail)+128)
	b = append(b, f.Head...)
	b = append(b, `{"at":"`...)
	b = append(b, FormatTime(f.Commit.At)...)
	b = append(b, `","epoch":"`...)
	b = append(b, f.Commit.Epoch...)
	b = append(b, '"')
	if f.Run != "" {
		b = append(b, `,"runSeq":`...)
		b = strconv.AppendInt(b, f.Commit.RunSeq, 10)
	}
	b = append(b, `,"seq":`...)
	b = strconv.AppendInt(b, f.Commit.Seq, 10)
	b = append(b, '}')
	return append(b, f.Tail...)
}

// FormatTime renders milliseconds since 1970 as RFC 3339 in UTC with
// milliseconds, the one form of time in everything writ stores or signs.
func FormatTime(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

// Receipt is a sealed fact, or a foreign one: the DSSE envelope that proves it.
type Receipt struct {
	ID       ReceiptID `json:"id"`
	Seq      int64     `json:"seq"`
	Payload  []byte    `json:"payload"`   // in-toto statement, canonical JSON
	KeyID    string    `json:"key_id"`    // SHA256:… of the receipt key
	Sig      []byte    `json:"signature"` // ECDSA P-256 over the DSSE PAE, ASN.1
	Evidence []byte    `json:"-"`         // sealed evidence object
	Public   []byte    `json:"-"`         // of a foreign one: the key that signed, as DER (PKIX)

	EvidenceKey int64 `json:"-"` // of the ledger: the key it was sealed under once more; 0: as it came

	Inclusion *Inclusion `json:"-"` // where it was asked for, and the log's checkpoint covers it
}

// Kind of the fact it was.
func (r Receipt) Kind() string {
	if len(r.Public) > 0 {
		return FactForeign
	}
	return FactSealed
}

// Inclusion proves that a receipt is in the transparency log (RFC 6962, 2.1.1).
type Inclusion struct {
	Index, Size int64    // of the receipt, and of the log
	Leaf        []byte   // what the log holds of the receipt
	Hashes      [][]byte // from the leaf up
	Root        []byte
	Checkpoint  []byte // states size and root: C2SP tlog-checkpoint, signed by the log
	LogID       []byte
}

// Actor is who a receipt says acted. People are named by their session only.
type Actor struct {
	Agent   AgentID
	Kind    PrincipalKind
	Role    Role
	Session SessionID
}

// Statement is what a fact says, before it is rendered. It holds ids, enums,
// integers and digests only: no names, no free text, nothing a caller worded.
type Statement struct {
	Receipt    ReceiptID
	Call       CallID
	Tenant     Tenant
	Log        string // origin of the ledger
	Transition string // capability id
	Version    string // of the capability
	Outcome    string // OutcomeOf…
	Code       Code   // why, for a denial
	Actor      Actor
	Changes    []Change
	Run        RunID
	Task       TaskID
	Fence      int64 // the fence the call carried
	Labels     []Label
	Decision   Decision
	Budget     map[string]int64 // what the call was charged
	Parents    []ReceiptID
	Evidence   string      // sha256 of the salted evidence object, hex
	Count      int64       // what an aggregate stands for: denials, or decisions packs in shadow would have changed
	Effect     *EffectFact // of transitions that change the state of an effect
	Key        KeyFact     // the receipt key it is about; of receipts of KeyTransitions
	KeyID      string
	Nonce      [16]byte
	Verdict    *VerdictRef // the signed verdict it rests on
}

// Outcomes a statement can state.
const (
	OutcomeOfTransition = "transition"
	OutcomeOfDenial     = "denial"
	OutcomeOfAggregate  = "aggregate" // counted, not stored one by one
	OutcomeOfRequest    = "request"   // the call did not happen: people were asked for approval
)
