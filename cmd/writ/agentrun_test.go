package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// Whatever a jail can be in want of has a remedy that is one: the doctor is named for what
// it tries, and for nothing else.
func TestWhatAJailLacks(t *testing.T) {
	tried := []string{
		"platform", "user_namespaces", "outer_seccomp", "apparmor", "namespaces", "mount", "proc", "network", "cgroup", "landlock", "seccomp", "init", "sandbox",
	}
	var all []string
	for file, form := range map[string]string{
		"../../jail/refusal.go":          `(?m)^\tFeature\w+ += "(\w+)"`,
		"../../internal/daemon/jails.go": `lacks\("(\w+)"`,
		"../../supervisor/run.go":        `(?:Missing: |missingDoor = )"(\w+)"`,
		"../../agents/jail.go":           `Missing: "(\w+)"`,
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(form).FindAllStringSubmatch(string(b), -1) {
			all = append(all, m[1])
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) < 25 {
		t.Fatalf("only %d are found: %v", len(all), all)
	}
	for _, missing := range all {
		why := lacking(missing)
		if byDoctor := strings.Contains(why, "jail doctor"); byDoctor != slices.Contains(tried, missing) || !strings.Contains(why, "; ") {
			t.Errorf("%s: %s", missing, why)
		}
	}
	if why := lacking("most.memory_mb"); !strings.Contains(why, "more memory_mb than") {
		t.Errorf("a ceiling: %s", why)
	}
	page, err := os.ReadFile("../../docs/jail.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, missing := range append(all, "most.memory_mb", "most.cpu_percent", "most.processes") {
		if !strings.Contains(string(page), "| `"+missing+"` |") {
			t.Errorf("docs/jail.md does not list %s", missing)
		}
	}
	for missing := range unmade {
		if !slices.Contains(all, missing) {
			t.Errorf("nothing is ever in want of %s", missing)
		}
	}
}

// Who runs an agent again where nothing was started does no work twice: no other end has
// that exit code.
func TestExitCodesOfAgents(t *testing.T) {
	for name, tc := range map[string]struct {
		exit     *writ.JailExit
		restarts int64
		code     int
	}{
		"done":                   {exit: &writ.JailExit{Why: writ.JailExited}, code: 0},
		"with a code":            {exit: &writ.JailExit{Why: writ.JailExited, Code: 3}, code: 3},
		"by a signal":            {exit: &writ.JailExit{Why: writ.JailSignalled, Signal: 15}, code: 143},
		"its time was up":        {exit: &writ.JailExit{Why: writ.JailDeadline}, code: 124},
		"its memory":             {exit: &writ.JailExit{Why: writ.JailMemory}, code: 137},
		"its session ended":      {exit: &writ.JailExit{Why: writ.JailKilled}, code: 137},
		"its door was lost":      {exit: &writ.JailExit{Why: writ.JailKilled, Missing: "door"}, code: 137},
		"its gateway is gone":    {exit: &writ.JailExit{Why: writ.JailLost}, code: 137},
		"nobody says":            {code: 137},
		"an end of a later time": {exit: &writ.JailExit{Why: "melted"}, code: 137},
		"no jail":                {exit: &writ.JailExit{Why: writ.JailUnavailable, Missing: "cgroup"}, code: 125},
		"no jail a second time":  {exit: &writ.JailExit{Why: writ.JailUnavailable, Missing: "cgroup"}, restarts: 1, code: 137},
		"policy refused it":      {exit: &writ.JailExit{Why: writ.JailRefused}, code: 125},
	} {
		if code := exitLike(tc.exit, tc.restarts); code != tc.code {
			t.Errorf("%s: %d", name, code)
		}
	}
}
