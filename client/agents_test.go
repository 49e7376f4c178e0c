package client

import (
	"context"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// What an agent says of its health and its keys goes out, and comes back as the
// gateway shows it.
func TestAgentsWithEndpoints(t *testing.T) {
	none := int64(0)
	c, f := newFake(t, nil, ok("done", `{"agent_id":"plug","state":"planned","keys":[{"id":"SHA256:x","pem":"P"}],
		"endpoints":{"api":{"url_host":"x.example","timeout_ms":3000,"interval_s":10}},"health_policy":{"mode":"both","failures":0}}`))
	a, err := c.RegisterAgent(context.Background(), AgentOptions{
		ID: "plug", Archetypes: []writ.Role{writ.RoleExecutor}, Domain: "web", Keys: []string{"P"},
		Endpoints: map[string]AgentEndpoint{"api": {URL: "https://x.example/health"}}, Health: &AgentHealthPolicy{Mode: writ.HealthBoth, Failures: &none},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Keys) != 1 || a.Keys[0].PEM != "P" || a.Endpoints["api"].Host != "x.example" || a.Health == nil || a.Health.Failures == nil {
		t.Errorf("got %+v", a)
	}
	sent := string(f.got()[0].Args)
	for _, want := range []string{`"endpoints":{"api":{"url":"https://x.example/health"}}`, `"health_policy":{"mode":"both","failures":0}`, `"keys":["P"]`} {
		if !strings.Contains(sent, want) {
			t.Errorf("%s is not in %s", want, sent)
		}
	}
}
