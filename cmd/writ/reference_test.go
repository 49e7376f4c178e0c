package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/internal/daemon"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/policies/author"
)

// docs/reference.md is made from the code: capabilities with the roles that may
// call them, state machines, error codes, policy rules
// and lints.
func TestReferenceIsUpToDate(t *testing.T) {
	cat := daemon.Catalog()
	engine, err := policies.Load(t.Context(), policies.Shipped(), policies.Options{Capabilities: daemon.IDs(cat), Tenants: []writ.Tenant{"default"}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString("# Reference\n\nMade from the code; `make generate` writes it.\n\n## Capabilities\n\n" +
		"What can be called, and by which role. A capability without a route is the gateway's own; its receipts appear in the log.\n\n" +
		"| capability | route | roles | what it does |\n|---|---|---|---|\n")
	for _, k := range cat.All() {
		var routes, roles []string
		for _, r := range gateway.Routes {
			if r.Capability == k.ID {
				routes = append(routes, "`"+r.Method+" "+r.Path+"`")
			}
		}
		for _, r := range []writ.Role{
			writ.RoleOperator, writ.RoleOrchestrator, writ.RoleExecutor, writ.RoleVerifier, writ.RoleApprover, writ.RoleAuditor, writ.RoleConnector,
		} {
			if engine.Permit(r, "default", k.ID) {
				roles = append(roles, string(r))
			}
		}
		if len(roles) == 7 {
			roles = []string{"everybody"}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.ID, strings.Join(routes, "<br>"), strings.Join(roles, ", "), k.Summary)
	}
	b.WriteString("\n## States\n\nThe legal moves; receipts that state any other do not verify. `·` is before the object exists.\n")
	states(&b, "agent", writ.AgentMoves)
	states(&b, "session", writ.SessionMoves)
	states(&b, "run", writ.RunMoves)
	states(&b, "task", writ.TaskMoves)
	states(&b, "approval", writ.ApprovalMoves)
	states(&b, "bundle", writ.BundleMoves)
	states(&b, "gate", writ.GateMoves)
	states(&b, "ballot", writ.BallotMoves)
	b.WriteString("\n## Errors\n\nProblems (RFC 9457) carry one of these codes. *Receipted* ones leave a denial in the log. A version named\nin If-Match that no longer holds is 412. A method that a path does not have is 405 with the code `malformed`.\n\n" +
		"| code | status | receipted |\n|---|---|---|\n")
	for _, c := range writ.Codes() {
		receipted := ""
		if c.Receipted() {
			receipted = "yes"
		}
		statuses := strings.Trim(strings.ReplaceAll(fmt.Sprint(gateway.Statuses(c)), " ", ", "), "[]")
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c, statuses, receipted)
	}
	b.WriteString("\n## Policy rules\n\nRules of the built-in packs, the effect each has, and when it holds; refusals name them in `rule_ids`.\n\n| rule | severity | effect | when |\n|---|---|---|---|\n")
	for _, p := range engine.Info().Packs {
		for _, r := range p.Rules {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.ID, r.Severity, r.Effect, r.Title)
		}
	}
	b.WriteString("\n## Policy lints\n\nWhat `writ policy lint` looks for besides what `writ policy check` refuses (id `check`). Ids do not change.\n\n| id | severity | finds | what to do |\n|---|---|---|---|\n")
	markdown := strings.NewReplacer("|", `\|`, "**", "`**`", "<pack>", "PACK", "<case>", "CASE")
	for _, l := range author.Lints() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", l.ID, l.Severity, markdown.Replace(l.Title), markdown.Replace(l.Hint))
	}
	b.WriteString("\n## Exit codes\n\n| code | of a command | codes of the API | of `writ receipt verify` |\n|---|---|---|---|\n")
	byExit := map[int][]string{}
	for _, c := range writ.Codes() {
		byExit[exitCode(c)] = append(byExit[exitCode(c)], "`"+string(c)+"`")
	}
	for _, e := range []struct {
		code           int
		command, proof string
	}{
		{exitOK, "done", "proved"},
		{exitError, "an error of no other kind", "tampered with, or signed by another key"},
		{exitUsage, "a mistake on the command line, in the configuration or in an argument", "malformed: not an export"},
		{exitNotFound, "not found", "incomplete: something is missing"},
		{exitDenied, "denied: no live session, role, policy, or not the holder", "could not verify: the export or the key cannot be read, or the command line is wrong"},
		{exitWaits, "people must agree first; make the call again then, with the same key", ""},
		{exitEmpty, "nothing to hand out: `task claim` found no task", ""},
		{exitConflict, "the object is in another state, or somebody else was faster", ""},
		{exitUnavailable, "try again later, or the gateway cannot start with what it finds", ""},
	} {
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", e.code, e.command, strings.Join(byExit[e.code], ", "), e.proof)
	}
	upToDate(t, "docs/reference.md", b.Bytes())
}

func states[S ~string](b *bytes.Buffer, kind string, table writ.Table[S]) {
	fmt.Fprintf(b, "\n| %s | may become |\n|---|---|\n", kind)
	var names []string
	for from := range table {
		names = append(names, string(from))
	}
	slices.Sort(names)
	for _, from := range names {
		var tos []string
		for _, to := range table[S(from)] {
			tos = append(tos, string(to))
		}
		to := strings.Join(tos, ", ")
		if to == "" {
			to = "nothing: it is over"
		}
		if from == "" {
			from = "·"
		}
		fmt.Fprintf(b, "| %s | %s |\n", from, to)
	}
}
