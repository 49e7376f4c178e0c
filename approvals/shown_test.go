package approvals

import (
	"strings"
	"testing"
)

// People agree to a verdict, and not to when it was signed: the same verdict signed again
// is the same call to them, and nobody is shown a signature.
func TestAVerdictSignedAgainIsTheSameCall(t *testing.T) {
	type args struct {
		Task    string `json:"task_id"`
		Verdict string `json:"verdict"`
		Signed  string `json:"verdict_dsse,omitempty"`
	}
	text, first, err := shown(&args{"tsk_1", "accept", "signed at noon"})
	if err != nil || strings.Contains(string(text), "noon") {
		t.Fatalf("shown is %s, %v", text, err)
	}
	if _, again, err := shown(&args{"tsk_1", "accept", "signed at one"}); err != nil || again != first {
		t.Errorf("signed again it is another call: %v", err)
	}
	if _, other, err := shown(&args{"tsk_1", "reject", "signed at noon"}); err != nil || other == first {
		t.Errorf("another verdict is the same call: %v", err)
	}
}
