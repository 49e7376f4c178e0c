package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A sweep goes through tasks of several runs, those of one in a commit, and may bring several runs to their verdict: each is
// closed as if it had been the only one, and the pack of each, and of the whole log, says so.
func TestA3SweepsThroughSeveralRuns(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("checker", "web", "verifier", "", []string{}, nil)
		checker := w.verifier("checker", "victor", "checker")
		verifying := func(runs ...string) {
			t.Helper()
			for _, run := range runs {
				within(t, 30*time.Second, "the run waits for its verdict", func() bool { return w.runState(run) == "verifying" })
			}
		}
		closes := func(run string) {
			t.Helper()
			path, accept := checker.verdict("/v1/runs/"+run, "accept", nil)
			closed := checker.ok(200, "POST", path, accept).str("receipt")
			checker.ok(200, "GET", "/v1/receipts/"+closed+"?wait=included", nil)
		}
		run := func(keys ...string) (tasks []string) {
			t.Helper()
			c.judgedRun()
			for _, key := range keys {
				tasks = append(tasks, c.enqueue(key, nil))
			}
			return tasks
		}
		seals := func() { t.Helper(); c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil) }

		// A session ends that holds tasks of two runs: one is to be cancelled, the other is queued again.
		asked, ends := run("asked")[0], c.run
		seals()
		c.builder.claim(asked)
		c.builder.claim(run("again")[0])
		goesOn := c.run
		c.orc.ok(200, "POST", "/v1/tasks/"+asked+"/cancel", nil)
		w.op.ok(200, "POST", "/v1/sessions/"+string(c.builder.id)+"/revoke", nil)
		verifying(ends)
		other := c.another()
		other.complete(leaseOf(other.ok(200, "POST", "/v1/tasks/claim", obj{"wait_s": 20}))) // the other, a moment later
		closes(ends)
		seals()
		verifying(goesOn)
		closes(goesOn)

		// An agent is revoked that has planned two runs.
		runs := []string{ends, goesOn}
		for _, key := range []string{"one", "two"} {
			run(key)
			seals()
			runs = append(runs, c.run)
		}
		w.op.ok(200, "POST", "/v1/agents/planner/revoke", nil)
		within(t, 30*time.Second, "all it set going is gone", func() bool {
			return w.op.ok(200, "GET", "/v1/agents/planner", nil).at("revocation", "swept") == true
		})
		verifying(runs[2:]...)
		for _, run := range runs[2:] {
			closes(run)
		}

		dir := t.TempDir()
		token, logKey := filepath.Join(dir, "token"), w.op.ok(200, "GET", "/v1/log/head", nil).str("verifier_key")
		if err := os.WriteFile(token, []byte(w.op.token), 0o600); err != nil {
			t.Fatal(err)
		}
		export := func(name string, scope ...string) string {
			t.Helper()
			pack := filepath.Join(dir, name+".tar")
			if r := command(t, append([]string{"export", "--out", pack, "--url", w.gw[0].url, "--token-file", token}, scope...)...); r.code != 0 {
				t.Fatalf("export: %s", r)
			}
			return pack
		}
		log := export("log")
		for _, run := range runs {
			for _, pack := range []string{log, export(run, "--run", run)} {
				if r := command(t, "close", "verify", pack, "--run", run, "--log-key", logKey, "--key", w.publicKey()); r.code != 0 {
					t.Errorf("%s: %s", filepath.Base(pack), r)
				}
			}
		}
		w.audited()
	})
}
