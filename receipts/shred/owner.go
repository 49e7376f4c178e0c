package shred

import (
	"bytes"
	"encoding/binary"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
)

// marks is in the payload of every shredding, and of refused ones; the strings
// of a payload hold no quotes, and those of a foreign one none that are not escaped.
var marks = []byte(`"transition":"` + writ.CapabilityShred + `"`)

// ownerOf says under whose key the evidence of a fact is kept: its run's, or its
// day's. What is known of a shredding itself is not shredded with the run.
func ownerOf(f writ.StoredFact) (o owner) {
	if f.Run.Valid() && !bytes.Contains(f.Head, marks) && !bytes.Contains(f.Tail, marks) {
		return ownerRun(f.Run)
	}
	o[0] = 'd'
	binary.BigEndian.PutUint64(o[ownerBytes-8:], uint64(max(f.Commit.At, 0)/dayMs))
	return o
}

func ownerRun(id writ.RunID) (o owner) {
	o[0] = 'r'
	b := ledger.Binary(string(id))
	copy(o[1:], b[:])
	return o
}

// shredding reads which run's evidence a receipt says is shredded.
func shredding(payload []byte, id writ.ReceiptID) (o order, is bool, err error) {
	if !bytes.Contains(payload, marks) {
		return o, false, nil
	}
	rec, err := receipts.Decode(payload)
	if err != nil {
		return o, false, err
	}
	for _, c := range rec.Statement.Changes {
		if run := writ.RunID(c.ID); c.Kind == writ.ObjectEvidence && c.To == string(writ.EvidenceShredded) && run.Valid() {
			return order{owner: ownerRun(run), seq: rec.Commit.Seq, receipt: id}, true, nil
		}
	}
	return o, false, nil
}
