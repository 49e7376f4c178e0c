package runs

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// RunCloseArgs are the verdict on a run.
type RunCloseArgs struct {
	RunID   writ.RunID     `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Verdict writ.Verdict   `json:"verdict" doc:"Accept: the run is done. Reject: it takes tasks again, so that its owner can have the work mended." enum:"accept,reject"`
	Receipt writ.ReceiptID `json:"receipt_id" doc:"Receipt of the run's last change, as read: nothing in it has moved since, so this is what the verdict is about." pattern:"^rcp_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Tasks   []TaskEvidence `json:"tasks,omitempty" doc:"Tasks the verdict rests on, each with the receipt of its last change." maxItems:"64"`
	Reasons []string       `json:"reasons,omitempty" doc:"Why, in short names; a rejection gives one." maxItems:"8" pattern:"^[a-z][a-z0-9_.-]{0,63}$"`
	Signed  string         `json:"verdict_dsse,omitempty" doc:"The verdict signed with the verifier's own key: a DSSE envelope or a Sigstore bundle, as text. An agent that has registered keys must sign." maxLength:"49152"`
}

// SignedVerdict is the verifier's own signature, not yet checked.
func (a *RunCloseArgs) SignedVerdict() string { return a.Signed }

// Witnessed is what evidence keeps of them.
func (a *RunCloseArgs) Witnessed() any {
	kept := *a
	kept.Signed = writ.NotedVerdict(a.Signed)
	return &kept
}

// TaskEvidence is a task as somebody saw it who judges its run.
type TaskEvidence struct {
	Task    writ.TaskID    `json:"task_id" doc:"The task." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Receipt writ.ReceiptID `json:"receipt_id" doc:"Receipt of its last change." pattern:"^rcp_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// closing is run.close: how a run ends that somebody else must accept. In
// verifying nothing of a run moves and nobody takes a part in it, but somebody may
// in another run of its tree, so the commit expects that the caller still had none;
// whatever policy says, who had one does not judge. There is no way past it: an operator can only cancel the run.
func closing(cfg Config) *writ.Capability {
	const op = "runs.Close"
	return writ.Define[RunCloseArgs, RunView](writ.Capability{
		ID: "run.close", Safety: writ.SafetyMutating, Durability: writ.DurabilityLogged, Summary: "Accept a run that waits for its verdict, or send it back.",
		Example: `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N","verdict":"accept","receipt_id":"rcp_01M89R8776WWQMDZ1SS4766DAD"}`,
	}, writ.Verb[RunCloseArgs]{
		Locks: func(_ *writ.Call, a *RunCloseArgs) []writ.Key { return []writ.Key{writ.RunKey(a.RunID)} },
		Reads: func(call *writ.Call, a *RunCloseArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := readRun(a.RunID)
			if call.Caller.Agent != "" {
				rs.Docs = append(rs.Docs, writ.AgentKey(call.Caller.Agent))
			}
			for _, t := range a.Tasks {
				rs.Docs = append(rs.Docs, writ.TaskKey(t.Task))
			}
			if !s.Has(writ.RunKey(a.RunID)) {
				return rs, nil // the parts are read after the state that lets none be added
			}
			run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil || !ok {
				return rs, err
			}
			keys, err := keysOf(call, s)
			rs.Ranges = append(rs.Ranges, writ.DutyReads(run.Tree(), call.Caller, keys)...)
			if err == nil && votes(run) {
				var before writ.ReadSet
				before, err = writ.BallotReads(s, string(run.ID), run.Receipt, run.Tree())
				rs = rs.Join(before)
			}
			rs.Ranges = append(rs.Ranges, owed(run.ID))
			if (a.Verdict == writ.VerdictAccept || a.Signed != "") && run.State == writ.RunVerifying {
				made := artifacts(run.ID)
				rs.Ranges = append(rs.Ranges, made)
				if err == nil && judges(s, run, call.Caller, keys) { // nobody else has anything looked into
					if a.Verdict == writ.VerdictAccept {
						rs.Blobs = digests(s.Ranges[made].Members)
					}
					var signed writ.ReadSet
					signed, err = writ.VerdictReads(cfg.Verdicts, a.Signed, run.Receipt)
					rs = rs.Join(signed)
				}
			}
			return rs, err
		},
		Describe: func(call *writ.Call, a *RunCloseArgs, s writ.Snapshot) (writ.Subject, error) {
			sub, err := describe(s, a.RunID)
			if err != nil {
				return sub, err
			}
			run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return sub, err
			}
			if !ok {
				return sub, noRun(op)
			}
			if sub.Agent, err = agentFacts(call, s); err != nil {
				return sub, err
			}
			keys, err := keysOf(call, s)
			sub.Duty = writ.DutyIn(s, run.Tree(), call.Caller, keys)
			return sub, err
		},
		Plan: func(call *writ.Call, a *RunCloseArgs, s writ.Snapshot, dec writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			run, version, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			if !ok {
				return tx, r, noRun(op)
			}
			keys, err := keysOf(call, s)
			if err != nil {
				return tx, r, err
			}
			switch d := writ.DutyIn(s, run.Tree(), call.Caller, keys); {
			case call.Caller.Role != writ.RoleVerifier || !d.Independent():
				return tx, r, writ.Refuse(writ.CodeSoD, op, "nobody judges a run they had a part in, and only verifiers do", "a verifier who had none must do it; sessions that answer to the same person count as one, so open it with a controller of its own")
			case run.State != writ.RunVerifying:
				return tx, r, writ.IllegalMove(op, writ.ObjectRun, string(run.State), string(writ.RunDone))
			}
			if err := call.Match(op, version); err != nil {
				return tx, r, err
			}
			if err := shown(op, s, run, a); err != nil {
				return tx, r, err
			}
			if err := tx.Vouch(op, cfg.Verdicts, a.Signed, s, call, dec, run.Receipt, digests(s.Ranges[artifacts(run.ID)].Members), writ.VerdictWant{
				Agent: call.Caller.Agent, Keys: keys, Properties: writ.VerdictProperties(writ.VerdictOn(writ.ObjectRun, string(a.RunID)), a.Verdict, nil, a.Reasons),
			}); err != nil {
				return tx, r, err
			}
			switch {
			case a.Verdict == writ.VerdictAccept:
				if err = passed(op, s, run.ID); err == nil {
					err = sound(op, s, run.ID)
				}
				tx.Free(writ.RunOwed(run.ID), "a", "{", "")
			case a.Verdict != writ.VerdictReject:
				err = invalid(op, "/verdict", "must be accept or reject")
			case len(a.Reasons) == 0:
				err = invalid(op, "/reasons", "a rejection gives at least one")
			}
			if err != nil {
				return tx, r, err
			}
			tx.ExpectNoPart(run.Tree(), call.Caller, keys)
			tx.Mandate = true // the end of work
			pending, err := tx.Vote(op, s, call, writ.Judgement{
				ID: string(run.ID), About: run.Receipt, Tree: run.Tree(), Quorum: run.CloseQuorum, Accept: a.Verdict == writ.VerdictAccept, Keys: keys,
			})
			switch {
			case err != nil:
				return tx, r, err
			case pending != nil: // the run is where it was
				v := view(run, s, version)
				v.Votes = pending
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: v, ETag: version}, nil
			}
			to := writ.RunDone
			if a.Verdict == writ.VerdictReject {
				run.Rework++
				if to, run.Sealed = writ.RunActive, false; run.Rework > writ.MaxRunRework {
					to, run.Sealed, run.Reason = writ.RunFailed, true, reasonVerdict
				}
			}
			if err := move(call, op, s, &tx, &run, to); err != nil {
				return tx, r, err
			}
			if to == writ.RunActive {
				tx.Index(writ.IndexTodo, writ.TodoOverrun(run.ID), run.TimeUp())
			}
			tx.BallotLast()
			return tx, changed(writ.OutcomeDone, run, s), nil
		},
	})
}

// votes says whether a run waits for several verdicts.
func votes(run writ.Run) bool { return run.State == writ.RunVerifying && run.CloseQuorum > 1 }

// agentOf is the caller's agent, as far as read.
func agentOf(call *writ.Call, s writ.Snapshot) (a writ.Agent, ok bool, err error) {
	if call.Caller.Agent == "" || !s.Has(writ.AgentKey(call.Caller.Agent)) {
		return a, false, nil
	}
	a, _, ok, err = writ.Get[writ.Agent](s, writ.AgentKey(call.Caller.Agent))
	return a, ok, err
}

// keysOf are the keys the caller's agent signs with.
func keysOf(call *writ.Call, s writ.Snapshot) ([]writ.PublicKey, error) {
	a, _, err := agentOf(call, s)
	return a.Keys, err
}

func agentFacts(call *writ.Call, s writ.Snapshot) (*writ.AgentFacts, error) {
	a, ok, err := agentOf(call, s)
	if err != nil || !ok {
		return nil, err
	}
	return &writ.AgentFacts{ID: a.ID, Status: a.State, Domain: a.Domain, WriteScope: a.WriteScope}, nil
}

// shown refuses a verdict on something else than there is: it names whatever is
// missing or out of date.
func shown(op string, s writ.Snapshot, run writ.Run, a *RunCloseArgs) error {
	var missing []string
	if a.Receipt != run.Receipt {
		missing = append(missing, "receipt_id")
	}
	for i, e := range a.Tasks {
		t, _, ok, err := writ.Get[writ.Task](s, writ.TaskKey(e.Task))
		if err != nil {
			return err
		}
		if !ok || t.Run != run.ID || t.State != writ.TaskDone || t.Receipt != e.Receipt {
			missing = append(missing, "tasks/"+strconv.Itoa(i))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return writ.Refuse(writ.CodePredicate, op, "the verdict is about something else than what there is now", "read the run and its tasks again, and judge what is there").
		With("missing", strings.Join(missing, ","))
}
