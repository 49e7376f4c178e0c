package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/internal/daemon"
	"github.com/writ-gateway/writ/policies"
)

// flips that --fail-on can name.
var flipKinds = []string{"newly-allowed", "newly-denied", "any"}

// flip is a decision that a candidate would take otherwise.
type flip struct {
	Receipt    writ.ReceiptID    `json:"receipt_id"`
	Capability writ.CapabilityID `json:"capability"`
	At         string            `json:"at"`
	Was        writ.Effect       `json:"was"`
	WasRules   []string          `json:"was_rules"`
	Now        writ.Effect       `json:"now"`
	NowRules   []string          `json:"now_rules"`
	Less       bool              `json:"asks_for_less,omitempty"` // the effect is the same, and what must be done first is less

	input writ.RawObject
	found []writ.Finding
}

// record is a decision of the past as policy.records hands it out.
type record struct {
	ReceiptID  writ.ReceiptID    `json:"receipt_id"`
	At         string            `json:"at"`
	Capability writ.CapabilityID `json:"capability"`
	Effect     writ.Effect       `json:"effect"`
	Rules      []string          `json:"rule_ids"`
	Obliged    []duty            `json:"obligations"`
	Input      writ.RawObject    `json:"input"`
	WhyNot     string            `json:"why_not"`
	Agrees     *bool             `json:"agrees"`
}

type records struct {
	Records   []record `json:"records"`
	NextAfter int64    `json:"next_after"`
	More      bool     `json:"more"`
}

// allows says whether a flip lets something happen that did not happen by itself,
// or for less than was asked for it.
func (f flip) allows() bool { return f.Now.Rank() < f.Was.Rank() || f.Less }

func (f flip) group() string {
	if f.Now == f.Was {
		what := "asks for other things"
		if f.Less {
			what = "ASKS FOR LESS"
		}
		return fmt.Sprintf("%s, but %s  %s  by %s", f.Now, what, f.Capability, strings.Join(either(f.NowRules, f.WasRules), ", "))
	}
	return fmt.Sprintf("%s → %s  %s  by %s", f.Was, f.Now, f.Capability, strings.Join(either(f.NowRules, f.WasRules), ", "))
}

func either(a, b []string) []string {
	if len(a) > 0 {
		return a
	}
	return b
}

// replayReport is what a replay found.
type replayReport struct {
	Candidate     string         `json:"candidate_revision"`
	Replayed      int            `json:"replayed"`
	Flips         []flip         `json:"flips"`          // newly allowed first
	NotReplayable map[string]int `json:"not_replayable"` // by reason
	Alarms        []string       `json:"alarms"`         // receipts whose own policies decide otherwise now
}

type replayOptions struct {
	candidate, failOn, fixtures, capability string
	last                                    int64
	since                                   time.Duration
}

func policyReplayCommand() *cobra.Command {
	var connect connection
	var o replayOptions
	var format string
	cmd := &cobra.Command{
		Use: "replay --candidate DIR", Short: "Ask a candidate about the decisions of the past, and show which it would take otherwise",
		Long: `Ask a candidate about the decisions of the past, and show which it would take otherwise.

The gateway hands out what each decision was made on (no arguments, no texts of callers); the
candidate judges it here. Newly allowed decisions stand first: they are what a careless change
lets through; then those for which it asks less (fewer people, a longer yes, fewer fields
redacted). Reads leave no receipt and are not replayed. A decision that its own policies do
not repeat is an alarm, whatever the candidate says.

Exit codes: 0 done, 1 what --fail-on names happened, or an alarm, 2 wrong usage.`,
		Example: `  writ policy replay --candidate ./policies --last 5000 --fail-on newly-allowed
  writ policy replay --candidate ./policies --since 24h --capability task.enqueue -o json
  writ policy replay --candidate ./policies --save-fixtures ./policies/fixtures`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			if o.candidate == "" {
				return usageError{errors.New("--candidate names the directory of the policies to try"), c.CommandPath()}
			}
			if o.failOn != "" && !slices.Contains(flipKinds, o.failOn) {
				return usageError{fmt.Errorf("--fail-on wants one of %s", strings.Join(flipKinds, ", ")), c.CommandPath()}
			}
			if err := there(o.candidate); err != nil {
				return fmt.Errorf("--candidate: %w", err)
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			return replay(c.Context(), c.OutOrStdout(), cl, o, format)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.candidate, "candidate", "", "directory of the policies to try: packs/ and roles/")
	f.Int64Var(&o.last, "last", 0, "only the last so many receipts; 0: all there are")
	f.DurationVar(&o.since, "since", 0, "only decisions so long ago at most, for example 24h; 0: all there are")
	f.StringVar(&o.capability, "capability", "", "only decisions about this capability")
	f.StringVar(&o.failOn, "fail-on", "", "exit with 1 on newly-allowed, newly-denied or any")
	f.StringVar(&o.fixtures, "save-fixtures", "", "write fixtures of the flips, one per group and pack, to this directory of fixtures")
	outputFlag(cmd, &format)
	connect.flags(cmd)
	return cmd
}

func replay(ctx context.Context, out io.Writer, cl *client.Client, o replayOptions, format string) error {
	engine, err := policies.Load(ctx, policies.Directory(o.candidate), policies.Options{Capabilities: daemon.IDs(daemon.Catalog())})
	if err != nil {
		return err
	}
	report := replayReport{Flips: []flip{}, NotReplayable: map[string]int{}, Alarms: []string{}}
	report.Candidate, _ = engine.Revisions()
	err = eachRecord(ctx, cl, o, func(r record) error {
		if r.Agrees != nil && !*r.Agrees {
			report.Alarms = append(report.Alarms, string(r.ReceiptID))
		}
		if r.Input == nil {
			report.NotReplayable[r.WhyNot]++
			return nil
		}
		now, err := engine.Judge(ctx, r.Capability, r.Input)
		if err != nil {
			report.NotReplayable["the candidate cannot judge it: "+err.Error()]++
			return nil
		}
		report.Replayed++
		less, other := compareDuties(r.Obliged, dutiesOf(now.Findings))
		if now.Effect != r.Effect || other && now.Effect != writ.EffectDeny {
			report.Flips = append(report.Flips, flip{
				Receipt: r.ReceiptID, Capability: r.Capability, At: r.At, Was: r.Effect, WasRules: r.Rules,
				Now: now.Effect, NowRules: now.Rules(), Less: less && now.Effect == r.Effect, input: r.Input, found: now.Findings,
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(report.Flips, func(a, b flip) int {
		rank := func(f flip) int {
			if f.Less {
				return 0 // behind what is newly allowed, before what is newly asked for
			}
			return 2*(f.Now.Rank()-f.Was.Rank()) + 1
		}
		return rank(a) - rank(b)
	})
	if o.fixtures != "" {
		if err := saveFixtures(o.fixtures, report.Flips); err != nil {
			return err
		}
	}
	if err := printReplay(out, report, format); err != nil {
		return err
	}
	bad := len(report.Alarms) > 0
	for _, f := range report.Flips {
		bad = bad || o.failOn == "any" || o.failOn == "newly-allowed" && f.allows() || o.failOn == "newly-denied" && f.Now.Rank() > f.Was.Rank()
	}
	if bad {
		return exitStatus(1)
	}
	return nil
}

// eachRecord pages through the records the options name.
func eachRecord(ctx context.Context, cl *client.Client, o replayOptions, use func(record) error) error {
	after := int64(-1)
	if o.last > 0 {
		end, err := lastSeq(ctx, cl)
		if err != nil {
			return err
		}
		after = max(-1, end-o.last)
	}
	oldest := ""
	if o.since > 0 {
		oldest = writ.FormatTime(time.Now().Add(-o.since).UnixMilli()) // one form of time: texts compare
	}
	for {
		args := map[string]any{"after": after, "limit": 200}
		if o.capability != "" {
			args["capability"] = o.capability
		}
		var page records
		if _, err := cl.Invoke(ctx, "policy.records", args, &page); err != nil {
			return err
		}
		for _, r := range page.Records {
			if r.At >= oldest {
				if err := use(r); err != nil {
					return err
				}
			}
		}
		if !page.More || page.NextAfter == after {
			return nil
		}
		after = page.NextAfter
	}
}

// lastSeq is the sequence of the newest receipt.
func lastSeq(ctx context.Context, cl *client.Client) (int64, error) {
	after := int64(-1)
	for {
		var page struct {
			NextAfter int64 `json:"next_after"`
			More      bool  `json:"more"`
		}
		if _, err := cl.Invoke(ctx, "receipt.list", map[string]any{"after": after, "limit": 200}, &page); err != nil {
			return 0, err
		}
		if !page.More || page.NextAfter == after {
			return page.NextAfter, nil
		}
		after = page.NextAfter
	}
}

func printReplay(out io.Writer, r replayReport, format string) error {
	if format == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintf(out, "candidate %s\n%d decisions replayed, %d would be otherwise\n", r.Candidate, r.Replayed, len(r.Flips))
	groups, order := map[string][]flip{}, []string{}
	for _, f := range r.Flips {
		if groups[f.group()] == nil {
			order = append(order, f.group())
		}
		groups[f.group()] = append(groups[f.group()], f)
	}
	for _, g := range order {
		mark := ""
		if f := groups[g][0]; f.Now.Rank() < f.Was.Rank() {
			mark = "  NEWLY ALLOWED"
		}
		fmt.Fprintf(out, "\n%5d  %s%s\n", len(groups[g]), shown(g), mark)
		for _, f := range groups[g][:min(3, len(groups[g]))] {
			fmt.Fprintf(out, "       %s  %s\n", shown(string(f.Receipt)), shown(f.At))
		}
	}
	reasons := []string{}
	for why := range r.NotReplayable {
		reasons = append(reasons, why)
	}
	slices.Sort(reasons)
	for _, why := range reasons {
		fmt.Fprintf(out, "\n%5d  not replayable: %s\n", r.NotReplayable[why], shown(why))
	}
	for _, id := range r.Alarms {
		fmt.Fprintf(out, "\nALARM  %s: the policies that decided it do not decide the same now\n", shown(id))
	}
	return nil
}

// saveFixtures writes the first flip of every group as fixtures: what each pack
// that had a say in it says of the call in the candidate.
func saveFixtures(dir string, flips []flip) error {
	seen := map[string]bool{}
	for _, f := range flips {
		if seen[f.group()] {
			continue
		}
		seen[f.group()] = true
		if !f.Receipt.Valid() {
			return fmt.Errorf("the gateway named a receipt that is none")
		}
		var input map[string]any
		if err := json.Unmarshal(f.input, &input); err != nil {
			return err
		}
		packs := map[string]bool{}
		for _, rule := range slices.Concat(f.WasRules, f.NowRules) {
			if id, _, _ := strings.Cut(rule, "."); writ.ValidSlug(strings.ReplaceAll(id, "_", "-")) { // it becomes a folder
				packs[id] = true
			}
		}
		for id := range packs {
			text, err := yaml.Marshal(map[string]any{
				"name": fmt.Sprintf("%s that was %s and is %s", f.Capability, f.Was, f.Now), "input": input, "want": said(f.found, id),
			})
			if err != nil {
				return err
			}
			name := filepath.Join(dir, id, "replay-"+strings.ToLower(strings.TrimPrefix(string(f.Receipt), writ.PrefixReceipt))+".yaml")
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(name, text, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// said is what one pack says, in the form of a fixture's want.
func said(found []writ.Finding, pack string) map[string]any {
	effect, rules, codes := writ.EffectAllow, []string{}, []string{}
	var obligations []writ.Obligation
	for _, f := range found {
		if f.Pack != pack {
			continue
		}
		if f.Effect.Rank() > effect.Rank() {
			effect = f.Effect
		}
		rules, codes, obligations = append(rules, f.Rule), append(codes, f.Code), append(obligations, f.Obligations...)
	}
	slices.Sort(codes)
	want := map[string]any{"effect": effect, "rules": rules, "codes": slices.Compact(codes)}
	if len(obligations) > 0 {
		want["obligations"] = obligations
	}
	return want
}
