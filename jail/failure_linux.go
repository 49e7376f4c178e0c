package jail

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// startRefusal is why the first process did not start.
func startRefusal(err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok { // it was not even there
		return r
	}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return usernsRefusal(err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOSYS):
		return forbidden(err)
	case full(err):
		return fullRefusal(err)
	case errors.Is(err, unix.EINVAL):
		return refuse(FeatureNamespaces, bare(err), "this kernel lacks a kind of namespace", "use a kernel with user, mount, pid, net, ipc, uts and cgroup namespaces")
	case errors.Is(err, unix.ENOENT):
		return refuse(FeatureProc, bare(err), "/proc is not mounted here", "mount /proc")
	}
	return refuse(FeatureInit, bare(err), "the first process could not be started", "`writ jail doctor` tries each part by itself")
}

// full says whether something failed for want of room, and not of a feature.
func full(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

func fullRefusal(err error) *Refusal {
	return refuse(FeatureInit, bare(err), "this machine, or its limits, has no room for another process", "end something, or raise the limits of processes, memory or files")
}

func usernsRefusal(err error) *Refusal {
	return refuse(FeatureUserns, bare(err), "no user namespace can be made here",
		"set the sysctls user.max_user_namespaces to 10000 and, where they exist, kernel.unprivileged_userns_clone to 1 and kernel.apparmor_restrict_unprivileged_userns to 0")
}

// forbidden tells apart who forbids what a kernel could do.
func forbidden(err error) *Refusal {
	switch {
	case os.Geteuid() != 0 && sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return forbiddenByAppArmor(err)
	case os.Geteuid() != 0 && sysctl("kernel/unprivileged_userns_clone") == "0":
		return usernsRefusal(err)
	case sysctl("user/max_user_namespaces") == "0":
		return usernsRefusal(err)
	case filtered():
		return refuse(FeatureOuter, bare(err), "a system call filter around this process, as containers have, forbids it",
			"start the container with a filter that allows namespaces and mounts (--security-opt seccomp=PROFILE), or run the gateway as a service of the machine")
	}
	return refuse(FeatureNamespaces, bare(err), "the kernel or a security module forbids it", "`writ jail doctor` tries each part by itself; run the gateway as a service of the machine")
}

func forbiddenByAppArmor(err error) *Refusal {
	return refuse(FeatureAppArmor, bare(err), "AppArmor keeps ordinary users from using user namespaces (kernel.apparmor_restrict_unprivileged_userns)",
		"run the gateway as root, or give its binary a profile in /etc/apparmor.d: `abi <abi/4.0>, profile writ /usr/bin/writ flags=(unconfined) { userns, }`")
}

// filtered says whether somebody put a system call filter on this process.
func filtered() bool {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Seccomp:"); ok {
			return strings.TrimSpace(v) == "2"
		}
	}
	return false
}

func sysctl(name string) string {
	b, _ := os.ReadFile("/proc/sys/" + name)
	return strings.TrimSpace(string(b))
}

func mountRefusal(err error) *Refusal {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return forbidden(err)
	case full(err):
		return fullRefusal(err)
	}
	return refuse(FeatureMount, bare(err), "this kernel cannot make the jail's file systems", "use kernel 6.7 or later")
}

func sourceRefusal(err error) *Refusal {
	switch {
	case full(err):
		return fullRefusal(err)
	case errors.Is(err, unix.ELOOP):
		return refuse(FeatureSymlink, bare(err), "something to be shown is a symbolic link, or its path leads through one", "name it by its real path, as realpath(1) prints it")
	case errors.Is(err, unix.ENOTDIR):
		return refuse(FeatureSource, bare(err), "something to be shown is a file where a directory is wanted, or a directory where a file is", "scopes are directories, programs are files")
	}
	return refuse(FeatureSource, bare(err), "something to be shown is not there, or cannot be opened", "name what is there and may be read")
}

// failure is the refusal for what the first process could not do.
func failure(r *wire.Report) *Refusal {
	var err error = unix.Errno(r.Errno)
	switch r.Step {
	case "source", "bind":
		if r.Step == "source" {
			return sourceRefusal(err)
		}
		return mountRefusal(err)
	case "private", "root", "tmpfs", "mount", "pivot", "readonly", "target":
		return mountRefusal(err)
	case "proc":
		return refuse(FeatureProc, err, "no /proc of the jail's own can be mounted: an outer container hides parts of its own",
			"start the container without masked paths (--security-opt systempaths=unconfined), or let the policy allow a jail without /proc (without_proc)")
	case "loopback", "listen":
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return forbidden(err)
		}
		return refuse(FeatureNetwork, err, "the jail's own interface cannot be used", "use a kernel with IPv4, and network namespaces")
	case "landlock":
		return refuse(FeatureLandlock, err, "Landlock refused the rules", "put landlock among those of the lsm= parameter of the kernel")
	case "seccomp", "no_new_privs":
		return refuse(FeatureSeccomp, err, "the system call filter was refused", "use a kernel with CONFIG_SECCOMP_FILTER")
	case "exec":
		return execRefusal(err)
	case "user", "capabilities", "securebits":
		return forbidden(err)
	}
	return refuse(FeatureInit, err, "the first process failed at: "+r.Step, "`writ jail doctor` tries each part by itself")
}

func execRefusal(err error) *Refusal {
	r := refuse(FeatureAgent, err, "the agent cannot be executed", "make it a program the jail's user may read and execute, with its loader and libraries shown")
	r.Code = CodeNotExec
	if errors.Is(err, unix.ENOENT) {
		r.Msg, r.Code = "the agent, or its loader, or the directory it starts in is not there", CodeNotFound
	}
	return r
}

// bare is an error without the words of whoever met it.
func bare(err error) error {
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return e
	}
	return err
}
