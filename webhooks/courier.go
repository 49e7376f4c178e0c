package webhooks

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Queue is where notices wait. guard.Notices is one.
type Queue interface {
	// Hold says whether this replica is the one that delivers to an endpoint,
	// and keeps others from it for life.
	Hold(ctx context.Context, e writ.EndpointID, life time.Duration) (bool, error)
	// Release lets others deliver to it.
	Release(ctx context.Context, e writ.EndpointID) error
	// Due are up to limit notices that are due, the longest due first, and the
	// store's time in milliseconds.
	Due(ctx context.Context, e writ.EndpointID, limit int) (now int64, due []writ.Notice, err error)
	// Approval is what a notice is about.
	Approval(ctx context.Context, id writ.ApprovalID) (writ.Approval, bool, error)
	// Settle takes notices off and puts others on, in one commit.
	Settle(ctx context.Context, e writ.EndpointID, off, on []writ.Notice) error
	// Tidy drops what waits for an endpoint nobody knows any more.
	Tidy(ctx context.Context) (dropped []writ.Notice, err error)
	// Served lists the endpoints some replica delivers to.
	Served(ctx context.Context) ([]writ.EndpointID, error)
}

// Observer counts deliveries. Its labels are from closed sets.
type Observer interface {
	Delivery(event, outcome string)
}

// Config is what a Courier needs. Everything after Log has a default.
type Config struct {
	Endpoints []Endpoint
	Queue     Queue
	Public    string // URL people reach the gateway by, for links; "" makes none
	Observer  Observer
	Log       *slog.Logger

	Life      time.Duration    // how long an endpoint is held (15 s)
	Every     time.Duration    // between looks at a queue (1 s), moved by up to a half
	Timeout   time.Duration    // of one request (10 s)
	Now       func() time.Time // time.Now
	Spread    func() float64   // from 0 to 1, rand.Float64
	Transport *http.Transport
}

// parallel is how many requests to one endpoint are under way at once; page how
// many notices are looked at, which Settle can put off in one commit.
const (
	parallel = 8
	page     = 128
)

// tidyEvery is how often a courier looks for what nobody will deliver.
const tidyEvery = time.Minute

// Courier delivers what is due, endpoint by endpoint. Start and Stop are called
// once each.
type Courier struct {
	cfg     Config
	sender  *sender
	targets []*target
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// target is an endpoint at work. It is used by its own loop only.
type target struct {
	Endpoint
	id      writ.EndpointID
	shown   string
	renew   time.Time // the hold, when a quarter of its life is over
	rest    int64     // the endpoint asks to be left alone until then, by the store's time
	failing bool      // it did not take the last notice: one at a time
	gone    bool      // it said 410: it is not asked again by this process
	absent  bool      // the store does not answer
}

// New makes a Courier.
func New(cfg Config) *Courier {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&cfg.Life, 15*time.Second)
	def(&cfg.Every, time.Second)
	def(&cfg.Timeout, timeout)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Spread == nil {
		cfg.Spread = rand.Float64
	}
	if cfg.Transport == nil {
		cfg.Transport = newTransport()
	}
	c := &Courier{cfg: cfg, sender: &sender{cfg.Transport, cfg.Timeout, cfg.Now}}
	for _, e := range cfg.Endpoints {
		c.targets = append(c.targets, &target{Endpoint: e, id: e.ID(), shown: Shown(e.URL)})
	}
	return c
}

// Start delivers until Stop. It runs without endpoints too: somebody has to
// drop what waits for those that were taken out of the configuration.
func (c *Courier) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	for _, t := range c.targets {
		c.done.Go(func() {
			for c.pause(ctx, c.cfg.Every/2+time.Duration(c.cfg.Spread()*float64(c.cfg.Every))) {
				for c.step(ctx, t) {
				}
			}
			bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_ = c.cfg.Queue.Release(bye, t.id) // else it lapses by itself
		})
	}
	c.done.Go(func() {
		known := map[writ.EndpointID]bool{}
		for _, t := range c.targets {
			known[t.id] = true
		}
		for c.pause(ctx, tidyEvery) {
			c.tidy(ctx, known)
		}
	})
}

// tidy drops what nobody will deliver, and warns once of each endpoint another
// replica has and this one has not: what happens here is not told there.
func (c *Courier) tidy(ctx context.Context, known map[writ.EndpointID]bool) {
	dropped, err := c.cfg.Queue.Tidy(ctx)
	if err != nil {
		return // the loops say so, and there is a next time
	}
	for _, n := range dropped {
		c.cfg.Observer.Delivery(cmp.Or(string(n.Event), "other"), outcomeGivenUp)
	}
	if len(dropped) > 0 {
		c.cfg.Log.Warn("notices are given up: no replica has had their webhook for two days", "notices", len(dropped))
	}
	served, _ := c.cfg.Queue.Served(ctx)
	for _, e := range served {
		if !known[e] {
			c.cfg.Log.Warn("another replica tells a webhook that this one does not have; give every replica the same webhooks, or what is done here is not told there",
				"endpoint", e)
		}
		known[e] = true
	}
}

// Stop ends the loops. What is under way counts as not delivered.
func (c *Courier) Stop() {
	if c.cancel != nil {
		c.cancel()
		c.done.Wait()
		c.cfg.Transport.CloseIdleConnections()
	}
}

// pause waits and says whether to go on.
func (c *Courier) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// step delivers what is due to one endpoint, at most a page. It says whether
// there may be more to do at once.
func (c *Courier) step(ctx context.Context, t *target) (more bool) {
	now, due, err := c.look(ctx, t)
	if ctx.Err() != nil {
		return false
	}
	if t.absent != (err != nil) { // an outage is said once
		if t.absent = err != nil; t.absent {
			c.cfg.Log.Warn("notices are not delivered until the store answers", "endpoint", t.shown, "error", err)
		}
	}
	if err != nil || now < t.rest || len(due) == 0 {
		return false
	}
	off, on := c.deliver(ctx, t, now, due)
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second) // what was delivered, even when stopping
	defer cancel()
	if err := c.cfg.Queue.Settle(keep, t.id, off, on); err != nil {
		c.cfg.Log.Warn("what was delivered could not be noted, and is delivered again", "endpoint", t.shown, "error", err)
		return false
	}
	return ctx.Err() == nil && !t.failing && len(off) > 0 && (len(off) < len(due) || len(due) == page)
}

// look reads what is due, if this replica is the one to deliver it.
func (c *Courier) look(ctx context.Context, t *target) (now int64, due []writ.Notice, err error) {
	if at := c.cfg.Now(); !at.Before(t.renew) {
		held, err := c.cfg.Queue.Hold(ctx, t.id, c.cfg.Life)
		if err != nil || !held {
			return 0, nil, err
		}
		t.renew = at.Add(c.cfg.Life / 4)
	}
	return c.cfg.Queue.Due(ctx, t.id, page)
}
