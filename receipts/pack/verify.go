package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	xtlog "golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// Trust is what a pack is checked with. Of nothing that is empty is anything believed
// because the pack says so: see Verify.
type Trust struct {
	LogKey string   // note verifier key
	Keys   [][]byte // receipt keys, PEM: the one the log began with is enough, and is needed

	KeysFile []byte // if any, what receipts say of keys, from outside: a file of keys
	Root     []byte // a root that must have signed the manifest in it, PEM; no receipt key is needed then

	Verifiers [][]byte // if any, keys one of which must have signed the verdict that ends the run, PEM

	Witnesses []*tlog.WitnessKey // if any, who must have cosigned the checkpoint
	Need      int                // so many of them; 0: each
}

// Ask says what else to look at.
type Ask struct {
	Run   writ.RunID // the chain of a run
	Close bool       // and who closed it
}

// Verify checks a pack with the keys given, and with nothing else. Without any key it takes those
// in the pack, and the report says that this shows no more than that the pack agrees
// with itself. The error is for a key that cannot be used or a file that cannot be read;
// what is wrong with the pack stands in the report.
//
// Receipts are looked at one by one first. Only if each is sound and none is missing do
// the rules between them say anything, so only then they are asked.
func Verify(p *Pack, t Trust, ask Ask) (Report, error) {
	if ask.Run != "" && !ask.Run.Valid() || ask.Close && ask.Run == "" {
		return Report{}, errors.New("say which run: its id, run_…")
	}
	c := &check{p: p, ask: ask, report: Report{Verdict: receipts.Good.String(), Trust: TrustPinned, Findings: []Finding{}}, keys: map[string]trusted{}, seen: map[int64]writ.ReceiptID{}, foreign: map[int64]receipts.Foreign{}, verdicts: map[writ.ReceiptID]bool{}, verifiers: map[string]writ.PublicKey{}, ofKeys: map[int64]bool{}}
	err := c.run(t)
	c.report.sort()
	return c.report, err
}

type trusted struct {
	v   *receipts.Verifier
	der []byte
}

type check struct {
	p      *Pack
	ask    Ask
	report Report
	m      manifest
	cp     tlog.Checkpoint
	logKey string
	logID  []byte
	keys   map[string]trusted // by id: those that are trusted, and those that receipts introduce

	given, inPack [][]byte                  // receipt keys, PEM
	first         string                    // id of the key the log began with
	lives         *receipts.Ring            // nil: that key is not trusted
	fromFile      *receipts.Ring            // of a file of keys that was given
	ofKeys        map[int64]bool            // receipts that say something of a key
	verifiers     map[string]writ.PublicKey // that were given, by their ids
	seen          map[int64]writ.ReceiptID
	seqs          []int64
	foreign       map[int64]receipts.Foreign // verdicts that are logged themselves
	verdicts      map[writ.ReceiptID]bool    // their ids
	absent        absent
	judged        judged
}

var errStop = errors.New("nothing more can be said")

func (c *check) find(code Code, seq int64) { c.report.find(code, seq, c.seen[seq]) }

func (c *check) run(t Trust) error {
	for _, code := range c.p.bad {
		c.find(code, -1)
	}
	for _, step := range []func() error{c.manifest, c.sums, func() error { return c.trust(t) }, c.checkpoint, c.earlier, c.ring, c.each, c.scope, c.manifestOfKeys, c.list, c.policies, c.rules, func() error { return c.witnesses(t) }} {
		if err := step(); err != nil {
			if errors.Is(err, errStop) {
				return nil
			}
			return err
		}
	}
	return nil
}

// file reads a file that every pack has.
func (c *check) file(name string) ([]byte, error) {
	if !c.p.has(name) {
		c.find(FileMissing, -1)
		return nil, errStop
	}
	b, err := c.p.read(name)
	if errors.Is(err, errTooLarge) {
		c.find(PackMalformed, -1)
		return nil, errStop
	}
	return b, err
}

// exact reads JSON that has one form: what this program writes.
func exact(text []byte, v any) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(v) == nil && bytes.Equal(line(v), text)
}

func (c *check) manifest() error {
	text, err := c.file(FileManifest)
	if err != nil {
		return err
	}
	if !exact(text, &c.m) || c.m.Format != Format || !c.m.Scope.valid() || c.m.Size < 1 || c.m.Size > maxSize || !receipts.ValidOrigin(c.m.Origin) {
		c.m = manifest{}
		c.find(PackMalformed, -1)
		return errStop
	}
	c.report.Scope, c.report.Promised = c.m.Scope, Promises{c.m.Evidence, c.m.Policies}
	return nil
}

// maxSize is how many receipts a log may have for a pack of it: whole numbers up to it are one in every
// program that reads JSON.
const maxSize = 1<<53 - 1

// sumsLine is one of SHA256SUMS.
var sumsLine = regexp.MustCompile("^([0-9a-f]{64})  ([!-~]+)\n$")

// sums holds the files to what SHA256SUMS says, and to what a pack may have. That list is not signed: it
// shows damage, and what else is checked shows the rest.
func (c *check) sums() error {
	text, err := c.file(FileSums)
	if err != nil {
		return err
	}
	stated := map[string]bool{}
	for l := range bytes.Lines(text) { // one by one: it may be large
		m := sumsLine.FindStringSubmatch(string(l))
		if m == nil || stated[m[2]] {
			c.find(PackMalformed, -1)
			return errStop
		}
		sum, name := m[1], m[2]
		stated[name] = true
		if !c.p.has(name) {
			if m := receiptPath.FindStringSubmatch(name); m == nil || c.m.Scope.Kind == ScopeRun {
				c.find(FileMissing, seqOf(name)) // of those that scope looks for it says more
			}
			continue
		}
		b, err := c.p.read(name)
		if err != nil {
			return err
		}
		if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != sum {
			c.find(SumDiffers, seqOf(name))
		}
	}
	for _, name := range c.p.names {
		known := slices.Contains(single, name) || receiptPath.MatchString(name) || evidencePath.MatchString(name) || policyPath.MatchString(name) || keyPath.MatchString(name)
		if !known || name != FileSums && !stated[name] {
			c.find(FileExtra, seqOf(name))
		}
	}
	return nil
}

// seqOf is the sequence in the name of a file, -1 where there is none.
func seqOf(name string) int64 {
	for _, form := range []interface{ FindStringSubmatch(string) []string }{receiptPath, evidencePath} {
		if m := form.FindStringSubmatch(name); m != nil {
			return number(cutZeros(m[1]))
		}
	}
	return -1
}

func cutZeros(s string) string {
	if s = strings.TrimLeft(s, "0"); s == "" {
		return "0"
	}
	return s
}

func (c *check) trust(t Trust) error {
	const spaces = " \t\n\v\f\r"
	c.logKey, c.given = strings.Trim(t.LogKey, spaces), t.Keys
	if t.LogKey == "" && len(t.Keys) == 0 && len(t.Root) == 0 {
		if len(t.KeysFile) > 0 {
			return errors.New("a file of keys says more of keys that are trusted: give the log's key, and a receipt key or a root, too")
		}
		c.report.Trust = TrustNone
		text, err := c.file(FileLogKey)
		if err != nil {
			return err
		}
		c.logKey = strings.Trim(string(text), spaces)
		if _, _, err := noteKey(c.logKey); err != nil {
			c.find(PackMalformed, -1)
			return errStop
		}
	}
	for _, name := range c.p.names {
		if !keyPath.MatchString(name) {
			continue
		}
		text, err := c.p.read(name)
		if err != nil {
			return err
		}
		if k, err := receipts.ParsePublicKey(string(text)); err != nil || k.PEM != string(text) {
			text = nil // a key in a pack has one spelling
		}
		if _, err := receipts.NewVerifier(text); err != nil && c.report.Trust == TrustNone {
			c.find(PackMalformed, -1)
			return errStop
		}
		c.inPack = append(c.inPack, text)
	}
	if c.report.Trust == TrustNone {
		c.given = c.inPack
	}
	for _, text := range c.given {
		if err := c.trusts(text); err != nil {
			return err
		}
	}
	if err := c.outside(t); err != nil {
		return err
	}
	for _, text := range t.Verifiers {
		k, err := receipts.ParsePublicKey(string(text))
		if err != nil {
			return fmt.Errorf("a verifier's key %w: give the public half it signs with", err)
		}
		c.verifiers[k.ID] = k
	}
	var err error
	c.logID, err = logIDOf(c.logKey)
	return err
}

func (c *check) checkpoint() error {
	name, public, err := noteKey(c.logKey)
	if err != nil {
		return err
	}
	c.report.Log = name
	text, err := c.file(FileCheckpoint)
	if err != nil {
		return err
	}
	if first, _, _ := strings.Cut(string(text), "\n"); first != name || c.m.Origin != name {
		c.find(Origin, -1)
		return errStop
	}
	if c.cp, err = tlog.ParseCheckpoint(text, c.logKey); err != nil {
		c.find(CheckpointSignature, -1)
		return errStop
	}
	if c.report.Size = c.cp.Size; c.cp.Size != c.m.Size || c.m.Scope.Last >= c.cp.Size {
		c.find(PackMalformed, -1)
		return errStop
	}
	root, err := tlog.TrustedRoot(name, public, time.Unix(0, 0))
	if err != nil {
		return err
	}
	has, err := c.file(FileTrustedRoot)
	if err != nil {
		return err
	}
	if !bytes.Equal(root, has) {
		c.find(TrustedRoot, -1)
	}
	if has, err = c.file(FileLogKey); err == nil && string(has) != c.logKey+"\n" {
		c.find(LogKeyDiffers, -1)
	}
	return err
}

// witnesses looks whether those cosigned the checkpoint that must have. It comes last: it is
// no matter for what the receipts say.
func (c *check) witnesses(t Trust) error {
	signed, err := tlog.Cosignatures(c.cp.Text, t.Witnesses, t.Need)
	for _, w := range signed {
		c.report.Witnesses = append(c.report.Witnesses, Witnessed{w.Name, w.At.UTC().Format(time.RFC3339)})
	}
	switch {
	case errors.Is(err, tlog.ErrNotCosigned):
		c.find(WitnessMissing, -1)
	case err != nil:
		c.find(WitnessSignature, -1)
	}
	return nil
}

// earlier holds the log to the earlier checkpoint in the pack.
func (c *check) earlier() error {
	if !c.p.has(FileEarlier) && !c.p.has(FileConsistency) {
		return nil
	}
	text, err := c.file(FileEarlier)
	if err != nil {
		return err
	}
	proof, err := c.file(FileConsistency)
	if err != nil {
		return err
	}
	old, err := tlog.ParseCheckpoint(text, c.logKey)
	if err != nil {
		c.find(CheckpointSignature, -1)
		return nil
	}
	if !Consistent(old, c.cp, proof) {
		c.find(Consistency, -1)
		return nil
	}
	c.report.Earlier = &old.Size
	return nil
}

// Consistent says whether a proof, one hash in base64 a line, shows that a log begins
// with an earlier one.
func Consistent(old, now tlog.Checkpoint, proof []byte) bool {
	hashes := xtlog.TreeProof{}
	for l := range strings.Lines(string(proof)) {
		b, ok := unbase64(strings.TrimSuffix(l, "\n"))
		if !ok || len(b) != xtlog.HashSize || !strings.HasSuffix(l, "\n") {
			return false
		}
		hashes = append(hashes, xtlog.Hash(b))
	}
	if old.Size == 0 {
		return len(hashes) == 0 // every log begins with nothing
	}
	return old.Size <= now.Size && xtlog.CheckTree(hashes, now.Size, now.Root, old.Size, old.Root) == nil
}
