package shred

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "write the golden files")

var secret = [32]byte{1, 2, 3}

const (
	runA = writ.RunID("run_01J00000000000000000000001")
	runB = writ.RunID("run_01J00000000000000000000002")
)

// log is a ledger in memory.
type log struct{ entries []ledger.Entry }

func (l *log) Last() int64 { return int64(len(l.entries)) - 1 }

func (l *log) All(after, upto int64) iter.Seq2[writ.Receipt, error] {
	return func(yield func(writ.Receipt, error) bool) {
		for s := after + 1; s <= upto; s++ {
			if !yield(l.entries[s].Receipt, nil) {
				return
			}
		}
	}
}

func idOf(seq int64) writ.ReceiptID {
	return writ.ReceiptID(fmt.Sprintf("rcp_01J0000000000000000000%04d", seq))
}
func plain(seq int64) []byte { return fmt.Appendf(nil, "what was said in %d", seq) }

// fact is one of a run ("" for none), or the shredding of it.
func fact(t *testing.T, seq int64, run writ.RunID, kills bool) (writ.StoredFact, ledger.Entry) {
	t.Helper()
	st := writ.Statement{
		Receipt: idOf(seq), Call: "cll_01J00000000000000000000000", Tenant: "default", Log: "writ.local", Transition: "task.claim", Version: "1",
		Outcome: writ.OutcomeOfTransition, Run: run, KeyID: "SHA256:x", Changes: []writ.Change{{Kind: writ.ObjectTask, ID: "tsk_01J00000000000000000000000", From: "queued", To: "running"}},
	}
	if kills {
		st.Transition = writ.CapabilityShred
		st.Changes = []writ.Change{{Kind: writ.ObjectEvidence, ID: string(run), To: string(writ.EvidenceShredded)}}
	}
	head, tail, err := receipts.Draft(st)
	if err != nil {
		t.Fatal(err)
	}
	f := writ.StoredFact{Fact: writ.Fact{ID: st.Receipt, Run: run, Head: head, Tail: tail, Evidence: plain(seq)}, Commit: writ.Committed{Seq: seq, Epoch: "e", At: 1_700_000_000_000}}
	if run != "" {
		f.Commit.RunSeq = seq + 1
	}
	return f, ledger.Entry{Receipt: writ.Receipt{ID: f.ID, Seq: seq, Payload: f.Payload(), Evidence: f.Evidence}, Run: run}
}

// story is a list of facts: "A" of run A, "-" of none, "xA" its shredding.
func story(t *testing.T, from int64, words ...string) (facts []writ.StoredFact, entries []ledger.Entry) {
	t.Helper()
	runs := map[byte]writ.RunID{'A': runA, 'B': runB, '-': ""}
	for i, w := range words {
		f, e := fact(t, from+int64(i), runs[w[len(w)-1]], w[0] == 'x')
		facts, entries = append(facts, f), append(entries, e)
	}
	return facts, entries
}

func mustOpen(t *testing.T, dir string, l Log) *Keys {
	t.Helper()
	k, err := Open(dir, secret, l)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// file keeps a group and appends it; step says after which of keep, append and
// filed the machine stops.
func file(t *testing.T, k *Keys, l *log, step int, words ...string) {
	t.Helper()
	facts, entries := story(t, l.Last()+1, words...)
	if err := k.Keep(facts, entries); err != nil {
		t.Fatal(err)
	}
	if step > 0 {
		l.entries = append(l.entries, entries...)
	}
	if step > 1 {
		if err := k.Filed(); err != nil {
			t.Fatal(err)
		}
	}
}

// shows says of every receipt whether it is readable ('r'), was shredded ('x'),
// or fails otherwise ('?').
func shows(k *Keys, l *log) string {
	var b []byte
	for _, e := range l.entries {
		text, err := k.Sealed(e.Receipt)
		switch {
		case err == nil && bytes.Equal(text, plain(e.Seq)):
			b = append(b, 'r')
		case writ.CodeOf(err) == writ.CodeShredded:
			b = append(b, 'x')
		default:
			b = append(b, '?')
		}
	}
	return string(b)
}

func want(t *testing.T, k *Keys, l *log, s string) {
	t.Helper()
	if got := shows(k, l); got != s {
		t.Errorf("evidence is %s, want %s", got, s)
	}
}

// A shredding destroys what its run has left before it, in the same group too,
// and nothing else; after a restart as well.
func TestShred(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A", "B", "-", "A")
	want(t, k, l, "rrrr")
	if bytes.Contains(l.entries[0].Evidence, plain(0)) || l.entries[0].EvidenceKey == l.entries[1].EvidenceKey || l.entries[0].EvidenceKey != l.entries[3].EvidenceKey {
		t.Error("runs do not have keys of their own")
	}
	file(t, k, l, 2, "A", "xA", "A", "B")
	want(t, k, l, "xrrxxrrr")
	_, err := k.Sealed(l.entries[0].Receipt)
	if e, ok := errors.AsType[*writ.Error](err); !ok || e.Details["receipt"] != string(idOf(5)) {
		t.Errorf("the refusal names another receipt: %v", err)
	}
	file(t, k, l, 2, "A", "xA", "xB", "A")
	want(t, k, l, "xxrxxrxxxrrr")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, mustOpen(t, dir, l), l, "xxrxxrxxxrrr")
}

// Wherever the machine stops, nothing unreadable was not shredded, and nothing
// shredded is readable once the next start is through.
func TestCrashes(t *testing.T) {
	for step := range 3 {
		dir, l := t.TempDir(), &log{}
		k := mustOpen(t, dir, l)
		file(t, k, l, 2, "A", "B")
		file(t, k, l, step, "A", "xA", "A")
		k = mustOpen(t, dir, l) // without Close
		if step == 0 {
			want(t, k, l, "rr")
			file(t, k, l, 2, "A", "xA", "A") // the integrator reads the same facts again
		}
		want(t, k, l, "xrxrr")
	}
}

// A group that could not be appended may come again, or another in its place.
func TestKeepAgain(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A")
	file(t, k, l, 0, "A", "xA", "A")
	file(t, k, l, 2, "A", "A")
	want(t, k, l, "rrr")
	file(t, k, l, 0, "xA", "A")
	file(t, k, l, 2, "A", "xA", "A")
	want(t, k, l, "xxxxrr")
}

// A shredding that the disk refuses is done before anything else is filed, and
// at the latest by the next start.
func TestSettle(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A", "B")
	facts, entries := story(t, 2, "xA")
	if err := k.Keep(facts, entries); err != nil {
		t.Fatal(err)
	}
	l.entries = append(l.entries, entries...)
	// A directory in place of the temporary file stops root too.
	block := filepath.Join(dir, fileName(0)+".tmp")
	if err := os.Mkdir(block, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := k.Filed(); err == nil {
		t.Fatal("destroyed without a file to write to")
	}
	if err := k.Settle(); err == nil {
		t.Fatal("forgotten")
	}
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	if err := k.Settle(); err != nil {
		t.Fatal(err)
	}
	want(t, k, l, "xrr")
}

// Keys from a backup that is older than a shredding do not undo it, and do not
// give numbers that the ledger knows to other keys.
func TestOlderKeys(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	file(t, k, l, 2, "B", "xA")
	k = mustOpen(t, old, l)
	want(t, k, l, "x??") // the key of B, and of the day, are lost with what came after the backup
	if k.Missing() != 2 {
		t.Errorf("%d receipts without a key", k.Missing())
	}
	if _, err := k.Sealed(l.entries[1].Receipt); writ.CodeOf(err) != writ.CodeUnavailable {
		t.Errorf("a key that is missing: %v", err)
	}
	lost := l.entries[2].EvidenceKey
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k = mustOpen(t, old, l) // no number is given again after another start either
	want(t, k, l, "x??")
	if _, err := k.Sealed(l.entries[1].Receipt); writ.CodeOf(err) != writ.CodeUnavailable {
		t.Errorf("a key that is missing, after another start: %v", err)
	}
	file(t, k, l, 2, "B", "A")
	if l.entries[3].EvidenceKey <= lost || l.entries[4].EvidenceKey <= lost {
		t.Errorf("numbers %d and %d were given again, up to %d", l.entries[3].EvidenceKey, l.entries[4].EvidenceKey, lost)
	}
	want(t, k, l, "x??rr")
	want(t, mustOpen(t, old, l), l, "x??rr")
}

// Keys of a backup that are put beside the newer note of what was done stay as they are: with the note taken away
// too, as docs/retention.md says, they are destroyed again.
func TestOlderKeysBesideANewerNote(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	old := mustRead(t, dir, fileName(0))
	k = mustOpen(t, dir, l)
	file(t, k, l, 2, "xA")
	want(t, k, l, "xr")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileName(0)), old, 0o600); err != nil {
		t.Fatal(err)
	}
	k = mustOpen(t, dir, l)
	want(t, k, l, "r?") // the key of the day is lost with what came after the backup
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, fileProcessed)); err != nil {
		t.Fatal(err)
	}
	want(t, mustOpen(t, dir, l), l, "x?")
}

func TestWrongSecretAndDamage(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A", "B")
	file(t, k, l, 2, "-")
	if _, err := Open(dir, [32]byte{9}, l); writ.CodeOf(err) != writ.CodeNotReady {
		t.Errorf("another secret: %v", err)
	}
	path := filepath.Join(dir, fileName(0))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range fileHead + 2*slotBytes { // all but the last group
		bad := bytes.Clone(good)
		bad[at] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, secret, l); writ.CodeOf(err) != writ.CodeNotReady {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	// Of the last group any part may be there, or be torn.
	for size := fileHead + 2*slotBytes; size < len(good); size++ {
		if err := os.WriteFile(path, good[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		k := mustOpen(t, dir, &log{entries: l.entries[:2]})
		want(t, k, &log{entries: l.entries[:2]}, "rr")
		if info, err := os.Stat(path); err != nil || info.Size() != fileHead+2*slotBytes {
			t.Fatalf("%d bytes were not cut: %v", size, err)
		}
	}
}

// More keys than one file takes, in one group and over a restart.
func TestManyKeys(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	for range 9 {
		var facts []writ.StoredFact
		var entries []ledger.Entry
		for range 250 {
			seq := l.Last() + 1 + int64(len(facts))
			f, e := fact(t, seq, writ.RunID(fmt.Sprintf("run_01J0000000000000000000%04d", seq)), false)
			facts, entries = append(facts, f), append(entries, e)
		}
		if err := k.Keep(facts, entries); err != nil {
			t.Fatal(err)
		}
		l.entries = append(l.entries, entries...)
		if err := k.Filed(); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []*Keys{k, mustOpen(t, dir, l)} {
		if s := shows(k, l); s != string(bytes.Repeat([]byte("r"), len(l.entries))) {
			t.Errorf("some of %d are not readable", len(s))
		}
	}
}

// The files byte by byte; today's code reads what older code has written.
func TestStoredFiles(t *testing.T) {
	k := &Keys{}
	b := header(0)
	for i, s := range []slot{
		{owner: ownerRun(runA), from: 7, state: live},
		{owner: ownerRun(runB), from: 8, place: 1, state: shredded},
	} {
		for j := range s.key {
			s.key[j] = byte(i + j)
		}
		b = s.append(b)
	}
	stored := writtest.GoldenBinary(t, *update, "keys.hex", b)
	slots, cut, err := parseFile(stored, 0, false)
	if err != nil || cut != len(stored) || len(slots) != 2 || slots[0].owner != ownerRun(runA) || slots[1].state != shredded || slots[1].place != 1 {
		t.Errorf("%v %v", slots, err)
	}
	about, _ := json.Marshal(k.about(3, slots[0]))
	writtest.Golden(t, *update, "about.json", append(about, '\n'))
}

// Who only reads evidence changes no file. What the log says is to be destroyed it cannot
// read, though it is not destroyed.
func TestReadChangesNothing(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A", "B")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	_, more := story(t, 2, "xA")
	l.entries = append(l.entries, more...) // filed, and then it crashed
	mustWrite(t, dir, "00000000.keys.tmp", []byte("what a crash left"))
	keys := mustRead(t, dir, fileName(0))
	mustWrite(t, dir, fileName(0), append(bytes.Clone(keys), 1, 2, 3))
	before := writtest.Files(t, dir)
	r, err := Read(dir, secret, l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Sealed(l.entries[0].Receipt); writ.CodeOf(err) != writ.CodeShredded || writ.AsError("", err).Details["receipt"] != string(idOf(2)) {
		t.Errorf("of the run that was shredded: %v", err)
	}
	if text, err := r.Sealed(l.entries[1].Receipt); err != nil || string(text) != string(plain(1)) {
		t.Errorf("of the other: %q, %v", text, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	writtest.SameFiles(t, dir, before)
	none := filepath.Join(dir, "none")
	if r, err = Read(none, secret, &log{}); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("it has made the directory")
	}
}
