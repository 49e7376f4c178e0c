package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/queue"
	"github.com/writ-gateway/writ/store"
)

// RepairReport says what was mended, by which receipts, and what is left.
type RepairReport struct {
	Mended   map[string]int64 `json:"mended"`
	Receipts []writ.ReceiptID `json:"receipts"`
	Before   IndexReport      `json:"before"`
	Left     IndexReport      `json:"left"`
}

// RepairQueue puts every index, lane and counter of the queue back to what the
// documents imply, through the door and with receipts, and looks again. The gateway's
// own keys sign them, under the policies in force. On a shared store it may run beside
// gateways; the embedded store is its gateway's alone.
func RepairQueue(ctx context.Context, cfg Config, log *slog.Logger) (r RepairReport, err error) {
	const op = "daemon.RepairQueue"
	if err := isStore(cfg, op); err != nil {
		return r, err
	}
	d := New(cfg, log)
	defer func() { _ = d.Stop(context.WithoutCancel(ctx)) }()
	if err := d.openStore(ctx); err != nil {
		return r, err
	}
	if _, ok, err := d.readGate(ctx); err != nil || !ok {
		if err == nil {
			err = writ.Refuse(writ.CodeNotFound, op, "no gateway has worked on this store yet", "name the store of the gateway with --data or --store")
		}
		return r, err
	}
	for _, step := range []func(context.Context) error{d.openKeys, d.sameKey, d.openPolicies, d.openDoor} {
		if err := step(ctx); err != nil {
			return r, err
		}
	}
	if _, err := d.underGate(ctx); err != nil {
		return r, fmt.Errorf("policies: %w", err)
	}
	return repairIndexes(ctx, d.store, d.door)
}

// repairRounds is how often all is looked at: what is mended can show more, and calls
// go on meanwhile.
const repairRounds = 6

func repairIndexes(ctx context.Context, st store.Store, door *guard.Door) (RepairReport, error) {
	m := mender{ctx: ctx, st: st, door: door, report: RepairReport{Mended: map[string]int64{}, Receipts: []writ.ReceiptID{}}}
	for round := range repairRounds {
		if err := m.version(); err != nil {
			return m.report, err
		}
		x := newWalk(ctx, st)
		found, err := x.examine()
		if m.report.Left = found; round == 0 {
			m.report.Before = found
		}
		if err != nil || found.OK() || round == repairRounds-1 {
			return m.report, err
		}
		before := len(m.report.Receipts)
		if err := m.mend(x, found); err != nil {
			return m.report, err
		}
		if len(m.report.Receipts) == before && !m.again {
			return m.report, nil // nothing that is left can be mended
		}
	}
	return m.report, nil
}

// mender makes the calls that repair.
type mender struct {
	ctx    context.Context
	st     store.Store
	door   *guard.Door
	since  int64 // version of the last repair
	again  bool  // somebody else was first at something
	report RepairReport
}

func (m *mender) version() error {
	s, err := m.st.Read(m.ctx, shard, writ.ReadSet{Docs: []writ.Key{writ.RepairsKey}})
	m.since, m.again = s.Docs[writ.RepairsKey].Version, false
	return err
}

// How much one call mends: so much, with the guards it rests on, fits into its
// transaction.
const (
	mendCounters  = 100
	mendDocuments = 16
	mendGuards    = 200
)

// mend repairs what was found. Counters come first: what they are off by was seen
// under the version of the last repair.
func (m *mender) mend(x *indexWalk, found IndexReport) error {
	var counters []queue.RepairCounter
	for _, c := range found.Counts {
		if c.sure {
			counters = append(counters, queue.RepairCounter{Entity: c.counter.Entity, Field: c.counter.Field, Add: c.Want - c.Has})
		}
	}
	for some := range slices.Chunk(counters, mendCounters) {
		if err := m.call(queue.QueueRepairArgs{Counters: some, Since: m.since}, nil); err != nil {
			return err
		}
		if m.again {
			break
		}
	}
	var batch []queue.RepairDocument
	guards := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := m.call(queue.QueueRepairArgs{Documents: batch}, nil)
		batch, guards = nil, 0
		return err
	}
	// What lies in lanes comes last: a task may be missing there only because nothing
	// said any more that it waits.
	indexes := slices.ContainsFunc(found.Found, func(w queue.Wrong) bool { return w.Lane == "" && !w.Left })
	for _, doc := range slices.Sorted(maps.Keys(x.found)) {
		f := x.found[doc]
		if indexes {
			f.doc.Lanes = nil
		}
		if len(batch) == mendDocuments || guards+f.guards > mendGuards {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, guards = append(batch, f.doc), guards+f.guards
	}
	if err := flush(); err != nil {
		return err
	}
	for _, l := range slices.Sorted(maps.Keys(x.astray)) {
		if err := m.sift(l, x.astray[l]); err != nil {
			return err
		}
	}
	return nil
}

// call makes one repair.
func (m *mender) call(args queue.QueueRepairArgs, entry *writ.Delivery) error {
	reply, receipt, err := m.door.System(m.ctx, shard, "queue.repair", args, entry)
	switch writ.CodeOf(err) {
	case writ.CodeVersion, writ.CodeContention: // the next round looks anew
		m.again = true
		return nil
	}
	if err != nil {
		return err
	}
	var done queue.QueueRepaired
	if err := json.Unmarshal(reply.JSON, &done); err != nil {
		return err
	}
	for kind, n := range done.Mended {
		m.report.Mended[kind] += n
	}
	m.again = m.again || done.More
	if receipt != nil {
		m.since = done.Version
		m.report.Receipts = append(m.report.Receipts, receipt.ID)
	}
	return nil
}

// sifted is how many entries of a lane are taken out of it at once.
const sifted = 128

// sift takes entries that are of no task of a lane out of it. To find them all that
// wait there is received, some at a time, and given back in its order.
func (m *mender) sift(l writ.Lane, strays []writ.Entry) error {
	counts, err := m.st.Lanes(m.ctx, shard)
	if err != nil {
		return err
	}
	var left int64
	for _, c := range counts {
		if c.Lane == l {
			left = c.Count
		}
	}
	bad := map[string]bool{}
	for _, e := range strays {
		bad[e.Member] = true
	}
	consumer := consumerName()
	var back []writ.Delivery
	give := func() (err error) {
		for _, d := range back { // what is not given back now is reclaimed later
			err = errors.Join(err, m.st.GiveBack(context.WithoutCancel(m.ctx), shard, consumer, d))
		}
		back = back[:0]
		return err
	}
	for ; left > 0; left-- {
		got, err := m.st.Receive(m.ctx, shard, []writ.Lane{l}, consumer, 1)
		if err != nil || len(got) == 0 {
			return errors.Join(err, give())
		}
		if bad[got[0].Entry] {
			if err = m.call(queue.QueueRepairArgs{}, &got[0]); err == nil {
				continue
			}
		}
		back = append(back, got[0])
		if err != nil || len(back) == sifted {
			if err = errors.Join(err, give()); err != nil {
				return err
			}
		}
	}
	return give()
}
