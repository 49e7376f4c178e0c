package probes

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// files are ways to read or change what was not granted.
var files = []Probe{
	{Name: "file_secret", Try: func(w *World) error { return holds(w.Secret, w.SecretText) }},
	{Name: "file_secret_dotdot", Try: func(w *World) error { return holds(w.Scope+strings.Repeat("/..", 12)+w.Secret, w.SecretText) }},
	{Name: "file_secret_own_root", Try: func(w *World) error { return holds("/proc/self/root"+w.Secret, w.SecretText) }},
	{Name: "file_secret_own_cwd", Try: func(w *World) error {
		return holds("/proc/self/cwd"+strings.Repeat("/..", 12)+w.Secret, w.SecretText)
	}},
	{Name: "file_secret_init_root", Control: Own, Try: func(w *World) error { return holds("/proc/1/root"+w.Secret, w.SecretText) }},
	{Name: "file_secret_other_root", Other: true, Control: Root, Try: func(w *World) error {
		return anyOf(holds(proc(w.Victim, "root")+w.Secret, w.SecretText), holds(proc(w.Gateway, "root")+w.Secret, w.SecretText))
	}},
	{Name: "file_secret_other_cwd", Other: true, Control: Root, Try: func(w *World) error {
		return anyOf(reads(proc(w.Victim, "cwd")), reads(proc(w.Gateway, "cwd")), reads("/proc/1/cwd"))
	}},
	{Name: "file_secret_link_in_scope", Try: func(w *World) error { return holds(w.ReadScope+"/link", w.SecretText) }},
	{Name: "file_secret_own_link", Try: func(w *World) error {
		name := w.Scope + "/mylink"
		_ = os.Remove(name)
		if err := os.Symlink(w.Secret, name); err != nil {
			return cannot{err}
		}
		return holds(name, w.SecretText)
	}},
	{Name: "file_secret_handle", Control: Root, Try: byHandle},
	{Name: "file_handle_of", Try: func(w *World) error {
		_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, w.Scope, 0)
		return reached(err, unix.EOPNOTSUPP)
	}},
	{Name: "file_outside_write", Try: func(w *World) error { return opens(w.Open+"/written", unix.O_CREAT|unix.O_WRONLY) }},
	{Name: "file_outside_list", Try: func(w *World) error { return reads(w.Open) }},
	{Name: "file_outside_behind_root", Try: func(w *World) error { // a root that was left stacked on ours is reached so
		up := w.Scope + strings.Repeat("/..", 12)
		return anyOf(reads(up+w.Open), unix.Stat(up+w.Open, new(unix.Stat_t)), unix.Stat("/.."+w.Open, new(unix.Stat_t)))
	}},
	{Name: "file_leaked_descriptor", Try: leakedDescriptor},
	{Name: "file_leaked_directory", Try: func(*World) error {
		for fd := 3; fd < 1024; fd++ {
			if f, err := unix.Openat(fd, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
				_ = unix.Close(f)
				return nil
			}
		}
		return unix.EBADF
	}},
	{Name: "file_shadow", Control: Root, Try: func(*World) error { return reads("/etc/shadow") }},
	{Name: "file_passwd_of_host", Try: func(*World) error { return holds("/etc/passwd", "root:") }},
	{Name: "file_home", Control: Root, Try: func(*World) error { return anyOf(reads("/root"), reads("/home")) }},
	{Name: "file_var", Try: func(*World) error { return anyOf(reads("/var/lib"), reads("/var/log"), reads("/var/tmp")) }},
	{Name: "file_sys", Try: func(*World) error { return anyOf(reads("/sys/kernel"), reads("/sys/class")) }},
	{Name: "file_cgroup", Try: func(*World) error { return reads("/sys/fs/cgroup") }},
	{Name: "file_proc_sys", Try: func(*World) error { return reads("/proc/sys/kernel/ostype") }},
	{Name: "file_core_pattern", Control: Root, Try: func(*World) error { return opens("/proc/sys/kernel/core_pattern", unix.O_WRONLY) }},
	{Name: "file_modprobe", Control: Root, Lacks: true, Try: func(*World) error { return opens("/proc/sys/kernel/modprobe", unix.O_WRONLY) }},
	{Name: "file_sysrq", Control: Root, Lacks: true, Try: func(*World) error { return opens("/proc/sysrq-trigger", unix.O_WRONLY) }},
	{Name: "file_userns_limit", Control: Own, Try: func(*World) error { return opens("/proc/sys/user/max_user_namespaces", unix.O_WRONLY) }},
	{Name: "file_kcore", Control: Root, Lacks: true, Try: func(*World) error { return opens("/proc/kcore", unix.O_RDONLY) }},
	{Name: "file_disk", Control: Root, Try: func(*World) error { return block(unix.O_RDONLY) }},
	{Name: "file_memory", Control: Root, Lacks: true, Try: func(*World) error { return opens("/dev/mem", unix.O_RDONLY) }},
	{Name: "file_kernel_log", Control: Root, Lacks: true, Try: func(*World) error { return opens("/dev/kmsg", unix.O_RDONLY) }},
	{Name: "file_kvm", Control: Root, Lacks: true, Try: func(*World) error { return opens("/dev/kvm", unix.O_RDWR) }},
	{Name: "file_loop", Control: Root, Lacks: true, Try: func(*World) error { return opens("/dev/loop-control", unix.O_RDWR) }},
	{Name: "file_console", Control: Root, Lacks: true, Try: func(*World) error { return opens("/dev/console", unix.O_WRONLY) }},
	{Name: "file_terminal", Try: func(*World) error { return opens("/dev/ptmx", unix.O_RDWR) }},
	{Name: "file_type_into_terminal", Try: func(*World) error { return terminal(unix.TIOCSTI) }},
	{Name: "file_type_high_bits", Try: func(*World) error { return terminal(unix.TIOCSTI | high) }},
	{Name: "file_paste_terminal", Try: func(*World) error { return terminal(unix.TIOCLINUX) }},
	{Name: "file_take_terminal", Try: func(*World) error { return terminal(unix.TIOCSCTTY) }},
	{Name: "file_terminal_discipline", Try: func(*World) error { return terminal(unix.TIOCSETD) }},
	{Name: "file_make_disk", Control: Root, Try: func(w *World) error { return makes(w, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))) }},
	{Name: "file_make_device", Control: Root, Try: func(w *World) error { return makes(w, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) }},
	{Name: "file_make_whiteout", Try: func(w *World) error { return makes(w, unix.S_IFCHR|0o600, 0) }},
	{Name: "file_write_read_only_scope", Try: func(w *World) error { return opens(w.ReadScope+"/written", unix.O_CREAT|unix.O_WRONLY) }},
	{Name: "file_change_read_only_scope", Try: func(w *World) error {
		return anyOf(opens(w.ReadScope+"/file", unix.O_WRONLY), unix.Truncate(w.ReadScope+"/file", 0), unix.Chmod(w.ReadScope+"/file", 0o666),
			unix.Utimes(w.ReadScope+"/file", make([]unix.Timeval, 2)), unix.Setxattr(w.ReadScope+"/file", "user.probe", []byte("x"), 0))
	}},
	{Name: "file_remove_read_only_scope", Try: func(w *World) error {
		return anyOf(unix.Unlink(w.ReadScope+"/victim"), unix.Rename(w.ReadScope+"/victim", w.ReadScope+"/gone"), unix.Mkdir(w.ReadScope+"/made", 0o755))
	}},
	{Name: "file_fifo_in_read_only_scope", Try: func(w *World) error { return opens(w.ReadScope+"/fifo", unix.O_RDWR) }},
	{Name: "file_link_between_scopes", Try: func(w *World) error {
		_ = os.Remove(w.Scope + "/hard")
		return anyOf(unix.Link(w.ReadScope+"/file", w.Scope+"/hard"), unix.Rename(w.ReadScope+"/file", w.Scope+"/hard"))
	}},
	{Name: "file_link_by_descriptor", Control: Root, Try: func(w *World) error {
		f, err := unix.Open(w.ReadScope+"/file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return cannot{err}
		}
		_ = os.Remove(w.Scope + "/hard2")
		return anyOf(unix.Linkat(f, "", unix.AT_FDCWD, w.Scope+"/hard2", unix.AT_EMPTY_PATH),
			unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(f), unix.AT_FDCWD, w.Scope+"/hard2", unix.AT_SYMLINK_FOLLOW))
	}},
	{Name: "file_write_root", Control: Root, Try: func(*World) error {
		defer func() { _, _ = os.Remove("/probe-was-here"), os.Remove("/probe-was-there") }()
		return anyOf(opens("/probe-was-here", unix.O_CREAT|unix.O_WRONLY), unix.Mkdir("/probe-was-there", 0o755))
	}},
	{Name: "file_write_etc", Try: func(w *World) error { return opens(w.Etc+"/hosts", unix.O_WRONLY|unix.O_TRUNC) }},
	{Name: "file_write_dev", Control: Root, Try: func(*World) error { return creates("/dev/probe") }},
	{Name: "file_change_dev", Control: Root, Try: func(*World) error { return anyOf(unix.Chmod("/dev/full", 0o666), unix.Chown("/dev/full", 0, 0)) }},
	{Name: "file_write_system", Control: Root, Try: func(*World) error { return creates("/usr/probe") }},
	{Name: "file_write_agent", Control: Root, Try: func(w *World) error {
		// It runs, so opening it to write fails anywhere; its inode can be changed.
		return anyOf(unix.Chmod(w.Agent, 0o755), unix.Setxattr(w.Agent, "user.probe", []byte("x"), 0), unix.Utimes(w.Agent, make([]unix.Timeval, 2)))
	}},
	{Name: "file_write_program", Try: func(w *World) error { return opens(w.Loose, unix.O_WRONLY) }},
	{Name: "file_write_own_image", Control: Root, Try: func(*World) error {
		return anyOf(unix.Chmod("/proc/self/exe", 0o755), unix.Truncate("/proc/self/exe", 0))
	}},
	{Name: "file_write_init_image", Control: Own, Try: func(*World) error {
		return reached(opens("/proc/1/exe", unix.O_RDONLY), unix.ETXTBSY)
	}},
	{Name: "file_set_uid_bit", Try: func(w *World) error { return setID(w, unix.S_ISUID) }},
	{Name: "file_set_gid_bit", Try: func(w *World) error { return setID(w, unix.S_ISGID) }},
	{Name: "file_set_uid_at_birth", Try: func(w *World) error { return born(w, 0o4755) }},
	{Name: "file_set_uid_temporary", Try: func(w *World) error {
		f, err := unix.Open(w.Scope, unix.O_TMPFILE|unix.O_RDWR, 0o4755)
		if err != nil {
			return err
		}
		return keeps(f, unix.S_ISUID)
	}},
	{Name: "file_set_gid_directory", Try: func(w *World) error {
		_ = os.Remove(w.Scope + "/group")
		return anyOf(unix.Mkdir(w.Scope+"/group", 0o2755), unix.Fchmodat(unix.AT_FDCWD, w.Scope, 0o2777, 0))
	}},
	{Name: "file_set_uid_openat2", Try: func(w *World) error {
		_ = os.Remove(w.Scope + "/born2")
		f, err := unix.Openat2(unix.AT_FDCWD, w.Scope+"/born2", &unix.OpenHow{Flags: unix.O_CREAT | unix.O_RDWR, Mode: 0o4755})
		if err != nil {
			return err
		}
		return keeps(f, unix.S_ISUID)
	}},
	{Name: "file_capability", Control: Root, Try: func(w *World) error {
		// Revision 2, effective, CAP_SYS_ADMIN.
		return unix.Setxattr(ours(w), "security.capability", []byte{1, 0, 0, 2, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0)
	}},
	{Name: "file_trusted_attribute", Control: Root, Lacks: true, Try: func(w *World) error { return unix.Setxattr(ours(w), "trusted.probe", []byte("x"), 0) }},
	{Name: "file_give_away", Control: Root, Try: func(w *World) error { return unix.Chown(ours(w), 4242, 4242) }},
	{Name: "file_immutable", Control: Root, Lacks: true, Try: immutable},
	{Name: "file_lease", Try: lease},
	{Name: "file_move_scope", Control: Root, Try: func(w *World) error {
		err := unix.Rename(w.Scope, w.Scope+".old")
		if err == nil {
			err = unix.Rename(w.Scope+".old", w.Scope)
		}
		return err
	}},
	{Name: "file_watch_all", Control: Root, Lacks: true, Try: func(*World) error { return closing(unix.FanotifyInit(0, 0)) }},
	{Name: "file_quota", Control: Root, Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_QUOTACTL, 0x80000700, pointer(&none[0]), 0, 0), unix.ENOENT, unix.ENOTBLK, unix.ENODEV, unix.EINVAL)
	}},
}

var none = []byte("/none\x00")

func proc(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

func creates(path string) error {
	err := opens(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY)
	if err == nil {
		_ = os.Remove(path)
	}
	return err
}

// ours is a file one owns, and as root outside the jail one that root does.
func ours(w *World) string {
	name := filepath.Join(w.Scope, "ours")
	_ = os.WriteFile(name, []byte("x"), 0o644)
	return name
}

func byHandle(w *World) error {
	dir, err := unix.Open(w.ReadScope, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = unix.Close(dir) }()
	return closing(unix.OpenByHandleAt(dir, unix.NewFileHandle(w.HandleType, w.Handle), unix.O_RDONLY))
}

func leakedDescriptor(*World) error {
	for fd := 3; fd < 1024; fd++ {
		name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil || strings.HasPrefix(name, "anon_inode:") { // of Go's own poller
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 { // all that this program opens is closed by execve
			return nil
		}
	}
	return unix.EBADF
}

func block(flags int) error {
	var last error = unix.ENOENT
	for _, name := range []string{"vda", "sda", "nvme0n1", "xvda", "loop0", "dm-0"} {
		if last = opens("/dev/"+name, flags); last == nil {
			return nil
		}
	}
	return last
}

// terminal makes a request that a terminal knows, of something else.
func terminal(request uintptr) error {
	f, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = unix.Close(f) }()
	var c [8]byte
	return reached(try(unix.SYS_IOCTL, uintptr(f), request, pointer(&c)), unix.ENOTTY)
}

func makes(w *World, mode uint32, dev int) error {
	name := w.Scope + "/node"
	_ = os.Remove(name)
	return unix.Mknod(name, mode, dev)
}

func setID(w *World, bit uint32) error {
	name := ours(w)
	f, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = unix.Close(f) }()
	return anyOf(unix.Chmod(name, 0o755|bit), unix.Fchmod(f, 0o755|bit), unix.Fchmodat(unix.AT_FDCWD, name, 0o755|bit, 0),
		try(sysFchmodat2, dirHere, pointer(&append([]byte(name), 0)[0]), uintptr(0o755|bit), 0))
}

const (
	sysFchmodat2 = 452
	dirHere      = ^uintptr(99) // AT_FDCWD
)

// born makes files that would be so from their first moment.
func born(w *World, mode uint32) error {
	name := w.Scope + "/born"
	var last error = syscall.EPERM
	for _, make := range []func() (int, error){
		func() (int, error) { return unix.Open(name, unix.O_CREAT|unix.O_RDWR, mode) },
		func() (int, error) { return unix.Creat(name, mode) },
		func() (int, error) {
			if err := unix.Mknod(name, unix.S_IFREG|mode, 0); err != nil {
				return -1, err
			}
			return unix.Open(name, unix.O_RDWR, 0)
		},
	} {
		_ = os.Remove(name)
		f, err := make()
		if err == nil {
			err = keeps(f, unix.S_ISUID)
		}
		if err == nil {
			return nil
		}
		last = err
	}
	return last
}

func keeps(f int, bit uint32) error {
	defer func() { _ = unix.Close(f) }()
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return cannot{err}
	}
	if st.Mode&bit == 0 {
		return held("the bit was dropped")
	}
	return nil
}

func immutable(w *World) error {
	f, err := unix.Open(ours(w), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = unix.Close(f) }()
	const immutable = 0x10 // FS_IMMUTABLE_FL
	err = unix.IoctlSetPointerInt(f, unix.FS_IOC_SETFLAGS, immutable)
	if err == nil {
		_ = unix.IoctlSetPointerInt(f, unix.FS_IOC_SETFLAGS, 0)
	}
	return err
}

// lease makes whoever opens a file wait, on the host too.
func lease(w *World) error {
	name := ours(w)
	f, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = unix.Close(f) }()
	_, err = unix.FcntlInt(uintptr(f), unix.F_SETLEASE, unix.F_RDLCK)
	return err
}
