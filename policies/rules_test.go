package policies

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// promised are the rules the built-in packs have, by pack and without its name
// in front. People and receipts name them: an id is taken away or given another
// meaning only together with a new major version of its pack.
var promised = map[string][]string{
	"approvals": {
		"incomplete", "manual", "four_eyes", "raised", "handed_on", "sod", "digest",
		"trigger.http_host", "trigger.skill_enable", "trigger.secret_write", "trigger.channel_connection",
	},
	"budgets": append(perDimension("hard_stop", "extend"),
		"incomplete", "unpriced", "late_destructive", "late_destructive.enqueue", "inherit", "self_grant", "warn", "unknown_dimension"),
	"classification": {
		"incomplete", "secret", "pii_raw", "redacted_egress", "downgrade", "unverified", "unknown", "untrusted_to_destructive", "masked",
	},
	"egress":       {"incomplete", "private_address", "scheme", "redirected", "unpinned", "secret_elsewhere", "unjailed", "ungranted", "expired", "method", "path", "classification", "tunnel"},
	"lifecycle":    {"incomplete", "agent_inactive", "session_inactive", "run_closed", "paused", "verifying", "boundary", "defers", "contract_missing"},
	"quotas":       {"incomplete", "exceeded", "extend", "unknown"},
	"skills":       {"incomplete", "source", "private_host", "reserved", "undeclared", "tampered", "changed", "inactive", "not_ready"},
	"sod":          {"incomplete", "role", "executor", "orchestrator", "requester"},
	"write_scopes": {"incomplete", "unclaimed", "outside", "canonical", "readonly_role"},
}

func perDimension(rules ...string) []string {
	var out []string
	for _, r := range rules {
		for _, d := range writ.BudgetDimensions() {
			out = append(out, r+"."+d)
		}
	}
	return out
}

// elsewhere are checks one would look for in a pack and that something else
// makes, with the reason. The packs' READMEs say so too.
var elsewhere = map[string]string{
	"approvals.no_self_confirm": "arguments are read strictly, so a call that brings its own consent is malformed before anything is judged",
	"classification.public":     "what no rule objects to is allowed; a finding that says so would say nothing",
	"write_scopes.conflict":     "two holders of one scope are kept apart by the commit, with code scope_conflict: what policy saw could be old by then",
}

func rulesOf(id string) []string {
	var out []string
	for _, r := range promised[id] {
		out = append(out, id+"."+r)
	}
	slices.Sort(out)
	return out
}

// The packs have the rules that are promised, and no others; nothing that is
// checked elsewhere has a rule as well.
func TestPromisedRules(t *testing.T) {
	packs := load(t).now.Load().packs
	if len(packs) != len(promised) {
		t.Errorf("%d packs, want %d", len(packs), len(promised))
	}
	for _, p := range packs {
		got := slices.Sorted(slices.Values(p.order))
		if want := rulesOf(p.ID); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %v\nwant %v", p.ID, got, want)
		}
	}
	for id := range elsewhere {
		pack, _, _ := strings.Cut(id, ".")
		if slices.Contains(rulesOf(pack), id) {
			t.Errorf("%s is a rule and is checked elsewhere", id)
		}
		if readme := prose(t, pack); !bytes.Contains(readme, []byte("`"+id+"`")) {
			t.Errorf("%s: the README does not say where it is checked", id)
		}
	}
}

func prose(t *testing.T, id string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("packs", id, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var namedRule = regexp.MustCompile("`([a-z_]+\\.[a-z_.]+)`")

// Rules, METADATA, tests, fixtures and prose speak of the same rules: every
// rule is in the README, held by a fixture and by a Rego test (TestRego watches
// them), and a Rego test shows what it lets through; none of them names a rule
// that does not exist.
func TestRulesAreTestedAndTold(t *testing.T) {
	for _, p := range load(t).now.Load().packs {
		rego, err := os.ReadFile(filepath.Join("packs", p.ID, p.ID+"_test.rego"))
		if err != nil {
			t.Fatal(err)
		}
		hit, allowed := map[string]bool{}, false
		for name, f := range fixtures(t, p.ID) {
			allowed = allowed || f.Want.Effect == writ.EffectAllow
			if f.Name == "" || (f.Want.Effect != writ.EffectAllow) != slices.ContainsFunc(f.Want.Rules, func(id string) bool {
				return p.rules[id] != nil && p.rules[id].finding.Effect != writ.EffectAllow
			}) {
				t.Errorf("%s: it has no name, or its effect is not that of a rule it wants", name)
			}
			for _, id := range f.Want.Rules {
				hit[id] = true
			}
		}
		if !allowed {
			t.Errorf("%s: no fixture is allowed", p.ID)
		}
		readme := prose(t, p.ID)
		for id := range p.rules {
			if !hit[id] {
				t.Errorf("%s: no fixture makes it hold", id)
			}
			if !bytes.Contains(readme, []byte("`"+id+"`")) {
				t.Errorf("%s: the README does not tell of it", id)
			}
			name, _, _ := strings.Cut(strings.TrimPrefix(id, p.ID+"."), ".")
			if name == "incomplete" {
				name = "allows" // whatever is allowed is complete
			} else {
				name += "_allows"
			}
			if !bytes.Contains(rego, []byte("\ntest_"+name)) {
				t.Errorf("%s: no Rego test test_%s… lets anything through", id, name)
			}
		}
		for id := range hit {
			if p.rules[id] == nil {
				t.Errorf("%s: a fixture names a rule that does not exist", id)
			}
		}
		for _, m := range namedRule.FindAllSubmatch(readme, -1) {
			id := string(m[1])
			if strings.HasPrefix(id, p.ID+".") && p.rules[id] == nil && elsewhere[id] == "" {
				t.Errorf("%s: the README tells of it, and it does not exist", id)
			}
		}
	}
	if entries, _ := os.ReadDir("fixtures"); len(entries) != len(packIDs(t)) {
		t.Errorf("fixtures of %d packs, want %d", len(entries), len(packIDs(t)))
	}
}
