package guard_test

import (
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
)

// held keeps calls inside the door until they are let go.
type held struct {
	w      *world
	calls  sync.WaitGroup
	inside chan struct{}
	leave  chan struct{}

	mu   sync.Mutex
	left int // how many of the next decisions wait
}

func (w *world) hold() *held {
	h := &held{w: w, inside: make(chan struct{}), leave: make(chan struct{})}
	w.law.deciding = func() {
		h.mu.Lock()
		waits := h.left > 0
		if waits {
			h.left--
		}
		h.mu.Unlock()
		if waits {
			h.inside <- struct{}{}
			<-h.leave
		}
	}
	w.t.Cleanup(h.letGo)
	return h
}

// take brings n calls of a session inside, which stay there.
func (h *held) take(c *writ.Credential, n int) {
	h.w.t.Helper()
	for range n {
		h.mu.Lock()
		h.left = 1
		h.mu.Unlock()
		h.calls.Go(func() {
			if err := h.w.look(c); writ.CodeOf(err) != writ.CodeNotFound {
				h.w.t.Errorf("a call that had a slot: %v", err)
			}
		})
		select {
		case <-h.inside:
		case <-time.After(10 * time.Second):
			h.w.t.Fatal("the call did not get inside")
		}
	}
}

func (h *held) letGo() {
	select {
	case <-h.leave:
	default:
		close(h.leave)
	}
	h.calls.Wait()
}

// look makes a call that reads; there is nothing to see, which says it got through.
func (w *world) look(c *writ.Credential) error {
	_, _, err := w.call(c, "test.look", thingArgs{Run: runID(1)}, "")
	return err
}

func (w *world) through(who string, c *writ.Credential) {
	w.t.Helper()
	if err := w.look(c); writ.CodeOf(err) != writ.CodeNotFound {
		w.t.Errorf("%s: %v", who, err)
	}
}

func (w *world) turnedAway(t *testing.T, who string, c *writ.Credential, reason string) {
	t.Helper()
	before := w.heard.of(reason)
	if e := asError(t, w.look(c), writ.CodeBackpressure); e.RetryMs == 0 || e.Hint == "" {
		t.Errorf("%s: %+v", who, e)
	}
	if n := w.heard.of(reason) - before; n != 1 {
		t.Errorf("%s: counted %v, want one more of %s", who, w.heard.shed, reason)
	}
}

// A session has so many calls under way and no more, however many there is room
// for. What it sends beyond is not looked into, and others do not notice.
func TestASessionHasAShareOfTheSlots(t *testing.T) {
	w := newWorld(t, func(c *guard.Config) { c.MaxInflight = 128 })
	mallory, bob := w.sessionAs("mallory", "", writ.RoleExecutor), w.sessionAs("bob", "", writ.RoleExecutor)
	other := w.sessionAs("mallory", "2", writ.RoleExecutor)
	h := w.hold()
	h.take(mallory, 8)
	w.reads.asked = nil
	w.turnedAway(t, "the ninth call", mallory, "session")
	if n := len(w.reads.asked); n != 0 {
		t.Errorf("%d reads for it", n)
	}
	w.through("another principal", bob)
	w.through("another session", other)
	// Who only knows the id of a session uses up nothing of its share.
	forged := *bob
	forged.SecretHash[0] ^= 1
	for range 20 {
		asError(t, w.look(&forged), writ.CodeUnauthenticated)
	}
	w.through("whose session was guessed", bob)
	h.letGo()
	w.through("once they have ended", mallory)
}

// A claim that waits for work has no call under way.
func TestAWaitingPollHasNoSlot(t *testing.T) {
	w, d := newDispatcher(t)
	bob := w.sessionAs("bob", "", writ.RoleExecutor)
	var waiting sync.WaitGroup
	before := w.heard.calls.Load()
	waiting.Go(func() {
		if _, _, err := w.poll(d, bob, 20, ""); err != nil {
			t.Error(err)
		}
	})
	for w.heard.calls.Load() == before {
		time.Sleep(time.Millisecond)
	}
	w.law.mu.Lock() // hold sets what runs inside a decision
	h := w.hold()
	w.law.mu.Unlock()
	h.take(bob, 15)
	for end := time.Now().Add(10 * time.Second); writ.CodeOf(w.look(bob)) != writ.CodeNotFound; {
		if time.Now().After(end) { // now and then the poll is made again, and is in the way
			t.Fatal("the sixteenth call never got through")
		}
	}
	h.letGo()
	d.Stop()
	waiting.Wait()
}

// However many sessions crowd the door, who can stop them gets through.
func TestSlotsAreKeptForOperators(t *testing.T) {
	for _, role := range []writ.Role{writ.RoleOperator, writ.RoleApprover} {
		t.Run(string(role), func(t *testing.T) {
			w := newWorld(t, func(c *guard.Config) { c.MaxInflight = 16 }) // 4 are kept, and 4 are a session's share
			chief := w.sessionAs("chief", "", role)
			h := w.hold()
			for _, name := range []string{"anna", "bill", "carl"} {
				h.take(w.sessionAs(name, "", writ.RoleExecutor), 4)
			}
			dora := w.sessionAs("dora", "", writ.RoleExecutor)
			w.turnedAway(t, "one more executor", dora, "inflight")
			w.turnedAway(t, "an auditor", w.sessionAs("audi", "", writ.RoleAuditor), "inflight")
			w.through("seen for the first time", chief)
			h.take(chief, 3)
			w.turnedAway(t, "one more executor", dora, "inflight")
			w.through("the last slot that is kept", chief)
			h.letGo()
			w.through("when there is room again", dora)
		})
	}
}

// Those nobody knows yet have part of what is kept, to show who they are; those
// who were seen before get through beside them.
func TestStrangersDoNotTakeWhatIsKept(t *testing.T) {
	w := newWorld(t, func(c *guard.Config) { c.MaxInflight = 16 })
	chief := w.session("chief")
	w.through("the operator", chief)
	h := w.hold()
	for _, name := range []string{"anna", "bill", "carl"} {
		h.take(w.sessionAs(name, "", writ.RoleExecutor), 4)
	}
	stranger := func(n byte) *writ.Credential {
		c := *chief
		c.SecretHash[0] ^= n
		return &c
	}
	knocking, leave := make(chan struct{}), make(chan struct{})
	var once [2]first
	w.reads.mu.Lock()
	w.reads.before = func(writ.ReadSet) {
		for i := range once {
			mine := false
			once[i].do(func() { mine = true })
			if mine {
				knocking <- struct{}{}
				<-leave
				return
			}
		}
	}
	w.reads.mu.Unlock()
	var strangers sync.WaitGroup
	for n := range byte(2) {
		strangers.Go(func() {
			if err := w.look(stranger(n + 1)); writ.CodeOf(err) != writ.CodeUnauthenticated {
				t.Errorf("a stranger: %v", err)
			}
		})
		<-knocking
	}
	w.turnedAway(t, "a third stranger", stranger(3), "inflight")
	w.through("the operator", chief)
	close(leave)
	strangers.Wait()
}
