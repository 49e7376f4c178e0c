package webhooks

import (
	"context"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// deliver sends notices and says which come off the queue and which go on it
// again. To an endpoint that fails one notice is sent, and those too old to
// wait for it are given up; notices nothing is known of are in neither list.
func (c *Courier) deliver(ctx context.Context, t *target, now int64, due []writ.Notice) (off, on []writ.Notice) {
	batch := due
	switch {
	case t.gone:
	case t.failing:
		batch = due[:1]
	default:
		batch = due[:min(len(due), parallel)]
	}
	answers := c.sendAll(ctx, t, batch)
	for i, n := range batch {
		a := answers[i]
		if a.outcome == "" {
			continue
		}
		off = append(off, n)
		if next, again := c.next(t, n, now, a); again {
			on = append(on, next)
		}
	}
	c.note(t, now, answers)
	if !t.failing || t.gone {
		return off, on
	}
	old := 0
	for _, n := range due[len(batch):] {
		if now-n.At > tooOld.Milliseconds() {
			off, old = append(off, n), old+1
			c.cfg.Observer.Delivery(string(n.Event), outcomeGivenUp)
		}
	}
	if old > 0 {
		c.cfg.Log.Warn("notices are given up: their webhook fails, and they are too old", "endpoint", t.shown, "notices", old)
	}
	return off, on
}

// sendAll sends notices at the same time, or none to an endpoint that is gone.
func (c *Courier) sendAll(ctx context.Context, t *target, batch []writ.Notice) []answer {
	answers := make([]answer, len(batch))
	var wg sync.WaitGroup
	for i, n := range batch {
		if t.gone {
			answers[i] = answer{outcome: outcomeGone, why: "it said 410 Gone"}
			continue
		}
		wg.Go(func() { answers[i] = c.send(ctx, t, n) })
	}
	wg.Wait()
	return answers
}

// send delivers one notice. The zero answer says that nothing is known: the
// store did not answer, or the courier stops.
func (c *Courier) send(ctx context.Context, t *target, n writ.Notice) answer {
	var a writ.Approval
	if n.Approval != "" {
		var ok bool
		var err error
		if a, ok, err = c.cfg.Queue.Approval(ctx, n.Approval); err != nil {
			return answer{}
		} else if !ok {
			return answer{outcome: outcomeGivenUp, why: "the approval it is about is not there"}
		}
	}
	b, err := body(n, a, c.cfg.Public)
	if err != nil {
		return answer{outcome: outcomeGivenUp, why: err.Error()}
	}
	got := c.sender.send(ctx, t.Endpoint, n.ID(), b)
	if got.outcome != outcomeDelivered && ctx.Err() != nil {
		return answer{}
	}
	return got
}

// next is the notice as it is tried again; again is false when it is done with.
func (c *Courier) next(t *target, n writ.Notice, now int64, a answer) (next writ.Notice, again bool) {
	next = n
	next.Tries++
	if a.outcome != outcomeDelivered && next.Tries >= maxTries {
		a.outcome = outcomeGivenUp
	}
	c.cfg.Observer.Delivery(string(n.Event), a.outcome)
	log := c.cfg.Log.With("endpoint", t.shown, "notice", n.ID(), "tries", next.Tries)
	switch a.outcome {
	case outcomeDelivered:
		log.Debug("notice delivered")
		return next, false
	case outcomeGivenUp:
		log.Warn("a notice is given up", "error", a.why)
		return next, false
	}
	next.Due = now + max(wait(next.Tries, c.cfg.Spread()), a.after).Milliseconds()
	log.Debug("notice not delivered", "error", a.why, "again", writ.FormatTime(next.Due))
	return next, true
}

// note draws from a batch what it says of the endpoint, and logs a change of it.
func (c *Courier) note(t *target, now int64, answers []answer) {
	was, why := t.failing, ""
	var after time.Duration
	for _, a := range answers {
		switch a.outcome {
		case outcomeDelivered:
			t.failing = t.failing && why != "" // one failure of the batch is enough
		case outcomeFailed:
			t.failing, why, after = true, a.why, max(after, a.after)
		case outcomeGone:
			if !t.gone {
				c.cfg.Log.Error("a webhook endpoint said 410 Gone and is not asked again before a restart; "+
					"take it out of the configuration, or restart when it is back", "endpoint", t.shown)
			}
			t.gone = true
		}
	}
	t.rest = now + after.Milliseconds()
	switch {
	case t.failing && !was:
		c.cfg.Log.Warn("a webhook endpoint does not take notices; they are tried again", "endpoint", t.shown, "error", why)
	case was && !t.failing:
		c.cfg.Log.Info("a webhook endpoint takes notices again", "endpoint", t.shown)
	}
}
