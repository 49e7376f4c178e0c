package client

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// keeperRests is how long calls let a keeper be that has failed.
const keeperRests = 5 * time.Second

// ErrNotKept is in what KeepLog and CheckLog give where the LogKeeper fails.
var ErrNotKept = errors.New("what was seen of the log cannot be kept, and is forgotten when this program ends")

// LogKeeper keeps what was seen of one gateway's log, for every client that holds it to
// that. Where it fails calls go on, and KeepLog and CheckLog say so.
type LogKeeper interface {
	// Load gives what is kept, the zero value where nothing is. What cannot be read, or is
	// not Valid, MUST be an error: New gives it.
	Load() (LogSeen, error)
	// Update puts in the place of what is kept what change makes of it. Nobody else MUST
	// change it meanwhile, and what is there when this ends early MUST be all of the one
	// or all of the other. A call waits for it, so where others have it for long it MUST
	// give up when ctx ends; that is tried again.
	Update(ctx context.Context, change func(kept LogSeen) LogSeen) error
}

// KeepLog has kept what was seen of the log and is not kept yet, and says why it cannot be.
// Calls do so at their end, and answer the same where it fails: a program that makes no
// more of them asks here, so that nothing it was shown is forgotten unsaid.
func (c *Client) KeepLog(ctx context.Context) error { return c.update(ctx, false) }

// keep has kept what is new, unless another call is at it: that one goes on with what came
// meanwhile, as long as it has time. What is left the next call takes, or KeepLog.
func (c *Client) keep(ctx context.Context) {
	ctx, cancel := aside(ctx)
	defer cancel()
	for ctx.Err() == nil {
		c.logMu.Lock()
		wanted := c.log.news && !time.Now().Before(c.log.rests)
		c.logMu.Unlock()
		if !wanted || !c.keeping.TryLock() {
			return
		}
		_ = c.save(ctx)
		c.keeping.Unlock()
	}
}

// update has kept what is new, now, and always looks what others saw where that is asked for.
func (c *Client) update(ctx context.Context, always bool) error {
	c.keeping.Lock()
	defer c.keeping.Unlock()
	c.logMu.Lock()
	news := c.log.news
	c.logMu.Unlock()
	if !news && !always {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, asideTime)
	defer cancel()
	return c.save(ctx)
}

// save has kept what was seen, and takes over what other clients saw. The caller holds
// keeping, and not the lock: calls go on meanwhile.
func (c *Client) save(ctx context.Context) error {
	c.logMu.Lock()
	seen, base, room := c.log.seen, c.log.kept, mostUnproven
	if c.log.found != nil {
		room = mostUnkept // the evidence, too
	}
	c.log.news = false
	c.logMu.Unlock()
	if c.cfg.Log.Keep == nil {
		return nil
	}
	all := seen
	err := c.cfg.Log.Keep.Update(ctx, func(kept LogSeen) LogSeen {
		all = seen.merge(base, kept, room)
		return all
	})
	c.logMu.Lock()
	defer c.logMu.Unlock()
	if err != nil {
		c.log.news, c.log.rests = true, time.Now().Add(keeperRests)
		return fmt.Errorf("%w: %w", ErrNotKept, err)
	}
	c.log.seen, c.log.kept = c.log.seen.merge(seen, all, mostUnkept), all // more was seen since
	return nil
}
