package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// keyRow is a key as key.list shows it.
type keyRow struct {
	KeyID       string          `json:"key_id"`
	SPKI        string          `json:"spki"`
	Purpose     writ.KeyPurpose `json:"purpose"`
	State       writ.KeyState   `json:"state"`
	From        *int64          `json:"from"`
	Until       *int64          `json:"until"`
	RevokedFrom *int64          `json:"revoked_from"`
	Introduced  writ.ReceiptID  `json:"introduced"`
	Ready       []string        `json:"ready"`
	Waiting     []string        `json:"waiting"`
}

// keyPair is a receipt key pair that nobody has introduced.
type keyPair struct {
	KeyID, Public, text string
}

// newKey makes one in a directory, with the program's own command.
func (w *world) newKey(dir string) (k keyPair) {
	w.t.Helper()
	r := command(w.t, "key", "generate", "--purpose", "receipt", "--dir", dir, "-o", "json")
	var made struct {
		KeyID  string `json:"key_id"`
		Public string `json:"public"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &made); r.code != 0 || err != nil {
		w.t.Fatal(r, err)
	}
	text, err := os.ReadFile(made.Public)
	if err != nil {
		w.t.Fatal(err)
	}
	return keyPair{made.KeyID, made.Public, string(text)}
}

// receiptKeys are those of receipts, in order, and the file of keys, kept beside the data.
func (w *world) receiptKeys() (rows []keyRow, file string) {
	w.t.Helper()
	r := w.op.ok(200, "GET", "/v1/keys", nil)
	var page struct {
		Keys []keyRow        `json:"keys"`
		File json.RawMessage `json:"file"`
	}
	if err := json.Unmarshal(r.body, &page); err != nil {
		w.t.Fatal(err)
	}
	for _, k := range page.Keys {
		if k.Purpose == writ.KeyReceipt {
			rows = append(rows, k)
		}
	}
	file = filepath.Join(w.gw[0].data, "keys.json")
	if err := os.WriteFile(file, page.File, 0o644); err != nil {
		w.t.Fatal(err)
	}
	return rows, file
}

func (w *world) keysDir() string { return filepath.Dir(w.publicKey()) }

// rotate changes the receipt key with the program's own command.
func (w *world) rotate() result {
	w.t.Helper()
	return command(w.t, "key", "rotate", "--data", w.gw[0].data, "--keys", w.keysDir(), "-o", "json")
}

// proved verifies all receipts and the log with the file of keys, and says by which key
// each receipt was signed.
func (w *world) proved(file string, code int, words ...string) (signers map[int64]string, ids map[writ.ReceiptID]bool) {
	w.t.Helper()
	path := filepath.Join(w.gw[0].data, "receipts.jsonl")
	if r := command(w.t, "receipt", "export", "--data", w.gw[0].data, "--out", path); r.code != 0 {
		w.t.Fatalf("receipt export: %s", r)
	}
	within(w.t, 10*time.Second, "the log has all receipts", func() bool {
		return w.op.at(w.gw[0]).ok(200, "GET", "/v1/log/head", nil).num("size") >= int64(len(statements(w.t, path)))
	})
	key := w.op.at(w.gw[0]).ok(200, "GET", "/v1/log/head", nil).str("verifier_key")
	for _, r := range []result{
		command(w.t, "receipt", "verify", path, "--key", w.publicKey(), "--keys", file, "-o", "json"),
		command(w.t, "log", "verify", filepath.Join(w.gw[0].data, "log"), "--log-key", key, "--key", w.publicKey(), "--keys", file, "-o", "json"),
	} {
		if r.code != code {
			w.t.Errorf("%s", r)
		}
		for _, word := range words {
			if !strings.Contains(r.stdout, word) {
				w.t.Errorf("it does not say %q: %s", word, r)
			}
		}
	}
	signers, ids = map[int64]string{}, map[writ.ReceiptID]bool{}
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var env struct {
			Payload    []byte
			Signatures []struct{ KeyID string }
		}
		var s statement
		if err := json.Unmarshal(line, &env); err != nil {
			w.t.Fatal(err)
		}
		if len(env.Payload) == 0 || json.Unmarshal(env.Payload, &s) != nil || s.Predicate.ReceiptID == "" {
			continue
		}
		signers[s.Predicate.Commit.Seq], ids[s.Predicate.ReceiptID] = env.Signatures[0].KeyID, true
	}
	return signers, ids
}

// The receipt key changes while all replicas work: no call is refused for it, no receipt
// is lost, each verifies, and none is by a key outside its time. Then a key is revoked.
func TestTheReceiptKeyIsRotatedUnderLoad(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		const workers = 4
		var wg sync.WaitGroup
		var stop atomic.Bool
		acked := make([][]writ.ReceiptID, workers)
		for i := range workers {
			who := w.session("planner", writ.RoleOrchestrator, "planner").at(w.gw[i%len(w.gw)])
			wg.Go(func() {
				for n := 0; !stop.Load(); n++ {
					r, err := who.try("POST", "/v1/tasks", c.task(fmt.Sprintf("w%d-%d", i, n), nil))
					if err != nil || r.status != 201 {
						t.Errorf("worker %d: %s %v", i, r, err)
						return
					}
					acked[i] = append(acked[i], writ.ReceiptID(r.str("receipt")))
				}
			})
		}
		for range 2 {
			if r := w.rotate(); r.code != 0 {
				t.Errorf("rotate: %s", r)
			}
		}
		c.enqueue("after", nil) // the last key has signed something
		stop.Store(true)
		wg.Wait()

		rows, file := w.receiptKeys()
		if len(rows) != 3 || rows[0].State != writ.KeyRetired || rows[1].State != writ.KeyRetired || rows[2].State != writ.KeyActive || rows[2].Until != nil {
			t.Fatalf("got %+v", rows)
		}
		signers, ids := w.proved(file, 0)
		used := map[string]int{}
		for seq, id := range signers {
			used[id]++
			for _, k := range rows {
				if inside := seq >= *k.From && (k.Until == nil || seq <= *k.Until); (id == k.KeyID) != inside {
					t.Errorf("receipt %d is signed by %s", seq, id)
				}
			}
		}
		for _, k := range rows {
			if used[k.KeyID] == 0 {
				t.Errorf("%s has signed nothing", k.KeyID)
			}
		}
		total := 0
		for _, list := range acked {
			total += len(list)
			for _, id := range list {
				if !ids[id] {
					t.Errorf("receipt %s is lost", id)
				}
			}
		}
		if total == 0 {
			t.Error("there was no load")
		}

		// Without the file of keys the later keys are unknown; a changed file is noticed.
		path := filepath.Join(w.gw[0].data, "receipts.jsonl")
		if r := w.verify(path); r.code != 3 || !strings.Contains(r.stdout, "not at hand") {
			t.Errorf("without the keys: %s", r)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bad := filepath.Join(t.TempDir(), "bad.json")
		for name, change := range map[string]func([]byte) []byte{
			"a longer life": func(b []byte) []byte { return longer(t, b) },
			"a receipt less": func(b []byte) []byte {
				var f map[string]json.RawMessage
				var list []json.RawMessage
				if err := errorsOf(json.Unmarshal(b, &f), json.Unmarshal(f["receipts"], &list)); err != nil {
					t.Fatal(err)
				}
				f["receipts"], _ = json.Marshal(list[:len(list)-1])
				b, _ = json.Marshal(f)
				return b
			},
		} {
			if err := os.WriteFile(bad, change(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if r := command(t, "receipt", "verify", path, "--key", w.publicKey(), "--keys", bad, "-o", "json"); r.code != 1 || !strings.Contains(r.stdout, "manifest") {
				t.Errorf("%s: %s", name, r)
			}
		}

		// The private half of the first key can go: who starts anew serves without it.
		if err := os.Remove(filepath.Join(w.keysDir(), "receipt.key")); err != nil {
			t.Fatal(err)
		}
		for _, g := range w.gw {
			g.stop()
			g.start()
		}
		w.ready()

		// A retired key is revoked: what it signed stays, and the report says so. The
		// signing key is not.
		if r := w.op.do("POST", "/v1/keys/revoke", obj{"key_id": rows[2].KeyID}); r.status != 409 {
			t.Errorf("the signing key revoked: %s", r)
		}
		w.op.ok(200, "POST", "/v1/keys/revoke", obj{"key_id": rows[0].KeyID})
		_, file = w.receiptKeys()
		w.proved(file, 0)
		if r := command(t, "receipt", "verify", path, "--key", w.publicKey(), "--keys", file); r.code != 0 || !strings.Contains(r.stdout, "that it signed before stay valid") {
			t.Errorf("got %s", r)
		}
		// Revoked from an index on at which it has signed, it takes those receipts along, and
		// the key that rests on it: that must be said twice.
		back := obj{"key_id": rows[1].KeyID, "since": *rows[1].From + 1}
		if r := w.op.refused(409, "illegal_transition", "POST", "/v1/keys/revoke", back); r.str("details", "signed_last") != strconv.FormatInt(*rows[1].Until, 10) {
			t.Errorf("got %s", r)
		}
		back["reach_back"] = true
		w.op.ok(200, "POST", "/v1/keys/revoke", back)
		rows, file = w.receiptKeys()
		if rows[1].State != writ.KeyRevoked || *rows[1].RevokedFrom != *rows[1].From+1 {
			t.Errorf("got %+v", rows[1])
		}
		w.proved(file, 1, "signed by a revoked key", fmt.Sprintf("from %d on", *rows[1].RevokedFrom))
		// The log goes on, and its file of keys can be read: a root can vouch for what came after.
		w.op.ok(201, "POST", "/v1/keys", obj{"public_key": w.newKey(t.TempDir()).text})
		rows, file = w.receiptKeys()
		if len(rows) != 4 || rows[3].State != writ.KeyIntroduced {
			t.Errorf("got %+v", rows)
		}
		w.proved(file, 1, "signed by a revoked key")
	})
}

func errorsOf(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

// longer makes the manifest of a file say that the first key signed for longer.
func longer(t *testing.T, file []byte) []byte {
	t.Helper()
	var f map[string]json.RawMessage
	var env map[string]any
	if err := errorsOf(json.Unmarshal(file, &f), json.Unmarshal(f["manifest"], &env)); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(env["payload"].(string))
	if err != nil {
		t.Fatal(err)
	}
	env["payload"] = base64.StdEncoding.EncodeToString(bytes.Replace(payload, []byte(`"until":`), []byte(`"until":9`), 1))
	f["manifest"], _ = json.Marshal(env)
	out, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A rotation that was cut off after any of its steps, with every process killed, is gone
// on with by the same command.
func TestARotationThatWasCutOff(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		work := func(name string) { c.enqueue(name, nil) }
		work("one")

		// A key was made, and nothing else.
		pair := w.newKey(w.keysDir())
		w.crash()
		work("two")
		if r := w.rotate(); r.code != 0 {
			t.Fatal(r)
		}
		rows, _ := w.receiptKeys()
		if len(rows) != 2 || rows[1].KeyID != pair.KeyID || rows[1].State != writ.KeyActive {
			t.Fatalf("got %+v", rows)
		}

		// At once after the change.
		w.crash()
		work("three")

		// A key was introduced.
		next := w.newKey(w.keysDir())
		w.op.ok(201, "POST", "/v1/keys", obj{"public_key": next.text})
		w.crash()
		work("four")
		if r := w.rotate(); r.code != 0 || !strings.Contains(r.stderr, "introduced already") {
			t.Fatal(r)
		}
		work("five")
		rows, file := w.receiptKeys()
		if len(rows) != 3 || rows[2].KeyID != next.KeyID || rows[2].State != writ.KeyActive {
			t.Fatalf("got %+v", rows)
		}
		signers, _ := w.proved(file, 0)
		for seq, id := range signers {
			for _, k := range rows {
				if inside := seq >= *k.From && (k.Until == nil || seq <= *k.Until); (id == k.KeyID) != inside {
					t.Errorf("receipt %d is signed by %s", seq, id)
				}
			}
		}

		// A key nobody holds is not made the signing one, by no force; it can be taken back.
		next = w.newKey(t.TempDir())
		w.op.ok(201, "POST", "/v1/keys", obj{"public_key": next.text})
		if r := w.op.do("POST", "/v1/keys/activate", obj{"key_id": next.KeyID, "force": true}); r.status != 409 {
			t.Errorf("a key nobody holds: %s", r)
		}
		w.op.ok(200, "POST", "/v1/keys/retire", obj{"key_id": next.KeyID})
		work("six")
		_, file = w.receiptKeys()
		w.proved(file, 0)
	})
}

// With the log's key and a root at a key management service the gateway works as with
// files, and who trusts the root needs no receipt key.
func TestKeysWithAService(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "sigstore-kms-testkms"), "../receipts/testdata/kmsplugin")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	made := map[string]string{}
	for _, purpose := range []string{"log", "root"} {
		var pair struct{ Private, Public string }
		if r := command(t, "key", "generate", "--purpose", purpose, "--dir", dir, "-o", "json"); json.Unmarshal([]byte(r.stdout), &pair) != nil {
			t.Fatal(r)
		}
		made[purpose], made[purpose+".pub"] = pair.Private, pair.Public
	}
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			w := newWorld(t, host, "--log-key", "testkms://"+made["log"], "--root-key", "testkms://"+made["root"])
			c := newCast(t, w)
			c.enqueue("one", nil)
			if _, err := os.Stat(filepath.Join(w.keysDir(), "log.key")); err == nil {
				t.Error("a log key was made all the same")
			}
			if r := w.rotate(); r.code != 0 {
				t.Fatal(r)
			}
			c.enqueue("two", nil)
			signed := func() string { return w.op.ok(200, "GET", "/v1/keys", nil).str("signed_by") }
			within(t, 20*time.Second, "the root signs the manifest", func() bool { return signed() == "root" })
			_, file := w.receiptKeys()
			w.proved(file, 0)
			path := filepath.Join(w.gw[0].data, "receipts.jsonl")
			if r := command(t, "receipt", "verify", path, "--root", made["root.pub"], "--keys", file); r.code != 0 {
				t.Errorf("with the root: %s", r)
			}
			if r := command(t, "receipt", "verify", path, "--root", made["log.pub"], "--keys", file); r.code != 1 {
				t.Errorf("with another root: %s", r)
			}

			// While the service is gone keys change all the same, and nobody waits for it.
			plugin := filepath.Join(bin, "sigstore-kms-testkms")
			if err := os.Rename(plugin, plugin+".gone"); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.Rename(plugin+".gone", plugin) }()
			if r := w.rotate(); r.code != 0 {
				t.Fatal(r)
			}
			if by := signed(); by != "receipt" {
				t.Errorf("what the root has not signed is signed by %s", by)
			}
		})
	}
}

// A root that is kept offline, encrypted, signs a file of keys without a gateway, and
// nothing that does not follow from its receipts.
func TestARootThatIsOffline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bolt")
	c := newCast(t, w)
	if r := w.rotate(); r.code != 0 {
		t.Fatal(r)
	}
	c.enqueue("one", nil)
	_, file := w.receiptKeys()
	w.proved(file, 0)
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("open sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var pair struct {
		Private, Public string
		Encrypted       bool
	}
	r := command(t, "key", "generate", "--purpose", "root", "--dir", dir, "--password-file", password, "-o", "json")
	if json.Unmarshal([]byte(r.stdout), &pair) != nil || !pair.Encrypted {
		t.Fatal(r)
	}
	if text, err := os.ReadFile(pair.Private); err != nil || !bytes.Contains(text, []byte("ENCRYPTED")) {
		t.Errorf("%s %v", text, err)
	}
	rooted := filepath.Join(dir, "keys-root.json")
	sign := func(from string, more ...string) result {
		return command(t, append([]string{"key", "manifest", "--from", from, "--key", w.publicKey(), "--sign", pair.Private, "--out", rooted}, more...)...)
	}
	if r := sign(file); r.code == 0 {
		t.Error("it signs without its password")
	}
	if r := sign(file, "--password-file", password); r.code != 0 {
		t.Fatal(r)
	}
	path := filepath.Join(w.gw[0].data, "receipts.jsonl")
	if r := command(t, "receipt", "verify", path, "--keys", rooted, "--root", pair.Public); r.code != 0 {
		t.Error(r)
	}
	if r := command(t, "receipt", "verify", path, "--keys", file, "--root", pair.Public); r.code != 1 {
		t.Errorf("what the root did not sign: %s", r)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad.json")
	if err := os.WriteFile(bad, longer(t, text), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := sign(bad, "--password-file", password); r.code == 0 {
		t.Error("a root signs a manifest that does not follow from the receipts")
	}
}
