package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

func budgetCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "budget", Short: "Explain what a run may still spend", GroupID: "check", Args: noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var connect connection
	var format string
	cmd := &cobra.Command{
		Use: "explain RUN-ID|RECEIPT-ID", Short: "Say which limits apply to a run, or applied to a call, and why",
		Long: `Say which limits apply to a run, or applied to a call, and why.

Of a run: every dimension it limits, what of that is consumed, what attempts under way and child
runs hold, what people granted, and the runs above it out of whose budget its own came. A child
spends only what was set aside for it when it was created, so its own limit is the one that
applies.

Of a receipt: what the call would have taken of each dimension, whether that fitted, which mark it
reached, and which rules of the budgets said what follows. This reads the receipt's evidence and
needs the role operator or auditor.`,
		Example: `  writ budget explain run_01M89R8763R5PGQGSMXGFWBA4N
  writ budget explain rcp_01M89R8763R5PGQGSMXGFWBA4N -o json`,
		Args: func(c *cobra.Command, rest []string) error { return usage(c, cobra.ExactArgs(1)(c, rest)) },
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			run, receipt := writ.RunID(rest[0]), writ.ReceiptID(rest[0])
			if !run.Valid() && !receipt.Valid() {
				return usageError{errors.New("want the id of a run (run_…) or of a receipt (rcp_…)"), c.CommandPath()}
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			if run.Valid() {
				chain, err := budgetChain(c.Context(), cl, run)
				if err != nil {
					return err
				}
				if format == "json" {
					return printJSON(c, chain)
				}
				explainRun(c.OutOrStdout(), chain)
				return nil
			}
			call, err := budgetOfCall(c.Context(), cl, receipt)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(c, call)
			}
			explainCall(c.OutOrStdout(), call)
			return nil
		},
	}
	outputFlag(cmd, &format)
	connect.flags(cmd)
	group.AddCommand(cmd)
	return group
}

// budgetChain reads the budget of a run and of those above it, the run first.
func budgetChain(ctx context.Context, cl *client.Client, id writ.RunID) (chain []client.BudgetReport, err error) {
	for id != "" && len(chain) <= writ.MaxRunDepth {
		r, err := cl.RunBudget(ctx, id)
		if err != nil {
			return chain, err
		}
		chain = append(chain, r)
		id = r.Parent
	}
	return chain, nil
}

func explainRun(out io.Writer, chain []client.BudgetReport) {
	for i, r := range chain {
		if i > 0 {
			fmt.Fprintf(out, "\nWhat this one limits was set aside for it out of the budget of\n")
		}
		fmt.Fprintf(out, "%s, which is %s%s\n", r.Run, r.State, because(r))
		for _, l := range r.Dimensions {
			fmt.Fprintf(out, "  %-22s %s\n", l.Dimension, explainLine(l, r.Grants))
		}
		for _, c := range r.Children {
			var parts []string
			for _, dim := range writ.Dimensions(c.Amounts) {
				parts = append(parts, fmt.Sprintf("%s %d", dim, c.Amounts[dim]))
			}
			fmt.Fprintf(out, "  child %s holds %s\n", c.Run, strings.Join(parts, ", "))
		}
	}
	fmt.Fprintf(out, "\nWhat becomes of a run that wants more says the configuration of the pack budgets (on_exceed).\n")
}

func because(r client.BudgetReport) string {
	switch {
	case r.WaitsFor != "":
		return ": people are asked for more (" + string(r.WaitsFor) + ")"
	case r.Reason != "":
		return ": " + r.Reason
	}
	return ""
}

func explainLine(l client.BudgetLine, grants []client.BudgetGrant) string {
	limit := fmt.Sprintf("limit %d", l.Limit)
	if l.Granted > 0 {
		limit += fmt.Sprintf(" = %d at creation", l.Base)
		for _, g := range grants {
			if g.Dimension == l.Dimension {
				limit += fmt.Sprintf(" + %d by %s", g.Add, g.Approval)
			}
		}
	}
	var use string
	switch l.Measure {
	case "peak":
		use = fmt.Sprintf("the most at a time was %d", l.Consumed)
	case "time":
		use = fmt.Sprintf("%d used, %d left (%d %%)", l.Consumed, l.Remaining, l.Percent)
	default:
		use = fmt.Sprintf("%d consumed, %d reserved by attempts and child runs, %d left (%d %%)", l.Consumed, l.Reserved, l.Remaining, l.Percent)
	}
	if l.Warned > 0 {
		use += fmt.Sprintf(", warned of %d %%", l.Warned)
	}
	return limit + "; " + use
}

// callBudget is what the evidence of a receipt says about budgets.
type callBudget struct {
	Receipt    writ.ReceiptID        `json:"receipt_id"`
	Capability writ.CapabilityID     `json:"capability"`
	Run        writ.RunID            `json:"run_id,omitempty"`
	Outcome    string                `json:"outcome"`
	Dimensions map[string]budgetSeen `json:"dimensions"`
	Rules      []budgetRule          `json:"rules"`
	Warnings   []writ.BudgetWarning  `json:"warnings"`
}

// budgetSeen is a dimension as policy saw it.
type budgetSeen struct {
	Limit int64 `json:"limit"`
	Cost  int64 `json:"cost"`
	Fits  bool  `json:"fits"`
	Waits bool  `json:"waits,omitempty"`
	Band  int64 `json:"band"`
}

type budgetRule struct {
	Rule    string      `json:"rule"`
	Effect  writ.Effect `json:"effect"`
	Message string      `json:"message"`
}

func budgetOfCall(ctx context.Context, cl *client.Client, id writ.ReceiptID) (callBudget, error) {
	out := callBudget{Receipt: id, Rules: []budgetRule{}, Warnings: []writ.BudgetWarning{}}
	var v struct {
		Evidence struct {
			Object struct {
				Capability writ.CapabilityID    `json:"capability"`
				Outcome    string               `json:"outcome"`
				Findings   []budgetRule         `json:"findings"`
				Warnings   []writ.BudgetWarning `json:"budget_warnings"`
				Record     struct {
					Budget map[string]budgetSeen `json:"budget"`
					Run    struct {
						ID writ.RunID `json:"id"`
					} `json:"run"`
				} `json:"policy_record"`
			} `json:"object"`
		} `json:"evidence"`
	}
	var raw json.RawMessage
	if _, err := cl.Invoke(ctx, "receipt.evidence", map[string]any{"receipt_id": id}, &raw); err != nil {
		return out, err
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return out, fmt.Errorf("the evidence of the receipt is not of a form this program knows: %w", err)
	}
	o := v.Evidence.Object
	out.Outcome = o.Outcome
	out.Capability, out.Run, out.Dimensions = o.Capability, o.Record.Run.ID, o.Record.Budget
	out.Warnings = append(out.Warnings, o.Warnings...)
	for _, f := range o.Findings {
		if strings.HasPrefix(f.Rule, "budgets.") {
			out.Rules = append(out.Rules, f)
		}
	}
	return out, nil
}

func explainCall(out io.Writer, call callBudget) {
	fmt.Fprintf(out, "%s, a call of %s", call.Receipt, call.Capability)
	if call.Run != "" {
		fmt.Fprintf(out, " in %s", call.Run)
	}
	switch writ.Outcome(call.Outcome) {
	case writ.OutcomePending:
		fmt.Fprint(out, ", about which people were asked: it has taken nothing yet")
	case writ.OutcomeDone, writ.OutcomeCreated, writ.OutcomeEmpty:
	default:
		fmt.Fprint(out, ", which was refused and took nothing")
	}
	fmt.Fprintln(out)
	if len(call.Dimensions) == 0 {
		fmt.Fprintln(out, "  no budget applied: the call was made in no run")
	}
	dims := make([]string, 0, len(call.Dimensions))
	for dim := range call.Dimensions {
		dims = append(dims, dim)
	}
	slices.Sort(dims)
	for _, dim := range dims {
		b := call.Dimensions[dim]
		takes := fmt.Sprintf("takes %d", b.Cost)
		if b.Cost == 0 {
			takes = "takes nothing"
		}
		fits := "which fits"
		switch {
		case b.Waits:
			fits = "which is more than is left until others give back what they hold"
		case !b.Fits && writ.MeasureOf(dim) == writ.MeasureTime:
			takes, fits = "needs time", "which is up"
		case !b.Fits:
			fits = "which is more than is left"
		}
		mark := "less than half is used"
		if b.Band > 0 {
			mark = fmt.Sprintf("%d %% or more is used", b.Band)
		}
		fmt.Fprintf(out, "  %-22s limit %d; the call %s, %s; with it %s\n", dim, b.Limit, takes, fits, mark)
	}
	for _, r := range call.Rules {
		fmt.Fprintf(out, "  %s → %s: %s\n", r.Rule, r.Effect, r.Message)
	}
	if len(call.Rules) == 0 {
		fmt.Fprintln(out, "  no rule of the budgets held")
	}
	for _, w := range call.Warnings {
		fmt.Fprintf(out, "  warned: %s reached %d %%\n", w.Dimension, w.Percent)
	}
}
