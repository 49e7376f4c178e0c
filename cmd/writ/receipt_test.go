package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// A saved answer of the API is an export too, pretty or not; what is neither
// is passed on as it is: one line without an end.
func TestSavedAnswersVerify(t *testing.T) {
	const dir = "../../testdata/vectors/receipts/"
	export, err := os.ReadFile(dir + "export.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(dir + "receipt.pub")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(export)), "\n")
	answer := `{"header":` + lines[0] + `,"receipts":[` + strings.Join(lines[1:len(lines)-1], ",") + `],"head":` + lines[len(lines)-1] + `,"next_after":4,"more":false}`
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, []byte(answer), "", "  "); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		want receipts.Verdict
	}{
		"file":             {string(export), receipts.Good},
		"answer":           {answer, receipts.Good},
		"pretty answer":    {pretty.String(), receipts.Good},
		"receipt missing":  {strings.Replace(answer, lines[2]+",", "", 1), receipts.Incomplete},
		"receipt repeated": {strings.Replace(answer, lines[2], lines[2]+","+lines[2], 1), receipts.Tampered},
		"one more member":  {strings.Replace(answer, `"more"`, `"x":1,"more"`, 1), receipts.Incomplete},
		"more after it":    {answer + "{}", receipts.Incomplete},
		"cut off":          {answer[:len(answer)/2], receipts.Incomplete},
	} {
		in, err := exportText(strings.NewReader(c.text))
		if err != nil {
			t.Fatal(err)
		}
		r, err := receipts.Verify(in, pub)
		if err != nil || r.Verdict != c.want {
			t.Errorf("%s: got %s (%s), %v, want %s", name, r.Verdict, r.Reason, err, c.want)
		}
	}
	in, err := exportText(strings.NewReader("neither"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(in); err != nil || string(b) != "neither" {
		t.Errorf("got %q, %v", b, err)
	}
}

// A verdict in the log is its verifier's: so says the command that checks it, and no tlog-proof is made of it.
func TestBundleOfAVerdict(t *testing.T) {
	kind := writ.FactForeign
	g := newStandIn(t, func(asked) (int, string) {
		return 200, fmt.Sprintf(`{"included":true,"kind":%q,"bundle":{},"tlog_proof":"x","statement":{"subject":[{"digest":{"sha256":"ab"}}]}}`, kind)
	})
	const id = "rcp_01M89R8776WWQMDZ1SS4766DAD"
	bundle := func(args ...string) (string, int) {
		_, text, exit := typed(slices.Concat([]string{"receipt", "bundle", id, "--out", filepath.Join(t.TempDir(), "out")}, args, g.flags)...)
		return text, exit
	}
	if text, exit := bundle(); exit != 0 || !strings.Contains(text, "--key VERIFIER.pub ") || !strings.Contains(text, writ.VerdictType) {
		t.Errorf("%d: %s", exit, text)
	}
	if text, exit := bundle("--format", "tlog-proof"); exit == 0 || !strings.Contains(text, "check it with cosign") {
		t.Errorf("%d: %s", exit, text)
	}
	kind = writ.FactSealed
	if text, exit := bundle(); exit != 0 || !strings.Contains(text, "--key receipt.pub ") || !strings.Contains(text, receipts.TransitionType) {
		t.Errorf("%d: %s", exit, text)
	}
}
