package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies/author"
)

// jailSite is what the operators of this machine let agents in jails have of it: the
// programs a registration may name, and where their write scopes lie. It is a file of
// the machine and no call changes it, so who may write to the registry, or has stolen
// the right to, gets nothing of the host that is not in it.
type jailSite struct {
	Programs map[string]jailProgram `yaml:"programs"` // by the name registrations use
	Scopes   map[string]string      `yaml:"scopes"`   // directories of the host, by scope
	Gvisor   jailGvisor             `yaml:"gvisor"`   // where jails with a kernel of their own come from
	Most     jailMost               `yaml:"most"`     // what one jail may have, and how many there may be
}

// jailGvisor is runsc, as this machine has it.
type jailGvisor struct {
	Runsc    string `yaml:"runsc"`    // its path; looked for in PATH
	Platform string `yaml:"platform"` // how it runs code: systrap, kvm or ptrace; its own choice
}

// jailMost are ceilings, whatever a registration asks for; 0: none is set.
type jailMost struct {
	MemoryMB   int64 `yaml:"memory_mb"`
	CPUPercent int64 `yaml:"cpu_percent"`
	Processes  int64 `yaml:"processes"`
	Jails      int64 `yaml:"jails"` // at a time, of this gateway
}

// tooMuch is the name of the ceiling that a registration asks to be above, if there is one.
func (m jailMost) tooMuch(s writ.JailSpec) (name string, most int64, above bool) {
	for _, c := range []struct {
		name        string
		asked, most int64
	}{{"memory_mb", s.MemoryMB, m.MemoryMB}, {"cpu_percent", s.CPUPercent, m.CPUPercent}, {"processes", s.Processes, m.Processes}} {
		if c.most > 0 && c.asked > c.most {
			return c.name, c.most, true
		}
	}
	return "", 0, false
}

// jailProgram is an executable agents may be run with.
type jailProgram struct {
	Path     string   `yaml:"path"`
	Args     []string `yaml:"args"`     // before those of the registration
	Env      []string `yaml:"env"`      // NAME=value
	Tools    []string `yaml:"tools"`    // executables it finds besides, in profiles that have tools
	Runtime  []string `yaml:"runtime"`  // files and directories it may read
	Profiles []string `yaml:"profiles"` // those it may be run in; none: all
}

var programName = regexp.MustCompile(`^[a-z][a-z0-9-]{1,62}$`)

// readJailSite reads the file, and says everything that is wrong with it. What is kept
// is the gateway's own: nothing of it may lie in a directory agents write to.
func readJailSite(path string, kept ...string) (jailSite, error) {
	var site jailSite
	if err := onlyOurs(path); err != nil {
		return site, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return site, err
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&site); err != nil && !errors.Is(err, io.EOF) {
		return site, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if !errors.Is(d.Decode(new(yaml.Node)), io.EOF) {
		return site, fmt.Errorf("%s: holds more than one document", path)
	}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{path}, args...)...))
	}
	absolute := func(what, p string) {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p {
			bad("%s: want an absolute path without . and .. and double slashes", what)
		}
	}
	if len(site.Programs) == 0 {
		bad("programs: name at least one")
	}
	if m := site.Most; min(m.MemoryMB, m.CPUPercent, m.Processes, m.Jails) < 0 {
		bad("most: want numbers above 0, or leave a ceiling out")
	}
	for name, p := range site.Programs {
		if !programName.MatchString(name) {
			bad("programs: names are of a-z, 0-9 and -, begin with a letter and have 2 to 63")
		}
		absolute("programs: "+name+": path", p.Path)
		for _, more := range [][]string{p.Tools, p.Runtime} {
			for _, f := range more {
				absolute("programs: "+name, f)
			}
		}
		for _, e := range p.Env {
			if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
				bad("programs: %s: env: want NAME=value", name)
			}
		}
		for _, profile := range p.Profiles {
			if !slices.Contains([]string{string(writ.JailStrict), string(writ.JailTools), string(writ.JailWorkspace)}, profile) {
				bad("programs: %s: profiles: want strict, tools or workspace", name)
			}
		}
	}
	if site.Gvisor.Runsc != "" {
		absolute("gvisor: runsc", site.Gvisor.Runsc)
	}
	if !slices.Contains([]string{"", "systrap", "kvm", "ptrace"}, site.Gvisor.Platform) {
		bad("gvisor: platform: want systrap, kvm or ptrace")
	}
	for scope, dir := range site.Scopes {
		canonical, err := writ.CanonicalScope(scope)
		if err != nil || canonical != scope || !strings.HasPrefix(scope, "fs:") || !strings.HasSuffix(scope, "/") {
			bad("scopes: want canonical ones of directories, such as fs:site/")
		}
		absolute("scopes: "+scope, dir)
	}
	// What one session alone writes to no other may reach by another name, and no agent
	// may write what is run, or what says what is run.
	kept = append(kept, path)
	if site.Gvisor.Runsc != "" {
		kept = append(kept, site.Gvisor.Runsc)
	} else { // any registration may ask for it
		kept = append(kept, found("runsc")...)
	}
	for _, p := range site.Programs {
		kept = append(append(append(kept, p.Path), p.Tools...), p.Runtime...)
	}
	var places []string
	for _, k := range kept {
		for _, spelt := range slices.Compact([]string{k, filepath.Clean(k)}) {
			p, err := leadsThrough(spelt)
			if err != nil {
				return site, err
			}
			places = append(places, p...)
		}
	}
	names := slices.Sorted(maps.Keys(site.Scopes))
	for i, name := range names {
		dir := real(site.Scopes[name])
		for _, other := range names[i+1:] {
			if writ.ScopesOverlap(name, other) || within(dir, real(site.Scopes[other])) || within(real(site.Scopes[other]), dir) {
				bad("scopes: %s and %s overlap, by name or by directory", name, other)
			}
		}
		for _, p := range places {
			if within(dir, p) || within(p, dir) {
				bad("scopes: %s: its directory holds, or lies in, something agents may not write: %s", name, p)
			}
		}
	}
	return site, errors.Join(errs...)
}

// real is a path without symbolic links, as far as it is there.
func real(path string) string {
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	return filepath.Clean(path)
}

// leadsThrough is where a path really leads, and where each symbolic link on the way lies:
// whoever may change one of those says what is at the end. A .. behind a link is that of
// where the link leads, as the kernel has it. Who joins a name to the path takes it away by
// its words, so what is kept is looked at both ways.
func leadsThrough(path string) (out []string, err error) {
	if !filepath.IsAbs(path) {
		wd, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		path = wd + "/" + path
	}
	at, left := "/", strings.Split(path, "/")
	for links := 0; len(left) > 0; {
		at, left = filepath.Join(at, left[0]), left[1:]
		to, err := os.Readlink(at)
		if err != nil { // no link, or not there
			continue
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("%s: leads through too many symbolic links: name what is at their end", path)
		}
		out = append(out, at)
		at, left = filepath.Dir(at), append(strings.Split(to, "/"), left...)
		if filepath.IsAbs(to) {
			at = "/"
		}
	}
	return append(out, at), nil
}

const maxLinks = 40 // as the kernel has it

// within says whether a path is a directory's, or in it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// onlyOurs refuses a file that somebody else could have written: it decides what runs.
func onlyOurs(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !fi.Mode().IsRegular() || fi.Mode().Perm()&0o022 != 0 || ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: others may write to it; it must belong to root or to the gateway's user: chmod go-w", path)
	}
	return nil
}

// found is what says which program of a name is run: the directories of PATH, where
// another of that name may be put, and the one that is found there now.
func found(name string) []string {
	out := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		return !filepath.IsAbs(dir) // nothing is run from those
	})
	if p, err := exec.LookPath(name); err == nil {
		out = append(out, p)
	}
	return out
}

// directory is where on this host a claim lies, if it has a place there.
func (s jailSite) directory(claim string) (string, bool) {
	for scope, dir := range s.Scopes {
		if writ.ScopeCovers(scope, claim) {
			return filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(claim, scope))), true
		}
	}
	return "", false
}

// own are the files and directories of this machine that the gateway itself is made of:
// whoever may write one may change what it does, or whom it believes.
func (c Config) own() ([]string, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out := []string{program, c.Data, c.Keys, c.Blobs, c.Policies, c.Trust, c.TilesKey, c.file}
	if named, err := exec.LookPath(os.Args[0]); err == nil { // a link to it, perhaps, which the next start follows
		out = append(out, named)
	}
	for _, key := range []string{c.LogKey, c.RootKey} {
		if service, _, elsewhere := strings.Cut(key, "://"); elsewhere {
			out = append(out, found("sigstore-kms-"+service)...)
		} else {
			out = append(out, key)
		}
	}
	for _, h := range c.Webhooks {
		out = append(out, h.SecretFile)
	}
	if u, err := url.Parse(c.Store); err == nil && u.Scheme == "unix" {
		out = append(out, u.Path)
	}
	if c.Trust != "" {
		b, err := os.ReadFile(c.Trust)
		if err != nil {
			return nil, err
		}
		dir := filepath.Dir(c.Trust)
		trust, err := author.ReadTrust(b, os.DirFS(dir))
		if err != nil {
			return nil, err
		}
		for _, k := range trust.Keys {
			if !k.Here() {
				out = append(out, filepath.Join(dir, k.PublicKey))
			}
		}
	}
	return slices.DeleteFunc(out, func(p string) bool { return p == "" }), nil
}
