package jail

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A first process may be kept for the next jail: making its namespaces and starting it are most of what a jail takes. It has left the
// mounts of the host, has been told nothing, and has a user of the host and a control group that are no other jail's. All that is of its
// jail it is given when that is asked for, as any is, and nothing is looked at before that could be otherwise by then.
//
// So none is kept where a first process opens what is of the host by itself, through mounts that are as old as it is: for an ordinary
// user, or root without CAP_SYS_ADMIN; nor where no control group bounds it.

// ready is what a Jailer keeps.
type ready struct {
	mu      sync.Mutex
	now     *kept
	closed  bool
	without int            // how many try to make a jail without
	all     sync.WaitGroup // of what is being made, kept, or ended
}

// kept is one first process, from before it is made until it was taken or nothing of it is left.
type kept struct {
	begun   bool         // it is being made, or was: until then it is for whichever jail was the last
	cpu     bool         // its group can bound processor time, which only one that does so has to
	offer   chan *inside // to whoever comes while it waits
	drop    chan struct{}
	dropped bool // it is being ended
	gone    chan struct{}
}

// numbers are those of first processes that are kept, by which their groups are named as no jail is.
var numbers counter

// beside is how long a jail may take until the next one's first process is made beside it: what it starts is not to wait for that.
const beside = 20 * time.Millisecond

// keepAfter has one made for the next jail when this one, if there is one, has started what it is for, or is over.
func (n *ns) keepAfter(j *inside, l Limits) {
	if n.Ready == 0 {
		return
	}
	r := &n.ready
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.all.Go(func() {
		if j != nil {
			started := time.NewTimer(beside)
			defer started.Stop()
			select {
			case <-j.done:
			case <-started.C:
			}
		}
		n.keep(l)
	})
}

// keep has one made for the next jail, which may be expected to be bounded like the last, if there is none such.
func (n *ns) keep(l Limits) {
	r := &n.ready
	r.mu.Lock()
	defer r.mu.Unlock()
	k := &kept{cpu: l.CPU > 0, offer: make(chan *inside), drop: make(chan struct{}), gone: make(chan struct{})}
	old := r.waits()
	if r.closed || r.without > 0 || old != nil && !old.dropped && old.cpu == k.cpu {
		return
	}
	if old != nil && !old.dropped && !old.begun {
		old.cpu = k.cpu
		return
	}
	r.drop()
	r.now = k
	r.all.Go(func() {
		defer close(k.gone)
		if old != nil {
			<-old.gone
		}
		n.hold(k)
	})
}

// waits is what is kept, or will be, or is being ended. The caller holds mu.
func (r *ready) waits() *kept {
	if r.now != nil {
		select {
		case <-r.now.gone:
			r.now = nil
		default:
		}
	}
	return r.now
}

// drop ends what is kept, which nobody can take any more. The caller holds mu.
func (r *ready) drop() {
	if r.now != nil && !r.now.dropped {
		r.now.dropped = true
		close(r.now.drop)
	}
}

// hold makes a first process and keeps it until somebody takes it, or it has waited long enough.
func (n *ns) hold(k *kept) {
	n.ready.mu.Lock()
	k.begun = true
	cpu, dropped := k.cpu, k.dropped
	n.ready.mu.Unlock()
	if dropped || !keepable() {
		return
	}
	l := Limits{Memory: 64 << 20, Processes: 1} // until those of its jail are known
	if cpu {
		l.CPU = 100
	}
	j, err := n.first(Spec{ID: fmt.Sprintf("kept.%d", numbers.next()), Limits: l}, true)
	if err != nil {
		return // for want of a control group, or what the next jail will be told
	}
	if err := j.begun(); err == nil {
		idle := time.NewTimer(n.Ready)
		defer idle.Stop()
		select {
		case k.offer <- j:
			return
		case <-k.drop:
		case <-idle.C:
		case <-j.process.(*child).ended:
		}
	}
	n.ready.mu.Lock()
	k.dropped = true // another may be made after it
	n.ready.mu.Unlock()
	j.undo()
}

// keepable says whether this process may make all mounts of a jail itself.
func keepable() bool { return privileged() && hasCap(unix.CAP_SYS_ADMIN) }

// take makes what is kept that of a jail; nil where none is, or none that will do.
func (n *ns) take(s Spec) (*inside, error) {
	j := n.ready.take(s)
	if j == nil {
		return nil, nil
	}
	if !keepable() || j.group.limit(s.Limits) != nil {
		j.undo()
		return nil, nil
	}
	if err := j.called(s.ID); err != nil {
		j.undo()
		return nil, err
	}
	return j, nil
}

func (r *ready) take(s Spec) *inside {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil || r.now.cpu != (s.Limits.CPU > 0) || s.HostUID != 0 {
		return nil
	}
	select {
	case j := <-r.now.offer:
		r.now = nil
		return j
	default:
		return nil
	}
}

// stale is why a jail could not be made of what was kept, and may be of another.
type stale struct{ error }

func (s stale) Unwrap() error { return s.error }

// whyNot is an error of making the jail. Of one that was kept it says nothing of the next: it may have ended before, or failed to
// become one that is kept. One that did not answer has taken all the time there was.
func (j *inside) whyNot(err error) error {
	if j.kept && time.Since(j.began) < j.start {
		return stale{err}
	}
	return err
}

// again says whether a jail that could not be made may be made now, of nothing that was kept: that may have failed, or have had the
// user or the room that was wanting. Until the caller has called done none is kept.
func (n *ns) again(ctx context.Context, err error) bool {
	if _, ok := errors.AsType[stale](err); ok || errors.Is(err, errLauncher) {
		return true
	}
	refused, ok := errors.AsType[*Refusal](err)
	if !ok || n.Ready == 0 || !slices.Contains(wanting, refused.Feature) {
		return false
	}
	n.ready.mu.Lock()
	n.ready.drop()
	k := n.ready.waits()
	n.ready.mu.Unlock()
	return k == nil && refused.Feature == FeatureHostUID || k != nil && n.await(ctx, k.gone)
}

// wanting are what a jail is refused for that what is kept may have.
var wanting = []string{FeatureHostUID, FeatureInit, FeatureUserns, FeatureCgroup}

// alone has none kept until it is undone: somebody tries with all there is.
func (r *ready) alone() (undo func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.without++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.without--
	}
}

// Close ends what is kept for the next jail, and what is being made to be. Jails go on, and others can be made.
func (n *ns) Close() error {
	r := &n.ready
	r.mu.Lock()
	r.closed = true
	r.drop()
	r.mu.Unlock()
	all := make(chan struct{})
	go func() {
		r.all.Wait()
		close(all)
	}()
	if !n.await(context.Background(), all) {
		return errors.New("a first process that was kept has not ended yet; it ends with this process")
	}
	return nil
}

// await waits for something to be gone, as long as making a jail may take.
func (n *ns) await(ctx context.Context, gone <-chan struct{}) bool {
	late := time.NewTimer(n.Start)
	defer late.Stop()
	select {
	case <-gone:
		return true
	case <-ctx.Done():
		return false
	case <-late.C:
		return false
	}
}
