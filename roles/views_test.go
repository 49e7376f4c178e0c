package roles_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/roles"
)

func caller(p writ.PrincipalID, r writ.Role) writ.Caller {
	return writ.Caller{Tenant: "default", Principal: p, Role: r, Controller: p}
}

func (l *lab) list(by writ.Caller, a roles.RoleListArgs) (out roles.RoleList) {
	l.t.Helper()
	reply, _, err := l.Call(l.verbs["role.list"], by, &a)
	if err == nil {
		err = json.Unmarshal(reply.JSON, &out)
	}
	if err != nil {
		l.t.Fatalf("%v", err)
	}
	return out
}

func lines(list roles.RoleList) (out []string) {
	for _, b := range list.Bindings {
		line := fmt.Sprintf("%s %s %s %s", b.Role, b.Principal, b.State, b.Source)
		if b.Source == "capability" && (b.By != "olga" || b.At == "" || !b.Receipt.Valid()) || b.Source == "file" && (b.By != "" || b.Row == "") {
			line += " by nobody"
		}
		out = append(out, line)
	}
	return out
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRoleList(t *testing.T) {
	l := newLab(t, append(shipped(), bind("alice", writ.RoleAuditor))...)
	l.must(bind("alice", writ.RoleAuditor), false)
	l.must(bind("bob", writ.RoleExecutor), true)
	l.must(bind("olga", writ.RoleOperator), true)
	all := []string{
		"approver * bound file", "auditor alice removed capability", "executor * bound file", "executor bob bound capability",
		"operator * bound file", "operator olga bound capability", "operator operator bound file",
	}
	for _, by := range []writ.Caller{l.op, caller("x1", writ.RoleAuditor), caller("x1", writ.RoleApprover)} {
		equal(t, "all to "+string(by.Role), lines(l.list(by, roles.RoleListArgs{})), all...)
	}
	equal(t, "their own to others", lines(l.list(caller("bob", writ.RoleExecutor), roles.RoleListArgs{})), all[0], all[2], all[3], all[4])
	equal(t, "of another", lines(l.list(caller("bob", writ.RoleExecutor), roles.RoleListArgs{Principal: "alice"})), all[0], all[2], all[4])
	equal(t, "one principal", lines(l.list(l.op, roles.RoleListArgs{Principal: "alice"})), all[0], all[1], all[2], all[4])
	equal(t, "one role", lines(l.list(l.op, roles.RoleListArgs{Role: writ.RoleOperator})), all[4:]...)
	if b := l.list(l.op, roles.RoleListArgs{Role: writ.RoleAuditor}).Bindings[0]; b.Row != "roles/policy.csv:11: g, principal:alice" {
		t.Errorf("a removal shows the row it takes away: %+v", b)
	}
	var paged []string
	a := roles.RoleListArgs{Limit: 2}
	for range 10 {
		page := l.list(l.op, a)
		paged = append(paged, lines(page)...)
		if a.After = page.Next; a.After == "" {
			break
		}
	}
	equal(t, "page by page", paged, all...)
}

func (l *lab) ask(by writ.Caller, a roles.RolePermissionsArgs) (out roles.RolePermissions, err error) {
	l.t.Helper()
	reply, _, err := l.Call(l.verbs["role.permissions"], by, &a)
	if err == nil {
		err = json.Unmarshal(reply.JSON, &out)
	}
	return out, err
}

func TestRolePermissions(t *testing.T) {
	l := newLab(t, append(shipped(), bind("alice", writ.RoleAuditor), bind("alice", writ.RoleVerifier))...)
	l.must(bind("alice", writ.RoleVerifier), false)
	l.must(bind("alice", writ.RoleApprover), true)
	l.must(bind("olga", writ.RoleExecutor), true)
	l.must(bind("*", writ.RoleExecutor), false)
	got, err := l.ask(caller("alice", writ.RoleAuditor), roles.RolePermissionsArgs{})
	if err != nil {
		t.Fatal(err)
	}
	var standing []string
	for _, r := range got.Roles {
		standing = append(standing, fmt.Sprintf("%s %t: %s, row %t, receipt %t", r.Role, r.Bound, r.Why, r.Row != "", r.Receipt != ""))
	}
	equal(t, "alice", standing,
		"operator true: bound as one of everybody, row true, receipt false",
		"orchestrator false: not bound: nothing binds it; role.bind would, row false, receipt false",
		"executor false: not bound: taken from everybody; role.bind would bind it by name, row true, receipt true",
		"verifier false: not bound: taken from it by name; role.bind gives it back, row true, receipt true",
		"approver true: bound by name, row false, receipt true",
		"auditor true: bound by name, row true, receipt false",
		"connector false: not bound: nothing binds it; role.bind would, row false, receipt false")
	var may []string
	for _, c := range got.Capabilities {
		may = append(may, fmt.Sprintf("%s %s %t %s; %s", c.Role, c.Capability, c.Allowed, c.Row, c.Denied))
	}
	var want []string
	for _, r := range []string{"operator", "approver", "auditor"} {
		want = append(want, r+" run.get true roles/policy.csv:1: p, role:"+r+"; ",
			r+" task.claim false roles/policy.csv:2: p, role:"+r+"; roles/policy.csv:3: p, role:"+r)
	}
	equal(t, "what alice may", may, want...)
	if got.Principal != "alice" || got.Revision != l.gate().BindingsRevision {
		t.Errorf("got %+v", got)
	}
	one, err := l.ask(l.op, roles.RolePermissionsArgs{Principal: "alice", Role: writ.RoleConnector})
	if err != nil || len(one.Roles) != 1 || one.Roles[0].Bound || len(one.Capabilities) != 2 {
		t.Errorf("a role that is asked for is told, bound or not: %+v, %v", one, err)
	}
}

func TestWhoMayAskWhatSomebodyMay(t *testing.T) {
	l := newLab(t, shipped()...)
	for _, tt := range []struct {
		by writ.Caller
		a  roles.RolePermissionsArgs
		ok bool
	}{
		{caller("bob", writ.RoleConnector), roles.RolePermissionsArgs{}, true},
		{caller("bob", writ.RoleConnector), roles.RolePermissionsArgs{Principal: "bob"}, true},
		{caller("bob", writ.RoleConnector), roles.RolePermissionsArgs{Role: writ.RoleConnector}, true},
		{caller("bob", writ.RoleConnector), roles.RolePermissionsArgs{Role: writ.RoleApprover}, true}, // bound, as one of everybody
		{caller("bob", writ.RoleConnector), roles.RolePermissionsArgs{Role: writ.RoleAuditor}, false},
		{caller("bob", writ.RoleConnector), roles.RolePermissionsArgs{Principal: "alice"}, false},
		{caller("bob", writ.RoleExecutor), roles.RolePermissionsArgs{Principal: "alice", Role: writ.RoleExecutor}, false},
		{caller("bob", writ.RoleOrchestrator), roles.RolePermissionsArgs{Principal: "alice"}, false},
		{caller("bob", writ.RoleVerifier), roles.RolePermissionsArgs{Principal: "alice"}, false},
		{caller("bob", writ.RoleAuditor), roles.RolePermissionsArgs{Principal: "alice"}, true},
		{caller("bob", writ.RoleApprover), roles.RolePermissionsArgs{Principal: "alice", Role: writ.RoleAuditor}, true},
		{caller("bob", writ.RoleOperator), roles.RolePermissionsArgs{Principal: "alice"}, true},
	} {
		_, err := l.ask(tt.by, tt.a)
		if tt.ok != (err == nil) || err != nil && writ.CodeOf(err) != writ.CodeNotFound {
			t.Errorf("%s asks %+v: %v", tt.by.Role, tt.a, err)
		}
	}
}
