package battery

import (
	"crypto/rand"
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/battery/probes"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// world is a host to attack: somebody listening everywhere, a process, files everybody may change.
// All of it is open to every user of the machine, so that only the jail is in the way.
type world struct {
	probes.World
	dir    string
	before map[string]string
}

// gatewaySecret is a variable that only the process that makes jails has.
const gatewaySecret = "WRIT_BATTERY_SECRET"

// newWorld makes one in a directory with a short path, for sockets.
func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp(os.TempDir(), "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{dir: dir}
	at := func(name string) string { return filepath.Join(dir, name) }
	w.SecretText = "the secret is " + rand.Text()
	w.World = probes.World{
		Unix: at("host.sock"), Abstract: "writ-" + rand.Text(), Datagram: "writ-d-" + rand.Text(),
		Secret: at("secret"), SecretText: w.SecretText, Open: at("open"), Gateway: os.Getpid(), EnvName: gatewaySecret,
		Scope: at("scope"), ReadScope: at("ro"), Run: at("run"), Etc: at("etc"),
		Agent: program("probe"), Suid: program("suid"), FileCap: program("filecap"), Loose: program("loose"), Parts: []string{filepath.Base(dir)},
		Marks: []string{dir, filepath.Base(os.Args[0])},
	}
	everybody := func(name string, mode fs.FileMode) {
		t.Helper()
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	everybody(dir, 0o755)
	for _, d := range []string{"open", "scope", "ro", "run", "etc"} {
		if err := os.Mkdir(at(d), 0o777); err != nil {
			t.Fatal(err)
		}
		everybody(at(d), 0o777)
	}
	for name, text := range map[string]string{"secret": w.SecretText, "ro/file": "a file", "ro/victim": "a file", "etc/hosts": "127.0.0.1 localhost"} {
		if err := os.WriteFile(at(name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		everybody(at(name), 0o666)
	}
	if err := os.Symlink(w.Secret, at("ro/link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(at("ro/fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	everybody(at("ro/fifo"), 0o666)
	for from, to := range map[string]string{"probe": "ro/program", "suid": "ro/suid"} {
		if err := jailtest.Copy(program(from), at(to)); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		everybody(at("ro/suid"), 0o755|fs.ModeSetuid)
	}
	w.listen(t)
	w.Host, _ = os.Hostname()
	w.Group = ownGroup()
	if h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, w.Secret, 0); err == nil {
		w.HandleType, w.Handle = h.Type(), h.Bytes()
	}
	victim := exec.Command(program("probe"), "sleep", w.dir)
	victim.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	w.Victim = victim.Process.Pid
	t.Cleanup(func() { _ = victim.Process.Kill(); _ = victim.Wait() })
	w.before = w.state(t)
	return w
}

func (w *world) listen(t *testing.T) {
	t.Helper()
	open := func(network, address string) net.Listener {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
		if err != nil {
			return nil // the machine has no such network, and the probe no control
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					var b [5]byte
					_, _ = c.Read(b[:])
					_, _ = c.Write(b[:])
					_ = c.Close()
				}()
			}
		}()
		return l
	}
	packets := func(network, address string) string {
		p, err := (&net.ListenConfig{}).ListenPacket(t.Context(), network, address)
		if err != nil {
			return ""
		}
		t.Cleanup(func() { _ = p.Close() })
		go func() {
			b := make([]byte, 16)
			for {
				n, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = p.WriteTo(b[:n], from)
			}
		}()
		return p.LocalAddr().String()
	}
	address := func(l net.Listener) string {
		if l == nil {
			return ""
		}
		return l.Addr().String()
	}
	w.TCP4 = address(open("tcp4", "127.0.0.1:0"))
	w.TCPHost = w.TCP4
	if all, err := net.InterfaceAddrs(); err == nil {
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
				w.TCPHost = address(open("tcp4", net.JoinHostPort(n.IP.String(), "0")))
				break
			}
		}
	}
	w.TCP6 = address(open("tcp6", "[::1]:0"))
	w.UDP4, w.UDP6 = packets("udp4", "127.0.0.1:0"), packets("udp6", "[::1]:0")
	for _, name := range []string{w.Unix, filepath.Join(w.ReadScope, "host.sock"), filepath.Join(w.Run, "gateway.sock"), "@" + w.Abstract} {
		if open("unix", name) == nil {
			t.Fatal("a unix socket cannot be made")
		}
		if !strings.HasPrefix(name, "@") {
			if err := os.Chmod(name, 0o777); err != nil {
				t.Fatal(err)
			}
		}
	}
	d, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@" + w.Datagram, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
}

// state is all that a jail must leave as it is.
func (w *world) state(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == w.Scope {
			if path == w.Scope {
				return fs.SkipDir
			}
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		out[path] = st.Mode().String()
		if st.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out[path] += string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, w.Victim)
	if err != nil {
		t.Fatal("the process of the host has gone: ", err)
	}
	out["nice"] = string(rune('0' + nice))
	return out
}

// untouched says whether the host is as it was, and what was left in the scope cannot hurt it.
func (w *world) untouched(t *testing.T) {
	t.Helper()
	after := w.state(t)
	for name, was := range w.before {
		if after[name] != was {
			t.Errorf("of the host, %s was changed or removed", strings.TrimPrefix(name, w.dir))
		}
	}
	for name := range after {
		if _, ok := w.before[name]; !ok {
			t.Errorf("of the host, %s was made", strings.TrimPrefix(name, w.dir))
		}
	}
	_ = filepath.WalkDir(w.Scope, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if st, err := d.Info(); err == nil && st.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeDevice|fs.ModeCharDevice) != 0 {
			t.Errorf("in the scope, %s is %s", strings.TrimPrefix(path, w.dir), st.Mode())
		}
		return nil
	})
}

func (w *world) env() string {
	b, err := json.Marshal(w.World)
	if err != nil {
		panic(err)
	}
	return probes.WorldEnv + "=" + string(b)
}

// canGroup says whether this process can make control groups for memory below its own.
func canGroup() bool {
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		parent := filepath.Join(root, ownGroup())
		if has, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers")); err == nil && !strings.Contains(string(has), "memory") {
			continue
		}
		dir := filepath.Join(parent, "writ-battery")
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		_, err := os.Stat(filepath.Join(dir, "cgroup.procs"))
		_ = os.Remove(dir)
		if err == nil {
			return true
		}
	}
	return false
}

// ownGroup is the control group this process is in, for memory.
func ownGroup() string {
	b, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && (f[1] == "memory" || f[1] == "") && len(f[2]) > 1 {
			return f[2]
		}
	}
	return "in no group"
}
