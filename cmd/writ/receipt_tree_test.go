package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// A tree shows what followed from a receipt, each where its last parent stands; what
// followed from something else is not in it, and where the reading ended is said.
func TestReceiptTrees(t *testing.T) {
	id := func(n int) string { return fmt.Sprintf("rcp_01M89R8763R5PGQGSMXGFWBA%02d", n) }
	receipt := func(n int, transition, more string, parents ...int) string {
		list := []string{}
		for _, p := range parents {
			list = append(list, `"`+id(p)+`"`)
		}
		return fmt.Sprintf(`{"receipt_id":%q,"seq":%d,"envelope":{},"statement":{"predicate":{"transition":%q,"parents":[%s],"commit":{"seq":%d,"at":"2026-11-26T04:16:40Z"}%s}}}`,
			id(n), n, transition, strings.Join(list, ","), n, more)
	}
	move := func(kind, from, to string) string {
		return fmt.Sprintf(`{"kind":%q,"id":"x","from":%q,"to":%q}`, kind, from, to)
	}
	four := strings.Repeat(move("task", "queued", "cancelled")+",", 3) + move("task", "queued", "cancelled")
	root := receipt(10, "agent.revoke", `,"outcome":"transition","actor":{"role":"operator"},"changes":[`+move("agent", "active", "suspended")+`]`, 4)
	after := []string{
		receipt(11, "agent.cleanup", `,"outcome":"transition","actor":{"role":"system"},"changes":[`+move("session", "active", "revoked")+`]`, 10),
		receipt(12, "run.create", `,"outcome":"transition"`, 4),
		receipt(13, "task.recall", `,"outcome":"transition","actor":{"role":"system"},"changes":[`+four+`]`, 10),
		receipt(14, "session.cleanup", `,"outcome":"transition"`, 10, 11),
		receipt(15, "task.claim", `,"outcome":"denial","code":"deps_unmet","actor":{"role":"executor","agent":"builder"}`, 14),
		receipt(16, "task.enqueue", `,"outcome":"transition"`, 12),
	}
	g := newStandIn(t, func(a asked) (int, string) {
		if a.Capability == "receipt.get" {
			return 200, root
		}
		list, more := after[:3], "true"
		if a.Args["after"] != float64(10) {
			list, more = after[3:], "false"
		}
		return 200, `{"receipts":[` + strings.Join(list, ",") + `],"next_after":` + map[string]string{"true": "13", "false": "16"}[more] + `,"more":` + more + `}`
	})
	args := append([]string{"receipt", "tree", id(10)}, g.flags...)

	code, out, errs := spoken(args)
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	want := []string{
		"follows from " + id(4),
		"RECEIPT                             SEQ  TRANSITION                      BY                MOVES",
		id(10) + "      10   agent.revoke                    operator          agent x active→suspended",
		"  " + id(11) + "    11   agent.cleanup                   system            session x active→revoked",
		"    " + id(14) + "  14   session.cleanup                 -                 -",
		"      " + id(15) + "  15   task.claim refused: deps_unmet  executor builder  -",
		"  " + id(13) + "    13   task.recall                     system            task x queued→cancelled, task x queued→cancelled, task x queued→cancelled, … (4)",
	}
	if strings.Join(fieldsOf(lines), "\n") != strings.Join(fieldsOf(want), "\n") || code != 0 || errs != "" {
		t.Errorf("%d %s\n%s\nwant\n%s", code, errs, strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	for i, depth := range []int{0, 1, 2, 3, 1} {
		if line := lines[i+2]; len(line)-len(strings.TrimLeft(line, " ")) != 2*depth {
			t.Errorf("not at depth %d: %q", depth, line)
		}
	}

	for within, complete := range map[string]bool{"6": true, "5": false, "1": false} {
		code, out, errs := spoken(append(args, "--within", within, "-o", "json"))
		var tree receiptTree
		if err := json.Unmarshal([]byte(out), &tree); err != nil || code != 0 || tree.Complete != complete || strings.Contains(errs, "--within") == complete {
			t.Errorf("within %s: %d %v %s\n%s", within, code, err, errs, out)
		}
		if within == "6" && (len(tree.Receipts) != 5 || tree.LookedTo != 16 || tree.Receipts[2].Under != writ.ReceiptID(id(11)) || tree.Receipts[2].Depth != 2 || len(tree.Receipts[2].Parents) != 2) {
			t.Errorf("the tree is %s", out)
		}
		if within == "1" && len(tree.Receipts) != 2 {
			t.Errorf("of one receipt after it: %s", out)
		}
	}
	for _, wrong := range [][]string{{"receipt", "tree", "run_01M89R8763R5PGQGSMXGFWBA4N"}, {"receipt", "tree", id(10), "--within", "0"}, {"receipt", "tree"}} {
		if code, _, errs := spoken(append(wrong, g.flags...)); code != exitUsage || !strings.Contains(errs, "writ receipt tree") {
			t.Errorf("%v: exit code %d, %s", wrong, code, errs)
		}
	}
}

// fieldsOf is lines with one space between what stands in them.
func fieldsOf(lines []string) (out []string) {
	for _, l := range lines {
		out = append(out, strings.Join(strings.Fields(l), " "))
	}
	return out
}
