package battery

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/battery/probes"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// In a sandbox most of what is attacked is another kernel, which answers nobody else. What
// of a probe is then worth asking is whether the machine was reached; these say nothing about
// that, and are not run: by the beginning of their names, or by all of it.
var meaningless = []struct {
	why   string
	names []string
}{
	{"the kernel that is asked is the sandbox's own; the machine's is shielded by gVisor's filter, which has tests of its own", []string{
		"kernel_", "machine_", "ns_", "mount_fuse", "mount_open_tree", "mount_fsconfig",
	}},
	{"what an agent holds it may execute there: nothing of the machine runs it", []string{"exec_"}},
	{"limits are that kernel's; what counts is the control group around it", []string{
		"res_processes", "res_files", "res_file_", "res_tmp", "res_shm", "res_names", "res_private", "res_locked", "res_message", "res_core", "res_raise", "res_nicer", "res_real", "res_spare", "res_inotify",
	}},
	{"sockets of that kernel lead to nobody", []string{
		"net_bind_", "net_listen", "net_unix_datagram", "net_unix_seqpacket", "net_unix_raw", "net_udp_socket", "net_udp_by_number", "net_family_high_bits", "net_ping", "net_netlink_",
		"net_mark", "net_transparent", "net_repair", "net_attach_", "net_upper_protocol", "net_tun",
	}},
	{"files of that kernel: of /proc/sys, /sys and terminals it has its own, and modes are gone with the memory they are in", []string{
		"file_handle_of", "file_proc_sys", "file_sys", "file_cgroup", "file_terminal", "file_type_", "file_paste_", "file_take_", "file_make_", "file_set_uid_", "file_set_gid_",
		"file_var", // which leads to what is shown to read
	}},
	{"the first process is the agent's own user there, has nothing of the gateway, and is ended from outside", []string{
		"proc_init_renice", "proc_init_pin", "proc_see_init", "proc_list_init", "proc_init_environment", "proc_init_memory", "proc_init_descriptors", "proc_trace_", "proc_tracer_allow",
		"proc_read_memory", "proc_write_memory", // of its own child
		"proc_take_descriptor", "proc_advise_other", // which that kernel does not have
	}},
	{"users of that kernel; files of the machine are checked for a user nobody is", []string{"id_no_filter", "id_more_users", "id_map"}},
	{"what is told is of that kernel, or was given", []string{
		"leak_command_line", "leak_boot_id", "leak_version", "leak_processors", "leak_memory", "leak_load", "leak_uptime", "leak_hardware", "leak_peer", "leak_mount_paths",
	}},
}

// openInSandbox is what a sandbox does not keep an agent from.
var openInSandbox = []string{
	"net_unix_in_scope", // a socket of the host in a directory that is shown
}

// An agent with a kernel of its own reaches nothing of the machine either.
func TestNothingEscapesASandbox(t *testing.T) {
	jailtest.Need(t)
	if os.Geteuid() != 0 {
		return // only root makes sandboxes
	}
	jailtest.NeedSandbox(t)
	t.Setenv(gatewaySecret, "1")
	works := controls(t)
	t.Setenv("TMPDIR", "/var/tmp") // what is shown to read cannot lie below what is the jail's own
	w := newWorld(t)
	seen := *w
	seen.Scope, seen.Run, seen.Etc, seen.Agent = "/scopes/1", "/run", "/etc", "/agent/probe"
	spec := attack(t, jail.Strict(), w)
	spec.Scopes, spec.Runtime, spec.Env = spec.Scopes[:1], []string{w.ReadScope}, []string{seen.env()}

	tried := slices.DeleteFunc(slices.Clone(probes.All), func(p probes.Probe) bool {
		for _, m := range meaningless {
			if slices.ContainsFunc(m.names, func(n string) bool { return strings.HasPrefix(p.Name, n) }) {
				return true
			}
		}
		return false
	})
	results := everyProbe(t, jail.NewSandbox(jail.SandboxOptions{}), spec, tried)
	blocked := 0
	for _, p := range tried {
		r, name := results[p.Name], p.Name
		switch {
		case slices.Contains(openInSandbox, name):
			if r.verdict != probes.Escaped {
				t.Errorf("%s is expected to work, and is %s: %s", name, r.verdict, r.why)
			}
		case r.verdict == probes.Escaped:
			t.Errorf("%s ESCAPED", name)
		case r.verdict == probes.Blocked && works[name]:
			blocked++
		}
	}
	w.untouched(t)
	t.Logf("battery: a kernel of its own: of %d probes, %d say something there; %d are blocked, and open is %s", len(probes.All), len(tried), blocked, strings.Join(openInSandbox, ", "))
	if blocked < 120 {
		t.Errorf("only %d probes are blocked that work outside", blocked)
	}
}
