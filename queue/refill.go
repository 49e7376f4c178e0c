package queue

import (
	"strings"

	"github.com/writ-gateway/writ"
)

// TaskRefillArgs name a backlog.
type TaskRefillArgs struct {
	Run  writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Lane writ.Lane  `json:"lane" doc:"The lane the tasks wait for." maxLength:"256"`
}

// refillBatch is how many tasks one call fetches from a backlog: each is four operations.
const refillBatch = 96

const opRefill = "queue.Refill"

// page is one more than there ever is room for.
func (a *TaskRefillArgs) page() writ.Range { return writ.BacklogOf(a.Run, a.Lane, int(window)+1) }

// due are the members to fetch now, the oldest first.
func (a *TaskRefillArgs) due(s writ.Snapshot) []writ.Member {
	members := s.Ranges[a.page()].Members
	room := max(0, window-s.Counters[writ.RunOffered(a.Run, a.Lane)])
	return members[:min(int64(len(members)), room, refillBatch)]
}

func (a *TaskRefillArgs) task(m writ.Member) writ.TaskID {
	return writ.TaskID(strings.TrimPrefix(m.Name, string(a.Lane)+" "))
}

// refillCapability fetches tasks from the backlog of a run into their lane, as many as
// there is room for. The tasks' documents do not change: where one is says its place.
func refillCapability() *writ.Capability {
	return writ.Define[TaskRefillArgs, Swept](mandate("task.refill", "Offer tasks of a run that waited until fewer of them were offered."), writ.Verb[TaskRefillArgs]{
		Reads: func(_ *writ.Call, a *TaskRefillArgs, s writ.Snapshot) (writ.ReadSet, error) {
			if !a.Run.Valid() || !writ.ValidName(string(a.Lane)) {
				return writ.ReadSet{}, notFound(opRefill, "run")
			}
			rs := writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.Run)}, Counters: laneReads(a.Run, a.Lane), Ranges: []writ.Range{a.page()}}
			for _, m := range a.due(s) {
				rs.Counters = append(rs.Counters, writ.TaskPlace(a.task(m)))
			}
			return rs, nil
		},
		Plan: refillPlan,
	})
}

func refillPlan(c *writ.Call, a *TaskRefillArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	r, ok, err := peek[writ.Run](s, writ.RunKey(a.Run))
	if err != nil {
		return writ.Tx{}, writ.Reply{}, err
	}
	d, out := begin(opRefill, c, s), Swept{}
	done := func() { d.tx.Unindex(writ.IndexTodo, todoRefillOf(a.Run, a.Lane)) }
	if !ok || !r.Begins() { // who met its tasks would be refused them; run.offer comes when it goes on
		done()
		return d.swept(out, nil)
	}
	offered, backlog := writ.RunOffered(a.Run, a.Lane), writ.RunBacklog(a.Run, a.Lane)
	w := d.window(a.Run, a.Lane)
	for _, m := range a.due(s) {
		id := a.task(m)
		place := writ.TaskPlace(id)
		was := d.read(place)
		d.exactly(place)
		d.tx.Unindex(writ.Backlog(a.Run), m.Name)
		if was != placeBacklog { // it left between two reads
			continue
		}
		w.backlog--
		w.offered++
		d.set(place, placeOffered)
		d.tx.Push(a.Lane, string(id))
		out.Changed++
	}
	// The follow-up goes only if nothing waits for it: the backlog is empty, and stays
	// so until the commit, or so much is offered that whoever takes of it leaves another.
	switch members := s.Ranges[a.page()].Members; {
	case len(a.due(s)) == len(members):
		done()
		d.tx.Within(backlog, -writ.MaxAmount, d.seen(backlog))
	case d.seen(offered)+w.offered < window:
		out.More = true
	default:
		done()
		d.tx.Within(offered, lowWater+1-w.offered, writ.MaxAmount)
	}
	return d.swept(out, nil)
}
