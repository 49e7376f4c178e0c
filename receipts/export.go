package receipts

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/jcs"
)

// ExportFormat names the export: JSON Lines, each ended by a newline.
//
//	line 1      {"format":"writ-receipts/v1","log":"<origin>"}
//	one a line  a receipt as a DSSE envelope, sequences without a gap; or a verdict
//	            signed by its verifier, with the key, before the receipt that rests on it
//	last line   the export head as a DSSE envelope, signed with the same key
//
// The head is what makes a removed end visible. A long export is made of
// pieces: receipts and head, receipts and head, …; a head is over the receipts
// since the head before it and says whether another piece follows, so that a
// removed piece is as visible as a removed receipt.
const ExportFormat = "writ-receipts/v1"

type exportHeader struct {
	Format string `json:"format"`
	Log    string `json:"log"`
}

type (
	headStatement struct {
		Type          string        `json:"_type"`
		Predicate     headPredicate `json:"predicate"`
		PredicateType string        `json:"predicateType"`
		Subject       []subject     `json:"subject"`
	}
	// headPredicate of a piece without receipts says where the log ended: count
	// 0, lastSeq the last sequence before it, firstSeq the one after, and no
	// last receipt.
	headPredicate struct {
		At          string `json:"at"`
		Count       int64  `json:"count"`
		FirstSeq    int64  `json:"firstSeq"`
		KeyID       string `json:"keyId"`
		LastReceipt string `json:"lastReceipt,omitempty"`
		LastSeq     int64  `json:"lastSeq"`
		Log         origin `json:"log"`
		More        bool   `json:"more"` // another piece follows
	}
)

// chain is the running digest over an export: chain' = SHA-256(chain ‖
// SHA-256(payload)), from 32 zero bytes.
type chain [32]byte

func (c *chain) add(payload []byte) {
	d := sha256.Sum256(payload)
	*c = sha256.Sum256(append(c[:], d[:]...))
}

// exportHead renders the head's payload. Its subject is the chain.
func exportHead(p headPredicate, c chain) ([]byte, error) {
	if !word(p.KeyID) || !ValidOrigin(p.Log.Origin) || !word(p.LastReceipt) || p.LastSeq > jcs.MaxInt {
		return nil, errors.New("the export head holds a word no receipt may hold")
	}
	about := subject{Name: "export/" + p.Log.Origin}
	about.Digest.SHA256 = hex.EncodeToString(c[:])
	return json.Marshal(headStatement{Type: StatementType, Predicate: p, PredicateType: ExportHeadType, Subject: []subject{about}})
}

// decodeHead reads a head's payload as strictly as Decode reads a receipt's.
func decodeHead(payload []byte) (p headPredicate, sum string, err error) {
	if err := jcs.Check(payload); err != nil {
		return p, "", err
	}
	var s headStatement
	if err := strict(payload, &s); err != nil || len(s.Subject) != 1 || !hexDigest(s.Subject[0].Digest.SHA256) {
		return p, "", errForm
	}
	if _, err := parseTime(s.Predicate.At); err != nil {
		return p, "", err
	}
	var c chain
	if _, err := hex.Decode(c[:], []byte(s.Subject[0].Digest.SHA256)); err != nil {
		return p, "", errForm
	}
	if again, err := exportHead(s.Predicate, c); err != nil || !bytes.Equal(again, payload) {
		return p, "", errForm
	}
	return s.Predicate, s.Subject[0].Digest.SHA256, nil
}

// WriteExport writes the receipts after a sequence (-1: from the start), which
// must come in order and without a gap, as an export that Verify accepts. at is the time the head states, in
// milliseconds; more says that another piece will follow this one. After an
// error what was written is not an export.
func WriteExport(w io.Writer, list iter.Seq2[writ.Receipt, error], s *Sealer, after, at int64, more bool) error {
	const op = "receipts.WriteExport"
	fault := func(err error) error { return writ.Fault(writ.CodeInternal, op, err) }
	out := bufio.NewWriter(w)
	line := func(text []byte, err error) error {
		if err == nil {
			_, err = out.Write(append(text, '\n'))
		}
		return err
	}
	if err := line(json.Marshal(exportHeader{Format: ExportFormat, Log: s.origin})); err != nil {
		return fault(err)
	}
	key, keyID := s.held("")
	head := headPredicate{At: writ.FormatTime(at), KeyID: keyID, FirstSeq: after + 1, LastSeq: after, Log: origin{s.origin}, More: more}
	var c chain
	for r, err := range list {
		if err != nil {
			return fault(err)
		}
		if r.Seq != head.LastSeq+1 {
			return fault(fmt.Errorf("receipt %d follows receipt %d", r.Seq, head.LastSeq))
		}
		head.Count, head.LastSeq, head.LastReceipt = head.Count+1, r.Seq, string(r.ID)
		c.add(r.Payload)
		if err := line(Line(r)); err != nil {
			return fault(err)
		}
	}
	payload, err := exportHead(head, c)
	if err != nil {
		return fault(err)
	}
	sig, err := sign(key, dsse.PAE(PayloadType, payload))
	if err != nil {
		return fault(err)
	}
	if err := line(Envelope(writ.Receipt{Payload: payload, KeyID: keyID, Sig: sig})); err != nil {
		return fault(err)
	}
	if err := out.Flush(); err != nil {
		return fault(err)
	}
	return nil
}
