package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// The evidence of a run that has ended is destroyed by one call: nobody reads it from
// then on, on any replica, after a restart neither; what others left can be read, and
// all receipts still verify.
func TestEvidenceIsShredded(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		kept := c.orc.ok(201, "POST", "/v1/runs", obj{"title": "stays", "budget": obj{"steps": 1}})
		task := c.enqueue("one", nil)
		l := c.builder.claim(task)
		claimed := c.builder.complete(l).str("receipt")
		path := "/v1/runs/" + c.run + "/evidence/shred"
		reason := obj{"reason": "data_subject_request"}
		ada := w.session("ada", writ.RoleAuditor, "").at(w.gw[0])
		op := w.op.at(w.gw[0])
		evidence := func(id string) string { return "/v1/receipts/" + id + "/evidence" }
		ada.ok(200, "GET", evidence(claimed), nil)

		op.refused(409, "illegal_transition", "POST", path, reason)
		ended := c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/cancel", nil).str("receipt")
		c.orc.refused(403, "rbac_denied", "POST", path, reason)
		ada.refused(403, "rbac_denied", "POST", path, reason)
		op.refused(422, "input_invalid", "POST", path, obj{"reason": "because I say so"})

		shredding := op.ok(200, "POST", path, reason).str("receipt_id")
		gone := func(id string) {
			t.Helper()
			for _, g := range w.gw {
				if r := ada.at(g).do("GET", evidence(id), nil); r.status == 410 && r.code() == writ.CodeShredded {
					if r.str("details", "receipt") != shredding {
						t.Errorf("the refusal does not name the shredding: %s", r)
					}
				} else if g == w.gw[0] || r.status != 404 { // the other replica has no ledger
					t.Errorf("evidence of %s: %s", id, r)
				}
			}
		}
		look := func() {
			t.Helper()
			gone(claimed)
			gone(ended)
			ada.ok(200, "GET", evidence(kept.str("receipt")), nil)
			ada.ok(200, "GET", evidence(shredding), nil)
		}
		look()
		if r := command(t, "receipt", "evidence", claimed, "--data", w.gw[0].data); r.code == 0 || !bytes.Contains([]byte(r.String()), []byte(shredding)) {
			t.Errorf("receipt evidence: %s", r)
		}
		// Once the ledger has filed the shredding its key is gone, whatever the store says.
		keys := filepath.Join(w.gw[0].data, "ledger", "keys", "00000000.keys")
		before := func() bool {
			b, err := os.ReadFile(keys)
			return err == nil && bytes.Contains(b, make([]byte, 40)) // what a destroyed key leaves
		}
		within(t, 10*time.Second, "the key is destroyed", before)
		look()
		w.gw[0].restart()
		look()
		w.audited()
		w.audit()
	})
}
