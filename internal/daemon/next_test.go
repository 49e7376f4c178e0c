package daemon

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/s3/s3test"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
	"github.com/writ-gateway/writ/writtest"
)

// ran starts a gateway on a data directory, and stops it: its log has all there is then. A
// start leaves receipts.
func ran(t *testing.T, data string, tune ...func(*Config)) (cfg Config, size int64, verifier string) {
	t.Helper()
	d, _, _ := start(t, data, tune...)
	stopDaemon(t, d)
	verifier, err := d.tlog.Key().Verifier()
	if err != nil {
		t.Fatal(err)
	}
	return d.cfg, d.tlog.Latest().Size, verifier
}

// keyOf is a verifier key without its name, and what follows from that.
func keyOf(verifier string) string { return strings.SplitN(verifier, "+", 3)[2] }

func refusedStart(t *testing.T, cfg Config, word string) {
	t.Helper()
	d := New(cfg, slog.New(slog.DiscardHandler))
	err := d.Start(t.Context())
	stopDaemon(t, d)
	e := writ.AsError("", err)
	if err == nil || !strings.Contains(err.Error()+" "+e.Hint, word) {
		t.Errorf("the start: %v (%s)", err, e.Hint)
	}
}

func next(t *testing.T, cfg Config, o NextLogOptions, refused string) FrozenLog {
	t.Helper()
	r, err := NextLog(t.Context(), cfg, o)
	if (err != nil) != (refused != "") || err != nil && !strings.Contains(err.Error()+" "+writ.AsError("", err).Hint, refused) {
		t.Fatalf("%+v: %v (%s)", o, err, writ.AsError("", err).Hint)
	}
	return r
}

// In an object store as in a directory: a ledger that is another one, with keys that are
// the same. Nothing of what was published changes.
func TestNextLogInAnObjectStore(t *testing.T) {
	s := s3test.New()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	secret := filepath.Join(t.TempDir(), "credentials")
	text := fmt.Sprintf("aws_access_key_id=%s\naws_secret_access_key=%s\naws_session_token=%s\n", s.Credentials.AccessKey, s.Credentials.Secret, s.Credentials.Token)
	if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	objects := func() map[string]string {
		out := map[string]string{}
		for _, key := range s.Keys() {
			body, _ := s.Object(key)
			out[key] = string(body)
		}
		return out
	}
	data, keys := t.TempDir(), filepath.Join(t.TempDir(), "keys")
	tiles := func(c *Config) {
		c.Tiles, c.TilesKey, c.Keys = "s3://tiles/of/writ?region="+s.Region+"&endpoint="+srv.URL, secret, keys
	}
	_, size, first := ran(t, data, tiles)
	before := objects()
	other := filepath.Join(t.TempDir(), "data") // the store and the ledger are gone, the keys are not
	cfg := func() Config {
		cfg, err := Load("", noEnv, map[string]string{"data": other, "listen": "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		tiles(&cfg)
		return cfg
	}()
	next(t, cfg, NextLogOptions{}, "no ledger in the data directory")
	refusedStart(t, cfg, "writ log next")
	if r := next(t, cfg, NextLogOptions{DryRun: true}, ""); len(r.Wrong) != 1 || r.Done || int64(len(r.Orphans)) != size {
		t.Errorf("%+v", r)
	}
	if now := objects(); len(now) != len(before) {
		t.Errorf("a dry run has written: %v", s.Keys())
	}
	r := next(t, cfg, NextLogOptions{}, "")
	if !r.Done || r.Frozen.Key != first || r.Size != size || !strings.HasPrefix(r.Next.Key, "s2.writ.local+") || !strings.Contains(r.Next.Where, "s2/") {
		t.Errorf("%+v", r)
	}
	d, _, _ := start(t, other, tiles)
	stopDaemon(t, d)
	if name := d.tlog.Key().Name(); name != "s2.writ.local" || d.tlog.Latest().Size == 0 {
		t.Errorf("it goes on as %s, with %d", name, d.tlog.Latest().Size)
	}
	now := objects()
	for key, body := range before {
		if now[key] != body {
			t.Errorf("%s has changed", key)
		}
	}
	for _, name := range []string{"checkpoint", tlog.PreviousPath, tlog.OrphansPath} {
		if now["of/writ/s2/"+name] == "" {
			t.Errorf("there is no s2/%s: %v", name, s.Keys())
		}
	}
}

// A key that is lost cannot sign: the next shard has another. Nothing wrong is nothing to
// freeze, unless that is wanted; and what a crash left half done is ended by a second call.
func TestNextLogHasAnotherKey(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	cfg, size, first := ran(t, data)
	log := filepath.Join(data, logDir)
	before := writtest.Files(t, log)
	next(t, cfg, NextLogOptions{}, "nothing here is wrong")
	if r := next(t, cfg, NextLogOptions{DryRun: true}, ""); len(r.Wrong) > 0 || r.Common != size {
		t.Errorf("%+v", r)
	}
	damaged := filepath.Join(log, "tile", "entries", fmt.Sprintf("000.p/%d", size))
	if err := os.Rename(damaged, damaged+".aside"); err != nil {
		t.Fatal(err)
	}
	next(t, cfg, NextLogOptions{}, "it is made again, the same")
	text, err := os.ReadFile(damaged + ".aside")
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-100] ^= 1 // no other receipt, though it reads as one
	if err := os.WriteFile(damaged, text, 0o644); err != nil {
		t.Fatal(err)
	}
	refusedStart(t, cfg, "writ log next --dry-run")
	next(t, cfg, NextLogOptions{}, "it is made again, the same")
	if err := os.Rename(damaged+".aside", damaged); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cfg.Keys, receipts.FileLogKey)); err != nil {
		t.Fatal(err)
	}
	refusedStart(t, cfg, "--new-key")
	next(t, cfg, NextLogOptions{}, "--new-key")
	writtest.SameFiles(t, log, before)
	r := next(t, cfg, NextLogOptions{NewKey: true}, "")
	if !r.Done || r.Frozen.Key != first || keyOf(r.Next.Key) == keyOf(first) || len(r.Orphans) > 0 || r.Common != size {
		t.Errorf("%+v", r)
	}
	// The keys do not say so: they are older, or it was killed just then.
	if err := os.Remove(filepath.Join(cfg.Keys, receipts.FileLogShard)); err != nil {
		t.Fatal(err)
	}
	refusedStart(t, cfg, "writ log next")
	again := next(t, cfg, NextLogOptions{}, "")
	if !again.Done || again.Next != r.Next || !slices.Equal(again.Wrong, []string{"the next shard is begun, and the keys do not say so yet"}) {
		t.Errorf("%+v, and before %+v", again, r)
	}
	_, grown, verifier := ran(t, data)
	if verifier != r.Next.Key || grown < size {
		t.Errorf("it goes on with %s, and %d", verifier, grown)
	}
	// The keys are older, and lack the one that has signed what was published since.
	aside := t.TempDir()
	own := []string{receipts.FileLogShard, "log-2.key", "log-2.pub"}
	move := func(from, to string) {
		t.Helper()
		for _, name := range own {
			if err := os.Rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	move(cfg.Keys, aside)
	older := writtest.Files(t, cfg.Keys)
	refusedStart(t, cfg, "writ log next")
	next(t, cfg, NextLogOptions{}, "restore log.shard and the keys of the log")
	if r := next(t, cfg, NextLogOptions{DryRun: true}, ""); len(r.Wrong) != 2 || r.Next.Key != "" {
		t.Errorf("%+v", r)
	}
	writtest.SameFiles(t, cfg.Keys, older)
	if r := next(t, cfg, NextLogOptions{Force: true}, ""); !r.Done || r.Next.Key != "" {
		t.Errorf("%+v", r)
	}
	move(aside, cfg.Keys)
	if cp, err := tlog.Verify(t.Context(), log, tlog.Trust{Log: first}, nil); err != nil || cp.Size != size {
		t.Errorf("the frozen log: %v, %v", cp, err)
	}
	if cp, err := tlog.Verify(t.Context(), filepath.Join(log, "s2"), tlog.Trust{Log: verifier}, nil); err != nil || cp.Size != grown {
		t.Errorf("the next log: %v, %v", cp, err)
	}
	// Somebody was shown another log, and here nothing is wrong.
	if r := next(t, cfg, NextLogOptions{Force: true}, ""); !r.Done || r.Next.Log != "s3.writ.local" || keyOf(r.Next.Key) != keyOf(verifier) {
		t.Errorf("%+v", r)
	}
	held, _, _ := start(t, data)
	next(t, cfg, NextLogOptions{Force: true}, "held by pid")
	stopDaemon(t, held)
}

// Killed after any of its writes, it ends what it began when it is run again, and the same;
// until the log is frozen it may begin otherwise, and nothing is left of what it made.
func TestNextLogIsKilled(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	cfg, _, first := ran(t, data)
	if err := os.Remove(filepath.Join(data, boltFile)); err != nil { // it needs none, and copies are quick without
		t.Fatal(err)
	}
	copied := func() (c Config) {
		c = cfg
		c.Data = filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(c.Data, os.DirFS(data)); err != nil {
			t.Fatal(err)
		}
		c.Keys = filepath.Join(c.Data, "keys")
		return c
	}
	begun := NextLogOptions{NewKey: true, Force: true}
	whole := copied()
	done := next(t, whole, begun, "")
	made := []string{"keys/log-2.key", "keys/log-2.pub", "log/s2/" + tlog.OrphansPath, "log/s2/" + tlog.PreviousPath, "keys/" + receipts.FileLogShard}
	before, after := writtest.Files(t, data), writtest.Files(t, whole.Data)
	for path := range after {
		if _, was := before[path]; !was && !slices.Contains(made, path) {
			t.Errorf("it has written %s, of which this test does not know", path)
		}
	}
	killed := func(n int) Config {
		c := copied()
		for _, path := range made[:n] {
			err := os.MkdirAll(filepath.Dir(filepath.Join(c.Data, path)), 0o700)
			if err == nil {
				err = os.WriteFile(filepath.Join(c.Data, path), []byte(after[path]), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	for n := range made {
		c := killed(n)
		frozen := n > slices.Index(made, "log/s2/"+tlog.PreviousPath)
		if err := notFrozen(tlog.Dir(filepath.Join(c.Data, logDir)), 1); (err != nil) != frozen {
			t.Errorf("a start after %d writes: %v", n, err)
		}
		r := next(t, c, begun, "")
		if !r.Done || r.Next.Log != done.Next.Log || n > 0 && r.Next.Key != done.Next.Key {
			t.Errorf("after %d writes: %+v", n, r)
		}
		if frozen {
			continue
		}
		c = killed(n)
		if r := next(t, c, NextLogOptions{Force: true}, ""); !r.Done || keyOf(r.Next.Key) != keyOf(first) {
			t.Errorf("after %d writes, with the key there is: %+v", n, r)
		}
		for _, path := range made[:2] {
			if _, err := os.Stat(filepath.Join(c.Data, path)); err == nil {
				t.Errorf("after %d writes: %s is left", n, path)
			}
		}
	}
}
