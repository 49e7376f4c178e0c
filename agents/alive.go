package agents

import "github.com/writ-gateway/writ"

// Alive lets verbs of other rooms count as heartbeats of the session that calls
// them: who works on a task is not silent.
type Alive struct{}

// renewedLately is how much of a heartbeat may be missing before another call
// renews it again, in milliseconds: calls that follow each other closely do not
// contend for one counter.
const renewedLately = 1000

// Reads names what Renew must see.
func (Alive) Reads(id writ.SessionID) writ.ReadSet { return readSession(id) }

// Renew adds the renewal of a session's heartbeat to a transaction and says how
// often that should happen while the caller waits, in milliseconds; 0 when no
// heartbeats are due. Only an active session is renewed: to come back from
// suspension is a move of its own.
func (Alive) Renew(id writ.SessionID, s writ.Snapshot, tx *writ.Tx) (everyMs int64, err error) {
	ses, _, ok, err := writ.Get[writ.Session](s, writ.SessionKey(id))
	if err != nil || !ok || ses.State != writ.SessionActive || ses.TTLSeconds == 0 {
		return 0, err
	}
	ttl := ses.TTLSeconds * 1000
	if beat := s.Now + ttl; beat-s.Counters[beatOf(id)] >= renewedLately {
		setBeat(tx, s, id, beat)
	}
	return ttl / 3, nil
}
