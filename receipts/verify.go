package receipts

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/writ-gateway/writ"
)

// Verdict is what an export turned out to be. Its numbers are exit codes.
type Verdict int

const (
	Good       Verdict = 0 // everything holds
	Tampered   Verdict = 1 // something was changed, added, moved, or breaks a rule
	Malformed  Verdict = 2 // not in the form of an export
	Incomplete Verdict = 3 // something is missing: a gap, the end, the head
)

func (v Verdict) String() string {
	switch v {
	case Good:
		return "ok"
	case Tampered:
		return "tampered"
	case Malformed:
		return "malformed"
	}
	return "incomplete"
}

// Report says what Verify found.
type Report struct {
	Verdict  Verdict
	Log      string // origin the export is of
	KeyID    string // of the key that was trusted
	Receipts int64  // good receipts, up to the problem if there is one
	FirstSeq int64
	LastSeq  int64 // -1 without receipts
	HeadAt   int64 // when the export was made, milliseconds; 0 without a good head

	// The first problem, when Verdict is not Good.
	Line    int            // from 1
	Seq     int64          // of the bad receipt; -1 when unknown
	Receipt writ.ReceiptID // of the bad receipt; empty when unknown
	Reason  string         // safe to show: holds nothing of the export but ids, of keys or that were proved
}

// ExitCode for a command that verified: 0 ok, 1 tampered, 2 malformed, 3
// incomplete.
func (r Report) ExitCode() int { return int(r.Verdict) }

// keyIDPattern is the form of the key ids this program gives: nothing else of
// an export that is not proved is shown.
var keyIDPattern = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)

// MaxLine bounds one line of an export: a receipt is much smaller.
const MaxLine = 1 << 20

// Verify proves an export offline and trusts nothing but the public key
// (receipt.pub, PEM). It stops at the first problem. The error is for a key
// that cannot be used or a reader that fails; what is wrong with the export
// stands in the Report.
//
// It proves: every line is in the one form this version writes; every receipt
// is signed by the key; sequences have no gap and neither have those of each
// run; time and epoch never go back; every change is a legal move from where
// the receipts before left the object; denials change nothing; parents come
// before their children; the signed head counts and chains exactly these
// receipts. An export that does not start with sequence 0 is proved from there
// on: what came before is taken as it is said to be.
func Verify(r io.Reader, pub []byte) (Report, error) {
	v, err := NewVerifier(pub)
	if err != nil {
		return Report{}, err
	}
	e := exportReader{v: v, in: bufio.NewReaderSize(r, 64<<10), rules: newHistory()}
	e.report = Report{KeyID: v.keyID, LastSeq: -1}
	err = e.run()
	var p *problem
	if errors.As(err, &p) {
		e.report.Verdict, e.report.Line, e.report.Seq, e.report.Receipt, e.report.Reason = p.verdict, e.line, p.seq, p.receipt, p.reason
		return e.report, nil
	}
	if err != nil {
		return Report{}, writ.Fault(writ.CodeInternal, "receipts.Verify", err)
	}
	return e.report, nil
}

// problem is the first thing wrong with an export.
type problem struct {
	verdict Verdict
	seq     int64
	receipt writ.ReceiptID
	reason  string
}

func (p *problem) Error() string { return p.reason }

func found(v Verdict, format string, args ...any) *problem {
	return &problem{verdict: v, seq: -1, reason: fmt.Sprintf(format, args...)}
}

type exportReader struct {
	v      *Verifier
	in     *bufio.Reader
	line   int
	rules  *history
	report Report

	more  bool // another line must follow
	heads int

	// The piece being read, since the head before it.
	chain chain
	first int64
	count int64
	last  writ.ReceiptID
}

// next is one line without its newline; io.EOF after the last.
func (e *exportReader) next() ([]byte, error) {
	e.line++
	var text []byte
	for {
		part, err := e.in.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case len(text) > MaxLine:
			return nil, found(Malformed, "the line is longer than any receipt")
		case err == nil:
			return text[:len(text)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(text) == 0:
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			return nil, found(Incomplete, "the line is cut off")
		default:
			return nil, err
		}
	}
}

func (e *exportReader) run() error {
	if err := e.header(); err != nil {
		return err
	}
	for e.more = true; e.more; {
		text, err := e.next()
		if errors.Is(err, io.EOF) {
			return found(Incomplete, "the signed head at the end is missing")
		}
		if err != nil {
			return err
		}
		if err := e.envelope(text); err != nil {
			return err
		}
	}
	if _, err := e.next(); !errors.Is(err, io.EOF) {
		return found(Tampered, "something follows the head")
	}
	return nil
}

func (e *exportReader) header() error {
	text, err := e.next()
	if errors.Is(err, io.EOF) {
		return found(Incomplete, "the export is empty")
	}
	if err != nil {
		return err
	}
	if _, err := openEnvelope(text); err == nil {
		return found(Incomplete, "the first line, which names the log, is missing")
	}
	var h exportHeader
	if err := strict(text, &h); err != nil {
		return found(Malformed, "the first line is not the header of an export")
	}
	again, err := json.Marshal(h)
	if err != nil || !bytes.Equal(again, text) || h.Format != ExportFormat || !validOrigin(h.Log) {
		return found(Malformed, "the first line is not the header of an export this version knows")
	}
	e.report.Log = h.Log
	return nil
}

// envelope proves one receipt or the head.
func (e *exportReader) envelope(text []byte) error {
	o, err := openEnvelope(text)
	if err != nil {
		return found(Malformed, "%v", err)
	}
	switch err := e.v.signed(o); {
	case errors.Is(err, errOtherKey) && keyIDPattern.MatchString(o.keyID):
		return found(Tampered, "signed by another key: the export names %s, the key to verify with is %s; is that the right one?", o.keyID, e.v.keyID)
	case err != nil:
		return found(Tampered, "%v", err)
	}
	// Signed from here on: what is wrong now, the holder of the key did.
	var kind struct {
		PredicateType string `json:"predicateType"`
	}
	if err := json.Unmarshal(o.payload, &kind); err != nil {
		return found(Malformed, "the payload is not a statement")
	}
	if kind.PredicateType == ExportHeadType {
		return e.head(o.payload)
	}
	rec, err := Decode(o.payload)
	if err != nil {
		return found(Malformed, "the payload is not a statement in the form this version writes")
	}
	st, c := rec.Statement, rec.Commit
	if p := e.receipt(rec); p != nil {
		p.seq, p.receipt = c.Seq, st.Receipt
		return p
	}
	if e.report.Receipts == 0 {
		e.report.FirstSeq = c.Seq
	}
	if e.count == 0 {
		e.first = c.Seq
	}
	e.count++
	e.report.Receipts++
	e.report.LastSeq, e.last = c.Seq, st.Receipt
	e.chain.add(o.payload)
	return nil
}

// receipt holds a receipt to its export and to the receipts before it.
func (e *exportReader) receipt(rec Record) *problem {
	switch {
	case rec.Statement.KeyID != e.v.keyID:
		return found(Tampered, "the statement names another key than the one that signed it")
	case rec.Statement.Log != e.report.Log:
		return found(Tampered, "the receipt is of another log")
	}
	return e.rules.add(rec)
}

// started says whether the export has said yet where in the log it is.
func (e *exportReader) started() bool { return e.report.Receipts > 0 || e.heads > 0 }

func (e *exportReader) head(payload []byte) error {
	p, sum, err := decodeHead(payload)
	if err != nil {
		return found(Malformed, "the head is not in the form this version writes")
	}
	switch {
	case p.KeyID != e.v.keyID:
		return found(Tampered, "the head names another key than the one that signed it")
	case p.Log.Origin != e.report.Log:
		return found(Tampered, "the head is of another log")
	case p.Count > e.count:
		return found(Incomplete, "the head counts %d receipts, there are %d before it", p.Count, e.count)
	case p.Count < e.count:
		return found(Tampered, "the head counts %d receipts, there are %d before it", p.Count, e.count)
	case e.count == 0 && p.More:
		return found(Tampered, "a head without receipts says that more follow")
	case e.count > 0 && p.FirstSeq != e.first, e.started() && p.LastSeq != e.report.LastSeq, p.FirstSeq != p.LastSeq-p.Count+1,
		p.LastReceipt != string(e.last), sum != hex.EncodeToString(e.chain[:]):
		return found(Tampered, "the head is of other receipts")
	}
	at, err := parseTime(p.At)
	if err != nil {
		return found(Malformed, "the head is not in the form this version writes")
	}
	if at < e.report.HeadAt {
		return found(Tampered, "the head is older than the one before it")
	}
	if !e.started() {
		e.report.FirstSeq, e.report.LastSeq = p.FirstSeq, p.LastSeq
	}
	e.report.HeadAt, e.heads = at, e.heads+1
	e.more, e.chain, e.first, e.count, e.last = p.More, chain{}, 0, 0, ""
	return nil
}
