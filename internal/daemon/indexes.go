package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/queue"
	"github.com/writ-gateway/writ/store"
)

// IndexReport is what the doctor of the queue has looked at and found.
type IndexReport struct {
	Runs   int           `json:"runs"`
	Tasks  int           `json:"tasks"`
	Found  []queue.Wrong `json:"found"`
	Counts []WrongCount  `json:"counts"`
}

// WrongCount is a counter over many documents, or the length of a lane, that is not
// what they add up to.
type WrongCount struct {
	What string `json:"what"`
	Has  int64  `json:"has"`
	Want int64  `json:"want"`
}

func byWhat(a, b WrongCount) int { return strings.Compare(a.What, b.What) }

// OK says whether everything is as it should be.
func (r IndexReport) OK() bool { return len(r.Found)+len(r.Counts) == 0 }

// ExamineQueue compares every index and counter of the queue with what the documents
// imply, and changes nothing. On a shared store it may run beside gateways: about one
// task it reports only what a single atomic read shows, and so it does about a sum over
// many, unless they are too many for one read: then three readings must agree on it. The embedded store is its gateway's alone:
// stop that first.
func ExamineQueue(ctx context.Context, cfg Config) (IndexReport, error) {
	if _, err := os.Stat(filepath.Join(cfg.Data, boltFile)); cfg.Store == "bolt" && errors.Is(err, fs.ErrNotExist) {
		return IndexReport{}, writ.Refuse(writ.CodeNotFound, "daemon.ExamineQueue", "there is no store in the data directory", "name the directory of the gateway with --data, or its store with --store")
	}
	st, err := openStore(ctx, cfg)
	if err != nil {
		return IndexReport{}, err
	}
	defer func() { _ = st.Close() }()
	return examineIndexes(ctx, st, laneAge)
}

// laneAge is how long a task must have been queued to be missed in its lanes. An entry
// that a gateway has received, and not yet claimed or given back, is in none.
const laneAge = time.Minute

func examineIndexes(ctx context.Context, st store.Store, laneAge time.Duration) (IndexReport, error) {
	x := indexWalk{ctx: ctx, st: st, laneAge: laneAge}
	report, err := x.once()
	if err != nil {
		return report, err
	}
	wrong, unsure, err := x.surely(report.Counts)
	if err != nil {
		return report, err
	}
	for range 2 { // sums move while they are read; what is wrong stays wrong
		if len(unsure) == 0 {
			break
		}
		again, err := x.once()
		if err != nil {
			return report, err
		}
		unsure = slices.DeleteFunc(unsure, func(c WrongCount) bool {
			return !slices.ContainsFunc(again.Counts, func(a WrongCount) bool { return a.What == c.What && a.Has-a.Want == c.Has-c.Want })
		})
	}
	report.Counts = append(append([]WrongCount{}, wrong...), unsure...)
	slices.SortFunc(report.Counts, byWhat)
	return report, nil
}

// indexWalk reads a whole shard, a page at a time.
type indexWalk struct {
	ctx     context.Context
	st      store.Store
	laneAge time.Duration

	met   map[writ.TaskID][]queue.Entry // entries that name a task
	order []writ.TaskID                 // as they were met
	sure  map[string]sure               // how to look once more, by what is counted
}

const walkPage = 500

// members are the names in an index.
func (x *indexWalk) members(i writ.Index) (out []string, err error) {
	entries, err := x.entries(i)
	for _, e := range entries {
		out = append(out, e.Member)
	}
	return out, err
}

// entries reads a whole index: by name, or by score where scores differ.
func (x *indexWalk) entries(i writ.Index) (out []queue.Entry, err error) {
	r, known := (queue.Entry{Index: i}).Range(), map[string]bool{}
	r.From, r.To, r.Min, r.Max, r.Limit = "", "", 0, 0, walkPage
	if r.ByScore {
		r.Max = writ.MaxAmount
	}
	for {
		s, err := x.st.Read(x.ctx, shard, writ.ReadSet{Ranges: []writ.Range{r}})
		if err != nil {
			return nil, err
		}
		page := s.Ranges[r].Members
		for _, m := range page {
			if !known[m.Name] {
				known[m.Name] = true
				out = append(out, queue.Entry{Index: i, Member: m.Name, Score: m.Score})
			}
		}
		if len(page) < walkPage {
			return out, nil
		}
		last := page[len(page)-1]
		if r.From = last.Name + "\x00"; r.ByScore {
			r.From, r.Min = "", max(last.Score, r.Min+1) // of more than a page at one score the rest is not met
		}
	}
}

// meet notes the tasks that the members of an index name.
func (x *indexWalk) meet(i writ.Index, task func(member string) string) error {
	entries, err := x.entries(i)
	for _, e := range entries {
		x.note(writ.TaskID(task(e.Member)), e)
	}
	return err
}

func (x *indexWalk) note(id writ.TaskID, e queue.Entry) {
	if _, known := x.met[id]; !known {
		x.order = append(x.order, id)
	}
	x.met[id] = append(x.met[id], e)
}

func whole(m string) string { return m }

// once looks at everything once.
func (x *indexWalk) once() (report IndexReport, err error) {
	x.met, x.order, x.sure = map[writ.TaskID][]queue.Entry{}, nil, map[string]sure{}
	report.Found, report.Counts = []queue.Wrong{}, []WrongCount{}
	runIDs, err := x.members(writ.IndexRuns)
	if err != nil {
		return report, err
	}
	report.Runs = len(runIDs)
	for _, id := range runIDs {
		if err := x.meet(writ.RunTasks(writ.RunID(id)), whole); err != nil {
			return report, err
		}
		if err := x.meet(writ.Backlog(writ.RunID(id)), func(m string) string { _, task, _ := strings.Cut(m, " "); return task }); err != nil {
			return report, err
		}
		for s := range writ.TaskMoves {
			if s == "" {
				continue
			}
			if err := x.meet(writ.RunTasksIn(writ.RunID(id), s), whole); err != nil {
				return report, err
			}
		}
	}
	for _, i := range []writ.Index{writ.IndexVerify, writ.IndexDead, writ.IndexLeases, writ.IndexReady} {
		if err := x.meet(i, whole); err != nil {
			return report, err
		}
	}
	if err := x.sessions(&report); err != nil {
		return report, err
	}
	sums := newSums(runIDs)
	for n := 0; n < len(x.order); n++ { // whoever waits for a task may be met on its lists first
		if err := x.task(x.order[n], &report, sums); err != nil {
			return report, err
		}
	}
	return report, x.compare(&report, sums)
}

// sessions looks at what sessions claim, and meets the tasks they hold and those that
// wait for them.
func (x *indexWalk) sessions(report *IndexReport) error {
	scopes, err := x.entries(writ.IndexScopes)
	if err != nil {
		return err
	}
	claims := map[writ.SessionID][]queue.Entry{}
	for _, e := range scopes {
		_, by, _ := writ.SplitScopeMember(e.Member)
		if id := writ.SessionID(by); id.Valid() {
			claims[id] = append(claims[id], e)
		} else {
			x.note(writ.TaskID(by), e)
		}
	}
	ids, err := x.members(writ.IndexSessions)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, met := claims[writ.SessionID(id)]; !met {
			claims[writ.SessionID(id)] = nil
		}
		for _, i := range []writ.Index{writ.SessionTasks(writ.SessionID(id)), writ.WaitingOn(id)} {
			if err := x.meet(i, first); err != nil {
				return err
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(claims)) {
		if err := x.session(id, claims[id], report); err != nil {
			return err
		}
	}
	return nil
}

// first is the task that a member "<task>" or "<task> <lane>" names.
func first(member string) string { id, _, _ := strings.Cut(member, " "); return id }

// session looks at one session in one atomic read.
func (x *indexWalk) session(id writ.SessionID, also []queue.Entry, report *IndexReport) error {
	var s writ.Snapshot
	for {
		var err error
		if s, err = x.st.Read(x.ctx, shard, queue.CheckSessionReads(id, s, also)); err != nil {
			return err
		}
		if s.Missing(queue.CheckSessionReads(id, s, also)).Empty() {
			break
		}
	}
	wrong, err := queue.CheckSession(id, s, also)
	if err != nil {
		return fmt.Errorf("session %s: %w", id, err)
	}
	report.Found = append(report.Found, wrong...)
	return nil
}

// task looks at one task in one atomic read.
func (x *indexWalk) task(id writ.TaskID, report *IndexReport, sums *sums) error {
	for _, i := range []writ.Index{writ.Dependents(id), writ.WaitingOn(id)} {
		if err := x.meet(i, first); err != nil {
			return err
		}
	}
	var s writ.Snapshot
	for {
		rs := queue.CheckReads(id, s, x.met[id])
		var err error
		if s, err = x.st.Read(x.ctx, shard, rs); err != nil {
			return err
		}
		if missing := s.Missing(queue.CheckReads(id, s, x.met[id])); missing.Empty() {
			break
		}
	}
	wrong, err := queue.Check(id, s, x.met[id])
	if err != nil {
		return fmt.Errorf("task %s: %w", id, err)
	}
	report.Found = append(report.Found, wrong...)
	t, _, ok, err := writ.Get[writ.Task](s, writ.TaskKey(id))
	if ok {
		report.Tasks++
		sums.add(t, s, s.Now-x.laneAge.Milliseconds())
	}
	return err
}

// sums is what the documents add up to.
type sums struct {
	open, bad map[writ.RunID]int64
	running   map[writ.AgentID]int64
	lanes     map[writ.Lane]int64 // tasks that lie nowhere else
	places    map[runLane]placed  // tasks that are offered, or wait behind others of their run
}

func newSums(runIDs []string) *sums {
	s := &sums{open: map[writ.RunID]int64{}, bad: map[writ.RunID]int64{}, running: map[writ.AgentID]int64{}, lanes: map[writ.Lane]int64{}, places: map[runLane]placed{}}
	for _, id := range runIDs {
		s.open[writ.RunID(id)], s.bad[writ.RunID(id)] = 0, 0
	}
	return s
}

// add counts a task in; one that has been queued since before a time, in its lanes too.
func (s *sums) add(t writ.Task, at writ.Snapshot, before int64) {
	open, bad, agent := queue.Opens(t)
	s.open[t.Run] += open
	s.bad[t.Run] += bad
	if agent != "" {
		s.running[agent]++
	}
	s.place(t, at)
	if t.UpdatedAt > before {
		return
	}
	if r, _, ok, err := writ.Get[writ.Run](at, writ.RunKey(t.Run)); err == nil && ok && !writ.RunMoves.Terminal(r.State) && queue.InLanes(t, at) {
		for _, l := range t.Lanes() {
			s.lanes[l]++
		}
	}
}

// compare looks at the counters. Child runs count in their parents until they are
// settled.
func (x *indexWalk) compare(report *IndexReport, want *sums) error {
	off := func(what string, has, should int64) {
		if has != should {
			report.Counts = append(report.Counts, WrongCount{what, has, should})
		}
	}
	for id := range want.open {
		children := writ.Range{Index: writ.RunChildren(id), Limit: 1000}
		s, err := x.st.Read(x.ctx, shard, writ.ReadSet{
			Docs: []writ.Key{writ.RunKey(id)}, Counters: []writ.Counter{writ.RunOpenTasks(id), writ.RunBadTasks(id)},
			Ranges: []writ.Range{children, queue.Entry{Index: writ.IndexClose, Member: string(id)}.Range()},
		})
		if err != nil {
			return err
		}
		r, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(id))
		if err != nil || !ok {
			off("runs without a document: "+string(id), 1, 0)
			continue
		}
		x.sure["open tasks of "+string(id)] = x.inStates(id, writ.RunOpenTasks(id), true, func(s writ.TaskState) bool { return !writ.TaskMoves.Terminal(s) })
		x.sure["bad tasks of "+string(id)] = x.inStates(id, writ.RunBadTasks(id), false, func(s writ.TaskState) bool { return s == writ.TaskFailed || s == writ.TaskDead })
		off("open tasks of "+string(id), s.Counters[writ.RunOpenTasks(id)], want.open[id]+int64(len(s.Ranges[children].Members)))
		if !r.Nests { // of children that were settled nothing is listed any more
			off("bad tasks of "+string(id), s.Counters[writ.RunBadTasks(id)], want.bad[id])
		}
		waits := int64(0)
		if r.State == writ.RunVerifying {
			waits = 1
		}
		off("runs listed for a verdict: "+string(id), int64(len(s.Ranges[queue.Entry{Index: writ.IndexClose, Member: string(id)}.Range()].Members)), waits)
	}
	agents, err := x.members(writ.IndexAgents)
	if err != nil {
		return err
	}
	for _, a := range agents {
		c := writ.AgentRunning(writ.AgentID(a))
		s, err := x.st.Read(x.ctx, shard, writ.ReadSet{Counters: []writ.Counter{c}})
		if err != nil {
			return err
		}
		x.sure["running tasks of "+a] = x.held(writ.AgentID(a), slices.Collect(maps.Keys(want.open)))
		off("running tasks of "+a, s.Counters[c], want.running[writ.AgentID(a)])
	}
	if err := x.places(want, off); err != nil {
		return err
	}
	return x.lanes(report, want)
}

// lanes: every queued task that waits for nothing lies in each of its lanes. More
// entries are harmless.
func (x *indexWalk) lanes(report *IndexReport, want *sums) error {
	counts, err := x.st.Lanes(x.ctx, shard)
	if err != nil {
		return err
	}
	has := map[writ.Lane]int64{}
	for _, c := range counts {
		has[c.Lane] = c.Count
	}
	for l, n := range want.lanes {
		if has[l] < n {
			report.Counts = append(report.Counts, WrongCount{"entries in lane " + string(l), has[l], n})
		}
	}
	slices.SortFunc(report.Counts, byWhat)
	return nil
}
