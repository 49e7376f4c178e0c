package e2e

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// modify agrees to a call with other arguments, and returns the successor.
func (c caller) modify(id string, args obj) string {
	c.t.Helper()
	r := c.ok(200, "POST", "/v1/approvals/"+id+"/decision", obj{"decision": "modify", "args": args, "reason": "less"})
	if r.str("modified_from") != id || r.str("approval_id") == id {
		c.t.Fatalf("what became of %s: %s", id, r)
	}
	return r.str("approval_id")
}

// replaced makes a call that a person agreed to only with other arguments.
func (c caller) replaced(successor, method, path string, body any, headers ...string) {
	c.t.Helper()
	r := c.refused(403, writ.CodeApprovalDenied, method, path, body, headers...)
	if r.str("details", "successor") != successor || !strings.Contains(r.str("hint"), "approval.get") {
		c.t.Fatalf("where to look: %s", r)
	}
}

func (w *world) approval(id string) reply {
	w.t.Helper()
	return w.op.ok(200, "GET", "/v1/approvals/"+id, nil)
}

// A person agrees to less: the smaller call happens once, whichever replica is
// asked, and the first one does not.
func TestAPersonAgreesToLess(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		w.agent("planner", "web", "orchestrator", "", []string{}, nil)
		orc := w.session("planner", writ.RoleOrchestrator, "planner")
		all, less := obj{"title": "all of it", "budget": obj{"steps": 9}}, obj{"title": "less", "budget": obj{"steps": 3}}
		id := orc.waits("POST", "/v1/runs", all, "Idempotency-Key", "k1")
		w.gw[0].restart()
		decided := w.alice().at(w.last()).ok(200, "POST", "/v1/approvals/"+id+"/decision", obj{"decision": "modify", "args": less})
		next := decided.str("approval_id")
		w.gw[0].restart()
		for _, g := range w.gw {
			orc.at(g).replaced(next, "POST", "/v1/runs", all, "Idempotency-Key", "k1")
			orc.at(g).replaced(next, "POST", "/v1/runs", all)
		}
		first := orc.ok(200, "GET", "/v1/approvals/"+id, nil)
		if first.str("state") != "superseded" || first.str("superseded_by") != next {
			t.Errorf("the first: %s", first)
		}
		args, _ := orc.at(w.last()).ok(200, "GET", "/v1/approvals/"+next, nil).at("args").(map[string]any)
		orc.refused(422, writ.CodeIdempotency, "POST", "/v1/runs", args, "Idempotency-Key", "k1")

		got := w.race(8, orc, "POST", "/v1/runs", args)
		if got[201] != 1 || got[202] != 7 {
			t.Errorf("answers by status: %v, want one 201 and seven 202", got)
		}
		runs := orc.ok(200, "GET", "/v1/runs", nil)
		list, _ := runs.at("runs").([]any)
		if len(list) != 1 || list[0].(map[string]any)["title"] != "less" {
			t.Errorf("what happened: %s", runs)
		}
		if s := w.approval(next).str("state"); s != "consumed" {
			t.Errorf("the successor is %s", s)
		}
		orc.replaced(next, "POST", "/v1/runs", all)

		// One receipt says what the decision did.
		_, receipts := w.export()
		i := slices.IndexFunc(receipts, func(s statement) bool { return s.Predicate.ReceiptID == decided.receipt() })
		want := []writ.Change{
			{Kind: "approval", ID: id, From: "pending", To: "superseded"},
			{Kind: "approval", ID: next, To: "pending"},
			{Kind: "approval", ID: next, From: "pending", To: "approved"},
		}
		if i < 0 || !slices.Equal(receipts[i].Predicate.Changes, want) {
			t.Errorf("the receipt of the decision: %+v", receipts[max(i, 0)])
		}
	})
}

// What is wrong with arguments is refused as it would be of the call itself, at
// the place where it stands, and nothing has happened.
func TestOtherArgumentsAreHeldToTheSchema(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		c := w.riskyCast(t)
		alice := w.alice()
		id := c.orc.waits("POST", "/v1/runs", obj{"title": "all", "budget": obj{"steps": 9}})
		path := func(id string) string { return "/v1/approvals/" + id + "/decision" }
		for name, x := range map[string]struct {
			body  any
			code  writ.Code
			place string
		}{
			"none":                  {obj{"decision": "modify"}, writ.CodeInputInvalid, "/args"},
			"no object":             {obj{"decision": "modify", "args": []int{1}}, writ.CodeInputInvalid, "/args"},
			"an unknown one":        {obj{"decision": "modify", "args": obj{"titel": "x", "budget": obj{"steps": 9}}}, writ.CodeMalformed, "/args"},
			"one of the wrong type": {obj{"decision": "modify", "args": obj{"title": 7, "budget": obj{"steps": 9}}}, writ.CodeInputInvalid, "/args/title"},
			"one too long":          {obj{"decision": "modify", "args": obj{"title": strings.Repeat("x", 5000), "budget": obj{"steps": 9}}}, writ.CodeInputInvalid, "/args/title"},
			"one twice":             {`{"decision":"modify","args":{"title":"a","title":"b"}}`, writ.CodeMalformed, "/args"},
			"the same":              {obj{"decision": "modify", "args": obj{"title": "all", "budget": obj{"steps": 9}}}, writ.CodeInputInvalid, "/args"},
			"the same, padded":      {obj{"decision": "modify", "args": obj{"title": "all", "budget": obj{"steps": 9}, "close_policy": "auto"}}, writ.CodeInputInvalid, "/args"},
			"with approve":          {obj{"decision": "approve", "args": obj{"title": "a"}}, writ.CodeInputInvalid, "/args"},
			"remembered":            {obj{"decision": "modify", "args": obj{"title": "a", "budget": obj{"steps": 9}}, "remember": obj{"scope": "session", "max_uses": 2}}, writ.CodeInputInvalid, "/remember"},
			"another capability":    {obj{"decision": "modify", "args": obj{"capability": "run.cancel", "args": obj{}}}, writ.CodeMalformed, "/args"},
		} {
			r := alice.do("POST", path(id), x.body)
			if r.code() != x.code || !strings.Contains(string(r.body), `"pointer":"`+x.place) {
				t.Errorf("%s: want %s at %s, got %s", name, x.code, x.place, r)
			}
			if strings.Contains(string(r.body), "titel") {
				t.Errorf("%s: repeats what was sent: %s", name, r)
			}
		}
		alice.refused(413, writ.CodeTooLarge, "POST", path(id), `{"decision":"modify","args":{"title":"`+strings.Repeat("x", 200<<10)+`"}}`)
		if r := w.approval(id); r.str("state") != "pending" || len(r.at("votes").([]any)) != 0 {
			t.Errorf("after all that: %s", r)
		}

		// A task's enqueueing stays in its run and asks for the same tool.
		body := c.task("burn", obj{"capability": "site.burn"})
		id = c.orc.waits("POST", "/v1/tasks", body)
		for place, more := range map[string]obj{"capability": {"capability": tool}, "run_id": {"run_id": "run_01ARYZ6S410000000000000000"}} {
			other := c.task("burn", obj{"capability": "site.burn"})
			other[place] = more[place]
			r := alice.refused(422, writ.CodeInputInvalid, "POST", path(id), obj{"decision": "modify", "args": other})
			if !strings.Contains(string(r.body), `"pointer":"/args/`+place+`"`) {
				t.Errorf("another %s: %s", place, r)
			}
		}
		less := c.task("burn", obj{"capability": "site.burn", "args": obj{"ref": "branch"}})
		next := alice.modify(id, less) // two people agree to destructive work
		alice.refused(403, writ.CodeSoD, "POST", path(next), obj{"decision": "approve"})
		c.orc.replaced(next, "POST", "/v1/tasks", body)
		if again := c.orc.waits("POST", "/v1/tasks", less); again != next {
			t.Errorf("waits for %s, want the successor %s", again, next)
		}
		w.bob().at(w.last()).approve(next)
		task := c.orc.ok(201, "POST", "/v1/tasks", less).str("task_id")
		if r := c.op.ok(200, "GET", "/v1/tasks/"+task, nil); r.str("args", "ref") != "branch" {
			t.Errorf("the task: %s", r)
		}
		w.audited()
	})
}

// A parked task waits on for whoever must still agree to the other arguments,
// and its holder then makes the other call.
func TestAHolderWaitsForOtherArguments(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		c := w.riskyCast(t)
		parked := func(key, capability string) (l lease, id string) {
			l = c.builder.claim(c.enqueue(key, obj{"capability": capability, "lease_ttl_s": 10}))
			return l, c.builder.waits("POST", "/v1/tasks/"+l.task+"/complete", l.hold(obj{"result": obj{"pages": 9}}))
		}
		control := func(l lease) string {
			return c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/heartbeat", l.hold(nil)).str("control")
		}
		less := func(l lease) obj { return obj{"task_id": l.task, "result": obj{"pages": 1}} }

		// Two people must agree.
		l, id := parked("publish", "site.publish")
		w.alice().approve(id)
		next := w.bob().at(w.last()).modify(id, less(l))
		if r := c.op.ok(200, "GET", "/v1/tasks/"+l.task, nil); r.str("state") != "parked" || r.str("waits_for") != next || control(l) != "wait" {
			t.Fatalf("the task: %s", r)
		}
		path := "/v1/tasks/" + l.task + "/complete"
		c.builder.refused(403, writ.CodeApprovalRequired, "POST", path, l.hold(obj{"result": obj{"pages": 1}}))
		w.gw[0].restart()
		w.alice().approve(next) // her yes to nine pages was none to one
		if got := control(l); got != "continue" {
			t.Errorf("control is %q after both votes", got)
		}
		c.builder.replaced(next, "POST", path, l.hold(obj{"result": obj{"pages": 9}}))
		c.builder.ok(200, "POST", path, l.hold(obj{"result": obj{"pages": 1}}))
		if s := w.approval(next).str("state"); c.state(l.task) != writ.TaskDone || s != "consumed" {
			t.Errorf("the task is %s, the successor %s", c.state(l.task), s)
		}

		// One is enough: the holder goes on at once.
		l, id = parked("stamp", "site.stamp")
		next = w.alice().modify(id, less(l))
		if got := control(l); got != "continue" {
			t.Errorf("control is %q", got)
		}
		path = "/v1/tasks/" + l.task + "/complete"
		c.builder.replaced(next, "POST", path, l.hold(obj{"result": obj{"pages": 9}}))
		c.builder.ok(200, "POST", path, l.hold(obj{"result": obj{"pages": 1}}))

		// The second person says no.
		l, id = parked("publish-2", "site.publish")
		w.bob().deny(w.alice().modify(id, less(l)))
		if s := c.state(l.task); s != writ.TaskFailed {
			t.Errorf("the task is %s", s)
		}

		// The task ends meanwhile: nobody is asked any more.
		l, id = parked("publish-3", "site.publish")
		next = w.alice().modify(id, less(l))
		c.orc.ok(200, "POST", "/v1/tasks/"+l.task+"/cancel", nil)
		within(t, 10*time.Second, "nobody is asked about a cancelled task", func() bool { return w.approval(next).str("state") == "expired" })
		w.audited()
	})
}

// One person approves while another modifies: one of them wins, everywhere.
func TestApprovedOrModified(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		w.agent("planner", "web", "orchestrator", "", []string{}, nil)
		orc, alice, bob := w.session("planner", writ.RoleOrchestrator, "planner"), w.alice(), w.bob().at(w.last())
		won := map[string]int{}
		for round := range 12 {
			all, less := obj{"title": key(round), "budget": obj{"steps": 9}}, obj{"title": key(round), "budget": obj{"steps": 3}}
			id := orc.waits("POST", "/v1/runs", all)
			var wg sync.WaitGroup
			answers := make([]reply, 2)
			wg.Go(func() {
				answers[0], _ = alice.try("POST", "/v1/approvals/"+id+"/decision", obj{"decision": "approve"})
			})
			wg.Go(func() {
				answers[1], _ = bob.try("POST", "/v1/approvals/"+id+"/decision", obj{"decision": "modify", "args": less})
			})
			wg.Wait()
			switch {
			case answers[0].status == 200 && answers[1].code() == writ.CodeIllegal:
				won["approve"]++
				orc.ok(201, "POST", "/v1/runs", all)
				orc.waits("POST", "/v1/runs", less)
			case answers[1].status == 200 && answers[0].code() == writ.CodeIllegal:
				won["modify"]++
				orc.replaced(answers[1].str("approval_id"), "POST", "/v1/runs", all)
				orc.ok(201, "POST", "/v1/runs", less)
			default:
				t.Fatalf("approve: %s, modify: %s", answers[0], answers[1])
			}
		}
		t.Logf("who won: %v", won)
		w.audited()
	})
}

// What people agreed to is judged again when it is done: a rule that has come
// since wins, and the approval is not used.
func TestARuleWinsOverOtherArguments(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		w.agent("planner", "web", "orchestrator", "", []string{}, nil)
		orc := w.session("planner", writ.RoleOrchestrator, "planner")
		less := obj{"title": "less", "budget": obj{"steps": 3}}
		next := w.alice().modify(orc.waits("POST", "/v1/runs", obj{"title": "all", "budget": obj{"steps": 9}}), less)
		digest := w.op.stage(frozen(t, ""))
		w.settled(digest)
		w.activate(digest)
		orc.at(w.last()).refused(403, writ.CodePolicy, "POST", "/v1/runs", less)
		if s := w.approval(next).str("state"); s != "approved" {
			t.Errorf("the successor is %s", s)
		}
	})
}
