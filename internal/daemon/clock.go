package daemon

import (
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// The clock of this machine says when leases, sessions and windows end where the embedded
// store is, and stands in every receipt there. Nothing goes back with it: the store's time
// only grows, and what is waited for is measured by a clock that nobody sets. But after a
// step of it things end early or late, and whoever runs the gateway should know why.

// stepped is by how much a clock must be off what has passed to have been set.
const stepped = 2 * time.Second

// stepTold is for how long readyz tells of a step.
const stepTold = time.Hour

// clockWatch notices that the clock was set.
type clockWatch struct {
	// now is the clock, and how long the process has run by one that nobody sets.
	now func() (wall time.Time, ran time.Duration)

	mu    sync.Mutex
	wall  time.Time     // when it was last looked at
	ran   time.Duration // and how long it had run then
	steps int64
	last  time.Duration // by how much it was set last
	at    time.Duration // when that was seen, as ran has it
}

func newClockWatch() *clockWatch {
	begun := time.Now()
	return watchClock(func() (time.Time, time.Duration) {
		t := time.Now()
		return t.Round(0), t.Sub(begun) // without and with the monotonic reading
	})
}

func watchClock(now func() (time.Time, time.Duration)) *clockWatch {
	c := &clockWatch{now: now}
	c.wall, c.ran = now()
	return c
}

// look compares how far the clock went with what has passed, and logs a step.
func (c *clockWatch) look(log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, ran := c.now()
	step := wall.Sub(c.wall) - (ran - c.ran)
	c.wall, c.ran = wall, ran
	if step.Abs() < stepped {
		return
	}
	c.steps, c.last, c.at = c.steps+1, step, ran
	why := "leases, sessions and windows on the embedded store end that much early; the machine may have slept"
	if step < 0 {
		why = "times of receipts on the embedded store stand still until the clock has caught up, and leases, sessions and windows end that much late"
	}
	log.Warn("the clock of this machine was set", "seconds", step.Seconds(), "so", why)
}

// told is what readyz says of a step; empty when there was none of late.
func (c *clockWatch) told() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ran := c.now()
	if c.steps == 0 || ran-c.at > stepTold {
		return ""
	}
	return fmt.Sprintf("set by %+.0f s, %.0f s ago", c.last.Seconds(), (ran - c.at).Seconds())
}

func (c *clockWatch) counted() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.steps
}

func (c *clockWatch) by() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}
