package jail

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A first process that ends before it read all it was told has said why, and is heard.
func TestHeardAfterAReset(t *testing.T) {
	mine, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mine.Close() }()
	if _, err := mine.Write([]byte("never read")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Send(int(theirs.Fd()), []byte("why"), 0); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if b, _, err := readMessage(mine, buf, nil); string(b) != "why" {
		t.Errorf("it said %q: %v", b, err)
	}
	if _, _, err := readMessage(mine, buf, nil); !errors.Is(err, io.EOF) {
		t.Errorf("then %v", err)
	}
}

// A first process that may have been told its spec, by a launcher that ended before it said so, is not asked for again on the same
// socket: what the first says would be taken for the second's. The whole jail is made anew.
func TestAFirstProcessIsAskedForOnce(t *testing.T) {
	for i := range 50 {
		if askedForOnce(t, fmt.Sprintf("once-%d-%d", os.Getpid(), i)) {
			return
		}
	}
	t.Error("each answer came before it could be lost")
}

// askedForOnce says whether the answer was lost.
func askedForOnce(t *testing.T, id string) bool {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	n := New(Options{FirstUID: 63500, UIDs: 8}).(*ns)
	s := Spec{ID: id, Profile: Strict(), Agent: Program{Path: "/preflight"}}
	s.Profile.WithoutCgroup = true
	must(s.check())
	filter, err := filterOf(s.Profile)
	must(err)
	j := newInside(n.Start)
	j.features = Features{Privileged: privileged(), Landlock: landlockABI()}
	j.become = j.features.Privileged && !hasCap(unix.CAP_SYS_ADMIN)
	defer j.undo()
	must(n.user(j, s))
	must(j.begin())
	l, c := launches(), j.launching.child
	l.mu.Lock()
	asked := l.next
	delete(l.children, asked) // nobody hears the answer
	l.mu.Unlock()
	p, _, err := n.plan(s, j, true)
	must(err)
	p.Filter = string(filter.Program)
	must(j.hand(t.Context(), s, &p.Spec, nil))
	raw, err := j.control.SyscallConn()
	must(err)
	must(raw.Control(func(fd uintptr) { // it has read its spec, and says that it is ready
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000); n != 1 {
			t.Errorf("it says nothing: %v", err)
		}
	}))
	if len(c.answer) > 0 {
		return false
	}
	c.end(ending{})
	err = j.begun()
	l.mu.Lock()
	again := l.next - asked
	l.mu.Unlock()
	if !errors.Is(err, errLauncher) || again != 0 || j.process != nil {
		t.Errorf("it was asked for %d times more: %v", again, err)
	}
	return true
}
