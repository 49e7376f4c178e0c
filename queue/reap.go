package queue

import (
	"github.com/writ-gateway/writ"
)

// RunReapArgs name a run that has ended.
type RunReapArgs struct {
	Run writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// reapBatch is how many tasks in one state a call looks at: what it reads of them
// all must leave room to change some. What does not fit into its transaction is
// left for the next.
const reapBatch = 12

// reapCapability cancels the tasks of a run that has ended. Running
// ones end by themselves: their holder learns it at the next heartbeat, or the
// lease runs out.
func reapCapability() *writ.Capability {
	return writ.Define[RunReapArgs, Swept](mandate("run.reap", "Cancel the queued tasks of a run that has ended."), writ.Verb[RunReapArgs]{
		Locks:    func(_ *writ.Call, a *RunReapArgs) []writ.Key { return []writ.Key{writ.RunKey(a.Run)} },
		Reads:    reapReads,
		Describe: reapDescribe,
		Plan:     reapPlan,
	})
}

const opReap = "queue.Reap"

// idleOf are the tasks of a run nobody works on.
func idleOf(id writ.RunID) []writ.Range {
	return []writ.Range{
		{Index: writ.RunTasksIn(id, writ.TaskQueued), Limit: reapBatch},
		{Index: writ.RunTasksIn(id, writ.TaskParked), Limit: reapBatch},
		{Index: writ.RunTasksIn(id, writ.TaskBlocked), Limit: reapBatch},
		{Index: writ.RunTasksIn(id, writ.TaskVerifying), Limit: reapBatch},
	}
}

func reapReads(_ *writ.Call, a *RunReapArgs, s writ.Snapshot) (writ.ReadSet, error) {
	if !a.Run.Valid() {
		return writ.ReadSet{}, notFound(opReap, "run")
	}
	rs := writ.ReadSet{
		Docs:     []writ.Key{writ.RunKey(a.Run)},
		Counters: []writ.Counter{writ.RunOpenTasks(a.Run), writ.RunBadTasks(a.Run)},
		Ranges:   idleOf(a.Run),
	}
	for _, list := range idleOf(a.Run) {
		for _, m := range s.Ranges[list].Members {
			id := writ.TaskID(m.Name)
			rs.Docs = append(rs.Docs, writ.TaskKey(id))
			rs.Counters = append(rs.Counters, leaseEnd(id))
			rs.Ranges = append(append(rs.Ranges, queueReads(id)...), waiters(id, wakeAtOnce+1), dependents(id))
			t, ok, err := peek[writ.Task](s, writ.TaskKey(id))
			if err != nil {
				return rs, err
			}
			if ok {
				rs.Counters = append(rs.Counters, placeReads(t)...)
			}
		}
	}
	return rs, nil
}

func reapDescribe(_ *writ.Call, a *RunReapArgs, s writ.Snapshot) (writ.Subject, error) {
	return describeRun(opReap, s, a.Run, nil)
}

func reapPlan(c *writ.Call, a *RunReapArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	r, err := loadRun(opReap, s, a.Run)
	if err != nil {
		return writ.Tx{}, writ.Reply{}, err
	}
	d := begin(opReap, c, s)
	if !writ.RunMoves.Terminal(r.State) {
		d.tx.Unindex(writ.IndexTodo, todo(todoRun, string(a.Run)))
		return d.swept(Swept{}, nil)
	}
	var members []writ.Member
	out := Swept{}
	for _, list := range idleOf(a.Run) {
		members = append(members, s.Ranges[list].Members...)
		out.More = out.More || len(s.Ranges[list].Members) == reapBatch
	}
	for _, m := range members {
		if d.full() {
			out.More = true
			break
		}
		t, _, err := loadTask(opReap, s, writ.TaskID(m.Name))
		if err != nil {
			return writ.Tx{}, writ.Reply{}, err
		}
		from := t.State
		if from == writ.TaskRunning || writ.TaskMoves.Terminal(from) {
			continue // claimed or cancelled between two reads
		}
		d.quit(&t)
		if err := d.end(&t, from, writ.TaskCancelled); err != nil {
			return writ.Tx{}, writ.Reply{}, err
		}
		out.Changed++
	}
	// No task enters the queue of a run that has ended, so the last batch is
	// the last.
	if !out.More {
		d.tx.Unindex(writ.IndexTodo, todo(todoRun, string(a.Run)))
	}
	return d.swept(out, nil)
}
