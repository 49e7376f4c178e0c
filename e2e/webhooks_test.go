package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/writ-gateway/writ"
	api "github.com/writ-gateway/writ/gateway"
)

// hook is the receiver of webhooks: it verifies them, as one should, and keeps
// how often it took each, and by what event and approval. While it is down it
// takes none.
type hook struct {
	*httptest.Server
	setting []string // flags of a gateway that is to tell it

	mu    sync.Mutex
	down  bool
	taken map[string]int    // by webhook-id
	about map[string]string // by event and approval, or receipt
}

func newHook(t *testing.T) *hook {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hooks.secret")
	if r := command(t, "webhook", "secret", file); r.code != 0 {
		t.Fatal(r)
	}
	secret, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wh, err := standardwebhooks.NewWebhook(strings.TrimSpace(string(secret)))
	if err != nil {
		t.Fatal(err)
	}
	h := &hook{taken: map[string]int{}, about: map[string]string{}}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return // the gateway was killed
		}
		var m struct {
			Type string `json:"type"`
			Data struct {
				Approval string `json:"approval_id"`
				Receipt  string `json:"receipt"`
			} `json:"data"`
		}
		if err := wh.Verify(b, r.Header); err != nil {
			t.Errorf("a receiver would not take it: %v", err)
		}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Errorf("%v: %s", err, b)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.down {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		id, about := r.Header.Get("webhook-id"), m.Type+" "+m.Data.Approval
		if m.Data.Approval == "" {
			about = m.Type + " " + m.Data.Receipt
		}
		if other := h.about[about]; other != "" && other != id {
			t.Errorf("%s came as %s and as %s", about, other, id)
		}
		h.about[about] = id
		h.taken[id]++
	}))
	t.Cleanup(h.Close)
	h.setting = []string{"--webhooks", fmt.Sprintf("[{url: %s/in, secret_file: %s}]", h.URL, file)}
	return h
}

func (h *hook) set(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
}

// times is how often the notice of an event was taken.
func (h *hook) times(event writ.Event, about string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taken[h.about[string(event)+" "+about]]
}

// all lists what was taken.
func (h *hook) all() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]string{}
	for about, id := range h.about {
		out[about] = id
	}
	return out
}

// The gateways are killed at any moment while calls ask and people decide:
// afterwards whoever is to know is told of every request and decision there is,
// and of none that there is not.
func TestKilledBeforeTelling(t *testing.T) {
	t.Parallel()
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			h := newHook(t)
			w := newWorldOf(t, raced, host, append(h.setting, "--policies", asking(t))...)
			w.agent("planner", "web", "orchestrator", "", []string{}, nil)
			orc, alice := w.session("planner", writ.RoleOrchestrator, "planner"), w.alice()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			for round := range 3 {
				h.set(true)
				var wg sync.WaitGroup
				var once sync.Once
				begun := make(chan struct{})
				for i := range 4 {
					gw := w.gw[i%len(w.gw)]
					wg.Go(func() {
						for n := range 16 {
							body := obj{"title": fmt.Sprintf("%d-%d-%d", round, i, n), "budget": obj{"steps": 9}}
							r, err := orc.at(gw).insist("POST", "/v1/runs", body)
							if err != nil {
								return
							}
							once.Do(func() { close(begun) })
							if id := r.str("approval_id"); id != "" && n%2 == 0 {
								_, _ = alice.at(gw).insist("POST", "/v1/approvals/"+id+"/decision", obj{"decision": "approve"})
							}
						}
					})
				}
				<-begun
				time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
				for _, g := range w.gw {
					g.kill()
				}
				wg.Wait()
				h.set(false)
				for _, g := range w.gw {
					g.start()
				}
				want := map[string]bool{}
				for _, a := range w.operator().ok(200, "GET", "/v1/approvals?limit=200", nil).at("approvals").([]any) {
					a := a.(map[string]any)
					want[string(writ.EventApprovalRequested)+" "+a["approval_id"].(string)] = true
					if a["state"] == "approved" {
						want[string(writ.EventApprovalDecided)+" "+a["approval_id"].(string)] = true
					}
				}
				within(t, 90*time.Second, "everybody is told", func() bool {
					got := h.all()
					for about := range want {
						if got[about] == "" {
							return false
						}
					}
					return true
				})
				for about := range h.all() {
					if !want[about] {
						t.Errorf("told of %s, which did not happen", about)
					}
				}
				t.Logf("round %d: told of %d events", round, len(want))
				if len(want) <= round {
					t.Error("hardly anything was told: this tested nothing")
				}
			}
		})
	}
}

// Two replicas tell everything once; when the one that does is gone the other
// takes over.
func TestTwoReplicasTell(t *testing.T) {
	t.Parallel()
	h := newHook(t)
	w := newWorld(t, "redis", append(h.setting, "--policies", asking(t))...)
	w.agent("planner", "web", "orchestrator", "", []string{}, nil)
	orc, alice := w.session("planner", writ.RoleOrchestrator, "planner"), w.alice()
	ask := func(gw *gateway, title string) string {
		id := orc.at(gw).waits("POST", "/v1/runs", obj{"title": title, "budget": obj{"steps": 9}})
		alice.at(gw).approve(id)
		return id
	}
	var ids []string
	for i := range 20 {
		ids = append(ids, ask(w.gw[i%2], fmt.Sprint("run ", i)))
	}
	told := func(id string) bool {
		return h.times(writ.EventApprovalRequested, id) > 0 && h.times(writ.EventApprovalDecided, id) > 0
	}
	within(t, 30*time.Second, "all are told", func() bool {
		for _, id := range ids {
			if !told(id) {
				return false
			}
		}
		return true
	})
	for _, id := range ids {
		if a, b := h.times(writ.EventApprovalRequested, id), h.times(writ.EventApprovalDecided, id); a != 1 || b != 1 {
			t.Errorf("%s was told %d and %d times", id, a, b)
		}
	}
	for i := range w.gw { // whichever holds the endpoint is killed once
		w.gw[i].kill()
		id := ask(w.gw[1-i], fmt.Sprint("alone ", i))
		within(t, 40*time.Second, "the other replica tells", func() bool { return told(id) })
		w.gw[i].start()
	}
}

// A call that policy wants known is told under its receipt.
func TestPolicyNotifyIsTold(t *testing.T) {
	t.Parallel()
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			h, dir := newHook(t), asking(t)
			pack := filepath.Join(dir, "packs", "tell")
			for name, text := range map[string]string{"pack.yaml": `manifest:
  id: tell
  version: 1.0.0
  title: What this team wants to hear of
  owner: team
  kind: guard
  match: {capabilities: [session.open]}
  effects: [deny, allow]
`, "tell.rego": `package packs.tell

import future.keywords.not

# METADATA
# title: Incomplete
# description: The input names no capability.
# custom: {id: tell.incomplete, severity: critical, control: fail closed}
findings contains {"rule": "tell.incomplete", "effect": "deny", "code": "policy_denied", "message": "the call cannot be judged"} if {
	not input.call.capability
}

# METADATA
# title: Sessions
# description: Somebody is let in.
# custom: {id: tell.session, severity: low, control: the team hears of it}
findings contains {
	"rule": "tell.session", "effect": "allow", "code": "policy_denied", "message": "somebody is let in",
	"obligations": [{"type": "notify"}],
} if {
	input.call.capability == "session.open"
}
`} {
				if err := os.MkdirAll(pack, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(pack, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			w := newWorld(t, host, append(h.setting, "--policies", dir)...)
			r := w.op.ok(201, "POST", "/v1/sessions", obj{"principal": "alice", "kind": "human", "role": "approver"})
			within(t, 30*time.Second, "the call is told", func() bool { return h.times(writ.EventPolicyNotify, string(r.receipt())) == 1 })
		})
	}
}

// Looking decides nothing: whatever is fetched, with whatever in the query, an
// approval stays as it is, and without a credential there is nothing to see.
func TestLookingDecidesNothing(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		w.agent("planner", "web", "orchestrator", "", []string{}, nil)
		orc, alice := w.session("planner", writ.RoleOrchestrator, "planner"), w.alice()
		id := orc.waits("POST", "/v1/runs", obj{"title": "risky", "budget": obj{"steps": 9}})
		path := "/v1/approvals/" + id
		before := alice.ok(200, "GET", path, nil)
		params, looked := regexp.MustCompile(`\{[a-z_]+\}`), 0
		for _, route := range api.Routes {
			at := params.ReplaceAllString(route.Path, id)
			if route.Method != http.MethodGet && !strings.Contains(route.Path, "/approvals") {
				continue
			}
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
				for _, query := range []string{"", "?decision=approve&approve=true&approval_id=" + id + "&_method=POST"} {
					r := alice.do(method, at+query, nil, "X-HTTP-Method-Override", "POST", "X-HTTP-Method", "POST", "X-Method-Override", "POST")
					if r.receipt() != "" && r.status < 300 {
						t.Errorf("looking left a receipt: %s", r)
					}
					looked++
				}
			}
		}
		if looked < 60 {
			t.Errorf("looked %d times: the table of routes has another form", looked)
		}
		if after := alice.ok(200, "GET", path, nil); string(after.body) != string(before.body) || after.version() != before.version() {
			t.Errorf("looking changed it: %s\n%s", before, after)
		}
		nobody := caller{t: t, gw: w.last()}
		nobody.refused(401, writ.CodeUnauthenticated, "GET", path, nil)
		if r := nobody.do("HEAD", path, nil); r.status != 401 && r.status != 405 {
			t.Errorf("without a credential: %s", r)
		}
		alice.approve(id) // it could have been decided all along
		w.audited()
	})
}
