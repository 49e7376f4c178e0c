package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/writ-gateway/writ"
)

// A thousand callers who ask with the same words, at every replica, are told the
// same as long as the registry is the same. When the agent is stopped all are told of
// the next one, and when there is none, nobody gets the work.
func TestF5T1T3SameWordsSameAgent(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		words := obj{"routing": obj{"keywords": []string{"movie night"}}}
		w.agent("media-agent", "media", "executor", "media.plan", []string{}, words)
		w.agent("night-agent", "ops", "executor", "media.plan", []string{}, words)
		w.agent("other-agent", "ops", "executor", "media.plan", []string{}, nil)
		asked := func(n int) map[string]int {
			t.Helper()
			var mu sync.Mutex
			got := map[string]int{}
			each(8, func(i int) {
				by := w.op.at(w.gw[i%len(w.gw)])
				for range n / 8 {
					r, err := by.try("GET", "/v1/agents/route?input=a%20Movie%20%20NIGHT", nil)
					b, merr := json.Marshal(r.at("data"))
					mu.Lock()
					got[string(b)]++
					mu.Unlock()
					if err != nil || merr != nil || r.status != 200 {
						t.Errorf("%v %v %s", err, merr, r)
						return
					}
				}
			})
			return got
		}
		revision := w.op.ok(200, "GET", "/v1/agents", nil).num("registry_revision")
		told := asked(1000)
		for data, n := range told {
			if len(told) != 1 || n != 1000 || !strings.Contains(data, `"id":"media-agent"`) || !strings.Contains(data, fmt.Sprintf(`"registry_revision":%d`, revision)) {
				t.Fatalf("at revision %d: %v", revision, told)
			}
		}

		w.op.ok(200, "POST", "/v1/agents/media-agent/suspend", nil)
		for data := range asked(8) {
			if !strings.Contains(data, `"id":"night-agent"`) {
				t.Errorf("without the first: %s", data)
			}
		}
		w.op.ok(200, "POST", "/v1/agents/night-agent/suspend", nil)
		r := w.op.at(w.last()).ok(200, "GET", "/v1/agents/route?input=movie%20night", nil)
		if r.str("status") != "not_found" || r.at("data", "agent") != nil {
			t.Errorf("got %s", r)
		}
		c.orc.at(w.last()).refused(404, writ.CodeNotFound, "POST", "/v1/agents/delegate", obj{"run_id": c.run, "input": "movie night", "task": obj{"key": "night", "capability": "media.plan"}})
		w.audited()
	})
}

// N14, and routing as a whole: the same words lead to the same agent however they are
// written; one that is not active is never it.
func TestN14F5T2T3T4Routing(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		words := func(priority int, keywords ...string) obj {
			return obj{"routing": obj{"keywords": keywords, "priority": priority}}
		}
		w.agent("media-agent", "media", "executor", tool, []string{}, words(1, "Jellyfin", "movie  night"))
		w.agent("night-agent", "ops", "executor", tool, []string{}, words(5, "night shift", "jellyfin"))
		route := func(input string) reply {
			t.Helper()
			return w.op.ok(200, "GET", "/v1/agents/route?input="+input, nil)
		}
		for input, want := range map[string][3]string{
			"media": {"media-agent", "domain", "media"}, "MEDIA%20": {"media-agent", "domain", "media"}, "%EF%BC%ADedia": {"media-agent", "domain", "media"},
			"JELLYFIN": {"night-agent", "keyword", "jellyfin"}, "Movie%20Night": {"media-agent", "keyword", "movie night"},
			"night": {"night-agent", "keyword", "night shift"}, "a%20movie": {"media-agent", "keyword", "movie night"},
		} {
			r := route(input)
			if r.str("status") != "matched" || r.str("data", "agent", "id") != want[0] || r.str("data", "match_type") != want[1] || r.str("data", "matched_value") != want[2] {
				t.Errorf("%s: %s", input, r)
			}
		}
		if c, _ := route("night").at("data", "candidates").([]any); len(c) != 2 {
			t.Errorf("got %v", c)
		}
		w.op.ok(200, "POST", "/v1/agents/night-agent/suspend", nil)
		if r := route("jellyfin"); r.str("data", "agent", "id") != "media-agent" {
			t.Errorf("got %s", r)
		}
		w.op.ok(200, "POST", "/v1/agents/media-agent/suspend", nil)
		if r := route("jellyfin"); r.str("status") != "not_found" || r.at("data", "agent") != nil {
			t.Errorf("got %s", r)
		}
		w.op.refused(422, writ.CodeInputInvalid, "GET", "/v1/agents/route?input=%20", nil)
		w.op.refused(422, writ.CodeInputInvalid, "PUT", "/v1/agents/route", obj{"archetypes": []string{"executor"}, "domain": "web"})
	})
}
