package daemon

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A clock that is set is said, once for every time, whichever way; one that only runs, or
// is slewed, is not.
func TestAClockThatIsSet(t *testing.T) {
	wall, ran := time.UnixMilli(1_700_000_000_000), time.Duration(0)
	c := watchClock(func() (time.Time, time.Duration) { return wall, ran })
	var logged strings.Builder
	log := slog.New(slog.NewTextHandler(&logged, nil))
	pass := func(d, step time.Duration) string {
		wall, ran = wall.Add(d+step), ran+d
		logged.Reset()
		c.look(log)
		return logged.String()
	}
	if s := pass(time.Second, 0) + pass(time.Hour, 0) + pass(time.Second, 500*time.Microsecond) + pass(time.Second, -stepped+1); s != "" || c.told() != "" {
		t.Errorf("it says %q, %q", s, c.told())
	}
	if s := pass(time.Second, time.Hour); !strings.Contains(s, "seconds=3600") || !strings.Contains(s, "early") || c.counted() != 1 {
		t.Errorf("an hour on: %q, %d", s, c.counted())
	}
	if s := pass(time.Second, 0); s != "" || c.told() != "set by +3600 s, 1 s ago" {
		t.Errorf("then: %q, %q", s, c.told())
	}
	if s := pass(time.Second, -time.Hour); !strings.Contains(s, "seconds=-3600") || !strings.Contains(s, "stand still") || c.counted() != 2 || c.by() != -time.Hour {
		t.Errorf("an hour back: %q, %d, %v", s, c.counted(), c.by())
	}
	if pass(stepTold+time.Second, 0); c.told() != "" {
		t.Errorf("it is still told: %q", c.told())
	}
	// The real one does not step while it is looked at.
	real := newClockWatch()
	if real.look(log); real.counted() != 0 {
		t.Error("it was set meanwhile, or is misread")
	}
}
