package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// A verdict is about what the gateway shows: the payload of the receipt, which is taken
// from what was signed and not from what is said beside it, and every artifact.
func TestWhatAVerdictIsAbout(t *testing.T) {
	const hex = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	shown := func(payload string) string {
		return fmt.Sprintf(`{"receipt_id":"rcp_7","seq":7,"envelope":{"payload":%q},"statement":{"predicate":{"receiptId":"rcp_7"}}}`, base64.StdEncoding.EncodeToString([]byte(payload)))
	}
	// brings is a receipt that leaves objects in states.
	brings := func(moves ...string) string {
		var changes []string
		for _, m := range moves {
			f := strings.Fields(m)
			changes = append(changes, fmt.Sprintf(`{"kind":%q,"id":%q,"to":%q}`, f[0], f[1], f[2]))
		}
		return `{"predicate":{"receiptId":"rcp_7","changes":[` + strings.Join(changes, ",") + `]}}`
	}
	payload := brings("task tsk_1 verifying")
	task := fmt.Sprintf(`{"task_id":"tsk_1","receipt":"rcp_7","artifacts":[{"name":"site","digest":"sha256:%s"}]}`, hex)
	session := `{"session_id":"ses_1","agent_id":"checker"}`

	c, f := newFake(t, nil, ok("done", task, "Policy-Revision", "sha256:aa"), ok("done", shown(payload)), ok("done", session))
	got, err := c.JudgedTask(context.Background(), "tsk_1", writ.VerdictAccept, []Gate{{Name: "tests", Status: "pass"}, {Name: "lint", Status: "pass"}, {Name: "lint", Status: "fail"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	about := writ.VerdictSubjects(writ.Receipt{Payload: []byte(payload)}, []string{"sha256:" + hex})
	if v := got.Want; v.Agent != "checker" || v.Policy != "sha256:aa" || !slices.Equal(v.Subjects, about) ||
		!slices.Equal(v.Properties, []string{"WRIT_GATE_FAIL:lint", "WRIT_GATE_PASS:tests", "WRIT_VERDICT_ACCEPT", "WRIT_VERDICT_ON:task/tsk_1"}) || got.Names[hex] != "artifact/site" {
		t.Errorf("got %+v", got)
	}
	if n := len(f.got()); n != 3 {
		t.Errorf("%d calls", n)
	}

	// Of a run, all pages of it.
	payload = brings("task tsk_2 done", "run run_1 verifying")
	about = writ.VerdictSubjects(writ.Receipt{Payload: []byte(payload)}, []string{"sha256:" + hex})
	run := `{"run_id":"run_1","receipt":"rcp_7"}`
	c, _ = newFake(t, nil, ok("done", run, "Policy-Revision", "sha256:aa"), ok("done", `{"tasks":[`+task+`],"next":"tsk_1"}`), ok("done", `{"tasks":[]}`), ok("done", shown(payload)), ok("done", session))
	if got, err = c.JudgedRun(context.Background(), "run_1", writ.VerdictReject, []string{"late"}); err != nil || !slices.Equal(got.Want.Subjects, about) || !slices.Equal(got.Want.Properties, []string{"WRIT_REASON:late", "WRIT_VERDICT_ON:run/run_1", "WRIT_VERDICT_REJECT"}) {
		t.Errorf("got %+v, %v", got, err)
	}

	// A receipt after which it does not wait for a verdict.
	for _, payload := range []string{brings(), brings("task tsk_1 done"), brings("run tsk_1 verifying"), brings("task tsk_2 verifying")} {
		c, _ = newFake(t, nil, ok("done", task), ok("done", shown(payload)))
		if _, err := c.JudgedTask(context.Background(), "tsk_1", writ.VerdictAccept, nil, nil); writ.CodeOf(err) != writ.CodeIllegal {
			t.Errorf("%s: %v", payload, err)
		}
	}

	// Another receipt than the one that was asked for, and a session nobody signs in.
	payload = brings("task tsk_1 verifying")
	c, _ = newFake(t, nil, ok("done", task), ok("done", shown(strings.Replace(payload, "7", "8", 1))))
	if _, err := c.JudgedTask(context.Background(), "tsk_1", writ.VerdictAccept, nil, nil); writ.CodeOf(err) != writ.CodeInternal {
		t.Errorf("another receipt: %v", err)
	}
	c, _ = newFake(t, nil, ok("done", task), ok("done", shown(payload)), ok("done", `{"session_id":"ses_1"}`))
	if _, err := c.JudgedTask(context.Background(), "tsk_1", writ.VerdictAccept, nil, nil); writ.CodeOf(err) != writ.CodeNotEligible {
		t.Errorf("a person: %v", err)
	}
}

func TestSignedVerdictsAreSent(t *testing.T) {
	c, f := newFake(t, nil, ok("done", `{}`), ok("done", `{}`), ok("done", `{}`))
	signed := WithSignedVerdict("an envelope")
	if _, err := c.VerifyTask(context.Background(), Task{ID: "tsk_1"}, writ.VerdictAccept, nil, nil, signed); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CloseRun(context.Background(), Run{ID: "run_1"}, writ.VerdictAccept, nil, nil, signed); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CloseRun(context.Background(), Run{ID: "run_1"}, writ.VerdictAccept, nil, nil); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"an envelope", "an envelope", ""} {
		var args struct {
			Signed *string `json:"verdict_dsse"`
		}
		if err := json.Unmarshal(f.got()[i].Args, &args); err != nil || (args.Signed == nil) != (want == "") || args.Signed != nil && *args.Signed != want {
			t.Errorf("call %d sent %s", i, f.got()[i].Args)
		}
	}
}
