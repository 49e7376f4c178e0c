package e2e

import (
	"encoding/json"
	"testing"

	"github.com/writ-gateway/writ"
)

// N14, and routing as a whole: the same words lead to the same agent, on every replica, however they are
// written; one that is not active is never it.
func TestN14F5Routing(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		words := func(priority int, keywords ...string) obj {
			return obj{"routing": obj{"keywords": keywords, "priority": priority}}
		}
		w.agent("media-agent", "media", "executor", tool, []string{}, words(1, "Jellyfin", "movie  night"))
		w.agent("night-agent", "ops", "executor", tool, []string{}, words(5, "night shift", "jellyfin"))
		data := func(by caller, input string) string {
			t.Helper()
			r := by.ok(200, "POST", "/v1/invoke", obj{"capability": "agent.route", "args": obj{"input": input}})
			b, err := json.Marshal(r.at("data", "data"))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		first := data(w.op, "media")
		for range 500 {
			if got := data(w.op, "media"); got != first {
				t.Fatalf("got %s, then %s", first, got)
			}
		}
		if got := data(w.op.at(w.last()), "media"); got != first {
			t.Fatalf("another replica: %s, then %s", first, got)
		}
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
