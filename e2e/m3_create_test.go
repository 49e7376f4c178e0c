package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// graph is a workflow of steps.
func graph(steps map[string]obj, more obj) obj {
	return over(obj{"version": 1, "steps": steps}, more)
}

func over(a, b obj) obj {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

func plain(more obj) obj { return over(obj{"capability": tool, "required_domain": "web"}, more) }

// create makes a run of a workflow.
func (c cast) create(by caller, flow obj, more obj) string {
	c.t.Helper()
	return by.ok(201, "POST", "/v1/runs", over(obj{"budget": obj{"steps": 50_000}, "workflow": flow}, more)).str("run_id")
}

// unfolded waits until the steps of a run are its tasks, and gives them by key.
func (c cast) unfolded(run string) map[string]string {
	c.t.Helper()
	within(c.t, 60*time.Second, "every step is a task", func() bool {
		r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil)
		if s := r.str("state"); s == "failed" {
			c.t.Fatalf("got %s", r)
		}
		return r.at("workflow", "unfolded") == true
	})
	out := map[string]string{}
	for _, t := range c.tasks(run) {
		out[t["key"].(string)] = t["task_id"].(string)
	}
	return out
}

// tasks are those of a run.
func (c cast) tasks(run string) (out []map[string]any) {
	c.t.Helper()
	for after := ""; ; {
		r := c.orc.ok(200, "GET", "/v1/tasks?limit=100&run_id="+run+after, nil)
		list, _ := r.at("tasks").([]any)
		for _, t := range list {
			out = append(out, t.(map[string]any))
		}
		if r.str("next") == "" {
			return out
		}
		after = "&after=" + r.str("next")
	}
}

// A diamond by one call: all its steps are tasks, the run is sealed, and it ends with
// the last of them. Every task has a receipt that leads to that of the run.
func TestM3T2ADiamondByOneCall(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		flow := graph(map[string]obj{
			"top": plain(nil), "left": plain(on("top")), "right": plain(on("top")),
			"last": plain(obj{"depends_on": []any{"left", obj{"key": "right", "on_failure": "fail"}}, "args": obj{"big": "x"}}),
		}, nil)
		run := c.create(c.orc.at(w.last()), flow, nil)
		ids := c.unfolded(run)
		if len(ids) != 4 {
			t.Fatalf("got %v", ids)
		}
		r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil)
		if r.at("sealed") != true || r.num("workflow", "made") != 4 || !writ.ValidDigest(r.str("workflow", "digest")) {
			t.Errorf("got %s", r)
		}
		for _, key := range []string{"top", "left", "right", "last"} {
			if key == "right" {
				continue
			}
			c.builder.refused(409, writ.CodeDeps, "POST", "/v1/tasks/"+ids["last"]+"/claim", nil)
			c.builder.complete(c.builder.claimNext())
		}
		c.orc.refused(409, writ.CodeIllegal, "POST", "/v1/tasks", over(c.task("more", nil), obj{"run_id": run}))
		c.builder.complete(c.builder.claimNext())
		if s := w.runState(run); s != "done" {
			t.Fatalf("the run is %s", s)
		}
		w.audited()
	})
}

// Everything that is wrong with a workflow is said at once, by pointers into the
// request, and nothing is made of it.
func TestM3T1W3T3StaticErrorsByOneCall(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		for name, tt := range map[string]struct {
			flow obj
			more obj
			want []string // pointers
		}{
			"many": {flow: graph(map[string]obj{
				"aa": plain(obj{"depends_on": []string{"zz", "aa"}, "priority": 12}), "bb": plain(obj{"consumes": []obj{{"name": "x", "from": "aa"}}}),
				"cc": plain(obj{"secret-name": 1}), "dd": plain(nil),
			}, nil), want: []string{"/workflow/steps/cc"}},
			"more": {flow: graph(map[string]obj{
				"aa": plain(obj{"depends_on": []string{"zz", "aa"}, "priority": 12}), "bb": plain(obj{"consumes": []obj{{"name": "x", "from": "aa"}}}),
				"cc": plain(obj{"join": "any_of"}), "dd": plain(obj{"write_scopes": []string{"fs:repo/../x"}}),
			}, nil), want: []string{
				"/workflow/steps/aa/depends_on/0", "/workflow/steps/aa/depends_on/1", "/workflow/steps/aa/priority", "/workflow/steps/bb/consumes/0/from",
				"/workflow/steps/cc/join", "/workflow/steps/dd/write_scopes/0",
			}},
			"circle":   {flow: graph(map[string]obj{"aa": plain(on("cc")), "bb": plain(on("aa")), "cc": plain(on("bb"))}, nil), want: []string{"/workflow/steps/aa/depends_on"}},
			"budget":   {flow: graph(map[string]obj{"aa": plain(nil), "bb": plain(nil)}, nil), more: obj{"budget": obj{"steps": 3}}, want: []string{"/budget/steps"}},
			"no key":   {flow: graph(map[string]obj{"Not A Key": plain(nil)}, nil), want: []string{"/workflow/steps"}},
			"sequence": {flow: graph(map[string]obj{"aa": plain(nil), "bb": plain(nil)}, obj{"sequence": []string{"bb"}}), want: []string{"/workflow/sequence"}},
			"none":     {flow: obj{}, want: []string{"/workflow/steps", "/workflow/version"}},
			"its run":  {flow: graph(map[string]obj{"aa": plain(nil)}, obj{"title": "x"}), want: []string{"/workflow"}},
		} {
			r := c.orc.refused(422, writ.CodeInputInvalid, "POST", "/v1/runs", over(obj{"budget": obj{"steps": 90}, "workflow": tt.flow}, tt.more))
			var got []string
			all, _ := r.at("errors").([]any)
			for _, e := range all {
				got = append(got, e.(map[string]any)["pointer"].(string))
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("%s: got %v, want %v", name, got, tt.want)
			}
			if strings.Contains(string(r.body), "secret-name") || strings.Contains(string(r.body), "Not A Key") {
				t.Errorf("%s: it repeats what was sent: %s", name, r)
			}
			if name == "circle" && !strings.Contains(string(r.body), "aa → cc → bb → aa") {
				t.Errorf("no path: %s", r)
			}
		}
		c.orc.refused(422, writ.CodeInputInvalid, "POST", "/v1/runs", obj{"budget": obj{"steps": 9}, "open": true})
		if runs, _ := c.orc.ok(200, "GET", "/v1/runs", nil).at("runs").([]any); len(runs) != 1 {
			t.Errorf("something was made of a wrong one: %d runs", len(runs))
		}
		w.audited()
	})
}

// No step is let in by the side door: one that its creator could not enqueue fails the
// run, which says which and why, and nothing of it has begun.
func TestM3NoStepIsLetInUnjudged(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		for name, tt := range map[string]struct {
			step   obj
			code   writ.Code
			denial bool
		}{
			"nobody could run it": {obj{"capability": "no.such", "required_domain": "web"}, writ.CodeNoAgent, true},
			"outside the scope":   {plain(obj{"required_agents": []string{"nobody-here"}}), writ.CodeInputInvalid, false},
		} {
			steps := map[string]obj{"aa": plain(nil), "bb": plain(on("aa")), "zz": over(tt.step, on("bb"))}
			run := c.create(c.orc, graph(steps, nil), nil)
			within(t, 30*time.Second, "the run fails", func() bool { return w.runState(run) == "failed" })
			r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil)
			if r.str("reason") != "workflow" || r.str("workflow", "step") != "zz" || writ.Code(r.str("workflow", "code")) != tt.code || r.at("workflow", "unfolded") != false || (r.str("workflow", "denial") != "") != tt.denial {
				t.Errorf("%s: got %s", name, r)
			}
			within(t, 30*time.Second, "its tasks are cancelled", func() bool {
				return !slices.ContainsFunc(c.tasks(run), func(x map[string]any) bool { return x["state"] != "cancelled" })
			})
			if n := len(c.tasks(run)); n != 2 {
				t.Errorf("%s: %d tasks", name, n)
			}
		}
		w.audited()
	})
}

// By one call and by single calls the same graph ends in the same tasks.
func TestM3OneCallAndManyMakeTheSame(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		for round := range 6 {
			r := rand.New(rand.NewPCG(uint64(round), 7))
			n, steps, order := 1+r.IntN(24), map[string]obj{}, []string{}
			for i := range n {
				k := fmt.Sprintf("step-%d", i)
				var on []obj
				for j := range i {
					if r.IntN(4) == 0 && len(on) < 32 {
						d := obj{"key": order[j]}
						switch r.IntN(4) {
						case 0:
							d["on_failure"] = "continue"
						case 1:
							d["on_failure"] = "skip"
						case 2:
							d["when"] = "failed"
						}
						on = append(on, d)
					}
				}
				s := plain(obj{"priority": r.IntN(10), "summary": fmt.Sprint("the ", i), "args": obj{"n": 9007199254740993 + int64(i)}, "max_attempts": 1 + r.IntN(3), "write_scopes": []string{fmt.Sprintf("fs:repo/%d/", i)}})
				if len(on) > 0 {
					s["depends_on"] = on
					s["join"] = []string{"all_of", "any_of", "first_success", "manual"}[r.IntN(4)]
				}
				if r.IntN(3) == 0 {
					s["verify"] = obj{"required": true, "gates": []string{"links"}}
				}
				steps[k], order = s, append(order, k)
			}
			single := c.newRun(50_000)
			for _, k := range order {
				c.orc.ok(201, "POST", "/v1/tasks", over(steps[k], obj{"run_id": single, "key": k}))
			}
			c.orc.ok(200, "POST", "/v1/runs/"+single+"/seal", nil)
			one := c.create(c.orc.at(w.gw[round%len(w.gw)]), graph(steps, nil), nil)
			c.unfolded(one)
			seen := func(run string) map[string]string {
				out := map[string]string{}
				for _, x := range c.tasks(run) {
					for _, own := range []string{"task_id", "run_id", "created_at", "updated_at", "receipt", "version", "args_digest", "enqueued_by"} {
						delete(x, own)
					}
					if on, ok := x["depends_on"].([]any); ok {
						for _, d := range on {
							delete(d.(map[string]any), "task_id")
						}
					}
					out[x["key"].(string)] = mustJSON(t, x)
				}
				return out
			}
			if a, b := seen(single), seen(one); !maps.Equal(a, b) {
				t.Fatalf("round %d:\n%v\n%v", round, a, b)
			}
			for _, run := range []string{single, one} {
				c.orc.ok(200, "POST", "/v1/runs/"+run+"/cancel", nil)
			}
		}
		w.audited()
	})
}

// Whoever stops, and when: every step becomes one task, and none is lost.
func TestM3CrashWhileAWorkflowUnfolds(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		const n = 700
		steps := map[string]obj{"first": plain(nil)}
		for i := range n {
			after := "first"
			if i >= 50 {
				after = key(i - 50)
			}
			steps[key(i)] = plain(on(after))
		}
		run := c.create(c.orc, graph(steps, nil), nil)
		for range 3 {
			made := c.orc.ok(200, "GET", "/v1/runs/"+run, nil).num("workflow", "made")
			within(t, 30*time.Second, "it goes on", func() bool {
				r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil)
				return r.num("workflow", "made") > made || r.at("workflow", "unfolded") == true
			})
			w.crash()
		}
		ids := c.unfolded(run)
		if len(ids) != n+1 || len(c.tasks(run)) != n+1 {
			t.Fatalf("%d tasks of %d keys", len(c.tasks(run)), len(ids))
		}
		c.builder.complete(c.builder.claim(ids["first"]))
		c.orc.ok(http.StatusOK, "POST", "/v1/runs/"+run+"/cancel", nil)
		w.audited()
	})
}

// While steps are made nobody else adds tasks and none begins; a run that is cancelled
// meanwhile stays so, and nothing of it is left.
func TestM3CancelWhileAWorkflowUnfolds(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		steps := map[string]obj{}
		for i := range 3000 {
			steps[key(i)] = plain(nil)
		}
		run := c.create(c.orc, graph(steps, nil), nil)
		r := c.orc.do("POST", "/v1/tasks", over(c.task("mine", nil), obj{"run_id": run}))
		if r.code() != writ.CodePaused {
			t.Errorf("got %s", r)
		}
		within(t, 30*time.Second, "there are tasks", func() bool { return len(c.tasks(run)) > 0 })
		first := c.tasks(run)[0]["task_id"].(string)
		if r := c.builder.do("POST", "/v1/tasks/"+first+"/claim", nil); r.code() != writ.CodePaused {
			t.Errorf("got %s", r)
		}
		if r := c.builder.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
			t.Errorf("got %s", r)
		}
		if r := c.orc.do("POST", "/v1/runs/"+run+"/seal", nil); r.code() != writ.CodeIllegal {
			t.Errorf("got %s", r)
		}
		c.orc.at(w.last()).ok(200, "POST", "/v1/runs/"+run+"/cancel", nil)
		within(t, 60*time.Second, "its tasks are cancelled", func() bool {
			return !slices.ContainsFunc(c.tasks(run), func(x map[string]any) bool { return x["state"] != "cancelled" })
		})
		if r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil); r.str("state") != "cancelled" || r.num("open_tasks") != 0 {
			t.Errorf("got %s", r)
		}
		w.audited()
	})
}

// What a session has ordered goes on when it has closed, and not when it was revoked.
func TestM3TheSessionThatOrdered(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		steps := map[string]obj{}
		for i := range 1500 {
			steps[key(i)] = plain(nil)
		}
		closes := c.session("planner", writ.RoleOrchestrator, "planner")
		run := c.create(closes, graph(steps, nil), nil)
		closes.ok(200, "POST", "/v1/sessions/"+string(closes.id)+"/close", nil)
		if ids := c.unfolded(run); len(ids) != 1500 {
			t.Errorf("%d tasks", len(ids))
		}
		revoked := c.session("planner", writ.RoleOrchestrator, "planner")
		run = c.create(revoked, graph(steps, nil), nil)
		w.op.ok(200, "POST", "/v1/sessions/"+string(revoked.id)+"/revoke", nil)
		within(t, 60*time.Second, "the run fails", func() bool { return w.runState(run) == "failed" })
		if r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil); writ.Code(r.str("workflow", "code")) != writ.CodeUnauthenticated {
			t.Errorf("got %s", r)
		}
		w.audited()
	})
}

// Who has ended cannot be revoked; what was ordered is stopped by cancelling its run, or
// by stopping the agent, and does not go on when that is active again.
func TestM3WhatAnEndedSessionOrderedIsStopped(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		q := w.quota("queued_tasks", "tenant", "", 3, nil)
		ordered := func() string {
			by := c.session("planner", writ.RoleOrchestrator, "planner")
			run := c.create(by, graph(map[string]obj{"aa": plain(nil), "bb": plain(nil), "cc": plain(nil), "dd": plain(nil)}, nil), nil)
			within(t, 30*time.Second, "there is no room", func() bool {
				return writ.Code(w.op.ok(200, "GET", "/v1/runs/"+run, nil).str("workflow", "code")) == writ.CodeQuota
			})
			by.ok(200, "POST", "/v1/sessions/"+string(by.id)+"/close", nil)
			r := w.op.refused(409, writ.CodeIllegal, "POST", "/v1/sessions/"+string(by.id)+"/revoke", nil)
			if !strings.Contains(string(r.body), "run.cancel") {
				t.Errorf("it does not say what to do: %s", r)
			}
			return run
		}
		cancelled := ordered()
		w.op.at(w.last()).ok(200, "POST", "/v1/runs/"+cancelled+"/cancel", nil)
		within(t, 30*time.Second, "its tasks are cancelled", func() bool { return w.used(q) == 0 })
		stopped := ordered()
		w.op.ok(200, "POST", "/v1/agents/planner/suspend", nil)
		within(t, 30*time.Second, "it is active again", func() bool {
			return w.op.do("POST", "/v1/agents/planner/activate", nil).status == 200
		})
		w.op.ok(200, "POST", "/v1/quotas/"+q+"/delete", nil)
		within(t, 60*time.Second, "what it had ordered fails", func() bool { return w.runState(stopped) == "failed" })
		if r := w.op.ok(200, "GET", "/v1/runs/"+stopped, nil); writ.Code(r.str("workflow", "code")) != writ.CodeUnauthenticated || r.num("workflow", "made") > 3 {
			t.Errorf("got %s", r)
		}
		if r := w.op.ok(200, "GET", "/v1/runs/"+cancelled, nil); r.str("state") != "cancelled" || r.num("workflow", "made") > 3 {
			t.Errorf("got %s", r)
		}
		w.audited()
	})
}

// People are asked about a step as they are about work that is enqueued, the rest waits
// for it and goes on by itself; when they say no the run fails.
func TestM3AStepWaitsForPeople(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		c := w.riskyCast(t)
		steps := map[string]obj{"aa": plain(nil), "burn": {"capability": "site.burn", "required_domain": "web", "depends_on": []string{"aa"}}, "zz": plain(on("burn"))}
		made := func(title string) string {
			body := obj{"title": title, "budget": obj{"steps": 90}, "workflow": graph(steps, nil)}
			w.alice().approve(c.orc.waits("POST", "/v1/runs", body))
			return c.orc.ok(201, "POST", "/v1/runs", body).str("run_id")
		}
		asked := func(run string) (id string) {
			within(t, 30*time.Second, "people are asked", func() bool {
				all, _ := w.op.ok(200, "GET", "/v1/approvals?state=pending", nil).at("approvals").([]any)
				for _, a := range all {
					if a := a.(map[string]any); a["run_id"] == run {
						id = a["approval_id"].(string)
					}
				}
				r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil)
				return id != "" && r.str("workflow", "step") == "burn" && writ.Code(r.str("workflow", "code")) == writ.CodeApprovalRequired && r.num("workflow", "made") == 1
			})
			return id
		}
		run := made("agreed to")
		id := asked(run)
		if r := c.builder.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
			t.Errorf("something began: %s", r)
		}
		w.alice().approve(id)
		w.bob().approve(id)
		if ids := c.unfolded(run); len(ids) != 3 {
			t.Errorf("got %v", ids)
		}
		if l := c.builder.claimNext(); l.task == "" {
			t.Error("nothing to do")
		}
		run = made("refused")
		w.alice().deny(asked(run))
		within(t, 30*time.Second, "the run fails", func() bool { return w.runState(run) == "failed" })
		if r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil); writ.Code(r.str("workflow", "code")) != writ.CodeApprovalDenied {
			t.Errorf("got %s", r)
		}
		w.audited()
	})
}

// Steps wait for room where a quota leaves none, and go on when there is.
func TestM3StepsWaitForAQuota(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		q := w.quota("queued_tasks", "tenant", "", 10, nil)
		steps := map[string]obj{}
		for i := range 25 {
			steps[key(i)] = plain(nil)
		}
		run := c.create(c.orc, graph(steps, nil), nil)
		within(t, 30*time.Second, "there is no room", func() bool {
			r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil)
			return writ.Code(r.str("workflow", "code")) == writ.CodeQuota && r.str("state") == "active"
		})
		if n := len(c.tasks(run)); n != 10 {
			t.Errorf("%d tasks", n)
		}
		w.op.ok(200, "POST", "/v1/quotas/"+q+"/delete", nil)
		if ids := c.unfolded(run); len(ids) != 25 {
			t.Errorf("%d tasks", len(ids))
		}
		if r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil); r.str("workflow", "step") != "" || r.str("workflow", "code") != "" {
			t.Errorf("got %s", r)
		}
		w.audited()
	})
}

// As many steps as there may be come with one call, and no more (in the long form; a quarter of
// them in the short one); lists, lanes and counters hold what the documents say, in the middle too.
func TestM3TenThousandSteps(t *testing.T) {
	n := int64(2_500)
	if soak() {
		n = 10_000
	}
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		steps := map[string]obj{"first": plain(nil)}
		for i := range 10_000 {
			after := []string{"first"}
			if i >= 1000 {
				after = []string{key(i - 1000), key(i - 999)}
			}
			steps[key(i)] = plain(obj{"depends_on": after, "args": obj{"n": i}, "summary": "one of many"})
		}
		c.orc.refused(422, writ.CodeInputInvalid, "POST", "/v1/runs", obj{"budget": obj{"steps": 90_000}, "workflow": graph(steps, nil)})
		for i := int(n) - 1; i < 10_000; i++ {
			delete(steps, key(i))
		}
		run := c.create(c.orc, graph(steps, nil), nil)
		within(t, 60*time.Second, "it goes on", func() bool {
			return c.orc.ok(200, "GET", "/v1/runs/"+run, nil).num("workflow", "made") >= 1000
		})
		w.stopped(func() { w.examined() })
		within(t, 240*time.Second, "every step is a task", func() bool {
			return c.orc.ok(200, "GET", "/v1/runs/"+run, nil).at("workflow", "unfolded") == true
		})
		r := c.orc.ok(200, "GET", "/v1/runs/"+run, nil)
		if r.num("open_tasks") != n || r.at("sealed") != true {
			t.Errorf("got %s", r)
		}
		done := c.builder.complete(c.builder.claimNext())
		if n, _ := done.at("unblocked").([]any); len(n) == 0 || len(n) > 128 {
			t.Errorf("one completion let go %d", len(n))
		}
		c.builder.complete(c.builder.claimNext())
		w.stopped(func() { w.examined() })
		w.audited()
	})
}

// stopped does something while every gateway is down.
func (w *world) stopped(f func()) {
	w.t.Helper()
	for _, g := range w.gw {
		g.kill()
	}
	f()
	for _, g := range w.gw {
		g.start()
	}
	w.ready()
}

// examined asks the doctor of the queue.
func (w *world) examined() {
	w.t.Helper()
	args := []string{"queue", "doctor", "--data", w.gw[0].data, "-o", "json"}
	if w.redis != nil {
		args = append(args, "--store", w.redis.URL())
	}
	if r := command(w.t, args...); r.code != 0 {
		w.t.Errorf("the doctor of the queue found something: %s", r)
	}
}

// A step can name words in place of an agent: it goes to the agent for it, found when
// the step is made a task, and waits for others like any other.
func TestM3AStepIsRouted(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("media-agent", "media", "executor", "media.plan", []string{}, obj{"routing": obj{"keywords": []string{"movie night"}}})
		media := w.session("media", writ.RoleExecutor, "media-agent")
		run := c.create(c.orc, graph(map[string]obj{
			"build": plain(nil),
			"night": {"capability": "media.plan", "route_input": "Movie NIGHT", "depends_on": []string{"build"}, "priority": 7},
			"after": plain(on("night")),
		}, nil), nil)
		ids := c.unfolded(run)
		r := c.orc.ok(200, "GET", "/v1/tasks/"+ids["night"], nil)
		if r.str("state") != "blocked" || r.str("required_agents", "0") != "media-agent" || r.str("required_domain") != "media" || r.num("priority") != 7 || r.str("depends_on", "0", "task_id") != ids["build"] {
			t.Fatalf("got %s", r)
		}
		media.refused(409, writ.CodeDeps, "POST", "/v1/tasks/"+ids["night"]+"/claim", nil)
		c.builder.complete(c.builder.claimNext())
		media.complete(media.claim(ids["night"]))
		c.builder.complete(c.builder.claimNext())
		if s := w.runState(run); s != "done" {
			t.Errorf("the run is %s", s)
		}
		// Work that comes out of a task at hand waits for nothing.
		l := c.builder.claim(c.enqueue("mine", nil))
		c.builder.refused(422, writ.CodeInputInvalid, "POST", "/v1/agents/delegate", obj{
			"task_id": l.task, "lease_id": l.id, "fence": l.fence, "to": "builder", "task": obj{"key": "part", "capability": tool, "depends_on": []obj{{"key": "mine"}}},
		})
		nobody := c.create(c.orc, graph(map[string]obj{"aa": {"capability": "media.plan", "route_input": "gardening"}}, nil), nil)
		within(t, 30*time.Second, "the run fails", func() bool { return w.runState(nobody) == "failed" })
		w.audited()
	})
}
