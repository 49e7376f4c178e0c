package supervisor

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Queue is the door's part: what is wanted, and notes of what became of it.
type Queue interface {
	All(ctx context.Context) ([]writ.JailSeen, error)
	Note(ctx context.Context, host string, id writ.SessionID, to writ.JailState, features map[string]string, exit *writ.JailExit) error
	As(ctx context.Context, ses writ.Session, id writ.CapabilityID, args any) error
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
	// Serve answers on a listener as the session until the context ends, and closes it.
	Serve func(ctx context.Context, id writ.SessionID, l net.Listener)
	// Adopts says that no other replica can have a jail: what is left of an earlier
	// life of this one ends at the start.
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
	first := s.cfg.Adopts
	for {
		if all, err := s.cfg.Queue.All(s.end); err == nil { // else the door says that the store is down
			for _, j := range all {
				s.see(j, first)
			}
			first = false
		}
		select {
		case <-s.end.Done():
			return
		case <-tick.C:
		}
	}
}

// see does what one jail wants: to be taken, or to end.
func (s *Supervisor) see(j writ.JailSeen, orphan bool) {
	id := j.Jail.Session
	s.mu.Lock()
	defer s.mu.Unlock()
	end, mine := s.has[id]
	switch {
	case mine && j.Over():
		end()
	case mine:
	case orphan && j.Jail.State != writ.JailWanted:
		s.cells.Go(func() {
			if err := s.note(j.Jail.Host, id, writ.JailEnded, nil, &writ.JailExit{Why: writ.JailLost}); err != nil {
				s.cfg.Log.Warn("the end of a jail that a stop of the gateway left is not noted", "session", id, "error", err)
			}
		})
	case j.Jail.State == writ.JailWanted && !j.Over() && len(s.has) < s.cfg.Most:
		cell, end := context.WithCancel(s.end)
		s.has[id] = end
		s.cells.Go(func() {
			s.run(cell, j)
			end()
			s.mu.Lock()
			delete(s.has, id)
			s.mu.Unlock()
		})
	}
}
