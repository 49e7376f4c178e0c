// Package store is the seam between the gateway and what keeps its state: a
// shard of documents, counters, indexes, lanes and an outbox of facts that one
// atomic commit changes. It knows operations and never the domain. Package
// boltstore is the embedded host, redisstore the one that scales out; storetest
// holds both to what is written here.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/writ-gateway/writ"
)

// Store is one host. All methods are safe for concurrent use. Names of shards
// are checked tenants.
type Store interface {
	// Read returns everything the set names as one consistent snapshot, with
	// the store's clock and the shard's epoch. Absent documents come back as
	// the zero Doc, absent counters as 0, absent indexes as no members. An
	// empty set gives clock and epoch. rs.Archive MUST be ignored.
	Read(ctx context.Context, shard writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error)

	// Commit checks every guard and then applies every operation in order, or
	// does nothing. It MUST:
	//   - return the first result again when tx.Call was committed within the
	//     last ten minutes, whatever the rest of tx says;
	//   - number facts 0, 1, 2, … without a gap and give documents the version
	//     seq + 1; give At = max(previous At, its clock). tx.Before has the number
	//     before tx.Fact's, which is the one that counts;
	//   - refuse with *Conflict naming the first guard that fails, with
	//     *Limit when an AddUpTo would pass its limit, with ErrFenced when the
	//     epoch guard fails; nothing is changed then;
	//   - have stored change and fact durably, as its Durability says, when it
	//     returns nil;
	//   - change the version of a versioned index whenever a member or score
	//     changes, to a value it never had; an empty index has version 0.
	// Two operations of one transaction may touch the same name: they apply in
	// order. An error other than these leaves the outcome unknown: the caller
	// may repeat the same tx under the same call id.
	Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error)

	// Lanes lists the lanes that hold entries nobody has received, with their
	// number. The counts are exact when no Receive is under way.
	Lanes(ctx context.Context, shard writ.Tenant) ([]writ.LaneCount, error)
	// Receive takes up to n entries from the first of lanes that has any,
	// oldest first, without waiting. An entry stays with the consumer until a
	// commit acks it, GiveBack returns it, or Reclaim finds it abandoned: no
	// two consumers hold one entry.
	Receive(ctx context.Context, shard writ.Tenant, lanes []writ.Lane, consumer string, n int) ([]writ.Delivery, error)
	// GiveBack puts a received entry at the end of its lane again. A delivery
	// that is gone already is ignored.
	GiveBack(ctx context.Context, shard writ.Tenant, consumer string, d writ.Delivery) error
	// Reclaim gives back entries that consumers received longer than idle ago
	// and neither acked nor gave back, at most n, and says how many.
	Reclaim(ctx context.Context, shard writ.Tenant, idle time.Duration, n int) (int, error)
	// Wake waits until an entry was pushed (or given back) to some lane after
	// the cursor, at most wait (2 s at the most), and returns the new cursor
	// with the lanes, which may repeat. The cursor "" means "from now".
	Wake(ctx context.Context, shard writ.Tenant, cursor string, wait time.Duration) (string, []writ.Lane, error)

	// Names lists the documents whose names begin with prefix, and Entries what
	// lies in a lane, whether or not somebody has received it. They are for who
	// looks whether indexes and lanes hold what documents imply. Each call gives
	// some and a cursor for the next; the cursor is "" at the beginning, and again
	// when that was all. What is there all the while is met at least once, in
	// no particular order; what comes or goes meanwhile may be met or not.
	Names(ctx context.Context, shard writ.Tenant, prefix, cursor string) ([]writ.Key, string, error)
	Entries(ctx context.Context, shard writ.Tenant, lane writ.Lane, cursor string) ([]string, string, error)

	// Facts returns up to n facts with sequence > after, in order, waiting at
	// most wait for the first one. It never skips one.
	Facts(ctx context.Context, shard writ.Tenant, after int64, n int, wait time.Duration) ([]writ.StoredFact, error)
	// Trim forgets facts with sequence <= upto.
	Trim(ctx context.Context, shard writ.Tenant, upto int64) error
	// Head says where the shard stands.
	Head(ctx context.Context, shard writ.Tenant) (Head, error)

	// Info describes the host for readiness, metrics and receipts.
	Info(ctx context.Context) (Info, error)
	Close() error
}

// Head is where a shard stands.
type Head struct {
	Epoch   string
	Seq     int64 // of the last fact; -1 when there is none
	Trimmed int64 // highest sequence known to be trimmed; -1 when none
	At      int64
	Backlog int64 // facts in the outbox
}

// Durability says what a returned commit has survived.
type Durability = writ.Durability

const (
	// Committed: on disk, synced.
	DurabilityCommitted = writ.DurabilityCommitted
	// Buffered: in the store's memory; a crash of the store's host can lose the
	// last second or two.
	DurabilityBuffered = writ.DurabilityBuffered
)

// Info describes a host.
type Info struct {
	Kind       string // "bolt" or "redis"
	Durability Durability
	MemoryUsed int64  // bytes; 0 when unknown
	MemoryMax  int64  // bytes; 0 when unlimited
	Trouble    string // why the host may not be trusted with state any more; "" when it may
}

// Conflict says which guard no longer held.
type Conflict struct {
	Guard writ.GuardKind
	Name  string // the document, index or counter
	// Member is, for a free guard, the member found in the range.
	Member string
}

func (c *Conflict) Error() string { return fmt.Sprintf("conflict: %s %s", c.Guard, c.Name) }

// Limit says which counter would have passed its limit.
type Limit struct{ Counter writ.Counter }

func (l *Limit) Error() string {
	return fmt.Sprintf("limit: counter %s#%s", l.Counter.Entity, l.Counter.Field)
}

var (
	// ErrFenced: the shard is in another epoch than the snapshot, or the store
	// does not show that its history has the last fact this process knows to be
	// committed: it has lost commits, whether or not others were made in their
	// place, or has forgotten too much to tell.
	ErrFenced = errors.New("the shard has entered another epoch")
	// ErrFull: the store refuses new work for want of memory or disk; nothing
	// was changed.
	ErrFull = errors.New("the store is out of space")
	// ErrInvalid wraps what writ.Tx.Check refuses: a defect of the planner.
	ErrInvalid = errors.New("invalid transaction")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
)
