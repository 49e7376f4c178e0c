package shred

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/ledger"
)

func mustRead(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustWrite(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// slotOf is the key of a number, as the first file has it, with its bytes.
func slotOf(t *testing.T, dir string, n int64) (slot, []byte) {
	t.Helper()
	b := mustRead(t, dir, fileName(0))[fileHead+(n-1)*slotBytes:][:slotBytes]
	s, ok := parseSlot(b)
	if !ok {
		t.Fatalf("key %d is damaged", n)
	}
	return s, b
}

// Of a destroyed key nothing is left: not in its file, and not in memory.
func TestNothingIsLeftOfAKey(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A", "B")
	was, _ := slotOf(t, dir, 1)
	inMemory := k.opened[1]
	if len(inMemory) != 32 {
		t.Fatal("the key is not in memory, so nothing is shown here")
	}
	file(t, k, l, 2, "xA")
	now, _ := slotOf(t, dir, 1)
	id := ledger.Binary(string(idOf(2)))
	if want := append(bytes.Clone(id[:]), make([]byte, len(now.key)-len(id))...); now.state != shredded || !bytes.Equal(now.key[:], want) {
		t.Errorf("state %d, key %x", now.state, now.key)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if bytes.Contains(mustRead(t, dir, f.Name()), was.key[nonceBytes:nonceBytes+8]) {
			t.Errorf("%s has the key", f.Name())
		}
	}
	if k.opened[1] != nil || !bytes.Equal(inMemory, make([]byte, 32)) {
		t.Error("the key is in memory")
	}
	if b, _ := slotOf(t, dir, 2); b.state != live {
		t.Error("the key of another run was destroyed")
	}
	// The file that says how far this is done: a number and a newline.
	if got := string(mustRead(t, dir, fileProcessed)); got != "2\n" {
		t.Errorf("%s says %q", fileProcessed, got)
	}
}

// What a replacement leaves that a crash has stopped may hold a key that was to be
// destroyed: the next start takes it away.
func TestALeftReplacementGoes(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A")
	for _, name := range []string{fileName(0), fileProcessed} {
		mustWrite(t, dir, name+".tmp", mustRead(t, dir, fileName(0)))
	}
	want(t, mustOpen(t, dir, l), l, "r")
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// A shredding that could not be carried out is not noted as done by Close either.
func TestCloseKeepsWhatIsDue(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A", "B")
	file(t, k, l, 1, "xA")
	block := filepath.Join(dir, fileName(0)+".tmp")
	if err := os.Mkdir(block, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := k.Filed(); err == nil {
		t.Fatal("destroyed without a file to write to")
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	want(t, mustOpen(t, dir, l), l, "xrr")
}

// The keys of a run can lie in two files. A machine that stops when one of them is
// replaced carries the rest out with the next start.
func TestStoppedBetweenTwoFiles(t *testing.T) {
	for blocked := range int64(2) {
		dir, l := t.TempDir(), &log{}
		k := mustOpen(t, dir, l)
		file(t, k, l, 2, "A")
		var facts []writ.StoredFact
		var entries []ledger.Entry
		for seq := int64(1); seq < perFile; seq++ {
			f, e := fact(t, seq, writ.RunID(fmt.Sprintf("run_01J0000000000000000000%04d", seq+100)), false)
			facts, entries = append(facts, f), append(entries, e)
		}
		if err := k.Keep(facts, entries); err != nil {
			t.Fatal(err)
		}
		l.entries = append(l.entries, entries...)
		if err := k.Filed(); err != nil {
			t.Fatal(err)
		}
		file(t, k, l, 0, "xA", "A") // not appended, so the key that was made for it is there to be used
		file(t, k, l, 2, "A", "A")
		if first, second := l.entries[perFile].EvidenceKey, l.entries[perFile+1].EvidenceKey; first != 1 || second <= perFile {
			t.Fatalf("keys %d and %d, not in two files", first, second)
		}
		file(t, k, l, 1, "xA")
		if err := os.Mkdir(filepath.Join(dir, fileName(blocked)+".tmp"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := k.Filed(); err == nil {
			t.Fatal("destroyed without a file to write to")
		}
		want(t, mustOpen(t, dir, l), l, "x"+strings.Repeat("r", perFile-1)+"xxr")
	}
}

// What is of no run is kept under a key for its day.
func TestAKeyForADay(t *testing.T) {
	k := mustOpen(t, t.TempDir(), &log{})
	facts, entries := story(t, 0, "-", "-", "-", "-")
	for i, at := range []int64{dayMs, 2*dayMs - 1, 2 * dayMs, 2*dayMs + 1} {
		facts[i].Commit.At = at
	}
	if err := k.Keep(facts, entries); err != nil {
		t.Fatal(err)
	}
	for i, n := range []int64{1, 1, 2, 2} {
		if entries[i].EvidenceKey != n {
			t.Errorf("%d has key %d, want %d", i, entries[i].EvidenceKey, n)
		}
	}
}

// A ledger from a backup, older than what the keys say is done, grows again: what is
// shredded in it then is shredded, whatever is noted of the ledger there was before.
func TestOlderLedger(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A", "-", "-", "-", "xB") // noted
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	l = &log{entries: l.entries[:1]}
	k = mustOpen(t, dir, l)
	file(t, k, l, 1, "xA") // in the ledger, and the machine stops
	want(t, mustOpen(t, dir, l), l, "xr")
}

// What a Keep that failed has made is forgotten, and what was there before is found
// again: by the next that is kept, and by a shredding.
func TestAFailedKeepIsForgotten(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A", "B")
	path, away := filepath.Join(dir, fileName(0)), filepath.Join(dir, "away")
	if err := os.Rename(path, away); err != nil {
		t.Fatal(err)
	}
	facts, entries := story(t, 2, "xA", "A", "-")
	if err := k.Keep(facts, entries); writ.CodeOf(err) != writ.CodeStore {
		t.Fatalf("kept without a file: %v", err)
	}
	if err := os.Rename(away, path); err != nil {
		t.Fatal(err)
	}
	file(t, k, l, 2, "A", "-")
	if a, day := l.entries[2].EvidenceKey, l.entries[3].EvidenceKey; a != 1 || day != 3 {
		t.Errorf("keys %d and %d", a, day)
	}
	want(t, k, l, "rrrr")
	file(t, k, l, 2, "xA")
	for _, k := range []*Keys{k, mustOpen(t, dir, l)} {
		want(t, k, l, "xrxrr")
	}
	// When nobody knows what the disk holds, nothing is kept any more.
	k.files.failed = errors.New("the disk is gone")
	if facts, entries := story(t, 5, "B"); writ.CodeOf(k.Keep(facts, entries)) != writ.CodeInternal {
		t.Error("kept on a disk that failed")
	}
}

// Before it is destroyed a key is held to its owner: in a file that was changed meanwhile
// nobody else's is.
func TestNobodyElsesKeyIsDestroyed(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	k := mustOpen(t, dir, l)
	file(t, k, l, 2, "A", "B")
	b := mustRead(t, dir, fileName(0))
	_, second := slotOf(t, dir, 2)
	mustWrite(t, dir, fileName(0), append(append(b[:fileHead:fileHead], second...), second...))
	file(t, k, l, 1, "xA")
	if err := k.Filed(); writ.CodeOf(err) != writ.CodeStore || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
	if s, _ := slotOf(t, dir, 2); s.state != live {
		t.Error("the key of another run was destroyed")
	}
}

// Only the last file may end anywhere; none has another kind of key, or more than fit.
func TestFilesInFull(t *testing.T) {
	one := slot{owner: ownerRun(runA), state: live}.append(nil)
	b := append(header(0), one...)
	if _, _, err := parseFile(b[:len(b)-1], 0, false); err == nil {
		t.Error("a file before the last one was cut off")
	}
	if slots, cut, err := parseFile(b[:len(b)-1], 0, true); err != nil || len(slots) != 0 || cut != fileHead {
		t.Errorf("the last one: %d slots, cut at %d, %v", len(slots), cut, err)
	}
	for _, state := range []byte{0, shredded + 1} {
		if _, ok := parseSlot(slot{owner: ownerRun(runA), state: state}.append(nil)); ok {
			t.Errorf("a key in state %d", state)
		}
	}
	if _, _, err := parseFile(append(header(0), bytes.Repeat(one, perFile)...), 0, false); err != nil {
		t.Error(err)
	}
	if _, _, err := parseFile(append(header(0), bytes.Repeat(one, perFile+1)...), 0, true); err == nil {
		t.Error("a file with a key too many")
	}
}
