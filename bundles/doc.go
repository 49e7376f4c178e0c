// Package bundles plans the life of a policy bundle: staged into a running
// gateway, compiled by every replica beside the rules in force, put in force by
// one commit on the gate, retired by the next one, and brought back by a
// rollback.
//
// It is pure planning: it holds no store, no clock and no compiler. Its
// invariants:
//
//   - the bundle the gate names is the one active bundle, and its bytes lie in
//     the store, so a replica needs no disk to serve it;
//   - only a staged or retired bundle becomes active, and only while every
//     replica that is alive holds it compiled; with force, while one of them does:
//     rules nobody can compile are never put in force;
//   - the revisions the gate names are worked out from the bytes at that commit,
//     never taken from a caller;
//   - a bundle that does not compile is refused once, with the reason, and what
//     was in force stays;
//   - bindings by capability stay on top of whichever bundle becomes active, and
//     no bundle becomes active under which nobody could act as operator.
package bundles

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// Config is what the room needs from outside. Its functions are pure; package
// policies has them.
type Config struct {
	// Open takes an uploaded bundle apart; what it lacks of roles comes from the
	// canonical bundle in force, if there is one; with add, of packs too.
	Open func(sent, inForce []byte, add bool) (Contents, error)
	// Unpack gives the canonical bundle back that Contents.Packed holds, and
	// checks it against its digest.
	Unpack func(packed []byte, digest string) ([]byte, error)
	// Vet says who signed an uploaded bundle, and refuses one that nobody it
	// trusts has signed, or that holds packs its signer may not change. Such a
	// bundle always keeps the packs it does not hold. nil: bundles need no
	// signature.
	Vet func(sent []byte) (signer string, err error)
}

// Contents is what a bundle holds.
type Contents struct {
	ID       writ.BundleID
	Packed   []byte // compressed
	Bytes    int64  // uncompressed
	Packs    []writ.PackVer
	Policy   string // revisions; empty when a manifest cannot be read
	Bindings string // of the roles' file alone
	Signer   string
	// Bound is who the roles' file binds in a tenant.
	Bound func(writ.Tenant) writ.BindingSet
}

// Room plans bundles.
type Room struct{ cfg Config }

// New makes a Room.
func New(cfg Config) Room { return Room{cfg} }

// Capabilities are the verbs of this room.
func (r Room) Capabilities() []*writ.Capability {
	return []*writ.Capability{r.stage(), r.activate(), r.rollback(), r.withdraw(), r.list(), r.adopt(), r.report(), r.beat()}
}

// replicas is the read of who is alive.
var replicas = writ.Range{Index: writ.IndexReplicas, Limit: writ.MaxReplicas}

func ready(id writ.BundleID) writ.Range {
	return writ.Range{Index: writ.ReadyOn(id), Limit: writ.MaxReplicas}
}

// alive lists the replicas that have said so lately, sorted.
func alive(s writ.Snapshot) (out []string) {
	for _, m := range s.Ranges[replicas].Members {
		if m.Score >= s.Now {
			out = append(out, m.Name)
		}
	}
	slices.Sort(out)
	return out
}

// readiness sorts the replicas that are alive by whether they hold a bundle
// compiled.
func readiness(s writ.Snapshot, id writ.BundleID) (ok, missing []string) {
	ok, missing = []string{}, []string{}
	for _, name := range alive(s) {
		if slices.ContainsFunc(s.Ranges[ready(id)].Members, func(m writ.Member) bool { return m.Name == name }) {
			ok = append(ok, name)
		} else {
			missing = append(missing, name)
		}
	}
	return ok, missing
}

// move writes a bundle that was in state from, and keeps its lists.
func move(c *writ.Call, s writ.Snapshot, tx *writ.Tx, b *writ.Bundle, from writ.BundleState) error {
	if !writ.BundleMoves.May(from, b.State) {
		return writ.IllegalMove("bundles", writ.ObjectBundle, string(from), string(b.State))
	}
	b.UpdatedAt, b.Receipt = s.Now, writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
	tx.Move(writ.ObjectBundle, string(b.ID), string(from), string(b.State))
	switch {
	case b.State == writ.BundleStaged:
		tx.Index(writ.IndexStaged, string(b.ID), s.Now)
	case from == writ.BundleStaged:
		tx.Unindex(writ.IndexStaged, string(b.ID))
	}
	return tx.PutDoc(s, writ.BundleKey(b.ID), writ.ObjectBundle, *b)
}

// load finds a bundle by the digest a caller gave.
func load(op string, s writ.Snapshot, digest string) (writ.Bundle, error) {
	b, _, ok, err := writ.Get[writ.Bundle](s, writ.BundleKey(writ.BundleOf(digest)))
	if err == nil && !ok {
		err = writ.Refuse(writ.CodeNotFound, op, "no such bundle was ever staged", "policy.list shows the ones there are")
	}
	return b, err
}

// gateOf is the gate, which the door reads for every call.
func gateOf(s writ.Snapshot) (writ.Gate, error) {
	gate, _, ok, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err == nil && !ok {
		err = writ.Refuse(writ.CodeNotReady, "bundles", "the gateway is starting", "repeat the call")
	}
	return gate, err
}

// withBytes names the document of a bundle and its pieces.
func withBytes(id writ.BundleID) []writ.Key { return append(writ.ChunkKeys(id), writ.BundleKey(id)) }

// Packed is the bundle as its pieces hold it.
func Packed(s writ.Snapshot, id writ.BundleID) ([]byte, error) {
	var text strings.Builder
	for _, k := range writ.ChunkKeys(id) {
		piece, _, ok, err := writ.Get[writ.Chunk](s, k)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		text.WriteString(piece.Data)
	}
	b, err := base64.StdEncoding.DecodeString(text.String())
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, "bundles.Packed", err)
	}
	return b, nil
}

// bytesOf is the canonical bundle.
func (r Room) bytesOf(op string, s writ.Snapshot, id writ.BundleID) ([]byte, error) {
	packed, err := Packed(s, id)
	if err != nil {
		return nil, err
	}
	b, err := r.cfg.Unpack(packed, id.Digest())
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, op, err)
	}
	return b, nil
}

// keep writes the pieces of a bundle and says how many there are.
func keep(op string, s writ.Snapshot, tx *writ.Tx, id writ.BundleID, packed []byte) (int, error) {
	text := base64.StdEncoding.EncodeToString(packed)
	if len(text) > writ.MaxChunks*writ.ChunkBytes {
		return 0, tooLarge(op)
	}
	n := 0
	for ; len(text) > 0; n++ {
		piece := text[:min(len(text), writ.ChunkBytes)]
		text = text[len(piece):]
		if err := tx.PutDoc(s, writ.ChunkKey(id, n), "chunk", writ.Chunk{Data: piece}); err != nil {
			return 0, err
		}
	}
	for i := n; i < writ.MaxChunks; i++ {
		if s.Docs[writ.ChunkKey(id, i)].Version != 0 {
			tx.Delete(writ.ChunkKey(id, i))
		}
	}
	return n, nil
}

// wanted says whether replicas are to hold a bundle: it is in force, or may come to be.
func wanted(b writ.Bundle) bool {
	return b.Chunks > 0 && writ.BundleMoves.May(b.State, writ.BundleActive)
}

// drop forgets the pieces of a bundle that can no longer become active. Of one that was, receipts name the packs:
// it is kept for who asks what they say.
func drop(s writ.Snapshot, tx *writ.Tx, b *writ.Bundle) {
	if b.InForce {
		return
	}
	for _, k := range writ.ChunkKeys(b.ID) {
		if s.Docs[k].Version != 0 {
			tx.Delete(k)
		}
	}
	b.Chunks = 0
}

// forget takes the replicas off that said a bundle is ready.
func forget(s writ.Snapshot, tx *writ.Tx, id writ.BundleID) {
	for _, m := range s.Ranges[ready(id)].Members {
		tx.Unindex(writ.ReadyOn(id), m.Name)
	}
}

func tooLarge(op string) *writ.Error {
	return writ.Refuse(writ.CodeTooLarge, op, "compressed and in base64 the bundle is larger than 147456 bytes, or it has more than 300 packs",
		"stage fewer or smaller packs; 200 of a usual size come to 40000 bytes")
}
