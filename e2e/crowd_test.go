package e2e

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// One session that sends over hundreds of connections at once, all about one
// document, keeps nobody else from the gateway: operators read, and can suspend
// its agent.
func TestOneSessionDoesNotCrowdOutTheOthers(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("one", nil))
		var stop atomic.Bool
		var refused atomic.Int64
		var crowd sync.WaitGroup
		for range 300 {
			crowd.Go(func() {
				for !stop.Load() {
					if r, err := c.builder.try("POST", "/v1/tasks/"+l.task+"/heartbeat", l.hold(nil)); err == nil && r.status == 429 {
						refused.Add(1)
						if r.header.Get("Retry-After") == "" {
							t.Error("no Retry-After")
						}
						time.Sleep(20 * time.Millisecond) // much sooner than it was asked to
					}
				}
			})
		}
		defer crowd.Wait()
		defer stop.Store(true)
		within(t, 10*time.Second, "there is a crowd", func() bool { return refused.Load() > 300 })
		for range 10 {
			c.op.ok(200, "GET", "/v1/runs/"+c.run, nil)
			c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil)
		}
		c.op.ok(200, "POST", "/v1/agents/builder/suspend", obj{"reason": "misbehaviour"})
	})
}
