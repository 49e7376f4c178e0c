package health

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Queue is where endpoints wait to be asked. guard.Probes is one.
type Queue interface {
	// Due are up to limit endpoints that are due, the longest due first.
	Due(ctx context.Context, limit int) ([]writ.ProbeJob, error)
	// Open are the endpoints of agents that nobody has looked at in time.
	Open(ctx context.Context, agents []writ.AgentID) ([]writ.ProbeJob, error)
	// Take says whether this replica is the one to ask.
	Take(ctx context.Context, job writ.ProbeJob) (bool, error)
	// Record notes what it found.
	Record(ctx context.Context, job writ.ProbeJob, r writ.ProbeResult) error
	// Checked is when an endpoint was last looked at, by the store's time.
	Checked(ctx context.Context, job writ.ProbeJob) (int64, error)
}

// Observer counts what endpoints say. Its label is from a closed set.
type Observer interface {
	Probe(result string, seconds float64)
}

// Config is what a Prober needs. Everything after Log has a default.
type Config struct {
	Queue    Queue
	Via      http.RoundTripper
	Observer Observer
	Log      *slog.Logger

	Every  time.Duration  // between looks at what is due (500 ms), moved by up to a half
	Spread func() float64 // from 0 to 1, rand.Float64
}

// parallel is how many endpoints are asked at once, page how many are looked at,
// patience how many calls wait for what one says.
const (
	parallel = 128
	page     = 64
	patience = 256
)

// Prober asks what is due, and what somebody wants to know now. Start and Stop
// are called once each.
type Prober struct {
	cfg    Config
	slots  chan struct{}
	queue  chan struct{} // of calls that wait
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	asking map[string]chan struct{} // endpoints asked by this replica, closed when done
	absent bool                     // the store does not answer; used by the loop
}

// New makes a Prober.
func New(cfg Config) *Prober {
	if cfg.Every == 0 {
		cfg.Every = 500 * time.Millisecond
	}
	if cfg.Spread == nil {
		cfg.Spread = rand.Float64
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Prober{cfg: cfg, ctx: ctx, cancel: cancel, slots: make(chan struct{}, parallel), queue: make(chan struct{}, patience), asking: map[string]chan struct{}{}}
}

// Start asks what is due until Stop.
func (p *Prober) Start() {
	p.done.Go(func() {
		for every := p.cfg.Every; p.pause(every/2 + time.Duration(p.cfg.Spread()*float64(every))); {
			if every = p.cfg.Every; p.look() {
				every /= 16 // enough for what it began to be taken, so that the next look finds others
			}
		}
	})
}

// Stop ends the loop and what is under way, which is not recorded then.
func (p *Prober) Stop() {
	p.mu.Lock()
	p.cancel()
	p.mu.Unlock()
	p.done.Wait()
}

func (p *Prober) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// look begins with everything that is due and waits for none of it: one that
// hangs holds up no other. It says whether more may be due and be asked.
func (p *Prober) look() (more bool) {
	jobs, err := p.cfg.Queue.Due(p.ctx, page)
	if p.ctx.Err() != nil {
		return false
	}
	if p.absent != (err != nil) { // an outage is said once
		if p.absent = err != nil; p.absent {
			p.cfg.Log.Warn("agents are not looked at until the store answers", "error", err)
		}
	}
	for _, job := range jobs {
		select {
		case p.slots <- struct{}{}:
		default:
			return false // as many as may be are under way; the rest stays due
		}
		p.begin(job)
	}
	return len(jobs) >= page
}

// begin asks one endpoint beside the caller, who holds a slot for it, and gives
// what is closed when that is done; nil when the prober has stopped.
func (p *Prober) begin(job writ.ProbeJob) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := writ.ProbeMember(job.Agent, job.Endpoint.Name)
	if under, ok := p.asking[name]; ok || p.ctx.Err() != nil {
		<-p.slots
		return under
	}
	over := make(chan struct{})
	p.asking[name] = over
	p.done.Go(func() {
		defer func() {
			p.mu.Lock()
			delete(p.asking, name)
			p.mu.Unlock()
			close(over)
			<-p.slots
		}()
		p.probe(job)
	})
	return over
}

// probe asks one endpoint, if this replica is the one to do so.
func (p *Prober) probe(job writ.ProbeJob) {
	note := func(err error) {
		if err != nil && p.ctx.Err() == nil {
			p.cfg.Log.Warn("what was seen of an agent could not be recorded", "agent", job.Agent, "endpoint", job.Endpoint.Name, "error", err)
		}
	}
	if !job.Known {
		note(p.cfg.Queue.Record(p.ctx, job, writ.ProbeResult{}))
		return
	}
	mine, err := p.cfg.Queue.Take(p.ctx, job)
	if err != nil || !mine {
		note(err)
		return
	}
	begun := time.Now()
	r := ask(p.ctx, p.cfg.Via, job.Endpoint)
	if p.ctx.Err() != nil {
		return // nothing is known
	}
	result := string(r.Reason)
	if result == "" {
		result = "pass"
	}
	p.cfg.Observer.Probe(result, time.Since(begun).Seconds())
	note(p.cfg.Queue.Record(p.ctx, job, r))
}

// slack is how long after its timeout what an endpoint said is waited for.
const slack = time.Second

// Refresh asks the endpoints of agents that nobody has looked at in time, and
// waits for what they say, no longer than they may take. What another replica is
// at is waited for as well.
func (p *Prober) Refresh(ctx context.Context, agents []writ.AgentID) {
	select {
	case p.queue <- struct{}{}:
		defer func() { <-p.queue }()
	default:
		return // too many wait: the call is judged by what is known
	}
	jobs, err := p.cfg.Queue.Open(ctx, agents)
	if err != nil || len(jobs) == 0 {
		return
	}
	longest := int64(0)
	for _, j := range jobs {
		longest = max(longest, j.Endpoint.TimeoutMs)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(longest)*time.Millisecond+slack)
	defer cancel()
	var wait []<-chan struct{}
	for _, j := range jobs {
		select {
		case p.slots <- struct{}{}:
			wait = append(wait, p.begin(j))
		case <-ctx.Done():
			return
		case <-p.ctx.Done():
			return
		}
	}
	for _, over := range wait {
		select {
		case <-over: // never, when it is nil
		case <-ctx.Done():
			return
		case <-p.ctx.Done():
			return
		}
	}
	p.elsewhere(ctx, jobs)
}

// elsewhere waits for what other replicas took before this one could.
func (p *Prober) elsewhere(ctx context.Context, jobs []writ.ProbeJob) {
	for _, j := range jobs {
		for {
			at, err := p.cfg.Queue.Checked(ctx, j)
			if err != nil || at > j.Seen {
				break
			}
			t := time.NewTimer(25 * time.Millisecond)
			select {
			case <-t.C:
			case <-ctx.Done():
			case <-p.ctx.Done():
			}
			t.Stop()
			if ctx.Err() != nil || p.ctx.Err() != nil {
				return
			}
		}
	}
}
