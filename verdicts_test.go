package writ_test

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/queue"
	"github.com/writ-gateway/writ/runs"
	"github.com/writ-gateway/writ/writtest"
)

// Random histories of a small, colluding crowd that wants its own work accepted:
// people with several sessions in several roles, twins that answer to one person or
// were opened by one another, agents that sign with one key, work done in a child of
// the run that is judged, and calls that were planned on a state that is gone when
// they commit. A checker that reads nothing but what the facts state says after each
// whether anybody judged who had a part.
func TestNobodyJudgesTheirOwnWork(t *testing.T) {
	seed, n := historySeed(t), 20_000
	switch {
	case writtest.Raced: // it has nothing to find here; make runs all of them without it
		n = 2_000
	case os.Getenv("WRIT_SOAK") == "1":
		n = 1_000_000
	}
	total, mu, workers := story{}, sync.Mutex{}, runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for first := range workers {
		wg.Go(func() {
			sum := story{}
			for i := first; i < n && !t.Failed(); i += workers {
				h := newHistory(seed, uint64(i), mutant{})
				if wrong := h.play(); wrong != "" {
					t.Errorf("WRIT_SEED=%d, history %d: %s\n%s", seed, i, wrong, h.told())
				}
				sum.add(h.story)
			}
			mu.Lock()
			defer mu.Unlock()
			total.add(sum)
		})
	}
	if wg.Wait(); t.Failed() {
		return
	}
	t.Logf("WRIT_SEED=%d, %d histories: %+v", seed, n, total)
	// Else the histories say nothing.
	if least := n / 20; total.Accepted < least || total.SentBack < least/4 || total.Refused < least || total.Raced < least/50 || total.Closed < least/4 || total.Signed < least/4 || total.Unsigned < least/4 || total.Voted < least/4 || total.Carried < least/20 || total.Twice < least/20 {
		t.Errorf("too little happened: %+v", total)
	}
}

// Each rule of lineage.go, and of the verbs that ask it, broken once: the checker
// notices every one of them, so none of them is there for nothing.
func TestTheCheckerNotices(t *testing.T) {
	seed := historySeed(t)
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) {
			const most = 20_000
			for i := range uint64(most) {
				h := newHistory(seed, i, m)
				if wrong := h.play(); wrong != "" {
					t.Logf("history %d: %s", i, wrong)
					return
				}
			}
			t.Errorf("not noticed in %d histories, WRIT_SEED=%d", most, seed)
		})
	}
}

func historySeed(t *testing.T) uint64 {
	t.Helper()
	if s := os.Getenv("WRIT_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return uint64(time.Now().UnixNano())
}

// mutant is one rule broken. The zero value breaks none.
type mutant struct {
	name  string
	tx    func(*writ.Tx)                // what a plan does loses this
	judge func(writ.Caller) writ.Caller // of who judges, this is not looked at
	parts func(name string) bool        // of the parts that are noted, only these are found
	role  bool                          // whoever asks counts as a verifier
	bare  bool                          // that an agent has keys is overlooked
	ink   ink                           // and of signatures, this
	lax   bool                          // the checker itself does not look what they are about
	task  func(*queue.TaskEnqueueArgs)  // what is asked of a task loses this
	run   func(*runs.RunCreateArgs)     // and of a run
	votes func(*writ.Ballot)            // of the verdicts given before, this is not looked at
}

func mutants() []mutant {
	unnoted := func(prefix string) func(*writ.Tx) {
		return func(tx *writ.Tx) {
			tx.Ops = slices.DeleteFunc(tx.Ops, func(o writ.Op) bool {
				return o.Kind == writ.OpIndex && strings.HasPrefix(string(o.Index), "parts/") && strings.HasPrefix(o.Member, prefix)
			})
		}
	}
	overlooked := func(what string) func(string) bool {
		return func(name string) bool { return !strings.HasSuffix(name, what) && !strings.HasPrefix(name, what) }
	}
	unguarded := func(tx *writ.Tx) {
		tx.Guards = slices.DeleteFunc(tx.Guards, func(g writ.Guard) bool { return g.Kind == writ.GuardFree })
	}
	return []mutant{
		{name: "sessions are not noted, nor whom they are of", tx: func(tx *writ.Tx) { unnoted("session/")(tx); unnoted("behind/")(tx) }},
		{name: "who acted is not noted", tx: unnoted("self/")},
		{name: "who stands behind is not noted", tx: unnoted("behind/")},
		{name: "agents are not noted", tx: unnoted("agent/")},
		{name: "keys are not noted", tx: unnoted("key/")},
		{name: "principals are not looked for", judge: func(c writ.Caller) writ.Caller { c.Principal = "nobody"; return c }},
		{name: "controllers are not looked for", judge: func(c writ.Caller) writ.Caller { c.Controller = ""; return c }},
		{name: "openers are not looked for", judge: func(c writ.Caller) writ.Caller { c.Openers = nil; return c }},
		// What is not found is still guarded: these take two mistakes.
		{name: "keys are not looked for", parts: overlooked("key/"), tx: unguarded},
		{name: "work is no part", parts: overlooked(" x"), tx: unguarded},
		{name: "planning is no part", parts: overlooked(" p"), tx: unguarded},
		{name: "asking for approval is no part", parts: overlooked(" r"), tx: unguarded},
		{name: "any role judges", role: true},
		{name: "nobody need sign", bare: true},
		{name: "whoever has a key signs", ink: ink{anyKey: true}},
		{name: "verdicts are signed in advance", ink: ink{anything: true}},
		{name: "a signed verdict is used again", lax: true, ink: ink{anything: true}, tx: func(tx *writ.Tx) {
			tx.Ops = slices.DeleteFunc(tx.Ops, func(o writ.Op) bool { return strings.HasPrefix(string(o.Key), "verdict/") })
		}},
		{name: "a part is of its run and not of the tree", tx: rootless},
		{name: "a verdict does not expect that there is still no part", tx: unguarded},
		{name: "who has voted is forgotten", votes: func(b *writ.Ballot) {
			for i := range b.Votes {
				b.Votes[i] = writ.Acceptance{Receipt: b.Votes[i].Receipt, Session: "ses_x", Principal: "nobody"}
			}
		}},
		{name: "keys of who has voted are forgotten", votes: func(b *writ.Ballot) {
			for i := range b.Votes {
				b.Votes[i].Keys, b.Votes[i].SignedBy = nil, ""
			}
		}},
		{name: "whoever votes is the only one whose parts count", votes: func(b *writ.Ballot) {
			for i := range b.Votes { // who they are is still seen, by one name
				b.Votes[i].Session, b.Votes[i].Agent, b.Votes[i].Keys, b.Votes[i].SignedBy = "ses_x", "", nil, ""
			}
		}},
		{name: "tasks want one verdict less", task: func(a *queue.TaskEnqueueArgs) { a.Verify = lessOf(a.Verify) }},
		{name: "runs want one verdict less", run: func(a *runs.RunCreateArgs) {
			if a.CloseQuorum != nil {
				n := max(1, *a.CloseQuorum-1)
				a.CloseQuorum = &n
			}
		}},
		{name: "tasks forget that they are to be judged", task: func(a *queue.TaskEnqueueArgs) { a.Verify = nil }},
		{name: "runs forget that they are to be judged", run: func(a *runs.RunCreateArgs) { a.ClosePolicy, a.CloseQuorum = writ.CloseAuto, nil }},
	}
}

func lessOf(v *queue.TaskVerification) *queue.TaskVerification {
	if v == nil || v.Quorum == nil {
		return v
	}
	less := *v
	n := max(1, *v.Quorum-1)
	less.Quorum = &n
	return &less
}

// rootless takes the root out of every run that is written.
func rootless(tx *writ.Tx) {
	for i, o := range tx.Ops {
		if o.Kind != writ.OpPut || !strings.HasPrefix(string(o.Key), "run/") {
			continue
		}
		var e struct {
			Kind   string         `json:"kind"`
			Schema int            `json:"schema"`
			Body   map[string]any `json:"body"`
		}
		if json.Unmarshal(o.Body, &e) == nil {
			delete(e.Body, "root_run_id")
			tx.Ops[i].Body, _ = json.Marshal(e)
		}
	}
}

// stated is what a fact states: who acted, by which session, about what, and which
// objects moved. Arguments are from its evidence.
type stated struct {
	verb    writ.CapabilityID
	by      writ.SessionID
	run     writ.RunID // the run the call is about; of run.create, the new one
	parent  writ.RunID // run.create
	wanted  int64      // task.enqueue, run.create: how many must accept it
	accepts bool       // task.verify, run.close
	about   writ.ReceiptID
	changes []writ.Change
	receipt writ.ReceiptID
	verdict *writ.SignedVerdict // that it names
}

// opened is what the fact of session.open states of a session, with the keys of its
// agent as the last agent.register before it stated them.
type opened struct {
	writ.Caller
	keys []string
}

// checker reads facts, in order, and knows nothing of how verbs plan.
type checker struct {
	sessions map[writ.SessionID]opened
	root     map[writ.RunID]writ.RunID
	taskRun  map[string]writ.RunID
	asked    map[string]int64 // "<kind>/<id>" → how many must accept it
	votes    map[string][]vote
	parts    map[writ.RunID][]opened
	last     map[string]writ.ReceiptID // "<kind>/<id>" → of the change before
	used     map[string]bool           // digests of signed verdicts
	lax      bool
}

// vote is a verdict that accepts and moved nothing yet.
type vote struct {
	opened
	about writ.ReceiptID
}

func newChecker() *checker {
	return &checker{
		sessions: map[writ.SessionID]opened{}, root: map[writ.RunID]writ.RunID{}, taskRun: map[string]writ.RunID{},
		asked: map[string]int64{}, votes: map[string][]vote{}, parts: map[writ.RunID][]opened{},
		last: map[string]writ.ReceiptID{}, used: map[string]bool{},
	}
}

// read says what is wrong with the next fact; "" when nothing is.
func (c *checker) read(f stated) string {
	if f.verb == "run.create" {
		root := f.run
		if f.parent != "" {
			root = c.root[f.parent]
		}
		c.root[f.run] = root
		c.asked["run/"+string(f.run)] = f.wanted
	}
	who, known := c.sessions[f.by]
	voted := false
	for _, m := range f.changes {
		if m.Kind != writ.ObjectBallot || !f.accepts {
			continue
		}
		id, run := "run/"+m.ID, writ.RunID(m.ID)
		if strings.HasPrefix(m.ID, "tsk_") {
			id, run = "task/"+m.ID, c.taskRun[m.ID]
		}
		if why := c.may(f, id, run, who, known, c.last[id]); why != "" {
			return why
		}
		c.votes[id] = append(c.votes[id], vote{who, f.about})
		voted = true
	}
	for _, m := range f.changes {
		id := m.Kind + "/" + m.ID
		was := c.last[id]
		c.last[id] = f.receipt
		if m.Kind == writ.ObjectTask && m.From == "" {
			c.taskRun[m.ID] = f.run
			c.asked[id] = f.wanted
		}
		if m.Kind != writ.ObjectTask && m.Kind != writ.ObjectRun {
			continue
		}
		run := writ.RunID(m.ID)
		if m.Kind == writ.ObjectTask {
			run = c.taskRun[m.ID]
		}
		verdict := m.From == "verifying" && (f.verb == "task.verify" && m.Kind == writ.ObjectTask || f.verb == "run.close" && m.Kind == writ.ObjectRun)
		if m.To == "done" && c.asked[id] > 0 && !verdict {
			return fmt.Sprintf("%s is done by %s, without a verdict", id, f.verb)
		}
		if !verdict {
			continue
		}
		if !voted {
			if why := c.may(f, id, run, who, known, was); why != "" {
				return why
			}
		}
		if m.To == "done" {
			if why := c.enough(id, run, was); why != "" {
				return why
			}
		}
	}
	switch f.verb { // and from the next fact on it counts
	case "run.create", "task.enqueue", "task.claim", "test.ask":
		if len(f.changes) > 0 && known {
			root := c.root[f.run]
			c.parts[root] = append(c.parts[root], who)
		}
	}
	return ""
}

// may says what is wrong with who gave a verdict on something whose last change was was.
func (c *checker) may(f stated, id string, run writ.RunID, who opened, known bool, was writ.ReceiptID) string {
	if !known || who.Role != writ.RoleVerifier {
		return fmt.Sprintf("%s was judged by a session of the role %q", id, who.Role)
	}
	if f.about != was {
		return fmt.Sprintf("%s was judged by %s as it was before", id, f.by)
	}
	for _, p := range c.parts[c.root[run]] {
		if why := related(who, p); why != "" {
			return fmt.Sprintf("%s was judged by %s, which had a part as %s: %s", id, f.by, p.Session, why)
		}
	}
	if why := c.signed(f, who, c.parts[c.root[run]], was); why != "" {
		return fmt.Sprintf("%s was judged by %s: %s", id, f.by, why)
	}
	return ""
}

// enough says why too few accepted something whose last change was was: as many as it
// wants, all on that change, each somebody else, and none with a part by now.
func (c *checker) enough(id string, run writ.RunID, was writ.ReceiptID) string {
	want := c.asked[id]
	if want < 2 {
		return ""
	}
	var counted []vote
	for _, v := range c.votes[id] {
		parted := slices.ContainsFunc(c.parts[c.root[run]], func(p opened) bool { return related(v.opened, p) != "" })
		again := slices.ContainsFunc(counted, func(o vote) bool { return related(v.opened, o.opened) != "" || related(o.opened, v.opened) != "" })
		if v.about == was && !parted && !again {
			counted = append(counted, v)
		}
	}
	if int64(len(counted)) < want {
		return fmt.Sprintf("%s was accepted by %d who are somebody else from one another and had no part, and wants %d", id, len(counted), want)
	}
	return ""
}

// related says why one who judges is not somebody else than one who had a part.
func related(judge, part opened) string {
	answers := func(p writ.PrincipalID) bool { // for what was done
		return p != "" && (p == part.Principal || p == part.Controller || slices.Contains(part.Openers, p))
	}
	switch {
	case judge.Session == part.Session:
		return "it is the same session"
	case answers(judge.Principal):
		return "who judges did it, or is behind it"
	case answers(judge.Controller):
		return "one person is behind both"
	case judge.Agent != "" && judge.Agent == part.Agent:
		return "it is the same agent"
	case slices.ContainsFunc(judge.keys, func(k string) bool { return slices.Contains(part.keys, k) }):
		return "both sign with one key"
	case slices.ContainsFunc(judge.Openers, func(p writ.PrincipalID) bool { return p == part.Principal && p != writ.MachineOperator }):
		return "who judges was opened by who did it"
	}
	return ""
}

// told is the history for people.
func (h *history) told() string {
	var b strings.Builder
	for _, s := range h.cast {
		fmt.Fprintf(&b, "%s: %s as %s, agent %q, answers to %q, opened by %v\n", s.Session, s.Principal, s.Role, s.Agent, s.Controller, s.Openers)
	}
	for i, f := range h.facts {
		fmt.Fprintf(&b, "%d %s by %s in %s: %v\n", i, f.verb, f.by, f.run, f.changes)
	}
	return b.String()
}
