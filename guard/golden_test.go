package guard

import (
	"flag"
	"reflect"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "write the golden files")

// The records of Idempotency-Keys, with and without a secret in the reply.
func TestStoredDocuments(t *testing.T) {
	type body struct {
		ID      string `json:"session_id"`
		Version int64  `json:"version"`
		Token   string `json:"token,omitempty" writ:"secret"`
	}
	const id = "ses_01ARYZ6S410000000000000000"
	want := kept{
		Digest: "00ff", Outcome: writ.OutcomeCreated, Body: []byte(`{"session_id":"` + id + `","version":0}`), Versioned: []string{"version"},
		ETag: -1, Receipt: "rcp_01ARYZ6S410000000000000000",
	}
	for name, token := range map[string]string{"idem.json": "", "idem-withheld.json": "secret"} {
		call := &writ.Call{IdempotencyKey: "key 1", Digest: want.Digest, Caller: writ.Caller{Principal: "planner", Role: writ.RoleOrchestrator}}
		tx := writ.Tx{Fact: &writ.Fact{ID: want.Receipt}}
		reply := writ.Reply{Outcome: want.Outcome, Body: body{ID: id, Token: token}, Versioned: want.Versioned, ETag: want.ETag}
		if err := (&try{call: call}).remember(&tx, reply); err != nil {
			t.Fatal(err)
		}
		writtest.GoldenDoc(t, *update, name, tx.Ops[0].Body)
		key := tx.Ops[0].Key
		got, _, _, err := writ.Get[kept](writ.Snapshot{Docs: map[writ.Key]writ.Doc{key: {Version: 1, Body: tx.Ops[0].Body}}}, key)
		if want.Withheld = token != ""; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read back as %+v, %v", name, got, err)
		}
	}
}
