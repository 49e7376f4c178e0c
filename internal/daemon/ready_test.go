package daemon

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// unready names the checks that failed.
func unready(t *testing.T, d *Daemon) map[string]string {
	t.Helper()
	out := map[string]string{}
	r := d.ready(t.Context())
	for _, c := range r.Checks {
		if !c.OK {
			out[c.Name] = c.Detail
		}
	}
	if r.Ready != (len(out) == 0) {
		t.Errorf("ready %v with %v", r.Ready, out)
	}
	return out
}

// A replica that refuses every call is not ready.
func TestNotReadyWithoutWhatIsInForce(t *testing.T) {
	d, _, _ := start(t, t.TempDir())
	token, err := os.ReadFile(OperatorToken(d.cfg.Data))
	if err != nil {
		t.Fatal(err)
	}
	if bad := unready(t, d); len(bad) > 0 {
		t.Fatalf("at the start: %v", bad)
	}
	policy, bindings := d.engine.Revisions()
	for check, other := range map[string]writ.Gate{
		"policies":    {PolicyRevision: "sha256:other", BindingsRevision: bindings, ReceiptKeyID: d.sealer.KeyID()},
		"bindings":    {PolicyRevision: policy, BindingsRevision: "sha256:other", ReceiptKeyID: d.sealer.KeyID()},
		"receipt key": {PolicyRevision: policy, BindingsRevision: bindings, ReceiptKeyID: "SHA256:other"},
	} {
		behind(t, d, func(g *writ.Gate) {
			g.PolicyRevision, g.BindingsRevision, g.ReceiptKeyID = other.PolicyRevision, other.BindingsRevision, other.ReceiptKeyID
		})
		if _, err := d.asToken(t.Context(), strings.TrimSpace(string(token)), "run.list", map[string]any{}); writ.CodeOf(err) != writ.CodePolicyDown {
			t.Fatalf("%s: got %v", check, err)
		}
		if bad := unready(t, d); len(bad) != 1 || bad[check] == "" {
			t.Errorf("%s differ: not ready because of %v", check, bad)
		}
	}
}

func TestNotReadyWhenRedisMayEvict(t *testing.T) {
	server := redistest.Start(t)
	d, _, _ := start(t, t.TempDir(), func(c *Config) { c.Store = server.URL() })
	server.Command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	if bad := unready(t, d); bad["store"] == "" {
		t.Errorf("not ready because of %v", bad)
	}
	server.Command("CONFIG", "SET", "maxmemory-policy", "noeviction")
	if bad := unready(t, d); len(bad) > 0 {
		t.Errorf("not ready because of %v", bad)
	}
}

// An outage of the store is logged when it begins and when it ends; the ledger
// waits for it and does not stop.
func TestAnOutageIsLoggedOnce(t *testing.T) {
	server := redistest.Start(t)
	d, _, logged := start(t, t.TempDir(), func(c *Config) { c.Store = server.URL() })
	server.Kill()
	for range 100 {
		if d.integrator.Err() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(3 * time.Second)
	if d.integrator.Err() == nil || d.integrator.Stopped() {
		t.Errorf("the integrator: %v, stopped %v", d.integrator.Err(), d.integrator.Stopped())
	}
	server.Restart()
	for range 200 {
		if len(unready(t, d)) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(1500 * time.Millisecond)
	stopDaemon(t, d)
	lines := map[string]int{}
	for line := range strings.Lines(logged.String()) {
		_, msg, _ := strings.Cut(line, `msg="`)
		msg, _, _ = strings.Cut(msg, `"`)
		lines[msg]++
	}
	for msg, n := range lines {
		if n > 1 {
			t.Errorf("logged %d times: %s", n, msg)
		}
	}
	for _, want := range []string{"the store does not answer; what is due waits until it does", "the store answers again", "the ledger waits: receipts stay in the outbox until store and disk answer", "the ledger goes on"} {
		if lines[want] != 1 {
			t.Errorf("not logged once: %s\n%s", want, logged)
		}
	}
}
