//go:build linux

package main

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// build makes the new root and moves there. Everything of the host is opened first, with the
// rights of the gateway and past no symbolic link; from then on only descriptors are used, and
// mount points are made in file systems that nobody else has seen.
func build(spec *wire.Spec, fds []int) (listener int) {
	must("private", "", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	trees := make([]int, len(spec.Mounts))
	for i, m := range spec.Mounts {
		if m.Kind == wire.Bind {
			trees[i] = tree(m, fds)
		}
	}
	if spec.Become {
		become(spec)
	}
	enter(root())
	for i, m := range spec.Mounts {
		place(m, trees[i])
	}
	must("pivot", "", unix.PivotRoot(".", "."))
	must("pivot", "", unix.Unmount(".", unix.MNT_DETACH))
	must("pivot", "", unix.Chdir("/"))
	listener = listenUnix(spec.Socket)
	for _, path := range spec.ReadOnly {
		must("readonly", path, unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}))
	}
	must("hostname", "", unix.Sethostname([]byte(spec.Hostname)))
	return listener
}

// leave goes to an empty root, past all mounts of the host: from then on none is seen or held by this process, and all that its jail shows
// is sent along. It makes what build wants of a root: a directory to attach the new one to, and a /proc, since where none is seen none can be mounted.
func leave() {
	must("private", "", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	enter(root())
	must("root", "", directory("./tmp", 0o755))
	must("root", "", directory("./proc", 0o755))
	_ = unix.Mount("none", "./proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") // where it is refused, so is the jail's own
	must("pivot", "", unix.PivotRoot(".", "."))
	must("pivot", "", unix.Unmount(".", unix.MNT_DETACH))
	must("pivot", "", unix.Chdir("/"))
}

// tree is a copy of what a bind mount shows.
func tree(m wire.Mount, fds []int) int {
	if m.FD >= 0 { // the gateway may do more than we, and has made it
		if int(m.FD) >= len(fds) {
			must("spec", m.Target, unix.EPROTO)
		}
		return fds[m.FD]
	}
	f, err := unix.Openat2(unix.AT_FDCWD, m.Source, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	must("source", m.Source, err)
	var st unix.Stat_t
	must("source", m.Source, unix.Fstat(f, &st))
	if (st.Mode&unix.S_IFMT == unix.S_IFDIR) != m.IsDir {
		must("source", m.Source, unix.ENOTDIR)
	}
	t, err := unix.OpenTree(f, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	must("bind", m.Source, err)
	must("bind", m.Source, unix.MountSetattr(t, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE,
		&unix.MountAttr{Attr_set: m.Attr, Propagation: unix.MS_PRIVATE}))
	_ = unix.Close(f)
	return t
}

// become takes the one user there is in this namespace. Until here the process had the gateway's
// own, and could read what that can.
func become(spec *wire.Spec) {
	must("user", "groups", syscall.Setgroups(nil))
	must("user", "group", syscall.Setresgid(int(spec.GID), int(spec.GID), int(spec.GID)))
	must("user", "user", syscall.Setresuid(int(spec.UID), int(spec.UID), int(spec.UID)))
	must("parent", "", unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)) // another user forgets it
}

const (
	rootSize   = 4 << 20
	rootInodes = 65536
)

func root() int {
	return tmpfs(rootSize, rootInodes, 0o755, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func tmpfs(size, inodes uint64, mode uint32, attr uint64) int {
	f, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	must("tmpfs", "", err)
	must("tmpfs", "", unix.FsconfigSetString(f, "size", strconv.FormatUint(size, 10)))
	must("tmpfs", "", unix.FsconfigSetString(f, "nr_inodes", strconv.FormatUint(inodes, 10)))
	must("tmpfs", "", unix.FsconfigSetString(f, "mode", strconv.FormatUint(uint64(mode), 8)))
	must("tmpfs", "", unix.FsconfigCreate(f))
	m, err := unix.Fsmount(f, unix.FSMOUNT_CLOEXEC, int(attr))
	must("tmpfs", "", err)
	_ = unix.Close(f)
	return m
}

func proc(attr uint64) int {
	f, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	must("proc", "", err)
	must("proc", "", unix.FsconfigSetString(f, "subset", "pid"))
	must("proc", "", unix.FsconfigSetString(f, "hidepid", "invisible"))
	must("proc", "", unix.FsconfigCreate(f))
	m, err := unix.Fsmount(f, unix.FSMOUNT_CLOEXEC, int(attr))
	must("proc", "", err)
	_ = unix.Close(f)
	return m
}

// enter attaches a file system over some directory, to be the working directory and then the root.
func enter(fs int) {
	err := unix.MoveMount(fs, "", unix.AT_FDCWD, "/tmp", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		err = unix.MoveMount(fs, "", unix.AT_FDCWD, "/dev", unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	must("root", "", err)
	must("root", "", unix.Fchdir(fs))
	_ = unix.Close(fs)
}

// place puts one thing at its target, below the working directory.
func place(m wire.Mount, tree int) {
	at := "." + m.Target
	parents(at)
	fs := -1
	switch m.Kind {
	case wire.Bind:
		if m.IsDir {
			must("target", m.Target, directory(at, 0o755))
		} else {
			must("target", m.Target, file(at, "", 0o444))
		}
		fs = tree
	case wire.Tmpfs:
		must("target", m.Target, directory(at, 0o755))
		fs = tmpfs(m.Size, m.Size/1024+16, m.Mode, m.Attr)
	case wire.Proc:
		must("target", m.Target, directory(at, 0o555))
		fs = proc(m.Attr)
	case wire.File:
		must("target", m.Target, file(at, m.Content, m.Mode))
	case wire.Link:
		must("target", m.Target, unix.Symlink(m.Source, at))
	case wire.Dir:
		must("target", m.Target, directory(at, m.Mode))
	default:
		must("spec", m.Target, unix.EPROTO)
	}
	if fs >= 0 {
		must("mount", m.Target, unix.MoveMount(fs, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH))
		_ = unix.Close(fs)
	}
}

func parents(at string) {
	for i := 2; i < len(at); i++ {
		if at[i] == '/' {
			must("target", at[1:i], directory(at[:i], 0o755))
		}
	}
}

func directory(at string, mode uint32) error {
	err := unix.Mkdir(strings.TrimSuffix(at, "/"), mode)
	if err == unix.EEXIST {
		return nil
	}
	return err
}

func file(at, content string, mode uint32) error {
	f, err := unix.Open(at, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	for b := []byte(content); len(b) > 0; {
		n, err := unix.Write(f, b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return unix.Close(f)
}
