package supervisor

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Waits before an agent that ended badly is started again.
const (
	againFirst = time.Second
	againMost  = 30 * time.Second
)

// run is the life of one jail. The context ends it.
func (s *Supervisor) run(cell context.Context, seen writ.JailSeen) {
	j, id := seen.Jail, seen.Jail.Session
	log := s.cfg.Log.With("session", id, "agent", j.Agent)
	var last *writ.JailExit // of the start before
	for n := 0; ; n++ {
		if err := s.note(s.cfg.Host, id, writ.JailStarting, nil, last); err != nil {
			if n == 0 { // another replica has it, or the session ended
				return
			}
			break
		}
		exit := s.once(cell, seen, n == 0)
		last = &exit
		if !exit.Badly() || int64(n) >= j.Spec.Restarts || cell.Err() != nil {
			break
		}
		log.Warn("an agent ended badly and is started again", "why", exit.Why, "code", exit.Code, "signal", exit.Signal)
		select {
		case <-cell.Done():
		case <-time.After(min(againFirst<<n, againMost)):
		}
		if cell.Err() != nil {
			break
		}
	}
	if err := s.note(s.cfg.Host, id, writ.JailEnded, nil, last); err != nil {
		log.Error("the end of a jail is not noted; it will be found when its session is looked at", "error", err)
	}
	log.Info("a jail ended", "why", last.Why, "code", last.Code, "missing", last.Missing)
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
	for _, l := range jail.Listeners() {
		serving.Go(func() { s.cfg.Serve(inside, id, l) })
	}
	defer context.AfterFunc(cell, jail.Kill)()

	instead, ran := writ.JailExit{Why: writ.JailKilled}, false
	err = s.note(s.cfg.Host, id, writ.JailRunning, jail.Features(), nil)
	if err == nil && first {
		if err = s.cfg.Queue.As(cell, seen.Session, "session.start", startArgs(seen.Jail)); err != nil {
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
	beat, heard := time.NewTicker(ttl/3), time.Now()
	defer beat.Stop()
	for {
		select {
		case exit := <-ended:
			switch {
			case !ran && instead.Why == writ.JailRefused:
				return instead
			case cell.Err() != nil:
				exit.Why, exit.Code, exit.Signal = writ.JailKilled, 0, 0
			}
			return exit
		case <-beat.C: // its life is its sign of life
			began := time.Now()
			soon, cancel := context.WithTimeout(cell, ttl/3)
			err := s.cfg.Queue.As(soon, seen.Session, "session.heartbeat", map[string]any{"session_id": id})
			cancel()
			switch {
			case err == nil:
				heard = began
			case writ.CodeOf(err) == writ.CodeUnauthenticated, time.Since(heard) > ttl+writ.SessionGraceSeconds*time.Second:
				// The session has ended; or, where the store cannot be reached, others may have ended it
				// by now, and given to somebody else what it wrote.
				jail.Kill()
			}
		}
	}
}

func startArgs(j writ.Jail) map[string]any {
	args := map[string]any{"session_id": j.Session}
	if len(j.Claims) > 0 {
		args["write_claims"] = j.Claims
	}
	return args
}

// noteFor is how long a note is tried while the store is down: the sweeper ends the
// jail of a session after that.
const noteFor = 30 * time.Second

// note notes through the door, again while that is down. What the door refuses stays
// refused.
func (s *Supervisor) note(host string, id writ.SessionID, to writ.JailState, features map[string]string, exit *writ.JailExit) error {
	ctx, cancel := context.WithTimeout(context.Background(), noteFor)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := s.cfg.Queue.Note(ctx, host, id, to, features, exit)
		if err == nil || !again(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// again says whether the same note may go through a moment later.
func again(err error) bool {
	switch writ.CodeOf(err) {
	case writ.CodeStore, writ.CodeContention, writ.CodeBackpressure, writ.CodePolicyDown, writ.CodeNotReady:
		return true
	}
	return false
}
