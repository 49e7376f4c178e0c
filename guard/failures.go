package guard

import "time"

// What failed is left alone for a while, each time longer, so that what fails for
// ever takes ever less of the time of what does not.
const (
	retryFailed = 5 * time.Second
	retryAtMost = 10 * time.Minute
)

// failures are what failed lately, by name.
type failures map[string]failure

type failure struct {
	until time.Time
	wait  time.Duration
}

// waits says whether something that failed is to be left alone still.
func (f failures) waits(name string, now time.Time) bool { return now.Before(f[name].until) }

// putOff notes that something failed.
func (f failures) putOff(name string, now time.Time) {
	wait := min(max(2*f[name].wait, retryFailed), retryAtMost)
	f[name] = failure{until: now.Add(wait), wait: wait}
}

// putOffBriefly notes trouble that may have nothing to do with what failed, and so
// says nothing about when it will not fail.
func (f failures) putOffBriefly(name string, now time.Time) {
	f[name] = failure{until: now.Add(retryFailed), wait: f[name].wait}
}

// forget drops what was not tried again for long.
func (f failures) forget(now time.Time) {
	for name, x := range f {
		if now.Sub(x.until) > retryAtMost {
			delete(f, name)
		}
	}
}
