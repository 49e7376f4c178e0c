package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The registry as a file: all that is wrong is said before anything is done; the
// same again changes nothing; what is exported is what was imported.
func TestF1ImportAndExport(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		dir := t.TempDir()
		write := func(name, text string) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		writ := func(args ...string) result {
			return command(t, append(args, "--url", w.gw[0].url, "--token-file", filepath.Join(w.gw[0].data, "operator.token"))...)
		}
		revision := func() int64 { return w.op.ok(200, "GET", "/v1/agents", nil).num("registry_revision") }
		good := `agents:
  - {id: spine, domain: infra, implementation_status: active, owns: [deployment], mcp_tools: [{name: stack.deploy, safety: destructive, concern: deployment}]}
  - {id: pages, domain: web, implementation_status: active, capabilities: [site.build], write_scope: ["fs:site"], defers: [{concern: deployment, to: spine}], routing: {keywords: ["Web  Site"]}}
  - {id: later, domain: web, archetypes: [verifier]}
`
		none := revision()
		r := writ("agent", "import", write("bad.yaml", strings.Replace(good, "fs:site", "fs:../x", 1)+"  - {id: pages, domain: W}\n"))
		if r.code == 0 || !strings.Contains(r.stderr, "bad.yaml:3:") || !strings.Contains(r.stderr, "/agents/3/domain") || !strings.Contains(r.stderr, "/agents/3/id") || revision() != none {
			t.Fatalf("%s", r)
		}
		path := write("agents.yaml", good)
		if r := writ("agent", "import", path, "--dry-run"); r.code != 0 || !strings.Contains(r.stdout, "5 calls, 0 agents") || revision() != none {
			t.Fatalf("%s", r)
		}
		if r := writ("agent", "import", path); r.code != 0 || revision() != none+5 {
			t.Fatalf("%s", r)
		}
		if r := writ("agent", "import", path); r.code != 0 || !strings.Contains(r.stdout, "0 calls, 3 agents") || revision() != none+5 {
			t.Fatalf("again: %s", r)
		}
		out := writ("agent", "export")
		if out.code != 0 || !strings.Contains(out.stdout, "stack.deploy") {
			t.Fatalf("%s", out)
		}
		if r := writ("agent", "import", write("exported.yaml", out.stdout)); r.code != 0 || !strings.Contains(r.stdout, "0 calls, 3 agents") {
			t.Fatalf("what was exported: %s", r)
		}
		// One changes, one ends, and a scope goes from one to another.
		next := strings.Replace(strings.Replace(good, `write_scope: ["fs:site"], `, "", 1), "later, domain: web, archetypes: [verifier]", `later, domain: web, implementation_status: active, capabilities: [site.build], write_scope: ["fs:site"]`, 1)
		next = strings.Replace(next, "infra, implementation_status: active", "infra, implementation_status: retired", 1)
		if r := writ("agent", "import", write("next.yaml", next)); r.code != 0 {
			t.Fatalf("%s", r)
		}
		if r := w.op.ok(200, "GET", "/v1/agents/spine", nil); r.str("state") != "retired" {
			t.Errorf("%s", r)
		}
		if r := w.op.ok(200, "GET", "/v1/agents/later", nil); r.str("state") != "active" {
			t.Errorf("%s", r)
		}
		// What a file cannot hold, or nobody can begin as, is said.
		w.op.ok(201, "PUT", "/v1/agents/watched", obj{"archetypes": []string{"verifier"}, "domain": "web", "health_policy": obj{"mode": "none"}})
		if r := writ("agent", "export"); r.code != 0 || !strings.Contains(r.stderr, "health policy of watched") || strings.Contains(r.stderr, "pages") {
			t.Errorf("%s", r)
		}
		paused := "agents:\n  - {id: paused, domain: web, archetypes: [verifier], implementation_status: suspended}\n"
		if r := writ("agent", "import", write("paused.yaml", paused)); r.code != 0 || !strings.Contains(r.stdout, "0 calls, 0 agents") || !strings.Contains(r.stderr, "paused is suspended") {
			t.Errorf("%s", r)
		}
	})
}
