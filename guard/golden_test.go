package guard

import (
	"flag"
	"reflect"
	"strings"
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
	redacted, _ := writ.ParsePointer("/session_id")
	limits := []writ.Limit{{Argument: "lifetime_s", Max: 60}}
	for _, tt := range []struct {
		name, token string
		t           try
	}{
		{name: "idem.json"},
		{name: "idem-withheld.json", token: "secret"},
		{name: "idem-redacted.json", t: try{limited: limits, dec: writ.Decision{Duties: writ.Duties{Redact: []writ.Pointer{redacted}}}}},
	} {
		tt.t.call = &writ.Call{IdempotencyKey: "key 1", Digest: want.Digest, Caller: writ.Caller{Principal: "planner", Role: writ.RoleOrchestrator}}
		tx := writ.Tx{Fact: &writ.Fact{ID: want.Receipt}}
		reply := writ.Reply{Outcome: want.Outcome, Body: body{ID: id, Token: tt.token}, Versioned: want.Versioned, ETag: want.ETag}
		if err := tt.t.remember(&tx, reply); err != nil {
			t.Fatal(err)
		}
		writtest.GoldenDoc(t, *update, tt.name, tx.Ops[0].Body)
		key := tx.Ops[0].Key
		got, _, _, err := writ.Get[kept](writ.Snapshot{Docs: map[writ.Key]writ.Doc{key: {Version: 1, Body: tx.Ops[0].Body}}}, key)
		want := want
		want.Withheld, want.Limited = tt.token != "", tt.t.limited
		if len(tt.t.dec.Duties.Redact) > 0 {
			want.Body, want.Redacted = []byte(`{"session_id":"[redacted]","version":0}`), []string{"/session_id"}
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read back as %+v, %v", tt.name, got, err)
		}
	}
}

// What is kept of effects: under the key what was begun, and the reply for who asks again.
func TestStoredEffects(t *testing.T) {
	type body struct {
		Status int    `json:"status"`
		Token  string `json:"token,omitempty" writ:"secret"`
	}
	const id = "eff_01ARYZ6S410000000000000000"
	tt := try{
		call:   &writ.Call{IdempotencyKey: "key 1", Digest: "00ff", Caller: writ.Caller{Principal: "planner", Role: writ.RoleOrchestrator}},
		intent: &intent{doc: writ.Intent{ID: id}},
	}
	tx := writ.Tx{Fact: &writ.Fact{ID: "rcp_01ARYZ6S410000000000000000"}}
	if err := tt.remember(&tx, writ.Reply{}); err != nil {
		t.Fatal(err)
	}
	writtest.GoldenDoc(t, *update, "idem-effect.json", tx.Ops[0].Body)
	for name, reply := range map[string]writ.Reply{
		"effectreply.json":          {Outcome: writ.OutcomeDone, Body: body{Status: 204}, Durability: writ.DurabilityLogged},
		"effectreply-withheld.json": {Outcome: writ.OutcomeDone, Body: body{Status: 200, Token: "secret"}},
		"effectreply-large.json":    {Outcome: writ.OutcomeDone, Body: map[string]string{"body": strings.Repeat("x", maxReply)}},
	} {
		doc, err := tt.keptReply(id, reply)
		if err != nil {
			t.Fatal(err)
		}
		writtest.GoldenDoc(t, *update, name, doc)
	}
}
