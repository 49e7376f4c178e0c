package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the front page says to type after the demonstration works as it is
// printed there.
func TestReadmeCommandsWork(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var script []string
	for i, block := range strings.Split(string(text), "\n```\n") {
		if i%2 == 1 && (strings.Contains(block, "bin/writ ") || strings.Contains(block, "writ policy init ")) && !strings.Contains(block, "serve ") {
			script = append(script, block)
		}
	}
	if len(script) != 6 {
		t.Fatalf("found %d blocks of commands, want the operator's, the agent's, the verifier's, the auditor's two and the security team's", len(script))
	}
	dir := withBinary(t)
	do := func(name string, args ...string) string { return doIn(t, dir, name, args...) }
	do("bin/writ", "demo", "--once", "--data", "./.writ", "--listen", "127.0.0.1:0")
	newGateway(t, filepath.Join(dir, ".writ"))
	out := do("sh", "-ec", strings.Join(script, "\n"))
	for _, want := range []string{"token_file", "control            continue", "state             done", "verdict    ok", "0 would be otherwise", "verified with key  team-a"} {
		if !strings.Contains(squeezed(out), squeezed(want)) {
			t.Errorf("no %q in what the commands said:\n%s", want, out)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "builder.token")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token file: %v, %v", info, err)
	}
}

// What the page about work says to type works too, as one story.
func TestWorkPageCommandsWork(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/work.md")
	if err != nil {
		t.Fatal(err)
	}
	var script []string
	for i, block := range strings.Split(string(text), "\n```\n") {
		if i%2 == 1 && strings.Contains(block, " $") && !strings.Contains(block, "curl ") {
			script = append(script, block)
		}
	}
	if len(script) != 9 {
		t.Fatalf("found %d blocks of commands", len(script))
	}
	dir := withBinary(t)
	newGateway(t, filepath.Join(dir, ".writ"))
	out := doIn(t, dir, "sh", "-ec", strings.Join(script, "\n"))
	_, table, _ := strings.Cut(string(text), "```\nSTEP ")
	table, _, _ = strings.Cut(table, "\n```")
	for _, want := range []string{
		"site.yaml: 6 steps, nothing wrong", "STEP " + table, `"code":"deps_unmet"`, "exit code 7", "exit code 1", "dead attempt 1 external/timeout", "failed task_failed", "publish-again",
		"predicate_unsatisfied", "fs:site/menu/ exclusive", `"note": "the second half is thin"`, "menu-live", "verified true",
	} {
		if !strings.Contains(squeezed(out), squeezed(want)) {
			t.Errorf("no %q in what the commands said:\n%s", want, out)
		}
	}
	if !strings.HasSuffix(strings.TrimSpace(out), " done") {
		t.Errorf("the last run is not done:\n%s", out)
	}
}

// withBinary is a directory with bin/writ.
func withBinary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "bin", "writ")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// doIn runs a command that must succeed, without what the environment says of gateways.
func doIn(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(environ(t), "WRIT_TOKEN_FILE=", "WRIT_URL=", "WRIT_DATA=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// squeezed makes one space of many.
func squeezed(s string) string { return strings.Join(strings.Fields(s), " ") }
