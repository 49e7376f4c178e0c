package jail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/seccomp"
	"github.com/writ-gateway/writ/jail/wire"
)

// Options are what the jails of one process share. The zero value is good.
type Options struct {
	FirstUID, UIDs int           // users of the host for jails, where the gateway is root; 61000 and 1000
	Start          time.Duration // how long making a jail, and starting its agent, may take; 10 s

	// Ready is how long after a jail a first process is kept for the next one, which starts sooner with it; 0: none is kept. Whoever
	// sets it closes the Jailer, which is an io.Closer, when no more jails are wanted.
	Ready time.Duration
}

// New makes jails of namespaces, in this process. It fails at nothing: what is missing is said by Preflight.
func New(o Options) Jailer {
	if o.FirstUID == 0 {
		o.FirstUID = 61000
	}
	if o.UIDs == 0 {
		o.UIDs = 1000
	}
	if o.Start == 0 {
		o.Start = 10 * time.Second
	}
	return &ns{
		Options: o,
		users:   &users{first: o.FirstUID, n: o.UIDs, taken: map[int]*os.File{}, translators: map[translation]*os.File{}},
	}
}

type ns struct {
	Options
	users *users
	ready ready
}

func (n *ns) Preflight(ctx context.Context, p Profile) (Features, error) {
	return preflight(ctx, p, n.spawn)
}

// preflight tries everything up to starting a program, of which there is none.
func preflight(ctx context.Context, p Profile, spawn func(context.Context, Spec, bool) (*inside, error)) (Features, error) {
	s := Spec{ID: fmt.Sprintf("preflight-%d", preflights.next()), Profile: p, Agent: Program{Path: "/preflight"}}
	j, err := spawn(ctx, s, true)
	if err != nil {
		return Features{}, err
	}
	err = j.Go()
	j.Kill("preflight")
	j.Wait()
	if r, ok := errors.AsType[*Refusal](err); ok && r.Feature == FeatureAgent {
		return j.Features(), nil
	}
	return Features{}, err
}

var preflights counter

type counter struct {
	mu sync.Mutex
	n  int64
}

func (c *counter) next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

func (n *ns) Spawn(ctx context.Context, s Spec) (Jail, error) {
	j, err := n.spawn(ctx, s, false)
	if err != nil {
		return nil, err
	}
	return j, nil
}

// spawn makes a jail, and another where what it was made of, or the launcher, ended meanwhile. A trial tries all of it, and uses up nothing.
func (n *ns) spawn(ctx context.Context, s Spec, empty bool) (*inside, error) {
	if err := s.check(); err != nil {
		return nil, asRefusal(err)
	}
	if ctx.Err() != nil {
		return nil, gone(ctx)
	}
	var j *inside
	var err error
	if !empty {
		defer func() { n.keepAfter(j, s.Limits) }()
	}
	j, err = n.spawnOnce(ctx, s, empty, !empty)
	if err != nil {
		defer n.ready.alone()()
	}
	for tries := 0; tries < 2 && ctx.Err() == nil && n.again(ctx, err); tries++ {
		j, err = n.spawnOnce(ctx, s, empty, false)
	}
	if err != nil {
		return nil, asRefusal(err)
	}
	return j, nil
}

// spawnOnce makes a jail, of what is kept where it may. What it has made is undone when a later step fails.
func (n *ns) spawnOnce(ctx context.Context, s Spec, empty, kept bool) (made *inside, err error) {
	began, abi := time.Now(), landlockABI()
	if least := max(s.Profile.MinLandlock, 1); abi < least {
		return nil, refuse(FeatureLandlock, nil, fmt.Sprintf("this kernel has ABI %d of Landlock, and the profile wants %d", abi, least),
			"use a newer kernel (ABI 4 came with 6.7), and put landlock among those of the lsm= parameter")
	}
	filter, err := filterOf(s.Profile)
	if err != nil {
		return nil, refuse(FeaturePlatform, err, "there are jails on amd64 and arm64 only", "run the agent on such a machine")
	}
	var j *inside
	if kept {
		if j, err = n.take(s); err != nil {
			return nil, err
		}
	}
	if j == nil {
		if j, err = n.first(s, false); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = j.whyNot(err)
			j.undo()
		}
	}()
	j.began, j.deadline = began, s.Deadline
	f := &j.features
	f.Kernel, f.Profile, f.Landlock, f.Proc, f.Seccomp, f.Limits = kernel(), s.Profile.Name, abi, !s.Profile.WithoutProc, filter.Digest(), s.Limits
	p, trees, err := n.plan(s, j, empty) // while the kernel makes the namespaces
	defer func() {
		for _, t := range trees {
			_ = t.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	p.Filter = string(filter.Program)
	if err := j.hand(ctx, s, &p.Spec, trees); err != nil {
		return nil, err
	}
	if j.launching != nil {
		if err := j.begun(); err != nil {
			return nil, err
		}
		if err := j.bound(s.Limits); err != nil {
			return nil, err
		}
	}
	if err := j.stands(ctx, 2); err != nil {
		return nil, err
	}
	go j.watch()
	return j, nil
}

// first asks for a first process, with a user and a control group of its own.
func (n *ns) first(s Spec, kept bool) (*inside, error) {
	j := newInside(n.Start)
	j.kept = kept
	j.features = Features{Backend: "ns", Privileged: privileged(), Namespaces: namespaces, Cgroup: "none"}
	j.become = j.features.Privileged && !hasCap(unix.CAP_SYS_ADMIN)
	err := n.user(j, s)
	if err == nil {
		err = j.confine(s, whileMade(s.Limits))
	}
	if err == nil {
		err = j.begin()
	}
	if err != nil {
		j.undo()
		return nil, err
	}
	return j, nil
}

// whileMade are the limits of a group while a first process is made in it. Whoever makes it is in the group for that long (v1), and
// makes those of other jails too: they are not to wait for the little processor time that this one is to have.
func whileMade(l Limits) Limits {
	if l.CPU > 0 {
		l.CPU = max(l.CPU, 100)
	}
	return l
}

// bound gives the group of a first process that was made the limits of its jail.
func (j *inside) bound(l Limits) error {
	if j.group == nil || l == whileMade(l) {
		return nil
	}
	if err := j.group.limit(l); err != nil {
		return noCgroup(unnamed(err))
	}
	return nil
}

// filters are those assembled so far: there are few, and assembling one takes a while.
var filters sync.Map

func filterOf(p Profile) (seccomp.Filter, error) {
	o := seccomp.Options{Datagrams: p.Datagrams, MemfdExec: p.MemfdExec, Execveat: p.Execveat, Splice: p.Splice}
	if f, ok := filters.Load(o); ok {
		return f.(seccomp.Filter), nil
	}
	f, err := seccomp.New(runtime.GOARCH, o)
	if err == nil {
		filters.Store(o, f)
	}
	return f, err
}

// emptyPlan is that of a jail with nothing of the caller's in it.
func emptyPlan(s Spec, abi int, user uint32) (*plan, error) {
	p := &plan{Spec: wire.Spec{
		UID: user, GID: user, Hostname: "jail",
		ReadOnly: []string{"/", "/run", "/dev"}, Socket: socketPath, Port: gatewayTCP,
		Exec: "/agent/none", Args: []string{"none"}, Dir: "/tmp", Landlock: rulesFor(abi, s.Profile),
	}}
	p.furnish(s)
	return p, nil
}

func (n *ns) user(j *inside, s Spec) error {
	uid := os.Geteuid()
	switch {
	case j.features.Privileged:
		got, err := n.users.take(s.HostUID)
		if err != nil {
			return err
		}
		j.release = func() { n.users.give(got) }
		uid = got
	case s.HostUID != 0 && s.HostUID != uid:
		return refuse(FeatureHostUID, nil, "only root of the machine runs an agent as another user", "leave the host user out, or run the gateway as root")
	}
	if uid == 0 && rootOfMachine() {
		return refuse(FeatureHostUID, nil, "the agent would be root of the host", "give this process CAP_SETUID and CAP_SETGID, or run it as an ordinary user")
	}
	j.features.HostUID = uid
	return nil
}

// plan is what the first process is told, with the mounts that are made here for it.
func (n *ns) plan(s Spec, j *inside, empty bool) (p *plan, trees []*os.File, err error) {
	if empty {
		p, err = emptyPlan(s, j.features.Landlock, insideID)
	} else {
		p, err = planOf(s, j.features.Landlock, insideID)
	}
	if err != nil || !j.features.Privileged {
		return p, nil, err
	}
	if p.Become = j.become; !j.become {
		trees, err = n.trees(p, j)
		return p, trees, err
	}
	for _, i := range p.shared {
		if m := &p.Mounts[i]; m.Attr&unix.MOUNT_ATTR_RDONLY == 0 && !ownedBy(m.Source, j.features.HostUID) {
			return nil, nil, scopeRefusal(nil, j.features.HostUID)
		}
	}
	return p, nil, nil
}

// trees are the mounts this process makes and hands over: with all of root's rights, every one of the host's. A scope
// is shown as the jail's own. One that is only read, and cannot be shown so, is shown as what it is: the jail may then
// read less of it.
func (n *ns) trees(p *plan, j *inside) (out []*os.File, err error) {
	for i := range p.Mounts {
		m := &p.Mounts[i]
		if m.Kind != wire.Bind {
			continue
		}
		if len(out) == wire.MaxTrees {
			return out, refuse(FeatureSpec, nil, "it shows too much of the host", "name directories rather than what is in them")
		}
		uid := asItIs
		if slices.Contains(p.shared, i) {
			uid = j.features.HostUID
		}
		f, err := n.users.tree(*m, uid)
		if r, ok := errors.AsType[*Refusal](err); ok && r.Feature == FeatureScope && m.Attr&unix.MOUNT_ATTR_RDONLY != 0 {
			f, err = n.users.tree(*m, asItIs)
		}
		if err != nil {
			return out, err
		}
		m.FD = int32(len(out))
		out = append(out, f)
	}
	return out, nil
}

func kernel() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}

func asRefusal(err error) error {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	return refuse(FeatureInit, err, "something of this machine failed", "`writ jail doctor` tries each part by itself")
}
