package queue

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// A gate shows that a result passes: a task of the run whose tool is declared as one, that
// depends on the task with the result, was begun after that gave it, and was done by
// somebody else. What must pass is noted with the result, so that it does not matter what
// the registry says later.

// owes are the gates the result of a task must pass: those it names, and those of the
// agent that did it. A gate need pass none of its agent's.
func owes(t writ.Task, a writ.Agent) (out []writ.CapabilityID) {
	if t.Verify != nil {
		for _, g := range t.Verify.Gates {
			if writ.IsGate(g) {
				out = append(out, writ.CapabilityID(g))
			}
		}
	}
	if tool, _ := a.Tool(t.Capability); !tool.Gate {
		out = append(out, a.WorkGates...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// owed is the member of writ.RunOwed.
func owed(g writ.CapabilityID, id writ.TaskID) string { return string(g) + " " + string(id) }

// owe notes which gates a result must pass that was just given; none has looked at it.
func (d *draft) owe(t *writ.Task, agent writ.AgentID, e ended) error {
	a, _, err := loadAgent(d.s, agent)
	if err != nil {
		return err
	}
	if t.Owes = owes(*t, a); len(t.Owes) == 0 {
		return nil
	}
	for _, g := range t.Owes {
		d.tx.Index(writ.RunOwed(t.Run), owed(g, t.ID), 0)
	}
	return d.tx.PutDoc(d.s, writ.GatesKey(t.ID), "gates", writ.GateResults{Of: e.fence, By: e.by, Owes: t.Owes})
}

// looked are the tasks a gate looks at.
func looked(t writ.Task) (out []writ.TaskID) {
	for _, dep := range t.DependsOn {
		if dep.When != writ.EndFailed {
			out = append(out, dep.Task)
		}
	}
	return out
}

// gateReads names what must be seen of the tasks that a gate looks at, if the tool of the
// caller's agent for a task is one.
func gateReads(c *writ.Call, s writ.Snapshot, t writ.Task) (out []writ.Key, err error) {
	if c.Caller.Agent == "" {
		return nil, nil
	}
	a, ok, err := peek[writ.Agent](s, writ.AgentKey(c.Caller.Agent))
	if err != nil || !ok {
		return nil, err
	}
	if tool, _ := a.Tool(t.Capability); !tool.Gate {
		return nil, nil
	}
	for _, id := range looked(t) {
		out = append(out, writ.TaskKey(id), writ.GatesKey(id))
	}
	return out, nil
}

// endReads names what must be seen to end a task well: what its result owes, and if it is
// that of a gate, what it looks at.
func endReads(c *writ.Call, s writ.Snapshot, t writ.Task) ([]writ.Key, error) {
	out, err := gateReads(c, s, t)
	if err != nil || c.Caller.Agent == "" {
		return nil, err
	}
	a, ok, err := peek[writ.Agent](s, writ.AgentKey(c.Caller.Agent))
	if ok && len(owes(t, a)) > 0 {
		out = append(out, writ.GatesKey(t.ID))
	}
	return out, err
}

// ownWork says whether a gate would look at a result of its own caller.
func ownWork(c *writ.Call, s writ.Snapshot, t writ.Task, a writ.Agent) (bool, error) {
	if tool, _ := a.Tool(t.Capability); !tool.Gate {
		return false, nil
	}
	for _, id := range looked(t) {
		res, ok, err := peek[writ.GateResults](s, writ.GatesKey(id))
		if err != nil {
			return false, err
		}
		if ok && slices.Contains(res.Owes, t.Capability) && res.Own(c.Caller, a.Keys) {
			return true, nil
		}
	}
	return false, nil
}

// gave notes what a gate gave, with every result it was to look at, that it began after,
// and that is not of its own caller. The last word counts.
func (d *draft) gave(c *writ.Call, t writ.Task, a writ.Agent, status writ.GateStatus, fence int64) error {
	tool, _ := a.Tool(t.Capability)
	switch {
	case !tool.Gate && status != "":
		return invalid(d.op, "/gate", "is for tools that are declared as gates")
	case !tool.Gate:
		return nil
	case status != writ.GatePass && status != writ.GateFail:
		return invalid(d.op, "/gate", "must be pass or fail: the tool is declared as a gate")
	}
	for _, id := range looked(t) {
		on, ok, err := peek[writ.Task](d.s, writ.TaskKey(id))
		if err != nil {
			return err
		}
		res, version, noted, err := writ.Get[writ.GateResults](d.s, writ.GatesKey(id))
		if err != nil {
			return err
		}
		if !ok || !noted || !on.Gave() || res.Of != on.DoneFence || !slices.Contains(res.Owes, t.Capability) || res.Own(c.Caller, a.Keys) {
			continue
		}
		if res.Since == 0 {
			res.Since = version
		}
		if fence <= res.Since {
			continue // it was begun before there was this result
		}
		res.Results = slices.DeleteFunc(slices.Clone(res.Results), func(r writ.GateResult) bool { return r.Gate == t.Capability })
		res.Results = append(res.Results, writ.GateResult{Gate: t.Capability, Status: status, Task: t.ID, Receipt: d.receipt})
		if status == writ.GatePass {
			d.tx.Unindex(writ.RunOwed(on.Run), owed(t.Capability, id))
		} else {
			d.tx.Index(writ.RunOwed(on.Run), owed(t.Capability, id), 0)
		}
		if err := d.tx.PutDoc(d.s, writ.GatesKey(id), "gates", res); err != nil {
			return err
		}
	}
	return nil
}

// impliedGates: a result that was given owes what it has not passed.
func impliedGates(t writ.Task, s writ.Snapshot) (out []writ.Implied, err error) {
	res, _, err := peek[writ.GateResults](s, writ.GatesKey(t.ID))
	for _, g := range t.Owes {
		out = append(out, writ.InIf(t.Gave() && !res.Passed(t, g), writ.RunOwed(t.Run), owed(g, t.ID), "the result of the task must pass it, and the task is "+string(t.State)))
	}
	return out, err
}

// unpassed names the gates that a verdict which accepts does not show to have passed: each
// must be cited with the receipt of the task that showed it last. What else is cited must
// be a check of the verifier's own.
func unpassed(s writ.Snapshot, t writ.Task, a *TaskVerifyArgs) (missing []string, err error) {
	res, _, err := peek[writ.GateResults](s, writ.GatesKey(t.ID))
	if err != nil {
		return nil, err
	}
	for _, g := range t.Owes {
		last, _ := res.Result(g)
		shown := res.Passed(t, g)
		cited := false
		for _, r := range a.Gates {
			if r.Gate == string(g) {
				cited = true
				shown = shown && r.Status == writ.GatePass && r.Receipt == last.Receipt
			}
		}
		if !shown || !cited {
			missing = append(missing, "gates/"+string(g))
		}
	}
	for _, r := range a.Gates {
		known := slices.Contains(t.Owes, writ.CapabilityID(r.Gate))
		if !known && (writ.IsGate(r.Gate) || r.Receipt != "") && !slices.Contains(missing, "gates/"+r.Gate) {
			missing = append(missing, "gates/"+r.Gate)
		}
	}
	return missing, nil
}

// TaskGate is how far the result of a task has come with a gate.
type TaskGate struct {
	Gate    writ.CapabilityID `json:"gate" doc:"The gate."`
	Status  string            `json:"status" doc:"What it gave last; open: nothing yet, of this result." enum:"pass,fail,open"`
	Task    writ.TaskID       `json:"task_id,omitempty" doc:"Task that showed it."`
	Receipt writ.ReceiptID    `json:"receipt_id,omitempty" doc:"Receipt of that, which a verdict cites."`
}

// shownGates shows what a result owes.
func shownGates(s writ.Snapshot, t writ.Task) (out []TaskGate, err error) {
	if !t.Gave() {
		return nil, nil
	}
	res, _, err := peek[writ.GateResults](s, writ.GatesKey(t.ID))
	for _, g := range t.Owes {
		shown := TaskGate{Gate: g, Status: "open"}
		if r, ok := res.Result(g); ok && res.Of == t.DoneFence {
			shown = TaskGate{g, string(r.Status), r.Task, r.Receipt}
		}
		out = append(out, shown)
	}
	return out, err
}

// gateTool shows whether any active agent declares a gate that a task names.
func gateTool(g string) writ.Range {
	return writ.Range{Index: writ.IndexTools, From: g + " ", To: g + "!", Limit: 1}
}

// gateTools are those of all the gates it names.
func gateTools(t writ.Task) (out []writ.Range) {
	if t.Verify == nil {
		return nil
	}
	for _, g := range t.Verify.Gates {
		if writ.IsGate(g) {
			out = append(out, gateTool(g))
		}
	}
	return out
}

// declared refuses gates that no active agent has a tool for.
func declared(s writ.Snapshot, t writ.Task) error {
	for _, r := range gateTools(t) {
		found, read := s.Ranges[r]
		if read && len(found.Members) == 0 {
			return invalid(opEnqueue, "/verify/gates", "name a gate that no active agent declares as a tool; a check of the verifier's own has no dot in its name").
				With("gate", strings.TrimSuffix(r.From, " "))
		}
	}
	return nil
}

// checksAgain says whether a new task only looks at results that others of the run are to
// give, or have given: a run that is sealed takes such, since what was sent back is looked
// at anew.
func checksAgain(s writ.Snapshot, t writ.Task) (bool, error) {
	if len(t.DependsOn) == 0 || slices.ContainsFunc(t.DependsOn, func(d writ.Dependency) bool { return d.When != writ.EndGiven }) {
		return false, nil
	}
	fit, err := fitting(s, t)
	return len(fit) > 0 && !slices.ContainsFunc(fit, func(a writ.Agent) bool {
		tool, _ := a.Tool(t.Capability)
		return !tool.Gate
	}), err
}
