package guard

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// notices adds to the transaction of an allowed call whom policy wants told of
// it. A call that leaves no receipt leaves nothing one could be told of.
func (t *try) notices(tx *writ.Tx) {
	if rules := t.dec.Duties.Notify; tx.Fact != nil && len(rules) > 0 {
		tx.Tell(t.d.cfg.Tell, writ.Notice{
			Event: writ.EventPolicyNotify, Receipt: tx.Fact.ID, At: t.snap.Now, Capability: t.k.ID, Rules: rules,
		})
	}
}

// Notices are the door's part in delivering notices: it reads them and commits
// what becomes of them. Nothing here decides anything, so none of it is a fact;
// the transactions touch indexes only.
//
// One replica at a time holds an endpoint. A hold lapses, so a replica that is
// gone does not keep it; one that is slow may deliver beside its successor, and
// receivers know a notice by its id.
type Notices struct {
	door    *Door
	shard   writ.Tenant
	replica string
	alone   bool
}

// Notices are those of a shard. alone says that the store has no other replica,
// so that whoever else holds an endpoint is gone.
func (d *Door) Notices(shard writ.Tenant, replica string, alone bool) *Notices {
	return &Notices{door: d, shard: shard, replica: replica, alone: alone}
}

// Hold makes this replica the one that delivers to an endpoint, or goes on
// with it, for life. It says whether it is.
func (n *Notices) Hold(ctx context.Context, e writ.EndpointID, life time.Duration) (bool, error) {
	for range maxTries {
		s, holders, err := n.holders(ctx)
		if err != nil {
			return false, err
		}
		var tx writ.Tx
		for _, h := range holders {
			switch {
			case h.endpoint != e || h.replica == n.replica:
			case h.until > s.Now && !n.alone:
				return false, nil
			default:
				tx.Unindex(writ.IndexEndpoints, h.member)
			}
		}
		tx.Index(writ.IndexEndpoints, string(e)+" "+n.replica, s.Now+life.Milliseconds())
		tx.ExpectRange(writ.IndexEndpoints, s.Ranges[allHolders].Version)
		err = n.commit(ctx, tx)
		if _, conflict := errors.AsType[*store.Conflict](err); !conflict {
			return err == nil, err
		}
	}
	return false, nil
}

// Release lets another replica deliver to an endpoint at once.
func (n *Notices) Release(ctx context.Context, e writ.EndpointID) error {
	var tx writ.Tx
	tx.Unindex(writ.IndexEndpoints, string(e)+" "+n.replica)
	return n.commit(ctx, tx)
}

// Due are up to limit notices that an endpoint is to be told now, the longest
// due first, and the store's time.
func (n *Notices) Due(ctx context.Context, e writ.EndpointID, limit int) (int64, []writ.Notice, error) {
	r := writ.Range{Index: writ.Notices(e), ByScore: true, Max: writ.MaxAmount, Limit: limit}
	s, err := n.door.cfg.Store.Read(ctx, n.shard, writ.ReadSet{Ranges: []writ.Range{r}})
	if err != nil {
		return 0, nil, err
	}
	var out []writ.Notice
	var odd writ.Tx
	for _, m := range s.Ranges[r].Members {
		if m.Score > s.Now {
			break
		}
		if notice, ok := writ.ParseNotice(m); ok {
			out = append(out, notice)
		} else { // of a newer version, perhaps: not in the way meanwhile
			n.door.cfg.Log.Error("a notice that this version cannot read waits for another", "endpoint", e)
			odd.Index(writ.Notices(e), m.Name, s.Now+oddNotice.Milliseconds())
		}
	}
	if !odd.Empty() {
		err = n.commit(ctx, odd)
	}
	return s.Now, out, err
}

// oddNotice is how long a notice that cannot be read is left alone.
const oddNotice = 10 * time.Minute

// Approval is what a notice is about.
func (n *Notices) Approval(ctx context.Context, id writ.ApprovalID) (a writ.Approval, ok bool, err error) {
	key := writ.ApprovalKey(id)
	s, err := n.door.cfg.Store.Read(ctx, n.shard, writ.ReadSet{Docs: []writ.Key{key}})
	if err != nil {
		return a, false, err
	}
	a, _, ok, err = writ.Get[writ.Approval](s, key)
	return a, ok, err
}

// Settle takes notices off the queue of an endpoint and puts others on, due
// when they say: those that were not delivered, with one more try.
func (n *Notices) Settle(ctx context.Context, e writ.EndpointID, off, on []writ.Notice) error {
	var tx writ.Tx
	for _, notice := range off {
		tx.Unindex(writ.Notices(e), notice.Member())
	}
	for _, notice := range on {
		tx.Index(writ.Notices(e), notice.Member(), notice.Due)
	}
	if tx.Empty() {
		return nil
	}
	return n.commit(ctx, tx)
}

// MaxWaiting is how many waiting notices are counted at most.
const MaxWaiting = 1000

// Waiting is how many notices wait for an endpoint, due or not.
func (n *Notices) Waiting(ctx context.Context, e writ.EndpointID) (int, error) {
	r := writ.Range{Index: writ.Notices(e), ByScore: true, Max: writ.MaxAmount, Limit: MaxWaiting}
	s, err := n.door.cfg.Store.Read(ctx, n.shard, writ.ReadSet{Ranges: []writ.Range{r}})
	return len(s.Ranges[r].Members), err
}

// abandoned is how long no replica has known an endpoint before what waits for
// it is dropped.
const abandoned = 48 * time.Hour

// Tidy drops what waits for one endpoint that no replica has known for two
// days, and returns it.
func (n *Notices) Tidy(ctx context.Context) (dropped []writ.Notice, err error) {
	s, holders, err := n.holders(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(holders, func(h holder) bool { return h.until <= s.Now-abandoned.Milliseconds() })
	if i < 0 {
		return nil, nil
	}
	r := writ.Range{Index: writ.Notices(holders[i].endpoint), ByScore: true, Max: writ.MaxAmount, Limit: writ.MaxOps / 2}
	waiting, err := n.door.cfg.Store.Read(ctx, n.shard, writ.ReadSet{Ranges: []writ.Range{r}})
	if err != nil {
		return nil, err
	}
	var tx writ.Tx
	tx.ExpectRange(writ.IndexEndpoints, s.Ranges[allHolders].Version) // nobody has come back to it
	for _, m := range waiting.Ranges[r].Members {
		tx.Unindex(r.Index, m.Name)
		notice, _ := writ.ParseNotice(m) // what cannot be read goes too
		dropped = append(dropped, notice)
	}
	if len(dropped) < r.Limit { // that was all; else the rest is dropped next time
		tx.Unindex(writ.IndexEndpoints, holders[i].member)
	}
	if err := n.commit(ctx, tx); err != nil {
		return nil, err
	}
	return dropped, nil
}

// Served lists the endpoints some replica delivers to now.
func (n *Notices) Served(ctx context.Context) (out []writ.EndpointID, err error) {
	s, holders, err := n.holders(ctx)
	for _, h := range holders {
		if h.until > s.Now {
			out = append(out, h.endpoint)
		}
	}
	return out, err
}

// holder is one member of writ.IndexEndpoints.
type holder struct {
	member   string
	endpoint writ.EndpointID
	replica  string
	until    int64
}

var allHolders = writ.Range{Index: writ.IndexEndpoints, ByScore: true, Max: writ.MaxAmount, Limit: 1000}

func (n *Notices) holders(ctx context.Context) (s writ.Snapshot, out []holder, err error) {
	if s, err = n.door.cfg.Store.Read(ctx, n.shard, writ.ReadSet{Ranges: []writ.Range{allHolders}}); err != nil {
		return s, nil, err
	}
	for _, m := range s.Ranges[allHolders].Members {
		endpoint, replica, _ := strings.Cut(m.Name, " ")
		out = append(out, holder{m.Name, writ.EndpointID(endpoint), replica, m.Score})
	}
	return s, out, nil
}

// commit commits a transaction that touches indexes only. It goes on when the
// store is full: it makes less of it, or no more.
func (n *Notices) commit(ctx context.Context, tx writ.Tx) error {
	var call writ.Call
	if err := n.door.Stamp(&call); err != nil {
		return err
	}
	tx.Call, tx.Mandate = call.ID, true
	_, err := n.door.cfg.Store.Commit(ctx, n.shard, tx)
	return err
}
