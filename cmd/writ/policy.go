package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/internal/daemon"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/policies/author"
)

// The commands of policy authors work on files and need no gateway. They stand
// beside those of the API under one name.

// addPolicyCommands puts them under policy.
func addPolicyCommands(policy *cobra.Command) {
	policy.Short = "Write, test, ship and see policies"
	policy.Long = `Write, test and ship policy packs. A source is a directory with packs/<id>/ (pack.yaml, rules,
tests, data.yaml, README.md), fixtures/<id>/*.yaml and roles/. DIR is by default this directory when
it has packs/, or else policies/.

  writ policy init policies          a whole example to start from
  writ policy check                  does it load?
  writ policy test --min-coverage 90 does it decide what it should?
  writ policy bundle -o packs.tar.gz what a gateway or plain OPA loads

Exit codes of the commands that work on files: 0 ok, 1 problems found, 2 wrong usage.`
	policy.AddGroup(
		&cobra.Group{ID: "write", Title: "Write it:"},
		&cobra.Group{ID: "ship", Title: "Ship it:"},
	)
	for _, c := range []*cobra.Command{
		policyInitCommand(), policyCheckCommand(), policyFmtCommand(), policyLintCommand(), policyTestCommand(),
		policyCoverageCommand(), policyEvalCommand(), policyBenchCommand(), policyRulesCommand(),
	} {
		c.GroupID = "write"
		policy.AddCommand(c)
	}
	for _, c := range []*cobra.Command{
		policyDiffCommand(), policyReplayCommand(), policyBundleCommand(), policySignCommand(), policyVerifyCommand(),
	} {
		c.GroupID = "ship"
		policy.AddCommand(c)
	}
}

// policyDir is the directory of the source the arguments name.
func policyDir(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	if _, err := os.Stat("packs"); err == nil {
		return "."
	}
	return "policies"
}

// openTree opens the source the arguments name.
func openTree(c *cobra.Command, args []string) (*author.Tree, error) {
	t, err := author.Open(policyDir(args))
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("there is no directory %s; give the one of the policies, or make it with 'writ policy init'", policyDir(args))
	}
	return t, usage(c, err)
}

// withTree runs a command on the source the arguments name. Problems that keep
// it from loading are reported in the format asked for.
func withTree(c *cobra.Command, args []string, format string, formats []string, run func(*author.Tree) error) error {
	if err := checkFormat(c, format, formats...); err != nil {
		return err
	}
	t, err := openTree(c, args)
	if err != nil {
		return err
	}
	defer func() { _ = t.Close() }()
	err = run(t)
	if none, ok := errors.AsType[author.NoPack](err); ok {
		return usage(c, none)
	}
	if refused, ok := errors.AsType[author.Refused](err); ok {
		if err := author.Report(c.OutOrStdout(), format, c.CommandPath(), t.Dir, refused); err != nil {
			return err
		}
		fmt.Fprintf(c.ErrOrStderr(), "writ: %d problems keep the packs from loading\n", len(refused))
		return exitStatus(exitError)
	}
	return err
}

// capabilityOptions is what the policies are for: this version's capabilities.
func capabilityOptions() policies.Options {
	return policies.Options{Capabilities: daemon.IDs(daemon.Catalog())}
}

func maxOneArg(c *cobra.Command, args []string) error {
	return usage(c, cobra.MaximumNArgs(1)(c, args))
}

var (
	findingFormats = []string{author.FormatText, author.FormatJSON, author.FormatJUnit, author.FormatGitHub}
	plainFormats   = []string{author.FormatText, author.FormatJSON}
)

// writeWhole writes a file whole or not at all.
func writeWhole(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".writ-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(b)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
