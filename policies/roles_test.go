package policies

import (
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// What is looked up equals what Casbin's plain enforcer answers, for every
// role and capability, known or not.
func agree(t *testing.T, f files, o Options) {
	t.Helper()
	got, err := loadRoles(f, o)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parseRows(f[rowsFile])
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, home := range o.Tenants {
		e, err := enforcer(f[modelFile], rows, home, o.Capabilities)
		if err != nil {
			t.Fatal(err)
		}
		for _, role := range append(slices.Clone(allRoles), "nobody", "") {
			for _, c := range append(slices.Clone(o.Capabilities), "no.such", "*", "") {
				want, err := e.Enforce(subject(role), string(home), string(c), "invoke")
				if err != nil {
					t.Fatal(err)
				}
				if got.permit(role, home, c) != want {
					t.Errorf("%s %s %s: got %t, Enforce says %t", home, role, c, !want, want)
				}
				if got.permit(role, "elsewhere", c) {
					t.Errorf("%s is permitted %s in a tenant nobody configured", role, c)
				}
				asked++
			}
		}
	}
	t.Logf("%d questions", asked)
}

func TestRolesAgreeWithEnforce(t *testing.T) {
	f := sources(t)
	agree(t, f, Options{Capabilities: verbs, Tenants: []writ.Tenant{"default"}})
	f[rowsFile] = append(f[rowsFile], `
p, role:operator, acme, task.claim, invoke, allow
p, role:executor, acme, task.fail, invoke, deny
p, role:operator, *, run.create, invoke, deny
p, role:operator, acme, no.such, invoke, allow
p, role:auditor, unknown-tenant, task.claim, invoke, allow
g, role:verifier, role:executor, acme
g, role:approver, role:verifier, *
g, role:executor, role:approver, acme # a circle
p, role:system, acme, task.list, invoke, deny
`...)
	agree(t, f, Options{Capabilities: verbs, Tenants: []writ.Tenant{"default", "acme"}})
}

// The shipped grants, said a second time and the other way round.
func TestShippedRoles(t *testing.T) {
	e := load(t)
	const (
		all    = "operator orchestrator executor verifier approver auditor connector system"
		people = "operator orchestrator executor verifier approver auditor system" // without connectors
	)
	want := map[string]string{
		"session.open session.revoke session.list session.spawn":  "operator system",
		"session.start session.heartbeat session.close":           all,
		"session.get policy.info capability.invoke":               all,
		"agent.register agent.activate agent.suspend":             "operator system",
		"agent.revoke agent.supersede agent.retire":               "operator system",
		"agent.list agent.info agent.tools":                       people,
		"capability.list capability.get":                          people,
		"run.create run.seal run.cancel task.enqueue task.cancel": "operator orchestrator system",
		"run.get run.list":                                        people,
		"task.get task.list":                                      "operator orchestrator executor verifier auditor system",
		"task.claim task.heartbeat task.complete":                 "executor system",
		"task.fail task.release":                                  "executor system",
		"receipt.get":                                             people,
		"receipt.list receipt.export":                             "operator verifier approver auditor system",
		"evidence.shred":                                          "operator system",
		"receipt.evidence":                                        "operator auditor system",
		"session.expire task.expire":                              "system",
	}
	told := 0
	for caps, roles := range want {
		for c := range strings.FieldsSeq(caps) {
			told++
			for _, role := range append(slices.Clone(allRoles), "root") {
				if got, want := e.Permit(role, "default", writ.CapabilityID(c)), slices.Contains(strings.Fields(roles), string(role)); got != want {
					t.Errorf("%s %s: got %t, want %t", role, c, got, want)
				}
			}
		}
	}
	if told != len(verbs) {
		t.Errorf("the table names %d capabilities, want all %d", told, len(verbs))
	}
	for _, c := range []writ.CapabilityID{"", "*", "task", "task.teleport"} {
		if e.Permit(writ.RoleSystem, "default", c) {
			t.Errorf("even the system is not permitted %q: there is no such capability", c)
		}
	}
	if e.Permit(writ.RoleOperator, "other", "run.create") || e.Permit(writ.RoleOperator, "*", "run.create") {
		t.Error("permitted in a tenant that is not configured")
	}
}

// What is taken away is gone with the next snapshot.
func TestRevokedRowIsGone(t *testing.T) {
	e := load(t)
	f := sources(t)
	const row = "p, role:executor, *, task.claim, invoke, allow\n"
	f[rowsFile] = []byte(strings.Replace(string(f[rowsFile]), row, "", 1))
	if !e.Permit(writ.RoleExecutor, "default", "task.claim") {
		t.Fatal("the shipped roles let executors claim")
	}
	if err := e.Reload(t.Context(), from(f)); err != nil {
		t.Fatal(err)
	}
	if e.Permit(writ.RoleExecutor, "default", "task.claim") {
		t.Error("still permitted after the row was removed")
	}
}

func TestRowsRefused(t *testing.T) {
	for row, want := range map[string]string{
		"p, operator, *, run.get, invoke, allow":             "the subject",
		"p, role:root, *, run.get, invoke, allow":            "the subject",
		"p, role:operator, *, *, invoke, allow":              "only role:system",
		"p, role:operator, *, task.*, invoke, allow":         "the object",
		"p, role:operator, *, run.get, read, allow":          "the action",
		"p, role:operator, *, run.get, invoke, maybe":        "the effect",
		"p, role:operator, *, run.get, invoke":               "a row is p",
		"p, role:operator, *, run.get, invoke, allow, x":     "a row is p",
		"p2, role:operator, *, run.get, invoke, allow":       "a row is p",
		"p, role:operator, Default, run.get, invoke, allow":  "the tenant",
		"p, role:operator, , run.get, invoke, allow":         "the tenant",
		`p, "role:operator", *, run.get, invoke, allow`:      "the subject",
		"g, role:operator, role:nobody, *":                   "both subjects",
		"g, role:operator, role:operator, *":                 "itself already",
		"g, role:operator, role:system, *":                   "the gateway itself",
		"g, alice, role:operator, *":                         "both subjects",
		"g, role:operator, role:auditor":                     "a row is p",
		"p, role:operator, *, eval(p.obj), invoke, allow":    "the object",
		"p, role:operator, *, run.get\x00, invoke, allow":    "the object",
		"p; role:operator; *; run.get; invoke; allow":        "a row is p",
		"p, role:operator, *, run.get, invoke, allow\rp, x,": "a row is p",
	} {
		f := sources(t)
		f[rowsFile] = []byte("# comment\n\n" + row + "\n")
		refused(t, from(f), want)
		refused(t, from(f), rowsFile+":3: ")
	}
}

func TestModelRefused(t *testing.T) {
	for from0, to := range map[string]string{
		"r.obj == p.obj":                   "keyMatch2(r.obj, p.obj)",
		"r.dom == p.dom && g(":             "g(",
		"&& !some(where (p.eft == deny))":  "",
		"r = sub, dom, obj, act":           "r = sub, obj, act",
		"g = _, _, _":                      "g = _, _",
		"[matchers]\nm = ":                 "[matchers]\nm = eval(p.obj) && ",
		"[matchers]":                       "[matchers]\nm2 = true",
		"e = some(where (p.eft == allow))": "e = some(where (p.eft == allow)) || true",
		"[policy_effect]":                  "",
	} {
		f := sources(t)
		text := strings.Replace(string(f[modelFile]), from0, to, 1)
		if text == string(f[modelFile]) {
			t.Fatalf("%q is not in the model", from0)
		}
		f[modelFile] = []byte(text)
		refused(t, from(f), modelFile)
	}
}

// Rows never panic, and what parses is what check admits.
func FuzzRows(f *testing.F) {
	b, err := shipped.ReadFile(rowsFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("g, role:verifier, role:executor, *\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := parseRows(b)
		if err != nil {
			return
		}
		for _, r := range rows {
			if r.check() != nil {
				t.Errorf("a row that check refuses was parsed: %q", r.fields)
			}
		}
	})
}
