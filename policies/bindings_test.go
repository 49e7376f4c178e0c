package policies

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
)

var someone = []writ.PrincipalID{"alice", "bob", "operator", "unknown"}

// systemRow is what every file needs besides an operator.
const systemRow = "p, role:system, *, *, invoke, allow\n"

// What is looked up equals what a plain enforcer that holds all rows answers:
// for every principal, role and capability, whatever the rows.
func TestBindingsAgreeWithEnforce(t *testing.T) {
	f := sources(t)
	s := *load(t).now.Load() // its packs; the roles are changed below
	tenants := []writ.Tenant{"default", "acme"}
	o := Options{Capabilities: verbs[:6], Tenants: tenants}
	role := rapid.SampledFrom(writ.BindableRoles())
	where := rapid.SampledFrom([]string{"*", "default", "acme", "elsewhere"})
	rows := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
		r, in := subject(role.Draw(t, "role")), where.Draw(t, "tenant")
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			to := subject(role.Draw(t, "to"))
			if to == r {
				return "# nothing"
			}
			return fmt.Sprintf("g, %s, %s, %s", r, to, in)
		case 1, 2:
			return fmt.Sprintf("g, principal:%s, %s, %s", rapid.SampledFrom([]string{"alice", "bob", "*"}).Draw(t, "principal"), r, in)
		}
		c := rapid.SampledFrom(o.Capabilities).Draw(t, "capability")
		return fmt.Sprintf("p, %s, %s, %s, invoke, %s", r, in, c, rapid.SampledFrom([]string{"allow", "allow", "deny"}).Draw(t, "effect"))
	}), 0, 25)
	rapid.Check(t, func(t *rapid.T) {
		text := systemRow + strings.Join(rows.Draw(t, "rows"), "\n") + "\n"
		got, err := loadRoles(files{modelFile: f[modelFile], rowsFile: []byte(text)}, o)
		if err != nil {
			t.Fatal(err)
		}
		s := s
		s.roles = got
		for _, tenant := range tenants {
			parsed, _ := parseRows([]byte(text))
			e, err := enforcer(f[modelFile], parsed, tenant, o.Capabilities)
			if err != nil {
				t.Fatal(err)
			}
			granted := map[permission]bool{}
			for _, r := range allRoles {
				for _, g := range s.Grants(r, tenant) {
					if g.By == nil && g.Denied == nil {
						t.Fatalf("no row says anything about %s", g.Capability)
					}
					granted[permission{tenant, r, g.Capability}] = g.Allowed
				}
			}
			everybody := e.GetRolesForUserInDomain("principal:*", string(tenant))
			for _, p := range someone {
				direct := e.GetRolesForUserInDomain("principal:"+string(p), string(tenant))
				for _, r := range allRoles {
					bound := slices.Contains(direct, subject(r)) || slices.Contains(everybody, subject(r))
					if s.Bound(p, r, tenant) != bound {
						t.Fatalf("%s is bound to %s in %s: %t\n%s", p, r, tenant, !bound, text)
					}
					for _, c := range o.Capabilities {
						may, err := e.Enforce(subject(r), string(tenant), string(c), "invoke")
						if err != nil {
							t.Fatal(err)
						}
						if got := s.Permit(r, tenant, c); got != may {
							t.Fatalf("%s may %s in %s: %t\n%s", r, c, tenant, got, text)
						}
						if got := granted[permission{tenant, r, c}]; got != may {
							t.Fatalf("the rows shown grant %s to %s in %s: %t\n%s", c, r, tenant, got, text)
						}
					}
				}
			}
		}
	})
}

// Under any bindings by capability the rules say what the two places say
// together, and in their tenant only; without them they are as before.
func TestBindingsOnTopOfTheFile(t *testing.T) {
	e := load(t)
	policy, own := e.Revisions()
	file := e.now.Load().roles.bound["default"]
	set := rapid.MapOfN(rapid.Custom(func(t *rapid.T) writ.Bind {
		return writ.Bind{
			Principal: rapid.SampledFrom(append([]writ.PrincipalID{"*"}, someone...)).Draw(t, "principal"),
			Role:      rapid.SampledFrom(writ.BindableRoles()).Draw(t, "role"),
		}
	}), rapid.Bool(), 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		said := writ.BindingSet(set.Draw(t, "set"))
		e.Bind("default", said)
		e.Bind("acme", said)
		rules, ok := e.Under(policy, writ.BindingsRevision(own, said.Digest("default")), 0)
		if !ok {
			t.Fatal("the rules are not held")
		}
		for _, p := range someone {
			for _, r := range writ.BindableRoles() {
				if got, want := rules.Bound(p, r, "default"), writ.Bound(file, said, p, r); got != want {
					t.Fatalf("%s is bound to %s: %t", p, r, got)
				}
				if rules.Bound(p, r, "acme") {
					t.Fatal("bindings of one tenant hold in another")
				}
				if elsewhere, ok := e.Under(policy, writ.BindingsRevision(own, said.Digest("acme")), 0); len(said) > 0 && (!ok || elsewhere.Bound(p, r, "default") != writ.Bound(file, nil, p, r)) {
					t.Fatal("what another tenant took is taken here")
				}
			}
		}
		if got, _ := e.Under(policy, own, 0); !got.Bound("alice", writ.RoleAuditor, "default") {
			t.Fatal("the rules of before are not held any more, or have changed")
		}
	})
}

// A role that is taken is gone for whoever asks under the new revision, whatever
// bound it: no answer is remembered.
func TestUnboundIsGone(t *testing.T) {
	e := load(t)
	policy, own := e.Revisions()
	said := writ.BindingSet{}
	for i, b := range []writ.Bind{{Principal: "alice", Role: writ.RoleExecutor}, {Principal: writ.Everybody, Role: writ.RoleApprover}} {
		if !e.Bound("alice", b.Role, "default") {
			t.Fatalf("the shipped file binds everybody to %s", b.Role)
		}
		next := writ.BindingSet{b: false}
		for k, v := range said {
			next[k] = v
		}
		said = next
		e.Bind("default", said)
		if !e.Bound("alice", b.Role, "default") {
			t.Error("in force before a gate names it")
		}
		revision := writ.BindingsRevision(own, said.Digest("default"))
		packs := e.now.Load().packs
		if _, ok := e.Under(policy, revision, int64(i+1)); !ok {
			t.Fatal("not held")
		}
		if e.Bound("alice", b.Role, "default") {
			t.Errorf("still bound to %s", b.Role)
		}
		if e.now.Load().packs[0] != packs[0] {
			t.Error("packs were compiled again")
		}
		if _, now := e.Revisions(); now != revision || e.Info().BindingsRevision != revision {
			t.Errorf("the engine answers from %s, the gate named %s", now, revision)
		}
	}
	if !e.Bound("bob", writ.RoleExecutor, "default") {
		t.Error("others were not asked about")
	}
	if e.Bound("bob", writ.RoleApprover, "default") || e.Bound("writ", writ.RoleSystem, "default") {
		t.Error("bound to a role nobody is bound to")
	}
}

// More changes than are kept ready never lose the one that is in force, nor the
// packs it goes with.
func TestTheBindingsInForceStayHeld(t *testing.T) {
	e := load(t)
	policy, own := e.Revisions()
	inForce := writ.BindingSet{{Principal: "alice", Role: writ.RoleExecutor}: false}
	e.Bind("default", inForce)
	if _, ok := e.Under(policy, writ.BindingsRevision(own, inForce.Digest("default")), 1); !ok {
		t.Fatal("not held")
	}
	for i := range 3 * maxOverlays { // planned and never committed
		e.Bind("default", writ.BindingSet{{Principal: writ.PrincipalID(fmt.Sprint("p", i)), Role: writ.RoleExecutor}: true})
	}
	// Another bundle that is held goes with them too, though nobody named it yet.
	f := sources(t)
	f[rowsFile] = append(f[rowsFile], "# another\n"...)
	other, err := writeBundle(f)
	if err != nil {
		t.Fatal(err)
	}
	held, err := e.Prepare(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := e.Under(policy, writ.BindingsRevision(held.FileRevision(), inForce.Digest("default")), 1); !ok {
		t.Error("another bundle is not held with the bindings in force")
	}
	if len(e.ready()) != maxOverlays {
		t.Errorf("%d are kept", len(e.ready()))
	}
	rules, ok := e.Under(policy, writ.BindingsRevision(own, inForce.Digest("default")), 1)
	if !ok || rules.Bound("alice", writ.RoleExecutor, "default") {
		t.Error("what is in force is not held any more")
	}
	if _, ok := e.Under(policy, "sha256:unknown", 2); ok {
		t.Error("a revision nobody made is held")
	}
	select {
	case <-e.Missed():
	default:
		t.Error("nobody was told that rules are missing")
	}
}

func TestBindingRowsRefused(t *testing.T) {
	for row, want := range map[string]string{
		"g, principal:alice, role:root, *":                               "the second subject",
		"g, principal:alice, principal:bob, *":                           "the second subject",
		"g, principal:alice, role:system, *":                             "the gateway itself",
		"g, principal:*, role:system, *":                                 "the gateway itself",
		"g, principal:, role:operator, *":                                "the principal",
		"g, principal:Alice, role:operator, *":                           "the principal",
		"g, principal:a*, role:operator, *":                              "the principal",
		"g, principal:**, role:operator, *":                              "the principal",
		"g, principal:role:operator, role:operator, *":                   "the principal",
		"g, principal:principal:alice, role:operator, *":                 "the principal",
		`g, principal:"alice", role:operator, *`:                         "the principal",
		"g, principal:alice\rg, role:operator, *":                        "the principal",
		"g, principal:al,ice, role:operator, *":                          "a row is p",
		"g, principal:alice, role:operator":                              "a row is p",
		"g, principal:alice, role:operator, *, allow":                    "a row is p",
		"g, principal:alice, role:operator, Default":                     "the tenant",
		"g, role:operator, principal:alice, *":                           "both subjects",
		"p, principal:alice, *, run.create, invoke, allow":               "the subject",
		"g, Principal:alice, role:operator, *":                           "both subjects",
		"g, principal:" + strings.Repeat("a", 64) + ", role:operator, *": "the principal",
	} {
		f := sources(t)
		f[rowsFile] = []byte("# comment\n\n" + row + "\n")
		refused(t, from(f), want)
		refused(t, from(f), rowsFile+":3: ")
	}
}

// A file in which nobody can act as operator is refused, with the row to add.
func TestAFileWithoutAnOperatorIsRefused(t *testing.T) {
	for _, bindings := range []string{
		"", "g, principal:alice, role:auditor, *\n", "g, principal:alice, role:operator, acme\n",
		"g, principal:alice, role:auditor, *\ng, role:auditor, role:operator, *\n",
	} {
		f := sources(t)
		f[rowsFile] = []byte(systemRow + bindings)
		refused(t, from(f), `nobody is bound to role:operator in default; add the row "g, principal:operator, role:operator, *"`)
	}
	f := sources(t)
	f[rowsFile] = []byte(systemRow + "g, principal:alice, role:operator, default\n")
	e := loadFrom(t, from(f))
	if !e.Bound("alice", writ.RoleOperator, "default") || e.Bound("bob", writ.RoleOperator, "default") {
		t.Error("bound by name means bound by name")
	}
}

func TestRowsAreShown(t *testing.T) {
	f := sources(t)
	f[rowsFile] = []byte(systemRow + `g, principal:bob,  role:operator, *  # the second
g, principal:alice, role:verifier, default
g, principal:alice, role:verifier, *
g, principal:eve, role:verifier, acme
g, role:verifier, role:executor, *
p, role:executor, *, task.claim, invoke, allow
p, role:verifier, *, task.claim, invoke, deny
p, role:executor, *, task.fail, invoke, allow
p, role:executor, *, no.such, invoke, allow
`)
	s := loadFrom(t, from(f)).now.Load()
	var lines []string
	for _, b := range s.FileBindings("default") {
		lines = append(lines, fmt.Sprintf("%s %s %d %s", b.Role, b.Principal, b.Row.Line, b.Row.Text))
	}
	for _, g := range s.Grants(writ.RoleVerifier, "default") {
		line := fmt.Sprintf("%s %t %s", g.Capability, g.Allowed, g.By.Text)
		if g.Denied != nil {
			line += " but " + g.Denied.Text
		}
		lines = append(lines, line)
	}
	want := []string{
		"operator bob 2 g, principal:bob, role:operator, *",
		"verifier alice 3 g, principal:alice, role:verifier, default",
		"task.claim false p, role:executor, *, task.claim, invoke, allow but p, role:verifier, *, task.claim, invoke, deny",
		"task.fail true p, role:executor, *, task.fail, invoke, allow",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s", strings.Join(lines, "\n"))
	}
}

// What a bundle's file binds is told without compiling it.
func TestContentsBound(t *testing.T) {
	f := sources(t)
	b, err := writeBundle(f)
	if err != nil {
		t.Fatal(err)
	}
	c, err := OpenCanonical(b)
	if err != nil || !writ.Bound(c.Bound("default"), nil, "anybody", writ.RoleAuditor) {
		t.Errorf("%v", err)
	}
	f[rowsFile] = append(f[rowsFile], "g, principal:alice\n"...)
	if b, err = writeBundle(f); err != nil {
		t.Fatal(err)
	}
	if c, err = OpenCanonical(b); err != nil || len(c.Bound("default")) != 0 {
		t.Errorf("a file that cannot be read binds %v, %v", c.Bound("default"), err)
	}
}
