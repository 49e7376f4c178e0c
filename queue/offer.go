package queue

import (
	"strings"

	"github.com/writ-gateway/writ"
)

// RunOfferArgs name a run that goes on after a pause.
type RunOfferArgs struct {
	Run   writ.RunID  `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	After writ.TaskID `json:"after,omitempty" doc:"Task the last batch ended with." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

const opOffer = "queue.Offer"

// offerBatch is how many queued tasks one call offers again.
const offerBatch = 32

// todoOffer is the follow-up of a run that goes on: "offer <run>", later
// "offer <run> <task>" from where the last batch ended.
const todoOffer = "offer"

// OfferArgs reads the rest of a follow-up member for the sweeper.
func OfferArgs(rest string) map[string]any {
	run, after, found := strings.Cut(rest, " ")
	args := map[string]any{"run_id": run}
	if found {
		args["after"] = after
	}
	return args
}

func (a *RunOfferArgs) member() string {
	if a.After == "" {
		return todo(todoOffer, string(a.Run))
	}
	return todo(todoOffer, string(a.Run)+" "+string(a.After))
}

func (a *RunOfferArgs) page() writ.Range {
	r := writ.Range{Index: writ.RunTasksIn(a.Run, writ.TaskQueued), Limit: offerBatch}
	if a.After != "" {
		r.From = string(a.After) + "!"
	}
	return r
}

// offerCapability puts the queued tasks of a run that were set aside back into their
// lanes: while it was paused, or had nothing left to spend, whoever met one was refused
// it. Of what is in the backlog of the run the next are fetched. What lies in its lane
// lies there still: pushed again with every child run that ends, it would crowd out others.
func offerCapability() *writ.Capability {
	return writ.Define[RunOfferArgs, Swept](mandate("run.offer", "Offer the queued tasks of a run again that was paused."), writ.Verb[RunOfferArgs]{
		Reads: func(_ *writ.Call, a *RunOfferArgs, s writ.Snapshot) (writ.ReadSet, error) {
			if !a.Run.Valid() {
				return writ.ReadSet{}, notFound(opOffer, "run")
			}
			rs := writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.Run)}, Ranges: []writ.Range{a.page()}}
			for _, m := range s.Ranges[a.page()].Members {
				rs.Docs = append(rs.Docs, writ.TaskKey(writ.TaskID(m.Name)))
				rs.Ranges = append(rs.Ranges, refusers(writ.TaskID(m.Name)))
				t, ok, err := peek[writ.Task](s, writ.TaskKey(writ.TaskID(m.Name)))
				if err != nil {
					return rs, err
				}
				if ok {
					rs.Counters = append(rs.Counters, placeReads(t)...)
				}
			}
			return rs, nil
		},
		Plan: func(c *writ.Call, a *RunOfferArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			d, out := begin(opOffer, c, s), Swept{}
			d.tx.Unindex(writ.IndexTodo, a.member())
			members := s.Ranges[a.page()].Members
			for i, m := range members {
				if d.full() {
					members = members[:i]
					out.More = true
					break
				}
				t, ok, err := peek[writ.Task](s, writ.TaskKey(writ.TaskID(m.Name)))
				if err != nil {
					return writ.Tx{}, writ.Reply{}, err
				}
				if ok && t.State == writ.TaskQueued && t.NotBefore <= s.Now && d.aside(t) {
					d.accept(t)
					d.offer(t)
					out.Changed++
				}
			}
			if len(members) == offerBatch || out.More && len(members) > 0 {
				out.More = true
				next := RunOfferArgs{Run: a.Run, After: writ.TaskID(members[len(members)-1].Name)}
				d.tx.Index(writ.IndexTodo, next.member(), s.Now)
			}
			return d.swept(out, nil)
		},
	})
}

// aside says that a queued task is in none of its lanes because it was refused to
// somebody, or waits in the backlog. It wants placeReads and refusers.
func (d *draft) aside(t writ.Task) bool {
	if len(d.s.Ranges[refusers(t.ID)].Members) > 0 {
		return true
	}
	_, one := onlyLane(t)
	return one && d.read(writ.TaskPlace(t.ID)) == placeBacklog
}
