package runs

import "github.com/writ-gateway/writ"

// RunCascadeArgs name a run that has ended.
type RunCascadeArgs struct {
	RunID writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// RunCascaded says how far it is.
type RunCascaded struct {
	Cancelled int64 `json:"cancelled" doc:"Child runs cancelled by this call."`
}

// cascadeBatch is how many children one call ends: as many as fit into its
// transaction however long their goals are.
const cascadeBatch = 4

// cascade ends the children of a run that has ended: nobody waits for them. Each
// call ends some, and leaves its entry until there are none.
func cascade() *writ.Capability {
	const op = "runs.Cascade"
	page := func(id writ.RunID) writ.Range {
		return writ.Range{Index: writ.RunChildrenOpen(id), Limit: cascadeBatch}
	}
	return writ.Define[RunCascadeArgs, RunCascaded](writ.Capability{
		ID: "run.cascade", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Cancel the child runs of a run that has ended.",
	}, writ.Verb[RunCascadeArgs]{
		Reads: func(_ *writ.Call, a *RunCascadeArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.RunID)}, Ranges: []writ.Range{page(a.RunID)}}
			for _, m := range s.Ranges[page(a.RunID)].Members {
				rs.Docs = append(rs.Docs, writ.RunKey(writ.RunID(m.Name)))
			}
			return rs, nil
		},
		Describe: func(_ *writ.Call, a *RunCascadeArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(s, a.RunID)
		},
		Plan: func(call *writ.Call, a *RunCascadeArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			out := RunCascaded{}
			run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			members := s.Ranges[page(a.RunID)].Members
			if !ok || !writ.RunMoves.Terminal(run.State) {
				members = nil
			}
			for _, m := range members {
				child, _, found, err := writ.Get[writ.Run](s, writ.RunKey(writ.RunID(m.Name)))
				if err != nil {
					return tx, r, err
				}
				if !found || writ.RunMoves.Terminal(child.State) { // ended between two reads
					tx.Unindex(writ.RunChildrenOpen(a.RunID), m.Name)
					continue
				}
				child.Reason = reasonParent
				if err := move(call, op, s, &tx, &child, writ.RunCancelled); err != nil {
					return tx, r, err
				}
				tx.Index(writ.IndexTodo, todoReap(child.ID), s.Now)
				out.Cancelled++
			}
			if len(members) < cascadeBatch {
				tx.Unindex(writ.IndexTodo, writ.TodoCascade(a.RunID))
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
