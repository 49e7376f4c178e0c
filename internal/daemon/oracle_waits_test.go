package daemon

import (
	"time"

	"github.com/writ-gateway/writ"
)

// waits says whether a call that was made is one that people are asked about, now or since
// it was made before.
func waits(err error, status string) bool {
	return err == nil && status == "approval_required" || writ.CodeOf(err) == writ.CodeApprovalRequired
}

// silence has the caller give no sign of life for as long as a session may without, which
// is put behind it, until its session is suspended.
func (c *caller) silence() {
	id := writ.SessionKey(writ.SessionID(c.ses))
	beat := writ.Counter{Entity: string(id), Field: "beat"}
	s := readOf(c.t, c.at, writ.ReadSet{Docs: []writ.Key{id}, Counters: []writ.Counter{beat}})
	ses, version, _, err := writ.Get[writ.Session](s, id)
	due := s.Counters[beat]
	if err != nil || ses.State != writ.SessionActive || due <= s.Now {
		return
	}
	call := writ.Call{}
	if err := c.at.door.Stamp(&call); err != nil {
		c.t.Error(err)
		return
	}
	tx := writ.Tx{Call: call.ID}
	tx.Expect(id, version)
	tx.Within(beat, due, due)
	tx.Add(beat, s.Now-1-due)
	tx.Index(writ.IndexBeats, c.ses, s.Now-1)
	if _, err := c.at.store.Commit(c.t.Context(), shard, tx); err != nil {
		return // it has ended meanwhile
	}
	for range 40 {
		if docOf[writ.Session](c.t, c.at, id).State != writ.SessionActive {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// comeBack goes on with the caller's session where it was only silent, and else with
// another one.
func (c *caller) comeBack() {
	if c.do("session.heartbeat", map[string]any{"session_id": c.ses}, nil) == nil {
		return
	}
	_ = c.enter(map[string]any{"principal": c.agent, "kind": "agent", "role": "executor", "agent_id": c.agent, "heartbeat_ttl_s": 300})
}

// replaceTight makes another run whose steps are soon used up: the one of before may have
// been given no more.
func (c *caller) replaceTight() {
	var run struct {
		ID writ.RunID `json:"run_id"`
	}
	if err := c.do("run.create", map[string]any{"budget": map[string]any{"steps": 10}}, &run); err != nil {
		c.t.Error(err)
		return
	}
	c.runs = append(c.runs, c.runs[2])
	c.runs[2] = run.ID
}
