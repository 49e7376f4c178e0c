package guard

import (
	"context"
	"time"

	"github.com/writ-gateway/writ"
)

// What a dispatcher does with tasks that policy refused to an agent: they lie in no
// lane, and others are asked about them first.

// Bounds of what one poll looks at in a list of tasks that were set aside.
const (
	refusedPage  = 64
	refusedPages = 4
)

// refusedToOthers claims the first task that was set aside because policy
// refused it to other agents, and was not refused to this one under the
// policies in force. One such task is judged; the lanes follow. A task that was
// refused only under policies of the past goes back to its lanes on the way, and one
// whose scopes somebody holds does not stand before the others. What
// fails at a task is no answer to the poll, which would fail as long as the task
// is there: the task is passed over for a while, and comes after those that did
// not fail then. Nor is an outage: the lanes tell of it when they hold work. A list
// that a quota keeps from the caller is passed over, all of it: its tasks ask for one
// capability.
func (p *Dispatcher) refusedToOthers(ctx context.Context, call *writ.Call, poll writ.Poll, over overQuota) (writ.Reply, *writ.Receipt, error) {
	var again retry
	for _, list := range poll.Refused {
		if over.passes(string(list)) {
			continue
		}
		after, held := "", 0
		for n := 0; n < refusedPages; n++ {
			page, err := p.page(ctx, call.Caller.Tenant, list, after)
			if err != nil {
				return writ.Reply{}, nil, err
			}
			task, err := p.notRefused(ctx, call.Caller.Tenant, poll, page, &again)
			if err != nil {
				return writ.Reply{}, nil, err
			}
			if task != "" {
				reply, receipt, err := p.setAside(ctx, call, poll, task)
				if writ.CodeOf(err) == writ.CodeScopeConflict {
					p.leaveAlone(call.Caller.Tenant, poll.Agent, string(task))
					if held++; held == maxCandidates {
						break
					}
					n--
					continue // with the same page
				}
				if _, is := over.pass(string(list), err); is {
					break
				}
				return reply, receipt, err
			}
			if len(page) < refusedPage {
				break
			}
			after = page[len(page)-1].Name + "\x00"
		}
	}
	if again.task != "" {
		reply, receipt, err := p.setAside(ctx, call, poll, again.task)
		switch {
		case writ.CodeOf(err) == writ.CodeScopeConflict:
			p.leaveAlone(call.Caller.Tenant, poll.Agent, string(again.task))
		case !usedUp(err):
			return reply, receipt, err
		}
	}
	return writ.Reply{}, nil, nil
}

// retry is the task that failed and has been due again for the longest time, so
// that those that fail take turns.
type retry struct {
	task  writ.TaskID
	since time.Time
}

func (p *Dispatcher) page(ctx context.Context, shard writ.Tenant, list writ.Index, after string) ([]writ.Member, error) {
	r := writ.Range{Index: list, From: after, Limit: refusedPage}
	s, err := p.door.cfg.Store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{r}})
	if err != nil {
		return nil, storeDown("guard.poll", err)
	}
	return s.Ranges[r].Members, nil
}

// notRefused is the first of the tasks that neither the agent nor, if it has claims,
// the session was refused under the policies in force and that did not fail. Of those
// that did it notes the one to try again.
func (p *Dispatcher) notRefused(ctx context.Context, shard writ.Tenant, poll writ.Poll, tasks []writ.Member, again *retry) (writ.TaskID, error) {
	policy, _ := p.door.cfg.Decider.Revisions()
	agent := poll.Agent
	to := func(t, member string) writ.Range {
		return writ.Range{Index: writ.Refusers(writ.TaskID(t)), From: member, To: member + "\x00", Limit: 1}
	}
	mine := func(t string) writ.Range { return to(t, writ.Refuser(agent, policy)) }
	session := func(t string) writ.Range { return to(t, writ.RefuserAs(agent, poll.Claims, policy)) }
	anybody := func(t string) writ.Range {
		return writ.Range{Index: writ.Refusers(writ.TaskID(t)), From: policy + " ", To: policy + "!", Limit: 1} // '!' follows ' '
	}
	var want writ.ReadSet
	for _, t := range tasks {
		want.Ranges = append(want.Ranges, mine(t.Name), anybody(t.Name))
		if poll.Claims != "" {
			want.Ranges = append(want.Ranges, session(t.Name))
		}
	}
	if want.Empty() {
		return "", nil
	}
	s, err := p.door.cfg.Store.Read(ctx, shard, want)
	if err != nil {
		return "", storeDown("guard.poll", err)
	}
	for _, t := range tasks {
		switch {
		case len(s.Ranges[anybody(t.Name)].Members) == 0:
			if until, _ := p.failure(shard, "", t.Name); time.Now().Before(until) {
				continue
			}
			if _, _, err := p.door.System(ctx, shard, "task.reoffer", map[string]any{"task_id": t.Name}, nil); err == nil {
				p.worked(shard, "", t.Name)
			} else if ctx.Err() != nil {
				return "", err
			} else {
				p.passOver(shard, "", t.Name, err)
			}
		case len(s.Ranges[mine(t.Name)].Members)+len(s.Ranges[session(t.Name)].Members) == 0:
			switch since, failed := p.failure(shard, agent, t.Name); {
			case !failed:
				return writ.TaskID(t.Name), nil
			case time.Now().Before(since):
			case again.task == "" || since.Before(again.since):
				*again = retry{writ.TaskID(t.Name), since}
			}
		}
	}
	return "", nil
}

// setAside judges a task that was set aside. Refused again, it stays where it
// is with one more agent noted. A quota that is used up says nothing about the task,
// nor does whoever holds its scopes.
func (p *Dispatcher) setAside(ctx context.Context, poll *writ.Call, about writ.Poll, task writ.TaskID) (writ.Reply, *writ.Receipt, error) {
	call, err := p.callFor(poll, string(task))
	if err != nil {
		return writ.Reply{}, nil, err
	}
	reply, receipt, err := p.do(ctx, call)
	poll.PolicyRevision = call.PolicyRevision
	switch code := writ.CodeOf(err); {
	case err == nil && reply.Outcome == writ.OutcomePending:
		reply, receipt = writ.Reply{}, nil
	case err == nil: // the caller has it, or its answer of before
	case usedUp(err), code == writ.CodeScopeConflict:
		return writ.Reply{}, nil, err
	case code == writ.CodeQuota, code == writ.CodeClaimed, code == writ.CodeNotFound:
		reply, receipt, err = writ.Reply{}, nil, nil
	case refusedForGood(code):
		_, _, err = p.door.System(ctx, poll.Caller.Tenant, "task.refuse", refusal(about, string(task), passes(err)), nil)
		reply, receipt = writ.Reply{}, nil
	case code == writ.CodeUnauthenticated, code == writ.CodeRBAC, code == writ.CodeReceiptPending:
		return writ.Reply{}, nil, err // nothing in the lanes is for who may not claim, or has the task already
	}
	if err == nil {
		p.worked(poll.Caller.Tenant, about.Agent, string(task))
		return reply, receipt, nil
	}
	if ctx.Err() != nil {
		return writ.Reply{}, nil, err
	}
	p.passOver(poll.Caller.Tenant, about.Agent, string(task), err)
	return writ.Reply{}, nil, nil
}

// maxFailed bounds what is known of tasks that are passed over. What was dropped
// is tried once more.
const maxFailed = 10_000

// maybeOutage says whether an error is of a kind that the gateway as a whole, its
// store or its load give. One task may be met by it alone all the same: by what a
// pack says or fails at, by a document that others keep changing, by a store that
// cannot keep what policy wants kept. Nothing at the one task tells which it is.
func maybeOutage(err error) bool { return writ.CodeOf(err).Passes() }

// passOver leaves a task that was set aside alone for a while: for one agent, or,
// when it could not be offered again, for all. It is longer each time, but not for
// what may be an outage: when that ends the task is tried soon.
func (p *Dispatcher) passOver(shard writ.Tenant, agent writ.AgentID, task string, err error) {
	p.mu.Lock()
	now := time.Now()
	p.failed.forget(now)
	if len(p.failed) >= maxFailed {
		clear(p.failed)
	}
	name, brief := failedAt(shard, agent, task), maybeOutage(err)
	_, before := p.failed[name]
	if brief {
		p.failed.putOffBriefly(name, now)
	} else {
		p.failed.putOff(name, now)
	}
	p.mu.Unlock()
	if brief && before {
		return // it was told when it began
	}
	p.door.cfg.Log.Warn("a task that was set aside is passed over; it is tried again later", "task", task, "agent", agent, "error", err)
}

// failure is until when a task is passed over, if it failed when it was last tried.
func (p *Dispatcher) failure(shard writ.Tenant, agent writ.AgentID, task string) (until time.Time, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, failed := p.failed[failedAt(shard, agent, task)]
	return f.until, failed
}

// worked forgets that a task failed.
func (p *Dispatcher) worked(shard writ.Tenant, agent writ.AgentID, task string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.failed, failedAt(shard, agent, task))
}

func failedAt(shard writ.Tenant, agent writ.AgentID, task string) string {
	return string(shard) + " " + string(agent) + " " + task
}
