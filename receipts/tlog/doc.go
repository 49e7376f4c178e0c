// Package tlog publishes receipts as a transparency log that stock tools check: a
// Merkle tree (RFC 6962) over one leaf per receipt, in tiles (C2SP tlog-tiles), with
// a signed checkpoint (C2SP tlog-checkpoint). It follows the ledger and decides
// nothing.
//
// Invariants: leaf i is of receipt i; what a checkpoint covers never changes; a
// checkpoint is published only when every tile it needs is on the disk. The tiles
// follow from the ledger, so what was written and not published is written again,
// with the same bytes.
package tlog

import (
	"errors"

	"github.com/writ-gateway/writ"
)

var (
	// ErrFork: the log and the ledger are of two histories. What was published
	// cannot be taken back, so nothing is added.
	ErrFork = errors.New("log and ledger hold different receipts")
	// ErrDamaged: the files of the log are not what was published.
	ErrDamaged = errors.New("the log is damaged")
)

func notReady(op, msg, hint string, err error) error {
	return &writ.Error{Code: writ.CodeNotReady, Op: op, Msg: msg, Hint: hint, Err: err}
}
