package e2e

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// The steps of a task are receipts of its run, each naming the one before.
func TestF4T1StepsAreLinkedReceipts(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("one", nil))
		c.builder.complete(l)
		r := w.op.ok(200, "GET", "/v1/receipts?run_id="+c.run, nil)
		list, _ := r.at("receipts").([]any)
		if len(list) < 4 { // run.create, task.enqueue, task.claim, task.complete
			t.Fatalf("%d receipts of the run: %s", len(list), r)
		}
		page := w.op.ok(200, "GET", "/v1/runs/"+c.run+"/actions?limit=2", nil)
		if some, _ := page.at("receipts").([]any); len(some) != 2 || page.num("next_after") == 0 || page.at("more") != true {
			t.Errorf("got %s", page)
		}
		acts, _ := w.op.ok(200, "GET", "/v1/runs/"+c.run+"/actions", nil).at("receipts").([]any)
		if len(acts) != len(list) {
			t.Errorf("%d actions of the run, %d receipts", len(acts), len(list))
		}
		for i, a := range acts {
			got, want := a.(map[string]any), list[i].(map[string]any)
			key, _ := got["run_key"].(string)
			if got["receipt_id"] != want["receipt_id"] || !strings.HasPrefix(key, "CAP-20") || !strings.HasSuffix(key, "__R"+strings.TrimPrefix(got["receipt_id"].(string), "rcp_")) {
				t.Errorf("action %d: %v, the receipt %v", i, got, want)
			}
		}

		_, all := w.export()
		var steps []statement
		for _, s := range all {
			if s.Predicate.Run == c.run {
				steps = append(steps, s)
			}
		}
		if len(steps) != len(list) {
			t.Errorf("the list has %d receipts of the run, the export %d", len(list), len(steps))
		}
		want := []writ.CapabilityID{"run.create", "task.enqueue", "task.claim", "task.complete"}
		for i, s := range steps {
			p := s.Predicate
			if p.Transition != want[i] || p.Commit.RunSeq != int64(i+1) {
				t.Errorf("receipt %d of the run: %s, number %d", i, p.Transition, p.Commit.RunSeq)
			}
			if i > 1 && !slices.Contains(p.Parents, steps[i-1].Predicate.ReceiptID) {
				t.Errorf("%s does not name the receipt of %s", p.Transition, steps[i-1].Predicate.Transition)
			}
		}
	})
}

// Every changed byte of an export shows, and the verdict names the line.
func TestF4T2ChangedByteShows(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.builder.complete(c.builder.claim(c.enqueue("one", nil)))
		path, _ := w.export()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		flips := 25
		if soak() {
			flips = 500
		}
		rng := random(t)
		changed := filepath.Join(t.TempDir(), "changed.jsonl")
		for n := range flips {
			i, bit := rng.IntN(len(text)), rng.IntN(8)
			if n == 0 { // "wrmt.local" is a name, too
				i, bit = bytes.Index(text, []byte("writ.local"))+2, 2
			}
			bad := bytes.Clone(text)
			bad[i] ^= 1 << bit
			if err := os.WriteFile(changed, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			r := w.verify(changed)
			var v struct {
				Verdict string
				Line    int
				Reason  string
			}
			if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
				t.Fatalf("byte %d: %v: %s", i, err, r)
			}
			line := 1 + bytes.Count(text[:i], []byte("\n"))
			// A newline that is gone makes two lines one; a new one splits a line. A header that names another log by a
			// name that a log may have shows where the first receipt says another.
			renamed := line == 1 && v.Line == 2 && strings.Contains(v.Reason, "of another log")
			if r.code == 0 || v.Line != line && !renamed || v.Reason == "" {
				t.Errorf("byte %d (line %d) changed from %q to %q: %s", i, line, text[i], bad[i], r)
			}
			// A header or head that was cut is incomplete; nothing else may be.
			if r.code != 1 && r.code != 2 && text[i] != '\n' && bad[i] != '\n' {
				t.Errorf("byte %d (line %d): want tampered or malformed: %s", i, line, r)
			}
		}
	})
}

// random is a generator whose seed the test prints, and takes from WRIT_SEED.
func random(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	if s := os.Getenv("WRIT_SEED"); s != "" {
		if err := json.Unmarshal([]byte(s), &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d (repeat with WRIT_SEED=%d)", seed, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Every removed line of an export shows, and so does a removed end.
func TestF4T3RemovedLineShows(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.builder.complete(c.builder.claim(c.enqueue("one", nil)))
		path, _ := w.export()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
		cut := filepath.Join(t.TempDir(), "cut.jsonl")
		check := func(what string, kept [][]byte) {
			t.Helper()
			if err := os.WriteFile(cut, bytes.Join(kept, nil), 0o600); err != nil {
				t.Fatal(err)
			}
			if r := w.verify(cut); r.code == 0 {
				t.Errorf("%s: %s", what, r)
			}
		}
		for i := range lines {
			check("line removed", slices.Delete(slices.Clone(lines), i, i+1))
		}
		check("the end removed", lines[:len(lines)/2])
		swapped := slices.Clone(lines)
		swapped[3], swapped[4] = swapped[4], swapped[3]
		check("lines swapped", swapped)

		if err := os.WriteFile(cut, bytes.Join(slices.Delete(slices.Clone(lines), 3, 4), nil), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := w.verify(cut); r.code != 3 || !strings.Contains(r.stdout, `"line": 4`) {
			t.Errorf("a gap is incomplete, at the line after it: %s", r)
		}
	})
}

// Killed after every step, the gateway (and the store with it) comes back with
// everything it acknowledged.
func TestF4T4KilledBetweenSteps(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		acknowledged := map[writ.ReceiptID]string{}
		crash := func(r reply) reply {
			t.Helper()
			acknowledged[r.receipt()] = r.call
			w.crash()
			return r
		}
		task := crash(c.orc.ok(201, "POST", "/v1/tasks", c.task("one", nil))).str("task_id")
		l := leaseOf(crash(c.builder.ok(200, "POST", "/v1/tasks/"+task+"/claim", nil)))
		c.builder.ok(200, "POST", "/v1/tasks/"+task+"/heartbeat", l.hold(nil))
		crash(c.builder.ok(200, "POST", "/v1/tasks/"+task+"/complete", l.hold(obj{"result": obj{"ok": true}})))
		crash(c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil))

		r := c.orc.ok(200, "GET", "/v1/tasks/"+task, nil)
		if r.str("state") != "done" || r.at("result", "ok") != true {
			t.Fatalf("the task: %s", r)
		}
		for id, call := range acknowledged {
			w.op.ok(200, "GET", "/v1/receipts/"+string(id), nil)
			if id == "" {
				t.Errorf("%s left no receipt", call)
			}
		}
		e := w.audit()
		for id, call := range acknowledged {
			if _, ok := e.known[id]; !ok {
				t.Errorf("the receipt of %s is not in the export", call)
			}
		}
	})
}

// Killed in the middle of a step, the gateway did it or did not; repeated with
// its key, it is done once.
func TestF4T4KilledWithinAStep(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		rng := random(t)
		keyed := func(call func() (reply, error)) reply {
			t.Helper()
			answered := make(chan reply, 1)
			go func() {
				if r, err := call(); err == nil {
					answered <- r
				}
				close(answered)
			}()
			timer := time.NewTimer(time.Duration(rng.IntN(4000)) * time.Microsecond)
			<-timer.C
			w.gw[0].restart()
			first, ok := <-answered
			second, err := call()
			if err != nil || second.status >= 300 {
				t.Fatalf("repeated: %v %s", err, second)
			}
			if ok && first.status < 300 && !bytes.Equal(first.body, second.body) {
				t.Fatalf("first %s\nagain %s", first, second)
			}
			return second
		}
		post := func(who caller, path, name string, body any) reply {
			t.Helper()
			return keyed(func() (reply, error) { return who.try("POST", path, body, "Idempotency-Key", name) })
		}
		task := post(c.orc, "/v1/tasks", "enqueue", c.task("one", nil)).str("task_id")
		l := leaseOf(post(c.builder, "/v1/tasks/"+task+"/claim", "claim", nil))
		post(c.builder, "/v1/tasks/"+task+"/complete", "complete", l.hold(nil))
		count := map[writ.CapabilityID]int{}
		for _, s := range w.audit().known {
			if s.Predicate.Run == c.run {
				count[s.Predicate.Transition]++
			}
		}
		for _, step := range []writ.CapabilityID{"task.enqueue", "task.claim", "task.complete"} {
			if count[step] != 1 {
				t.Errorf("%s happened %d times", step, count[step])
			}
		}
	})
}
