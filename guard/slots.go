package guard

import (
	"sync"

	"github.com/writ-gateway/writ"
)

// slots bounds the calls under way. One session has a share of them at most,
// and some are kept for those who must get through when others crowd the door:
// who can suspend an agent, or decide.
//
// A session is counted by its whole credential, before anything is read: who
// only knows its id uses up nothing of its share. Who it is shows the first read.
// A session that was found to be of a role some are kept for is remembered, and
// has them from then on; one that is not known may find out in half of them, and
// leaves those when it is none of these.
type slots struct {
	each int // the most of one session
	kept int // for the roles that come first

	mu     sync.Mutex
	common int                      // free for anybody
	rest   int                      // free of those that are kept
	under  map[writ.Credential]int  // calls under way; never more entries than slots
	firsts map[writ.Credential]bool // sessions of roles that come first
}

// slot is the place of one call under way.
type slot struct {
	who  writ.Credential
	kept bool // one of those that are kept
}

// maxFirsts bounds the sessions that are remembered. One that was dropped is
// found out again.
const maxFirsts = 1024

// newSlots shares out n slots: a sixteenth for one session, and an eighth that is
// kept, each four at least as far as that leaves room for others.
func newSlots(n int) *slots {
	kept := min(max(n/8, 4), n/2)
	return &slots{
		each: min(max(n/16, 4), n), kept: kept, common: n - kept, rest: kept,
		under: map[writ.Credential]int{}, firsts: map[writ.Credential]bool{},
	}
}

// comesFirst says for which roles slots are kept.
func comesFirst(r writ.Role) bool {
	return r == writ.RoleOperator || r == writ.RoleApprover || r == writ.RoleSystem
}

// enter gives a call a slot, or says why there is none.
func (s *slots) enter(who writ.Credential) (*slot, *overload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := &slot{who: who}
	switch {
	case s.under[who] >= s.each:
		return nil, manyOfOne
	case s.common > 0:
		s.common--
	case s.rest > 0 && s.firsts[who], 2*s.rest > s.kept:
		s.rest--
		x.kept = true
	default:
		return nil, manyCalls
	}
	s.under[who]++
	return x, nil
}

// found says which role the session of a call has. A call that has one of the
// slots that are kept for others takes a common one instead; it is false when
// there is none.
func (s *slots) found(x *slot, r writ.Role) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case comesFirst(r):
		s.remember(x.who)
	case x.kept && s.common == 0:
		return false
	case x.kept:
		s.common--
		s.rest++
		x.kept = false
	}
	return true
}

// remember notes a session that comes first, in the place of any other when
// there are too many.
func (s *slots) remember(who writ.Credential) {
	if !s.firsts[who] && len(s.firsts) >= maxFirsts {
		for other := range s.firsts {
			delete(s.firsts, other)
			break
		}
	}
	s.firsts[who] = true
}

// forget drops a session that has ended.
func (s *slots) forget(who writ.Credential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.firsts, who)
}

// leave gives a slot back.
func (s *slots) leave(x *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.kept {
		s.rest++
	} else {
		s.common++
	}
	if s.under[x.who]--; s.under[x.who] == 0 {
		delete(s.under, x.who)
	}
}

// crowded refuses a call that has no slot.
func (d *Door) crowded(why *overload) error {
	d.cfg.Observer.Shed(why.label)
	return &writ.Error{
		Code: writ.CodeBackpressure, Op: "guard.Do", RetryMs: 1000, Msg: why.msg,
		Hint: "repeat the call after the Retry-After time",
	}
}
