package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
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
	for missing := range unmade {
		if !slices.Contains(all, missing) {
			t.Errorf("nothing is ever in want of %s", missing)
		}
	}
}
