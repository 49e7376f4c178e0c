package jail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// SandboxOptions are where the sandbox of gVisor is on this machine.
type SandboxOptions struct {
	Runsc    string        // the program; looked for in PATH when it has no slash; runsc
	Platform string        // how it runs the agent's code: systrap, kvm or ptrace; what the program does by itself
	Start    time.Duration // how long making a jail, and starting its agent, may take; 20 s
}

// NewSandbox makes jails that have a kernel of their own, by runsc of gVisor: the agent's system calls are answered by a
// program of its own, in Go, and not by the kernel of the machine. It fails at nothing: what is missing is said by Preflight.
func NewSandbox(o SandboxOptions) Jailer {
	if o.Runsc == "" {
		o.Runsc = "runsc"
	}
	if o.Start == 0 {
		o.Start = 20 * time.Second
	}
	return &sandboxes{SandboxOptions: o}
}

type sandboxes struct {
	SandboxOptions
	version atomic.Pointer[version]
}

// sandboxUser is whom runsc runs the sandbox as: nobody.
const sandboxUser = 65534

func (n *sandboxes) Preflight(ctx context.Context, p Profile) (Features, error) {
	return preflight(ctx, p, n.spawn)
}

func (n *sandboxes) Spawn(ctx context.Context, s Spec) (Jail, error) {
	j, err := n.spawn(ctx, s, false)
	if err != nil {
		return nil, err
	}
	return j, nil
}

func noSandbox(err error, msg string) *Refusal {
	return refuse(FeatureSandbox, err, msg, "install runsc of gVisor (https://gvisor.dev/docs/user_guide/install), and run the gateway as root")
}

func (n *sandboxes) spawn(ctx context.Context, s Spec, empty bool) (made *inside, err error) {
	j := newInside(n.Start)
	j.deadline, j.began = s.Deadline, time.Now()
	defer func() {
		if err != nil {
			j.undo()
			err = asRefusal(err)
		}
	}()
	if err := s.check(); err != nil {
		return nil, err
	}
	runsc, err := exec.LookPath(n.Runsc)
	if err != nil {
		return nil, noSandbox(unnamed(errors.Unwrap(err)), "there is no runsc here")
	}
	if !rootOfMachine() || !hasCap(unix.CAP_SYS_ADMIN) {
		return nil, noSandbox(nil, "only root of the machine makes sandboxes")
	}
	j.features = Features{
		Backend: "runsc", Runtime: n.named(ctx, runsc), Kernel: kernel(), Profile: s.Profile.Name, Privileged: true, HostUID: sandboxUser,
		Namespaces: namespaces, Cgroup: "none", Proc: true, Limits: s.Limits,
	}
	p, err := n.plan(s, empty)
	if err != nil {
		return nil, err
	}
	s.Profile.WithoutCgroup = false // it is what bounds a sandbox, and how all of one is ended
	if err := j.confine(s, tasksOfSandbox(j.features.Limits)); err != nil {
		return nil, err
	}
	home, err := newHome()
	if err != nil {
		return nil, err
	}
	j.release = home.remove
	if err := home.bundle(p, s); err != nil {
		return nil, err
	}
	control, err := home.listen(j)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()
	if err := n.launch(j, s, runsc, home); err != nil {
		return nil, err
	}
	if err := n.meet(ctx, j, control, home); err != nil {
		return nil, err
	}
	if err := j.tell(ctx, &p.Spec, nil); err != nil {
		return nil, err
	}
	if err := j.stands(ctx, 0); err != nil {
		return nil, err
	}
	go j.watch()
	return j, nil
}

// version is what a runsc says it is.
type version struct {
	of   os.FileInfo
	text string
}

// named is which runsc it is, as it says itself; once, as long as the file is the same.
func (n *sandboxes) named(ctx context.Context, runsc string) string {
	st, err := os.Stat(runsc)
	if v := n.version.Load(); err == nil && v != nil && os.SameFile(v.of, st) && v.of.ModTime().Equal(st.ModTime()) {
		return v.text
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, runsc, "--version")
	cmd.Env = []string{}
	out, err := cmd.Output()
	line, _, _ := strings.Cut(string(out), "\n")
	line = fmt.Sprintf("%.64s", strings.Map(printable, line))
	if err == nil && st != nil {
		n.version.Store(&version{st, line})
	}
	return line
}

func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}

// tasksOfSandbox is a bound on what runs outside for a jail: gVisor's own threads, and several for each of the agent's, whose
// number another limit holds inside.
func tasksOfSandbox(l Limits) Limits {
	l.Processes = 512 + 16*l.Processes
	return l
}

// plan is what a jail has, where another kernel shows it. Landlock and the filter are that kernel's, which has neither.
func (n *sandboxes) plan(s Spec, empty bool) (*plan, error) {
	for _, sc := range s.Scopes {
		if sc.Medium != Memory {
			return nil, refuse(FeatureScope, nil, "a sandbox shows no directory of the host to work in", "use the medium tmpfs: what is made leaves as artifacts")
		}
	}
	if s.HostUID != 0 {
		return nil, refuse(FeatureHostUID, nil, "a sandbox is nobody on the host", "leave the host user out")
	}
	var p *plan
	var err error
	if empty {
		p, err = emptyPlan(s, 0, sandboxedID)
	} else {
		p, err = planOf(s, 0, sandboxedID)
	}
	if err != nil {
		return nil, err
	}
	kept := p.Limits[:0]
	for _, l := range p.Limits {
		switch l.Resource {
		case unix.RLIMIT_MSGQUEUE, unix.RLIMIT_SIGPENDING, unix.RLIMIT_NICE, unix.RLIMIT_RTPRIO: // there is nothing of the kind there
		default:
			kept = append(kept, l)
		}
	}
	p.Limits, p.ReadOnly, p.Socket = kept, nil, ""
	return p, nil
}

// launch starts runsc, and with it the first process, which comes to us.
func (n *sandboxes) launch(j *inside, s Spec, runsc string, h *home) error {
	stdin, stdout, stderr, err := j.streams(s)
	if err != nil {
		return err
	}
	args := []string{"--root=" + h.state(), "--log=" + h.log(), "--network=none", "--host-uds=open", "--ignore-cgroups"}
	if n.Platform != "" {
		args = append(args, "--platform="+n.Platform)
	}
	cmd := exec.Command(runsc, append(args, "run", "--bundle="+h.bundleDir(), filepath.Base(h.dir))...) // its name is no other sandbox's of the machine
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	// In a network of its own: runsc listens for whoever would control it, on a name anybody in its network can connect to.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL, Cloneflags: unix.CLONE_NEWNET}
	group, err := j.group.open()
	if err != nil {
		return err
	}
	if group != nil {
		j.theirs = append(j.theirs, group)
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	// What this process was started with, a shell's descriptor perhaps, is nothing for the sandbox. Go's own are closed anyway.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return noSandbox(err, "descriptors cannot be kept from runsc")
	}
	p, err := startSandbox(cmd, j.group)
	for _, f := range j.theirs {
		_ = f.Close()
	}
	j.theirs = nil
	if err != nil {
		return noSandbox(unnamed(err), "runsc could not be started")
	}
	j.process = p
	return nil
}

// meet waits for the first process, which is who comes first: nothing else runs yet.
func (n *sandboxes) meet(ctx context.Context, j *inside, control *net.UnixListener, h *home) error {
	p := j.process.(*sandbox)
	met := make(chan struct{})
	defer close(met)
	go func() {
		select {
		case <-p.ended:
		case <-ctx.Done():
		case <-met:
		}
		_ = control.Close()
	}()
	_ = control.SetDeadline(time.Now().Add(j.start))
	c, err := control.AcceptUnix()
	if err == nil {
		j.control = c
		return nil
	}
	select {
	case <-p.ended:
		return noSandbox(h.lastWords(), "runsc made no sandbox")
	default:
		return j.silent(ctx, err)
	}
}

// sandbox is runsc while it runs one, with all that is of it: processes in the jail's control group.
type sandbox struct {
	cmd   *exec.Cmd
	group *group
	how   ending
	ended chan struct{}
}

// startSandbox starts runsc from a thread that lives as long, since it dies with the thread that started it, and so with
// the gateway. The thread is in the group before, or the beginning would be in none.
func startSandbox(cmd *exec.Cmd, g *group) (*sandbox, error) {
	p := &sandbox{cmd: cmd, group: g, ended: make(chan struct{})}
	began := make(chan error)
	go func() {
		defer close(p.ended)
		runtime.LockOSThread() // and never unlocked: nobody else is to have it
		enter, leave := g.tasks()
		err := ownMounts()
		if err == nil {
			err = moveThread(enter)
		}
		if err == nil {
			err = cmd.Start()
		}
		if left := moveThread(leave); err == nil && left != nil {
			err = left
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		began <- err
		if err == nil {
			_ = cmd.Wait() // how the agent ended, its first process says
			p.how.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			p.how.status, _ = cmd.ProcessState.Sys().(syscall.WaitStatus)
		}
	}()
	return p, <-began
}

// ownMounts gives this thread, and what it starts, mounts of its own: what runsc mounts for itself goes with it, and what the host
// unmounts goes there too.
func ownMounts() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
}

// moveThread puts this thread into groups.
func moveThread(tasks []string) (err error) {
	for _, file := range tasks {
		err = errors.Join(err, write(file, strconv.Itoa(unix.Gettid())))
	}
	return err
}

func (p *sandbox) kill() { _ = p.cmd.Process.Kill() }

// wait returns when nothing of it is left: what runsc started dies with it, and is made to.
func (p *sandbox) wait() ending {
	<-p.ended
	p.group.empty()
	return p.how
}

func (p *sandbox) close() {}

// home is where a sandbox lies while it lives: its root, the gateway's sockets, and what runsc notes.
type home struct {
	dir  string
	lock *os.File // held while it lives
}

const homePrefix = "writ-sandbox-"

// newHome makes one, and removes those of gateways that ended without a chance to.
func newHome() (*home, error) {
	parent := os.TempDir()
	st, err := os.Stat(parent)
	if err != nil {
		return nil, unnamed(err)
	}
	if mode, owner := st.Mode(), st.Sys().(*syscall.Stat_t).Uid; owner != 0 || mode.Perm()&0o022 != 0 && mode&os.ModeSticky == 0 {
		return nil, noSandboxIn()
	}
	sweepHomes(parent)
	dir, err := os.MkdirTemp("", homePrefix)
	if err != nil {
		return nil, err
	}
	h := &home{dir: dir}
	for _, d := range []string{h.bundleDir(), h.state(), h.run()} {
		err = errors.Join(err, os.MkdirAll(d, 0o755))
	}
	if err == nil {
		h.lock, err = lock(dir, unix.LOCK_NB)
	}
	if err != nil {
		h.remove()
		return nil, err
	}
	return h, nil
}

func noSandboxIn() *Refusal {
	return refuse(FeatureSandbox, nil, "others could change a sandbox in the directory for temporary files", "set TMPDIR to a directory of root's that nobody else writes, or to /tmp")
}

func (h *home) bundleDir() string { return filepath.Join(h.dir, "bundle") }
func (h *home) state() string     { return filepath.Join(h.dir, "state") }
func (h *home) run() string       { return filepath.Join(h.dir, "run") }
func (h *home) log() string       { return filepath.Join(h.dir, "log") }

func (h *home) remove() {
	_ = os.RemoveAll(h.dir)
	if h.lock != nil {
		_ = h.lock.Close()
	}
}

// sweepHomes removes homes that are ours and that nobody holds, but for those that are being made.
func sweepHomes(in string) {
	found, _ := filepath.Glob(filepath.Join(in, homePrefix+"*"))
	for _, dir := range found {
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() || st.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) || time.Since(st.ModTime()) < time.Minute {
			continue
		}
		if f, err := lock(dir, unix.LOCK_NB); err == nil {
			_ = os.RemoveAll(dir)
			_ = f.Close()
		}
	}
}

// listen opens the sockets the sandbox will show: the first process's, and the two doors.
func (h *home) listen(j *inside) (*net.UnixListener, error) {
	open := func(kind, inside string) (*net.UnixListener, error) {
		name := filepath.Join(h.run(), filepath.Base(inside))
		l, err := net.ListenUnix(kind, &net.UnixAddr{Net: kind, Name: name})
		if err == nil {
			err = os.Chmod(name, 0o666) // who is in the sandbox may; nobody else comes to the directory
		}
		return l, err
	}
	tcp, err := open("unix", wire.SandboxTCP)
	if err != nil {
		return nil, err
	}
	j.tcp = tcp
	door, err := open("unix", socketPath)
	if err != nil {
		return nil, err
	}
	j.unix = door
	return open("unixpacket", wire.SandboxControl)
}

// lastWords is why runsc gave up, as it says in its log.
func (h *home) lastWords() error {
	b, err := os.ReadFile(h.log())
	if err != nil {
		return unnamed(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	var last struct{ Msg string }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Msg == "" {
		return errors.New("its log does not say why")
	}
	return fmt.Errorf("%.200q", last.Msg)
}
