package queue

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// TaskVerification says that the result of a task must be accepted.
type TaskVerification struct {
	Required  bool           `json:"required" doc:"Whether the task is done only once a verifier who had no part in its run has accepted its result."`
	Agents    []writ.AgentID `json:"agents,omitempty" doc:"If present, only these agents may judge it." maxItems:"8"`
	Gates     []string       `json:"gates,omitempty" doc:"What must have passed before a verdict accepts it. A name with a dot is a gate, the tool of an agent: a task of the run that depends on this one shows it (when: given). Any other is a check that the verifier makes, and reports." maxItems:"16" pattern:"^[a-z][a-z0-9_.-]{0,63}$"`
	MaxRework *int64         `json:"max_rework,omitempty" doc:"How often the result may be sent back before the task fails. Default 2." minimum:"0" maximum:"20"`
	Quorum    *int64         `json:"quorum,omitempty" doc:"How many verifiers must accept it, each somebody else than the others. One that rejects is enough to send it back. Default 1." minimum:"1" maximum:"5"`
}

const defaultMaxRework = 2

// verification brings it into its stored form; nil when nobody need judge.
func (v *TaskVerification) stored(op string) (*writ.Verification, error) {
	if v == nil || !v.Required {
		return nil, nil
	}
	for i, a := range v.Agents {
		if !a.Valid() {
			return nil, invalid(op, "/verify/agents/"+strconv.Itoa(i), "must be a slug")
		}
	}
	sorted := func(in []string) []string {
		out := slices.Clone(in)
		slices.Sort(out)
		return slices.Compact(out)
	}
	out := &writ.Verification{Agents: slices.Clone(v.Agents), Gates: sorted(v.Gates), MaxRework: orDefault(v.MaxRework, defaultMaxRework)}
	slices.Sort(out.Agents)
	out.Agents = slices.Compact(out.Agents)
	switch n := orDefault(v.Quorum, 1); {
	case n < 1 || n > writ.MaxQuorum:
		return nil, invalid(op, "/verify/quorum", "must be 1 to 5")
	case len(out.Agents) > 0 && n > int64(len(out.Agents)):
		return nil, invalid(op, "/verify/quorum", "is more than the agents that may judge")
	case n > 1:
		out.Quorum = n
	}
	return out, nil
}

// TaskVerifyArgs are the verdict on the result of a task.
type TaskVerifyArgs struct {
	Task    writ.TaskID    `json:"task_id" doc:"The task." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Verdict writ.Verdict   `json:"verdict" doc:"Accept: the task is done. Reject: it is queued again, or fails when it was sent back too often." enum:"accept,reject"`
	Receipt writ.ReceiptID `json:"receipt_id" doc:"Receipt of the task's last change, as read: that is what the verdict is about." pattern:"^rcp_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Gates   []GateResult   `json:"gates,omitempty" doc:"What the checks gave that the task asks for." maxItems:"16"`
	Reasons []string       `json:"reasons,omitempty" doc:"Why, in short names; a rejection gives one." maxItems:"8" pattern:"^[a-z][a-z0-9_.-]{0,63}$"`
	Signed  string         `json:"verdict_dsse,omitempty" doc:"The verdict signed with the verifier's own key: a DSSE envelope or a Sigstore bundle, as text. An agent that has registered keys must sign." maxLength:"49152"`
}

// SignedVerdict is the verifier's own signature, not yet checked.
func (a *TaskVerifyArgs) SignedVerdict() string { return a.Signed }

// Witnessed is what evidence keeps of them.
func (a *TaskVerifyArgs) Witnessed() any {
	kept := *a
	kept.Signed = writ.NotedVerdict(a.Signed)
	return &kept
}

// GateResult is what a check gave.
type GateResult struct {
	Gate    string          `json:"gate" doc:"Name of the check." pattern:"^[a-z][a-z0-9_.-]{0,63}$"`
	Status  writ.GateStatus `json:"status" doc:"What it gave." enum:"pass,fail"`
	Receipt writ.ReceiptID  `json:"receipt_id,omitempty" doc:"Of a gate, whose name has a dot: receipt of the task that showed it, as task.get says." pattern:"^rcp_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

const opVerify = "queue.Verify"

// verifyCapability is task.verify: how a task ends whose result somebody else
// must accept. Whatever policy says, who had a part in the run does not judge.
func verifyCapability(cfg Config) *writ.Capability {
	return writ.Define[TaskVerifyArgs, TaskView](writ.Capability{
		ID: "task.verify", Summary: "Accept the result of a task, or send it back.", Safety: writ.SafetyMutating,
		Example: `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC","verdict":"accept","receipt_id":"rcp_01M89R8776WWQMDZ1SS4766DAD","gates":[{"gate":"tests","status":"pass"}]}`,
	}, writ.Verb[TaskVerifyArgs]{
		Locks: func(_ *writ.Call, a *TaskVerifyArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(c *writ.Call, a *TaskVerifyArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := leaveReads(opVerify, s, a.Task)
			rs.Docs = append(rs.Docs, callerAgent(c)...)
			if err != nil {
				return rs, err
			}
			t, ok, err := peek[writ.Task](s, writ.TaskKey(a.Task))
			if err != nil || !ok {
				return rs, err
			}
			if votes(t) {
				rs.Docs = append(rs.Docs, writ.BallotKey(t.ID))
			}
			if len(t.Owes) > 0 {
				rs.Docs = append(rs.Docs, writ.GatesKey(t.ID))
			}
			r, ok, err := peek[writ.Run](s, writ.RunKey(t.Run))
			if err != nil || !ok {
				return rs, err
			}
			keys, err := callerKeys(c, s)
			rs.Ranges = append(rs.Ranges, writ.DutyReads(r.Tree(), c.Caller, keys)...)
			if votes(t) {
				before, err := writ.BallotReads(s, string(t.ID), t.Receipt, r.Tree())
				if err != nil {
					return rs, err
				}
				rs = rs.Join(before)
			}
			if t.HandedTo != "" { // sent back, it was not handed on
				rs.Docs = append(rs.Docs, writ.TaskKey(t.HandedTo), writ.HandoffKey(t.ID))
				rs.Ranges = append(rs.Ranges, dependents(t.HandedTo))
			}
			if t.State == writ.TaskVerifying && partsRead(s, rs) {
				if _, err := mayJudge(c, s, r, t); err == nil { // nobody else has anything looked into
					if a.Verdict == writ.VerdictAccept {
						rs.Blobs = digests(t)
					}
					signed, err := writ.VerdictReads(cfg.Verdicts, a.Signed, t.Receipt)
					if err != nil {
						return rs, err
					}
					rs = rs.Join(signed)
				}
			}
			return rs.Join(releaseReads(s, a.Task)), err
		},
		Describe: func(c *writ.Call, a *TaskVerifyArgs, s writ.Snapshot) (writ.Subject, error) {
			t, _, r, err := loadBoth(opVerify, s, a.Task)
			if err != nil {
				return writ.Subject{}, err
			}
			sub, err := subjectIn(r, c, s, t)
			if err != nil {
				return sub, err
			}
			sub.Scopes = nil // a verdict writes nowhere, wherever the task does
			keys, err := callerKeys(c, s)
			sub.Duty = writ.DutyIn(s, r.Tree(), c.Caller, keys)
			return sub, err
		},
		Plan: func(c *writ.Call, a *TaskVerifyArgs, s writ.Snapshot, d writ.Decision) (writ.Tx, writ.Reply, error) {
			return verifyPlan(cfg, c, a, s, d)
		},
	})
}

// votes says whether a task waits for several verdicts.
func votes(t writ.Task) bool {
	return t.State == writ.TaskVerifying && t.Verify != nil && t.Verify.Quorum > 1
}

// callerKeys are the keys the caller's agent signs with, as far as read.
func callerKeys(c *writ.Call, s writ.Snapshot) ([]writ.PublicKey, error) {
	if c.Caller.Agent == "" {
		return nil, nil
	}
	a, _, err := peek[writ.Agent](s, writ.AgentKey(c.Caller.Agent))
	return a.Keys, err
}

func verifyPlan(cfg Config, c *writ.Call, a *TaskVerifyArgs, s writ.Snapshot, dec writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, r, err := loadBoth(opVerify, s, a.Task)
	if err != nil {
		return refuse(err)
	}
	keys, err := mayJudge(c, s, r, t)
	if err != nil {
		return refuse(err)
	}
	if t.State != writ.TaskVerifying {
		return refuse(writ.IllegalMove(opVerify, writ.ObjectTask, string(t.State), string(writ.TaskDone)))
	}
	if err := c.Match(opVerify, version); err != nil {
		return refuse(err)
	}
	if writ.RunMoves.Terminal(r.State) { // its end cancels the task
		return refuse(runEnded(opVerify, r))
	}
	missing, err := unproved(s, t, a)
	if err != nil {
		return refuse(err)
	}
	if len(missing) > 0 {
		return refuse(writ.Refuse(writ.CodePredicate, opVerify, "the verdict is about something else than what there is now, or a check the task asks for has not passed",
			"read the task again, and judge what is there").With("missing", strings.Join(missing, ",")))
	}
	d := begin(opVerify, c, s)
	if err := d.tx.Vouch(opVerify, cfg.Verdicts, a.Signed, s, c, dec, t.Receipt, digests(t), writ.VerdictWant{
		Agent: c.Caller.Agent, Keys: keys, Properties: writ.VerdictProperties(writ.VerdictOn(writ.ObjectTask, string(t.ID)), a.Verdict, passed(a.Gates), a.Reasons),
	}); err != nil {
		return refuse(err)
	}
	switch {
	case a.Verdict == writ.VerdictAccept:
		err = sound(opVerify, s, digests(t))
	case a.Verdict != writ.VerdictReject:
		err = invalid(opVerify, "/verdict", "must be accept or reject")
	case len(a.Reasons) == 0:
		err = invalid(opVerify, "/reasons", "a rejection gives at least one")
	}
	if err != nil {
		return refuse(err)
	}
	d.tx.Mandate = true // the end of work
	d.tx.ExpectNoPart(r.Tree(), c.Caller, keys)
	pending, err := d.tx.Vote(opVerify, s, c, writ.Judgement{
		ID: string(t.ID), About: t.Receipt, Tree: r.Tree(), Quorum: t.Verify.Quorum, Accept: a.Verdict == writ.VerdictAccept, Keys: keys,
	})
	switch {
	case err != nil:
		return refuse(err)
	case pending != nil: // the task is where it was
		v := viewOf(t, version)
		v.Votes = pending
		return d.tx, writ.Reply{Outcome: writ.OutcomeDone, Body: v, ETag: version}, nil
	}
	d.tx.Unindex(writ.IndexVerify, string(t.ID))
	if a.Verdict == writ.VerdictAccept {
		t.Verified = true
		err = d.end(&t, writ.TaskVerifying, writ.TaskDone)
	} else {
		err = d.sendBack(&t)
	}
	if err != nil {
		return refuse(err)
	}
	tx, err := d.done()
	tx.BallotLast()
	return tx, d.ended(t), err
}

// sendBack has a task done again whose result was not accepted, until it was sent
// back too often.
func (d *draft) sendBack(t *writ.Task) error {
	t.Rework++
	again := t.Rework <= t.Verify.MaxRework && t.Budget.Again()
	t.Failure = &writ.Failure{Class: writ.FailureDeterministic, Code: "rejected", Retryable: again}
	if !again {
		return d.end(t, writ.TaskVerifying, writ.TaskFailed)
	}
	if err := d.takeBack(t); err != nil {
		return err
	}
	d.enter(t, 0)
	return d.put(t, writ.TaskVerifying)
}

// takeBack undoes that a task was handed on whose result was sent back: what was made
// for that is cancelled, what waited anyway waits on, and nothing was said to it.
func (d *draft) takeBack(t *writ.Task) error {
	if t.HandedTo == "" {
		return nil
	}
	next, _, err := loadTask(d.op, d.s, t.HandedTo)
	if err != nil {
		return err
	}
	d.tx.Delete(writ.HandoffKey(t.ID))
	t.HandedTo = ""
	switch {
	case next.State != writ.TaskBlocked:
		return nil // it ended meanwhile
	case len(next.Chain) > len(t.Chain) && len(next.DependsOn) == 1: // it was made by that
		d.quit(&next)
		return d.end(&next, writ.TaskBlocked, writ.TaskCancelled)
	}
	next.HandedBy = slices.DeleteFunc(slices.Clone(next.HandedBy), func(id writ.TaskID) bool { return id == t.ID })
	return d.put(&next, writ.TaskBlocked)
}

// mayJudge refuses whoever had a part in the run, whatever policy lets through,
// and agents the task does not name, or of another domain. It gives the keys by
// which it was looked.
func mayJudge(c *writ.Call, s writ.Snapshot, r writ.Run, t writ.Task) ([]writ.PublicKey, error) {
	keys, err := callerKeys(c, s)
	if err != nil {
		return nil, err
	}
	if c.Caller.Role != writ.RoleVerifier || !writ.DutyIn(s, r.Tree(), c.Caller, keys).Independent() {
		return nil, writ.Refuse(writ.CodeSoD, opVerify, "nobody judges work of a run they had a part in, and only verifiers do", "a verifier who had none must do it; sessions that answer to the same person count as one, so open it with a controller of its own")
	}
	agent, bound, err := loadAgent(s, c.Caller.Agent)
	if err != nil {
		return nil, err
	}
	if why := unfitToJudge(c.Caller, agent, bound, t); why != "" {
		return nil, writ.Refuse(writ.CodeNotEligible, opVerify, "this agent may not judge the task", "see reason").With("reason", why)
	}
	return keys, nil
}

// unfitToJudge says why a verifier may not judge a task, whatever part it had; ""
// when it may. The reasons are a closed list.
func unfitToJudge(c writ.Caller, agent writ.Agent, bound bool, t writ.Task) string {
	switch {
	case t.Verify != nil && len(t.Verify.Agents) > 0 && !slices.Contains(t.Verify.Agents, c.Agent):
		return "verify_agents"
	case bound && agent.Domain != t.Domain:
		return "domain"
	}
	return ""
}

// passed says of every check that is reported whether it passed.
func passed(gates []GateResult) map[string]bool {
	out := map[string]bool{}
	for _, g := range gates {
		before, known := out[g.Gate]
		out[g.Gate] = g.Status == "pass" && (before || !known)
	}
	return out
}

// unproved names what a verdict does not show: that it is about the result as it
// is, and, if it accepts, that every check the task asks for has passed.
func unproved(s writ.Snapshot, t writ.Task, a *TaskVerifyArgs) (missing []string, err error) {
	if a.Receipt != t.Receipt {
		missing = append(missing, "receipt_id")
	}
	if a.Verdict == writ.VerdictReject {
		return missing, nil
	}
	for _, g := range t.Verify.Gates {
		if writ.IsGate(g) {
			continue
		}
		results := slices.DeleteFunc(slices.Clone(a.Gates), func(r GateResult) bool { return r.Gate != g })
		if len(results) == 0 || slices.ContainsFunc(results, func(r GateResult) bool { return r.Status != "pass" }) {
			missing = append(missing, "gates/"+g)
		}
	}
	unpassed, err := unpassed(s, t, a)
	return append(missing, unpassed...), err
}
