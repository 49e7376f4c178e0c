package pack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	xtlog "golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// What is exported verifies, whatever it is of, and so do the chain of its run and who
// closed it.
func TestAPackVerifies(t *testing.T) {
	l, c := story(t)
	n := int64(len(l.list))
	for name, o := range map[string]Options{
		"log":     {},
		"since":   {Earlier: l.checkpoint(5)},
		"empty":   {Earlier: l.checkpoint(0)},
		"same":    {Earlier: l.checkpoint(len(l.list))},
		"run":     {Scope: Scope{Kind: ScopeRun, Run: c.run}},
		"to":      {Scope: Scope{Kind: ScopeRange, First: 0, Last: n - 1}},
		"one":     {Scope: Scope{Kind: ScopeRange, First: 3, Last: 3}},
		"earlier": {Checkpoint: l.checkpoint(9)},
	} {
		t.Run(name, func(t *testing.T) {
			r := verify(t, l.export(o), l.trust(), Ask{})
			if r.Exit != 0 || r.Trust != TrustPinned || !r.Rules || r.Receipts == 0 || r.Evidence != r.Receipts || r.Policies != 1 {
				t.Errorf("got %+v", r)
			}
			if name == "log" || name == "run" || name == "to" {
				r := verify(t, l.export(o), l.trust(), Ask{Run: c.run, Close: true})
				if r.Exit != 0 || r.Run.State != "done" || len(r.Run.Verdicts) != 2 || r.Run.By.Session != c.judge.Session || r.Run.Receipts != 7 || r.Run.Tasks != 1 {
					t.Errorf("got %+v, run %+v", r, r.Run)
				}
			}
		})
	}
	if r := verify(t, l.export(Options{}), Trust{}, Ask{}); r.Exit != 0 || r.Trust != TrustNone {
		t.Errorf("without keys: got %+v", r)
	}
}

// The same at the same checkpoint is the same bytes, however often and whatever came
// since.
func TestAPackIsItsBytes(t *testing.T) {
	l, c := story(t)
	at := l.checkpoint(len(l.list))
	for _, s := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}} {
		archive := func() []byte {
			var b bytes.Buffer
			if err := Write(context.Background(), Tar(&b), l, Options{Checkpoint: at, LogKey: l.logKey(), Scope: s, Evidence: true}); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
		first := archive()
		l.do(call{what: "session.close", by: c.worker, args: map[string]any{}, moves: []writ.Change{move("session", string(c.worker.Session), "active", "closed")}})
		if !bytes.Equal(first, archive()) {
			t.Errorf("%s: two packs of the same differ", s.Kind)
		}
		l.list = l.list[:len(l.list)-1]
		delete(l.last, "session/"+string(c.worker.Session))
	}
}

// A pack has the policies that receipts were judged by, also those that are in force no more, and none that never were: these can be
// gone the next time.
func TestPoliciesThatWereInForce(t *testing.T) {
	l, c := story(t)
	other := func(n byte) string { return hex.EncodeToString(sha256Of([]byte{n})) }
	l.do(call{what: "policy.stage", by: c.operator, args: map[string]any{}, moves: []writ.Change{move("bundle", other(1), "", "staged")}})
	l.do(call{what: "policy.stage", by: c.operator, args: map[string]any{}, moves: []writ.Change{move("bundle", other(2), "", "staged")}})
	l.do(call{what: "policy.activate", by: c.operator, args: map[string]any{}, moves: []writ.Change{move("bundle", other(1), "staged", "active"), move("bundle", bundleID, "active", "retired")}})
	before := len(l.list)
	l.do(call{what: "policy.activate", by: c.operator, args: map[string]any{}, moves: []writ.Change{move("bundle", other(2), "staged", "active"), move("bundle", other(1), "active", "retired")}})
	for n, want := range map[int][]string{before: {other(1), bundleID}, len(l.list): {other(1), other(2), bundleID}} {
		l.asked = nil
		f := l.export(Options{Checkpoint: l.checkpoint(n), Scope: Scope{Kind: ScopeRun, Run: c.run}})
		for i, id := range want {
			want[i] = "sha256:" + id
		}
		slices.Sort(want)
		slices.Sort(l.asked) // what is there is asked for twice
		if l.asked = slices.Compact(l.asked); !slices.Equal(l.asked, want) || f[policyName(bundleID)] == nil {
			t.Errorf("of %d receipts: got %v, want %v", n, l.asked, want)
		}
	}
}

// A directory and an archive hold the same, and what is wrong with either is found.
func TestFoldersAndArchives(t *testing.T) {
	l, c := story(t)
	want := l.export(Options{})
	dir, tarred := filepath.Join(t.TempDir(), "pack"), filepath.Join(t.TempDir(), "pack.tar")
	sink, err := Directory(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(tarred)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Sink{sink, Tar(f)} {
		if err := Write(context.Background(), s, l, Options{Checkpoint: l.checkpoint(len(l.list)), LogKey: l.logKey(), Scope: Scope{Kind: ScopeLog}, Evidence: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, tarred} {
		p, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got := files{}
		for _, name := range p.names {
			if got[name], err = p.Read(name); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v", path, slices.Sorted(maps.Keys(got)))
		}
		if r, err := Verify(p, l.trust(), Ask{Run: c.run, Close: true}); err != nil || r.Exit != 0 {
			t.Errorf("%s: got %+v, %v", path, r, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	// What has evidence is nobody else's; what has none anybody's.
	open := filepath.Join(t.TempDir(), "open")
	if sink, err = Directory(open, false); err != nil {
		t.Fatal(err)
	}
	if err := sink.File(receiptName(1), nil); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{
		dir: 0o700, filepath.Join(dir, "evidence"): 0o700, filepath.Join(dir, evidenceName(1)): 0o600, filepath.Join(dir, FileReadme): 0o600,
		open: 0o755, filepath.Join(open, receiptName(1)): 0o644,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm() | want&0o055; got != want { // others may have been masked out
			t.Errorf("%s: mode %o, want %o", path, info.Mode().Perm(), want)
		}
	}
	// A file that is larger than any is not read.
	if err := os.WriteFile(filepath.Join(open, FileCheckpoint), make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	large, err := Open(open)
	if err != nil {
		t.Fatal(err)
	}
	if large.has(FileCheckpoint) || !slices.Equal(large.bad, []Code{PackMalformed}) {
		t.Errorf("a large file: got %v, %v", large.names, large.bad)
	}
	if err := large.Close(); err != nil {
		t.Error(err)
	}
	// A link in a folder leads nowhere; a file twice in an archive is said.
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "evidence/link")); err != nil {
		t.Fatal(err)
	}
	p, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(p, l.trust(), Ask{}); err != nil || !r.Has(PackMalformed) {
		t.Errorf("a link: got %+v, %v", r, err)
	}
	var twice bytes.Buffer
	w := tar.NewWriter(&twice)
	for range 2 {
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Size: int64(len(want[name])), Mode: 0o600, Typeflag: tar.TypeReg}), func() error { _, err := w.Write(want[name]); return err }()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), os.WriteFile(tarred, twice.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if p, err = Open(tarred); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(p, l.trust(), Ask{}); err != nil || !r.Has(FileTwice) || r.Exit != 1 {
		t.Errorf("twice: got %+v, %v", r, err)
	}
}

// Who closed no run in particular nobody asks.
func TestARunIsAskedForByItsID(t *testing.T) {
	l, c := story(t)
	f := l.export(Options{})
	for _, ask := range []Ask{{Close: true}, {Run: "7"}, {Run: c.run[1:], Close: true}} {
		if r, err := Verify(f.pack(), l.trust(), ask); err == nil || r.Verdict != "" {
			t.Errorf("%+v: got %+v", ask, r)
		}
	}
	unknown := Options{Checkpoint: l.checkpoint(len(l.list)), LogKey: l.logKey(), Scope: Scope{Kind: ScopeRun, Run: writ.RunID(ulid("run", 9))}}
	if err := Write(t.Context(), files{}, l, unknown); !errors.Is(err, ErrNoRun) {
		t.Errorf("a pack of a run that is not there: %v", err)
	}
}

// No pack is made of what does not fit together.
func TestWhatDoesNotFitIsNoPack(t *testing.T) {
	l, _ := story(t)
	other, _ := story(t)
	other.list = slices.Clone(other.list)
	other.list[3].Sig = other.list[2].Sig
	at := l.checkpoint(len(l.list))
	long, err := note.Sign(&note.Note{Text: fmt.Sprintf("log.example.org\n%d\n%s\n", maxReceipts+2, xtlog.Hash{})}, l.log)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		src *lab
		o   Options
	}{
		"other receipts": {other, Options{Checkpoint: at}},
		"too few":        {&lab{t: t, priv: l.priv, list: l.list[:4]}, Options{Checkpoint: at}},
		"no such range":  {l, Options{Checkpoint: at, Scope: Scope{Kind: ScopeRange, First: 2, Last: int64(len(l.list))}}},
		"nothing":        {l, Options{Checkpoint: l.checkpoint(0)}},
		"later earlier":  {l, Options{Checkpoint: l.checkpoint(4), Earlier: at}},
		"forked earlier": {l, Options{Checkpoint: at, Earlier: other.checkpoint(5)}},
		"too many":       {l, Options{Checkpoint: long}},
		"too long":       {l, Options{Checkpoint: long, Scope: Scope{Kind: ScopeRange, First: 1, Last: maxReceipts + 1}}},
		"other key":      {l, Options{Checkpoint: newLab(t, 1, 9, "log.example.org").checkpoint(0)}},
	} {
		if c.o.LogKey = l.logKey(); c.o.Scope.Kind == "" {
			c.o.Scope.Kind = ScopeLog
		}
		err := Write(context.Background(), files{}, c.src, c.o)
		if err == nil || strings.HasPrefix(name, "too ") && name != "too few" && !strings.Contains(err.Error(), "in ranges") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The README's lines are filled in, and every file has its sum.
func TestReadmeAndSums(t *testing.T) {
	l, c := story(t)
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
	for _, want := range []string{
		"--run " + string(c.run), l.logKey(), "how " + string(c.run) + " became done",
		"--type https://writ-gateway.github.io/writ/attestation/transition/v1 --digest ", receiptName(int64(len(l.list) - 1)),
	} {
		if !strings.Contains(string(f[FileReadme]), want) {
			t.Errorf("no %q in\n%s", want, f[FileReadme])
		}
	}
	for name, text := range f {
		if want := fmt.Sprintf("%x  %s\n", sha256.Sum256(text), name); name != FileSums && !strings.Contains(string(f[FileSums]), want) {
			t.Errorf("no sum of %s", name)
		}
	}
}

// The form of a pack does not change: this one was made once, and is made again the same.
func TestThePackOfTheVectors(t *testing.T) {
	l, c := story(t)
	var b bytes.Buffer
	o := Options{Checkpoint: l.checkpoint(len(l.list)), Earlier: l.checkpoint(9), LogKey: l.logKey(), Scope: Scope{Kind: ScopeRun, Run: c.run}, Evidence: true}
	if err := Write(context.Background(), Tar(&b), l, o); err != nil {
		t.Fatal(err)
	}
	const dir = "../../testdata/vectors/pack"
	writtest.GoldenFile(t, *update, filepath.Join(dir, "run.tar"), b.Bytes())
	writtest.GoldenFile(t, *update, filepath.Join(dir, "receipt.pub"), l.pub())
	writtest.GoldenFile(t, *update, filepath.Join(dir, "log.vkey"), []byte(l.logKey()+"\n"))
	p, err := Open(filepath.Join(dir, "run.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	r, err := Verify(p, l.trust(), Ask{Run: c.run, Close: true})
	if err != nil || r.Exit != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	report, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	writtest.GoldenFile(t, *update, filepath.Join(dir, "report.json"), append(report, '\n'))
}
