package probes

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// mounts are attempts to change what is seen, or to get namespaces to do so in.
var mounts = []Probe{
	{Name: "mount_tmpfs", Control: Own, Try: func(*World) error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") }},
	{Name: "mount_bind", Control: Own, Try: func(w *World) error { return unix.Mount("/", w.Scope, "", unix.MS_BIND|unix.MS_REC, "") }},
	{Name: "mount_proc", Control: Own, Try: func(*World) error { return unix.Mount("proc", "/proc", "proc", 0, "") }},
	{Name: "mount_sysfs", Control: Root, Try: func(w *World) error { return unix.Mount("sysfs", w.Scope, "sysfs", 0, "") }},
	{Name: "mount_devices", Control: Root, Lacks: true, Try: func(w *World) error { return unix.Mount("devtmpfs", w.Scope, "devtmpfs", 0, "") }},
	{Name: "mount_cgroup", Control: Root, Lacks: true, Try: func(w *World) error { return unix.Mount("cgroup2", w.Scope, "cgroup2", 0, "") }},
	{Name: "mount_debug", Control: Root, Lacks: true, Try: func(w *World) error { return unix.Mount("debugfs", w.Scope, "debugfs", 0, "") }},
	{Name: "mount_overlay", Control: Own, Lacks: true, Try: func(w *World) error {
		return unix.Mount("overlay", w.Scope, "overlay", 0, "lowerdir=/:"+w.Scope)
	}},
	{Name: "mount_writable_root", Control: Own, Try: func(w *World) error {
		return anyOf(unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, ""), unix.Mount("", w.ReadScope, "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	}},
	{Name: "mount_executable_scope", Control: Own, Try: func(w *World) error {
		_ = unix.Mount(w.Scope, w.Scope, "", unix.MS_BIND, "") // outside it is no mount yet
		return unix.Mount("", w.Scope, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV, "")
	}},
	{Name: "mount_attributes", Control: Own, Try: func(*World) error {
		_ = unix.Mount("none", "/tmp", "tmpfs", unix.MS_NOEXEC, "")
		return unix.MountSetattr(unix.AT_FDCWD, "/tmp", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NOEXEC})
	}},
	{Name: "mount_shared", Control: Own, Try: func(*World) error { return unix.Mount("", "/", "", unix.MS_SHARED, "") }},
	{Name: "mount_umount", Control: Own, Try: func(*World) error {
		_ = unix.Mount("none", "/tmp", "tmpfs", 0, "")
		return unix.Unmount("/tmp", unix.MNT_DETACH)
	}},
	{Name: "mount_umount_proc", Control: Root, Try: func(*World) error { return unix.Unmount("/proc", unix.MNT_DETACH) }},
	{Name: "mount_move", Control: Own, Try: func(*World) error {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
		if err != nil {
			return err
		}
		return unix.MoveMount(fd, "", unix.AT_FDCWD, "/tmp", unix.MOVE_MOUNT_F_EMPTY_PATH)
	}},
	{Name: "mount_open_tree", Try: func(*World) error { return closing(unix.OpenTree(unix.AT_FDCWD, "/", 0)) }},
	{Name: "mount_open_tree_clone", Control: Own, Try: func(*World) error {
		return closing(unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE))
	}},
	{Name: "mount_fsopen", Control: Own, Try: func(*World) error { return closing(unix.Fsopen("tmpfs", 0)) }},
	{Name: "mount_fspick", Control: Own, Try: func(*World) error {
		_ = unix.Mount("none", "/tmp", "tmpfs", 0, "")
		return closing(unix.Fspick(unix.AT_FDCWD, "/tmp", 0))
	}},
	{Name: "mount_fsconfig", Try: func(*World) error {
		return reached(try(unix.SYS_FSCONFIG, ^uintptr(0), 0, 0, 0, 0), unix.EINVAL, unix.EBADF)
	}},
	{Name: "mount_fsmount", Control: Own, Try: func(*World) error { return reached(try(unix.SYS_FSMOUNT, ^uintptr(0), 0, 0), unix.EBADF) }},
	{Name: "mount_stat", Lacks: true, Try: func(*World) error { return reached(try(sysStatmount, 0, 0, 0, 0), unix.EFAULT, unix.EINVAL) }},
	{Name: "mount_list", Lacks: true, Try: func(*World) error { return reached(try(sysListmount, 0, 0, 0, 0), unix.EFAULT, unix.EINVAL) }},
	{Name: "mount_pivot", Control: Own, Try: func(*World) error {
		return reached(unix.PivotRoot("/tmp", "/tmp"), unix.EINVAL, unix.EBUSY)
	}},
	{Name: "mount_chroot", Control: Own, Try: func(w *World) error { return unix.Chroot(w.Scope) }},
	{Name: "mount_autofs", Control: Root, Lacks: true, Try: func(*World) error { return opens("/dev/autofs", unix.O_RDWR) }},
	{Name: "mount_fuse", Lacks: true, Control: Root, Try: func(*World) error { return opens("/dev/fuse", unix.O_RDWR) }},

	{Name: "ns_unshare_user", Try: func(*World) error { // a limit of none is reached by getting past the filter
		return reached(inChild([4]uintptr{unix.SYS_UNSHARE, unix.CLONE_NEWUSER}), unix.ENOSPC)
	}},
	{Name: "ns_unshare_mount", Control: Own, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_UNSHARE, unix.CLONE_NEWNS}) }},
	{Name: "ns_unshare_net", Control: Own, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_UNSHARE, unix.CLONE_NEWNET}) }},
	{Name: "ns_unshare_both", Try: func(*World) error {
		return inChild([4]uintptr{unix.SYS_UNSHARE, unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET})
	}},
	{Name: "ns_unshare_files", Try: func(*World) error { return inChild([4]uintptr{unix.SYS_UNSHARE, unix.CLONE_FS | unix.CLONE_FILES}) }},
	{Name: "ns_clone_user", Try: func(*World) error { return reached(cloned(unix.CLONE_NEWUSER), unix.ENOSPC) }},
	{Name: "ns_clone_user_mount", Try: func(*World) error { return cloned(unix.CLONE_NEWUSER | unix.CLONE_NEWNS) }},
	{Name: "ns_clone_mount", Control: Own, Try: func(*World) error { return cloned(unix.CLONE_NEWNS) }},
	{Name: "ns_clone_pid", Control: Own, Try: func(*World) error { return cloned(unix.CLONE_NEWPID) }},
	{Name: "ns_clone_net", Control: Own, Try: func(*World) error { return cloned(unix.CLONE_NEWNET) }},
	{Name: "ns_clone_ipc", Control: Own, Lacks: true, Try: func(*World) error { return cloned(unix.CLONE_NEWIPC) }},
	{Name: "ns_clone_uts", Control: Own, Lacks: true, Try: func(*World) error { return cloned(unix.CLONE_NEWUTS) }},
	{Name: "ns_clone_cgroup", Control: Own, Lacks: true, Try: func(*World) error { return cloned(unix.CLONE_NEWCGROUP) }},
	{Name: "ns_unshare_time", Control: Own, Lacks: true, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_UNSHARE, unix.CLONE_NEWTIME}) }},
	{Name: "ns_clone3_user", Try: func(w *World) error { return reached(clone3User(w), unix.ENOSPC) }},
	{Name: "ns_setns_own", Control: Own, Try: func(*World) error {
		f, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		return inChild([4]uintptr{unix.SYS_SETNS, uintptr(f), unix.CLONE_NEWNET})
	}},
	{Name: "ns_enter_mount", Other: true, Control: Root, Try: func(w *World) error { return entersNamespace(w, "mnt", unix.CLONE_NEWNS) }},
	{Name: "ns_enter_pid", Other: true, Control: Root, Try: func(w *World) error { return entersNamespace(w, "pid", unix.CLONE_NEWPID) }},
	{Name: "ns_next_mount", Control: Root, Lacks: true, Try: func(*World) error {
		var info [4]uint64
		info[0] = 16 // its size
		return anyOf(namespaceIoctl("mnt", nsMountNext, pointer(&info)), namespaceIoctl("mnt", nsMountPrevious, pointer(&info)))
	}},
}

// Of Linux 6.8 and 6.12, the same on all machines.
const (
	sysStatmount = 457
	sysListmount = 458
	nsMountNext  = 0x8010b70b

	nsMountPrevious = 0x8010b70c
)

func closing(fd int, err error) error {
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// clone3User asks with the call whose flags a filter cannot see.
func clone3User(*World) error {
	args := [11]uint64{0: unix.CLONE_NEWUSER, 4: uint64(syscall.SIGCHLD)}
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, pointer(&args), 64, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return ended(int(pid))
}

func namespaceIoctl(kind string, request, arg uintptr) error {
	f, err := unix.Open("/proc/self/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(f) }()
	return try(unix.SYS_IOCTL, uintptr(f), request, arg)
}
