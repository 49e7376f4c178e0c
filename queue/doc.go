// Package queue plans everything that happens to a task: enqueue, claim,
// heartbeat, complete, fail, release, cancel, and what the sweeper carries out
// when a lease, a wait or a session ends. It is pure: it holds no store, no
// clock and no session; from a snapshot and a call it plans a transaction.
//
// It is not a scheduler and not a policy: which waiting session gets which
// lane entry is the dispatcher's choice, and whether a call is acceptable is
// decided by the packs.
//
// The invariants it keeps in every commit:
//   - a task is running exactly when it has a lease, is in the index of leases,
//     is held by one session and counts once against its agent's quota;
//   - no two running tasks hold overlapping write scopes;
//   - no task runs where another session claims to write, unless its own session
//     and that one share the claim;
//   - a queued task lies in a lane, waits in the backlog of its run, for a time, for
//     the scopes of a running task or of a live session, or is on the list of refused tasks;
//   - while a run that is active has a backlog in a lane, some of its tasks are offered
//     there or a follow-up is due that fetches from it;
//   - a blocked task is on the list of every task it waits for, and counts
//     them; it leaves blocked in the commit that ends the last of them, or by
//     a follow-up that commit leaves;
//   - a result that must be accepted ends its task only by the verdict of
//     somebody who had no part in the run;
//   - a run counts its tasks that have not ended, and the task that brings the
//     count of a sealed run to zero ends the run in the same commit.
package queue

import "github.com/writ-gateway/writ"

// Config is what the room needs from outside.
type Config struct {
	// MinLeaseSeconds is the shortest lease a task may ask for. 0 means 10.
	MinLeaseSeconds int64
	// Validate checks the arguments of a task against a JSON Schema an agent
	// declared. It returns an *writ.Error with CodeInputInvalid that never
	// echoes a value. It must be pure. nil accepts every object.
	Validate func(schema, args writ.RawObject) error
	// CheckSchema says whether a JSON Schema can be held to. It must be pure. nil
	// takes every schema.
	CheckSchema func(schema writ.RawObject) error
	// KeepArtifactsMs is how long the bytes of artifacts are kept after they were
	// put, and for as long as their run has not ended. 0 means 30 days.
	KeepArtifactsMs int64
	// Alive lets claims, waiting ones included, and task heartbeats count as
	// heartbeats of the session that makes them. nil lets them not.
	Alive Alive
	// Router finds agents by words, for agent.delegate. nil finds none.
	Router Router
	// Health judges agents before work is given to them. nil finds them healthy.
	Health Health
	// Verdicts checks what verifiers sign. nil: no verdict that is signed, or must
	// be, counts.
	Verdicts writ.Verdicts
	// Followers say what follows from the documents of other rooms, for
	// queue.repair.
	Followers []writ.Follower
}

// Alive renews the heartbeat of a session. It must be pure.
type Alive interface {
	// Reads names what Renew must see.
	Reads(writ.SessionID) writ.ReadSet
	// Renew adds the renewal to a transaction and says how often that should
	// happen while the caller waits, in milliseconds; 0: never.
	Renew(writ.SessionID, writ.Snapshot, *writ.Tx) (everyMs int64, err error)
}

// notAlive renews nothing.
type notAlive struct{}

func (notAlive) Reads(writ.SessionID) writ.ReadSet                            { return writ.ReadSet{} }
func (notAlive) Renew(writ.SessionID, writ.Snapshot, *writ.Tx) (int64, error) { return 0, nil }

// nobody is for anything.
type nobody struct{}

func (nobody) Reads(string, writ.Snapshot) writ.ReadSet    { return writ.ReadSet{} }
func (nobody) Route(string, writ.Snapshot) (Routed, error) { return Routed{}, nil }

// aliveReads adds what a renewal must see, once the caller is known.
func aliveReads(alive Alive, c *writ.Call, rs *writ.ReadSet) {
	if c.Caller.Session != "" {
		more := alive.Reads(c.Caller.Session)
		rs.Docs = append(rs.Docs, more.Docs...)
		rs.Counters = append(rs.Counters, more.Counters...)
	}
}

func (c Config) withDefaults() Config {
	if c.MinLeaseSeconds <= 0 {
		c.MinLeaseSeconds = 10
	}
	if c.KeepArtifactsMs <= 0 {
		c.KeepArtifactsMs = 30 * 24 * 3600 * 1000
	}
	if c.CheckSchema == nil {
		c.CheckSchema = func(writ.RawObject) error { return nil }
	}
	if c.Validate == nil {
		c.Validate = func(writ.RawObject, writ.RawObject) error { return nil }
	}
	if c.Router == nil {
		c.Router = nobody{}
	}
	if c.Alive == nil {
		c.Alive = notAlive{}
	}
	if c.Health == nil {
		c.Health = anyHealth{}
	}
	return c
}

// Limits of tasks.
const (
	MaxArgsBytes = 48 << 10                 // arguments or result, as stored
	MaxTaskBytes = writ.MaxDocBytes - 8<<10 // new task as stored: lease, failure, labels and digests fit into the rest
	MaxScopes    = 16                       // write scopes of one task; with their ancestors at most writ.MaxScopeRanges

	defaultPriority     = 5
	defaultLeaseSeconds = 60
	defaultMaxAttempts  = 3
	defaultBackoffMs    = 1000
	maxBackoffMs        = 10 * 60 * 1000
	maxDelayMs          = 366 * 24 * 3600 * 1000
	maxLeaseMs          = 30 * 60 * 1000 // no heartbeat extends a lease past this
)

// Capabilities are the verbs of the room.
func Capabilities(cfg Config) []*writ.Capability {
	cfg = cfg.withDefaults()
	return []*writ.Capability{
		enqueueCapability(cfg), claimCapability(cfg), heartbeatCapability(cfg), completeCapability(), failCapability(),
		releaseCapability(), cancelCapability(), getCapability(cfg), listCapability(),
		expireCapability(), readyCapability(), wakeCapability(), reapCapability(), cleanupCapability(),
		artifactPutCapability(cfg), artifactGetCapability(), artifactContentCapability(), artifactListCapability(), artifactPurgeCapability(cfg), artifactAttachCapability(),
		refuseCapability(), reofferCapability(), offerCapability(), refillCapability(), unblockCapability(), recallCapability(), handoffCapability(cfg), reviveCapability(cfg), delegateCapability(cfg), unreserveCapability(), admitCapability(), outrunCapability(), overdueCapability(), untangleCapability(), stallCapability(), verifyCapability(cfg), scopesCapability(), repairCapability(NewChecker(cfg.Followers)),
	}
}
