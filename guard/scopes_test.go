package guard

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// What evidence says of write scopes is read by people and tools.
func TestScopesInEvidence(t *testing.T) {
	const task, session = "tsk_01ARYZ6S410000000000000000", "ses_01ARYZ6S410000000000000000"
	var tx writ.Tx
	tx.Index(writ.IndexLeases, task, 1)
	if moved(tx.Ops) != nil {
		t.Error("a commit that does nothing to scopes lists some")
	}
	tx.Index(writ.IndexScopes, writ.ScopeMember("fs:site/", task), 0)
	tx.Unindex(writ.IndexScopes, writ.WriteClaim{Resource: "mem:notes/", Mode: writ.ScopeShared}.Member(session))
	got, err := json.Marshal(evidence{Scopes: moved(tx.Ops)})
	if err != nil {
		t.Fatal(err)
	}
	want := `"scopes":{"taken":["fs:site/ ` + task + `"],"given_back":["mem:notes/ ` + session + ` shared"]}}`
	if !strings.HasSuffix(string(got), want) {
		t.Errorf("got %s", got)
	}
	// However much is given back at once, the evidence stays small.
	for range 500 {
		tx.Unindex(writ.IndexScopes, "fs:"+strings.Repeat("x", 500)+"/ "+session)
	}
	if m := moved(tx.Ops); m.More < 480 || len(m.GivenBack)+m.More != 501 {
		t.Errorf("%d listed, %d more", len(m.GivenBack), m.More)
	}
}
