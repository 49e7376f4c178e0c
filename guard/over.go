package guard

import (
	"time"

	"github.com/writ-gateway/writ"
)

// overQuota is what one poll passes over: capabilities whose tasks a quota keeps
// from its caller, and until when. Their entries stay in their lanes for others.
type overQuota map[writ.CapabilityID]time.Time

// except leaves the lanes out that are passed over.
func (o overQuota) except(lanes func(writ.Lane) bool) func(writ.Lane) bool {
	return func(l writ.Lane) bool {
		if _, c, _, _ := l.Split(); len(o) > 0 && time.Now().Before(o[c]) {
			return false
		}
		return lanes(l)
	}
}

// note passes a lane's capability over if a candidate from it was refused by a
// quota, and says whether the quota has its caller wait.
func (o overQuota) note(l writ.Lane, err error) (waits, is bool) {
	if !usedUp(err) {
		return false, false
	}
	e := writ.AsError("guard.poll", err)
	_, c, _, _ := l.Split()
	o[c] = time.Now().Add(time.Duration(e.RetryMs) * time.Millisecond)
	return e.Details["action"] == string(writ.QuotaQueue), true
}

// usedUp says whether a call was refused by a quota, and not because its agent works
// on as much as it may.
func usedUp(err error) bool {
	e := writ.AsError("guard.poll", err)
	return e != nil && e.Once != nil && e.Code == writ.CodeQuota
}
