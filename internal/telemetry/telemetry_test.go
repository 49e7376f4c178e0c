package telemetry

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

func scrape(t *testing.T, r *Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestDoorMetrics(t *testing.T) {
	r := New()
	d := r.Door
	d.Inflight(1)
	d.Inflight(1)
	d.Inflight(-1)
	d.ObserveCall("task.claim", "ok", 0.002, 1)
	d.ObserveCall("task.claim", "contention", 0.002, 8)
	d.Conflict("expect")
	d.Denial("rbac_denied")
	d.Shed("backlog")
	r.Webhooks.Delivery("approval.requested", "delivered")
	r.Webhooks.Delivery("approval.requested", "failed")
	d.Shadow("change_freeze", "allow", "deny")
	d.ShadowLost("queue")
	text := scrape(t, r)
	for _, want := range []string{
		`writ_door_calls_total{capability="task.claim",outcome="ok"} 1`,
		`writ_door_calls_total{capability="task.claim",outcome="contention"} 1`,
		`writ_door_conflicts_total{guard="expect"} 1`,
		`writ_door_denials_total{code="rbac_denied"} 1`,
		`writ_door_shed_total{reason="backlog"} 1`,
		`writ_policy_shadow_total{from="allow",pack="change_freeze",to="deny"} 1`,
		`writ_policy_shadow_lost_total{reason="queue"} 1`,
		`writ_door_inflight 1`,
		`writ_webhook_deliveries_total{event="approval.requested",outcome="delivered"} 1`,
		`writ_webhook_deliveries_total{event="approval.requested",outcome="failed"} 1`,
		`writ_door_tries_count 2`,
		`go_goroutines`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
}

// Whatever is reported, the number of series stays bounded, and nothing fails.
func TestSeriesAreBounded(t *testing.T) {
	r := New()
	r.ObserveRequest("task.claim", 200, 0.1)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range 300 {
				r.ObserveRequest(fmt.Sprintf("op-%d-%d", i, j), 200, 0.001)
				r.Door.ObserveCall(fmt.Sprintf("c-%d-%d", i, j), "ok", 0.001, 1)
				r.Door.Denial(fmt.Sprintf("\xff%d-%d", i, j))
			}
		}()
	}
	wg.Wait()
	r.ObserveRequest("task.claim", 200, 0.1)
	r.ObserveRequest("task.claim", 7, 0.1)
	text := scrape(t, r)
	for name, most := range map[string]int{"writ_http_requests_total{": maxLabels + 3, "writ_door_calls_total{": maxLabels + 1, "writ_door_denials_total{": 1} {
		if n := strings.Count(text, name); n == 0 || n > most {
			t.Errorf("%s: %d series, at most %d expected", name, n, most)
		}
	}
	if !strings.Contains(text, `writ_http_requests_total{operation="task.claim",status="200"} 2`) {
		t.Error("a value known before the bound was reached is no longer counted")
	}
}

func TestCounters(t *testing.T) {
	r := New()
	r.Counters("policy_memo_total", "Packs.", "result", map[string]func() float64{
		"hit": func() float64 { return 3 }, "miss": func() float64 { return 4 },
	})
	for _, want := range []string{`writ_policy_memo_total{result="hit"} 3`, `writ_policy_memo_total{result="miss"} 4`} {
		if text := scrape(t, r); !strings.Contains(text, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
}

func TestInstancesAreApart(t *testing.T) {
	a, b := New(), New()
	a.Gauge("store_memory_bytes", "Memory of the store.", func() float64 { return 42 })
	b.Gauge("store_memory_bytes", "Memory of the store.", func() float64 { return 7 })
	if !strings.Contains(scrape(t, a), "writ_store_memory_bytes 42") || !strings.Contains(scrape(t, b), "writ_store_memory_bytes 7") {
		t.Error("two instances share a gauge")
	}
}
