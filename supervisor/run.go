package supervisor

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-gateway/writ"
)

// Waits before an agent that ended badly is started again.
const (
	againFirst = time.Second
	againMost  = 30 * time.Second
)

// missingDoor is what a jail lacks that was killed because nobody served its listeners
// any more, as JailExit.Missing. Its agent has run, so it is not unavailable.
const missingDoor = "door"

// soonSeen is how long after its start it is first said what an agent uses.
const soonSeen = time.Second

// run is the life of one jail. The context ends it. Its deadline is for all its starts
// together.
func (s *Supervisor) run(cell context.Context, seen writ.JailSeen) {
	j, id := seen.Jail, seen.Jail.Session
	log := s.cfg.Log.With("session", id, "agent", j.Agent)
	until := time.Now().Add(time.Duration(j.Spec.Deadline) * time.Second)
	var last *writ.JailExit // of the start before
	for n := int64(0); ; n++ {
		if err := s.note(s.cfg.Host, id, writ.JailStarting, nil, last); err != nil {
			if n == 0 { // another replica has it, or the session ended
				return
			}
			break
		}
		exit := s.once(cell, seen, n == 0)
		last = &exit
		wait := min(againFirst<<n, againMost)
		left := time.Until(until.Add(-wait)) / time.Second
		if !exit.Badly() || n >= j.Spec.Restarts || left < 1 || cell.Err() != nil {
			break
		}
		log.Warn("an agent ended badly and is started again", "why", exit.Why, "code", exit.Code, "signal", exit.Signal)
		select {
		case <-cell.Done():
		case <-time.After(wait):
		}
		if cell.Err() != nil {
			break
		}
		seen.Jail.Restarts, seen.Jail.Spec.Deadline = n+1, int64(left)
	}
	s.noteEnd(s.cfg.Host, id, last)
	log.Info("a jail ended", "why", last.Why, "code", last.Code, "missing", last.Missing)
}

// bury notes the end of a jail that nobody has.
func (s *Supervisor) bury(id writ.SessionID, host string, why writ.JailEnd) {
	s.noteEnd(host, id, &writ.JailExit{Why: why})
}

// noteEnd notes that nothing is left of a jail, for as long as it takes: what the
// session claims is nobody's until then. Only a stop of the gateway leaves it to whoever
// finds the jail.
func (s *Supervisor) noteEnd(host string, id writ.SessionID, exit *writ.JailExit) {
	for {
		err := s.note(host, id, writ.JailEnded, nil, exit)
		switch {
		case err == nil, writ.CodeOf(err) == writ.CodeIllegal: // noted before, or by somebody who did not hear of it
			return
		case !writ.CodeOf(err).Passes() || s.end.Err() != nil:
			s.cfg.Log.Error("the end of a jail is not noted; it will be found when its session is looked at", "session", id, "error", err)
			return
		}
	}
}

// once is one start of the agent, from making the jail to its end.
func (s *Supervisor) once(cell context.Context, seen writ.JailSeen, first bool) writ.JailExit {
	id := seen.Jail.Session
	jail, err := s.cfg.Jailer.Make(cell, seen.Jail)
	if err != nil {
		exit := writ.JailExit{Why: writ.JailUnavailable, Missing: "jail"}
		if m, ok := errors.AsType[Missing](err); ok {
			exit.Missing = m.Missing()
		}
		if cell.Err() != nil {
			exit = writ.JailExit{Why: writ.JailKilled}
		}
		s.cfg.Log.Error("a jail cannot be made, and the agent is not run", "session", id, "missing", exit.Missing, "error", err)
		return exit
	}
	inside, closed := context.WithCancel(cell)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer closed()
	var doorless atomic.Bool
	for _, l := range jail.Listeners() {
		serving.Go(func() {
			err := s.cfg.Serve(inside, id, l)
			if inside.Err() != nil || errors.Is(err, net.ErrClosed) { // it was to end, or the jail has
				return
			}
			if err != nil {
				doorless.Store(true)
				s.cfg.Log.Error("an agent in a jail is not answered any more, and its jail ends", "session", id, "error", err)
			}
			jail.Kill() // its agent could do nothing but wait for its deadline
		})
	}
	defer context.AfterFunc(cell, jail.Kill)()

	instead, ran := writ.JailExit{Why: writ.JailKilled}, false
	heard := time.Now() // from here on a note or call that goes through says that the session lives
	err = s.note(s.cfg.Host, id, writ.JailRunning, jail.Features(), nil)
	if err == nil && first {
		if err = s.try(cell, func(ctx context.Context) error {
			return s.cfg.Queue.As(ctx, seen.Session, "session.start", startKey(id), startArgs(seen.Jail))
		}); err != nil && cell.Err() == nil {
			instead.Why = writ.JailRefused
		}
	}
	if err == nil {
		if err = jail.Go(); err == nil {
			ran = true
		}
	}
	if err != nil {
		s.cfg.Log.Error("an agent is not run", "session", id, "error", err)
		jail.Kill()
	}
	ended := make(chan writ.JailExit, 1)
	go func() { ended <- jail.Wait() }()
	ttl := time.Duration(max(seen.Session.TTLSeconds, 3)) * time.Second
	silence := writ.JailSilence(seen.Session.TTLSeconds)
	beat, silent := time.NewTicker(min(ttl/3, soonSeen)), time.NewTimer(time.Until(heard.Add(silence)))
	defer beat.Stop()
	defer silent.Stop()
	for {
		select {
		case exit := <-ended:
			switch {
			case !ran && instead.Why == writ.JailRefused:
				return instead
			case cell.Err() != nil:
				exit.Why, exit.Code, exit.Signal = writ.JailKilled, 0, 0
			case doorless.Load() && exit.Why == writ.JailKilled:
				exit.Missing = missingDoor
			}
			return exit
		case <-silent.C:
			// The store cannot be reached: others may have ended the session by now, and give to somebody
			// else what it wrote.
			jail.Kill()
		case <-beat.C: // its life is its sign of life
			began := time.Now()
			soon, cancel := context.WithDeadline(cell, began.Add(min(ttl/3, time.Until(heard.Add(silence)))))
			err := s.cfg.Queue.Beat(soon, seen.Session, jail.Used())
			cancel()
			beat.Reset(ttl / 3)
			switch {
			case err == nil:
				heard = began
				silent.Reset(time.Until(heard.Add(silence)))
			case writ.CodeOf(err) == writ.CodeUnauthenticated: // the session has ended
				jail.Kill()
			}
		}
	}
}

// startKey is that of a session's start. Keys are an agent's, which has many sessions.
func startKey(id writ.SessionID) string { return "jail-start-" + string(id) }

func startArgs(j writ.Jail) map[string]any {
	args := map[string]any{"session_id": j.Session}
	if len(j.Claims) > 0 {
		args["write_claims"] = j.Claims
	}
	return args
}

// tryFor is how long a note or call is tried while the store is down.
const tryFor = 30 * time.Second

// note notes through the door.
func (s *Supervisor) note(host string, id writ.SessionID, to writ.JailState, features map[string]string, exit *writ.JailExit) error {
	return s.try(context.Background(), func(ctx context.Context) error {
		return s.cfg.Queue.Note(ctx, host, id, to, features, exit)
	})
}

// try calls through the door, again while that is down. What the door refuses stays
// refused.
func (s *Supervisor) try(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := call(ctx)
		if err == nil || !writ.CodeOf(err).Passes() {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}
