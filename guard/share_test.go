package guard

import (
	"encoding/binary"
	"testing"

	"github.com/writ-gateway/writ"
)

// However few slots there are, one session has some and others are left some.
func TestShares(t *testing.T) {
	for _, tt := range []struct{ slots, each, kept int }{
		{1, 1, 0}, {2, 2, 1}, {4, 4, 2}, {8, 4, 4}, {32, 4, 4}, {64, 4, 8}, {256, 16, 32}, {100_000, 6250, 12_500},
	} {
		if s := newSlots(tt.slots); s.each != tt.each || s.kept != tt.kept || s.common+s.rest != tt.slots {
			t.Errorf("of %d slots one session has %d and %d are kept; want %+v", tt.slots, s.each, s.kept, tt)
		}
	}
}

// What is known of sessions does not grow with how many there were, and every
// slot comes back where it belongs.
func TestSlotsForgetSessions(t *testing.T) {
	s := newSlots(16)
	for n := range uint32(3 * maxFirsts) {
		who := writ.Credential{Tenant: "default"}
		binary.LittleEndian.PutUint32(who.SecretHash[:], n)
		x, why := s.enter(who)
		if why != nil {
			t.Fatal(why.msg)
		}
		role := writ.RoleOperator
		if n%3 == 0 {
			role = writ.RoleExecutor
		}
		if !s.found(x, role) {
			t.Fatal("turned away from an empty door")
		}
		s.leave(x)
	}
	if len(s.under) != 0 || len(s.firsts) != maxFirsts || s.common != 12 || s.rest != 4 {
		t.Errorf("%d sessions are counted, %d remembered, %d and %d slots are free", len(s.under), len(s.firsts), s.common, s.rest)
	}
	for who := range s.firsts {
		s.forget(who)
	}
	if len(s.firsts) != 0 {
		t.Errorf("%d are remembered", len(s.firsts))
	}
}
