package guard

import (
	"context"
	"time"

	"github.com/writ-gateway/writ"
)

// A task on a scope that a session claims lies in no lane once somebody else has met
// it: it waits for that session. The session may take it and must be offered it, or
// nobody would until it ends.

// waitingPage is how many of the tasks that wait for a session a poll of it looks at.
const waitingPage = 16

// waitingForMe claims the most urgent task that waits for what the caller's session
// claims. One is judged; the lanes follow. What cannot be claimed now waits on and is
// left alone for a moment, so that others have their turn.
func (p *Dispatcher) waitingForMe(ctx context.Context, call *writ.Call, poll writ.Poll, over overQuota) (writ.Reply, *writ.Receipt, error) {
	if poll.Claims == "" {
		return writ.Reply{}, nil, nil
	}
	shard, r := call.Caller.Tenant, writ.Range{Index: writ.WaitingOn(poll.Claims), ByScore: true, Max: 9, Limit: waitingPage}
	s, err := p.door.cfg.Store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{r}})
	if err != nil {
		return writ.Reply{}, nil, storeDown("guard.poll", err)
	}
	who := writ.AgentID(poll.Claims) // for whom it failed: it may not for another session of its agent
	for _, m := range s.Ranges[r].Members {
		id, lane, _ := writ.SplitWaiter(m.Name)
		task := string(id)
		if until, _ := p.failure(shard, who, task); !poll.Lanes(lane) || time.Now().Before(until) {
			continue
		}
		mine, err := p.callFor(call, task)
		if err != nil {
			return writ.Reply{}, nil, err
		}
		reply, receipt, err := p.do(ctx, mine)
		call.PolicyRevision = mine.PolicyRevision
		switch code := writ.CodeOf(err); {
		case err == nil && reply.Outcome != writ.OutcomePending: // it has it, or its answer of before
			p.worked(shard, who, task)
			return reply, receipt, nil
		case code == writ.CodeUnauthenticated, code == writ.CodeRBAC, code == writ.CodeReceiptPending:
			return writ.Reply{}, nil, err // nothing is for who may not claim, or has the task already
		case ctx.Err() != nil:
			return writ.Reply{}, nil, err
		}
		over.note(lane, err)
		p.leaveAlone(shard, who, task)
		return writ.Reply{}, nil, nil
	}
	return writ.Reply{}, nil, nil
}

// leaveAlone passes a task over for a moment.
func (p *Dispatcher) leaveAlone(shard writ.Tenant, who writ.AgentID, task string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.failed.forget(now)
	if len(p.failed) >= maxFailed {
		clear(p.failed)
	}
	p.failed.putOffBriefly(failedAt(shard, who, task), now)
}
