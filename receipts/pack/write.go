package pack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"golang.org/x/mod/sumdb/note"
	xtlog "golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// Source is where a log is read: a gateway, or the files of one.
type Source interface {
	// Receipts are those from the log's beginning on, in order.
	Receipts(ctx context.Context) iter.Seq2[writ.Receipt, error]
	// Key is the receipt key with an id, which signed the receipt.
	Key(ctx context.Context, keyID string, signed writ.ReceiptID) (*ecdsa.PublicKey, error)
	// Evidence of a receipt; ok is false where the caller may not read it, there is none, or none any more.
	Evidence(ctx context.Context, id writ.ReceiptID) (text []byte, ok bool, err error)
	// Policies are the bundles of these digests that want picks by their packs, uncompressed.
	Policies(ctx context.Context, digests []string, want func(packs []writ.PackVer) bool) iter.Seq2[[]byte, error]
}

// Options say what goes into a pack.
type Options struct {
	Checkpoint []byte // that proves everything
	LogKey     string // note verifier key that signed it
	Earlier    []byte // an earlier checkpoint to be consistent with, if any
	Scope      Scope
	Evidence   bool
	Progress   func(done, of int64, what string)
}

// ErrUnsound: what the gateway gave does not fit together, so no pack is made of it.
var ErrUnsound = errors.New("the receipts do not give the root the checkpoint states")

// ErrNoRun: there is nothing to make a pack of a run of.
var ErrNoRun = errors.New("the log has no receipt of that run, as far as the checkpoint covers it")

// Write makes a pack. It reads the log from its beginning to the checkpoint whatever the
// scope is, and so proves it on the way; it keeps it on disk meanwhile.
func Write(ctx context.Context, out Sink, src Source, o Options) (err error) {
	cp, err := tlog.ParseCheckpoint(o.Checkpoint, o.LogKey)
	if err != nil {
		return err
	}
	if !o.Scope.valid() || o.Scope.Kind == ScopeRange && o.Scope.Last >= cp.Size || cp.Size == 0 {
		return fmt.Errorf("the checkpoint covers receipts 0 to %d", cp.Size-1)
	}
	if o.Scope.receipts(cp.Size) > maxReceipts {
		return fmt.Errorf("a pack has at most %d receipts: export this log in ranges", maxReceipts)
	}
	sp, err := newSpool()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sp.close()) }()
	w := &writer{ctx: ctx, src: src, o: o, cp: cp, sp: sp, out: &summed{Sink: out, sums: &sp.sums}, keys: map[string]key{}, ofKeys: map[int64]bool{}, tasks: map[string]bool{}, inForce: map[string]bool{}, bundles: map[string]string{}}
	for _, step := range []func() error{w.read, w.choose, w.gather, w.bundled, w.begin, w.receipts, w.evidence, w.policies, w.end} {
		if err := step(); err != nil {
			return err
		}
	}
	return out.Close()
}

type key struct {
	der []byte
	pem []byte
}

type writer struct {
	ctx  context.Context
	src  Source
	o    Options
	cp   tlog.Checkpoint
	sp   *spool
	out  *summed
	keys map[string]key
	all  bool // evidence is promised, see manifest
	laws bool // policies are

	ofKeys  map[int64]bool    // receipts that say something of a key
	ring    *receipts.Ring    // what they say
	ofRun   bool              // there is a receipt of the run that is asked for
	tasks   map[string]bool   // of it
	inForce map[string]bool   // digests of the policy bundles that were, anywhere below the checkpoint
	bundles map[string]string // digests of those that are there, by their files: one may have 32 MiB

	chosen func(seq int64) bool
	origin string // of the log
	judged judged // which policies receipts name
	about  readme
}

func (w *writer) told(done, of int64, what string) {
	if w.o.Progress != nil {
		w.o.Progress(done, of, what)
	}
}

// read spools the log as far as the checkpoint covers it.
func (w *writer) read() error {
	for r, err := range w.src.Receipts(w.ctx) {
		if err != nil {
			return err
		}
		k, known := w.keys[r.KeyID]
		if !known && r.Kind() == writ.FactSealed {
			pub, err := w.src.Key(w.ctx, r.KeyID, r.ID)
			if err != nil {
				return err
			}
			if k.der, err = tlog.PublicDER(pub); err != nil {
				return err
			}
			if k.pem, err = receipts.PublicPEM(pub); err != nil {
				return err
			}
			w.keys[r.KeyID] = k
		}
		if err := w.sp.add(r, tlog.Leaf(r, k.der)); err != nil {
			return err
		}
		if err := w.learn(r, k); err != nil {
			return err
		}
		w.told(w.sp.n, w.cp.Size, "read")
		if w.sp.n == w.cp.Size {
			break
		}
	}
	if w.sp.n != w.cp.Size {
		return fmt.Errorf("%w: it covers %d receipts, there are %d", ErrUnsound, w.cp.Size, w.sp.n)
	}
	root, err := w.sp.root(w.cp.Size)
	switch {
	case err != nil:
		return err
	case root != w.cp.Root:
		return ErrUnsound
	case w.o.Scope.Kind == ScopeRun && !w.ofRun:
		return ErrNoRun
	}
	return nil
}

// saysInForce is in the payload of every receipt that puts a policy bundle in force; more than these may have it.
var saysInForce = []byte(`"kind":"bundle","to":"active"`)

// learn takes from a receipt what it says of keys, of what is in force, and of tasks of the run.
func (w *writer) learn(r writ.Receipt, k key) (err error) {
	if w.ring == nil {
		v, err := receipts.NewVerifier(k.pem)
		if err != nil {
			return err
		}
		if w.ring, err = receipts.NewRing(v); err != nil {
			return err
		}
		w.about.first = v.KeyID()
	}
	if rec, ok := ofKey(r.Payload); ok {
		w.ofKeys[r.Seq] = true
		_ = w.ring.Learn(rec, writ.Receipt{Seq: r.Seq}) // what cannot be is for whoever checks to find
	}
	run := w.o.Scope.Run
	ofRun := run != "" && bytes.Contains(r.Payload, []byte(run))
	if !ofRun && !bytes.Contains(r.Payload, saysInForce) || r.Kind() != writ.FactSealed {
		return nil
	}
	rec, err := receipts.Decode(r.Payload)
	w.ofRun = w.ofRun || run != "" && rec.Statement.Run == run
	for _, c := range rec.Statement.Changes {
		switch {
		case c.Kind == writ.ObjectBundle && c.To == string(writ.BundleActive):
			w.inForce[writ.BundleID(c.ID).Digest()] = true
		case c.Kind == writ.ObjectTask && c.From == "" && ofRun && rec.Statement.Run == run:
			w.tasks[c.ID] = true
		}
	}
	return err
}

func (w *writer) begin() error {
	m := manifest{Evidence: w.all, Format: Format, Policies: w.laws, Scope: w.o.Scope, Size: w.cp.Size}
	name, public, err := noteKey(w.o.LogKey)
	if err != nil {
		return err
	}
	m.Origin, w.origin = name, name
	root, err := tlog.TrustedRoot(name, public, time.Unix(0, 0))
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		text []byte
	}{
		{FileManifest, line(m)},
		{FileCheckpoint, w.o.Checkpoint},
		{FileTrustedRoot, root},
		{FileLogKey, []byte(w.o.LogKey + "\n")},
	} {
		if err := w.out.File(f.name, f.text); err != nil {
			return err
		}
	}
	if len(w.o.Earlier) == 0 {
		return nil
	}
	old, err := tlog.ParseCheckpoint(w.o.Earlier, w.o.LogKey)
	if err != nil {
		return fmt.Errorf("the earlier checkpoint: %w", err)
	}
	if old.Size > w.cp.Size {
		return fmt.Errorf("the earlier checkpoint covers %d receipts, this one %d", old.Size, w.cp.Size)
	}
	if had, err := w.sp.root(old.Size); err != nil || had != old.Root {
		return errors.Join(err, fmt.Errorf("%w: the log does not begin with what the earlier one covers; keep that, it proves it", ErrUnsound))
	}
	if err := w.out.File(FileEarlier, w.o.Earlier); err != nil {
		return err
	}
	var text []byte
	if old.Size > 0 {
		proof, err := xtlog.ProveTree(w.cp.Size, old.Size, w.sp)
		if err != nil {
			return err
		}
		for _, h := range proof {
			text = append(base64.StdEncoding.AppendEncode(text, h[:]), '\n')
		}
	}
	return w.out.File(FileConsistency, text)
}

// receipts writes the bundles, and the list of them.
func (w *writer) receipts() error {
	logID, err := logIDOf(w.o.LogKey)
	if err != nil {
		return err
	}
	for seq := range w.seqs() {
		r, rec, err := w.sp.get(seq)
		if err != nil {
			return err
		}
		k := w.keys[r.KeyID]
		proof, err := xtlog.ProveRecord(w.cp.Size, seq, w.sp)
		if err != nil {
			return err
		}
		r.Inclusion = tlog.Inclusion{Index: seq, Leaf: tlog.Leaf(r, k.der), Hashes: proof, Checkpoint: w.cp, LogID: logID}.Receipt()
		text, err := tlog.Bundle(r)
		if err != nil {
			return err
		}
		if err := w.out.File(receiptName(seq), append(text, '\n')); err != nil {
			return err
		}
		sum := sha256.Sum256(r.Payload)
		if err := w.sp.list.add(line(listed{Payload: hex.EncodeToString(sum[:]), Receipt: r.ID, Seq: seq})); err != nil {
			return err
		}
		if r.Kind() == writ.FactSealed {
			w.about.note(rec)
		}
		w.told(seq+1, w.sp.n, "written")
	}
	for i, id := range w.about.used {
		if err := w.out.File(keyName(i+1), w.keys[id].pem); err != nil {
			return err
		}
	}
	if err := w.out.File(FileKeys, livesOf(w.ring, w.origin, w.cp.Size)); err != nil {
		return err
	}
	return w.out.Copy(FileList, w.sp.list.size, w.sp.list.text())
}

// gather spools what evidence there is, and learns which policies are needed: the manifest comes first, and
// says whether it is all.
func (w *writer) gather() error {
	var gone absent
	for seq := range w.seqs() {
		r, rec, err := w.sp.get(seq)
		if err != nil {
			return err
		}
		w.judged.note(seq, rec.Statement)
		if !w.o.Evidence {
			continue
		}
		var text []byte
		ok := false
		if rec.Statement.Evidence != "" {
			if text, ok, err = w.src.Evidence(w.ctx, r.ID); err != nil {
				return err
			}
		}
		gone.note(seq, rec.Statement, ok)
		if ok {
			head := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(seq)), uint64(len(text)))
			if err := w.sp.evidence.add(append(head, text...)); err != nil {
				return err
			}
		}
		w.told(seq+1, w.sp.n, "with evidence")
	}
	w.all = w.o.Evidence && len(gone.missing()) == 0
	return nil
}

// evidence writes what was gathered.
func (w *writer) evidence() error {
	for in := bufio.NewReader(w.sp.evidence.text()); ; {
		var head [16]byte
		switch _, err := io.ReadFull(in, head[:]); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		text := make([]byte, binary.BigEndian.Uint64(head[8:]))
		if _, err := io.ReadFull(in, text); err != nil {
			return err
		}
		if err := w.out.File(evidenceName(int64(binary.BigEndian.Uint64(head[:8]))), text); err != nil {
			return err
		}
	}
}

func (w *writer) end() error {
	text := w.about.text(w.o.LogKey, w.o.Scope, w.cp.Size, w.sp.evidence.size > 0, len(w.o.Earlier) > 0)
	if err := w.out.File(FileReadme, text); err != nil {
		return err
	}
	return w.out.Sink.Copy(FileSums, w.sp.sums.size, w.sp.sums.text())
}

func line(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // of types of this package only
		panic(err)
	}
	return append(b, '\n')
}

// noteKey reads a verifier key of a log: its name, which is that of a host, and the
// Ed25519 key. A key has one spelling.
func noteKey(text string) (name string, public []byte, err error) {
	v, err := note.NewVerifier(text)
	if err != nil {
		return "", nil, err
	}
	name = v.Name()
	if !receipts.ValidOrigin(name) {
		return "", nil, errors.New("a log's verifier key with another name than that of a host: take it from writ log head again")
	}
	raw, err := base64.StdEncoding.DecodeString(text[len(name)+len("+00000000+"):])
	if err != nil || len(raw) != 33 {
		return "", nil, errors.New("not an Ed25519 verifier key: take it from writ log head again")
	}
	again, err := note.NewEd25519VerifierKey(name, raw[1:])
	if err == nil && again != text {
		err = errors.New("a verifier key that is not spelled as writ log head does: take it from there again")
	}
	return name, raw[1:], err
}

func logIDOf(key string) ([]byte, error) {
	name, public, err := noteKey(key)
	if err != nil {
		return nil, err
	}
	return tlog.LogID(name, public), nil
}
