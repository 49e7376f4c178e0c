package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"

	xtlog "golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// each looks at every receipt by itself.
func (c *check) each() error {
	for _, name := range c.p.names {
		m := receiptPath.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		seq := number(cutZeros(m[1]))
		text, err := c.p.read(name)
		if err != nil {
			return err
		}
		c.seqs = append(c.seqs, seq)
		rec, code := c.one(seq, text)
		if rec != nil {
			c.seen[seq] = rec.Statement.Receipt
		}
		if f, ok := c.foreign[seq]; ok {
			c.seen[seq] = f.ID
		}
		if code != "" {
			c.find(code, seq)
			continue
		}
		c.report.Receipts++
		if rec == nil { // what is not the gateway's has no evidence
			rec = &receipts.Record{}
		}
		c.judged.note(seq, rec.Statement)
		if err := c.evidence(seq, *rec); err != nil {
			return err
		}
	}
	for _, l := range c.absent.missing() {
		c.find(EvidenceMissing, l.seq)
	}
	for _, name := range c.p.names {
		m := evidencePath.FindStringSubmatch(name)
		if m != nil && !c.p.has("receipts/"+m[1]+".sigstore.json") && !c.missed(seqOf(name)) {
			c.find(FileExtra, seqOf(name))
		}
	}
	return nil
}

// bounds are the first and the last receipt of a log or a range.
func (c *check) bounds() (first, last int64) {
	if s := c.m.Scope; s.Kind != ScopeLog {
		return s.First, s.Last
	}
	return 0, c.cp.Size - 1
}

// missed says of a sequence that the pack must have its receipt, so that scope says where it has not.
func (c *check) missed(seq int64) bool {
	first, last := c.bounds()
	return c.m.Scope.Kind != ScopeRun && first <= seq && seq <= last
}

// one proves a receipt. The record is there as soon as its signature holds.
func (c *check) one(seq int64, text []byte) (*receipts.Record, Code) {
	b, wrong := parse(text)
	if wrong != "" {
		return nil, wrong
	}
	key, known := c.keys[b.keyID]
	switch {
	case receipts.IsVerdict(b.payload):
		return c.theirs(seq, b)
	case !known:
		return nil, KeyOther
	case b.hint != b.keyID:
		return nil, HintDiffers
	case receipts.SignatureForm(b.signed) != nil:
		return nil, SignatureForm
	case key.v.Signed(b.payload, b.signed) != nil:
		return nil, Signature
	}
	rec, err := receipts.Decode(b.payload)
	if err != nil {
		return nil, PayloadMalformed
	}
	switch {
	case rec.Statement.KeyID != b.keyID:
		return &rec, KeyDiffers
	case !receipts.OfLog(c.m.Origin, rec.Statement.Log):
		return &rec, Origin
	case rec.Commit.Seq != seq:
		return &rec, SeqMoved
	case c.lives != nil && c.lives.May(b.keyID, seq) != nil:
		return &rec, KeyNotThen
	}
	return &rec, c.logged(seq, b, tlog.Leaf(writ.Receipt{Payload: b.payload, Sig: b.signed}, key.der))
}

// logged proves that the log has an entry.
func (c *check) logged(seq int64, b parsed, leaf []byte) Code {
	switch {
	case number(b.index) != seq || number(b.proofIndex) != seq:
		return IndexDiffers
	case !bytes.Equal(b.logID, c.logID), !bytes.Equal(b.root, c.cp.Root[:]), number(b.size) != c.cp.Size, !bytes.Equal(b.checkpoint, c.cp.Text):
		return CheckpointDiffers
	case !bytes.Equal(b.leaf, leaf):
		return LeafDiffers
	case !included(b, seq, c.cp):
		return Inclusion
	}
	return ""
}

// theirs proves a verdict that is logged as its verifier signed it, by the key in its entry.
// Whose that is, the receipt after it says, and where it is, the proof alone.
func (c *check) theirs(seq int64, b parsed) (*receipts.Record, Code) {
	public, err := tlog.LeafPublic(b.leaf)
	if err != nil {
		return nil, LeafDiffers
	}
	r := writ.Receipt{Payload: b.payload, Sig: b.signed, KeyID: b.keyID, Public: public}
	f, err := receipts.OpenForeign(r)
	switch {
	case b.hint != b.keyID:
		return nil, HintDiffers
	case errors.Is(err, receipts.ErrSignatureForm):
		return nil, SignatureForm
	case errors.Is(err, receipts.ErrOtherKey):
		return nil, KeyDiffers
	case err != nil:
		return nil, Signature
	}
	c.foreign[seq], c.verdicts[f.ID] = f, true
	return nil, c.logged(seq, b, tlog.Leaf(r, nil))
}

func included(b parsed, seq int64, cp tlog.Checkpoint) bool {
	var proof xtlog.RecordProof
	for _, h := range b.hashes {
		if len(h) != xtlog.HashSize {
			return false
		}
		proof = append(proof, xtlog.Hash(h))
	}
	return seq < cp.Size && xtlog.CheckRecord(proof, cp.Size, cp.Root, seq, xtlog.RecordHash(b.leaf)) == nil
}

// evidence holds what lies beside a receipt to what it states.
func (c *check) evidence(seq int64, rec receipts.Record) error {
	name := evidenceName(seq)
	there := c.p.has(name)
	c.absent.note(seq, rec.Statement, there || !c.m.Evidence)
	if !there {
		return nil
	}
	text, err := c.p.read(name)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != rec.Statement.Evidence {
		c.find(EvidenceDiffers, seq)
		return nil
	}
	c.report.Evidence++
	return nil
}

// scope says what is missing, of a log or a range: of a run only its own sequence tells.
func (c *check) scope() error {
	if c.m.Scope.Kind == ScopeRun {
		return nil
	}
	first, last := c.bounds()
	want := first
	for _, seq := range c.seqs {
		if seq < first || seq > last {
			if !c.ofKeys[seq] {
				c.find(ReceiptExtra, seq)
			}
			continue
		}
		if seq > want { // one finding for a gap: it names where it begins
			c.find(ReceiptMissing, want)
		}
		want = seq + 1
	}
	if want <= last {
		c.find(ReceiptMissing, want)
	}
	return nil
}

// list holds receipts.jsonl and README.md to the receipts.
func (c *check) list() error {
	text, err := c.file(FileList)
	if err != nil {
		return err
	}
	if len(c.report.Findings) > 0 { // it would repeat what was found
		return nil
	}
	readsMe, err := c.file(FileReadme)
	if err != nil {
		return err
	}
	var again bytes.Buffer
	about := readme{first: c.first}
	for _, seq := range c.seqs {
		payload, rec, err := c.payload(seq)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(payload)
		again.Write(line(listed{Payload: hex.EncodeToString(sum[:]), Receipt: c.seen[seq], Seq: seq}))
		if _, theirs := c.foreign[seq]; !theirs {
			about.note(rec)
		}
	}
	if !bytes.Equal(again.Bytes(), text) {
		c.find(ListDiffers, -1)
	}
	evidence := slices.ContainsFunc(c.p.names, evidencePath.MatchString)
	if !bytes.Equal(about.text(c.logKey, c.m.Scope, c.cp.Size, evidence, c.p.has(FileEarlier)), readsMe) {
		c.find(ReadmeDiffers, -1)
	}
	return nil
}

// payload reads again what one has proved. Of a verdict that is logged itself there is no record.
func (c *check) payload(seq int64) ([]byte, receipts.Record, error) {
	text, err := c.p.read(receiptName(seq))
	if err != nil {
		return nil, receipts.Record{}, err
	}
	b, wrong := parse(text)
	if wrong != "" {
		return nil, receipts.Record{}, errors.New("a receipt changed while it was read")
	}
	if _, theirs := c.foreign[seq]; theirs {
		return b.payload, receipts.Record{}, nil
	}
	rec, err := receipts.Decode(b.payload)
	return b.payload, rec, err
}

// policies holds bundles to their names, and where the pack promises those that receipts were judged by to that.
func (c *check) policies() error {
	packs, good := map[string]bool{}, map[string]bool{}
	for _, name := range c.p.names {
		m := policyPath.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		text, err := c.p.read(name)
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != m[1] {
			c.find(PolicyDiffers, -1)
			continue
		}
		c.report.Policies++
		good[name] = true
		packsIn(text, packs)
	}
	if !c.m.Policies {
		return nil
	}
	for _, seq := range c.judged.missing(func(file string) bool { return good[file] }, packs) {
		c.find(PolicyMissing, seq)
	}
	return nil
}

// Root is the root of the first size receipts, out of a pack that has them all; ok is
// false for one that has not. Nothing is proved: Verify does that.
func Root(p *Pack, size int64) (root xtlog.Hash, ok bool, err error) {
	sp, err := newSpool()
	if err != nil {
		return root, false, err
	}
	defer func() { err = errors.Join(err, sp.close()) }()
	for seq := range size {
		if !p.has(receiptName(seq)) {
			return root, false, nil
		}
		text, err := p.read(receiptName(seq))
		if err != nil {
			return root, false, err
		}
		b, wrong := parse(text)
		if wrong != "" {
			return root, false, nil
		}
		if err := sp.add(writ.Receipt{Seq: seq, Payload: b.payload, Sig: b.signed, KeyID: b.keyID}, b.leaf); err != nil {
			return root, false, err
		}
	}
	root, err = sp.root(size)
	return root, err == nil, err
}
