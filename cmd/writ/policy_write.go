package main

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/policies/author"
)

func policyInitCommand() *cobra.Command {
	var pack, adapt string
	cmd := &cobra.Command{
		Use: "init [DIR]", Short: "Start from a whole, working example", Args: maxOneArg,
		Long: `Make a directory of policies: the built-in packs with their tests and fixtures, an example pack
of your own (` + author.ExamplePack + `), roles, the schema of what packs see of a call, and a workflow for
GitHub that checks it all. With --pack, add one new pack to a directory that is there. With --adapt
too, the pack asks the rules of a Rego package that was written for another host: its files are
copied as they are, and a wrapper is made from the rules it exports (allow, deny, violation, warn)
and the input it reads; the pack loads when every todo_ in adapter.rego is replaced.
Nothing that exists is overwritten.`,
		Example: `  writ policy init policies
  writ policy init policies --pack change_freeze
  writ policy init policies --pack tool_guard --adapt ./guard`,
		RunE: func(c *cobra.Command, args []string) error {
			dir := policyDir(args)
			if len(args) == 0 && pack == "" {
				dir = "policies"
			}
			start := author.Init
			switch {
			case adapt != "" && pack == "":
				return usageError{errors.New("--adapt wants --pack with the id of the new pack"), c.CommandPath()}
			case adapt != "":
				start = func(dir string) ([]string, error) { return author.InitAdapter(dir, pack, adapt) }
			case pack != "":
				start = func(dir string) ([]string, error) { return author.InitPack(dir, pack) }
			}
			if pack != "" {
				if err := there(dir); err != nil {
					return err
				}
			}
			names, err := start(dir)
			if err != nil {
				return err
			}
			for _, name := range names {
				fmt.Fprintln(c.OutOrStdout(), name)
			}
			if adapt != "" {
				fmt.Fprintf(c.ErrOrStderr(), "writ: next: say in packs/%s/adapter.rego what their rules see, then writ policy check %s\n", pack, dir)
				return nil
			}
			fmt.Fprintf(c.ErrOrStderr(), "writ: next: writ policy test %s\n", dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&pack, "pack", "", "id of one new pack to add to DIR")
	cmd.Flags().StringVar(&adapt, "adapt", "", "file or directory of a package for another host, which the new pack asks")
	return cmd
}

// findingsCommand is check and lint.
func findingsCommand(cmd *cobra.Command, look func(context.Context, *author.Tree, policies.Options) []author.Finding) *cobra.Command {
	var format string
	var strict bool
	cmd.Args = maxOneArg
	cmd.RunE = func(c *cobra.Command, args []string) error {
		return withTree(c, args, format, findingFormats, func(t *author.Tree) error {
			found := look(c.Context(), t, capabilityOptions())
			if err := author.Report(c.OutOrStdout(), format, c.CommandPath(), t.Dir, found); err != nil {
				return err
			}
			n := author.Errors(found)
			fmt.Fprintf(c.ErrOrStderr(), "writ: %d packs: %d errors, %d warnings\n", len(t.PackIDs()), n, len(found)-n)
			if n > 0 || strict && len(found) > 0 {
				return exitStatus(exitError)
			}
			return nil
		})
	}
	outputFlag(cmd, &format, findingFormats...)
	if cmd.Name() == "lint" {
		cmd.Flags().BoolVar(&strict, "strict", false, "warnings are problems too")
	}
	return cmd
}

func policyCheckCommand() *cobra.Command {
	return findingsCommand(&cobra.Command{
		Use: "check [DIR]", Short: "Say everything that keeps policies from loading",
		Long: `Do what a gateway does to load policies: parse, the contract of packs, the compiler in strict
mode with the schema of the input, references, roles, and an empty call. It shows all problems at
once, where a gateway stops at the first.`,
		Example: `  writ policy check policies
  writ policy check policies -o github`,
	}, func(ctx context.Context, t *author.Tree, o policies.Options) []author.Finding { return t.Check(ctx, o) })
}

func policyLintCommand() *cobra.Command {
	long := `Look for what loads and should still not be released. Each finding has the id of its lint:

`
	for _, l := range author.Lints() {
		long += fmt.Sprintf("  %-22s %-8s %s\n", l.ID, l.Severity, l.Title)
	}
	return findingsCommand(&cobra.Command{
		Use: "lint [DIR]", Short: "Look for what loads and should still not be released",
		Long: long + "\nErrors exit with 1, warnings only with --strict.",
		Example: `  writ policy lint policies
  writ policy lint policies --strict -o json`,
	}, func(ctx context.Context, t *author.Tree, o policies.Options) []author.Finding { return t.Lint(ctx, o) })
}

func policyFmtCommand() *cobra.Command {
	var list, diff, write bool
	cmd := &cobra.Command{
		Use: "fmt [DIR]", Short: "Format rules and tests as opa fmt does", Args: maxOneArg,
		Long: `Format every .rego file as opa fmt does. Without a flag, or with -l, list the files that would
change; with -d show the changes; with -w write them. Exits with 1 when something would change and
was not written.`,
		Example: `  writ policy fmt -d policies
  writ policy fmt -w policies`,
		RunE: func(c *cobra.Command, args []string) error {
			return withTree(c, args, author.FormatText, plainFormats, func(t *author.Tree) error {
				changed, bad := t.Format()
				if len(bad) > 0 {
					return author.Refused(bad)
				}
				for _, f := range changed {
					if diff {
						fmt.Fprint(c.OutOrStdout(), f.Diff())
					} else {
						fmt.Fprintln(c.OutOrStdout(), path.Join(t.Dir, f.File))
					}
					if write {
						if err := t.Rewrite(f); err != nil {
							return err
						}
					}
				}
				if len(changed) > 0 && !write {
					return exitStatus(exitError)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&list, "list", "l", false, "list the files that would change (the default)")
	cmd.Flags().BoolVarP(&diff, "diff", "d", false, "show the changes")
	cmd.Flags().BoolVarP(&write, "write", "w", false, "write the files")
	cmd.MarkFlagsMutuallyExclusive("list", "diff")
	return cmd
}

func policyRulesCommand() *cobra.Command {
	var format string
	formats := []string{author.FormatText, author.FormatJSON, "markdown"}
	cmd := &cobra.Command{
		Use: "rules [DIR]", Short: "List all rules with what they are for", Args: maxOneArg,
		Long:    `List every rule: id, effect, code, title, severity, control and where it stands.`,
		Example: `  writ policy rules policies -o markdown > RULES.md`,
		RunE: func(c *cobra.Command, args []string) error {
			return withTree(c, args, format, formats, func(t *author.Tree) error {
				rules, err := t.Rules(c.Context())
				if err != nil {
					return err
				}
				return author.ReportRules(c.OutOrStdout(), format, rules)
			})
		},
	}
	outputFlag(cmd, &format, formats...)
	return cmd
}
