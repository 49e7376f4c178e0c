package daemon

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/ledger"
)

// Whoever starts a second replica without --ledger none is told of the flag;
// on the embedded store, which has no replicas, nobody is.
func TestAForgottenLedgerFlagIsNamed(t *testing.T) {
	dir := t.TempDir()
	held, err := ledger.Open(filepath.Join(dir, ledgerDir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	for store, named := range map[string]bool{"redis://127.0.0.1:1/0": true, "bolt": false} {
		d := &Daemon{cfg: Config{Data: dir, Store: store, Ledger: "writer"}}
		e := writ.AsError("", d.openLedger(t.Context()))
		if e == nil || e.Code != writ.CodeNotReady || strings.Contains(e.Hint, "--ledger none") != named || !strings.Contains(e.Hint, "stop it") {
			t.Errorf("%s: %+v", store, e)
		}
	}
}
