package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// Clients wait for work, are served and refused, and hang up in the middle of
// what they say and of what they are told. Nothing of them goes on in the
// gateway: it has as many goroutines as before they came, and has nothing to
// complain of.
func TestNothingIsLeftOfWhoHungUp(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("keeper", "web", "executor", "site.keep", []string{}, nil)
		keeper := w.session("keeper", writ.RoleExecutor, "keeper")
		held := keeper.claim(c.enqueue("held", obj{"capability": "site.keep", "produces": []obj{made("log", "text/plain", nil)}}))
		crowd := make([]caller, 8*len(w.gw))
		for i := range crowd {
			crowd[i] = c.another().at(w.gw[i%len(w.gw)])
		}
		rest := map[*gateway]int{}
		for _, g := range w.gw {
			rest[g] = g.usual(t)
		}
		rounds := 6
		if soak() {
			rounds = 100
		}
		for i := range rounds {
			c.comeAndGo(fmt.Sprint("round-", i), crowd, keeper, held, rest)
		}
		for _, g := range w.gw { // what is left of every round is more than a few come and go by themselves
			for end := time.Now().Add(3 * time.Minute); ; {
				now := g.usual(t)
				if now < rest[g]+rounds/2 {
					break
				}
				if time.Now().After(end) {
					t.Errorf("%d goroutines, after %d rounds %d", rest[g], rounds, now)
					g.end(syscall.SIGQUIT) // its last words are what each of them does
					break
				}
			}
			for line := range strings.Lines(g.log.String()) {
				if strings.Contains(line, "level=ERROR") && strings.Contains(line, context.Canceled.Error()) {
					t.Errorf("that clients hang up is no error: %s", line)
				}
			}
		}
	})
}

// usual is how many goroutines the gateway mostly has: those of its timers come and go.
func (g *gateway) usual(t *testing.T) int {
	t.Helper()
	looks := make([]int, 51)
	for i := range looks {
		looks[i] = g.goroutines(t)
	}
	slices.Sort(looks)
	return looks[len(looks)/2]
}

// goroutines is how many the gateway has while it says so to its only client.
func (g *gateway) goroutines(t *testing.T) int {
	t.Helper()
	web.CloseIdleConnections()
	text := string(caller{t: t, gw: g}.ok(200, "GET", "/metrics", nil).body)
	_, text, _ = strings.Cut(text, "\ngo_goroutines ")
	text, _, _ = strings.Cut(text, "\n")
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// comeAndGo is a round of everything that can be left behind.
func (c cast) comeAndGo(round string, crowd []caller, keeper caller, held lease, rest map[*gateway]int) {
	t := c.t.(*testing.T)
	t.Helper()
	ctx, hangUp := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var half []net.Conn // what these say has no end
	defer func() {
		hangUp()
		for _, conn := range half {
			_ = conn.Close()
		}
		clients.Wait()
	}()
	for _, by := range crowd {
		clients.Go(func() {
			for ctx.Err() == nil {
				r, err := by.hold(ctx, "POST", "/v1/tasks/claim", `{"wait_s":30}`)
				switch {
				case err != nil && ctx.Err() != nil:
				case err == nil && r.status == http.StatusOK:
					l := leaseOf(r)
					if r, err := by.insist("POST", "/v1/tasks/"+l.task+"/complete", l.hold(obj{"result": obj{"ok": true}})); err != nil || r.status != 200 {
						t.Errorf("complete: %s, %v", r, err)
					}
				case err == nil && (r.code() == writ.CodeBackpressure || slow() && r.code() == writ.CodePolicyDown): // while its last one has not noticed yet, or policy is slow
				case err != nil || r.status != http.StatusNoContent:
					t.Errorf("a claim that waits: %s, %v", r, err)
					return
				}
			}
		})
	}
	for _, g := range c.gw {
		to := func(said string) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, said); err != nil {
				t.Fatal(err)
			}
			half = append(half, conn)
		}
		head := func(method, path string, by caller) string {
			return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n", method, path, strings.TrimPrefix(g.url, "http://"), by.token)
		}
		to("")
		to(head("GET", "/v1/runs", c.op))
		to(head("POST", "/v1/runs", c.op) + "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"title\":")
		to(head("PUT", putPath(held, "log"), keeper) + "Content-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf of")
		to(head("GET", "/v1/receipts/export", c.op) + "\r\n")
		to(head("GET", "/v1/receipts/export", c.op) + "\r\n" + head("POST", "/v1/tasks/claim", c.orc)) // and more, before it is answered

		at := c.op.at(g)
		at.refused(404, writ.CodeNotFound, "GET", "/v1/runs/run_00000000000000000000000000", nil)
		c.builder.at(g).refused(403, writ.CodeRBAC, "POST", "/v1/runs", obj{"title": "a run", "budget": obj{"steps": 1}})
		caller{t: t, gw: g}.refused(401, writ.CodeUnauthenticated, "GET", "/v1/runs", nil)
	}
	for i := range 4 {
		r := c.orc.ok(201, "POST", "/v1/tasks", c.task(fmt.Sprintf("%s-%d", round, i), nil))
		task := r.str("task_id")
		clients.Go(func() {
			_, _ = c.op.at(c.last()).hold(ctx, "GET", "/v1/receipts/"+string(r.receipt())+"?wait=included", "")
		})
		within(t, time.Minute, "a claim that waited was given the task", func() bool { return c.state(task) == writ.TaskDone })
	}
	within(t, time.Minute, "they wait", func() bool { // each on a connection, which is read meanwhile
		more := -2 * len(crowd)
		for _, g := range c.gw {
			more += g.goroutines(t) - rest[g]
		}
		return more >= 0
	})
}

// hold makes a call on a connection of its own, which is closed when ctx ends.
func (c caller) hold(ctx context.Context, method, path, body string) (reply, error) {
	r := reply{call: method + " " + path}
	req, err := http.NewRequestWithContext(ctx, method, c.gw.url+path, strings.NewReader(body))
	if err != nil {
		return r, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return r, err
	}
	defer func() { _ = res.Body.Close() }()
	r.status, r.header = res.StatusCode, res.Header
	r.body, err = io.ReadAll(res.Body)
	return r, err
}
