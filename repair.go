package writ

import (
	"fmt"
	"strings"
)

// RepairState is where a repair stands.
type RepairState string

// RepairDone: things of one kind were mended, all by the same commit. Terminal.
const RepairDone RepairState = "done"

// RepairMoves are the legal moves of a repair.
var RepairMoves = Table[RepairState]{
	"":         {RepairDone},
	RepairDone: {},
}

// Repairs is the document every repair writes: of two at once one is first.
type Repairs struct {
	Mended  map[string]int64 `json:"mended"` // by the last one: what kinds of things, and how many
	At      int64            `json:"at"`     // milliseconds
	Receipt ReceiptID        `json:"receipt"`
}

const RepairsKey Key = "repairs"

// Mended notes, for the receipt, that so many things of a kind were mended.
func (t *Tx) Mended(r ReceiptID, kind string, n int64) {
	t.Move(ObjectRepair, fmt.Sprintf("%s/%s/%d", r, kind, n), "", string(RepairDone))
}

// Sort is what kind of index it is, whatever it is the index of.
func (i Index) Sort() string {
	a, b, _ := strings.Cut(string(i), "/")
	if b, _, _ = strings.Cut(b, "/"); a == "refused" {
		return a
	}
	return a + "." + b
}

// Sort is what kind of counter it is, whatever it is the counter of.
func (c Counter) Sort() string {
	part := strings.Split(c.Entity, "/")
	if part[0] == "run" && len(part) > 2 { // a field for each lane
		return "run." + part[2]
	}
	field, _, _ := strings.Cut(c.Field, ".")
	return part[0] + "." + field
}
