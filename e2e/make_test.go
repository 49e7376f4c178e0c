package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// make run becomes the program, so that Ctrl-C reaches nobody else and ends it
// without an error of make's.
func TestMakeRunBecomesTheProgram(t *testing.T) {
	out, err := exec.Command("make", "-C", "..", "-n", "run").CombinedOutput()
	if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || !strings.Contains(string(out), "\nexec bin/writ demo ") {
		t.Fatalf("%v: make run does %q", err, lines)
	}
}
