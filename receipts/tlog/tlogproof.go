package tlog

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"golang.org/x/mod/sumdb/tlog"
)

// ProofHeader is the first line of a tlog-proof. A tlog-proof (C2SP tlog-proof) is a text that shows that the log has an entry: its index, the hashes that
// lead from it to the root, and the checkpoint of that, verbatim. What the entry is of is for whoever checks to
// know; here the receipt's envelope comes along as the extra data, which nothing but its own signature speaks for.
const ProofHeader = "c2sp.org/tlog-proof@v1"

// MaxProof bounds such a text: an envelope, some 50 hashes, and a checkpoint with its cosignatures.
const MaxProof = 1 << 20

// Proof is a receipt as a tlog-proof; it must be included.
func Proof(r writ.Receipt) ([]byte, error) {
	const op = "tlog.Proof"
	if r.Inclusion == nil {
		return nil, writ.Fault(writ.CodeInternal, op, errors.New("a proof of a receipt that is not in the log"))
	}
	env, err := receipts.Envelope(r)
	if err != nil {
		return nil, writ.AsError(op, err)
	}
	return renderProof(env, r.Inclusion.Index, r.Inclusion.Hashes, r.Inclusion.Checkpoint), nil
}

func renderProof(extra []byte, index int64, hashes [][]byte, checkpoint []byte) []byte {
	out := append([]byte(ProofHeader), "\nextra "...)
	out = append(b64.AppendEncode(out, extra), "\nindex "...)
	out = append(strconv.AppendInt(out, index, 10), '\n')
	for _, h := range hashes {
		out = append(b64.AppendEncode(out, h), '\n')
	}
	return append(append(out, '\n'), checkpoint...)
}

// ErrProofForm: the text is no tlog-proof of a receipt in the one form Proof gives.
var ErrProofForm = errors.New("not the tlog-proof of a receipt in the form 'writ receipt bundle --format tlog-proof' gives")

// parsedProof is a tlog-proof taken apart, nothing in it proved yet.
type parsedProof struct {
	envelope   []byte
	index      int64
	hashes     [][]byte
	checkpoint []byte
}

// parseProof takes one apart. Written again it is the same text, so nothing in it is understood in two ways.
func parseProof(text []byte) (p parsedProof, err error) {
	if len(text) > MaxProof {
		return p, ErrProofForm
	}
	head, checkpoint, ok := bytes.Cut(text, []byte("\n\n"))
	lines := bytes.Split(head, []byte("\n"))
	if !ok || len(lines) < 3 || len(lines) > 3+64 {
		return p, ErrProofForm
	}
	p.checkpoint = checkpoint
	extra, hasExtra := bytes.CutPrefix(lines[1], []byte("extra "))
	index, hasIndex := bytes.CutPrefix(lines[2], []byte("index "))
	if !hasExtra || !hasIndex {
		return p, ErrProofForm
	}
	if p.envelope, err = b64.Strict().DecodeString(string(extra)); err != nil {
		return p, ErrProofForm
	}
	if p.index, err = strconv.ParseInt(string(index), 10, 64); err != nil || p.index < 0 {
		return p, ErrProofForm
	}
	for _, l := range lines[3:] {
		h, err := b64.Strict().DecodeString(string(l))
		if err != nil || len(h) != tlog.HashSize {
			return p, ErrProofForm
		}
		p.hashes = append(p.hashes, h)
	}
	if !bytes.Equal(renderProof(p.envelope, p.index, p.hashes, p.checkpoint), text) {
		return p, ErrProofForm
	}
	return p, nil
}

// CheckProof proves a receipt by its tlog-proof, offline: a key of the ring signed it that signs at its index, and
// the log's key signed a checkpoint that covers its entry at that index. ErrProofForm is for a text that is none, and
// any other error for one that proves nothing.
func CheckProof(text []byte, logKey string, ring *receipts.Ring) (rec receipts.Record, cp Checkpoint, err error) {
	p, err := parseProof(text)
	if err != nil {
		return rec, cp, err
	}
	signed, _, err := receipts.OpenEnvelope(p.envelope)
	if err != nil {
		return rec, cp, fmt.Errorf("%w: its extra data: %w", ErrProofForm, err)
	}
	if err := ring.May(signed.KeyID, signed.Seq); err != nil {
		return rec, cp, err
	}
	life := ring.Get(signed.KeyID)
	if life.Public == nil {
		return rec, cp, fmt.Errorf("%w: the public half of %s is not at hand", receipts.ErrKeyUnknown, life.KeyID)
	}
	v, err := receipts.NewVerifier([]byte(life.PEM))
	if err != nil {
		return rec, cp, err
	}
	if rec, err = v.Receipt(signed); err != nil {
		return rec, cp, err
	}
	if cp, err = ParseCheckpoint(p.checkpoint, logKey); err != nil {
		return rec, cp, err
	}
	if name, _, _ := strings.Cut(logKey, "+"); !receipts.OfLog(name, rec.Statement.Log) {
		return rec, cp, errors.New("the receipt is of another log than the key is")
	}
	if p.index != signed.Seq {
		return rec, cp, fmt.Errorf("it is proved at index %d, and the receipt says %d", p.index, signed.Seq)
	}
	der, err := PublicDER(life.Public)
	if err != nil {
		return rec, cp, err
	}
	in := Inclusion{Index: p.index, Leaf: Leaf(signed, der), Checkpoint: cp}
	for _, h := range p.hashes {
		in.Hashes = append(in.Hashes, tlog.Hash(h))
	}
	if p.index >= cp.Size || in.Check() != nil {
		return rec, cp, errors.New("the proof does not lead from the receipt to the root of the checkpoint")
	}
	return rec, cp, nil
}
