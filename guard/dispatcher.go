package guard

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Dispatcher hands lane entries to callers that wait for work. It is a Door
// for its callers: a call whose reply is a Poll is answered with the first
// candidate the door admits, every other call passes through. A candidate is
// judged by a call of its own, so nothing is handed out that policy did not
// see.
type Dispatcher struct {
	door     *Door
	consumer string // this replica, in the store's lanes
	wait     time.Duration
	prober   Prober // nil: nobody is looked at

	mu      sync.Mutex
	polls   map[writ.SessionID]bool
	waiters map[writ.Tenant]map[*waiter]bool
	failed  failures // tasks that were set aside and could not be judged or offered again
	closing bool

	turns turns
	now   func() time.Time // how long lanes wait

	cancel context.CancelFunc
	done   sync.WaitGroup
}

type waiter struct {
	match func(writ.Lane) bool
	ring  chan struct{}
}

// What one poll may judge before it answers that there is nothing, and how many
// entries that are no longer true it may drop in one go.
const (
	maxCandidates = 8
	maxEntries    = 64
)

// NewDispatcher makes a Dispatcher; consumer names this replica and must be
// unique among the replicas of a store.
func NewDispatcher(d *Door, consumer string) *Dispatcher {
	return &Dispatcher{
		door: d, consumer: consumer, wait: 2 * time.Second,
		polls: map[writ.SessionID]bool{}, waiters: map[writ.Tenant]map[*waiter]bool{},
		failed: failures{}, now: time.Now,
	}
}

// Start listens for pushes in the given shards until Stop.
func (p *Dispatcher) Start(shards ...writ.Tenant) {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	for _, shard := range shards {
		p.done.Go(func() { p.listen(ctx, shard) })
	}
}

// Stop ends every poll (they answer that there is nothing) and the listeners.
func (p *Dispatcher) Stop() {
	p.mu.Lock()
	p.closing = true
	for _, ws := range p.waiters {
		for w := range ws {
			ring(w)
		}
	}
	p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
	}
	p.done.Wait()
}

func (p *Dispatcher) listen(ctx context.Context, shard writ.Tenant) {
	cursor := ""
	var trouble Trouble
	for ctx.Err() == nil {
		next, lanes, err := p.door.cfg.Store.Wake(ctx, shard, cursor, p.wait)
		if ctx.Err() == nil {
			trouble.Note(p.door.cfg.Log, err, "the store does not tell of new work; trying until it does", "the store tells of new work again")
		}
		if err != nil {
			if ctx.Err() == nil {
				pause(ctx, 500*time.Millisecond)
			}
			continue
		}
		cursor = next
		p.mu.Lock()
		for w := range p.waiters[shard] {
			// A waiter is also rung when nothing was pushed for a while: a
			// refused task may have become available to it.
			if len(lanes) == 0 || slices.ContainsFunc(lanes, w.match) {
				ring(w)
			}
		}
		p.mu.Unlock()
	}
}

func ring(w *waiter) {
	select {
	case w.ring <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Do answers a call; see Dispatcher.
func (p *Dispatcher) Do(ctx context.Context, call *writ.Call) (writ.Reply, *writ.Receipt, error) {
	reply, receipt, err := p.answer(ctx, call)
	if err != nil {
		return reply, receipt, err
	}
	reply, err = p.door.logged(ctx, call, reply, receipt)
	return reply, receipt, err
}

// answer makes a call, and waits for work where it asks for that.
func (p *Dispatcher) answer(ctx context.Context, call *writ.Call) (writ.Reply, *writ.Receipt, error) {
	reply, receipt, err := p.do(ctx, call)
	if err != nil || reply.Poll == nil {
		return reply, receipt, err
	}
	if err := p.enter(call.Caller.Session); err != nil {
		return writ.Reply{}, nil, err
	}
	defer p.leave(call.Caller.Session)
	limited := reply.Limited
	if reply, receipt, err = p.poll(ctx, call, *reply.Poll); receipt == nil {
		reply.Limited = limited // how long it waited
	}
	return reply, receipt, err
}

// enter admits one poll per session.
func (p *Dispatcher) enter(s writ.SessionID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return &writ.Error{Code: writ.CodeNotReady, Op: "guard.poll", RetryMs: 1000, Msg: "the gateway is stopping", Hint: "repeat the call"}
	}
	if p.polls[s] {
		return &writ.Error{
			Code: writ.CodeBackpressure, Op: "guard.poll", RetryMs: 1000,
			Msg: "this session is polling already", Hint: "wait for the first poll's answer",
		}
	}
	p.polls[s] = true
	return nil
}

func (p *Dispatcher) leave(s writ.SessionID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.polls, s)
}

func (p *Dispatcher) poll(ctx context.Context, call *writ.Call, poll writ.Poll) (writ.Reply, *writ.Receipt, error) {
	shard := call.Caller.Tenant
	w := &waiter{match: poll.Lanes, ring: make(chan struct{}, 1)}
	p.mu.Lock()
	if p.waiters[shard] == nil {
		p.waiters[shard] = map[*waiter]bool{}
	}
	p.waiters[shard][w] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiters[shard], w)
		p.mu.Unlock()
	}()

	ctx, cancel := withLooks(ctx, poll.WaitMs)
	defer cancel()
	nothing := writ.Reply{Outcome: writ.OutcomeEmpty}
	deadline := time.NewTimer(time.Duration(poll.WaitMs) * time.Millisecond)
	defer deadline.Stop()
	var again <-chan time.Time
	if poll.AgainMs > 0 && poll.AgainMs < poll.WaitMs {
		t := time.NewTicker(time.Duration(poll.AgainMs) * time.Millisecond)
		defer t.Stop()
		again = t.C
	}
	over := overQuota{}
	poll.Lanes = over.except(poll.Lanes)
	judged := 0
	for {
		reply, receipt, n, err := p.offer(ctx, call, poll, over, maxCandidates-judged)
		if err != nil || receipt != nil {
			return reply, receipt, err
		}
		if judged += n; judged >= maxCandidates {
			return nothing, nil, nil
		}
		p.mu.Lock()
		closing := p.closing
		p.mu.Unlock()
		if closing {
			return nothing, nil, nil
		}
		select {
		case <-w.ring:
		case <-again:
			if reply, receipt, err := p.still(ctx, call); err != nil || receipt != nil {
				return reply, receipt, err
			}
		case <-deadline.C:
			if poll.WaitMs > 0 {
				if reply, receipt, err := p.still(ctx, call); err != nil || receipt != nil {
					return reply, receipt, err
				}
			}
			return nothing, nil, nil
		case <-ctx.Done():
			return nothing, nil, nil
		}
	}
}

// still makes a waiting call again. It fails when the caller may not wait any
// more: its session has ended or was suspended, its role or agent has changed.
// Passing trouble is no reason to stop waiting. A receipt means that the call
// was answered meanwhile, under its key.
func (p *Dispatcher) still(ctx context.Context, poll *writ.Call) (writ.Reply, *writ.Receipt, error) {
	call := &writ.Call{
		Capability: poll.Capability, Via: poll.Via, Credential: poll.Credential, IdempotencyKey: poll.IdempotencyKey,
		Raw: poll.Raw, Digest: poll.Digest, Cosignature: poll.Cosignature,
	}
	if err := p.door.Stamp(call); err != nil {
		return writ.Reply{}, nil, err
	}
	reply, receipt, err := p.do(ctx, call)
	if err == nil || writ.CodeOf(err) == writ.CodeUnauthenticated || writ.CodeOf(err) == writ.CodeRBAC || refusedForGood(writ.CodeOf(err)) || usedUp(err) {
		return reply, receipt, err
	}
	return writ.Reply{}, nil, nil
}

// offer tries what lies in the caller's lanes now, at most n candidates that
// are refused. A non-nil receipt means the caller has a task. What is over a quota
// is passed over; if that was all there is, the quota says whether the caller is
// refused or waits.
func (p *Dispatcher) offer(ctx context.Context, call *writ.Call, poll writ.Poll, over overQuota, n int) (writ.Reply, *writ.Receipt, int, error) {
	shard, st := call.Caller.Tenant, p.door.cfg.Store
	judged := 0
	var full error
	reply, receipt, err := p.waitingForMe(ctx, call, poll, over)
	if err != nil || receipt != nil {
		return reply, receipt, judged, err
	}
	reply, receipt, err = p.refusedToOthers(ctx, call, poll, over)
	if err != nil || receipt != nil {
		return reply, receipt, judged, err
	}
	stale := map[writ.Lane]int{}
	for met := 0; judged < n && met < maxEntries && ctx.Err() == nil; met++ {
		lanes, err := p.lanes(ctx, shard, poll, met < agedLooks, stale)
		if err != nil {
			return writ.Reply{}, nil, judged, storeDown("guard.poll", err)
		}
		if len(lanes) == 0 {
			return writ.Reply{}, nil, judged, full
		}
		got, err := st.Receive(ctx, shard, lanes, p.consumer, 1)
		if err != nil {
			return writ.Reply{}, nil, judged, storeDown("guard.poll", err)
		}
		if len(got) == 0 {
			return writ.Reply{}, nil, judged, full
		}
		since := p.turns.had(shard, got[0].Lane, p.now())
		reply, receipt, refused, err := p.candidate(ctx, call, poll, got[0])
		if waits, is := over.note(got[0].Lane, err); is {
			p.turns.not(shard, got[0].Lane, since) // others may have it
			if !waits {
				full = err
			}
			continue
		}
		if err != nil {
			p.turns.not(shard, got[0].Lane, since) // it lies there again
		}
		if err != nil || receipt != nil {
			return reply, receipt, judged, err
		}
		if refused {
			judged++
		} else { // it was dropped, or waits elsewhere
			p.turns.not(shard, got[0].Lane, since)
			stale[got[0].Lane]++
		}
	}
	return writ.Reply{}, nil, judged, full
}

// lanes are the caller's lanes with entries, highest priority first. aged: what waited
// has risen. Those that gave this poll little but stale entries come last.
func (p *Dispatcher) lanes(ctx context.Context, shard writ.Tenant, poll writ.Poll, aged bool, stale map[writ.Lane]int) ([]writ.Lane, error) {
	counts, err := p.door.cfg.Store.Lanes(ctx, shard)
	if err != nil {
		return nil, err
	}
	now := p.now()
	since := p.turns.waiting(shard, counts, now)
	var lanes []writ.Lane
	for _, c := range counts {
		if c.Count > 0 && poll.Lanes(c.Lane) {
			lanes = append(lanes, c.Lane)
		}
	}
	if aged {
		byTurn(lanes, since, now)
	} else {
		slices.SortFunc(lanes, byPriority)
	}
	slices.SortStableFunc(lanes, func(a, b writ.Lane) int { return cmp.Compare(stale[a]/maxStale, stale[b]/maxStale) })
	return lanes, nil
}

// candidate judges one entry for the caller. The entry is acknowledged by
// whatever is committed for it, or given back.
func (p *Dispatcher) candidate(ctx context.Context, poll *writ.Call, about writ.Poll, entry writ.Delivery) (writ.Reply, *writ.Receipt, bool, error) {
	back := func() {
		// Not with the caller's context: it may have left.
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := p.door.cfg.Store.GiveBack(c, poll.Caller.Tenant, p.consumer, entry); err != nil {
			p.door.cfg.Log.Warn("an entry was not given back; it is reclaimed later", slog.Any("error", err))
		}
	}
	call, err := p.callFor(poll, entry.Entry)
	if err != nil {
		back()
		return writ.Reply{}, nil, false, err
	}
	call.Entry = &entry
	reply, receipt, err := p.do(ctx, call)
	poll.PolicyRevision = call.PolicyRevision
	switch {
	case err == nil && reply.Outcome == writ.OutcomePending && receipt != nil:
		return writ.Reply{}, nil, true, nil // people were asked, and the task waits for them
	case err == nil && reply.Outcome == writ.OutcomePending: // they were asked for more than this task
		return writ.Reply{}, nil, true, p.setBack(ctx, poll, about, entry, 0, back)
	case err == nil:
		if reply.Replayed || receipt == nil && reply.Outcome != writ.OutcomeEmpty {
			back() // answered without a commit: nothing acknowledged the entry
		}
		return reply, receipt, false, nil
	case refusedForGood(writ.CodeOf(err)):
		return writ.Reply{}, nil, true, p.setBack(ctx, poll, about, entry, passes(err), back)
	default:
		back()
		return writ.Reply{}, nil, false, err
	}
}

// setBack sets a task aside that this agent does not get as things stand, so that
// it does not stand before the others. again says when what is in the way may
// have passed, in milliseconds; 0: not by itself.
func (p *Dispatcher) setBack(ctx context.Context, poll *writ.Call, about writ.Poll, entry writ.Delivery, again int64, back func()) error {
	refuse := refusal(about, entry.Entry, again)
	refuse["lane"] = entry.Lane
	if _, _, err := p.door.System(ctx, poll.Caller.Tenant, "task.refuse", refuse, &entry); err != nil {
		back()
		return err
	}
	p.ringOthers(poll.Caller.Tenant, entry.Lane)
	return nil
}

// refusal says that policy refused a task to the agent of a poll, or to its session
// alone: what a session with claims may not take, others of its agent may.
func refusal(about writ.Poll, task string, again int64) map[string]any {
	args := map[string]any{"task_id": task, "agent_id": about.Agent, "again_ms": again}
	if about.Claims != "" {
		args["session_id"] = about.Claims
	}
	return args
}

// passes is when to offer a task again that was refused for a reason that passes
// by itself, in milliseconds; 0 for any other.
func passes(err error) int64 {
	if e := writ.AsError("", err); e != nil && e.Code == writ.CodePreflight {
		return min(max(e.RetryMs, 1000), 3_600_000)
	}
	return 0
}

// refusedForGood says whether this agent will not get this task as things
// stand, so that others should be asked.
func refusedForGood(c writ.Code) bool {
	switch c {
	case writ.CodePolicy, writ.CodeScope, writ.CodeBudget, writ.CodeClassification, writ.CodeEgress, writ.CodeSoD, writ.CodeApprovalDenied, writ.CodeApprovalRequired, writ.CodeNotEligible, writ.CodeIllegal, writ.CodePaused, writ.CodePreflight:
		return true
	}
	return false
}

// ringOthers wakes who waits at a lane: a task from it was refused to one agent
// and waits where the others look first.
func (p *Dispatcher) ringOthers(shard writ.Tenant, lane writ.Lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.waiters[shard] {
		if w.match(lane) {
			ring(w)
		}
	}
}

// callFor is a poll's call for one task.
func (p *Dispatcher) callFor(poll *writ.Call, task string) (*writ.Call, error) {
	raw, err := forTask(poll.Args, task)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, "guard.callFor", err)
	}
	call := &writ.Call{
		Capability: poll.Capability, Via: poll.Via, Credential: poll.Credential, IdempotencyKey: poll.IdempotencyKey,
		Raw: raw, Digest: poll.Digest, Cosignature: poll.Cosignature, Sent: append(json.RawMessage{}, poll.Raw...),
	}
	return call, p.door.Stamp(call)
}

// forTask is a poll's arguments for one task.
func forTask(args any, task string) ([]byte, error) {
	b, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	m["task_id"] = task
	return json.Marshal(m)
}
