package daemon

import (
	"cmp"
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

// A directory that agents write to holds nothing the gateway is made of, and lies in nothing
// of it, whatever setting names that, relative to where the gateway was started or not, and by
// whatever links.
func TestWhatIsTheGatewaysOwn(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, d := range []string{"site/in", "other", "kept/deep"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
	for name, text := range map[string]string{
		"jails.yaml": "programs: {one: {path: /opt/one}}\nscopes: {\"fs:site/\": " + dir + "/site}\n", "site/config.yaml": "",
		"site/team.pub": pem, "other/trust.yaml": "keys: {team-a: {public_key: team.pub, packs: [protected_paths]}}\n", "other/team.pub": pem,
		"beside.yaml": "keys: {team-a: {public_key: site/team.pub, packs: [protected_paths]}}\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"site/leads-out": "../kept", "other/leads-in": "../site", "other/twice": "leads-in/leads-out", "other/below": "../site/in", "deep": "kept/deep"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		file  string // of the configuration
		set   map[string]string
		apart bool
	}{
		"nothing":                        {set: map[string]string{}, apart: true},
		"all of it elsewhere":            {set: map[string]string{"policies": "kept", "policy_trust": "other/trust.yaml", "log_key": "kept/log.key", "tiles_credentials": dir + "/other/tiles"}, apart: true},
		"keys of another program":        {set: map[string]string{"log_key": "awskms://site/x", "root_key": "gcpkms://site/x"}, apart: true},
		"the configuration":              {file: "site/config.yaml"},
		"data":                           {set: map[string]string{"data": "site/data"}},
		"keys":                           {set: map[string]string{"keys": "site/keys"}},
		"artifacts":                      {set: map[string]string{"blobs": "site/blobs"}},
		"the file of jails":              {set: map[string]string{"jails": "site/jails.yaml"}},
		"policies":                       {set: map[string]string{"policies": "site/deep/policies"}},
		"policies it lies in":            {set: map[string]string{"policies": dir}},
		"who may sign":                   {set: map[string]string{"policy_trust": "site/trust.yaml"}},
		"with what, in a file beside it": {set: map[string]string{"policy_trust": "beside.yaml"}},
		"the log's key":                  {set: map[string]string{"log_key": "site/log.key"}},
		"the root's key":                 {set: map[string]string{"root_key": dir + "/site/root.key"}},
		"credentials":                    {set: map[string]string{"tiles_credentials": "site/tiles"}},
		"a webhook's secret":             {set: map[string]string{"webhooks": "[{url: https://hooks.example, secret_file: site/secret}]"}},
		"the socket of the store":        {set: map[string]string{"store": "unix://" + dir + "/site/redis.sock?db=1"}},
		"a link that lies there":         {set: map[string]string{"policies": "site/leads-out/deep"}},
		"a link that leads there":        {set: map[string]string{"policies": "other/leads-in/policies"}},
		"a link by way of it":            {set: map[string]string{"policies": "other/twice/deep"}},
		"what is above a link's end":     {set: map[string]string{"keys": "other/below/../keys"}},
		"the same, joined to a name":     {set: map[string]string{"keys": "deep/../site/keys"}},
	} {
		all := map[string]string{"data": "kept/data"}
		for k, v := range tc.set {
			all[k] = v
		}
		cfg, err := Load(tc.file, noEnv, all)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, written := range []string{"site/jails.yaml", "site/trust.yaml"} { // by the cases that name them
			_ = os.Remove(written)
			from := map[string]string{"site/jails.yaml": "jails.yaml", "site/trust.yaml": "other/trust.yaml"}[written]
			if b, err := os.ReadFile(from); err != nil || (cfg.Jails == written || cfg.Trust == written) && os.WriteFile(written, b, 0o600) != nil {
				t.Fatal(err)
			}
		}
		own, err := cfg.own()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = readJailSite(cmp.Or(cfg.Jails, "jails.yaml"), own...)
		if tc.apart && err != nil || !tc.apart && (err == nil || !strings.Contains(err.Error(), "may not write")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nor does it hold a program that the gateway is, or runs: neither the one there is, nor the
// place where another of its name would be found first.
func TestWhatTheGatewayRunsIsItsOwn(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"first", "second", "away", "bare"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range []string{"away/runsc", "second/sigstore-kms-safe", "away/writ"} {
		if err := os.WriteFile(filepath.Join(dir, program), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"second/runsc": "../away/runsc", "bare/writ": "../away/writ"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	started := os.Args[0]
	t.Cleanup(func() { os.Args[0] = started })
	const named = "gvisor: {runsc: /opt/runsc}\n"
	for name, tc := range map[string]struct {
		scope, path, more, key, started string
		apart                           bool
	}{
		"nothing":                           {scope: "bare", path: "first:second", apart: true},
		"itself":                            {scope: filepath.Dir(self), started: "gone"},
		"the link it was started by":        {scope: "bare", started: dir + "/bare/writ"},
		"the same, found":                   {scope: "bare", started: "writ", path: "bare", more: named},
		"runsc, at the end of a link":       {scope: "away", path: "first:second"},
		"runsc, by the link":                {scope: "second", path: "first:second"},
		"where it is looked for before":     {scope: "first", path: "first:second"},
		"where it would be, if there":       {scope: "first", path: "first"},
		"none looked for, since it is told": {scope: "second", path: "first:second", more: named, apart: true},
		"a key's program":                   {scope: "second", path: "first:second", more: named, key: "safe://k"},
		"before a key's program":            {scope: "first", path: "first:second", more: named, key: "safe://k"},
		"what is run from nowhere":          {scope: "bare", path: ":.:bare", apart: true},
	} {
		t.Run(name, func(t *testing.T) {
			scope := tc.scope
			if !filepath.IsAbs(scope) {
				scope = filepath.Join(dir, scope)
			}
			var path []string
			for _, d := range filepath.SplitList(tc.path) {
				if name != "what is run from nowhere" {
					d = filepath.Join(dir, d)
				}
				path = append(path, d)
			}
			t.Setenv("PATH", strings.Join(path, ":"))
			os.Args[0] = cmp.Or(tc.started, self)
			file := filepath.Join(t.TempDir(), "jails.yaml")
			if err := os.WriteFile(file, []byte("programs: {one: {path: /opt/one}}\nscopes: {\"fs:site/\": "+scope+"}\n"+tc.more), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"log_key", "root_key"} {
				all := map[string]string{"data": t.TempDir()}
				if tc.key != "" {
					all[key] = tc.key
				}
				cfg, err := Load("", noEnv, all)
				if err != nil {
					t.Fatal(err)
				}
				own, err := cfg.own()
				if err != nil {
					t.Fatal(err)
				}
				if _, err = readJailSite(file, own...); tc.apart && err != nil || !tc.apart && (err == nil || !strings.Contains(err.Error(), "may not write")) {
					t.Errorf("with %s: %v", key, err)
				}
			}
		})
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
