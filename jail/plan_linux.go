package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// The agent's user inside: there is no other.
const insideID = 1000

const (
	socketPath = "/run/gateway.sock"
	gatewayTCP = 80
)

// Attributes of mounts, strictest first. Devices and their absence are the root's.
const (
	sealed   = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	program  = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_RDONLY
	readonly = sealed | unix.MOUNT_ATTR_RDONLY
)

// plan is a Spec written out: all that the first process needs, but for descriptors.
type plan struct {
	wire.Spec
	shared []int // mounts that are scopes of the host
}

var (
	idForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$`)
	nameForm = regexp.MustCompile(`^[A-Za-z0-9_+][A-Za-z0-9_.+-]{0,63}$`)
	envForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
)

const (
	maxScopes  = 32
	maxGrants  = 64
	maxSpecEnv = 64 << 10
)

// noCore is the limit of core dumps at which the kernel makes none. At 0 it makes no file of one, but still pipes it
// to a program of the host, which is root's there.
const noCore = 1

// planOf writes a checked spec out for a kernel with this Landlock ABI.
func planOf(s Spec, abi int, user uint32) (*plan, error) {
	p := &plan{Spec: wire.Spec{
		UID: user, GID: user, Hostname: "jail",
		ReadOnly: []string{"/", "/run", "/dev"}, Socket: socketPath, Port: gatewayTCP,
		DeadlineMs: uint64((s.Deadline + time.Millisecond - 1) / time.Millisecond),
	}}
	p.Landlock = rulesFor(abi, s.Profile)
	p.furnish(s)
	if s.Profile.System {
		if err := p.system(); err != nil {
			return nil, err
		}
	}
	if err := p.programs(s); err != nil {
		return nil, err
	}
	if err := p.scopes(s); err != nil {
		return nil, err
	}
	if err := p.nothingNested(); err != nil {
		return nil, err
	}
	l := s.Limits
	p.Limits = []wire.Limit{
		{Resource: unix.RLIMIT_CORE, Value: noCore},
		{Resource: unix.RLIMIT_NPROC, Value: uint64(l.Processes)},
		{Resource: unix.RLIMIT_DATA, Value: uint64(l.Data)},
		{Resource: unix.RLIMIT_FSIZE, Value: uint64(l.FileSize)},
		{Resource: unix.RLIMIT_NOFILE, Value: uint64(l.Files)},
		{Resource: unix.RLIMIT_MSGQUEUE, Value: 0},
		{Resource: unix.RLIMIT_SIGPENDING, Value: 512}, // and timers; they are charged to whoever made the namespace too
		{Resource: unix.RLIMIT_MEMLOCK, Value: 64 << 10},
		{Resource: unix.RLIMIT_NICE, Value: 0},
		{Resource: unix.RLIMIT_RTPRIO, Value: 0},
	}
	p.environment(s)
	return p, nil
}

// check refuses what no jail can be made of, and fills in what was left out.
func (s *Spec) check() error {
	s.Limits, s.Output = s.Limits.orDefault(), s.Output.orDefault()
	wrong := func(msg, remedy string) error { return refuse(FeatureSpec, nil, msg, remedy) }
	l, size := s.Limits, 0
	for _, e := range s.Env {
		if !envForm.MatchString(e) || strings.ContainsRune(e, 0) {
			return wrong("a variable of the environment is not NAME=value", "name each as NAME=value; a name has letters, digits and _")
		}
		size += len(e)
	}
	for _, a := range s.Args {
		if strings.ContainsRune(a, 0) {
			return wrong("an argument has a zero byte", "no program can be given one")
		}
		size += len(a)
	}
	switch {
	case !idForm.MatchString(s.ID):
		return wrong("its id has another form", "use 1 to 64 of a-z, 0-9 and -")
	case s.Agent.Path == "":
		return wrong("it names no agent", "name the program to run")
	case len(s.Tools) > 0 && !s.Profile.Tools:
		return wrong("the profile "+s.Profile.Name+" grants no tools", "use the profile tools, or grant none")
	case len(s.Scopes) > maxScopes || len(s.Tools) > maxGrants || len(s.Runtime) > maxGrants:
		return wrong("it names too much", fmt.Sprintf("at most %d scopes, %d tools and %d of runtime", maxScopes, maxGrants, maxGrants))
	case size > maxSpecEnv:
		return wrong("arguments and environment are too long", fmt.Sprintf("keep them within %d bytes, or pass a file in a scope", maxSpecEnv))
	case s.Deadline < 0 || l.Memory < 0 || l.Processes < 0 || l.CPU < 0 || l.Files < 0 || l.FileSize < 0 || l.Data < 0 || l.Tmp < 0 || l.Shm < 0 || s.Output.Bytes < 0 || s.Output.Line < 0:
		return wrong("a limit is negative", "0 is the default")
	case s.Dir != "" && (!filepath.IsAbs(s.Dir) || filepath.Clean(s.Dir) != s.Dir):
		return wrong("its directory is no absolute path", "name a path inside, such as /workspace")
	case s.HostUID < 0 || s.HostUID > 1<<31:
		return wrong("its host user is no user id", "use one that nobody else has, such as 61000")
	}
	for _, path := range s.Runtime {
		if err := checkSource(path); err != nil {
			return err
		}
	}
	for i := range s.Tools {
		if err := s.Tools[i].check(); err != nil {
			return err
		}
	}
	return s.Agent.check()
}

func (p *Program) check() error {
	if err := checkSource(p.Path); err != nil {
		return err
	}
	if p.Name == "" {
		p.Name = filepath.Base(p.Path)
	}
	if !nameForm.MatchString(p.Name) {
		return refuse(FeatureSpec, nil, "a program has a name of another form", "give it another with Name: 1 to 64 of letters, digits and _ . + -")
	}
	return nil
}

func checkSource(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || strings.ContainsRune(path, 0) {
		return refuse(FeatureSource, nil, "a path of the host is not absolute and clean, or is all of it", "name files and directories by their absolute paths")
	}
	return nil
}

// furnish is what every jail has.
func (p *plan) furnish(s Spec) {
	mount := func(m ...wire.Mount) { p.Mounts = append(p.Mounts, m...) }
	mount(
		wire.Mount{Kind: wire.Tmpfs, Target: "/tmp", Attr: sealed, Size: uint64(s.Limits.Tmp), Mode: 0o1777},
		wire.Mount{Kind: wire.Tmpfs, Target: "/run", Attr: sealed, Size: 64 << 10, Mode: 0o755},
		wire.Mount{Kind: wire.Tmpfs, Target: "/dev", Attr: sealed, Size: 64 << 10, Mode: 0o755},
		wire.Mount{Kind: wire.Tmpfs, Target: "/dev/shm", Attr: sealed, Size: uint64(s.Limits.Shm), Mode: 0o1777},
	)
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		mount(wire.Mount{Kind: wire.Bind, FD: -1, Source: "/dev/" + name, Target: "/dev/" + name, Attr: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC})
		p.allow("/dev/"+name, fileRead|fileWrite|ioctlDev)
	}
	if !s.Profile.WithoutProc {
		mount(
			wire.Mount{Kind: wire.Proc, Target: "/proc", Attr: sealed},
			wire.Mount{Kind: wire.Link, Source: "/proc/self/fd", Target: "/dev/fd"},
			wire.Mount{Kind: wire.Link, Source: "/proc/self/fd/0", Target: "/dev/stdin"},
			wire.Mount{Kind: wire.Link, Source: "/proc/self/fd/1", Target: "/dev/stdout"},
			wire.Mount{Kind: wire.Link, Source: "/proc/self/fd/2", Target: "/dev/stderr"},
		)
		p.allow("/proc", reads)
	}
	id := strconv.Itoa(int(p.UID))
	for name, text := range map[string]string{
		"passwd":        "agent:x:" + id + ":" + id + "::/tmp:/bin/false\n",
		"group":         "agent:x:" + id + ":\n",
		"hosts":         "127.0.0.1 localhost gateway\n",
		"resolv.conf":   "",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
	} {
		mount(wire.Mount{Kind: wire.File, Target: "/etc/" + name, Content: text, Mode: 0o444})
	}
	slices.SortStableFunc(p.Mounts, func(a, b wire.Mount) int { // files come in the order of a map
		if a.Kind == wire.File && b.Kind == wire.File {
			return strings.Compare(a.Target, b.Target)
		}
		return 0
	})
	p.allow("/", dirRead)
	p.allow("/etc", reads)
	p.allow("/run", dirRead)
	p.allow(socketPath, fileRead|fileWrite|resolveUnix)
	p.allow("/tmp", all)
	p.allow("/dev/shm", all)
}

// system shows the host's own programs.
func (p *plan) system() error {
	for _, dir := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		switch st, err := os.Lstat(dir); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return refuse(FeatureSource, err, "a system directory cannot be read", "use the profile tools")
		case st.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(dir)
			if err != nil || !strings.HasPrefix(path.Join("/", to), "/usr/") {
				return refuse(FeatureSource, err, "a system directory is a link that leads elsewhere", "use the profile tools")
			}
			p.Mounts = append(p.Mounts, wire.Mount{Kind: wire.Link, Source: to, Target: dir})
		default:
			p.bind(wire.Mount{Source: dir, Target: dir, IsDir: true, Attr: program}, reads|execute)
		}
	}
	for _, name := range []string{"/etc/alternatives", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ld.so.cache"} {
		if st, err := os.Lstat(name); err == nil && st.Mode()&fs.ModeSymlink == 0 {
			p.bind(wire.Mount{Source: name, Target: name, IsDir: st.IsDir(), Attr: readonly}, 0) // /etc is readable
		}
	}
	return nil
}

// programs are the agent, the tools, what they are linked with and what they read.
func (p *plan) programs(s Spec) error {
	has := map[string]bool{}
	loaders := map[string]bool{}
	for i, prog := range slices.Concat([]Program{s.Agent}, s.Tools) {
		at := "/tools/" + prog.Name
		if i == 0 {
			at = "/agent/" + prog.Name
			p.Exec = at
		}
		if has[at] {
			return refuse(FeatureSpec, nil, "two tools have one name", "give one another with Name")
		}
		has[at] = true
		links, err := linksOf(prog.Path)
		if err != nil {
			return p.unreadable(i, prog, err)
		}
		if links.loader != "" {
			loaders[links.loader] = true
		}
		inSystem := s.Profile.System && strings.HasPrefix(prog.Path, "/usr/")
		switch {
		case links.loader == "" || inSystem:
		case s.Profile.Libraries:
			if !(s.Profile.System && underSystem(links.loader)) {
				p.library(has, links.loader, execute)
			}
			for _, lib := range links.libraries {
				if !(s.Profile.System && underSystem(lib)) {
					p.library(has, lib, 0)
				}
			}
		case len(s.Runtime) == 0:
			return refuse(FeatureAgent, nil, "the agent needs a loader and libraries, which the profile "+s.Profile.Name+" does not show",
				"link it statically, name its loader and libraries as runtime, or use the profile tools")
		}
		if i == 0 && inSystem { // it may look for what belongs to it beside itself
			p.Exec = prog.Path
			continue
		}
		p.bind(wire.Mount{Source: prog.Path, Target: at, Attr: program}, fileRead|execute)
	}
	for _, name := range s.Runtime {
		st, err := os.Lstat(name)
		if err != nil {
			return refuse(FeatureSource, unnamed(err), "something of the runtime cannot be read", "name what is there")
		}
		access := reads
		if loaders[name] {
			access |= execute
		}
		if !has[name] && !(s.Profile.System && underSystem(name)) {
			has[name] = true
			p.bind(wire.Mount{Source: name, Target: name, IsDir: st.IsDir(), Attr: program}, access)
		}
	}
	p.Args = append([]string{s.Agent.Name}, s.Args...)
	return nil
}

func (p *plan) unreadable(i int, prog Program, err error) error {
	what, code := "the agent", CodeNotExec
	if i > 0 {
		what = "the tool " + prog.Name
	}
	if errors.Is(err, fs.ErrNotExist) {
		code = CodeNotFound
	}
	r := refuse(FeatureAgent, unnamed(err), what+" cannot be read", "name a program that is there, by its absolute path")
	r.Code = code
	return r
}

// library shows one at the path it is looked for. What is there may be a link to another name.
func (p *plan) library(has map[string]bool, name string, access uint64) {
	if has[name] {
		return
	}
	has[name] = true
	real := ofSystem(name)
	if real == "" {
		return // the kernel or the loader will say what it misses
	}
	p.bind(wire.Mount{Source: real, Target: name, Attr: program}, fileRead|access)
}

// bind mounts and says so to Landlock.
func (p *plan) bind(m wire.Mount, access uint64) {
	m.Kind, m.FD = wire.Bind, -1
	p.Mounts = append(p.Mounts, m)
	if !m.IsDir {
		access &= ofFiles
	}
	p.allow(m.Target, access)
}

func (p *plan) scopes(s Spec) error {
	access, exec := all, uint64(0)
	attr := uint64(sealed)
	if s.Profile.ExecInScope {
		attr &^= unix.MOUNT_ATTR_NOEXEC
		exec = execute
	}
	for i, sc := range s.Scopes {
		at := "/scopes/" + strconv.Itoa(i+1)
		if i == 0 {
			p.Mounts = append(p.Mounts, wire.Mount{Kind: wire.Link, Source: "/scopes/1", Target: "/workspace"})
		}
		switch {
		case sc.Medium == Memory && (sc.Path != "" || sc.ReadOnly || sc.Size < 0):
			return refuse(FeatureScope, nil, "a scope in memory names a directory, or is read-only", "give it a size alone")
		case sc.Medium == Memory:
			size := uint64(sc.Size)
			if size == 0 {
				size = 64 << 20
			}
			p.Mounts = append(p.Mounts, wire.Mount{Kind: wire.Tmpfs, Target: at, Attr: attr, Size: size, Mode: 0o700})
			p.allow(at, access|exec)
			continue
		case sc.Medium != Directory:
			return refuse(FeatureScope, nil, "a scope has a medium there is none of", "use a directory, or tmpfs")
		case !sc.ReadOnly && !s.Profile.WriteDirs:
			return refuse(FeatureScope, nil, "the profile "+s.Profile.Name+" writes no directory of the host", "use the medium tmpfs, make the scope read-only, or use the profile tools")
		}
		if err := checkSource(sc.Path); err != nil {
			return err
		}
		for j, other := range s.Scopes[:i] {
			if other.Medium == Directory && (within(sc.Path, other.Path) || within(other.Path, sc.Path)) {
				return refuse(FeatureScope, nil, fmt.Sprintf("scopes %d and %d contain each other", j+1, i+1), "name one of them")
			}
		}
		p.shared = append(p.shared, len(p.Mounts))
		if sc.ReadOnly {
			p.bind(wire.Mount{Source: sc.Path, Target: at, IsDir: true, Attr: attr | unix.MOUNT_ATTR_RDONLY}, reads|exec)
			continue
		}
		p.bind(wire.Mount{Source: sc.Path, Target: at, IsDir: true, Attr: attr}, access|exec)
	}
	return nil
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// nothingNested refuses a mount below another that shows the host: its mount point would have
// to be made in a directory of the host, where an agent of before may have left a link.
func (p *plan) nothingNested() error {
	for i, m := range p.Mounts {
		for j, other := range p.Mounts {
			own := other.Kind == wire.Tmpfs && (other.Target == "/dev" || other.Target == "/run") // nobody has written there
			if i != j && within(m.Target, other.Target) && (m.Target == other.Target || !own) {
				return refuse(FeatureSource, nil, "something is to be shown below, or at the place of, something else that is", "name the outer directory alone")
			}
		}
	}
	return nil
}

func (p *plan) environment(s Spec) {
	path := "/tools"
	if s.Profile.System {
		path = "/tools:/usr/local/bin:/usr/bin:/bin"
	}
	for _, d := range []string{"PATH=" + path, "HOME=/tmp", "TMPDIR=/tmp"} {
		name, _, _ := strings.Cut(d, "=")
		if !slices.ContainsFunc(s.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			p.Env = append(p.Env, d)
		}
	}
	p.Env = append(p.Env, s.Env...)
	p.Dir = s.Dir
	if p.Dir == "" {
		p.Dir = "/tmp"
		if len(s.Scopes) > 0 {
			p.Dir = "/workspace"
		}
	}
}

// unnamed is an error without the path it is about, which whoever asked knows.
func unnamed(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
