package writ

// CapabilityShred is the one that has the evidence of a run destroyed.
const CapabilityShred = "evidence.shred"

// EvidenceState is the state of the evidence of a run, once it has one.
type EvidenceState string

// EvidenceShredded: what was filed before can be read by nobody any more.
const EvidenceShredded EvidenceState = "shredded"

// EvidenceMoves: evidence is shredded, and again when more has come since.
var EvidenceMoves = Table[EvidenceState]{
	"":               {EvidenceShredded},
	EvidenceShredded: {EvidenceShredded},
}

// Evidence is what is known of the evidence of a run that was shredded. Its
// version is that of the commit that did it last: what came before is gone.
type Evidence struct {
	Run        RunID         `json:"run"`
	State      EvidenceState `json:"state"`
	Reason     string        `json:"reason"` // closed enum
	ShreddedAt int64         `json:"shredded_at"`
	Times      int64         `json:"times"`
	Receipt    ReceiptID     `json:"receipt"`
}

// EvidenceKey is where that is kept.
func EvidenceKey(id RunID) Key { return Key("evidence/" + string(id)) }

// Shredded refuses to show what a shredding has destroyed.
func Shredded(op string, by ReceiptID) *Error {
	return Refuse(CodeShredded, op, "the evidence was shredded", "the receipt still proves what it states; the receipt in details says who had the evidence destroyed, and when").
		With("receipt", string(by))
}
