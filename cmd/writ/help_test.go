package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/internal/daemon"
)

// wordsOf splits an example as a shell does.
func wordsOf(s string) []string {
	var out []string
	var b strings.Builder
	in := false
	var quote rune
	for _, r := range strings.ReplaceAll(s, "\\\n", " ") {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, in = r, true
		case quote == 0 && r == ' ':
			if in {
				out = append(out, b.String())
			}
			b.Reset()
			in = false
		default:
			b.WriteRune(r)
			in = true
		}
	}
	return append(out, b.String())
}

// Every verb teaches by an example that its command takes and whose arguments
// meet the schema.
func TestExamplesAreValidCalls(t *testing.T) {
	cat := daemon.Catalog()
	v, err := gateway.NewValidator(cat)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range cat.All() {
		if k.Internal || k.ID == "capability.invoke" || k.ID == "receipt.export" || k.ID == "policy.stage" || k.ID == "artifact.put" || k.ID == "artifact.content" || k.ID == "secret.put" { // these have commands of their own
			continue
		}
		t.Run(string(k.ID), func(t *testing.T) {
			words := wordsOf(examples[k.ID])
			noun, verb, _ := strings.Cut(string(k.ID), ".")
			if len(words) < 3 || words[0] != "writ" || words[1] != noun || words[2] != verb {
				t.Fatalf("the example is %q", examples[k.ID])
			}
			c, rest, err := root().Find(words[1:])
			if err != nil {
				t.Fatal(err)
			}
			if err := c.ParseFlags(rest); err != nil {
				t.Fatal(err)
			}
			body := map[string]any{}
			for i, a := range argumentsOf(k.Args) {
				f := c.Flags().Lookup(flagName(a.name))
				switch {
				case f == nil && i == 0 && len(c.Flags().Args()) == 1:
					body[a.name] = c.Flags().Args()[0]
				case f != nil && f.Changed:
					if body[a.name], err = a.parse(f.Value.String()); err != nil {
						t.Fatalf("--%s: %v", f.Name, err)
					}
				}
			}
			raw, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Decode(k, raw); err != nil {
				t.Errorf("%s: %v %+v", raw, err, writ.AsError("", err).Fields)
			}
		})
	}
}

// Help says what must be given, what may be given, and what JSON looks like.
func TestHelpTeaches(t *testing.T) {
	for args, wants := range map[string][]string{
		"agent register": {
			"AGENT-ID: Slug that names the agent; 2 to 63 of a-z, 0-9 and - (required)",
			"--tools is a JSON array of objects with:\n  name (string, required): ",
			"safety (string, required): What running it can do; one of read-only|mutating|destructive|blocked",
			"--archetypes list", "any of orchestrator|executor|verifier; 1 to 3 items", "default 4", "Examples:\n  writ agent register",
		},
		"run create":   {"--budget is a JSON object with:\n  steps (integer, required): ", "1 to 1000000", "one of auto|manual|verifier; default auto", "(required)"},
		"task fail":    {"class (string, required): What kind of trouble it was; one of deterministic|freshness", "retryable (bool, required)", "--fence int", "lse_…"},
		"session open": {"one of human|agent|service (required)", "--token-out", "10 to 300"},
		"run list":     {"one of active|paused_approval|verifying|done|failed|cancelled"},
	} {
		var b strings.Builder
		r := root()
		r.SetOut(&b)
		r.SetArgs(append(strings.Fields(args), "--help"))
		if err := r.Execute(); err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s --help does not say %q:\n%s", args, want, b.String())
			}
		}
	}
}
