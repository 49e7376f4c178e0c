package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// frozenLog is what 'log next' says.
type frozenLog struct {
	Wrong  []string
	Frozen struct {
		Log string
		Key string `json:"verifier_key"`
	}
	Size, Common int64
	CommonRoot   string `json:"common_root"`
	Orphans      []struct {
		Index  int64
		Digest string
		Other  bool
	}
	Next struct {
		Log string
		Key string `json:"verifier_key"`
	}
	Done bool
}

// next freezes the log of the first gateway, which does not run.
func (w *world) next(code int, args ...string) (f frozenLog) {
	w.t.Helper()
	defer os.Remove(filepath.Join(w.gw[0].data, "log-seen.json")) // what commands keep of the log that is frozen
	args = append([]string{"log", "next", "-o", "json", "--data", w.gw[0].data}, args...)
	if w.redis != nil {
		args = append(args, "--keys", filepath.Join(filepath.Dir(w.gw[0].data), "keys"))
	}
	r := command(w.t, args...)
	if err := json.Unmarshal([]byte(r.stdout), &f); r.code != code || err != nil {
		w.t.Fatalf("log next: %v, %s", err, r)
	}
	return f
}

// A log that has published what its ledger does not have any more is not written. It is
// frozen and shown as it was, what it published alone is listed, and the next one has all
// receipts there are, under another name.
func TestALogThatIsAheadOfItsLedger(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		data := w.gw[0].data
		log := filepath.Join(data, "log")
		c := newCast(t, w)
		c.enqueue("one", nil)
		w.inTheLogAsExported()
		var lose func()
		if w.redis == nil { // a backup, and not of the log
			w.gw[0].stop()
			backup := t.TempDir()
			for _, name := range []string{"ledger", "writ.db"} {
				copied(t, filepath.Join(data, name), filepath.Join(backup, name))
			}
			w.gw[0].start()
			lose = func() {
				for _, name := range []string{"ledger", "writ.db"} {
					if err := errorsOf(os.RemoveAll(filepath.Join(data, name)), os.Rename(filepath.Join(backup, name), filepath.Join(data, name))); err != nil {
						t.Fatal(err)
					}
				}
			}
		} else { // another store and another ledger
			lose = func() {
				w.redis.Command("FLUSHALL")
				if err := os.RemoveAll(filepath.Join(data, "ledger")); err != nil {
					t.Fatal(err)
				}
			}
		}
		lost := c.op.at(w.gw[0]).ok(200, "GET", "/v1/tasks/"+c.enqueue("two", nil), nil).str("receipt")
		auditor := w.session("ada", writ.RoleAuditor, "").at(w.gw[0])
		var got struct {
			Seq    int64
			Bundle bundled
		}
		r := auditor.ok(200, "GET", "/v1/receipts/"+lost+"?wait=included", nil)
		if err := json.Unmarshal(r.body, &got); err != nil || len(got.Bundle.Material.Entries) != 1 {
			t.Fatalf("%v, %s", err, r)
		}
		env := got.Bundle.Envelope
		digest := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(env.PayloadType), env.PayloadType, len(env.Payload), env.Payload))
		for _, g := range w.gw {
			g.stop()
		}
		receiptKey := w.publicKey()
		lose()

		refused := command(t, w.gw[0].args...)
		if refused.code == 0 || !strings.Contains(refused.stderr, "the log has published") || !strings.Contains(refused.stderr, "writ log next") {
			t.Fatalf("the start: %s", refused)
		}
		before, keys := writtest.Files(t, log), writtest.Files(t, filepath.Dir(receiptKey))
		said := w.next(1, "--dry-run")
		writtest.SameFiles(t, log, before)
		writtest.SameFiles(t, filepath.Dir(receiptKey), keys)
		var more []string
		if w.redis != nil { // at the same time it has another key
			more = append(more, "--new-key")
		}
		f := w.next(0, more...)
		for path, text := range before {
			if now, err := os.ReadFile(filepath.Join(log, path)); err != nil || string(now) != text {
				t.Errorf("%s of the frozen log has changed: %v", path, err)
			}
		}
		if said.Done || len(said.Wrong) == 0 || !f.Done || f.Size != said.Size || f.Frozen.Log != "writ.local" || f.Next.Log != "s2.writ.local" || f.Next.Key == "" || (f.Common == 0) != (w.redis != nil) {
			t.Errorf("%+v, and before %+v", f, said)
		}
		if int64(len(f.Orphans)) != f.Size-f.Common {
			t.Fatalf("%d orphans of %d, %d in common", len(f.Orphans), f.Size, f.Common)
		}
		for i, o := range f.Orphans {
			if o.Index != f.Common+int64(i) || o.Other || o.Index == got.Seq && o.Digest != hex.EncodeToString(digest[:]) {
				t.Errorf("orphan %d is %+v", i, o)
			}
		}
		list, err := os.ReadFile(filepath.Join(log, "s2", "orphans.jsonl"))
		if err != nil || bytes.Count(list, []byte("\n")) != len(f.Orphans) || !bytes.Contains(list, fmt.Appendf(nil, `"index":%d,"digest":"%x"`, got.Seq, digest)) {
			t.Errorf("listed is %s, %v", list, err)
		}

		for _, g := range w.gw {
			g.start()
		}
		w.ready()
		w.op = w.operator()
		if w.redis != nil {
			c = newCast(t, w)
		}
		c.orc.gw = w.gw[0]
		c.enqueue("three", nil)
		w.goesOn(log, "s2", f.Next.Key)
		// Of the frozen one nothing has changed, and it verifies, with the orphans in it.
		if r := command(t, "log", "verify", log, "--log-key", f.Frozen.Key, "--key", receiptKey); r.code != 0 || !strings.Contains(r.stdout, fmt.Sprint(f.Size)) {
			t.Errorf("the frozen log: %s", r)
		}
		if f.Common > 0 { // and the next one begins as it does
			at := func(dir, key string) (v struct {
				RootAt string `json:"root_at"`
			},
			) {
				r := command(t, "log", "verify", dir, "--log-key", key, "--key", receiptKey, "--at", fmt.Sprint(f.Common), "-o", "json")
				if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || r.code != 0 || v.RootAt == "" {
					t.Errorf("%v, %s", err, r)
				}
				return v
			}
			if was, is := at(log, f.Frozen.Key), at(filepath.Join(log, "s2"), f.Next.Key); was != is || was.RootAt != f.CommonRoot {
				t.Errorf("the root of what both have is %v, %v and %s", was, is, f.CommonRoot)
			}
		}
		if r := command(t, "log", "verify", log, "--log-key", f.Next.Key, "--key", receiptKey); r.code != 1 {
			t.Errorf("the frozen log, with the key of the next: %s", r)
		}
		w.gw[0].stop()
		if r := command(t, "log", "next", "--data", data, "--keys", filepath.Dir(receiptKey)); r.code == 0 || !strings.Contains(r.stderr, "nothing here is wrong") {
			t.Errorf("once more: %s", r)
		}
		if w.redis == nil {
			return
		}
		// The key alone is changed: the other replica, which runs, tells of the new log.
		f = w.next(0, "--new-key")
		if len(f.Wrong)+len(f.Orphans) > 0 || f.Next.Log != "s3.writ.local" || f.Common != f.Size {
			t.Errorf("%+v", f)
		}
		w.gw[0].start()
		w.ready()
		w.goesOn(log, "s3", f.Next.Key)
		within(t, 10*time.Second, "the other replica tells of the new log", func() bool {
			text, err := base64.StdEncoding.DecodeString(w.op.at(w.gw[1]).ok(200, "GET", "/v1/runs/"+c.run, nil).header.Get("Writ-Checkpoint"))
			return err == nil && strings.HasPrefix(string(text), "s3.writ.local\n")
		})
	})
}

// goesOn checks that the log is the shard of a key, has all receipts, and that it and what
// is made of it verify.
func (w *world) goesOn(log, shard, key string) {
	w.t.Helper()
	_, all := w.export()
	last := string(all[len(all)-1].Predicate.ReceiptID)
	if r := w.op.at(w.gw[0]).ok(200, "GET", "/v1/receipts/"+last+"?wait=included", nil); r.at("included") != true {
		w.t.Fatalf("the log does not come up: %s", r)
	}
	head := w.op.at(w.gw[0]).ok(200, "GET", "/v1/log/head", nil)
	if head.str("verifier_key") != key || head.str("origin") != shard+".writ.local" {
		w.t.Errorf("the log is %s", head)
	}
	if r := command(w.t, "log", "verify", filepath.Join(log, shard), "--log-key", key, "--key", w.publicKey()); r.code != 0 {
		w.t.Errorf("the next log: %s", r)
	}
	pack := filepath.Join(w.t.(interface{ TempDir() string }).TempDir(), "pack.tar")
	if r := command(w.t, "export", "--data", w.gw[0].data, "--out", pack); r.code != 0 {
		w.t.Fatalf("export: %s", r)
	}
	if r := command(w.t, "pack", "verify", pack, "--log-key", key, "--key", w.publicKey()); r.code != 0 {
		w.t.Errorf("a pack of the next log: %s", r)
	}
}

// copied copies a file, or a directory with files in it.
func copied(t testing.TB, from, to string) {
	t.Helper()
	if info, err := os.Stat(from); err != nil {
		t.Fatal(err)
	} else if info.IsDir() {
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(from)
	if err := errorsOf(err, os.WriteFile(to, text, 0o600)); err != nil {
		t.Fatal(err)
	}
}
