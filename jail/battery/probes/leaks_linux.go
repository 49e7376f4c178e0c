package probes

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// leaks are what an agent could learn of the host.
var leaks = []Probe{
	{Name: "leak_environment", Try: func(w *World) error {
		if os.Getenv(w.EnvName) != "" {
			return nil
		}
		return anyOf(holds("/proc/1/environ", w.EnvName), holds("/proc/self/environ", w.EnvName+"="))
	}},
	{Name: "leak_mount_paths", Control: Own, Try: func(w *World) error {
		_ = unix.Mount(w.Scope, w.Scope, "", unix.MS_BIND, "") // outside nothing of it is mounted yet
		return mentions("/proc/self/mountinfo", w.Parts)
	}},
	{Name: "leak_host_name", Try: func(w *World) error {
		h, err := os.Hostname()
		if err == nil && h != w.Host {
			err = held("another name")
		}
		return err
	}},
	{Name: "leak_group_path", Try: func(w *World) error { return holds("/proc/self/cgroup", w.Group) }},
	{Name: "leak_symbols", Lacks: true, Try: func(*World) error { return reads("/proc/kallsyms") }},
	{Name: "leak_command_line", Lacks: true, Try: func(*World) error { return reads("/proc/cmdline") }},
	{Name: "leak_modules", Lacks: true, Try: func(*World) error { return anyOf(reads("/proc/modules"), reads("/proc/config.gz")) }},
	{Name: "leak_version", Try: func(*World) error { return reads("/proc/version") }},
	{Name: "leak_processors", Try: func(*World) error { return reads("/proc/cpuinfo") }},
	{Name: "leak_memory", Try: func(*World) error { return reads("/proc/meminfo") }},
	{Name: "leak_load", Try: func(*World) error { return reads("/proc/loadavg") }},
	{Name: "leak_uptime", Try: func(*World) error { return reads("/proc/uptime") }},
	{Name: "leak_disks", Lacks: true, Try: func(*World) error { return anyOf(reads("/proc/partitions"), reads("/proc/diskstats")) }},
	{Name: "leak_interrupts", Try: func(*World) error { return reads("/proc/interrupts") }},
	{Name: "leak_timers", Control: Root, Lacks: true, Try: func(*World) error { return reads("/proc/timer_list") }},
	{Name: "leak_keys", Lacks: true, Try: func(*World) error { return anyOf(opens("/proc/keys", unix.O_RDONLY), reads("/proc/key-users")) }},
	{Name: "leak_boot_id", Try: func(*World) error { return reads("/proc/sys/kernel/random/boot_id") }},
	{Name: "leak_machine_id", Lacks: true, Try: func(*World) error { return anyOf(reads("/etc/machine-id"), reads("/var/lib/dbus/machine-id")) }},
	{Name: "leak_resolver", Lacks: true, Try: func(*World) error { return holds("/etc/resolv.conf", "nameserver") }},
	{Name: "leak_hardware", Lacks: true, Try: func(*World) error { return anyOf(reads("/sys/devices/system/cpu/online"), reads("/sys/class/net")) }},
	{Name: "leak_connections", Try: func(w *World) error { return connections(w) }},
	{Name: "leak_sockets", Try: func(w *World) error {
		return anyOf(holds("/proc/net/unix", w.Abstract), holds("/proc/self/net/unix", w.Abstract))
	}},
	{Name: "leak_interfaces", Try: func(*World) error { // any besides the jail's own
		b, err := os.ReadFile("/proc/self/net/dev")
		if err != nil {
			return err
		}
		if strings.Count(string(b), ":") > 1 {
			return nil
		}
		return held("one interface")
	}},
	{Name: "leak_processes", Try: func(w *World) error { // whether one of the host is among those that are listed
		all, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		for _, e := range all {
			if holds("/proc/"+e.Name()+"/cmdline", w.Marks[0]) == nil {
				return nil
			}
		}
		return held("only of the jail")
	}},
	{Name: "leak_peer", Try: func(w *World) error { return peer(w) }},
	{Name: "leak_other_users_files", Control: Root, Try: func(*World) error {
		return anyOf(reads("/etc/ssl/private"), reads("/etc/sudoers"), reads("/etc/gshadow"))
	}},
	{Name: "leak_history", Control: Root, Try: func(*World) error { return anyOf(reads("/root/."), reads("/var/spool/cron"), reads("/var/log/.")) }},
	{Name: "leak_boot", Lacks: true, Try: func(*World) error { return anyOf(reads("/boot"), reads("/lib/modules")) }},
	{Name: "leak_stack", Control: Root, Lacks: true, Try: func(*World) error { return reads("/proc/self/stack") }},
	{Name: "leak_supplementary_groups", Control: Root, Try: func(*World) error {
		_ = unix.Setgroups([]int{7, 8})
		g, err := unix.Getgroups()
		if err == nil && len(g) == 0 {
			err = held("none")
		}
		return err
	}},
}

func mentions(path string, parts []string) error {
	var last error = errors.New("nothing to look for")
	for _, p := range parts {
		if last = holds(path, p); last == nil {
			return nil
		}
	}
	return last
}

// connections looks for the port of a listener of the host.
func connections(w *World) error {
	_, port, err := port(w.TCP4)
	if err != nil {
		return err
	}
	hex := strings.ToUpper(strconv.FormatInt(int64(port)+0x10000, 16))[1:]
	return anyOf(holds("/proc/net/tcp", ":"+hex+" "), holds("/proc/self/net/tcp", ":"+hex+" "))
}

// peer asks who is at the other end, which must be nobody who has a number here but the first process.
func peer(w *World) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = unix.Close(s) }()
	if err := unix.Connect(s, &unix.SockaddrUnix{Name: w.Run + "/gateway.sock"}); err != nil {
		return cannot{err}
	}
	c, err := unix.GetsockoptUcred(s, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return cannot{err}
	}
	if c.Pid > 1 {
		return nil
	}
	return held("process %d", c.Pid)
}
