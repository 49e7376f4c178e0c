package guard

import (
	"time"

	"github.com/writ-gateway/writ"
)

// overQuota is what one poll passes over: capabilities whose tasks a quota keeps
// from its caller, and lists of such tasks that were set aside, and until when. What
// is there stays where it is for others.
type overQuota map[string]time.Time

func (o overQuota) passes(name string) bool { return len(o) > 0 && time.Now().Before(o[name]) }

// except leaves the lanes out that are passed over.
func (o overQuota) except(lanes func(writ.Lane) bool) func(writ.Lane) bool {
	return func(l writ.Lane) bool {
		_, c, _, _ := l.Split()
		return !o.passes(string(c)) && lanes(l)
	}
}

// note passes a lane's capability over if a candidate from it was refused by a
// quota, and says whether the quota has its caller wait.
func (o overQuota) note(l writ.Lane, err error) (waits, is bool) {
	_, c, _, _ := l.Split()
	return o.pass(string(c), err)
}

func (o overQuota) pass(name string, err error) (waits, is bool) {
	if !usedUp(err) {
		return false, false
	}
	e := writ.AsError("guard.poll", err)
	o[name] = time.Now().Add(time.Duration(e.RetryMs) * time.Millisecond)
	return e.Details["action"] == string(writ.QuotaQueue), true
}

// usedUp says whether a call was refused by a quota, and not because its agent works
// on as much as it may.
func usedUp(err error) bool {
	e := writ.AsError("guard.poll", err)
	return e != nil && e.Once != nil && e.Code == writ.CodeQuota
}
