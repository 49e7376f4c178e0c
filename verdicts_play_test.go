package writ_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/queue"
	"github.com/writ-gateway/writ/runs"
	"github.com/writ-gateway/writ/writtest"
)

// story counts what became of the attempts to judge.
type story struct {
	Accepted, SentBack, Closed int // tasks, and runs
	Refused                    int // for want of independence
	Raced                      int // planned on a state that was gone
	Voted, Carried, Twice      int // verdicts that others had to follow, the last of such, and those of who had given one
	Signed, Unsigned           int // verdicts that counted so, and those that were refused over it
}

func (s *story) add(o story) {
	s.Accepted += o.Accepted
	s.SentBack += o.SentBack
	s.Closed += o.Closed
	s.Refused += o.Refused
	s.Raced += o.Raced
	s.Voted += o.Voted
	s.Carried += o.Carried
	s.Twice += o.Twice
	s.Signed += o.Signed
	s.Unsigned += o.Unsigned
}

// history is one random history: a world, who is in it, and what was stated.
type history struct {
	*writtest.World
	r     *rand.Rand
	m     mutant
	cast  []writ.Caller
	keys  map[writ.AgentID][]string
	verbs map[writ.CapabilityID]*writ.Capability
	spent []string // signed verdicts that were used
	runs  []writ.RunID
	owner writ.Caller
	grips []grip
	tasks []writ.TaskID
	state map[string]string // of tasks and runs, by id
	in    map[writ.TaskID]writ.RunID
	check *checker
	facts []stated
	story story
	wrong string
}

type grip struct {
	by    writ.Caller
	task  writ.TaskID
	lease writ.LeaseID
	fence int64
}

// The verbs are the real ones. What the door does when a call wants approval, of
// which only the part it is matters here, is a verb of the test.
var verbs = verbsWith(ink{})

func verbsWith(i ink) map[writ.CapabilityID]*writ.Capability {
	out := map[writ.CapabilityID]*writ.Capability{}
	for _, c := range append(append(queue.Capabilities(queue.Config{Verdicts: i}), runs.Capabilities(runs.Config{Verdicts: i})...), asking()) {
		out[c.ID] = c
	}
	return out
}

type askArgs struct{ Run writ.RunID }

func asking() *writ.Capability {
	id := func(c *writ.Call) writ.ApprovalID { return writ.ApprovalID(c.NewID(writ.PrefixApproval, 0)) }
	key := func(c *writ.Call) writ.Key { return writ.Key("approval/" + string(id(c))) }
	return writ.Define[askArgs, struct{}](writ.Capability{ID: "test.ask", Safety: writ.SafetyMutating}, writ.Verb[askArgs]{
		Reads: func(c *writ.Call, a *askArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := writ.ReadSet{Docs: []writ.Key{key(c), writ.RunKey(a.Run)}}
			if c.Caller.Agent != "" {
				rs.Docs = append(rs.Docs, writ.AgentKey(c.Caller.Agent))
			}
			if run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.Run)); s.Has(writ.RunKey(a.Run)) && ok && err == nil {
				rs.Ranges = append(rs.Ranges, writ.PartSeen(c.Caller, run.Tree()))
			}
			return rs, nil
		},
		Plan: func(c *writ.Call, a *askArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			run, _, _, err := writ.Get[writ.Run](s, writ.RunKey(a.Run))
			if err != nil {
				return tx, r, err
			}
			if run.State != writ.RunActive { // what is asked about moves nothing elsewhere
				return tx, r, writ.Refuse(writ.CodeIllegal, "test.Ask", "the run has ended", "")
			}
			tx.Move(writ.ObjectApproval, string(id(c)), "", string(writ.ApprovalPending))
			agent, _, _, err := writ.Get[writ.Agent](s, writ.AgentKey(c.Caller.Agent))
			if c.Caller.Agent != "" && err != nil {
				return tx, r, err
			}
			tx.TakePart(s, run.Tree(), writ.PartRequested, c.Caller, agent.Keys)
			return tx, r, tx.PutDoc(s, key(c), writ.ObjectApproval, writ.Approval{
				ID: id(c), State: writ.ApprovalPending, Run: a.Run, Receipt: writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0)),
			})
		},
	})
}

func newHistory(seed, n uint64, m mutant) *history {
	h := &history{World: writtest.New(), r: rand.New(rand.NewPCG(seed, n)), m: m, keys: map[writ.AgentID][]string{}, check: newChecker(), state: map[string]string{}, in: map[writ.TaskID]writ.RunID{}}
	h.verbs, h.check.lax = verbs, m.lax
	if m.ink != (ink{}) {
		h.verbs = verbsWith(m.ink)
	}
	h.Archive = func(q writ.ArchiveRead) []writ.Receipt { return []writ.Receipt{sealed(q.Receipt)} }
	h.Seed(writ.GateKey, writ.ObjectGate, writ.Gate{State: writ.GateOpen, PolicyRevision: inForce})
	for _, id := range []writ.AgentID{"able", "baker", "charlie", "delta", "echo", "foxtrot"} {
		a := h.Agent(id, "web", "site.build")
		for _, k := range []string{"k1", "k2", "k3", "k4"} {
			if h.r.IntN(5) == 0 {
				a.Keys = append(a.Keys, writ.PublicKey{ID: k})
				h.keys[id] = append(h.keys[id], k)
			}
		}
		h.World.Seed(writ.AgentKey(id), writ.ObjectAgent, a)
	}
	h.owner = h.enter(writ.RoleOrchestrator)
	for range 2 {
		h.enter(writ.RoleExecutor)
	}
	for range 3 {
		h.enter(writ.RoleVerifier)
	}
	if h.r.IntN(2) == 0 {
		for range 4 {
			h.stranger()
		}
	}
	return h
}

var people = []writ.PrincipalID{"ann", "bob", "cid", "dan", "eve", "fay", "gus", writ.MachineOperator}

// stranger opens the session of a verifier who stands outside the crowd, though not
// always of the other strangers.
func (h *history) stranger() {
	names := []writ.PrincipalID{"hal", "ida", "joe", "kim", "lea", "max"}
	c := h.Open(writ.RoleVerifier, names[h.r.IntN(len(names))], []writ.AgentID{"", "delta", "echo", "foxtrot"}[h.r.IntN(4)])
	if h.r.IntN(3) == 0 {
		c.Controller = names[h.r.IntN(len(names))]
	}
	if h.r.IntN(3) == 0 {
		c.Openers = []writ.PrincipalID{names[h.r.IntN(len(names))], writ.MachineOperator}
	}
	h.cast = append(h.cast, c)
	h.check.sessions[c.Session] = opened{Caller: c, keys: h.keys[c.Agent]}
}

// enter opens a session of somebody, the way session.open leaves one: who opened it,
// and whoever is behind that, are behind it.
func (h *history) enter(role writ.Role) writ.Caller {
	p := func() writ.PrincipalID { return people[h.r.IntN(len(people))] }
	var agent writ.AgentID
	if role == writ.RoleExecutor || h.r.IntN(3) == 0 {
		agent = []writ.AgentID{"able", "baker", "charlie"}[h.r.IntN(3)]
	}
	c := h.Open(role, p(), agent)
	switch h.r.IntN(6) {
	case 0: // a twin of somebody who is there
		if len(h.cast) > 0 {
			opener := h.cast[h.r.IntN(len(h.cast))]
			c.Controller = opener.Controller
			for _, x := range append([]writ.PrincipalID{opener.Principal, opener.Controller}, opener.Openers...) {
				if x != "" && !slices.Contains(c.Openers, x) {
					c.Openers = append(c.Openers, x)
				}
			}
		}
	case 1:
		c.Controller = p()
	case 2:
		c.Controller, c.Openers = p(), []writ.PrincipalID{writ.MachineOperator}
	case 3:
		c.Openers = []writ.PrincipalID{p()}
	}
	h.cast = append(h.cast, c)
	h.check.sessions[c.Session] = opened{Caller: c, keys: h.keys[agent]}
	return c
}

// play makes a history and says what is wrong with it; "" when nothing is.
func (h *history) play() string {
	create := &runs.RunCreateArgs{ClosePolicy: writ.CloseVerifier, CloseQuorum: h.quorum(), Budget: runs.RunBudget{Steps: 100}}
	h.do("run.create", h.owner, create)
	if len(h.runs) == 1 && h.r.IntN(3) == 0 {
		policy := []writ.ClosePolicy{writ.CloseVerifier, writ.CloseAuto}[h.r.IntN(2)]
		h.do("run.create", h.owner, &runs.RunCreateArgs{Parent: h.runs[0], ClosePolicy: policy, Budget: runs.RunBudget{Steps: 10}})
	}
	for range 1 + h.r.IntN(2) {
		h.enqueue()
	}
	for range 8 {
		if h.wrong != "" {
			return h.wrong
		}
		first, ok := h.pick()
		if !ok {
			continue
		}
		p := h.plan(first)
		if h.r.IntN(3) == 0 { // another replica is quicker
			if second, ok := h.pick(); ok {
				h.commit(h.plan(second))
			}
		}
		h.commit(p)
	}
	for _, run := range slices.Backward(h.runs) { // and to the end, if it can be reached
		h.finish(run)
	}
	return h.wrong
}

// finish does what is left of a run, seals it and has it judged by a few, whoever
// they are.
func (h *history) finish(run writ.RunID) {
	for _, id := range h.tasks {
		if h.in[id] != run {
			continue
		}
		if h.is(id, writ.TaskQueued) {
			h.do("task.claim", h.some(writ.RoleExecutor), &queue.TaskClaimArgs{Task: id})
		}
		if h.is(id, writ.TaskRunning) {
			g := h.grips[slices.IndexFunc(h.grips, func(g grip) bool { return g.task == id })]
			h.do("task.complete", g.by, g.complete())
		}
		for range 6 {
			if h.is(id, writ.TaskVerifying) {
				h.do("task.verify", h.some(writ.RoleVerifier), h.verdict(id, writ.VerdictAccept))
			}
		}
	}
	if h.state[string(run)] == "active" {
		h.do("run.seal", h.owner, &runs.RunSealArgs{RunID: run})
	}
	for range 6 {
		if h.state[string(run)] == "verifying" {
			h.do("run.close", h.some(writ.RoleVerifier), h.close(run, writ.VerdictAccept))
		}
	}
	if run != h.runs[0] {
		h.do("run.settle", h.System(), &runs.RunSettleArgs{RunID: run})
	}
}

func (h *history) is(id writ.TaskID, s writ.TaskState) bool { return h.state[string(id)] == string(s) }

func (g grip) complete() *queue.TaskCompleteArgs {
	return &queue.TaskCompleteArgs{TaskHold: queue.TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence}}
}

type move struct {
	id   writ.CapabilityID
	by   writ.Caller
	args any
}

func (h *history) do(id writ.CapabilityID, by writ.Caller, args any) {
	h.commit(h.plan(move{id, by, args}))
}

func (h *history) enqueue() {
	a := &queue.TaskEnqueueArgs{Run: h.runs[h.r.IntN(len(h.runs))], Key: fmt.Sprintf("t%d", len(h.tasks)+10), Capability: "site.build", Domain: "web"}
	if h.r.IntN(4) > 0 {
		a.Verify = &queue.TaskVerification{Required: true, Quorum: h.quorum()}
	}
	h.do("task.enqueue", h.owner, a)
}

// quorum is mostly that one verdict is enough.
func (h *history) quorum() *int64 {
	n := max(1, int64(h.r.IntN(6))-2)
	return &n
}

func (h *history) some(role writ.Role) writ.Caller {
	for range 8 {
		if c := h.cast[h.r.IntN(len(h.cast))]; c.Role == role {
			return c
		}
	}
	return h.cast[h.r.IntN(len(h.cast))]
}

func (h *history) pick() (move, bool) {
	run := h.runs[h.r.IntN(len(h.runs))]
	if len(h.tasks) == 0 {
		return move{}, false
	}
	id := h.tasks[h.r.IntN(len(h.tasks))]
	verdict := writ.VerdictAccept
	if h.r.IntN(4) == 0 {
		verdict = writ.VerdictReject
	}
	switch h.r.IntN(16) {
	case 0, 1, 2, 3, 4, 5, 6, 7: // what comes next for the task
		switch writ.TaskState(h.state[string(id)]) {
		case writ.TaskQueued:
			return move{"task.claim", h.some(writ.RoleExecutor), &queue.TaskClaimArgs{Task: id}}, true
		case writ.TaskRunning:
			i := slices.IndexFunc(h.grips, func(g grip) bool { return g.task == id })
			return move{"task.complete", h.grips[i].by, h.grips[i].complete()}, true
		case writ.TaskVerifying:
			return move{"task.verify", h.some(writ.RoleVerifier), h.verdict(id, verdict)}, true
		}
	case 8:
		return move{"task.verify", h.cast[h.r.IntN(len(h.cast))], h.verdict(id, verdict)}, true
	case 9, 10:
		if h.state[string(run)] == "verifying" {
			return move{"run.close", h.cast[h.r.IntN(len(h.cast))], h.close(run, verdict)}, true
		}
	case 11:
		return move{"run.seal", h.owner, &runs.RunSealArgs{RunID: run}}, h.r.IntN(2) == 0
	case 12: // comes back in another role, under the same name or with another
		role := []writ.Role{writ.RoleVerifier, writ.RoleExecutor, writ.RoleOrchestrator}[h.r.IntN(3)]
		if h.r.IntN(2) == 0 {
			h.enter(role)
			break
		}
		again := h.cast[h.r.IntN(len(h.cast))]
		c := h.Open(role, again.Principal, again.Agent)
		c.Controller, c.Openers = again.Controller, again.Openers
		h.cast = append(h.cast, c)
		h.check.sessions[c.Session] = opened{Caller: c, keys: h.keys[c.Agent]}
	case 13, 14:
		return move{"test.ask", h.cast[h.r.IntN(len(h.cast))], &askArgs{run}}, true
	default:
		return move{"task.enqueue", h.owner, &queue.TaskEnqueueArgs{Run: run, Key: fmt.Sprintf("t%d", h.r.IntN(90)+100), Capability: "site.build", Domain: "web"}}, h.r.IntN(2) == 0
	}
	return move{}, false
}

func (h *history) verdict(id writ.TaskID, v writ.Verdict) *queue.TaskVerifyArgs {
	t, _, _ := writtest.Get[writ.Task](h.World, writ.TaskKey(id))
	return &queue.TaskVerifyArgs{Task: id, Verdict: v, Receipt: t.Receipt, Reasons: []string{"because"}}
}

func (h *history) close(id writ.RunID, v writ.Verdict) *runs.RunCloseArgs {
	r, _, _ := writtest.Get[writ.Run](h.World, writ.RunKey(id))
	return &runs.RunCloseArgs{RunID: id, Verdict: v, Receipt: r.Receipt, Reasons: []string{"because"}}
}

// plan plans a call as far as the mutant lets the planner see; nil when it is refused.
func (h *history) plan(m move) *writtest.Planned {
	k := *h.verbs[m.id]
	judges := m.id == "task.verify" || m.id == "run.close"
	if !judges && m.by.Agent == "" && m.id == "task.claim" {
		return nil
	}
	asked := m.args
	switch a := m.args.(type) {
	case *queue.TaskEnqueueArgs:
		if h.m.task != nil {
			forgot := *a
			h.m.task(&forgot)
			m.args = &forgot
		}
	case *runs.RunCreateArgs:
		if h.m.run != nil {
			forgot := *a
			h.m.run(&forgot)
			m.args = &forgot
		}
	}
	by := m.by
	if judges {
		h.signs(m)
		if h.m.judge != nil {
			by = h.m.judge(by)
		}
		if h.m.role {
			by.Role = writ.RoleVerifier
		}
		reads, real := k.Reads, k.Plan
		k.Reads = func(c *writ.Call, s writ.Snapshot) (writ.ReadSet, error) { return reads(c, h.blind(s)) }
		k.Plan = func(c *writ.Call, s writ.Snapshot, d writ.Decision) (writ.Tx, writ.Reply, error) {
			return real(c, h.blind(s), d)
		}
	}
	p, err := h.World.Plan(&k, h.NewCall(&k, by, m.args))
	switch {
	case err != nil && writ.AsError("", err).Details["reason"] == "voted":
		h.story.Twice++
		return nil
	case writ.CodeOf(err) == writ.CodeSoD:
		h.story.Refused++
		return nil
	case writ.CodeOf(err) == writ.CodeVerdict:
		h.story.Unsigned++
		return nil
	case writ.CodeOf(err) == writ.CodeInternal, err != nil && writ.CodeOf(err) == "":
		h.wrong = fmt.Sprintf("%s: %v", m.id, err)
		return nil
	case err != nil:
		return nil
	}
	p.Call.Caller, p.Call.Args = m.by, asked
	if h.m.tx != nil {
		h.m.tx(&p.Tx)
	}
	return p
}

// blind takes from a snapshot what the mutant overlooks.
func (h *history) blind(s writ.Snapshot) writ.Snapshot {
	if h.m.bare {
		for key, d := range s.Docs {
			if id, ok := strings.CutPrefix(string(key), "agent/"); ok {
				a, _, _, _ := writ.Get[writ.Agent](s, key)
				a.Keys = nil
				d.Body, _ = writ.EncodeDoc(writ.Snapshot{Docs: map[writ.Key]writ.Doc{key: {}}}, writ.AgentKey(writ.AgentID(id)), writ.ObjectAgent, a)
				s.Docs[key] = d
			}
		}
	}
	if h.m.votes != nil {
		for key, d := range s.Docs {
			b, _, ok, _ := writ.Get[writ.Ballot](s, key)
			if ok && strings.HasPrefix(string(key), "ballot/") {
				b.Votes = slices.Clone(b.Votes)
				h.m.votes(&b)
				d.Body, _ = writ.EncodeDoc(writ.Snapshot{}, key, writ.ObjectBallot, b)
				s.Docs[key] = d
			}
		}
	}
	if h.m.parts == nil {
		return s
	}
	for r, found := range s.Ranges {
		if !strings.HasPrefix(string(r.Index), "parts/") {
			continue
		}
		found.Members = slices.DeleteFunc(slices.Clone(found.Members), func(m writ.Member) bool {
			return !h.m.parts(m.Name)
		})
		s.Ranges[r] = found
	}
	return s
}

// commit commits a plan and shows the checker what it states.
func (h *history) commit(p *writtest.Planned) {
	if p == nil || h.wrong != "" {
		return
	}
	reply, err := h.World.Commit(p)
	var conflict *writtest.Conflict
	if errors.As(err, &conflict) {
		h.story.Raced++
		return
	}
	if err != nil {
		h.wrong = fmt.Sprintf("%s: %v", p.Cap.ID, err)
		return
	}
	if len(p.Tx.Changes) == 0 {
		return
	}
	f := stated{verb: p.Cap.ID, by: p.Call.Caller.Session, changes: p.Tx.Changes, receipt: p.Tx.Fact.ID, verdict: p.Tx.Verdict}
	if f.verdict != nil {
		h.story.Signed++
		h.spent = append(h.spent, string(f.verdict.Envelope))
	}
	switch a := p.Call.Args.(type) {
	case *runs.RunCreateArgs:
		v, _ := writtest.Body[runs.RunView](reply)
		f.run, f.parent = v.RunID, a.Parent
		if a.ClosePolicy == writ.CloseVerifier {
			f.wanted = wanted(a.CloseQuorum)
		}
		h.runs = append(h.runs, v.RunID)
	case *queue.TaskEnqueueArgs:
		v, _ := writtest.Body[queue.TaskView](reply)
		f.run = a.Run
		if a.Verify != nil {
			f.wanted = wanted(a.Verify.Quorum)
		}
		h.tasks = append(h.tasks, v.ID)
		h.in[v.ID] = a.Run
	case *queue.TaskClaimArgs:
		v, _ := writtest.Body[queue.TaskClaimed](reply)
		f.run = v.Task.Run
		h.grips = slices.DeleteFunc(h.grips, func(g grip) bool { return g.task == a.Task })
		h.grips = append(h.grips, grip{p.Call.Caller, a.Task, v.Lease.ID, v.Lease.Fence})
	case *askArgs:
		f.run = a.Run
	case *queue.TaskVerifyArgs:
		f.about, f.accepts = a.Receipt, a.Verdict == writ.VerdictAccept
		h.judged(f, &h.story.Accepted)
	case *runs.RunCloseArgs:
		f.about, f.accepts = a.Receipt, a.Verdict == writ.VerdictAccept
		h.judged(f, &h.story.Closed)
	}
	for _, m := range f.changes {
		if m.Kind != writ.ObjectBallot { // which has the id of what it is on
			h.state[m.ID] = m.To
		}
	}
	h.facts = append(h.facts, f)
	h.wrong = h.check.read(f)
}

// judged counts a verdict.
func (h *history) judged(f stated, ended *int) {
	on := slices.ContainsFunc(f.changes, func(m writ.Change) bool { return m.Kind == writ.ObjectBallot })
	switch {
	case len(f.changes) == 1 && on:
		h.story.Voted++
	case on && f.accepts:
		h.story.Carried++
		*ended++
	case f.accepts:
		*ended++
	default:
		h.story.SentBack++
	}
}

func wanted(quorum *int64) int64 {
	if quorum == nil {
		return 1
	}
	return *quorum
}
