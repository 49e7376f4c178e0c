package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/agents"
	"github.com/writ-gateway/writ/approvals"
	"github.com/writ-gateway/writ/effects"
	"github.com/writ-gateway/writ/grants"
	"github.com/writ-gateway/writ/queue"
	"github.com/writ-gateway/writ/runs"
	"github.com/writ-gateway/writ/store"
)

// IndexReport is what the doctor of the queue has looked at and found.
type IndexReport struct {
	Runs   int           `json:"runs"`
	Tasks  int           `json:"tasks"`
	Found  []queue.Wrong `json:"found"`
	Counts []WrongCount  `json:"counts"`
}

// WrongCount is a counter over many documents that is not what they add up to.
type WrongCount struct {
	What string `json:"what"`
	Has  int64  `json:"has"`
	Want int64  `json:"want"`

	counter writ.Counter
	sure    bool // seen at one instant
}

func byWhat(a, b WrongCount) int { return strings.Compare(a.What, b.What) }

// OK says whether everything is as it should be.
func (r IndexReport) OK() bool { return len(r.Found)+len(r.Counts) == 0 }

// followers say what follows from the documents of the other rooms.
func followers() []writ.Follower {
	return append(agents.Followers(), runs.Follower(), approvals.Follower(), effects.Follower(), grants.Follower())
}

// documents are the kinds that indexes and counters follow from.
var documents = []string{writ.ObjectRun, writ.ObjectTask, writ.ObjectSession, writ.ObjectJail, writ.ObjectAgent, writ.ObjectApproval, writ.ObjectEffect, writ.ObjectEgress}

// ExamineQueue compares every index, lane and counter of the queue with what the
// documents imply, and changes nothing. On a shared store it may run beside gateways:
// about one document it reports only what a single atomic read shows, and so it does
// about a sum over many, unless they are too many for one read: then three readings
// must agree on it. The embedded store is its gateway's alone: stop that first.
func ExamineQueue(ctx context.Context, cfg Config) (IndexReport, error) {
	if err := isStore(cfg, "daemon.ExamineQueue"); err != nil {
		return IndexReport{}, err
	}
	st, err := openStore(ctx, cfg)
	if err != nil {
		return IndexReport{}, err
	}
	defer func() { _ = st.Close() }()
	return examineIndexes(ctx, st)
}

// isStore refuses a data directory without the embedded store.
func isStore(cfg Config, op string) error {
	if _, err := os.Stat(filepath.Join(cfg.Data, boltFile)); cfg.Store == "bolt" && errors.Is(err, fs.ErrNotExist) {
		return writ.Refuse(writ.CodeNotFound, op, "there is no store in the data directory", "name the directory of the gateway with --data, or its store with --store")
	}
	return nil
}

func examineIndexes(ctx context.Context, st store.Store) (IndexReport, error) {
	x := newWalk(ctx, st)
	return x.examine()
}

// indexWalk reads a whole shard, a page or a document at a time.
type indexWalk struct {
	ctx   context.Context
	st    store.Store
	check queue.Checker

	met    map[writ.Key][]writ.Entry  // members that name a document
	order  []writ.Key                 // documents, as they were met
	found  map[writ.Key]finding       // what is wrong with which
	lying  map[writ.Lane][]writ.Key   // tasks that must lie there
	sums   map[writ.Counter]int64     // what documents add up to
	nests  map[writ.RunID]bool        // had child runs
	astray map[writ.Lane][]writ.Entry // entries of no task of the lane, as members

	oneLane map[writ.TaskID]writ.Lane    // the lane a task has a place in
	ofRun   map[writ.RunID][]writ.TaskID // all tasks of a run
	places  map[writ.Counter]placeSum    // counters over places
}

// finding is what is wrong with a document, as a repair wants it.
type finding struct {
	doc    queue.RepairDocument
	guards int // that a repair rests on
}

func newWalk(ctx context.Context, st store.Store) *indexWalk {
	return &indexWalk{ctx: ctx, st: st, check: queue.NewChecker(followers())}
}

// examine looks at everything, and once more at what may only have moved.
func (x *indexWalk) examine() (IndexReport, error) {
	report, still, err := x.once()
	if err != nil {
		return report, err
	}
	var seen, moves []WrongCount
	for _, c := range report.Counts {
		if _, place := x.places[c.counter]; still && !place { // nothing was committed meanwhile
			c.sure = true
			seen = append(seen, c)
		} else {
			moves = append(moves, c)
		}
	}
	wrong, unsure, err := x.surely(moves)
	if err != nil {
		return report, err
	}
	for range 2 { // sums move while they are read; what is wrong stays wrong
		if len(unsure) == 0 {
			break
		}
		again := *x
		other, _, err := again.once()
		if err != nil {
			return report, err
		}
		unsure = slices.DeleteFunc(unsure, func(c WrongCount) bool {
			return !slices.ContainsFunc(other.Counts, func(a WrongCount) bool { return a.What == c.What && a.Has-a.Want == c.Has-c.Want })
		})
	}
	report.Counts = slices.Concat([]WrongCount{}, seen, wrong, unsure)
	slices.SortFunc(report.Counts, byWhat)
	return report, nil
}

// once looks at everything once, and says whether it saw one state: no document
// changes without a fact, and no sum without a document.
func (x *indexWalk) once() (report IndexReport, still bool, err error) {
	x.met, x.order, x.found = map[writ.Key][]writ.Entry{}, nil, map[writ.Key]finding{}
	x.lying, x.sums, x.nests, x.astray = map[writ.Lane][]writ.Key{}, map[writ.Counter]int64{}, map[writ.RunID]bool{}, map[writ.Lane][]writ.Entry{}
	x.oneLane, x.ofRun, x.places = map[writ.TaskID]writ.Lane{}, map[writ.RunID][]writ.TaskID{}, map[writ.Counter]placeSum{}
	report.Found, report.Counts = []queue.Wrong{}, []WrongCount{}
	before, err := x.st.Head(x.ctx, shard)
	if err != nil {
		return report, false, err
	}
	for _, kind := range documents {
		if err := x.names(kind); err != nil {
			return report, false, err
		}
	}
	if err := x.meet(global()); err != nil {
		return report, false, err
	}
	if err := x.meetLists(); err != nil {
		return report, false, err
	}
	for _, doc := range x.order {
		if err := x.document(doc, &report); err != nil {
			return report, false, err
		}
	}
	if err := x.lanes(&report); err != nil {
		return report, false, err
	}
	if err := x.compare(&report); err != nil {
		return report, false, err
	}
	after, err := x.st.Head(x.ctx, shard)
	return report, before.Seq == after.Seq && before.Epoch == after.Epoch, err
}

// names notes every document of a kind.
func (x *indexWalk) names(kind string) error {
	for cursor := ""; ; {
		some, next, err := x.st.Names(x.ctx, shard, kind+"/", cursor)
		if err != nil {
			return err
		}
		slices.Sort(some)
		for _, k := range some {
			if _, known := x.met[k]; !known {
				x.note(k)
			}
		}
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

func (x *indexWalk) note(doc writ.Key, at ...writ.Entry) {
	if _, known := x.met[doc]; !known {
		x.order = append(x.order, doc)
	}
	x.met[doc] = append(x.met[doc], at...)
}

// look reads all there is to a document at one instant.
func (x *indexWalk) look(doc writ.Key) (s writ.Snapshot, err error) {
	for {
		rs, err := x.check.Reads(doc, s, x.met[doc])
		if err != nil {
			return s, err
		}
		if missing := s.Missing(rs); !missing.Empty() || s.Docs == nil {
			if s, err = x.st.Read(x.ctx, shard, rs); err != nil {
				return s, err
			}
			continue
		}
		return s, nil
	}
}

// document looks at one document in one atomic read.
func (x *indexWalk) document(doc writ.Key, report *IndexReport) error {
	s, err := x.look(doc)
	if err != nil && s.Docs[doc].Version == 0 {
		return err
	}
	why := ""
	if err == nil {
		why, err = x.check.Sound(doc, s)
	}
	if err != nil {
		if writ.CodeOf(err) == writ.CodeUpgrade || x.ctx.Err() != nil {
			return err
		}
		why = "the document, or one it names, cannot be read"
	}
	if why != "" {
		report.Found = append(report.Found, queue.Wrong{Document: doc, Left: true, Why: why})
		return nil
	}
	wrong, err := x.check.Check(doc, s, x.met[doc])
	if err != nil {
		return fmt.Errorf("%s: %w", doc, err)
	}
	for _, i := range wrong {
		report.Found = append(report.Found, queue.Say(doc, i, s))
		x.finds(doc, s, func(d *queue.RepairDocument) {
			if i.Out && slices.ContainsFunc(x.met[doc], i.Same) && len(d.Met) < 64 {
				d.Met = append(d.Met, queue.RepairEntry{Index: i.Index, Member: i.Member})
			}
		})
	}
	if s.Docs[doc].Version == 0 {
		return nil
	}
	return x.add(doc, s, report)
}

// finds notes what a repair of a document is about.
func (x *indexWalk) finds(doc writ.Key, s writ.Snapshot, say func(*queue.RepairDocument)) {
	f, known := x.found[doc]
	if !known {
		f.doc.Document = doc
		f.guards = len(s.Docs) + len(s.Counters)
		for r := range s.Ranges {
			if r.Index.Versioned() {
				f.guards++
			}
		}
	}
	f.guards += 2
	say(&f.doc)
	x.found[doc] = f
}

// add counts a document in.
func (x *indexWalk) add(doc writ.Key, s writ.Snapshot, report *IndexReport) error {
	all, err := x.check.Counts(doc, s)
	for _, c := range all {
		x.sums[c.Counter] += c.N
	}
	kind, _, _ := strings.Cut(string(doc), "/")
	switch kind {
	case writ.ObjectRun:
		report.Runs++
		if r, _, _, err := writ.Get[writ.Run](s, doc); err == nil && r.Nests {
			x.nests[r.ID] = true
		}
	case writ.ObjectTask:
		report.Tasks++
		t, _, _, err := writ.Get[writ.Task](s, doc)
		if err != nil {
			return err
		}
		x.settle(t, s)
		if queue.InLanes(t, s) {
			for _, l := range t.Lanes() {
				x.lying[l] = append(x.lying[l], doc)
			}
		}
	}
	return err
}

// compare looks at the counters over many documents.
func (x *indexWalk) compare(report *IndexReport) error {
	if err := x.quotas(); err != nil {
		return err
	}
	var all []writ.Counter
	for c := range x.sums {
		all = append(all, c)
	}
	for some := range slices.Chunk(all, walkPage) {
		s, err := x.st.Read(x.ctx, shard, writ.ReadSet{Counters: some})
		if err != nil {
			return err
		}
		for _, c := range some {
			if has, want := s.Counters[c], x.sums[c]; has != want {
				report.Counts = append(report.Counts, WrongCount{What: "counter " + c.Entity + "#" + c.Field, Has: has, Want: want, counter: c})
			}
		}
	}
	slices.SortFunc(report.Counts, byWhat)
	return nil
}

// quotas adds the counters of quotas that no document may count in any more.
func (x *indexWalk) quotas() error {
	s, err := x.st.Read(x.ctx, shard, writ.ReadSet{Docs: []writ.Key{writ.QuotasKey}})
	if err != nil {
		return err
	}
	all, err := writ.QuotasIn(s)
	for _, q := range all {
		if writ.QuotaWindow(q.Metric) != 0 {
			continue
		}
		who := []writ.QuotaWho{{}, {Capability: writ.CapabilityID(q.Value), Agent: writ.AgentID(q.Value), Session: writ.SessionID(q.Value), Role: writ.Role(q.Value)}}
		for _, doc := range x.order {
			switch kind, id, _ := strings.Cut(string(doc), "/"); kind {
			case writ.ObjectAgent:
				who = append(who, writ.QuotaWho{Agent: writ.AgentID(id)})
			case writ.ObjectSession:
				who = append(who, writ.QuotaWho{Session: writ.SessionID(id)})
			}
		}
		for _, w := range who {
			if tag, ok := q.Tag(w); ok {
				x.sums[writ.QuotaUsed(tag)] += 0
			}
		}
	}
	return err
}
