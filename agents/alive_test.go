package agents

import (
	"testing"

	"github.com/writ-gateway/writ"
)

func TestAliveRenewsAsAHeartbeatDoes(t *testing.T) {
	r := newRoom(t)
	o, by := r.opened(30)
	renew := func() (writ.Tx, int64) {
		t.Helper()
		var tx writ.Tx
		every, err := Alive{}.Renew(o.SessionID, r.Snapshot(Alive{}.Reads(o.SessionID)), &tx)
		if err != nil {
			t.Fatal(err)
		}
		return tx, every
	}
	if tx, every := renew(); !tx.Empty() || every != 0 {
		t.Fatalf("a session that was not started was renewed: %+v, every %d", tx, every)
	}
	r.must("session.start", by, &SessionStartArgs{SessionID: o.SessionID})
	if tx, every := renew(); !tx.Empty() || every != 10_000 {
		t.Fatalf("renewed at once: %+v, every %d", tx, every)
	}
	r.Advance(20)
	tx, _ := renew()
	if err := r.Apply(tx); err != nil {
		t.Fatal(err)
	}
	alarm := r.Index(writ.IndexBeats)[string(o.SessionID)]
	if end := r.Now + 30_000; r.Counter(beatOf(o.SessionID)) != end || alarm != end || tx.Fact != nil {
		t.Fatalf("counter %d, alarm %d, want %d", r.Counter(beatOf(o.SessionID)), alarm, end)
	}
	late, _ := renew()
	r.Advance(31)
	stale, _ := renew()
	r.must("session.lapse", r.System(), &SessionLapseArgs{SessionID: o.SessionID})
	if err := r.Apply(stale); err == nil {
		t.Fatal("a renewal that was planned before the session lapsed was committed")
	}
	if !late.Empty() {
		t.Fatal("two calls in one second both renew")
	}
	if tx, every := renew(); !tx.Empty() || every != 0 {
		t.Fatalf("a suspended session was renewed: %+v, every %d", tx, every)
	}
}
