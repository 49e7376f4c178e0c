package e2e

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// W1: three programs that know only where the gateway is, and the tokens of their
// sessions, bring work from its plan to its verdict without a person.
func TestW1T1ThreeAgents(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", "run", "./examples/loop", "--data", w.gw[0].data)
		cmd.Dir = ".."
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, line := range []string{
			"publish is blocked", "publish is queued", "publish is done", "the run is done", "task.verify    verifier     task verifying→done, run active→verifying",
			"run.close      verifier     run verifying→done", "no call of a person among them",
		} {
			if !strings.Contains(string(out), line) {
				t.Errorf("it does not say %q:\n%s", line, out)
			}
		}
		w.t = t
		w.audited()
	})
}
