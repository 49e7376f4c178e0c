package e2e

import (
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/tlog/witnesstest"
)

// With a witness every checkpoint that is published has its signature, and while it signs
// nothing, nothing is published and work goes on.
func TestAWitnessCosignsTheLog(t *testing.T) {
	t.Parallel()
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			witness := witnesstest.New("witness.example", 7)
			srv := httptest.NewServer(witness)
			t.Cleanup(srv.Close)
			w := newWorld(t, host, "--witness", srv.URL+" "+witness.Key(), "--log-mldsa")
			c := newCast(t, w)
			auditor := w.session("ada", writ.RoleAuditor, "").at(w.gw[0])
			included := func(task string) string {
				t.Helper()
				receipt := w.op.ok(200, "GET", "/v1/tasks/"+task, nil).str("receipt")
				if r := auditor.ok(200, "GET", "/v1/receipts/"+receipt+"?wait=included", nil); r.at("included") != true {
					t.Fatalf("got %s", r)
				}
				return receipt
			}
			included(c.enqueue("one", nil))
			head := auditor.ok(200, "GET", "/v1/log/head", nil)
			if head.str("witnesses", "0", "name") != "witness.example" || !strings.Contains(head.str("checkpoint"), "\n— witness.example ") || head.str("witnesses", "0", "at") == "" {
				t.Errorf("got %s", head)
			}
			if seen, _ := witness.Seen("writ.local"); seen.Size == 0 {
				t.Error("it has seen nothing")
			}
			verify := func(key string) result {
				return command(t, "log", "verify", filepath.Join(w.gw[0].data, "log"), "--log-key", head.str("verifier_key"), "--key", w.publicKey(), "--witness", key)
			}
			if r := verify(witness.Key()); r.code != 0 || !strings.Contains(r.stdout, "witness.example") {
				t.Errorf("got %s", r)
			}
			if r := verify(witnesstest.New("other.example", 8).Key()); r.code != 3 || !strings.Contains(r.stdout, "other.example") {
				t.Errorf("got %s", r)
			}

			if r := verify(head.str("verifier_key_mldsa")); r.code != 0 {
				t.Errorf("the second key: %s", r)
			}

			witness.Down(true)
			waits := c.enqueue("two", nil)
			within(t, 20*time.Second, "the gateway says that its log waits", func() bool {
				r := caller{t: t, gw: w.gw[0]}.do("GET", "/readyz", nil)
				return r.status == 200 && strings.Contains(string(r.body), "nothing is published until its witnesses cosign it")
			})
			c.enqueue("three", nil)
			if r := verify(witness.Key()); r.code != 0 { // what is published has its signature
				t.Errorf("got %s", r)
			}
			witness.Down(false)
			w.ready()
			included(waits)
			w.audited()
		})
	}
}
