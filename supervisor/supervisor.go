package supervisor

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Queue is the door's part: what is wanted, and notes of what became of it. All are all
// jails that have not ended. A note whose answer was lost may be made again, and so may a call under a key.
type Queue interface {
	All(ctx context.Context) ([]writ.JailSeen, error)
	Note(ctx context.Context, host string, id writ.SessionID, to writ.JailState, features map[string]string, exit *writ.JailExit) error
	As(ctx context.Context, ses writ.Session, id writ.CapabilityID, key string, args any) error
	Beat(ctx context.Context, ses writ.Session, used writ.JailUse) error // says that the session lives
}

// Jailer makes jails. Make builds one up to the point where the agent can be let go,
// with no process of the agent in it. Its error is a Missing when the host lacks
// something. The context is for the making; the jail outlives it.
type Jailer interface {
	Make(ctx context.Context, j writ.Jail) (Jail, error)
}

// Jail is one that was made.
type Jail interface {
	Features() map[string]string // what holds the agent, at most writ.MaxJailFeatures
	Listeners() []net.Listener   // open inside: who connects is the session
	Used() writ.JailUse          // by the agent, now
	Go() error                   // lets the agent run
	Kill()                       // ends all its processes; may be called at any time, and twice
	Wait() writ.JailExit         // returns when nothing of it is left; of a jail that was killed before Go, too
}

// Missing is an error that names what the host lacks, as JailExit.Missing does.
type Missing interface {
	error
	Missing() string
}

// Config says for whom and how jails are run.
type Config struct {
	Queue  Queue
	Jailer Jailer
	Host   string // names this replica; nobody else has the name
	// Serve answers on a listener as the session until the context or the session ends, or the
	// jail has closed the listener (net.ErrClosed), and closes it. What passes, such as a store
	// that is down for a while, it outlasts: another error says that nobody will answer there
	// again, and ends the jail.
	Serve func(ctx context.Context, id writ.SessionID, l net.Listener) error
	// Adopts says that no other replica can have a jail: what this one has not is left of
	// an earlier life of it, and ends. What other replicas leave, the sweeper ends.
	Adopts bool
	Most   int           // jails at a time (64)
	Every  time.Duration // between looks (250 ms)
	Log    *slog.Logger
}

// Supervisor takes jails that are wanted. Start and Stop may be called once.
type Supervisor struct {
	cfg   Config
	end   context.Context
	stop  context.CancelFunc
	loop  sync.WaitGroup
	cells sync.WaitGroup

	mu  sync.Mutex
	has map[writ.SessionID]context.CancelFunc // ends the jail of a session
}

// New makes a Supervisor.
func New(cfg Config) *Supervisor {
	if cfg.Most == 0 {
		cfg.Most = 64
	}
	if cfg.Every == 0 {
		cfg.Every = 250 * time.Millisecond
	}
	s := &Supervisor{cfg: cfg, has: map[writ.SessionID]context.CancelFunc{}}
	s.end, s.stop = context.WithCancel(context.Background())
	return s
}

// Start begins to look.
func (s *Supervisor) Start() { s.loop.Go(s.look) }

// Stop kills every jail, notes that, and returns when nothing is left.
func (s *Supervisor) Stop() {
	s.stop()
	s.loop.Wait()
	s.cells.Wait()
}

func (s *Supervisor) look() {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		if all, err := s.cfg.Queue.All(s.end); err == nil { // else the door says that the store is down
			s.see(all)
		}
		select {
		case <-s.end.Done():
			return
		case <-tick.C:
		}
	}
}

// see does what each jail wants: to be taken, or to end. One that is not among them has
// ended, whoever noted that.
func (s *Supervisor) see(all []writ.JailSeen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	goesOn := map[writ.SessionID]bool{}
	for _, j := range all {
		id := j.Jail.Session
		goesOn[id] = !j.Over()
		switch _, mine := s.has[id]; {
		case mine:
		case j.Jail.State == writ.JailWanted && j.Over():
			s.take(id, func(context.Context) { s.bury(id, s.cfg.Host, writ.JailKilled) })
		case j.Jail.State == writ.JailWanted:
			if len(s.has) < s.cfg.Most {
				s.take(id, func(cell context.Context) { s.run(cell, j) })
			}
		case s.cfg.Adopts || j.Jail.Host == s.cfg.Host: // ours, of an earlier life or of a note we did not hear of
			s.take(id, func(context.Context) { s.bury(id, j.Jail.Host, writ.JailLost) })
		}
	}
	for id, end := range s.has {
		if !goesOn[id] {
			end()
		}
	}
}

// take does something about a jail until it is done, and nothing else about that jail.
func (s *Supervisor) take(id writ.SessionID, do func(cell context.Context)) {
	cell, end := context.WithCancel(s.end)
	s.has[id] = end
	s.cells.Go(func() {
		do(cell)
		end()
		s.mu.Lock()
		delete(s.has, id)
		s.mu.Unlock()
	})
}
