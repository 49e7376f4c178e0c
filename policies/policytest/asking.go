// Package policytest makes policies that tests of whole gateways have in force.
package policytest

import (
	_ "embed"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies"
)

//go:embed ask.rego
var ask string

const manifest = `manifest:
  id: ask
  version: 1.0.0
  title: What this team wants to be asked
  owner: team
  kind: guard
  match: {capabilities: [ABOUT]}
  effects: [deny, require_approval]
`

// Asking is a folder with the shipped policies and a pack of a team's own that asks people
// about calls of some capabilities: run.create of orchestrators, task.claim of destructive
// work, task.complete of what publishes (two people) or stamps. Runs whose steps are used
// up can be given more.
func Asking(t testing.TB, about ...writ.CapabilityID) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, policies.ShippedFiles()); err != nil {
		t.Fatal(err)
	}
	budgets := filepath.Join(dir, "packs", "budgets", "data.yaml")
	text, err := os.ReadFile(budgets)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range about {
		names = append(names, string(c))
	}
	more := strings.NewReplacer("on_exceed: {}", "on_exceed: {steps: approval_required}", "    steps: 100\n", "    steps: 5\n")
	for path, text := range map[string]string{
		budgets: more.Replace(string(text)),
		filepath.Join(dir, "packs", "ask", "pack.yaml"): strings.Replace(manifest, "ABOUT", strings.Join(names, ", "), 1),
		filepath.Join(dir, "packs", "ask", "ask.rego"):  ask,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
