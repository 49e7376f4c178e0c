package pack

import (
	"bytes"
	"errors"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// lives is keys/manifest.json: which receipt key signs from which index of the log on and until
// which, and the receipts that say so. It covers the whole log below the checkpoint, whatever the
// scope is. It follows from the receipts of keys, which every pack has, and is here for people:
// whoever checks a pack works it out again and takes no other.
type lives struct {
	Keys   []life `json:"keys"` // in the order they were introduced, the one the log began with first
	Origin string `json:"origin"`
	Size   int64  `json:"size"` // of the checkpoint
}

type life struct {
	Activated   writ.ReceiptID `json:"activated,omitempty"`
	From        *int64         `json:"from,omitempty"`
	Introduced  writ.ReceiptID `json:"introduced,omitempty"`
	KeyID       string         `json:"keyId"`
	Retired     writ.ReceiptID `json:"retired,omitempty"`
	Revoked     writ.ReceiptID `json:"revoked,omitempty"`
	RevokedFrom *int64         `json:"revokedFrom,omitempty"`
	SPKI        string         `json:"spki"`
	State       writ.KeyState  `json:"state"`
	Until       *int64         `json:"until,omitempty"`
}

// livesOf renders what a ring that learned of a log up to its checkpoint knows.
func livesOf(r *receipts.Ring, origin string, size int64) []byte {
	at := func(i int64) *int64 {
		if i < 0 {
			return nil
		}
		return &i
	}
	out := lives{Origin: origin, Size: size}
	for _, k := range r.Lives() {
		out.Keys = append(out.Keys, life{
			Activated: k.Activated, From: at(k.From), Introduced: k.Introduced, KeyID: k.KeyID, Retired: k.Retired, Revoked: k.Revoked,
			RevokedFrom: at(k.RevokedFrom), SPKI: k.SPKI, State: k.State, Until: at(k.Until),
		})
	}
	return line(out)
}

// manifestOfKeys holds keys/manifest.json to the receipts in the pack, and to nothing from outside: a
// file of keys may know of what came later.
func (c *check) manifestOfKeys() error {
	text, err := c.file(FileKeys)
	if err != nil || len(c.report.Findings) > 0 { // it would repeat what was found
		return err
	}
	first, ok := c.keys[c.first]
	if !ok {
		return nil
	}
	ring, err := receipts.NewRing(first.v)
	if err != nil {
		return err
	}
	for _, seq := range c.seqs {
		if !c.ofKeys[seq] {
			continue
		}
		_, rec, err := c.payload(seq)
		if err == nil {
			err = ring.Learn(rec, writ.Receipt{Seq: seq})
		}
		if errors.Is(err, receipts.ErrKeyEvent) {
			break
		}
		if err != nil {
			return err
		}
	}
	if !bytes.Equal(livesOf(ring, c.m.Origin, c.m.Size), text) {
		c.find(KeysDiffer, -1)
	}
	return nil
}
