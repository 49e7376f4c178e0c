package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// refuseWrites makes the store refuse every write, or take them again.
func (w *world) refuseWrites(refuse bool) {
	w.t.Helper()
	replicas, size := "0", int64(-1)
	if refuse {
		replicas, size = "1", 0
	}
	if w.redis != nil {
		w.redis.Command("CONFIG", "SET", "min-replicas-to-write", replicas)
		return
	}
	w.gw[0].limitFiles(size)
}

// A full disk refuses what would need room and loses nothing it acknowledged:
// with room again every accepted task is there, with its receipt, and what was
// refused never happened.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, raced, "bolt")
	c := newCast(t, w)
	file, err := os.Stat(filepath.Join(w.gw[0].data, "writ.db"))
	if err != nil {
		t.Fatal(err)
	}
	w.gw[0].limitFiles(file.Size() + 512<<10)

	var mu sync.Mutex
	var tasks []accepted
	refused := map[string]obj{}
	each(8, func(worker int) {
		for n := 0; n < 500; n++ {
			name := fmt.Sprintf("t%d-%d", worker, n)
			body := c.task(name, obj{"args": obj{"text": strings.Repeat("x", 20<<10)}})
			r, err := c.orc.insist("POST", "/v1/tasks", body, "Idempotency-Key", name)
			if err != nil {
				t.Errorf("no answer: %v", err)
				return
			}
			mu.Lock()
			switch {
			case r.status == 201:
				tasks = append(tasks, accepted{reply: r, task: r.str("task_id")})
			case r.status == 503 && r.code() == "store_unavailable" && r.header.Get("Retry-After") != "":
				refused[name] = body
			default:
				t.Errorf("enqueue: %s", r)
			}
			enough := len(refused) >= 20
			mu.Unlock()
			if enough {
				return
			}
		}
	})
	t.Logf("%d accepted, %d refused", len(tasks), len(refused))
	if len(tasks) < 5 || len(refused) == 0 {
		t.Fatal("the disk was not filled while it was used")
	}
	// It still answers, and says what is wrong with it.
	c.orc.ok(200, "GET", "/v1/tasks?run_id="+c.run, nil)
	caller{t: t, gw: w.gw[0]}.ok(200, "GET", "/healthz", nil)

	w.gw[0].restart()
	e := w.audit()
	w.inTheLogAsExported()
	for _, a := range tasks {
		if s, ok := e.known[a.receipt()]; !ok || s.Predicate.Task != a.task || e.state["task "+a.task] != string(writ.TaskQueued) {
			t.Errorf("accepted, and what is there is %q by %+v: %s", e.state["task "+a.task], s, a.reply)
		}
	}
	made := 0
	for name := range e.state {
		if strings.HasPrefix(name, "task ") {
			made++
		}
	}
	if made != len(tasks) {
		t.Errorf("%d tasks for %d accepted", made, len(tasks))
	}
	for name, body := range refused {
		if r, err := c.orc.insist("POST", "/v1/tasks", body, "Idempotency-Key", name); err != nil || r.status != 201 || r.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("refused before and repeated: %v %s", err, r)
		}
	}
}

// The disk of the ledger and the log is full, and the store's is not: work goes on and
// its receipts wait in the outbox. With room again the log has them all, each at its index.
func TestDiskOfTheLogFull(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, raced, "redis")
	c := newCast(t, w)
	probe := caller{t: t, gw: w.gw[0]}
	w.gw[0].limitFiles(0)
	for n := range 20 {
		c.enqueue(fmt.Sprintf("t%d", n), nil)
	}
	within(t, 20*time.Second, "the gateway says that its ledger waits", func() bool {
		r := probe.do("GET", "/readyz", nil)
		return r.status == 503 && strings.Contains(string(r.body), "the ledger waits until store and disk answer")
	})
	c.enqueue("last", nil)
	w.gw[0].limitFiles(-1)
	w.ready()
	w.inTheLogAsExported()
	w.gw[0].limitFiles(0)
	c.enqueue("more", nil)
	w.gw[0].kill() // with the disk full: nothing but what was synced is there
	w.gw[0].start()
	w.ready()
	w.inTheLogAsExported()
}
