package daemon

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
	"github.com/writ-gateway/writ/writtest"
)

// examined is what the doctor says of each thing it looked at; wrong are those
// it found something against.
func examined(t *testing.T, cfg Config) (all, wrong map[string]string) {
	t.Helper()
	all, wrong = map[string]string{}, map[string]string{}
	for _, f := range Examine(t.Context(), cfg) {
		all[f.What] = f.Detail
		if f.Err != nil {
			wrong[f.What] = f.Err.Error()
			if e, ok := errors.AsType[*writ.Error](f.Err); ok {
				wrong[f.What] += " " + e.Hint
			}
		}
	}
	return all, wrong
}

func wantWrong(t *testing.T, cfg Config, what, text string) {
	t.Helper()
	_, wrong := examined(t, cfg)
	if len(wrong) != 1 || !strings.Contains(wrong[what], text) {
		t.Errorf("want only %s to be wrong (%s), got %v", what, text, wrong)
	}
}

// What keeps a gateway from starting, the doctor finds: each case also checks
// that a start is refused.
func TestDoctorFindsWhatAStartRefuses(t *testing.T) {
	move := func(t *testing.T, path string) {
		t.Helper()
		if err := os.Rename(path, path+".aside"); err != nil {
			t.Fatal(err)
		}
	}
	put := func(t *testing.T, path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		what, text string
		spoil      func(t *testing.T, cfg *Config)
		starts     bool // it starts all the same
	}{
		"a damaged session key":    {"keys", "damaged", func(t *testing.T, cfg *Config) { put(t, filepath.Join(cfg.Keys, sessionKeyFile), "x") }, false},
		"a damaged key of secrets": {"keys", "damaged", func(t *testing.T, cfg *Config) { put(t, filepath.Join(cfg.Keys, secretsKeyFile), "x") }, false},
		"an open keys directory": {"keys", "chmod 700", func(t *testing.T, cfg *Config) {
			if err := os.Chmod(cfg.Keys, 0o777); err != nil {
				t.Fatal(err)
			}
		}, false},
		"no keys":             {"gate", "holds no keys", func(t *testing.T, cfg *Config) { move(t, cfg.Keys) }, false},
		"the keys of another": {"gate", "signed with key", func(t *testing.T, cfg *Config) { cfg.Keys = otherKeys(t) }, false},
		"no ledger": {"ledger", "missing", func(t *testing.T, cfg *Config) {
			move(t, filepath.Join(cfg.Data, ledgerDir))
			trimStore(t, *cfg)
		}, false},
		"a damaged ledger": {"ledger", "cannot be read", func(t *testing.T, cfg *Config) { damageLedger(t, cfg) }, false},
		"a store behind":   {"ledger", "behind its ledger", func(t *testing.T, cfg *Config) { move(t, filepath.Join(cfg.Data, boltFile)); emptyStore(t, *cfg) }, false},
		"a ledger behind its log": {"log", "writ log next", func(t *testing.T, cfg *Config) {
			move(t, filepath.Join(cfg.Data, boltFile))
			move(t, filepath.Join(cfg.Data, ledgerDir))
			emptyStore(t, *cfg)
			emptyLedger(t, *cfg)
		}, false},
		"a log that is frozen": {"log", "writ log next", func(t *testing.T, cfg *Config) {
			if _, err := NextLog(t.Context(), *cfg, NextLogOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			move(t, filepath.Join(cfg.Keys, receipts.FileLogShard))
		}, false},
		"a taken address":        {"address", "taken", func(t *testing.T, cfg *Config) { cfg.Listen = takenAddress(t) }, false},
		"a directory for others": {"data", "chmod 700", func(t *testing.T, cfg *Config) { _ = os.Chmod(cfg.Data, 0o755) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			d, _, _ := start(t, data)
			stopDaemon(t, d)
			cfg := d.cfg
			if all, wrong := examined(t, cfg); len(wrong) > 0 || all["ledger"] == "" || all["gate"] == "" || all["address"] == "" {
				t.Fatalf("before: %v, wrong %v", all, wrong)
			}
			c.spoil(t, &cfg)
			wantWrong(t, cfg, c.what, c.text)
			again := New(cfg, d.log)
			err := again.Start(t.Context())
			stopDaemon(t, again)
			if (err == nil) != c.starts {
				t.Errorf("the start: %v", err)
			}
		})
	}
}

func otherKeys(t *testing.T) string {
	t.Helper()
	cfg, err := Load("", noEnv, map[string]string{"data": t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(cfg); err != nil {
		t.Fatal(err)
	}
	return cfg.Keys
}

// damageLedger changes the first receipt. Damage to the last group that was synced
// is taken for a torn end, and what the gateway wrote may be one group, or not
// there yet: two more groups come behind it.
func damageLedger(t *testing.T, cfg *Config) {
	t.Helper()
	dir := filepath.Join(cfg.Data, ledgerDir)
	l, err := ledger.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := writ.Receipt{ID: writ.ReceiptID(writ.PrefixReceipt + strings.Repeat("0", 26)), Seq: l.Last() + 1}
		if err := l.Append([]ledger.Entry{{Receipt: r}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("%v, %v", segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	b[64] ^= 1
	if err := os.WriteFile(segments[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func emptyStore(t *testing.T, cfg Config) {
	t.Helper()
	st, err := openStore(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

func emptyLedger(t *testing.T, cfg Config) {
	t.Helper()
	l, err := ledger.Open(filepath.Join(cfg.Data, ledgerDir))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func trimStore(t *testing.T, cfg Config) {
	t.Helper()
	st, err := openStore(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	if err := st.Trim(t.Context(), shard, 1); err != nil {
		t.Fatal(err)
	}
}

func takenAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// A gateway that runs is asked; another one at the address it last had is not
// taken for it, and a store that is named is contacted all the same.
func TestDoctorBesideAGateway(t *testing.T) {
	d, _, _ := start(t, filepath.Join(t.TempDir(), "data"))
	all, wrong := examined(t, d.cfg)
	if len(wrong) > 0 || !strings.Contains(all["gateway"], d.URL()) || all["address"] != "" || all["store"] != "" {
		t.Errorf("got %v, wrong %v", all, wrong)
	}
	cfg := d.cfg
	cfg.Store = "unix:///nowhere/redis.sock"
	wantWrong(t, cfg, "store", "")

	// Stopped, and its address taken over by another.
	mine, _, _ := start(t, filepath.Join(t.TempDir(), "data"))
	stopDaemon(t, mine)
	if err := os.WriteFile(filepath.Join(mine.cfg.Data, urlFile), []byte(d.URL()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, wrong = examined(t, mine.cfg)
	if len(wrong) > 0 || !strings.Contains(all["gateway"], "another gateway") || all["ledger"] == "" {
		t.Errorf("got %v, wrong %v", all, wrong)
	}
}

func TestDoctorComparesPoliciesOnASharedStore(t *testing.T) {
	server := redistest.Start(t)
	d, _, _ := start(t, filepath.Join(t.TempDir(), "data"), func(c *Config) { c.Store = server.URL() })
	stopDaemon(t, d)
	if _, wrong := examined(t, d.cfg); len(wrong) > 0 {
		t.Fatalf("got %v", wrong)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "packs", "budgets", "pack.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte("owner: writ"), []byte("owner: somebody"), 1)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := d.cfg
	cfg.Policies = dir
	all, wrong := examined(t, cfg)
	if len(wrong) > 0 || !strings.Contains(all["in force"], "only staged") {
		t.Fatalf("got %v, wrong %v", all, wrong)
	}
	cfg.Activate = true
	all, wrong = examined(t, cfg)
	if len(wrong) > 0 || !strings.Contains(all["in force"], "take its place") {
		t.Fatalf("got %v, wrong %v", all, wrong)
	}
}

// The doctor changes nothing but the store's own bookkeeping of who opened it: what a crash
// left at the end of the ledger stays for who looks closer.
func TestDoctorChangesNothing(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	d, _, _ := start(t, data)
	stopDaemon(t, d)
	segments, err := filepath.Glob(filepath.Join(data, ledgerDir, "*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("%v, %v", segments, err)
	}
	f, err := os.OpenFile(segments[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("wrcp and no more")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	dirs := []string{filepath.Join(data, ledgerDir), filepath.Join(data, logDir), d.cfg.Keys}
	var before []map[string]string
	for _, dir := range dirs {
		before = append(before, writtest.Files(t, dir))
	}
	all, wrong := examined(t, d.cfg)
	if len(wrong) > 0 || !strings.Contains(all["ledger"], "its last 16 bytes are the rest of a write") {
		t.Errorf("%v, wrong %v", all, wrong)
	}
	for i, dir := range dirs {
		writtest.SameFiles(t, dir, before[i])
	}
}
