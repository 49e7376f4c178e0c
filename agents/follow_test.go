package agents

import (
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// follows gives what does not follow from a document, or why nothing does.
func (r *room) follows(kind, id string) (wrong []writ.Implied, unsound string) {
	r.t.Helper()
	all := Followers()
	f := all[slices.IndexFunc(all, func(f writ.Follower) bool { return f.Kind == kind })]
	s := r.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.Key(kind + "/" + id)}})
	for range 3 {
		rs, err := f.Reads(id, s)
		if err != nil {
			r.t.Fatal(err)
		}
		rs.Docs = append(rs.Docs, writ.Key(kind+"/"+id))
		if said, err := f.Implies(id, s); err == nil {
			for _, i := range said {
				rs.Ranges = append(rs.Ranges, i.Range())
			}
		}
		s = r.Snapshot(rs)
	}
	unsound, err := f.Sound(id, s)
	if err != nil {
		r.t.Fatal(err)
	}
	said, err := f.Implies(id, s)
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(said, func(i writ.Implied) bool { return i.Holds(s) }), unsound
}

// What a session claims follows from its document for as long as it lives, and from
// nothing else: not from one that has ended, has not started, or contradicts itself.
func TestClaimsFollow(t *testing.T) {
	r := newRoom(t)
	by, _ := r.claims(shared("mem:notes/a/"), alone("fs:repo/ops/"))
	id := string(by.Session)
	wants := func(when string, n int, out bool) {
		t.Helper()
		wrong, unsound := r.follows(writ.ObjectSession, id)
		wrong = slices.DeleteFunc(wrong, func(i writ.Implied) bool { return i.Index != writ.IndexScopes })
		if len(wrong) != n || unsound != "" || slices.ContainsFunc(wrong, func(i writ.Implied) bool { return i.Out != out }) {
			t.Errorf("%s: %+v, %q", when, wrong, unsound)
		}
	}
	wants("with what it claims", 0, false)
	held := r.Members(writ.IndexScopes)
	for _, m := range held {
		r.DropIndex(writ.IndexScopes, m)
	}
	wants("without it", 2, false)
	for _, m := range held {
		r.SetIndex(writ.IndexScopes, m, 0)
	}
	ses := r.session(by.Session)
	for _, odd := range []func(*writ.Session){
		func(s *writ.Session) { s.State = "awake" },
		func(s *writ.Session) { s.State = writ.SessionOpened },
		func(s *writ.Session) { s.ID = "ses_01ARYZ6S410000000000000000" },
	} {
		other := ses
		odd(&other)
		r.Seed(writ.SessionKey(by.Session), writ.ObjectSession, other)
		if _, unsound := r.follows(writ.ObjectSession, id); unsound == "" {
			t.Errorf("%+v is taken for sound", other)
		}
	}
	ses.State = writ.SessionClosed
	r.Seed(writ.SessionKey(by.Session), writ.ObjectSession, ses)
	wants("when it has ended", 2, true)
}

// Whoever waits for what a session claims says so, and is woken once it has ended.
func TestWaitingForASessionFollows(t *testing.T) {
	r := newRoom(t)
	by, _ := r.claims(alone("fs:repo/ops/"))
	task := writ.Task{ID: writ.TaskID(r.NewID(writ.PrefixTask)), State: writ.TaskQueued}
	r.Seed(writ.TaskKey(task.ID), writ.ObjectTask, task)
	r.SetIndex(writ.WaitingOn(by.Session), string(task.ID)+" 5/site.build/web run_01ARYZ6S410000000000000000", 4)
	wrong, _ := r.follows(writ.ObjectSession, string(by.Session))
	if len(wrong) != 1 || !wrong[0].Same(writ.Entry{Index: writ.BlockedOn(task.ID), Member: string(by.Session)}) || wrong[0].Out {
		t.Fatalf("%+v", wrong)
	}
	r.SetIndex(writ.BlockedOn(task.ID), string(by.Session), 0)
	r.must("session.close", by, &SessionCloseArgs{SessionID: by.Session})
	if wrong, _ := r.follows(writ.ObjectSession, string(by.Session)); len(wrong) != 0 {
		t.Fatalf("%+v", wrong)
	}
	r.DropIndex(writ.IndexTodo, todoSession(by.Session))
	if wrong, _ := r.follows(writ.ObjectSession, string(by.Session)); len(wrong) != 1 || wrong[0].Member != todoSession(by.Session) {
		t.Errorf("%+v", wrong)
	}
}

// What a revoked agent had set going is taken back step by step; when no step is left
// and it is not done, it begins once more.
func TestARecallThatIsLostFollows(t *testing.T) {
	r := newRoom(t)
	r.active("builder")
	r.must("agent.revoke", r.ops, &AgentRevokeArgs{AgentID: "builder"})
	wants := func(when string, member string) {
		t.Helper()
		wrong, unsound := r.follows(writ.ObjectAgent, "builder")
		if got := len(wrong) == 0; got != (member == "") || unsound != "" || !got && wrong[0].Member != member {
			t.Errorf("%s: %+v, %q", when, wrong, unsound)
		}
	}
	wants("as it begins", "")
	r.DropIndex(writ.IndexTodo, todoAgent("builder"))
	wants("without a step", todoAgent("builder"))
	for _, e := range recalls("builder") {
		r.SetIndex(writ.IndexTodo, e.Member, 0)
		wants("with "+e.Member, "")
		r.DropIndex(writ.IndexTodo, e.Member)
	}
	r.must("agent.settle", r.System(), &AgentSettleArgs{AgentID: "builder"})
	wants("when it is done", "")
	if a, _, _ := writtest.Get[writ.Agent](r.World, writ.AgentKey("builder")); a.Halt == nil || a.Halt.SweptAt == 0 {
		t.Errorf("%+v", a.Halt)
	}
}
