package webhooks

import (
	"net/http"
	"strconv"
	"time"
)

// When a notice is tried: at once, and after each failure three times as long
// as before, from five seconds to six hours. Twelve tries take about a day.
const (
	maxTries    = 12
	firstWait   = 5 * time.Second
	longestWait = 6 * time.Hour
	// tooOld is when a notice to an endpoint that fails is given up however
	// often it was tried: more may have come than one that hangs lets pass.
	tooOld = 36 * time.Hour
)

// wait is the time between the n-th failure (from 1) and the next try. spread,
// from 0 to 1, moves it by up to a fifth either way, so that what failed
// together does not come back together.
func wait(n int64, spread float64) time.Duration {
	d := firstWait
	for ; n > 1 && d < longestWait; n-- {
		d *= 3
	}
	d = min(d, longestWait)
	return d*4/5 + time.Duration(spread*float64(d)*2/5)
}

// retryAfter is how long an answer asks to be left alone: seconds or a date. It
// is never less than nothing and never more than the longest wait.
func retryAfter(header string, now time.Time) time.Duration {
	var d time.Duration
	if s, err := strconv.ParseInt(header, 10, 64); err == nil {
		d = time.Duration(min(max(s, 0), int64(longestWait/time.Second))) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), longestWait)
}
