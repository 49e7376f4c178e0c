package guard

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-gateway/writ"
)

// Step is a step of a workflow: the call that makes it a task.
type Step struct {
	Key        string
	Level      int // steps of one level wait for none of their own
	Capability writ.CapabilityID
	Args       any
}

// UnfolderConfig tunes an Unfolder.
type UnfolderConfig struct {
	Shards []writ.Tenant
	// Steps reads the workflow under a digest as steps of a run, in an order in which
	// each comes after all it waits for. CodeNotFound, CodeArtifact and CodeInputInvalid
	// say that there is none any more, anything else that it could not be read now.
	Steps func(ctx context.Context, digest string, run writ.RunID) ([]Step, error)
	Every time.Duration // between looks (500 ms)
	Left  time.Duration // after how long without progress a replica takes up what another has begun (2 s)
}

// Unfolder makes the steps of workflows tasks of their runs. Each is a call of the
// session that ordered it, judged like one it makes itself, and the same call gives
// the same task: what is made twice, by two replicas or after a crash, is made once.
// The count of those that are there moves with every unfoldChunk of them, by a mandate
// that says what became of the rest when one cannot be made.
type Unfolder struct {
	door *Door
	cfg  UnfolderConfig

	// Owned by the loop.
	steps   map[unfolding][]Step
	mine    map[unfolding]bool
	failed  failures
	trouble Trouble

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// unfolding is a run among those of all shards.
type unfolding struct {
	shard writ.Tenant
	run   writ.RunID
}

func (r unfolding) name() string { return string(r.shard) + " " + string(r.run) }

const (
	// unfoldChunk is how many steps are made before it is noted how far it went.
	unfoldChunk = 128
	// unfoldAtOnce is how many of one level are made side by side.
	unfoldAtOnce = 8
	// unfoldKept is how many workflows are held in memory.
	unfoldKept = 8
	// unfoldRuns is how many runs one look sees, the longest due first; unfoldTurn how
	// many of them it takes up before it looks again.
	unfoldRuns = 1000
	unfoldTurn = 64
)

// NewUnfolder makes an Unfolder.
func NewUnfolder(d *Door, cfg UnfolderConfig) *Unfolder {
	if cfg.Every == 0 {
		cfg.Every = 500 * time.Millisecond
	}
	if cfg.Left == 0 {
		cfg.Left = 2 * time.Second
	}
	return &Unfolder{door: d, cfg: cfg, steps: map[unfolding][]Step{}, mine: map[unfolding]bool{}, failed: failures{}}
}

// Start unfolds until Stop.
func (u *Unfolder) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	u.cancel = cancel
	u.done.Go(func() {
		tick := time.NewTicker(u.cfg.Every)
		defer tick.Stop()
		for {
			fresh := false
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case <-u.door.unfold: // by a commit of this replica
				fresh = true
			}
			for u.Unfold(ctx, fresh) && ctx.Err() == nil { // a chunk of each, in turns
			}
		}
	})
}

// Stop ends unfolding after the calls under way.
func (u *Unfolder) Stop() {
	if u.cancel != nil {
		u.cancel()
		u.done.Wait()
	}
}

// Unfold makes a chunk of every workflow that is due, as many as one turn takes, and says
// whether there is more to be done now. Fresh ones are left to the replica that was
// asked for them, which is told; who sees no progress takes over.
func (u *Unfolder) Unfold(ctx context.Context, fresh bool) (more bool) {
	var outage error
	for _, shard := range u.cfg.Shards {
		on, err := u.turn(ctx, shard, fresh)
		more, outage = more || on, cmp.Or(outage, err)
	}
	if ctx.Err() != nil {
		return false
	}
	u.trouble.Note(u.door.cfg.Log, outage, "workflows wait until the gateway can act", "steps of workflows are made tasks again")
	return more
}

// turn makes a chunk of the workflows of a shard that have waited longest. What is noted
// of each puts it behind the others, until later if it could not go on: however many
// wait, the rest have their turn.
func (u *Unfolder) turn(ctx context.Context, shard writ.Tenant, fresh bool) (more bool, outage error) {
	r := writ.Range{Index: writ.IndexUnfold, ByScore: true, Max: writ.MaxAmount, Limit: unfoldRuns}
	s, err := u.door.cfg.Store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{r}})
	if err != nil {
		return false, storeDown("guard.unfold", err)
	}
	now := time.Now()
	u.failed.forget(now)
	u.keepOnly(shard, s.Ranges[r].Members)
	taken := 0
	for _, m := range s.Ranges[r].Members {
		run := unfolding{shard, writ.RunID(m.Name)}
		if m.Score > s.Now {
			break // it waits, and so do those after it
		}
		if u.failed.waits(run.name(), now) || !u.mine[run] && !fresh && s.Now-m.Score < u.cfg.Left.Milliseconds() {
			continue
		}
		if taken == unfoldTurn {
			return true, nil
		}
		taken++
		u.mine[run] = true
		on, err := u.chunk(ctx, run)
		switch {
		case ctx.Err() != nil:
			return false, nil
		case writ.CodeOf(err) == writ.CodeUpgrade: // a newer replica can; the others have their turn
			u.failed.putOffBriefly(run.name(), now)
			continue
		case notAtFault(err):
			return more, err
		case err != nil:
			if writ.CodeOf(err) != writ.CodeContention {
				u.door.cfg.Log.Error("steps of a workflow were not made tasks; it is tried again later", "run", run.run, "error", err)
			}
			u.failed.putOff(run.name(), now)
			continue
		case on:
			more = true
		default: // it waits
			delete(u.steps, run)
		}
		delete(u.failed, run.name())
	}
	return more, nil
}

// keepOnly forgets what is known of runs of a shard that need nothing any more.
func (u *Unfolder) keepOnly(shard writ.Tenant, members []writ.Member) {
	there := make(map[writ.RunID]bool, len(members))
	for _, m := range members {
		there[writ.RunID(m.Name)] = true
	}
	maps.DeleteFunc(u.steps, func(r unfolding, _ []Step) bool { return r.shard == shard && !there[r.run] })
	maps.DeleteFunc(u.mine, func(r unfolding, _ bool) bool { return r.shard == shard && !there[r.run] })
}

// unfoldedArgs are what became of steps, for run.unfold.
type unfoldedArgs struct {
	Run  writ.RunID `json:"run_id"`
	From int64      `json:"from"`
	Made int64      `json:"made"`
	Step string     `json:"step,omitempty"`
	Code writ.Code  `json:"code,omitempty"`
	Ends bool       `json:"ends,omitempty"`

	Denial writ.ReceiptID    `json:"denial,omitempty"`
	Wrong  []writ.FieldError `json:"wrong,omitempty"`
}

// chunk makes some steps of a run, and says whether it went on. In any case it is noted
// that somebody was there.
func (u *Unfolder) chunk(ctx context.Context, r unfolding) (on bool, err error) {
	id, count := r.run, writ.RunUnfolded(r.run)
	s, err := u.door.cfg.Store.Read(ctx, r.shard, writ.ReadSet{Docs: []writ.Key{writ.RunKey(id)}, Counters: []writ.Counter{count}})
	if err != nil {
		return false, storeDown("guard.unfold", err)
	}
	run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(id))
	if err != nil {
		return false, err
	}
	became := unfoldedArgs{Run: id, From: s.Counters[count]}
	became.Made = became.From
	switch {
	case !ok || !run.Unfolding(): // the entry alone is left
	case run.State != writ.RunActive: // people are asked about it
	default:
		var stopped error
		became.Made, became.Step, stopped = u.make(ctx, r, run, became.From)
		if writ.CodeOf(stopped) == writ.CodeInternal {
			u.door.cfg.Log.Error("a step of a workflow failed; it is tried again later", "run", id, "step", became.Step, "error", stopped)
		}
		became.Code, became.Ends = writ.CodeOf(stopped), stopped != nil && !later(stopped)
		if stopped != nil && ctx.Err() != nil {
			return false, nil
		}
		if e := writ.AsError("guard.unfold", stopped); stopped != nil {
			became.Denial, became.Wrong = e.Receipt, e.Fields[:min(len(e.Fields), writ.MaxStepErrors)]
		}
		on = stopped == nil
	}
	_, _, err = u.door.System(ctx, r.shard, "run.unfold", became, nil)
	if writ.CodeOf(err) == writ.CodeReceiptPending { // it is done
		err = nil
	}
	return on && err == nil, err
}

// errWaits says that people were asked about a step.
var errWaits = &writ.Error{Code: writ.CodeApprovalRequired, Op: "guard.unfold", Msg: "people are asked about the step"}

// later says that a step that was not made now may be later, without anybody doing it
// another way: it waits for people, for room, or for the gateway to be well again.
func later(err error) bool {
	if errors.Is(err, errWaits) || notAtFault(err) {
		return true
	}
	switch writ.CodeOf(err) {
	case writ.CodeStore, writ.CodeContention, writ.CodeBackpressure, writ.CodeQuota, writ.CodePaused, writ.CodeApprovalRequired, writ.CodeInternal:
		return true
	}
	return false
}

// make makes steps tasks, from one on. It says how many are there now, and at which
// step it stopped and why. Where it had stopped before it tries one step alone.
func (u *Unfolder) make(ctx context.Context, r unfolding, run writ.Run, from int64) (made int64, key string, stopped error) {
	all, read := u.steps[r]
	if !read {
		var err error
		all, err = u.cfg.Steps(ctx, run.Workflow.Digest, run.ID)
		switch writ.CodeOf(err) {
		case writ.CodeNotFound, writ.CodeArtifact, writ.CodeInputInvalid: // nobody will ever know what it was
			err = &writ.Error{Code: writ.CodeArtifact, Op: "guard.unfold", Err: err}
		}
		if err != nil {
			return from, "", err
		}
		if len(u.steps) >= unfoldKept {
			clear(u.steps) // the others are read again
		}
		u.steps[r] = all
	}
	end := min(from+unfoldChunk, int64(len(all)))
	for made = from; made < end; {
		some := all[made:end]
		if n := slices.IndexFunc(some, func(s Step) bool { return s.Level != some[0].Level }); n > 0 {
			some = some[:n]
		}
		if made == from && run.Workflow.Code != "" {
			some = some[:1]
		}
		for i, err := range u.side(ctx, r.shard, run.CreatedBy, some) {
			if err != nil {
				return made + int64(i), some[i].Key, err
			}
		}
		made += int64(len(some))
	}
	return made, "", nil
}

// side makes steps side by side until one is not made, and says what became of each: those
// that were not tried come after that one.
func (u *Unfolder) side(ctx context.Context, shard writ.Tenant, by writ.SessionID, some []Step) []error {
	out, next := make([]error, len(some)), make(chan int)
	var workers sync.WaitGroup
	var stopped atomic.Bool
	for range min(unfoldAtOnce, len(some)) {
		workers.Go(func() {
			for i := range next {
				reply, _, err := u.door.Behalf(ctx, shard, by, some[i].Capability, some[i].Args)
				switch {
				case writ.CodeOf(err) == writ.CodeReceiptPending: // it is made
				case err == nil && reply.Outcome == writ.OutcomePending:
					out[i] = errWaits
				default:
					out[i] = err
				}
				if out[i] != nil {
					stopped.Store(true)
				}
			}
		})
	}
	for i := range some {
		if stopped.Load() {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	return out
}
