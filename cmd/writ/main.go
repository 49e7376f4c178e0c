// Command writ is the gateway and everything one does with it from a terminal:
// serve it, try it, call it, write its policies, and check its receipts. Every
// command but serve, init, demo, doctor, queue doctor, log next, jail, webhook, openapi, receipt verify
// and those of policy authors speaks HTTP to a gateway. The doctors look into the store
// and change nothing in it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
)

// Exit codes. What verifies has its own: 0 ok, 1 tampered, 2 malformed, 3
// incomplete, 4 could not verify.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitWaits       = 5 // people must agree first
	exitEmpty       = 6 // nothing to hand out
	exitConflict    = 7
	exitUnavailable = 8

	exitUnverified = 4 // of what verifies
)

// verifies marks a command whose exit code is what it found: whatever else goes wrong with it,
// the command line among that, is no finding.
var verifies = map[string]string{"verifies": "yes"}

// unverified is why such a command found nothing.
type unverified struct{ error }

// unlessFound is the error of a command that verifies.
func unlessFound(err error) error {
	if _, found := errors.AsType[exitStatus](err); err == nil || found {
		return err
	}
	return unverified{err}
}

// exitStatus is an error that already said what it had to say.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exitWith is the error that makes it the exit code; nil for 0.
func exitWith(code int) error {
	if code == 0 {
		return nil
	}
	return exitStatus(code)
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(words []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var news logNews // of the log of the gateway, whatever became of the call
	ctx = context.WithValue(ctx, logNewsKey{}, &news)
	r := root()
	r.SetArgs(words)
	r.SetOut(stdout)
	r.SetErr(stderr)
	c, err := r.ExecuteContextC(ctx)
	found := news.unsaid(err)
	news.keep(stderr, err)
	if c.Annotations["verifies"] != "" {
		err = unlessFound(err)
	}
	code := report(stderr, err, wantsJSON(c, words))
	if other := report(stderr, found, wantsJSON(c, words)); code == exitOK {
		code = other
	}
	return code
}

// report says what went wrong, in the voice of the program or as JSON, and picks the
// exit code.
func report(w io.Writer, err error, asJSON bool) int {
	if err == nil {
		return exitOK
	}
	if s, ok := errors.AsType[exitStatus](err); ok {
		return int(s)
	}
	exit := exitOf(err)
	if u, ok := errors.AsType[unverified](err); ok {
		err = u.error
	}
	if asJSON {
		printRefusal(w, refusalOf(err, exit))
		return exit
	}
	if u, ok := errors.AsType[usageError](err); ok {
		printError(w, u.error)
		fmt.Fprintf(w, "writ: hint: %s --help\n", u.command)
	} else if e, ok := errors.AsType[*writ.Error](err); ok {
		tellRefusal(w, e)
	} else {
		printError(w, err)
	}
	return exit
}

// exitOf is the exit code of an error.
func exitOf(err error) int {
	if _, ok := errors.AsType[unverified](err); ok {
		return exitUnverified
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if e, ok := errors.AsType[*writ.Error](err); ok {
		return exitCode(e.Code)
	}
	if misread(err) {
		return exitUsage
	}
	return exitError
}

// tellRefusal says all that a refusal says, a line each.
func tellRefusal(w io.Writer, e *writ.Error) {
	var cause []string // of what went wrong on this side; a gateway sends none
	if e.Err != nil && !strings.Contains(e.Msg, e.Err.Error()) {
		cause = linesOf(e.Err)
	}
	msg := e.Msg
	if msg == "" && len(cause) > 0 {
		msg, cause = cause[0], cause[1:]
	}
	if step := e.Details["step"]; step != "" {
		msg = "step " + step + ": " + msg
	}
	fmt.Fprintf(w, "writ: error: %s: %s\n", e.Code, shown(msg))
	for _, line := range cause {
		fmt.Fprintf(w, "writ:   %s\n", shown(line))
	}
	for _, f := range e.Fields {
		where := "at " + f.Pointer
		if f.Pointer == "" {
			where = "in the arguments"
		}
		fmt.Fprintf(w, "writ:   %s: %s\n", shown(where), shown(f.Msg))
	}
	for _, m := range e.Missing {
		fmt.Fprintf(w, "writ:   missing: %s\n", shown(m))
	}
	if e.Code == writ.CodePreflight {
		fmt.Fprintf(w, "writ:   %s is %s: %s\n", shown(e.Details["agent"]), shown(e.Details["status"]), shown(e.Details["reason"]))
	}
	for _, p := range e.Probes {
		fmt.Fprintf(w, "writ:   endpoint %s of %s at %s: %s %s\n", shown(p.Name), shown(string(p.Agent)), shown(p.Host), shown(string(p.State)), shown(string(p.Reason)))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Details)) {
		switch name {
		case "approval", "successor", "step": // elsewhere
		case "agent", "status", "reason":
			if e.Code == writ.CodePreflight { // above
				continue
			}
			fallthrough
		default:
			fmt.Fprintf(w, "writ:   %s: %s\n", shown(name), shown(e.Details[name]))
		}
	}
	for _, r := range e.Rules {
		fmt.Fprintf(w, "writ: rule: %s\n", shown(r))
	}
	if e.Hint != "" {
		fmt.Fprintf(w, "writ: hint: %s\n", shown(e.Hint))
	}
	if a := e.Details["approval"]; a != "" {
		fmt.Fprintf(w, "writ: approval: %s\n", shown(a))
	}
	if next := e.Details["successor"]; next != "" {
		fmt.Fprintf(w, "writ: successor: %s\n", shown(next))
	}
	if e.Receipt != "" {
		fmt.Fprintf(w, "writ: receipt: %s\n", e.Receipt)
	}
}

// printError prints an error that may have several lines.
func printError(w io.Writer, err error) {
	head := "writ: error: "
	for _, line := range linesOf(err) {
		fmt.Fprintf(w, "%s%s\n", head, shown(line))
		head = "writ:   "
	}
}

// linesOf is what an error says, line by line: compilers say more than one.
func linesOf(err error) []string {
	return strings.Split(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\t", "  "), "\n")
}

func exitCode(c writ.Code) int {
	switch c {
	case writ.CodeMalformed, writ.CodeInputInvalid, writ.CodeTooLarge:
		return exitUsage
	case writ.CodeNotFound:
		return exitNotFound
	case writ.CodeApprovalRequired:
		return exitWaits
	case writ.CodeUnauthenticated, writ.CodeRBAC, writ.CodePolicy, writ.CodeScope, writ.CodeBudget,
		writ.CodeClassification, writ.CodeEgress, writ.CodeSoD, writ.CodeApprovalDenied, writ.CodeNotHolder, writ.CodeNotEligible, writ.CodeNoAgent, writ.CodeVerdict:
		return exitDenied
	case writ.CodeIllegal, writ.CodeVersion, writ.CodeClaimed, writ.CodeLeaseLost, writ.CodeScopeConflict, writ.CodeDeps, writ.CodeHandoffLoop, writ.CodePreflight, writ.CodePredicate, writ.CodeArtifact, writ.CodeShredded, writ.CodeExists,
		writ.CodeUnavailable, writ.CodeIdempotency, writ.CodeTokenIssued, writ.CodeInFlight, writ.CodeEffectUnknown, writ.CodeEffectStopped, writ.CodePaused:
		return exitConflict
	case writ.CodeQuota, writ.CodeBackpressure, writ.CodeContention, writ.CodeStore, writ.CodePolicyDown,
		writ.CodeReceiptPending, writ.CodeUpgrade, writ.CodeNotReady, writ.CodeEffectFailed:
		return exitUnavailable
	}
	return exitError
}

// usageError is a mistake on the command line.
type usageError struct {
	error
	command string
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "writ",
		Short: "A policy-as-code governance gateway for autonomous agents",
		Long: `writ is the one door for every call an agent, a person or a timer makes: role
bindings and Rego policy packs decide before anything happens, work is queued
with leases and fences, and every transition and denial leaves a signed receipt.

  writ demo            plays a short story on this machine and keeps serving
  writ serve           runs the gateway
  writ task claim      asks for work, as an agent would
  writ receipt verify  checks an export, offline
  writ export          writes an evidence pack for auditors

Results go to standard output, findings of a check among them, and what else there is to say to
standard error. With -o json a command that fails writes one JSON object there, in one line and as
the last: the problem the gateway answered with (code, detail, hint, errors, details, …),
retry_after_s if the same call may do later, and exit_code. What goes wrong on this side has no
status, and the code "usage" or "failed" where none of the gateway's fits.

Exit codes: 0 done, 1 an error of no other kind, 2 a mistake on the command line, in a file or in
an argument, a file that is not there among them, 3 not found, 4 denied, 5 people must agree first,
6 nothing to hand out, 7 the object is in another state, 8 try again later. What verifies (receipt
verify, pack verify, run verify, close verify, log verify, log consistency, log check) has its own,
of which 4 is for all that is no finding.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       writ.Version,
		Args:          noCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		// cobra looks for required flags itself, a moment later, and its error would end with 1, which says "tampered" of what verifies.
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return usage(c, c.ValidateRequiredFlags()) },
	}
	cmd.SetVersionTemplate("{{.Version}}\n")
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError{err, c.CommandPath()} })
	cmd.AddGroup(
		&cobra.Group{ID: "operate", Title: "Run it:"},
		&cobra.Group{ID: "call", Title: "Call it:"},
		&cobra.Group{ID: "check", Title: "Check it:"},
	)
	cmd.SetHelpCommandGroupID("operate")
	cmd.SetCompletionCommandGroupID("operate")
	cmd.AddCommand(serveCommand(), initCommand(), demoCommand(), doctorCommand(), configCommand(), webhookCommand(), queueCommand(), jailCommand(), openapiCommand(), versionCommand())
	cmd.AddCommand(verdictCommand())
	verbs := verbCommands()
	for _, c := range verbs {
		if c.Name() == "policy" {
			addPolicyCommands(c)
			stageCommands(c)
		}
	}
	cmd.AddCommand(verbs...)
	cmd.AddCommand(receiptCommand(), packExportCommand(), packCommand(), closeCommand(), budgetCommand(), workflowCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", GroupID: "operate", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			if format == "json" {
				return printJSON(c, map[string]string{"version": writ.Version})
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), writ.Version)
			return err
		},
	}
	outputFlag(cmd, &format)
	return cmd
}

func printJSON(c *cobra.Command, v any) error {
	e := json.NewEncoder(c.OutOrStdout())
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// maxFile bounds what is read of a file somebody names.
const maxFile = 16 << 20

// readArgument reads a file, or standard input for -, within a limit.
func readArgument(c *cobra.Command, name string, limit int64) ([]byte, error) {
	in := c.InOrStdin()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usage(c, err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = usage(c, fmt.Errorf("%s is larger than %d bytes", name, limit))
	}
	return b, err
}

// noCommand refuses a word that is no command of a group.
func noCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("unknown command %q for %q", args[0], c.CommandPath())
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{errors.New(msg), c.CommandPath()}
}

// noArgs and oneArg are cobra's checks with our exit code.
func noArgs(c *cobra.Command, args []string) error { return usage(c, cobra.NoArgs(c, args)) }

func oneArg(c *cobra.Command, args []string) error { return usage(c, cobra.ExactArgs(1)(c, args)) }

func usage(c *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return usageError{err, c.CommandPath()}
}
