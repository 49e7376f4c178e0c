package jail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Examine tries each thing a jail needs, then each profile as a whole, and one with a kernel of its own. A part that is not
// OK need not keep a profile from starting; whether one does is what its own probe says.
func Examine(ctx context.Context, j, sandbox Jailer) []Probe {
	out := []Probe{
		{Name: "kernel", OK: true, Found: "Linux " + kernel() + " " + runtime.GOARCH},
		user(), userns(), outer(), appArmor(), landlocked(), seccomped(), memfd(), grouped(),
	}
	for _, p := range Profiles() {
		probe := Probe{Name: "profile " + p.Name, OK: true, Found: "a jail starts"}
		if _, err := j.Preflight(ctx, p); err != nil {
			probe.OK, probe.Found = false, err.Error()
			if r, ok := errors.AsType[*Refusal](err); ok {
				probe.Found, probe.Remedy = said(r), r.Remedy
			}
			without := p
			without.WithoutCgroup = true
			if _, err := j.Preflight(ctx, without); err == nil {
				probe.Found += " (without a control group one starts)"
			}
		}
		out = append(out, probe)
	}
	return append(out, ofItsOwn(ctx, sandbox))
}

// ofItsOwn is whether there are sandboxes, which only those miss who want one.
func ofItsOwn(ctx context.Context, sandbox Jailer) Probe {
	p := Probe{Name: "tier " + TierGvisor}
	f, err := sandbox.Preflight(ctx, Strict())
	if r, ok := errors.AsType[*Refusal](err); ok {
		p.Found, p.Remedy = said(r)+" (only agents that want this tier need it)", r.Remedy
		return p
	}
	p.OK, p.Found = err == nil, "a jail with a kernel of its own starts: "+f.Runtime
	return p
}

func said(r *Refusal) string {
	s := r.Feature + ": " + r.Msg
	if r.Err != nil {
		s += ": " + r.Err.Error()
	}
	return s
}

func user() Probe {
	p := Probe{Name: "user", OK: true, Found: "uid " + strconv.Itoa(os.Geteuid()) + ": an agent runs as the gateway's own user, mapped to another inside"}
	switch {
	case privileged() && hasCap(unix.CAP_SYS_ADMIN):
		p.Found = "root: each agent runs as a user of its own, and writes directories of others as their owner"
	case privileged():
		p.Found = "root without CAP_SYS_ADMIN: each agent runs as a user of its own, and writes only directories that are that user's"
	case rootOfMachine():
		p.OK, p.Found = false, "root that may not give an agent another user"
		p.Remedy = "give this process CAP_SETUID and CAP_SETGID, or run it as an ordinary user"
	}
	return p
}

func userns() Probe {
	p := Probe{Name: FeatureUserns, OK: true}
	limit := sysctl("user/max_user_namespaces")
	p.Found = "user.max_user_namespaces is " + limit
	if limit == "0" || os.Geteuid() != 0 && sysctl("kernel/unprivileged_userns_clone") == "0" {
		p.OK, p.Found, p.Remedy = false, "they are off", usernsRefusal(nil).Remedy
	}
	return p
}

func outer() Probe {
	if filtered() {
		return Probe{
			Name: FeatureOuter, OK: true, Found: "a filter is around this process; whether it lets a jail start is seen below",
			Remedy: "if none does: start the container with a filter that allows namespaces and mounts (--security-opt seccomp=PROFILE)",
		}
	}
	return Probe{Name: FeatureOuter, OK: true, Found: "there is none"}
}

func appArmor() Probe {
	if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		return Probe{Name: FeatureAppArmor, OK: os.Geteuid() == 0, Found: "ordinary users may not use user namespaces without a profile", Remedy: forbiddenByAppArmor(nil).Remedy}
	}
	return Probe{Name: FeatureAppArmor, OK: true, Found: "it does not keep ordinary users from user namespaces"}
}

func landlocked() Probe {
	abi := landlockABI()
	p := Probe{Name: FeatureLandlock, OK: abi >= minLandlock, Found: fmt.Sprintf("ABI %d; profiles want %d", abi, minLandlock)}
	if !p.OK {
		p.Remedy = "use kernel 6.7 or later, and put landlock among those of the lsm= parameter"
	}
	return p
}

func seccomped() Probe {
	b, _ := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	p := Probe{Name: FeatureSeccomp, OK: strings.Contains(string(b), "kill_process"), Found: strings.TrimSpace(string(b))}
	if !p.OK {
		p.Found, p.Remedy = "the kernel names no filters", "use a kernel with CONFIG_SECCOMP_FILTER"
	}
	return p
}

func memfd() Probe {
	if _, err := image(); err != nil {
		p := Probe{Name: FeatureInit, Found: err.Error()}
		if r, ok := errors.AsType[*Refusal](err); ok {
			p.Found, p.Remedy = said(r), r.Remedy
		}
		return p
	}
	return Probe{Name: FeatureInit, OK: true, Found: "the first process lies sealed in memory"}
}

func grouped() Probe {
	c, err := found()
	if err == nil {
		var g *group
		if g, err = c.newGroup(fmt.Sprintf("doctor-%d", preflights.next()), Limits{}.orDefault()); err == nil {
			g.remove()
			return Probe{Name: FeatureCgroup, OK: true, Found: "cgroup " + c.version + ", with memory and pids"}
		}
	}
	r := noCgroup(unnamed(err))
	return Probe{Name: FeatureCgroup, Found: said(r), Remedy: r.Remedy}
}
