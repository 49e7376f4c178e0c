package tlog

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/checkpoint"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"
)

// Trust is what a log is checked with.
type Trust struct {
	Log  string         // note verifier key
	Keys *receipts.Ring // which key may have signed which receipt; nil: signatures are not checked

	Foreign   func(seq int64)    // if any, is told of each entry that no receipt key signed, in no order
	Verifiers []crypto.PublicKey // whose such an entry may be; none: anybody's

	Witnesses []*checkpoint.Witness // who must have cosigned the checkpoint
	Need      int                   // so many of them; 0: each
}

// leafBody is a leaf as JSON has it.
type leafBody struct {
	Spec struct {
		Rekord struct {
			Data struct {
				Digest []byte `json:"digest"`
			} `json:"data"`
			Signature struct {
				Content  []byte `json:"content"`
				Verifier struct {
					PublicKey struct {
						Raw []byte `json:"rawBytes"`
					} `json:"publicKey"`
				} `json:"verifier"`
			} `json:"signature"`
		} `json:"hashedRekordV002"`
	} `json:"spec"`
}

// parseLeaf reads a leaf, strictly: rendered again it must give the same bytes.
func parseLeaf(leaf []byte) (digest, sig, public []byte, err error) {
	var b leafBody
	if err := json.Unmarshal(leaf, &b); err != nil {
		return nil, nil, nil, errLeaf
	}
	digest = b.Spec.Rekord.Data.Digest
	sig, public = b.Spec.Rekord.Signature.Content, b.Spec.Rekord.Signature.Verifier.PublicKey.Raw
	size := sha256.Size
	if isEd25519(public) {
		size = sha512.Size
	}
	if len(digest) != size || !bytes.Equal(render(digest, sig, public), leaf) {
		return nil, nil, nil, errLeaf
	}
	return digest, sig, public, nil
}

// LeafPublic is the public key in a leaf, as DER. It is no proof of anything by itself.
func LeafPublic(leaf []byte) ([]byte, error) {
	_, _, der, err := parseLeaf(leaf)
	return der, err
}

// LeafKey is the receipt key in a leaf, as LeafPublic has it.
func LeafKey(leaf []byte) (*ecdsa.PublicKey, error) {
	der, err := LeafPublic(leaf)
	if err != nil {
		return nil, err
	}
	any, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errLeaf
	}
	key, ok := any.(*ecdsa.PublicKey)
	if !ok {
		return nil, errLeaf
	}
	return key, nil
}

var errLeaf = errors.New("not a leaf in the form this version writes")

// Verify reads a whole log again: that its entries give its tiles, those the root its
// checkpoint states, that the log's key signed that, and that each entry was signed by a
// receipt key, or by another's and a receipt follows it. progress, if any, is told how many
// entries were read. It needs memory for a few tiles, however long the log is.
func Verify(ctx context.Context, dir string, trust Trust, progress func(done, of int64)) (Checkpoint, error) {
	text, err := os.ReadFile(filepath.Join(dir, CheckpointPath))
	if err != nil {
		return Checkpoint{}, err
	}
	cp, err := ParseCheckpoint(text, trust.Log)
	if err != nil {
		return cp, err
	}
	if _, err := Cosignatures(text, trust.Witnesses, trust.Need); err != nil {
		return cp, err
	}
	keys, err := newSigners(trust)
	if err != nil {
		return cp, err
	}
	g, run := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	l := &Log{files: Dir(dir)}
	var before []byte
	for n := int64(0); n*width < cp.Size && run.Err() == nil; n++ {
		data, err := l.file(entriesLevel, n, int(min(width, cp.Size-n*width)))
		if err != nil {
			return cp, errors.Join(err, g.Wait())
		}
		leaves := split(data)
		for _, leaf := range leaves {
			if err := l.grow(tlog.RecordHash(leaf), l.same); err != nil {
				return cp, errors.Join(err, g.Wait())
			}
		}
		if keys != nil {
			prev, end := before, (n+1)*width >= cp.Size
			g.Go(func() error { return keys.signed(leaves, n*width, prev, end) })
			before = leaves[len(leaves)-1]
		}
		if progress != nil {
			progress(l.size, cp.Size)
		}
	}
	if err := cmp.Or(g.Wait(), ctx.Err()); err != nil {
		return cp, err
	}
	for level, hashes := range l.edge {
		if err := l.same(level, cp.Size>>(height*(level+1)), hashes); err != nil {
			return cp, err
		}
	}
	root, err := l.root(cp.Size)
	if err == nil && root != cp.Root {
		err = fmt.Errorf("%w: its entries give another root than its checkpoint states", ErrDamaged)
	}
	return cp, err
}

// RootAt is the root of the first n entries of a log that was verified under a checkpoint.
// Two logs in which it is the same begin with the same n entries.
func RootAt(dir string, cp Checkpoint, n int64) (tlog.Hash, error) {
	if n < 1 || n > cp.Size {
		return tlog.Hash{}, fmt.Errorf("a log of %d has no first %d", cp.Size, n)
	}
	l := &Log{files: Dir(dir)}
	if err := l.loadEdge(cp.Size); err != nil {
		return tlog.Hash{}, err
	}
	return l.root(n)
}

// split takes an entry bundle apart, which firstEntries has measured.
func split(data []byte) (out [][]byte) {
	for len(data) > 0 {
		n := 2 + int(binary.BigEndian.Uint16(data))
		out, data = append(out, data[2:n]), data[n:]
	}
	return out
}

// signers is a ring as leaves are held to it.
type signers struct {
	ring   *receipts.Ring
	keys   map[string]receipts.Life // by DER
	events map[int64][sha256.Size]byte

	foreign   func(seq int64)
	verifiers map[string]bool // by DER; empty: any
}

func newSigners(trust Trust) (*signers, error) {
	ring := trust.Keys
	if ring == nil {
		return nil, nil
	}
	s := &signers{ring: ring, keys: map[string]receipts.Life{}, events: map[int64][sha256.Size]byte{}, foreign: trust.Foreign, verifiers: map[string]bool{}}
	for _, k := range trust.Verifiers {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return nil, err
		}
		s.verifiers[string(der)] = true
	}
	for _, k := range ring.Lives() {
		if k.Public == nil {
			continue
		}
		der, err := PublicDER(k.Public)
		if err != nil {
			return nil, err
		}
		s.keys[string(der)] = k
	}
	for _, e := range ring.Events() {
		s.events[e.Seq] = receipts.SignedDigest(e)
	}
	return s, nil
}

// signed says whether each leaf was signed by a key that might sign it, and whether those
// that say something of keys are the ones the ring follows from. What another key signed is
// a foreign entry, which a receipt must follow: before is the leaf before these, nil for none,
// and after these comes nothing at the end.
func (s *signers) signed(leaves [][]byte, first int64, before []byte, end bool) error {
	alone := false
	if before != nil {
		_, _, public, err := parseLeaf(before)
		_, ours := s.keys[string(public)]
		alone = err == nil && !ours
	}
	for i, leaf := range leaves {
		seq := first + int64(i)
		digest, sig, public, err := parseLeaf(leaf)
		if err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrDamaged, seq, err)
		}
		key, ok := s.keys[string(public)]
		event, is := s.events[seq]
		if !ok && !is && !alone && seq > 0 && (!end || i+1 < len(leaves)) {
			if len(s.verifiers) > 0 && !s.verifiers[string(public)] {
				return fmt.Errorf("%w: entry %d: signed by no receipt key, and by no verifier's that is trusted", ErrDamaged, seq)
			}
			if err := foreign(digest, sig, public); err != nil {
				return fmt.Errorf("%w: entry %d: %w", ErrDamaged, seq, err)
			}
			if s.foreign != nil {
				s.foreign(seq)
			}
			alone = true
			continue
		}
		alone = false
		switch {
		case !ok && seq == 0: // the key the log began with is known to whoever checks
			return fmt.Errorf("%w: entry 0 is signed by another key than is given", ErrDamaged)
		case !ok:
			return fmt.Errorf("%w: entry %d: %w", ErrDamaged, seq, receipts.ErrKeyUnknown)
		case !ecdsa.VerifyASN1(key.Public, digest, sig):
			return fmt.Errorf("%w: entry %d was not signed by the receipt key it names", ErrDamaged, seq)
		case is && !bytes.Equal(event[:], digest):
			return fmt.Errorf("%w: entry %d is not the receipt the file of keys has there", ErrDamaged, seq)
		}
		if err := s.ring.May(key.KeyID, seq); err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrDamaged, seq, err)
		}
	}
	return nil
}

// foreign holds an entry that no receipt key signed to the key in it, as far as an entry
// shows that: an Ed25519 signature is not over a digest. Whose key it is, the receipt after
// it says.
func foreign(digest, sig, public []byte) error {
	key, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return errLeaf
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(key, digest, sig) {
			return errors.New("was not signed by the key it names")
		}
	case ed25519.PublicKey:
	default:
		return errLeaf
	}
	return nil
}

// same says whether a tile is on the disk as it must be.
func (l *Log) same(level int, n int64, hashes []tlog.Hash) error {
	if len(hashes) == 0 {
		return nil
	}
	data, err := l.file(level, n, len(hashes))
	if err == nil && !bytes.Equal(data, join(hashes)) {
		err = fmt.Errorf("%w: %s does not follow from the entries", ErrDamaged, tilePath(level, n, len(hashes)))
	}
	return err
}

// ReadVerifier reads a note verifier key, alone in a text.
func ReadVerifier(text []byte) (string, error) {
	key := strings.TrimSpace(string(text))
	if parts := strings.SplitN(key, "+", 3); len(parts) != 3 || slices.Contains(parts, "") {
		return "", errors.New("not a note verifier key, like writ.local+1a2b3c4d+AbCd…")
	}
	return key, nil
}

// PublicDER is a receipt key as the leaves have it.
func PublicDER(key *ecdsa.PublicKey) ([]byte, error) { return x509.MarshalPKIXPublicKey(key) }
