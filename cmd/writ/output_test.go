package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func rendered(t *testing.T, raw string) string {
	t.Helper()
	var b bytes.Buffer
	if err := render(&b, "table", json.RawMessage(raw)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What is nested stands below the table, and no line is a kilobyte long.
func TestNestedValuesAreReadable(t *testing.T) {
	payload := strings.Repeat("eyJ0", 500)
	got := rendered(t, `{"receipt_id":"rcp_x","seq":4,"labels":["a","b"],"lease":{"fence":1,"agent":"b"},"envelope":{"payload":"`+payload+`","signatures":[{"keyid":"k\u202e"}]},"digests":[{"id":"<a>"}]}`)
	want := "receipt_id  rcp_x\nseq         4\nlabels      a, b\nlease       fence=1 agent=b\n" +
		"\nenvelope:\n  {\n    \"payload\": \"eyJ0eyJ0eyJ0eyJ0eyJ0eyJ0eyJ0eyJ0eyJ0eyJ0… (2000 bytes; -o json shows them)\",\n" +
		"    \"signatures\": [\n      {\n        \"keyid\": \"k�\"\n      }\n    ]\n  }\n" +
		"\ndigests:\n  [\n    {\n      \"id\": \"<a>\"\n    }\n  ]\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A list of receipts says what happened, not only that something did.
func TestReceiptsAsATable(t *testing.T) {
	got := rendered(t, `{"receipts":[
	{"receipt_id":"rcp_1","seq":7,"envelope":{},"statement":{"predicate":{"call":{"capability":"task.enqueue"},"commit":{"at":"T1","seq":7},"decision":{"effect":"allow"},"outcome":"transition","run":"run_1"}}},
	{"receipt_id":"rcp_2","seq":8,"envelope":{},"statement":{"predicate":{"call":{"capability":"task.claim"},"code":"scope_denied","commit":{"at":"T2"},"decision":{"effect":"deny","rules":["write_scopes.outside"]},"outcome":"denial"}}},
	{"receipt_id":"rcp_3","seq":9,"envelope":{},"statement":{"predicate":{"call":{"capability":"run.create"},"code":"rbac_denied","commit":{"at":"T3"},"outcome":"denial"}}}],
	"next_after":9,"more":false}`)
	lines := strings.Split(got, "\n")
	for i, want := range []string{
		"SEQ TIME CAPABILITY OUTCOME EFFECT RULE RUN RECEIPT_ID",
		"7 T1 task.enqueue transition allow run_1 rcp_1",
		"8 T2 task.claim denial deny write_scopes.outside rcp_2",
		"9 T3 run.create denial rbac_denied rcp_3",
		"next_after 9",
	} {
		if have := strings.Join(strings.Fields(lines[i]), " "); have != want {
			t.Errorf("line %d: got %q, want %q", i+1, have, want)
		}
	}
}

func TestTextsOfJSONAreCut(t *testing.T) {
	long := `{\"a\":\"` + strings.Repeat("x ", 200) + `\"}`
	if got, want := rendered(t, `{"digest":"d","text":"`+long+`"}`), "digest  d\ntext    (408 bytes of JSON; -o json shows them)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEmptyListsSaySo(t *testing.T) {
	for raw, want := range map[string]string{
		`{"runs":[]}`:                             "no runs\n",
		`{"tasks":[],"next":"x"}`:                 "no tasks\nnext  x\n",
		`{"agent_id":"a","state":"b","tools":[]}`: "no tools\nagent_id  a\nstate     b\n",
	} {
		if got := rendered(t, raw); got != want {
			t.Errorf("%s: got %q, want %q", raw, got, want)
		}
	}
}

// JSON on a terminal moves no cursor and turns no text, and is the same JSON.
func TestJSONIsSafeToShow(t *testing.T) {
	want := "a\u009bb\u202ec\x7fd\U000e0001e"
	raw, err := json.Marshal(map[string]string{"args": want})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := render(&b, "json", raw); err != nil {
		t.Fatal(err)
	}
	if text := strings.ReplaceAll(b.String(), "\n", ""); shown(text) != text {
		t.Errorf("shown: %q", text)
	}
	var got map[string]string
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got["args"] != want {
		t.Errorf("got %q, %v", got, err)
	}
}

// Below a table stands which rules would have changed what.
func TestChangesBelowATable(t *testing.T) {
	var b bytes.Buffer
	raw := `{"packs":[{"id":"a","changed":2,"changes":[{"rule":"a.one","from":"allow","to":"deny","count":2,"samples":["rcp_1"]}]},{"id":"b","changed":0}]}`
	if err := render(&b, "table", json.RawMessage(raw)); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	if want := []string{"ID CHANGED", "a 2", "b 0", "", "ID RULE FROM TO COUNT SAMPLE", "a a.one allow deny 2 rcp_1"}; !slices.Equal(lines, want) {
		t.Errorf("got %q", lines)
	}
}

// Of more members than a table has columns it shows those one looks for; what no row
// has is no column, and a member only later rows have is one.
func TestColumnsOfLists(t *testing.T) {
	for raw, want := range map[string]string{
		`{"agents":[{"agent_id":"a","name":"A","description":"d","archetypes":["executor"],"domain":"web","write_scope":[],"max_concurrent_tasks":4,"contract_ref":"c","receipt":"r","version":1,"state":"active","owns":["x","y"]}]}`: "AGENT_ID STATE DOMAIN ARCHETYPES OWNS MAX_CONCURRENT_TASKS NAME DESCRIPTION",
		`{"quotas":[{"quota_id":"q","metric":"m","subject":"agent","window":"hour","action":"deny","limit":3,"set_by":"o","receipt":"r","version":2,"used":0},{"quota_id":"p","value":"v"}]}`:                                          "QUOTA_ID METRIC SUBJECT VALUE USED LIMIT ACTION WINDOW",
		`{"things":[{"thing_id":"t","made_at":"T","receipt":"r","empty":"","size":1,"state":"x"},{"thing_id":"u","size":2,"color":"red"}]}`:                                                                                            "THING_ID STATE SIZE COLOR MADE_AT RECEIPT",
	} {
		head, _, _ := strings.Cut(rendered(t, raw), "\n")
		if got := strings.Join(strings.Fields(head), " "); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := narrow([]any{strings.Repeat("a", 30), strings.Repeat("b", 30), "c"}); got != strings.Repeat("a", 30)+", … (3)" {
		t.Errorf("a long list: %s", got)
	}
}
