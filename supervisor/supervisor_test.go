package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ses  writ.SessionID = "ses_01ARYZ6S410000000000000000"
	host string         = "one"
)

// board is a queue of jails that keeps to the moves there are.
type board struct {
	mu     sync.Mutex
	seen   map[writ.SessionID]*writ.JailSeen
	told   []string // notes and calls, in order
	refuse map[writ.CapabilityID]error
	down   int // notes that fail before the store answers
	fails  failure
	calls  int                       // notes and starts so far
	keys   map[string]writ.SessionID // whose call was made under each; all sessions are one agent's
	cells  []*cell                   // that were made
	beats  []beat
}

// beat is a sign of life.
type beat struct {
	at   time.Time
	used writ.JailUse
}

// failure is a store that fails at the nth note or start: once, or from then on for a time
// in which it shows nothing either. Before it commits, or after.
type failure struct {
	at        int
	lasts     time.Duration
	committed bool
	until     time.Time
}

// broken says whether the store fails a call now; write says that it is a note or start.
func (b *board) broken(write bool) bool {
	if write {
		if b.calls++; b.calls == b.fails.at {
			b.fails.until = time.Now().Add(b.fails.lasts)
			return true
		}
	}
	return time.Now().Before(b.fails.until)
}

func wanted(spec writ.JailSpec) *board {
	return &board{seen: map[writ.SessionID]*writ.JailSeen{ses: {
		Jail:    writ.Jail{Session: ses, Agent: "caged", Spec: spec.Filled(), State: writ.JailWanted},
		Session: writ.Session{ID: ses, State: writ.SessionOpened, TTLSeconds: 30},
	}}, refuse: map[writ.CapabilityID]error{}, keys: map[string]writ.SessionID{}}
}

func (b *board) All(context.Context) (out []writ.JailSeen, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken(false) {
		return nil, &writ.Error{Code: writ.CodeStore}
	}
	for _, j := range b.seen {
		if j.Jail.State != writ.JailEnded {
			out = append(out, *j)
		}
	}
	return out, nil
}

func (b *board) Note(_ context.Context, by string, id writ.SessionID, to writ.JailState, features map[string]string, exit *writ.JailExit) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down > 0 {
		b.down--
		return &writ.Error{Code: writ.CodeStore}
	}
	broken := b.broken(true)
	if broken && !b.fails.committed {
		return &writ.Error{Code: writ.CodeStore}
	}
	j := b.seen[id]
	if j.Jail.State != to || j.Jail.Host != by || to == writ.JailEnded { // else it is said again
		if !writ.JailMoves.May(j.Jail.State, to) || j.Jail.State != writ.JailWanted && j.Jail.Host != by || to != writ.JailEnded && j.Over() {
			return writ.IllegalMove("test", writ.ObjectJail, string(j.Jail.State), string(to))
		}
		j.Jail.State, j.Jail.Host = to, by
		if exit != nil {
			j.Jail.Exit = exit
		}
		if to == writ.JailRunning && len(features) == 0 {
			return errors.New("no features")
		}
		b.told = append(b.told, string(to))
	}
	if broken {
		return &writ.Error{Code: writ.CodeStore}
	}
	return nil
}

func (b *board) As(_ context.Context, by writ.Session, id writ.CapabilityID, key string, _ any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	broken := b.broken(id == "session.start")
	if broken && (id != "session.start" || !b.fails.committed) {
		return &writ.Error{Code: writ.CodeStore}
	}
	if whose, known := b.keys[key]; known && whose != by.ID {
		return &writ.Error{Code: writ.CodeIdempotency}
	} else if known { // the same answer again
		return nil
	}
	b.told = append(b.told, string(id))
	if id == "session.start" && b.refuse[id] == nil {
		s := &b.seen[by.ID].Session
		if s.State != writ.SessionOpened {
			return writ.IllegalMove("test", writ.ObjectSession, string(s.State), string(writ.SessionActive))
		}
		s.State = writ.SessionActive
		if key != "" {
			b.keys[key] = by.ID
		}
		if broken {
			return &writ.Error{Code: writ.CodeStore}
		}
	}
	return b.refuse[id]
}

func (b *board) Beat(ctx context.Context, s writ.Session, used writ.JailUse) error {
	err := b.As(ctx, s, "session.heartbeat", "", nil)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beats = append(b.beats, beat{time.Now(), used})
	return err
}

// another is a second jail of the same agent, which its session has not started either.
func (b *board) another() writ.SessionID {
	other := *b.seen[ses]
	other.Jail.Session = "ses_01ARYZ6S410000000000000001"
	other.Session.ID = other.Jail.Session
	b.seen[other.Jail.Session] = &other
	return other.Jail.Session
}

// revoke ends the session.
func (b *board) revoke() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen[ses].Session.State = writ.SessionRevoked
	b.refuse["session.heartbeat"] = &writ.Error{Code: writ.CodeUnauthenticated}
}

func (b *board) tell(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = append(b.told, what)
}

func (b *board) jail() writ.Jail {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen[ses].Jail
}

// cell is a jail whose agent ends as the test says.
type cell struct {
	b    *board
	dead chan struct{}
	once sync.Once
	exit chan writ.JailExit
	gone bool
}

func (c *cell) Features() map[string]string { return map[string]string{"net": "none"} }
func (c *cell) Used() writ.JailUse          { return writ.JailUse{CPUMs: 7, MemoryKB: 8, Processes: 9} }
func (c *cell) Listeners() []net.Listener   { return []net.Listener{nil, nil} }
func (c *cell) Go() error                   { c.b.tell("go"); return nil }
func (c *cell) Kill()                       { c.once.Do(func() { c.b.tell("kill"); close(c.dead) }) }

func (c *cell) Wait() writ.JailExit {
	defer func() {
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		c.gone = true
	}()
	select {
	case e := <-c.exit:
		return e
	case <-c.dead:
		return writ.JailExit{Why: writ.JailKilled}
	}
}

type lacking string

func (l lacking) Error() string   { return "this host lacks " + string(l) }
func (l lacking) Missing() string { return string(l) }

// jailer gives cells that end one after the other as the exits say, and then not at all.
type jailer struct {
	b     *board
	exits []writ.JailExit
	lacks string
	slow  bool          // it is never done
	crash time.Duration // after which every agent ends badly, or its deadline ends it

	deadlines []int64
}

func (m *jailer) Make(ctx context.Context, j writ.Jail) (Jail, error) {
	m.b.mu.Lock()
	m.deadlines = append(m.deadlines, j.Spec.Deadline)
	m.b.mu.Unlock()
	if m.slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if m.lacks != "" {
		return nil, lacking(m.lacks)
	}
	c := &cell{b: m.b, dead: make(chan struct{}), exit: make(chan writ.JailExit, 1)}
	m.b.mu.Lock()
	m.b.cells = append(m.b.cells, c)
	if len(m.exits) > 0 {
		c.exit <- m.exits[0]
		m.exits = m.exits[1:]
	}
	m.b.mu.Unlock()
	if deadline := time.Duration(j.Spec.Deadline) * time.Second; m.crash > 0 {
		exit := writ.JailExit{Why: writ.JailExited, Code: 1}
		if deadline <= m.crash {
			exit = writ.JailExit{Why: writ.JailDeadline}
		}
		time.AfterFunc(min(m.crash, deadline), func() { c.exit <- exit })
	}
	return c, nil
}

func start(b *board, m *jailer, more func(*Config)) *Supervisor {
	m.b = b
	cfg := Config{
		Queue: b, Jailer: m, Host: host, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Serve: func(ctx context.Context, who writ.SessionID, _ net.Listener) error {
			b.tell("serve " + string(who[:3]))
			<-ctx.Done()
			return nil
		},
	}
	if more != nil {
		more(&cfg)
	}
	s := New(cfg)
	s.Start()
	return s
}

func (b *board) did(t *testing.T, want ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var got []string
	for _, w := range b.told {
		if w != "session.heartbeat" && w != "serve ses" {
			got = append(got, w)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
}

func TestAnAgentRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wanted(writ.JailSpec{})
		b.down = 3
		m := &jailer{}
		s := start(b, m, nil)
		time.Sleep(time.Minute)
		b.did(t, "starting", "running", "session.start", "go")
		beats, serves := 0, 0
		for _, w := range b.told {
			switch w {
			case "session.heartbeat":
				beats++
			case "serve ses":
				serves++
			}
		}
		if beats < 5 || serves != 2 {
			t.Fatalf("%d heartbeats in a minute, %d listeners served", beats, serves)
		}
		b.revoke()
		time.Sleep(300 * time.Millisecond)
		b.did(t, "starting", "running", "session.start", "go", "kill", "ended")
		if j := b.jail(); j.Exit.Why != writ.JailKilled {
			t.Fatalf("it ended %+v", j.Exit)
		}
		s.Stop()
	})
}

func TestEndings(t *testing.T) {
	bad, good := writ.JailExit{Why: writ.JailExited, Code: 3}, writ.JailExit{Why: writ.JailExited}
	for name, tc := range map[string]struct {
		spec   writ.JailSpec
		exits  []writ.JailExit
		lacks  string
		refuse writ.CapabilityID
		want   []string
		why    writ.JailEnd
	}{
		"by itself":          {exits: []writ.JailExit{good}, want: []string{"starting", "running", "session.start", "go", "ended"}, why: writ.JailExited},
		"badly":              {exits: []writ.JailExit{bad}, want: []string{"starting", "running", "session.start", "go", "ended"}, why: writ.JailExited},
		"badly, then well":   {spec: writ.JailSpec{Restarts: 3}, exits: []writ.JailExit{bad, good}, want: []string{"starting", "running", "session.start", "go", "starting", "running", "go", "ended"}, why: writ.JailExited},
		"deadline":           {spec: writ.JailSpec{Restarts: 3}, exits: []writ.JailExit{{Why: writ.JailDeadline}}, want: []string{"starting", "running", "session.start", "go", "ended"}, why: writ.JailDeadline},
		"memory, once again": {spec: writ.JailSpec{Restarts: 1}, exits: []writ.JailExit{{Why: writ.JailMemory}, {Why: writ.JailMemory}}, want: []string{"starting", "running", "session.start", "go", "starting", "running", "go", "ended"}, why: writ.JailMemory},
		"no jail here":       {spec: writ.JailSpec{Restarts: 3}, lacks: "landlock", want: []string{"starting", "ended"}, why: writ.JailUnavailable},
		"not started":        {spec: writ.JailSpec{Restarts: 3}, refuse: "session.start", want: []string{"starting", "running", "session.start", "kill", "ended"}, why: writ.JailRefused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := wanted(tc.spec)
				if tc.refuse != "" {
					b.refuse[tc.refuse] = &writ.Error{Code: writ.CodeScopeConflict}
				}
				s := start(b, &jailer{exits: tc.exits, lacks: tc.lacks}, nil)
				time.Sleep(time.Minute)
				b.did(t, tc.want...)
				if j := b.jail(); j.State != writ.JailEnded || j.Exit.Why != tc.why || j.Exit.Missing != tc.lacks {
					t.Fatalf("got %s %+v", j.State, j.Exit)
				}
				s.Stop()
			})
		})
	}
}

// Two replicas want one jail, and one has it.
func TestOneReplicaHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wanted(writ.JailSpec{})
		one, two := start(b, &jailer{}, nil), start(b, &jailer{}, func(c *Config) { c.Host = "two" })
		time.Sleep(time.Minute)
		b.did(t, "starting", "running", "session.start", "go")
		one.Stop()
		two.Stop()
		b.did(t, "starting", "running", "session.start", "go", "kill", "ended")
	})
}

func TestStopKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wanted(writ.JailSpec{Restarts: 9})
		s := start(b, &jailer{exits: []writ.JailExit{{Why: writ.JailSignalled, Signal: 11}}}, nil)
		time.Sleep(400 * time.Millisecond) // it waits to be started again
		s.Stop()
		if j := b.jail(); j.State != writ.JailEnded {
			t.Fatalf("it is %s", j.State)
		}
	})
}

// What an earlier life left ends, where nobody else can have it.
func TestLeftBehind(t *testing.T) {
	for _, adopts := range []bool{true, false} {
		t.Run(fmt.Sprint(adopts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := wanted(writ.JailSpec{})
				b.seen[ses].Jail.State, b.seen[ses].Jail.Host = writ.JailRunning, "before"
				s := start(b, &jailer{}, func(c *Config) { c.Adopts = adopts })
				time.Sleep(time.Minute)
				s.Stop()
				if j := b.jail(); adopts != (j.State == writ.JailEnded) || adopts && j.Exit.Why != writ.JailLost {
					t.Fatalf("it is %s, %+v", j.State, j.Exit)
				}
			})
		})
	}
}

func TestNoMoreThan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wanted(writ.JailSpec{})
		b.another()
		s := start(b, &jailer{}, func(c *Config) { c.Most = 1 })
		time.Sleep(time.Minute)
		b.did(t, "starting", "running", "session.start", "go")
		s.Stop()
	})
}

// The sessions of one agent start each for itself: what one said under a key is no answer to another.
func TestEachSessionStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wanted(writ.JailSpec{})
		other := b.another()
		s := start(b, &jailer{}, nil)
		time.Sleep(time.Minute)
		b.mu.Lock()
		for _, id := range []writ.SessionID{ses, other} {
			if j := b.seen[id]; j.Session.State != writ.SessionActive || j.Jail.State != writ.JailRunning {
				t.Errorf("the session is %s, its jail %s", j.Session.State, j.Jail.State)
			}
		}
		b.mu.Unlock()
		s.Stop()
	})
}

// Whoever cannot say that its agent is alive ends it before others take what it had.
func TestOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wanted(writ.JailSpec{})
		s := start(b, &jailer{}, nil)
		time.Sleep(65 * time.Second) // the last heartbeat was five seconds ago
		b.mu.Lock()
		b.refuse["session.heartbeat"] = &writ.Error{Code: writ.CodeStore}
		b.mu.Unlock()
		time.Sleep(80 * time.Second)
		b.did(t, "starting", "running", "session.start", "go")
		time.Sleep(30 * time.Second)
		b.did(t, "starting", "running", "session.start", "go", "kill", "ended")
		s.Stop()
	})
}

// lives is how many jails there are that something may run in.
func (b *board) lives() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.cells {
		if !c.gone {
			n++
		}
	}
	return n
}

// Whichever note or call fails, once or for minutes, lost or only its answer: nothing runs
// that no jail is noted for, no jail is noted for ever that nothing runs in, and when the
// session ends so does all of it.
func TestEachWriteFails(t *testing.T) {
	bad := writ.JailExit{Why: writ.JailExited, Code: 3}
	for at := 1; at < 9; at++ { // starting, running, start, starting, running, ended, and what is tried again
		for _, lasts := range []time.Duration{0, 2 * time.Minute} {
			for _, committed := range []bool{false, true} {
				t.Run(fmt.Sprintf("call %d for %s, committed %t", at, lasts, committed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := wanted(writ.JailSpec{Restarts: 1})
						b.fails = failure{at: at, lasts: lasts, committed: committed}
						s := start(b, &jailer{exits: []writ.JailExit{bad}}, nil)
						defer s.Stop()
						time.Sleep(5 * time.Minute)
						switch j := b.jail(); {
						case (j.State == writ.JailRunning) != (b.lives() == 1), j.State == writ.JailStarting:
							t.Fatalf("the jail is %s, and of it there are %d", j.State, b.lives())
						case lasts == 0 && j.State != writ.JailRunning:
							t.Fatalf("one failure has ended it: %+v", j)
						}
						b.revoke()
						time.Sleep(5 * time.Minute)
						if j := b.jail(); j.State != writ.JailEnded || b.lives() != 0 {
							t.Fatalf("at the end the jail is %s, and of it there are %d", j.State, b.lives())
						}
					})
				})
			}
		}
	}
}

// The end of a jail is noted when the store answers again, however long that takes, and
// says how it really ended.
func TestAnEndIsNotedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wanted(writ.JailSpec{})
		m := &jailer{}
		s := start(b, m, nil)
		time.Sleep(time.Minute)
		b.mu.Lock()
		b.down = 1000
		c := b.cells[0]
		b.mu.Unlock()
		c.exit <- writ.JailExit{Why: writ.JailExited, Code: 5}
		time.Sleep(10 * time.Minute)
		if j := b.jail(); j.State != writ.JailRunning {
			t.Fatalf("it is %s", j.State)
		}
		b.mu.Lock()
		b.down = 0
		b.mu.Unlock()
		time.Sleep(5 * time.Second)
		if j := b.jail(); j.State != writ.JailEnded || j.Exit.Code != 5 {
			t.Fatalf("it is %s, %+v", j.State, j.Exit)
		}
		s.Stop()
	})
}

// A jail whose session ends while it is in the making is killed, and so is one that
// somebody else has noted the end of.
func TestNotWantedAnyMore(t *testing.T) {
	t.Run("before anybody takes it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := wanted(writ.JailSpec{})
			b.revoke()
			s := start(b, &jailer{}, nil)
			time.Sleep(time.Second)
			b.did(t, "ended")
			s.Stop()
		})
	})
	t.Run("in the making", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := wanted(writ.JailSpec{})
			s := start(b, &jailer{slow: true}, nil)
			time.Sleep(time.Second)
			b.did(t, "starting")
			b.revoke()
			time.Sleep(time.Second)
			b.did(t, "starting", "ended")
			if j := b.jail(); j.Exit.Why != writ.JailKilled {
				t.Fatalf("it ended %+v", j.Exit)
			}
			s.Stop()
		})
	})
	t.Run("noted by somebody else", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := wanted(writ.JailSpec{})
			s := start(b, &jailer{}, nil)
			time.Sleep(time.Minute)
			b.mu.Lock()
			b.seen[ses].Jail.State = writ.JailEnded
			b.mu.Unlock()
			time.Sleep(300 * time.Millisecond)
			b.did(t, "starting", "running", "session.start", "go", "kill")
			s.Stop()
		})
	})
}

// What an agent may run is for all its starts together.
func TestOneDeadlineForAllStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wanted(writ.JailSpec{Restarts: 9, Deadline: 20})
		m := &jailer{crash: 6 * time.Second}
		s := start(b, m, nil)
		time.Sleep(5 * time.Minute)
		s.Stop()
		// It ends after 6 s; a second later it has 13 s left; 2 s after the next 6 it has 5.
		if want := []int64{20, 13, 5}; !slices.Equal(m.deadlines, want) {
			t.Fatalf("its starts had %v s, want %v", m.deadlines, want)
		}
		if j := b.jail(); j.State != writ.JailEnded || j.Exit.Why != writ.JailDeadline {
			t.Fatalf("it is %s, %+v", j.State, j.Exit)
		}
	})
}

// What an agent uses is said soon after its start, and with each sign of life after that.
func TestUseIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wanted(writ.JailSpec{Program: "builder"})
		s := start(b, &jailer{}, nil)
		time.Sleep(25 * time.Second)
		s.Stop()
		var at []time.Duration
		for _, beat := range b.beats {
			if beat.used != (writ.JailUse{CPUMs: 7, MemoryKB: 8, Processes: 9}) {
				t.Errorf("it is said to use %+v", beat.used)
			}
			at = append(at, beat.at.Sub(b.beats[0].at))
		}
		if want := []time.Duration{0, 10 * time.Second, 20 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("that is said after %v, want %v", at, want)
		}
	})
}

// A jail whose listeners nobody serves any more is killed, says why, and is not made again;
// one whose session has ended was killed for that, and one that closed them itself ended as
// it did.
func TestADoorNobodyServes(t *testing.T) {
	began := []string{"starting", "running", "session.start", "go"}
	for name, tc := range map[string]struct {
		serve   error
		want    []string
		why     writ.JailEnd
		missing string
	}{
		"for good":              {&writ.Error{Code: writ.CodeInternal}, slices.Concat(began, []string{"kill", "ended"}), writ.JailKilled, "door"},
		"its session has ended": {nil, slices.Concat(began, []string{"kill", "ended"}), writ.JailKilled, ""},
		"the jail closed it":    {fmt.Errorf("accept: %w", net.ErrClosed), slices.Concat(began, []string{"ended"}), writ.JailLost, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := wanted(writ.JailSpec{Restarts: 3})
				s := start(b, &jailer{}, func(c *Config) {
					c.Serve = func(ctx context.Context, _ writ.SessionID, _ net.Listener) error {
						select {
						case <-ctx.Done():
							return nil
						case <-time.After(time.Minute):
							return tc.serve
						}
					}
				})
				time.Sleep(59 * time.Second)
				b.did(t, began...)
				time.Sleep(2 * time.Second)
				if errors.Is(tc.serve, net.ErrClosed) {
					b.did(t, began...)
					b.cells[0].exit <- writ.JailExit{Why: writ.JailLost}
				}
				time.Sleep(time.Minute)
				b.did(t, tc.want...)
				if j := b.jail(); j.State != writ.JailEnded || j.Exit.Why != tc.why || j.Exit.Missing != tc.missing {
					t.Fatalf("it is %s, %+v", j.State, j.Exit)
				}
				s.Stop()
			})
		})
	}
}
