package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

func TestJailSite(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"site", "site/sub", "data", "opt"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "site"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	write := func(text string, mode os.FileMode) string {
		file := filepath.Join(dir, "jails.yaml")
		_ = os.Remove(file)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "DIR", dir)), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const programs = "programs:\n  one: {path: DIR/opt/one}\n"
	for name, tc := range map[string]struct{ text, wrong string }{
		"sound":                         {programs + "scopes: {\"fs:site/\": DIR/site, \"fs:press/\": DIR/press}\n", ""},
		"no program":                    {"scopes: {}\n", "at least one"},
		"unknown field":                 {programs + "more: 1\n", "more"},
		"relative path":                 {"programs: {one: {path: opt/one}}\n", "absolute"},
		"bad name":                      {"programs: {One: {path: /opt/one}}\n", "names are of"},
		"bad profile":                   {"programs: {one: {path: /opt/one, profiles: [none]}}\n", "strict, tools or workspace"},
		"bad environment":               {"programs: {one: {path: /opt/one, env: [X]}}\n", "NAME=value"},
		"scope of no file system":       {programs + "scopes: {\"mem:a/\": DIR/site}\n", "canonical"},
		"scopes that cover each other":  {programs + "scopes: {\"fs:site/\": DIR/site, \"fs:site/sub/\": DIR/press}\n", "overlap"},
		"directories within each other": {programs + "scopes: {\"fs:a/\": DIR/site, \"fs:b/\": DIR/site/sub}\n", "overlap"},
		"one directory by two names":    {programs + "scopes: {\"fs:a/\": DIR/site, \"fs:b/\": DIR/link}\n", "overlap"},
		"a scope with a program in it":  {programs + "scopes: {\"fs:a/\": DIR/opt}\n", "may not write"},
		"a scope with the file in it":   {programs + "scopes: {\"fs:a/\": DIR}\n", "may not write"},
		"a scope in the gateway's data": {programs + "scopes: {\"fs:a/\": DIR/data/x}\n", "may not write"},
		"a sandbox":                     {programs + "gvisor: {runsc: /usr/local/bin/runsc, platform: kvm}\n", ""},
		"a sandbox looked for":          {programs + "gvisor: {runsc: runsc}\n", "absolute"},
		"a platform there is none of":   {programs + "gvisor: {platform: qemu}\n", "systrap, kvm or ptrace"},
		"a scope with runsc in it":      {programs + "gvisor: {runsc: DIR/site/runsc}\nscopes: {\"fs:a/\": DIR/site}\n", "may not write"},
		"ceilings":                      {programs + "most: {memory_mb: 512, cpu_percent: 100, processes: 64, jails: 8}\n", ""},
		"a ceiling below nothing":       {programs + "most: {processes: -1}\n", "above 0"},
		"a ceiling of something else":   {programs + "most: {files: 1}\n", "files"},
		"two documents":                 {programs + "---\n" + programs, "more than one"},
	} {
		_, err := readJailSite(write(tc.text, 0o600), filepath.Join(dir, "data"))
		if tc.wrong == "" && err != nil || tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := readJailSite(write(programs, 0o666)); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("a file others may write: %v", err)
	}
}

func TestDirectoryOfAClaim(t *testing.T) {
	site := jailSite{Scopes: map[string]string{"fs:site/": "/srv/site"}}
	for claim, want := range map[string]string{"fs:site/": "/srv/site", "fs:site/dist/": "/srv/site/dist", "fs:sites/": "", "mem:site/": ""} {
		if got, ok := site.directory(claim); got != want || ok != (want != "") {
			t.Errorf("%s is %q, %t", claim, got, ok)
		}
	}
}

// What a registration asks for above what the machine lets a jail have is refused, by name.
func TestCeilingsOfTheMachine(t *testing.T) {
	c := cells{site: jailSite{Programs: map[string]jailProgram{"one": {Path: "/opt/one"}}, Most: jailMost{MemoryMB: 512, CPUPercent: 200, Processes: 64}}}
	for missing, ask := range map[string]writ.JailSpec{
		"":                 {MemoryMB: 512, CPUPercent: 200, Processes: 64},
		"most.memory_mb":   {MemoryMB: 513, CPUPercent: 200, Processes: 64},
		"most.cpu_percent": {MemoryMB: 512, CPUPercent: 201, Processes: 64},
		"most.processes":   {MemoryMB: 512, CPUPercent: 200}, // the default is more
	} {
		ask.Program = "one"
		_, err := c.spec(writ.Jail{Spec: ask.Filled()})
		if l, _ := errors.AsType[lacking](err); l.what != missing || (err == nil) != (missing == "") {
			t.Errorf("want %q: %v", missing, err)
		}
	}
	free := cells{site: jailSite{Programs: c.site.Programs}}
	if _, err := free.spec(writ.Jail{Spec: writ.JailSpec{Program: "one", MemoryMB: 1 << 20}.Filled()}); err != nil {
		t.Errorf("without a ceiling: %v", err)
	}
}
