package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// What of a tree people read in a terminal: so many levels are indented, and so many
// moves of one receipt are shown.
const (
	maxIndent = 20
	maxMoves  = 3
)

func treeCommand() *cobra.Command {
	var connect connection
	var format string
	var within int64
	cmd := &cobra.Command{
		Use: "tree RECEIPT-ID", Short: "Show what followed from a receipt, as a tree",
		Long: `Show what followed from a receipt, as a tree: what names it as a parent, what names that, and so on.
What became of a task stands under the receipt that enqueued it; all that was swept behind a revoked
agent stands under the receipt of agent.revoke.

A receipt that names several receipts of the tree stands once, under the last of them; -o json has all
its parents, and depth and under say where it stands. What the first receipt itself follows from is
named above it: ask for the tree of that to see more.

The log is read from that receipt on to its present end, at most --within receipts. Receipts are shown
as the gateway tells them; 'writ receipt verify' checks them.`,
		Example: "  writ receipt tree rcp_01M89R87655QNXE4GQQ05ZZ0C9\n  writ receipt tree rcp_01M89R87655QNXE4GQQ05ZZ0C9 --within 100000 -o json",
		Args:    oneArg,
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			id := writ.ReceiptID(rest[0])
			if !id.Valid() {
				return usageError{errors.New("wants the id of a receipt (rcp_…)"), c.CommandPath()}
			}
			if within < 1 {
				return usageError{errors.New("--within wants at least 1"), c.CommandPath()}
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			tree, err := readTree(c.Context(), cl, id, within)
			if err != nil {
				return err
			}
			if !tree.Complete {
				fmt.Fprintf(c.ErrOrStderr(), "writ: only the %d receipts after it were looked at; a larger --within looks further\n", within)
			}
			if format == "json" {
				return printJSON(c, tree)
			}
			return tree.print(c.OutOrStdout())
		},
	}
	cmd.Flags().Int64Var(&within, "within", 10_000, "how many receipts after it are looked at")
	outputFlag(cmd, &format)
	connect.flags(cmd)
	return cmd
}

// receiptTree is a receipt and what followed from it.
type receiptTree struct {
	Receipts []leaf `json:"receipts"`  // each behind the one it stands under
	LookedTo int64  `json:"looked_to"` // sequence of the last receipt that was looked at
	Complete bool   `json:"complete"`  // whether that was the end of the log
}

// leaf is a receipt where it stands in a tree.
type leaf struct {
	Receipt    writ.ReceiptID   `json:"receipt_id"`
	Depth      int              `json:"depth"`
	Under      writ.ReceiptID   `json:"under,omitempty"`
	Parents    []writ.ReceiptID `json:"parents"`
	Seq        int64            `json:"seq"`
	At         string           `json:"at"`
	Transition string           `json:"transition"`
	Outcome    string           `json:"outcome"`
	Code       string           `json:"code,omitempty"` // of a denial
	Role       writ.Role        `json:"role,omitempty"`
	Agent      writ.AgentID     `json:"agent_id,omitempty"`
	Session    writ.SessionID   `json:"session_id,omitempty"`
	Changes    []writ.Change    `json:"changes"`
}

// leafOf reads what a tree shows of a receipt.
func leafOf(r client.Receipt) (leaf, error) {
	var s struct {
		Predicate struct {
			Actor struct {
				Agent   writ.AgentID
				Role    writ.Role
				Session writ.SessionID
			}
			Changes []writ.Change
			Code    string
			Commit  struct {
				At  string
				Seq int64
			}
			Outcome, Transition string
			Parents             []writ.ReceiptID
		}
	}
	if err := json.Unmarshal(r.Statement, &s); err != nil {
		return leaf{}, fmt.Errorf("the statement of a receipt is not JSON: %w", err)
	}
	p := s.Predicate
	return leaf{
		Receipt: r.ID, Parents: slices.Concat([]writ.ReceiptID{}, p.Parents), Seq: r.Seq, At: p.Commit.At,
		Transition: p.Transition, Outcome: p.Outcome, Code: p.Code, Role: p.Actor.Role, Agent: p.Actor.Agent, Session: p.Actor.Session,
		Changes: slices.Concat([]writ.Change{}, p.Changes),
	}, nil
}

// readTree reads the log behind a receipt once: a parent is always before what names it.
func readTree(ctx context.Context, cl *client.Client, id writ.ReceiptID, within int64) (tree receiptTree, err error) {
	first, err := cl.GetReceipt(ctx, id)
	if err != nil {
		return tree, err
	}
	root, err := leafOf(first)
	if err != nil {
		return tree, err
	}
	known := map[writ.ReceiptID]leaf{id: root}
	children := map[writ.ReceiptID][]leaf{}
	tree.LookedTo, tree.Complete = root.Seq, true
	looked := int64(0)
	for r, err := range cl.Receipts(ctx, root.Seq, "") {
		if err != nil {
			return tree, err
		}
		if looked++; looked > within {
			tree.Complete = false
			break
		}
		tree.LookedTo = r.Seq
		l, err := leafOf(r)
		if err != nil {
			return tree, err
		}
		at := leaf{Seq: -1}
		for _, p := range l.Parents {
			if k, ok := known[p]; ok && k.Seq > at.Seq {
				at = k
			}
		}
		if at.Receipt == "" {
			continue
		}
		l.Under, l.Depth = at.Receipt, at.Depth+1
		known[l.Receipt] = l
		children[at.Receipt] = append(children[at.Receipt], l)
	}
	var put func(leaf)
	put = func(l leaf) {
		tree.Receipts = append(tree.Receipts, l)
		for _, child := range children[l.Receipt] {
			put(child)
		}
	}
	put(root)
	return tree, nil
}

// print shows a tree to people.
func (t receiptTree) print(out io.Writer) error {
	for _, p := range t.Receipts[0].Parents {
		fmt.Fprintln(out, "follows from", shown(string(p)))
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "RECEIPT\tSEQ\tTRANSITION\tBY\tMOVES")
	for _, l := range t.Receipts {
		what := l.Transition
		if l.Outcome == writ.OutcomeOfDenial {
			what += " refused: " + l.Code
		}
		by := string(l.Role)
		if l.Agent != "" {
			by += " " + string(l.Agent)
		}
		var moves []string
		for _, m := range l.Changes[:min(len(l.Changes), maxMoves)] {
			moves = append(moves, fmt.Sprintf("%s %s %s→%s", m.Kind, m.ID, m.From, m.To))
		}
		if n := len(l.Changes); n > maxMoves {
			moves = append(moves, fmt.Sprintf("… (%d)", n))
		}
		indent := strings.Repeat("  ", min(l.Depth, maxIndent))
		fmt.Fprintf(w, "%s%s\t%d\t%s\t%s\t%s\n", indent, shown(string(l.Receipt)), l.Seq, shown(what),
			orDash(shown(by)), orDash(shown(strings.Join(moves, ", "))))
	}
	return w.Flush()
}
