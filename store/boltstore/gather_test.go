package boltstore

import (
	"testing"
	"time"
)

// A group is whatever waits, in order and up to the bound; it waits for others
// only when there were others before, and not while the store is closing.
func TestGather(t *testing.T) {
	s := &Store{queue: make(chan *request, 2*maxGroup), closing: make(chan struct{})}
	fill := func(n int) {
		for range n {
			s.queue <- &request{}
		}
	}
	first := &request{}
	if batch := s.gather(first, false); len(batch) != 1 || batch[0] != first {
		t.Errorf("alone: a group of %d", len(batch))
	}
	for _, busy := range []bool{false, true} {
		fill(3)
		if batch := s.gather(first, busy); len(batch) != 4 || batch[0] != first {
			t.Errorf("busy %v: a group of %d, want 4", busy, len(batch))
		}
		fill(maxGroup + 5)
		if batch := s.gather(first, busy); len(batch) != maxGroup {
			t.Errorf("busy %v: a group of %d, want %d", busy, len(batch), maxGroup)
		}
		if batch := s.gather(first, busy); len(batch) != 7 {
			t.Errorf("busy %v: a group of %d, want the 7 left over", busy, len(batch))
		}
	}
	start := time.Now()
	if s.gather(first, true); time.Since(start) < linger {
		t.Error("a busy store did not wait for others")
	}
	close(s.closing)
	fill(2)
	if batch := s.gather(first, true); len(batch) > 3 {
		t.Errorf("closing: a group of %d", len(batch))
	}
}
