package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A gateway whose keys are missing, damaged or open to others does not start,
// and says which file is at fault.
func TestDamagedKeysRefuseToStart(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "one")
	newGateway(t, data).stop()
	for _, tt := range []struct {
		name, file, want string
		damage           func(path string) error
	}{
		{"receipt key missing", "receipt.key", "is missing", os.Remove},
		{"receipt key garbage", "receipt.key", "PEM", func(p string) error { return os.WriteFile(p, []byte(canary+"\n"), 0o600) }},
		{"receipt key empty", "receipt.key", "PEM", func(p string) error { return os.Truncate(p, 0) }},
		{"receipt key open to others", "receipt.key", "0644", func(p string) error { return os.Chmod(p, 0o644) }},
		{"receipt key of another log", "receipt.pub", "another key", anotherKey},
		{"evidence key missing", "evidence.key", "is missing", os.Remove},
		{"evidence key garbage", "evidence.key", "hex", func(p string) error { return os.WriteFile(p, []byte(canary+"\n"), 0o600) }},
		{"session key garbage", "session.key", "hexadecimal", func(p string) error { return os.WriteFile(p, []byte(canary+"\n"), 0o600) }},
		{"session key open to others", "session.key", "0640", func(p string) error { return os.Chmod(p, 0o640) }},
		{"key of secrets garbage", "secrets.key", "hexadecimal", func(p string) error { return os.WriteFile(p, []byte(canary+"\n"), 0o600) }},
		{"key of secrets open to others", "secrets.key", "0640", func(p string) error { return os.Chmod(p, 0o640) }},
		{"log key missing", "log.key", "is missing", os.Remove},
		{"log key missing, and its public half, of a log there is", "log.key", "is missing", func(p string) error {
			return errorsOf(os.Remove(p), os.Remove(strings.TrimSuffix(p, ".key")+".pub"))
		}},
		{"log key garbage", "log.key", "PEM", func(p string) error { return os.WriteFile(p, []byte(canary+"\n"), 0o600) }},
		{"log key open to others", "log.key", "0644", func(p string) error { return os.Chmod(p, 0o644) }},
		{"log key of another log", "log.pub", "another key", func(p string) error { return os.WriteFile(p, []byte("-----BEGIN PUBLIC KEY-----\n"), 0o600) }},
		{"origin garbage", "origin", "host name", func(p string) error { return os.WriteFile(p, []byte("Not A Host\n"), 0o600) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keys := filepath.Join(t.TempDir(), "keys")
			if err := os.CopyFS(keys, os.DirFS(filepath.Join(data, "keys"))); err != nil {
				t.Fatal(err)
			}
			private(t, keys)
			path := filepath.Join(keys, tt.file)
			if err := tt.damage(path); err != nil {
				t.Fatal(err)
			}
			r := command(t, "serve", "--data", data, "--keys", keys, "--listen", "127.0.0.1:0")
			if r.code == 0 || !strings.Contains(r.stderr, path) || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("want the file and %q: %s", tt.want, r)
			}
			if strings.Contains(r.stderr, canary) {
				t.Errorf("the message repeats the content of a key file: %s", r)
			}
		})
	}
	newGateway(t, data) // nothing of this harmed the data
}

// private gives copied key files the mode they had.
func private(t testing.TB, dir string) {
	t.Helper()
	for _, name := range []string{"receipt.key", "evidence.key", "session.key", "secrets.key", "log.key"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// anotherKey puts a valid private key that is not the log's beside its public
// key.
func anotherKey(pub string) error {
	key := filepath.Join(filepath.Dir(pub), "receipt.key")
	return os.WriteFile(key, []byte(otherKey), 0o600)
}

// otherKey is a P-256 key that belongs to nothing.
const otherKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgQc422JVctF1CKk/g
gedYfoMzkpZqE+6BnOB7gTqqB3OhRANCAATmkp5/KpnVHRD7ilWK0S7IBfV0iOd9
ZlU3xJGpbCisHyRKybMnZw+EDXFAKqZeni2Gc2pfsBQ3neFqHoHyeq6D
-----END PRIVATE KEY-----
`

// A pack that does not compile keeps a gateway with an empty store from starting,
// and is named with its line.
func TestBrokenPackRefusesToStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "policies")
	for _, sub := range []string{"packs", "roles"} {
		if err := os.CopyFS(filepath.Join(dir, sub), os.DirFS(filepath.Join("..", "policies", sub))); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(t.TempDir(), "one")
	pack := filepath.Join(dir, "packs", "budgets", "budgets.rego")
	text, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Count(string(text), "\n") + 1
	if err := os.WriteFile(pack, append(text, "findings contains } if {\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	r := command(t, "serve", "--data", data, "--listen", "127.0.0.1:0", "--policies", dir)
	if r.code == 0 || !strings.Contains(r.stderr, "budgets/budgets.rego:"+strconv.Itoa(line)) {
		t.Errorf("want budgets/budgets.rego:%d named: %s", line, r)
	}
	// Neither does one without a role table.
	if err := os.WriteFile(pack, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "roles", "policy.csv"), []byte("p, role:operator, *\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := command(t, "serve", "--data", data, "--listen", "127.0.0.1:0", "--policies", dir); r.code == 0 || !strings.Contains(r.stderr, "policy.csv") {
		t.Errorf("want policy.csv named: %s", r)
	}
}

// The embedded store has one owner: a second gateway gives up within two
// seconds of reaching it and says who has it.
func TestSecondGatewayOnOneFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bolt")
	timed := func(args ...string) (result, time.Duration) {
		began := time.Now()
		r := command(t, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
		return r, time.Since(began)
	}
	// A start that ends just before it comes to the store is one whose address
	// is taken. On a busy machine one of a few tries must be in time.
	taken := strings.TrimPrefix(w.gw[0].url, "http://")
	var r result
	var took []time.Duration
	for late := true; late && len(took) < 4; {
		first, start := timed("--data", w.gw[0].data, "--listen", taken)
		if first.code == 0 || !strings.Contains(first.stderr, "cannot listen") {
			t.Fatalf("want the address refused: %s", first)
		}
		var d time.Duration
		r, d = timed("--data", w.gw[0].data)
		late = d-start > 2*time.Second
		took = append(took, d-start)
	}
	if took[len(took)-1] > 2*time.Second {
		t.Errorf("it took %v to refuse, each time", took)
	}
	if r.code == 0 || !strings.Contains(r.stderr, "writ.db") || !strings.Contains(r.stderr, strconv.Itoa(w.gw[0].cmd.Process.Pid)) {
		t.Errorf("want the file and process %d named: %s", w.gw[0].cmd.Process.Pid, r)
	}
	w.op.ok(200, "GET", "/v1/runs", nil)
	if url := strings.TrimSpace(w.gw[0].read("gateway.url")); url != w.gw[0].url {
		t.Errorf("the address of the first gateway was overwritten with %s", url)
	}
}

// A gateway told to stop while a claim waits answers the claim, then ends.
func TestStopAnswersWaitingClaims(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		began := time.Now()
		waiting := c.builder.poll()
		within(t, 5*time.Second, "the claim waits", func() bool {
			return c.builder.do("POST", "/v1/tasks/claim", nil).code() == "backpressure" // one poll per session
		})
		if code := w.gw[0].stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		r := <-waiting
		if r.status != 204 && r.status != 503 {
			t.Errorf("the waiting claim: %s", r)
		}
		if took := time.Since(began); took > 9*time.Second {
			t.Errorf("the claim was waited out: %v", took)
		}
		w.gw[0].start()
		task := c.enqueue("one", nil)
		if l := c.builder.claimNext(); l.task != task {
			t.Errorf("after the restart: %+v", l)
		}
	})
}

// Without Redis every call is refused with 503, quickly; when it is back, with
// all it acknowledged, so is the gateway.
func TestRedisGoesAndComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "redis")
	c := newCast(t, w)
	task := c.enqueue("one", nil)
	w.redis.Kill()
	for _, g := range w.gw {
		began := time.Now()
		for _, call := range []struct {
			method, path string
			body         any
		}{{"GET", "/v1/tasks/" + task, nil}, {"POST", "/v1/tasks", c.task("two", nil)}, {"POST", "/v1/runs", obj{"budget": obj{"steps": 1}}}} {
			c.orc.at(g).refused(503, "store_unavailable", call.method, call.path, call.body)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("three refusals took %v", took)
		}
		nobody := caller{t: t, gw: g}
		if r := nobody.do("GET", "/readyz", nil); r.status != 503 {
			t.Errorf("ready without its store: %s", r)
		}
		nobody.ok(200, "GET", "/healthz", nil)
	}
	w.redis.Restart()
	w.ready()
	c.builder.complete(c.builder.claim(task))
	c.orc.at(w.last()).ok(201, "POST", "/v1/tasks", c.task("two", nil))
	w.audit()
}

// A store that has lost what was acknowledged is not written on top of.
func TestRedisThatForgotIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "redis")
	c := newCast(t, w)
	c.enqueue("one", nil)
	within(t, 10*time.Second, "the ledger has every receipt", func() bool {
		r := caller{t: t, gw: w.gw[0]}.do("GET", "/readyz", nil)
		return strings.Contains(string(r.body), `"0 facts behind"`)
	})
	w.redis.Command("FLUSHALL")
	for _, g := range w.gw {
		r := c.orc.at(g).do("POST", "/v1/runs", obj{"budget": obj{"steps": 1}})
		if r.status < 400 {
			t.Errorf("written on top of an emptied store: %s", r)
		}
	}
	// Neither after a restart: the ledger remembers.
	w.gw[0].kill()
	r := command(t, w.gw[0].args...)
	if r.code == 0 || !strings.Contains(r.stderr, "ledger") && !strings.Contains(r.stderr, "lost") {
		t.Errorf("started on an emptied store: %s", r)
	}
}
