package pack

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// RunFacts is what the receipts of a run say of it.
type RunFacts struct {
	Run      writ.RunID    `json:"run"`
	Receipts int64         `json:"receipts"`
	Tasks    int64         `json:"tasks"`
	State    string        `json:"state"`
	Begun    int64         `json:"begun"`           // sequence
	Ended    *int64        `json:"ended,omitempty"` // sequence
	By       *By           `json:"ended_by,omitempty"`
	Links    int64         `json:"links"`          // parents in other runs, or in none, but the verdict itself and the entry of the agent that acts
	Tree     string        `json:"tree"`           // in which runs parts were looked for
	Word     string        `json:"word,omitempty"` // whose the end rests on, where that was asked
	Verdicts []VerdictFact `json:"verdicts"`
}

// By is who a receipt says acted.
type By struct {
	Transition string             `json:"transition"`
	Agent      writ.AgentID       `json:"agent,omitempty"`
	Kind       writ.PrincipalKind `json:"kind,omitempty"`
	Role       writ.Role          `json:"role,omitempty"`
	Session    writ.SessionID     `json:"session,omitempty"`
}

func byOf(st writ.Statement) By {
	return By{Transition: st.Transition, Agent: st.Actor.Agent, Kind: st.Actor.Kind, Role: st.Actor.Role, Session: st.Actor.Session}
}

// VerdictFact is a verdict on a task or on the run.
type VerdictFact struct {
	Seq    int64          `json:"seq"`
	Object string         `json:"object"`
	To     string         `json:"to"`
	Judged writ.ReceiptID `json:"judged"`           // the last change of what it is about
	Key    string         `json:"key,omitempty"`    // of the verifier, whose signature held
	Logged *int64         `json:"logged,omitempty"` // sequence under which the log has it as the verifier signed it
	By     By             `json:"by"`
}

// What a report says of where parts were looked for.
const (
	TreeWhole = "every run of its tree"
	TreeRun   = "this run only"
)

// chain follows a run, and who had a part in it, through receipts that come in order.
type chain struct {
	c     *check
	run   writ.RunID
	facts *RunFacts
	begun bool
	ended bool
	filed bool // there is a receipt of it
	cut   bool // the pack begins behind the run, and says nothing whole of it

	state    string
	last     last                          // the run's last change
	closing  string                        // its close policy; "" as long as nobody said
	quorum   int                           // how many verdicts it asks for
	runOf    map[writ.ReceiptID]writ.RunID // of every receipt until now
	tasks    map[string]*task
	others   map[string]*task  // of other runs: see elsewhere
	keys     map[string]*task  // by their names in the run
	unread   bool              // somebody does not say what there is to say of a task
	votes    map[string][]vote // on a task or the run that wants several
	word     word
	child    int64 // sequence of the last run that was made in this one
	lineage  lineage
	reported map[Code]bool
}

type task struct {
	run   writ.RunID
	state string
	last  last
	asked
	gated
}

// heard is a receipt, and what its evidence says as far as it is there.
type heard struct {
	receipts.Record
	payload string // SHA-256, hex
	ev      *told
}

func newChain(c *check, run writ.RunID) *chain {
	tree := TreeRun
	if c.m.Scope.Kind == ScopeLog {
		tree = TreeWhole
	}
	facts := &RunFacts{Run: run, Tree: tree, Verdicts: []VerdictFact{}}
	c.report.Run = facts
	return &chain{c: c, run: run, facts: facts, runOf: map[writ.ReceiptID]writ.RunID{}, tasks: map[string]*task{}, others: map[string]*task{}, keys: map[string]*task{}, votes: map[string][]vote{}, lineage: newLineage(c.m.Scope.Kind == ScopeRun), reported: map[Code]bool{}}
}

// once reports what was found where it was found first.
func (k *chain) once(code Code, seq int64) {
	if !k.reported[code] {
		k.reported[code] = true
		k.c.find(code, seq)
	}
}

// judged is once for what says something only of who closed the run.
func (k *chain) judged(code Code, seq int64) {
	if k.c.ask.Close {
		k.once(code, seq)
	}
}

func (k *chain) add(rec receipts.Record, payload []byte) error {
	st := rec.Statement
	if k.cut = k.cut || k.beginsBehind(rec); k.cut {
		if k.once(RunGap, rec.Commit.Seq); k.creates(st) { // others came before
			k.once(RunBegin, rec.Commit.Seq)
		}
		return nil
	}
	ev, err := k.c.evidenceOf(rec.Commit.Seq)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(payload)
	k.lineage.names(st)
	k.moves(heard{rec, hex.EncodeToString(sum[:]), ev})
	if k.ended && *k.facts.Ended == rec.Commit.Seq {
		k.left()
	}
	if st.Run == k.run {
		k.facts.Receipts++
		for _, p := range st.Parents {
			if run, known := k.runOf[p]; p != receipts.RestsOn(st) && p != k.lineage.entry(st.Actor.Agent) && (!known || run != k.run) {
				k.facts.Links++
			}
		}
	}
	k.runOf[st.Receipt] = st.Run
	k.lineage.note(st, ev)
	return nil
}

// beginsBehind says of a receipt that others of the run came before it, which are not to be in the pack: it is of a
// range of the log from behind them, or of another run.
func (k *chain) beginsBehind(rec receipts.Record) bool {
	s, st := k.c.m.Scope, rec.Statement
	switch {
	case s.Kind == ScopeLog, s.Kind == ScopeRange && s.First == 0, s.Kind == ScopeRun && s.Run == k.run:
		return false
	case st.Run == k.run && !k.filed: // a run that is made in another one is filed under that first
		k.filed = true
		return rec.Commit.RunSeq != 1 || !k.begun && !k.creates(st)
	}
	return !k.begun && !k.creates(st) && slices.ContainsFunc(st.Changes, func(m writ.Change) bool { return m.Kind == writ.ObjectRun && m.ID == string(k.run) })
}

// creates says whether a receipt makes the run.
func (k *chain) creates(st writ.Statement) bool {
	return slices.ContainsFunc(st.Changes, func(m writ.Change) bool { return m.Kind == writ.ObjectRun && m.ID == string(k.run) && m.From == "" })
}

// moves follows the run and its tasks.
func (k *chain) moves(x heard) {
	st := x.Statement
	for _, m := range st.Changes {
		switch {
		case m.Kind == writ.ObjectRun && m.ID == string(k.run):
			k.runMoves(x, m)
		case m.Kind == writ.ObjectRun && m.From == "" && st.Run == k.run:
			k.child = x.Commit.Seq
		case m.Kind == writ.ObjectTask && (k.tasks[m.ID] != nil || m.From == "" && st.Run == k.run): // a sweep filed under a run can move tasks of others
			k.taskMoves(x, m)
		case m.Kind == writ.ObjectTask && m.From == "":
			k.elsewhere(x, m)
		case m.Kind == writ.ObjectBallot && m.To == string(writ.BallotOpen) && (m.ID == string(k.run) || k.tasks[m.ID] != nil):
			k.voted(x, m)
		}
	}
	if st.Run == k.run && !k.begun {
		k.once(RunBegin, x.Commit.Seq)
	}
}

func (k *chain) runMoves(x heard, m writ.Change) {
	st, seq, before := x.Statement, x.Commit.Seq, k.last
	if m.From == "" {
		k.begun, k.facts.Begun = true, seq
		var a struct {
			Close  string   `json:"close_policy"`
			Quorum *float64 `json:"close_quorum"`
		}
		if x.ev.says(&a) && isQuorum(x.ev.taken("close_quorum", a.Quorum)) {
			if k.closing, k.quorum = a.Close, votes(x.ev.taken("close_quorum", a.Quorum)); a.Close == "" {
				k.closing = string(writ.CloseAuto)
			}
		} else {
			k.judged(EvidenceMissing, seq)
		}
	}
	if k.ended {
		k.once(RunAfterEnd, seq)
	}
	if st.Transition == "run.close" || m.From == string(writ.RunVerifying) && m.To == string(writ.RunDone) {
		v := verdict{id: m.ID, to: m.To, accept: m.To == string(writ.RunDone), of: before}
		v.of.made, v.of.told = k.madeOfRun()
		k.judge(x, v)
		k.carried(x, v, k.quorum)
	}
	if m.To == string(writ.RunDone) && m.From != string(writ.RunVerifying) && k.closing == string(writ.CloseVerifier) {
		k.judged(CloseBypassed, seq)
	}
	k.state, k.last = m.To, lastOf(x, m)
	k.facts.State = m.To
	if writ.RunMoves.Terminal(writ.RunState(m.To)) {
		by := byOf(st)
		k.ended, k.facts.Ended, k.facts.By = true, &seq, &by
	}
}

func (k *chain) taskMoves(x heard, m writ.Change) {
	st, seq := x.Statement, x.Commit.Seq
	t := k.tasks[m.ID]
	if t == nil {
		t = &task{run: k.run}
		k.facts.Tasks++
		var known bool // before it is one of those that it could come from
		if t.asked, t.looks, known = k.made(x, m); !known {
			k.unread = true
			k.judged(EvidenceMissing, seq)
		}
		k.tasks[m.ID] = t
		if t.Key != "" {
			k.keys[t.Key] = t
		}
	}
	if k.ended && (m.From == "" || works(m)) { // what was under way is told to stop, and stops
		k.once(RunAfterEnd, seq)
	}
	done, from := m.To == string(writ.TaskDone), m.From == string(writ.TaskVerifying)
	switch {
	case st.Transition == "task.verify" && from:
		v := verdict{id: m.ID, to: m.To, accept: done, of: t.last, task: t}
		k.judge(x, v)
		k.carried(x, v, votes(t.Verify.Quorum))
	case done && (from || t.Verify.Required):
		k.judged(VerdictMissing, seq)
	}
	made, told := t.last.made, t.last.told
	t.state, t.last = m.To, lastOf(x, m)
	t.last.made, t.last.told = made, told
	switch {
	case m.From == string(writ.TaskQueued) && m.To == string(writ.TaskRunning):
		t.claimed = seq
	case m.From == string(writ.TaskRunning):
		t.last.made, t.last.told = artifacts(x, m)
		if done || m.To == string(writ.TaskVerifying) {
			k.looked(x, t)
			k.gave(x, t)
		}
	}
}

// verdict is somebody's word on the result of a task, or on the run.
type verdict struct {
	id, to string // what it moves, and where to
	accept bool
	of     last
	task   *task // nil: it is on the run
}

// judge holds somebody's word on a task or the run to what it is about, and to who it is. It
// gives the receipt that it says it is about.
func (k *chain) judge(x heard, v verdict) (about writ.ReceiptID) {
	st, seq := x.Statement, x.Commit.Seq
	k.facts.Verdicts = append(k.facts.Verdicts, VerdictFact{Seq: seq, Object: v.id, To: v.to, Judged: v.of.receipt, By: byOf(st)})
	if !k.c.ask.Close {
		return ""
	}
	if st.Actor.Role != writ.RoleVerifier || st.Transition != "run.close" && st.Transition != "task.verify" {
		k.judged(CloseRole, seq)
	}
	if !slices.Contains(st.Parents, v.of.receipt) || v.task == nil && k.moved(st, v.of.seq) {
		k.judged(VerdictStale, seq)
	}
	for _, code := range k.lineage.conflicts(k.run, k.lineage.acting(st.Actor)) {
		k.judged(code, seq)
	}
	var a saidOf
	w, told := word{seq: seq, unread: true}, x.ev.says(&a)
	if told {
		w.key, w.unread = k.signature(x, v, a)
	} else {
		k.judged(EvidenceMissing, seq)
	}
	fact := &k.facts.Verdicts[len(k.facts.Verdicts)-1]
	if fact.Key = w.key; w.unread && st.Verdict != nil {
		w.key = st.Verdict.KeyID
		if code := k.forged(x); code != "" {
			k.judged(code, seq)
			w = word{seq: seq}
		}
	}
	if v.task == nil {
		k.word = w
	}
	if !told {
		return ""
	}
	if a.Receipt != v.of.receipt {
		k.judged(VerdictOther, seq)
	}
	for _, t := range a.Tasks {
		if have := k.tasks[t.Task]; have == nil || have.last.receipt != t.Receipt {
			k.judged(VerdictOther, seq)
		}
	}
	if before := seq - 1; fact.Key != "" && k.c.foreign[before].ID != "" {
		fact.Logged = &before
	}
	switch {
	case v.accept && v.task != nil:
		k.checks(x, v.task.Verify.Gates, a)
		k.passed(x, v.task, a.cites)
	case v.accept: // a run may have more results than a verdict can cite gates for
		for _, t := range k.tasks {
			if t.state == string(writ.TaskDone) {
				k.passed(x, t, func(string, writ.ReceiptID) bool { return true })
			}
		}
	}
	return a.Receipt
}

// moved says whether a task of the run has changed since, or a run was made in it: none does, or is, while the
// run waits for its verdict.
func (k *chain) moved(st writ.Statement, since int64) bool {
	if k.child > since || slices.ContainsFunc(st.Changes, func(m writ.Change) bool { return m.Kind == writ.ObjectTask }) {
		return true
	}
	for _, t := range k.tasks {
		if t.last.seq > since {
			return true
		}
	}
	return false
}

// checks holds a verdict that accepts to the checks of the verifier's own that were asked for.
func (k *chain) checks(x heard, asked []string, a saidOf) {
	for _, g := range asked {
		if !writ.IsGate(g) && !a.cites(g, "") {
			k.judged(VerdictGate, x.Commit.Seq)
		}
	}
}

// artifacts are those a task was completed with, or handed on with.
func artifacts(x heard, m writ.Change) (digests []string, told bool) {
	if !gives(x.Statement) {
		return nil, !works(m) // nothing else gives a result
	}
	var a struct {
		Artifacts []struct {
			Digest string `json:"digest"`
		} `json:"artifacts"`
	}
	if !x.ev.says(&a) {
		return nil, false
	}
	for _, made := range a.Artifacts {
		digests = append(digests, strings.TrimPrefix(made.Digest, "sha256:"))
	}
	return digests, true
}

// madeOfRun are the artifacts of tasks of the run that are done.
func (k *chain) madeOfRun() (digests []string, told bool) {
	told = true
	for _, t := range k.tasks {
		if t.state == string(writ.TaskDone) {
			digests, told = append(digests, t.last.made...), told && t.last.told
		}
	}
	return digests, told
}

// end says what is not there when all receipts are through.
func (k *chain) end() {
	switch {
	case k.cut:
		return
	case !k.begun && k.facts.Receipts == 0:
		k.once(RunUnknown, -1)
		return
	case !k.ended:
		k.once(RunOpen, -1)
		return
	}
	k.settled()
}

// left says which tasks are not over when the run is done. Those of one that failed or was cancelled end behind it.
func (k *chain) left() {
	if k.state != string(writ.RunDone) {
		return
	}
	open := RunTasksOpen
	if k.c.m.Scope.Kind == ScopeRun { // what ended it may be filed under no run, so nothing tells that it was left out
		open = RunTasksGap
	}
	for _, t := range k.tasks {
		if !writ.TaskMoves.Terminal(writ.TaskState(t.state)) {
			k.once(open, *k.facts.Ended)
		}
	}
}
