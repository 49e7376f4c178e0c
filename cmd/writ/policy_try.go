package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies/author"
)

func policyTestCommand() *cobra.Command {
	var o author.TestOptions
	var format string
	var least float64
	var verbose bool
	cmd := &cobra.Command{
		Use: "test [DIR]", Short: "Run the tests and fixtures of packs", Args: maxOneArg,
		Long: `Run the *_test.rego files of each pack as opa test does, and its fixtures with the very queries a
gateway asks. A pack whose Rego tests cover less of its lines than --min-coverage fails. With --run
only the tests of that name run, and coverage is not asked for.`,
		Example: `  writ policy test policies --min-coverage 90
  writ policy test policies --pack protected_paths --run protected -v
  writ policy test policies -o junit > tests.xml`,
		RunE: func(c *cobra.Command, args []string) error {
			return withTree(c, args, format, findingFormats, func(t *author.Tree) error {
				all, err := t.Test(c.Context(), o)
				if err != nil {
					return err
				}
				var low []author.Finding
				if o.Run == "" {
					low = author.Low(all, least)
				}
				if err := author.ReportTests(c.OutOrStdout(), format, t.Dir, all, low, verbose); err != nil {
					return err
				}
				failed := len(low)
				for _, p := range all {
					failed += p.Failed()
				}
				if failed > 0 {
					return exitStatus(exitError)
				}
				return nil
			})
		},
	}
	cmd.Flags().Float64Var(&least, "min-coverage", 90, "percent of its lines the Rego tests of every pack must cover")
	cmd.Flags().StringVar(&o.Run, "run", "", "only tests and fixtures whose name matches this regular expression")
	cmd.Flags().StringSliceVar(&o.Packs, "pack", nil, "only these packs")
	cmd.Flags().DurationVar(&o.Timeout, "timeout", 10*time.Second, "time for one test")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show what passed too")
	outputFlag(cmd, &format, findingFormats...)
	return cmd
}

func policyCoverageCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "coverage [DIR]", Short: "Show the lines no test comes to", Args: maxOneArg,
		Long:    `Run the Rego tests and show, per pack and file, the share of lines they cover and the lines they do not.`,
		Example: `  writ policy coverage policies`,
		RunE: func(c *cobra.Command, args []string) error {
			return withTree(c, args, format, plainFormats, func(t *author.Tree) error {
				all, err := t.Test(c.Context(), author.TestOptions{})
				if err != nil {
					return err
				}
				return author.ReportCoverage(c.OutOrStdout(), format, t.Dir, all)
			})
		},
	}
	outputFlag(cmd, &format, plainFormats...)
	return cmd
}

func policyEvalCommand() *cobra.Command {
	var format, input, fixture, capability string
	var packs []string
	cmd := &cobra.Command{
		Use: "eval [DIR]", Short: "Ask the packs about one call", Args: maxOneArg,
		Long: `Show what the packs say to one call: the effect, every finding, and which packs were asked. The
call is a JSON or YAML file as schema/input.json describes it (--input, - for standard input), or a
fixture. Exits with 0 whatever the decision is.`,
		Example: `  writ policy eval policies --fixture policies/fixtures/protected_paths/protected.yaml
  writ policy eval policies --input call.json --capability task.claim -o json`,
		RunE: func(c *cobra.Command, args []string) error {
			name := input
			if (input == "") == (fixture == "") {
				return usageError{errors.New("give either --input or --fixture"), c.CommandPath()}
			}
			if name == "" {
				name = fixture
			}
			doc, err := readArgument(c, name, maxFile)
			if err != nil {
				return err
			}
			return withTree(c, args, format, plainFormats, func(t *author.Tree) error {
				a, err := t.Eval(c.Context(), doc, writ.CapabilityID(capability), packs)
				if err != nil {
					return err
				}
				return author.ReportAnswer(c.OutOrStdout(), format, a)
			})
		},
	}
	cmd.Flags().StringVar(&input, "input", "", "file with the input, JSON or YAML, - for standard input")
	cmd.Flags().StringVar(&fixture, "fixture", "", "file of a fixture")
	cmd.Flags().StringVar(&capability, "capability", "", "capability that is called (default: the one the input names)")
	cmd.Flags().StringSliceVar(&packs, "pack", nil, "ask these packs instead of those that judge the capability")
	outputFlag(cmd, &format, plainFormats...)
	return cmd
}

func policyBenchCommand() *cobra.Command {
	var format string
	var packs []string
	var each time.Duration
	var most float64
	cmd := &cobra.Command{
		Use: "bench [DIR]", Short: "Measure what a decision of each pack costs", Args: maxOneArg,
		Long: `Decide every fixture many times and show allocations and time of one decision. Allocations are
the same on every machine, so --max-allocs is fit for CI; times are not.`,
		Example: `  writ policy bench policies --pack protected_paths --max-allocs 400`,
		RunE: func(c *cobra.Command, args []string) error {
			return withTree(c, args, format, plainFormats, func(t *author.Tree) error {
				all, err := t.Bench(c.Context(), packs, each)
				if err != nil {
					return err
				}
				if err := author.ReportBench(c.OutOrStdout(), format, all); err != nil {
					return err
				}
				over := 0
				for _, m := range all {
					if most > 0 && m.Allocs > most {
						over++
					}
				}
				if over > 0 {
					fmt.Fprintf(c.ErrOrStderr(), "writ: %d fixtures allocate more than %g times\n", over, most)
					return exitStatus(exitError)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringSliceVar(&packs, "pack", nil, "only these packs")
	cmd.Flags().DurationVar(&each, "time", 200*time.Millisecond, "time for one fixture")
	cmd.Flags().Float64Var(&most, "max-allocs", 0, "problem when a decision allocates more often than this")
	outputFlag(cmd, &format, plainFormats...)
	return cmd
}
