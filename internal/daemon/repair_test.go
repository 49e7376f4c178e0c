package daemon

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
	"github.com/writ-gateway/writ/writtest"
)

// Whatever is done to indexes, lanes and counters, a repair puts all of it back to
// what it was, and work goes on.
func TestRepair(t *testing.T) {
	t.Run("bolt", func(t *testing.T) {
		d, op, _ := start(t, t.TempDir())
		repairs(t, d, newPatients(t, d, op))
	})
	t.Run("redis", func(t *testing.T) {
		server := redistest.Start(t)
		d, op, _ := start(t, t.TempDir(), func(c *Config) { c.Store = server.URL() })
		repairs(t, d, newPatients(t, d, op))
	})
}

// derived is all that follows from documents: scores by "index member", values of
// counters, and what lies in lanes.
type derived struct {
	entries  map[writ.Entry]int64
	counters map[writ.Counter]int64
	lanes    map[string]bool // "lane entry"
}

func derivedOf(t *testing.T, d *Daemon) (out derived) {
	t.Helper()
	x := newWalk(t.Context(), d.store)
	if _, _, err := x.once(); err != nil {
		t.Fatal(err)
	}
	out = derived{entries: map[writ.Entry]int64{}, counters: map[writ.Counter]int64{}, lanes: map[string]bool{}}
	lists := append(global(), list{index: writ.IndexTodo, scores: true}, list{index: writ.Refused("site.build", "web")})
	for _, doc := range x.order {
		lists = append(lists, listsOf(doc)...)
		named, err := namedBy(doc, readOf(t, d, writ.ReadSet{Docs: []writ.Key{doc}}))
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, named...)
		if strings.HasPrefix(string(doc), "task/") {
			id := writ.TaskID(idOf(doc))
			lists = append(lists, list{index: writ.BlockedOn(id)})
			x.sums[writ.TaskUnmet(id)], x.sums[writ.TaskPlace(id)] = 0, 0
		}
	}
	for _, l := range lists {
		s := readOf(t, d, writ.ReadSet{Ranges: []writ.Range{l.page()}})
		for _, m := range s.Ranges[l.page()].Members {
			out.entries[writ.Entry{Index: l.index, Member: m.Name}] = m.Score
		}
	}
	for c := range x.sums {
		out.counters[c] = readOf(t, d, writ.ReadSet{Counters: []writ.Counter{c}}).Counters[c]
	}
	counts, err := d.store.Lanes(t.Context(), shard)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		there, err := x.entries(c.Lane)
		if err != nil {
			t.Fatal(err)
		}
		for e := range there { // entries of others are dropped when they are met
			if slices.Contains(x.lying[c.Lane], writ.TaskKey(writ.TaskID(e))) {
				out.lanes[string(c.Lane)+" "+e] = true
			}
		}
	}
	return out
}

// diff names what differs, but for times at which somebody only looks.
func (a derived) diff(b derived) (out []string) {
	for _, e := range slices.Collect(maps.Keys(a.entries)) {
		if v, ok := b.entries[e]; !ok || v != a.entries[e] && !loose(e) {
			out = append(out, fmt.Sprintf("%v: %d, then %d %v", e, a.entries[e], v, ok))
		}
	}
	for e := range b.entries {
		if _, ok := a.entries[e]; !ok {
			out = append(out, fmt.Sprintf("%v is new", e))
		}
	}
	for c, n := range a.counters {
		if b.counters[c] != n {
			out = append(out, fmt.Sprintf("%v: %d, then %d", c, n, b.counters[c]))
		}
	}
	for l := range a.lanes {
		if !b.lanes[l] {
			out = append(out, l+" is gone")
		}
	}
	for l := range b.lanes {
		if !a.lanes[l] {
			out = append(out, l+" is new")
		}
	}
	return out
}

// loose says that the score of an entry says only when somebody looks again.
func loose(e writ.Entry) bool {
	kind, _, _ := strings.Cut(e.Member, " ")
	return e.Index == writ.IndexTodo && kind != "deadline" && kind != "overrun"
}

// implied says whether documents imply an entry; some follow-ups are promises.
func implied(e writ.Entry) bool {
	kind, _, _ := strings.Cut(e.Member, " ")
	return e.Index != writ.IndexTodo || slices.Contains([]string{"deadline", "overrun", "settle", "stall", "untangle", "artifacts", "refill"}, kind)
}

// damage does things to a store.
type damage struct {
	t *testing.T
	d *Daemon
}

func (g damage) commit(f func(*writ.Tx)) {
	g.t.Helper()
	call := writ.Call{}
	if err := g.d.door.Stamp(&call); err != nil {
		g.t.Fatal(err)
	}
	tx := writ.Tx{Call: call.ID}
	if f(&tx); len(tx.Ops) == 0 {
		return
	}
	if _, err := g.d.store.Commit(g.t.Context(), shard, tx); err != nil {
		g.t.Fatal(err)
	}
}

// drop takes an entry out of a lane.
func (g damage) drop(l writ.Lane, entry string) {
	g.t.Helper()
	var back []writ.Delivery
	for {
		got, err := g.d.store.Receive(g.t.Context(), shard, []writ.Lane{l}, "thief", 1)
		if err != nil {
			g.t.Fatal(err)
		}
		if len(got) == 0 {
			break
		}
		if got[0].Entry == entry {
			g.commit(func(tx *writ.Tx) { tx.Ack(got[0]) })
		} else {
			back = append(back, got[0])
		}
	}
	for _, b := range back {
		if err := g.d.store.GiveBack(g.t.Context(), shard, "thief", b); err != nil {
			g.t.Fatal(err)
		}
	}
}

// bogus are entries of nothing, and of tasks that have nothing to do there.
func bogus(p patients) []writ.Entry {
	nobody := "tsk_01ARYZ6S410000000000000000"
	return []writ.Entry{
		{Index: writ.IndexRuns, Member: "run_01ARYZ6S410000000000000000"},
		{Index: writ.IndexAgents, Member: "nobody"},
		{Index: writ.IndexTools, Member: "site.build nobody"},
		{Index: writ.IndexSessions, Member: "ses_01ARYZ6S410000000000000000"},
		{Index: writ.IndexLives, Member: "ses_01ARYZ6S410000000000000000", Score: writ.MaxAmount},
		{Index: writ.IndexApprovals, Member: "apr_01ARYZ6S410000000000000000"},
		{Index: writ.RunTasks(p.run), Member: nobody},
		{Index: writ.RunTasksIn(p.run, writ.TaskQueued), Member: string(p.done)},
		{Index: writ.RunTasksIn(p.run, writ.TaskRunning), Member: string(p.queued)},
		{Index: writ.RunChildren(p.run), Member: string(p.run)},
		{Index: writ.IndexClose, Member: string(p.run)},
		{Index: writ.IndexVerify, Member: string(p.done)},
		{Index: writ.IndexDead, Member: string(p.done)},
		{Index: writ.IndexLeases, Member: string(p.done), Score: 1},
		{Index: writ.IndexReady, Member: string(p.done), Score: 1},
		{Index: writ.SessionTasks(p.session), Member: string(p.queued)},
		{Index: writ.IndexScopes, Member: writ.ScopeMember("fs:site/b/", p.done)},
		{Index: writ.IndexScopes, Member: writ.ScopeMember("fs:site/c/", writ.TaskID(nobody))},
		{Index: writ.Refused("site.build", "web"), Member: string(p.queued)},
		{Index: writ.Dependents(p.queued), Member: string(p.done)},
		{Index: writ.BlockedOn(p.done), Member: string(p.running)},
		{Index: writ.BlockedOn(p.queued), Member: nobody},                               // whom nobody can wait for
		{Index: writ.IndexScopes, Member: "fs:site/z/ " + string(p.claims) + " shared"}, // which is claimed for itself
		{Index: writ.IndexScopes, Member: "fs:site/ " + string(p.session)},              // it claims nothing
		{Index: writ.IndexScopes, Member: "fs:site/c/ ses_01ARYZ6S410000000000000000"},
		{Index: writ.Backlog(p.run), Member: writ.BacklogMember(writ.LaneOf("site.build", "web", 5), p.queued)},
		{Index: writ.Backlog(p.run), Member: writ.BacklogMember(writ.LaneOf("site.build", "web", 3), p.done)},
		{Index: writ.BlobHolders(p.hex), Member: string(p.done)},
		{Index: writ.RunArtifacts(p.judged), Member: p.hex[1:] + "0 " + string(p.made)},
		{Index: "list/runs/operator", Member: "run_01ARYZ6S410000000000000000"},
	}
}

func repairs(t *testing.T, d *Daemon, p patients) {
	soundQueue(t, d, "before anything is wrong,")
	before, g := derivedOf(t, d), damage{t, d}
	nothing, err := repairIndexes(t.Context(), d.store, d.door)
	if err != nil || len(nothing.Receipts) != 0 || len(nothing.Mended) != 0 || !nothing.Left.OK() {
		t.Fatalf("with nothing wrong: %+v, %v", nothing, err)
	}
	mend := func(what string) {
		t.Helper()
		r, err := repairIndexes(t.Context(), d.store, d.door)
		if err != nil || r.Before.OK() || !r.Left.OK() || len(r.Receipts) == 0 {
			t.Fatalf("%s: %+v, %v", what, r, err)
		}
		if diff := before.diff(derivedOf(t, d)); len(diff) > 0 {
			t.Fatalf("%s: mended %v, and now %s", what, r.Mended, strings.Join(diff, "; "))
		}
		said := map[string]int64{}
		for _, id := range r.Receipts {
			for kind, n := range mendedBy(t, d, id) {
				said[kind] += n
			}
		}
		if !maps.Equal(said, r.Mended) {
			t.Errorf("%s: the receipts say %v, mended was %v", what, said, r.Mended)
		}
	}
	entries := slices.SortedFunc(maps.Keys(before.entries), func(a, b writ.Entry) int {
		return strings.Compare(string(a.Index)+" "+a.Member, string(b.Index)+" "+b.Member)
	})
	entries = slices.DeleteFunc(entries, func(e writ.Entry) bool { return !implied(e) })
	// One goroutine damages and mends, so the race detector has a look at some; make runs all of it without.
	nth := 0
	some := func() bool { nth++; return !writtest.Raced || nth%6 == 0 }
	tried := map[string]bool{}
	for _, e := range entries { // of each kind of index one
		kind, _, _ := strings.Cut(e.Member, " ")
		if sort := e.Index.Sort(); tried[sort] && e.Index != writ.IndexTodo || tried[sort+kind] {
			continue
		}
		tried[e.Index.Sort()], tried[e.Index.Sort()+kind] = true, true
		if !some() {
			continue
		}
		g.commit(func(tx *writ.Tx) { tx.Unindex(e.Index, e.Member) })
		mend("without " + string(e.Index) + " " + e.Member)
		if !loose(e) {
			g.commit(func(tx *writ.Tx) { tx.Index(e.Index, e.Member, before.entries[e]+7_000_000) })
			mend("at another score " + string(e.Index) + " " + e.Member)
		}
	}
	for _, want := range []string{
		"list.runs", "list.agents", "list.sessions", "list.approvals", "list.tasks", "list.children", "list.by", "list.tools", "list.routes", "list.verify", "list.dead",
		"due.lease", "due.ready", "due.life", "due.beat", "due.approval", "due.todo", "v.held", "v.sessions", "v.waiting", "v.blocked", "v.dependents", "scope.x", "refused",
		"list.backlog", "list.blob", "list.artifacts", "due.todostall", "due.todountangle", "due.todoartifacts", "due.todorefill",
	} {
		if !tried[want] {
			t.Errorf("no member of %s was lost", want)
		}
	}
	for _, e := range bogus(p) {
		if !some() {
			continue
		}
		g.commit(func(tx *writ.Tx) { tx.Index(e.Index, e.Member, e.Score) })
		mend("with " + string(e.Index) + " " + e.Member)
	}
	sorts := map[string]bool{}
	for _, c := range slices.SortedFunc(maps.Keys(before.counters), func(a, b writ.Counter) int { return strings.Compare(a.Entity+a.Field, b.Entity+b.Field) }) {
		if c.Field == "unmet" && before.counters[c] == 0 {
			continue // it does not wait, and what it counted does not matter
		}
		if sorts[c.Sort()] && before.counters[c] == 0 {
			continue
		}
		sorts[c.Sort()] = true
		off := []int64{3, -1}
		if c.Sort() == "task.place" { // one more or less may be another place, which follows from nothing
			off = []int64{3, -5}
		}
		for _, n := range off {
			if !some() {
				continue
			}
			g.commit(func(tx *writ.Tx) { tx.Add(c, n) })
			mend(fmt.Sprintf("%v off by %d", c, n))
		}
	}
	for _, want := range []string{"run.open", "run.bad", "run.held", "agent.running", "quota.used", "approvals.pending", "task.unmet", "task.place", "run.offered", "run.backlog"} {
		if !sorts[want] {
			t.Errorf("no counter %s was off", want)
		}
	}
	for _, e := range slices.Sorted(maps.Keys(before.lanes)) {
		lane, entry, _ := strings.Cut(e, " ")
		if !some() {
			continue
		}
		g.drop(writ.Lane(lane), entry)
		mend("a lane without " + entry)
		for _, odd := range []string{"tsk_01ARYZ6S410000000000000000", "what", string(p.timed)} {
			at := writ.Lane(lane)
			if odd == string(p.timed) {
				at = "9/site.build/web"
			}
			g.commit(func(tx *writ.Tx) { tx.Push(at, odd) })
			mend("a lane with " + odd)
		}
	}
	seed := rand.Uint64()
	for round := range 6 {
		r := rand.New(rand.NewPCG(seed, uint64(round)))
		g.random(r, p, before, entries)
		mend(fmt.Sprintf("seed %d, round %d", seed, round))
	}
	g.elsewhere(rand.New(rand.NewPCG(seed, 99)), p)
	goesOn(t, d, p)
}

// elsewhere says of tasks that they are in another place than they are. What is made of
// that is not what was, and holds together.
func (g damage) elsewhere(r *rand.Rand, p patients) {
	g.t.Helper()
	for range 4 {
		for _, id := range append([]writ.TaskID{p.queued, p.going}, p.behind...) {
			g.commit(func(tx *writ.Tx) { tx.Add(writ.TaskPlace(id), r.Int64N(3)-1) })
		}
		if got, err := repairIndexes(g.t.Context(), g.d.store, g.d.door); err != nil || !got.Left.OK() {
			g.t.Fatalf("with places that are others: %+v, %v", got, err)
		}
		soundQueue(g.t, g.d, "with other places")
	}
}

// random does many things at once.
func (g damage) random(r *rand.Rand, p patients, before derived, entries []writ.Entry) {
	waits := r.IntN(2) == 0  // of the two sides of waiting one must be left
	places := r.IntN(2) == 0 // of a place, and what shows it, too
	shows := func(e writ.Entry) bool {
		return strings.HasPrefix(string(e.Index), "v/blocked/") || strings.HasPrefix(string(e.Index), "list/backlog/")
	}
	for _, e := range entries {
		if places && shows(e) {
			continue
		}
		if kept := strings.HasPrefix(string(e.Index), "v/waiting/"); kept == waits && (kept || strings.HasPrefix(string(e.Index), "v/blocked/")) {
			continue
		}
		switch r.IntN(6) {
		case 0, 1:
			g.commit(func(tx *writ.Tx) { tx.Unindex(e.Index, e.Member) })
		case 2:
			if e.Index == writ.IndexTodo || e.Index == writ.IndexExpiries || !strings.HasPrefix(string(e.Index), "due/") {
				continue // who is called too early looks again; other lists have one score
			}
			g.commit(func(tx *writ.Tx) { tx.Index(e.Index, e.Member, r.Int64N(writ.MaxAmount)) })
		}
	}
	for _, e := range bogus(p) {
		if r.IntN(3) == 0 && (waits || !strings.HasPrefix(string(e.Index), "v/blocked/")) && !(places && shows(e)) {
			g.commit(func(tx *writ.Tx) { tx.Index(e.Index, e.Member, e.Score) })
		}
	}
	for c, n := range before.counters {
		switch {
		case r.IntN(3) > 0 || c.Field == "unmet" && n == 0:
		case c.Field != "place":
			g.commit(func(tx *writ.Tx) { tx.Add(c, 1+r.Int64N(9)-5) })
		case places:
			g.commit(func(tx *writ.Tx) { tx.Add(c, 3+r.Int64N(3)) })
		}
	}
	for e := range before.lanes {
		lane, entry, _ := strings.Cut(e, " ")
		if r.IntN(2) == 0 {
			g.drop(writ.Lane(lane), entry)
		}
	}
	g.commit(func(tx *writ.Tx) { tx.Unindex(writ.IndexRuns, string(p.run)) })
}

// mendedBy is what a receipt says was mended.
func mendedBy(t *testing.T, d *Daemon, id writ.ReceiptID) map[string]int64 {
	t.Helper()
	found, err := d.archive().Read(t.Context(), shard, writ.ArchiveRead{Receipt: id, Limit: 1})
	if err != nil || len(found) != 1 {
		t.Fatalf("receipt %s: %v, %v", id, found, err)
	}
	var st struct {
		Predicate struct {
			Transition string        `json:"transition"`
			Changes    []writ.Change `json:"changes"`
		} `json:"predicate"`
	}
	if err := json.Unmarshal(found[0].Payload, &st); err != nil || st.Predicate.Transition != "queue.repair" {
		t.Fatalf("receipt %s is of %s, %v", id, st.Predicate.Transition, err)
	}
	out := map[string]int64{}
	for _, c := range st.Predicate.Changes {
		var n int64
		part := strings.Split(c.ID, "/")
		if c.Kind != writ.ObjectRepair || len(part) != 3 || part[0] != string(id) {
			t.Fatalf("receipt %s has the change %+v", id, c)
		}
		if _, err := fmt.Sscan(part[2], &n); err != nil {
			t.Fatal(err)
		}
		out[part[1]] += n
	}
	return out
}

// goesOn works on what was mended until the run has ended.
func goesOn(t *testing.T, d *Daemon, p patients) {
	t.Helper()
	if err := p.worker.do("task.complete", p.holds.args(nil), nil); err != nil {
		t.Fatal(err)
	}
	s := guard.NewSweeper(d.door, guard.SweeperConfig{Shards: []writ.Tenant{shard}, Dues: dues()})
	got := map[writ.TaskID]bool{}
	for swept := false; ; {
		var h held
		if err := p.worker.do("task.claim", map[string]any{}, &h); err != nil {
			t.Fatal(err)
		}
		if h.Task.ID == "" && swept {
			break
		}
		if swept = h.Task.ID == ""; swept { // what waits in a backlog comes when it is fetched
			s.Sweep(t.Context(), false)
			continue
		}
		got[h.Task.ID] = true
		if err := p.worker.do("task.complete", h.args(nil), nil); err != nil {
			t.Fatal(err)
		}
	}
	if !got[p.waiting] || !got[p.queued] || got[p.timed] || got[p.blocked] {
		t.Errorf("claimed %v of %+v", got, p)
	}
	if err := p.boss.do("run.cancel", map[string]any{"run_id": p.run}, nil); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		s.Sweep(t.Context(), false)
	}
	if open := readOf(t, d, writ.ReadSet{Counters: []writ.Counter{writ.RunOpenTasks(p.run)}}).Counters[writ.RunOpenTasks(p.run)]; open != 0 {
		t.Errorf("%d tasks of the run are open after its end", open)
	}
	soundQueue(t, d, "at the end")
}

// A repair beside nothing that runs, as the command makes it: of a gateway that was
// stopped, and of one document that contradicts itself.
func TestRepairOfAStoppedGateway(t *testing.T) {
	d, op, _ := start(t, t.TempDir())
	p := newPatients(t, d, op)
	g := damage{t, d}
	g.commit(func(tx *writ.Tx) {
		tx.Unindex(writ.IndexRuns, string(p.run))
		tx.Add(writ.RunOpenTasks(p.run), 5)
	})
	stopDaemon(t, d)
	r, err := RepairQueue(t.Context(), d.cfg, slog.New(slog.DiscardHandler))
	if err != nil || !r.Left.OK() || !maps.Equal(r.Mended, map[string]int64{"list.runs": 1, "run.open": 1}) || len(r.Receipts) != 2 {
		t.Fatalf("got %+v, %v", r, err)
	}
	if again, err := RepairQueue(t.Context(), d.cfg, slog.New(slog.DiscardHandler)); err != nil || len(again.Receipts) != 0 || !again.Before.OK() {
		t.Errorf("once more: %+v, %v", again, err)
	}
	if look, err := ExamineQueue(t.Context(), d.cfg); err != nil || !look.OK() {
		t.Errorf("afterwards: %+v, %v", look, err)
	}
}
