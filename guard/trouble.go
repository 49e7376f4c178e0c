package guard

import (
	"log/slog"
	"sync"
)

// Trouble logs that something in a loop began to fail, and that it works
// again, but not every failure in between. The zero value is ready to use.
type Trouble struct {
	mu sync.Mutex
	on bool
}

// Note hears how one round went.
func (t *Trouble) Note(log *slog.Logger, err error, fails, again string) {
	t.mu.Lock()
	was := t.on
	t.on = err != nil
	t.mu.Unlock()
	switch {
	case err != nil && !was:
		log.Warn(fails, "error", err)
	case err == nil && was:
		log.Info(again)
	}
}
