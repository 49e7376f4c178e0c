package probes

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// identity is being somebody else, or more.
var identity = []Probe{
	{Name: "id_user_0", Control: Own, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_SETUID, 0}) }},
	{Name: "id_group_0", Control: Own, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_SETGID, 0}) }},
	{Name: "id_saved_user", Control: Own, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_SETRESUID, 0, 0, 0}) }},
	{Name: "id_saved_group", Control: Own, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_SETRESGID, 0, 0, 0}) }},
	{Name: "id_real_user", Control: Own, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_SETREUID, 0, 0}) }},
	{Name: "id_real_group", Control: Own, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_SETREGID, 0, 0}) }},
	{Name: "id_groups", Control: Root, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_SETGROUPS, 0, 0}) }},
	{Name: "id_file_user", Control: Own, Try: func(*World) error { // the call answers with who one was, refused or not
		_, err := value(unix.SYS_SETFSUID, 0)
		if is, _ := value(unix.SYS_SETFSUID, ^uintptr(0)); err == nil && is != 0 {
			err = held("%d", is)
		}
		return err
	}},
	{Name: "id_host_user", Control: Root, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_SETRESUID, 61000, 61000, 61000}) }},
	{Name: "id_capabilities", Control: Own, Try: func(*World) error {
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var d [2]unix.CapUserData
		if err := unix.Capget(&h, &d[0]); err != nil {
			return cannot{err}
		}
		d[0].Effective |= 1 << unix.CAP_SYS_ADMIN
		d[0].Permitted |= 1 << unix.CAP_SYS_ADMIN
		return unix.Capset(&h, &d[0])
	}},
	{Name: "id_has_capability", Control: Own, Try: func(*World) error {
		for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if v := fields("/proc/self/status")[name]; strings.Trim(v, "0") != "" {
				return nil
			}
		}
		return held("none")
	}},
	{Name: "id_bounding_set", Try: func(*World) error {
		for c := range uintptr(64) {
			if r, err := value(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, c); err == nil && r == 1 {
				return nil
			}
		}
		return held("empty")
	}},
	{Name: "id_ambient", Control: Own, Try: func(*World) error {
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var d [2]unix.CapUserData
		if err := unix.Capget(&h, &d[0]); err != nil {
			return cannot{err}
		}
		d[0].Inheritable = d[0].Permitted
		_ = unix.Capset(&h, &d[0])
		return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_SYS_CHROOT, 0, 0)
	}},
	{Name: "id_new_privileges", Try: func(*World) error {
		if v, err := value(unix.SYS_PRCTL, unix.PR_GET_NO_NEW_PRIVS); err == nil && v == 1 {
			return held("no_new_privs")
		}
		return nil
	}},
	{Name: "id_no_filter", Try: func(*World) error {
		if v := fields("/proc/self/status")["Seccomp"]; v != "0" {
			return held("mode %s", v)
		}
		return nil
	}},
	{Name: "id_is_user_0", Control: Own, Try: func(*World) error {
		if os.Getuid() == 0 || os.Geteuid() == 0 || os.Getgid() == 0 {
			return nil
		}
		return held("%d", os.Getuid())
	}},
	{Name: "id_more_users", Control: Root, Try: func(*World) error { // another user exists here
		b, err := os.ReadFile("/proc/self/uid_map")
		if f := strings.Fields(string(b)); err == nil && (len(f) != 3 || f[2] != "1") {
			return nil
		}
		return held("one user")
	}},
	{Name: "id_map", Control: Root, Lacks: true, Try: func(*World) error { return opens("/proc/self/uid_map", unix.O_WRONLY) }},
	{Name: "id_set_uid_program", Try: func(w *World) error { return runs(w.Suid, "caps") }},
	{Name: "id_capability_program", Try: func(w *World) error { return runs(w.FileCap, "caps") }},
	{Name: "id_set_uid_in_scope", Try: func(w *World) error { return runs(w.ReadScope+"/suid", "caps") }},
	{Name: "id_system_set_uid", Try: func(*World) error { return systemSetUID() }},
}

// systemSetUID looks at itself after a program of the system made it root.
func systemSetUID() error {
	for _, name := range []string{"/usr/bin/su", "/usr/bin/passwd", "/usr/bin/mount"} {
		var st unix.Stat_t
		if unix.Stat(name, &st) != nil || st.Mode&unix.S_ISUID == 0 {
			continue
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(name, &fs); err != nil {
			return err
		}
		v, _ := value(unix.SYS_PRCTL, unix.PR_GET_NO_NEW_PRIVS)
		if fs.Flags&unix.ST_NOSUID != 0 && v == 1 {
			return held("nosuid and no_new_privs")
		}
		return nil
	}
	return unix.ENOENT
}
