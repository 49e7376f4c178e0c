package e2e

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// W1: three programs that know only where the gateway is, and the tokens of their
// sessions, bring a workflow from its creation to its verdict without a person.
func TestW1T1ThreeAgents(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", "run", "./examples/loop", "--data", w.gw[0].data)
		cmd.Dir = ".."
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, line := range []string{
			"publish begins after docs after test", "run.create     orchestrator", "run.unfold     system",
			"task.enqueue   orchestrator task →blocked", "publish is queued", "publish is done", "the run is done", "task.verify    verifier     task verifying→done, run active→verifying",
			"run.close      verifier     run verifying→done", "no call of a person among them",
		} {
			if !strings.Contains(string(out), line) {
				t.Errorf("it does not say %q:\n%s", line, out)
			}
		}
		w.t = t
		w.audited()
	})
}

// With nobody there to work, tasks stay in the queue and the run fails when its time
// is up: it does not hang.
func TestW1T2NobodyWorks(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 100, "wall_ms": 2000}}).str("run_id")
		build, test := c.enqueue("build", nil), c.enqueue("test", on("build"))
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		c.builder.ok(200, "POST", "/v1/sessions/"+string(c.builder.id)+"/close", nil)
		within(t, 20*time.Second, "the run fails", func() bool { return w.runState(c.run) == "failed" })
		if r := c.orc.at(w.last()).ok(200, "GET", "/v1/runs/"+c.run, nil); r.str("reason") != "budget_exceeded" {
			t.Errorf("got %s", r)
		}
		c.becomes(build, writ.TaskCancelled)
		c.becomes(test, writ.TaskCancelled)
		moves := map[string]string{}
		_, all := w.export()
		for _, s := range all {
			for _, m := range s.Predicate.Changes {
				moves[m.ID] += m.From + "→" + m.To + " "
			}
		}
		for id, want := range map[string]string{build: "→queued queued→cancelled ", test: "→blocked blocked→cancelled ", c.run: "→active active→active active→failed "} {
			if moves[id] != want {
				t.Errorf("%s moved %s, want %s", id, moves[id], want)
			}
		}
		w.audited()
	})
}
