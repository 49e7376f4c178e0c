package e2e

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// measured is a metric of a gateway.
func (g *gateway) measured(t testing.TB, name string) float64 {
	t.Helper()
	res, err := http.Get(g.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	m := regexp.MustCompile(`(?m)^writ_` + name + ` (\S+)$`).FindSubmatch(text)
	if err != nil || m == nil {
		t.Fatalf("%s is not among the metrics: %v", name, err)
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// stamps are what the files below a directory were when they were written last.
func stamps(t testing.TB, dirs ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, dir := range dirs {
		if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := os.Stat(path)
			if err == nil {
				out[path] = fmt.Sprint(info.Size(), info.ModTime())
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// How far the log is behind can be seen in receipts and in seconds; a step that must not go on before its past
// is published waits for that; and once all is published a log costs nothing: not a byte is written.
func TestHowFarTheLogIsBehind(t *testing.T) {
	t.Parallel()
	s := shipped(t)
	s["packs/after/pack.yaml"] = "manifest: {id: after, version: 1.0.0, title: After, owner: team, kind: guard, match: {capabilities: [task.cancel]}, effects: [allow, deny]}\n"
	s["packs/after/after.rego"] = `package packs.after

import future.keywords.not

# METADATA
# title: Incomplete
# description: The input names no capability.
# custom: {id: after.incomplete, severity: critical, control: fail closed}
findings contains {"rule": "after.incomplete", "effect": "deny", "code": "policy_denied", "message": "the call cannot be judged"} if {
	not input.call.capability
}

# METADATA
# title: After its past
# description: A task is cancelled.
# custom: {id: after.logged, severity: low, control: transparency}
findings contains {
	"rule": "after.logged", "effect": "allow", "code": "policy_denied", "message": "what it ends must be published",
	"obligations": [{"type": "durability", "args": {"level": "committed", "require": "logged_parent"}}],
} if {
	input.call.capability == "task.cancel"
}
`
	dir := s.dir(t)
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, host, "--policies", dir, "--checkpoint-every", "2s")
			c := newCast(t, w)
			log := w.gw[0]

			var id string
			var r reply
			by := c.orc.at(w.last())
			for i := range 10 { // a checkpoint may come just between the two calls
				id = c.enqueue(key(i), nil)
				if r = by.do("POST", "/v1/tasks/"+id+"/cancel", nil); r.status != 200 {
					break
				}
			}
			if r.status != 503 || r.code() != writ.CodeReceiptPending || r.header.Get("Retry-After") == "" || c.state(id) != writ.TaskQueued {
				t.Errorf("a step whose parent is not in the log: %s", r)
			}
			n := 10
			within(t, 20*time.Second, "the lag is seen", func() bool { // a checkpoint may come at any moment: each look has something new to see
				c.enqueue(key(n), nil)
				n++
				ready := string(caller{t: t, gw: log}.do("GET", "/readyz", nil).body)
				return log.measured(t, "log_lag_receipts") > 0 && log.measured(t, "log_lag_seconds") > 0 && regexp.MustCompile(`[1-9][0-9]* receipts behind for [0-9.]+ s`).MatchString(ready)
			})
			within(t, 20*time.Second, "the step is accepted once its parent is in the log", func() bool {
				return by.do("POST", "/v1/tasks/"+id+"/cancel", nil).status == 200
			})
			if c.state(id) != writ.TaskCancelled {
				t.Errorf("it is %s", c.state(id))
			}

			// Whoever is refused is told of the log too.
			for status, r := range map[int]reply{
				404: c.orc.do("GET", "/v1/tasks/tsk_01J00000000000000000000000", nil), 403: c.builder.do("POST", "/v1/runs", obj{"budget": obj{"steps": 1}}),
				409: c.orc.do("POST", "/v1/tasks/"+id+"/cancel", nil, "If-Match", `"1"`), 422: c.orc.do("POST", "/v1/runs", obj{"budget": "much"}),
			} {
				if r.status != status && r.status != 412 || r.header.Get("Writ-Checkpoint") == "" {
					t.Errorf("want %d with a checkpoint: %s %v", status, r, r.header)
				}
			}

			within(t, 20*time.Second, "all is published", func() bool {
				ready := string(caller{t: t, gw: log}.do("GET", "/readyz", nil).body)
				return log.measured(t, "log_lag_receipts") == 0 && log.measured(t, "ledger_lag_facts") == 0 && log.measured(t, "log_lag_seconds") == 0 && strings.Contains(ready, "0 receipts behind")
			})
			files := []string{filepath.Join(log.data, "log"), filepath.Join(log.data, "ledger")}
			size, before := log.measured(t, "log_size_receipts"), stamps(t, files...)
			time.Sleep(2500 * time.Millisecond) // more than a checkpoint takes to be due
			if after := stamps(t, files...); !maps.Equal(before, after) || log.measured(t, "log_size_receipts") != size {
				t.Errorf("an idle log writes: before %v, after %v", before, after)
			}
		})
	}
}
