package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// jailWords are the words of jail run, with the flag this machine needs.
func jailWords(t *testing.T, words ...string) []string {
	t.Helper()
	jailtest.Need(t)
	out := []string{"jail", "run"}
	if !jailtest.HasCgroup() {
		out = append(out, "--without-cgroup")
	}
	return append(out, words...)
}

func spoken(words []string) (code int, stdout, stderr string) {
	var out, errs strings.Builder
	code = run(words, &out, &errs)
	return code, out.String(), errs.String()
}

func TestJailRun(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name           string
		words          []string
		code           int
		stdout, stderr string
	}{
		{"a shell", []string{"--profile", "workspace", "--", "sh", "-c", "id -u; echo to you >&2; exit 3"}, 3, "1000\n", "to you\n"},
		{"what it writes stays", []string{"--profile", "workspace", "--write", dir, "--", "sh", "-c", "echo kept > f; pwd"}, 0, "/scopes/1\n", ""},
		{"a tool", []string{"--profile", "tools", "--read", dir, "--tool", "cat", "--", "env", "cat", "/scopes/1/f"}, 0, "kept\n", ""},
		{"its environment", []string{"--profile", "tools", "--env", "A=b", "--", "env"}, 0, "PATH=/tools\nHOME=/tmp\nTMPDIR=/tmp\nA=b\n", ""},
		{"a deadline", []string{"--profile", "workspace", "--deadline", "100ms", "--", "sleep", "1000"}, 124, "", "writ: the jail ended: deadline\n"},
		{"a signal", []string{"--profile", "workspace", "--", "sh", "-c", "kill -9 $$"}, 137, "", "writ: the jail ended: signaled\n"},
		{"not there", []string{"--", "no-such-program"}, 127, "", "writ: error: jail refused: agent: there is no such program; the agent was not started\nwrit: hint: name one that is there and can be executed\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := spoken(jailWords(t, tt.words...))
			if code != tt.code || stdout != tt.stdout || stderr != tt.stderr {
				t.Errorf("it exits with %d and says\n%s%s\nwant %d and\n%s%s", code, stdout, stderr, tt.code, tt.stdout, tt.stderr)
			}
		})
	}
}

// There is no gateway behind the door, and the answer says so.
func TestJailRunAnswers(t *testing.T) {
	code, stdout, stderr := spoken(jailWords(t, "--profile", "workspace", "--", "bash", "-c",
		`exec 3<>/dev/tcp/gateway/80; printf 'GET /v1/runs HTTP/1.0\r\n\r\n' >&3; cat <&3`))
	if code != 0 || !strings.HasPrefix(stdout, "HTTP/1.0 503 ") || !strings.Contains(stdout, `"code":"not_ready"`) {
		t.Errorf("it exits with %d and says\n%s%s", code, stdout, stderr)
	}
}

func TestJailRunAsJSON(t *testing.T) {
	code, stdout, _ := spoken(jailWords(t, "--profile", "workspace", "-o", "json", "--", "sh", "-c", "echo out; echo err >&2; exit 4"))
	var got jailRun
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if code != 4 || got.Exit.Code != 4 || got.Stdout != "out\n" || got.Stderr != "err\n" {
		t.Errorf("it exits with %d and says %s", code, stdout)
	}
	if f := got.Features; f.Backend != "ns" || f.Profile != "workspace" || f.Landlock < 4 || !strings.HasPrefix(f.Seccomp, "sha256:") || len(f.Namespaces) != 7 {
		t.Errorf("its features are %+v", f)
	}
	code, stdout, stderr := spoken(jailWords(t, "-o", "json", "--", "sh", "-c", "true"))
	var refused refusal
	if err := json.Unmarshal([]byte(stderr), &refused); err != nil {
		t.Fatal(err, stderr)
	}
	if code != 125 || refused.Exit != 125 || refused.Details["feature"] != jail.FeatureAgent || refused.Hint == "" || stdout != "" {
		t.Errorf("it exits with %d and says %s", code, stderr)
	}
}

func TestJailRunMistakes(t *testing.T) {
	for _, words := range [][]string{
		{"jail", "run"},
		{"jail", "run", "--profile", "loose", "--", "sh"},
		{"jail", "run", "--profile", "tools", "--write", filepath.Join(t.TempDir(), "none"), "--", "env"},
		{"jail", "break"},
	} {
		if code, _, stderr := spoken(words); code != exitUsage {
			t.Errorf("%v exits with %d and says %s", words, code, stderr)
		}
	}
}

func TestJailDoctor(t *testing.T) {
	jailtest.Need(t)
	want := exitOK
	if !jailtest.HasCgroup() {
		want = exitError
	}
	code, stdout, _ := spoken([]string{"jail", "doctor"})
	if code != want || !strings.Contains(stdout, "profile workspace") || !strings.Contains(stdout, "landlock") {
		t.Errorf("it exits with %d and says\n%s", code, stdout)
	}
	code, stdout, _ = spoken([]string{"jail", "doctor", "-o", "json"})
	var got struct {
		Starts bool         `json:"starts"`
		Probes []jail.Probe `json:"probes"`
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != want || got.Starts != (want == exitOK) || len(got.Probes) < 10 {
		t.Errorf("it exits with %d and says\n%s", code, stdout)
	}
	for _, p := range got.Probes {
		if p.Name == "" || p.Found == "" || !p.OK && p.Remedy == "" {
			t.Errorf("a probe says too little: %+v", p)
		}
	}
}

// What is missing is marked and followed by what to change.
func TestPrintProbes(t *testing.T) {
	var b strings.Builder
	printProbes(&b, []jail.Probe{{Name: "kernel", OK: true, Found: "Linux"}, {Name: "landlock", Found: "ABI 1\x1b", Remedy: "change it"}})
	const want = `ok       kernel             Linux
missing  landlock           ABI 1�
                            → change it
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}
