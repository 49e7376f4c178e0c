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
	"strings"

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

	Note string // what else is to be known of its keys
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
	ring, err := NewRing(v)
	if err != nil {
		return Report{}, err
	}
	return VerifyKeys(r, ring)
}

// VerifyKeys is Verify for a log that was signed with more than one key: each receipt
// by the key that may sign at its index. What the ring does not know yet of keys it
// learns from the export, of which it takes a copy; what it knows the export must say too.
func VerifyKeys(r io.Reader, ring *Ring) (Report, error) {
	ring, err := ring.clone()
	if err != nil {
		return Report{}, err
	}
	e := exportReader{ring: ring, known: map[int64]writ.Receipt{}, signed: map[string]*spanOf{}, in: bufio.NewReaderSize(r, 64<<10), rules: newHistory()}
	for _, k := range ring.events {
		e.known[k.Seq], e.upto = k, k.Seq+1
	}
	e.report = Report{KeyID: ring.First().KeyID, LastSeq: -1}
	err = e.run()
	e.report.Note = e.note()
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
	ring   *Ring
	known  map[int64]writ.Receipt // receipts of keys the ring began with
	upto   int64                  // index before which it knew all of them
	signed map[string]*spanOf     // by key id, what it has signed here
	in     *bufio.Reader
	line   int
	rules  *history
	report Report

	more  bool // another line must follow
	heads int
	ended *Life // the key of the last head

	unplaced bool // all there was is a foreign entry, which states no sequence

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
		read := e.envelope
		if isForeignLine(text) {
			read = e.foreign
		}
		if err := read(text); err != nil {
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
	if err != nil || !bytes.Equal(again, text) || h.Format != ExportFormat || !ValidOrigin(h.Log) {
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
	k := e.ring.Get(o.keyID)
	switch {
	case k == nil && keyIDPattern.MatchString(o.keyID):
		return found(Tampered, "signed by another key: the export names %s, the key to verify with is %s; is that the right one?", o.keyID, e.ring.First().KeyID)
	case k == nil:
		return found(Tampered, "%v", errOtherKey)
	case k.v == nil:
		return found(Incomplete, "signed by %s, which receipt %s introduced, and its public half is not at hand: give the file of keys", k.KeyID, k.Introduced)
	}
	if err := k.v.signed(o); err != nil {
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
		return e.head(k, o.payload)
	}
	rec, err := Decode(o.payload)
	if err != nil {
		return found(Malformed, "the payload is not a statement in the form this version writes")
	}
	st, c := rec.Statement, rec.Commit
	if p := e.receipt(k, rec, o); p != nil {
		p.seq, p.receipt = c.Seq, st.Receipt
		return p
	}
	e.place(c.Seq - 1)
	e.added(c.Seq, st.Receipt, o.payload)
	return nil
}

// foreign proves an entry that the gateway did not sign, by the key that is with it:
// whose key that is, the receipt says that must come next.
func (e *exportReader) foreign(text []byte) error {
	r, err := openForeignLine(text)
	if err != nil {
		return found(Malformed, "%v", err)
	}
	f, err := OpenForeign(r)
	switch {
	case errors.Is(err, errForeign):
		return found(Malformed, "%v", err)
	case err != nil:
		return found(Tampered, "%v", err)
	}
	if p := e.rules.foreign(f); p != nil {
		return p
	}
	if e.started() {
		e.report.LastSeq++
	} else {
		e.unplaced = true
	}
	e.added(e.report.LastSeq, f.ID, f.payload)
	return nil
}

// added counts what was proved.
func (e *exportReader) added(seq int64, id writ.ReceiptID, payload []byte) {
	if e.report.Receipts == 0 {
		e.report.FirstSeq = seq
	}
	if e.count == 0 {
		e.first = seq
	}
	e.count++
	e.report.Receipts++
	e.report.LastSeq, e.last = seq, id
	e.chain.add(payload)
}

// place says which sequence a foreign entry has that came before anything that states one.
func (e *exportReader) place(seq int64) {
	if e.unplaced {
		e.unplaced, e.first, e.report.FirstSeq, e.report.LastSeq = false, seq, seq, seq
	}
}

// receipt holds a receipt to its export and to the receipts before it.
func (e *exportReader) receipt(k *Life, rec Record, o opened) *problem {
	seq := rec.Commit.Seq
	switch {
	case rec.Statement.KeyID != k.KeyID:
		return found(Tampered, "the statement names another key than the one that signed it")
	case rec.Statement.Log != e.report.Log:
		return found(Tampered, "the receipt is of another log")
	}
	if e.started() && !e.unplaced && !e.rules.begun && seq != e.report.LastSeq+1 {
		return found(Incomplete, "sequence %d follows %d: a receipt is missing", seq, e.report.LastSeq)
	}
	if p := e.rules.add(rec); p != nil {
		return p
	}
	if err := e.ring.May(k.KeyID, seq); err != nil {
		return found(Tampered, "%v", err)
	}
	span := e.signed[k.KeyID]
	if span == nil {
		span = &spanOf{}
		e.signed[k.KeyID] = span
	}
	span.n, span.last = span.n+1, seq
	return e.ofKeys(rec, o)
}

// spanOf counts what one key has signed.
type spanOf struct{ n, last int64 }

// ofKeys takes in what a receipt says of a key. It must be what was known before; and what
// is new can mean that an earlier receipt is not to be believed.
func (e *exportReader) ofKeys(rec Record, o opened) *problem {
	want, is := e.known[rec.Commit.Seq]
	switch {
	case is && !bytes.Equal(want.Payload, o.payload), !is && IsKeyEvent(rec) && rec.Commit.Seq < e.upto:
		return found(Tampered, "the file of keys and the export hold different receipts of keys")
	case is, !IsKeyEvent(rec):
		return nil
	}
	if err := e.ring.Learn(rec, writ.Receipt{ID: rec.Statement.Receipt, Seq: rec.Commit.Seq, Payload: o.payload, KeyID: o.keyID, Sig: o.sig}); err != nil {
		return found(Tampered, "%v", err)
	}
	for id, span := range e.signed {
		if err := e.ring.May(id, span.last); err != nil {
			return found(Tampered, "it shows that an earlier receipt is not to be believed: %v", err)
		}
	}
	return nil
}

// note says of revoked keys what stays valid, and of a head what it does not show.
func (e *exportReader) note() string {
	var notes []string
	for _, k := range e.ring.keys {
		if span := e.signed[k.KeyID]; k.State == writ.KeyRevoked && span != nil {
			notes = append(notes, fmt.Sprintf("the key %s is revoked from %d on; the %d receipts here that it signed before stay valid", k.KeyID, k.RevokedFrom, span.n))
		}
	}
	if k := e.ended; k != nil && k.State == writ.KeyRetired {
		notes = append(notes, fmt.Sprintf("the head at the end is signed by %s, which is retired: that nothing was cut off behind %d only the log shows", k.KeyID, e.report.LastSeq))
	}
	return strings.Join(notes, "; ")
}

// started says whether the export has said yet where in the log it is.
func (e *exportReader) started() bool { return e.report.Receipts > 0 || e.heads > 0 }

func (e *exportReader) head(k *Life, payload []byte) error {
	p, sum, err := decodeHead(payload)
	if err != nil {
		return found(Malformed, "the head is not in the form this version writes")
	}
	e.place(p.LastSeq)
	switch {
	case p.KeyID != k.KeyID:
		return found(Tampered, "the head names another key than the one that signed it")
	case p.Log.Origin != e.report.Log:
		return found(Tampered, "the head is of another log")
	case p.Count > e.count:
		return found(Incomplete, "the head counts %d receipts, there are %d before it", p.Count, e.count)
	case p.Count < e.count:
		return found(Tampered, "the head counts %d receipts, there are %d before it", p.Count, e.count)
	case e.rules.before != nil && !p.More:
		return found(Incomplete, "the receipt that rests on the signed verdict at the end is missing")
	case e.count == 0 && p.More:
		return found(Tampered, "a head without receipts says that more follow")
	case e.count > 0 && p.FirstSeq != e.first, e.started() && p.LastSeq != e.report.LastSeq, p.FirstSeq != p.LastSeq-p.Count+1,
		p.LastReceipt != string(e.last), sum != hex.EncodeToString(e.chain[:]):
		return found(Tampered, "the head is of other receipts")
	}
	// A head is made when somebody asks: by the key that signed then, which was not retired
	// before the last receipt here.
	if err := e.ring.May(k.KeyID, max(p.LastSeq, k.From)); err != nil {
		return found(Tampered, "the head: %v", err)
	}
	// It has no index of its own, so of one that ends the export nobody can say that it is from before the key was revoked:
	// whoever has that signs one today, of as few receipts as they like. One that says more follow ends nothing. What it
	// covers is as good as ever: whether something is missing behind is what is not known.
	if k.State == writ.KeyRevoked && !p.More {
		return found(Incomplete, "the head: %v: whoever has that can end an export anywhere, so what followed may have been cut off; export again", ErrKeyRevoked)
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
	e.report.HeadAt, e.heads, e.ended = at, e.heads+1, k
	e.more, e.chain, e.first, e.count, e.last = p.More, chain{}, 0, 0, ""
	return nil
}
