package jail

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// Users in a sandbox: the agent, and the first process, whom the agent can neither signal nor read. A sandbox checks the
// files of the host that it shows by these very numbers, so they are nobody's on any host: below 2^31, above what
// systemd gives containers.
const (
	sandboxedID = 2_000_000_000
	initID      = sandboxedID + 1
)

// initCaps are what it needs to listen, and to make the agent another user without any right.
var initCaps = []string{"CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"}

// bundle writes a jail out as OCI runtimes want it (https://github.com/opencontainers/runtime-spec): a root, which is
// read-only, and what is mounted there. What a sandbox has of itself (/proc, /dev and the directory of sockets) is left out.
func (h *home) bundle(p *plan, s Spec) error {
	root := filepath.Join(h.bundleDir(), "rootfs")
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "nodev", "noexec"}},
		{Destination: wire.SandboxDir, Type: "bind", Source: h.run(), Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}},
	}
	for _, m := range p.Mounts {
		at := filepath.Join(root, m.Target)
		var err error
		switch {
		case m.Target == "/run", m.Target == "/dev", m.Kind == wire.Proc, within(m.Target, "/dev") && m.Target != "/dev/shm":
			continue
		case m.Kind == wire.Link:
			if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil {
				err = os.Symlink(m.Source, at)
			}
		case m.Kind == wire.File:
			err = placeFile(at, []byte(m.Content), 0o444)
		case m.Kind == wire.Tmpfs:
			if err = os.MkdirAll(at, 0o755); err == nil {
				mounts = append(mounts, specs.Mount{
					Destination: m.Target, Type: "tmpfs", Source: "tmpfs",
					Options: append(optionsOf(m.Attr), fmt.Sprintf("size=%d", m.Size), fmt.Sprintf("mode=%o", m.Mode|0o077)),
				})
			}
		case m.Kind == wire.Bind:
			if err = noLinks(m); err != nil {
				return err
			}
			if m.IsDir {
				err = os.MkdirAll(at, 0o755)
			} else {
				err = placeFile(at, nil, 0o444)
			}
			mounts = append(mounts, specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: append(optionsOf(m.Attr), "bind", "ro")})
		}
		if err != nil {
			return err
		}
	}
	if err := placeImage(filepath.Join(root, "init")); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/dev", wire.SandboxDir} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	config, err := json.Marshal(specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			User: specs.User{UID: initID, GID: initID}, Args: []string{"/init"}, Cwd: "/",
			Env:             []string{wire.Role + "=" + wire.Sandbox, "GOMAXPROCS=1", "GOMEMLIMIT=16MiB"},
			NoNewPrivileges: true,
			// Who is not root keeps no others over being executed; it gives up the last two sets at once, and with them what
			// its children would have.
			Capabilities: &specs.LinuxCapabilities{Bounding: initCaps, Effective: initCaps, Permitted: initCaps, Inheritable: initCaps, Ambient: initCaps},
		},
		Root: &specs.Root{Path: "rootfs", Readonly: true}, Hostname: p.Hostname, Mounts: mounts,
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
		}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(h.bundleDir(), "config.json"), config, 0o600)
}

func optionsOf(attr uint64) (out []string) {
	for _, o := range []struct {
		attr uint64
		name string
	}{{unix.MOUNT_ATTR_NOSUID, "nosuid"}, {unix.MOUNT_ATTR_NODEV, "nodev"}, {unix.MOUNT_ATTR_NOEXEC, "noexec"}} {
		if attr&o.attr != 0 {
			out = append(out, o.name)
		}
	}
	return out
}

// noLinks refuses what is, or leads through, a symbolic link. Programs and libraries are the machine's: agents write no
// directory they could be swapped in.
func noLinks(m wire.Mount) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, m.Source, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return sourceRefusal(err)
	}
	return unix.Close(fd)
}

func placeFile(at string, text []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, text, mode)
}

// placeImage puts the first process into the root: the same bytes as every other jail's.
func placeImage(at string) error {
	f, err := image()
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	return placeFile(at, b, 0o555)
}
