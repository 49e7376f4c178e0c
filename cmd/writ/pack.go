package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/pack"
	"github.com/writ-gateway/writ/receipts/tlog"
)

const packTrust = `
Only keys given here are trusted: --log-key is 'verifier_key' of writ log head, or a file with it,
--key is receipt.pub of the gateway, the key the log began with; keep both from when you had reason to
trust them. Later receipt keys are those that receipts in the pack introduce, each believed where it
signs and not once it is retired or revoked. --keys, and --root if you trust one, know of a revocation
that came later, or was left out of the pack of a run. Without any, the keys in the pack are taken, and the report says "self-consistent only":
that shows damage, and nothing of who made the pack.

--witness is the key of a witness, from itself, that must have cosigned the checkpoint (C2SP tlog-cosignature): who runs
the gateway can begin another log, and a witness signs one only. Each that is given must have signed, or as many as
--witnesses says.

Exit codes: 0 ok, 1 tampered (or of other keys), 2 malformed, 3 incomplete, 4 could not verify: a file
or a key cannot be read, or the command line is wrong. Of several findings the first of tampered, malformed, incomplete counts.
docs/verify.md has every finding, and what each check does not prove.`

func packCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pack", Short: "Verify evidence packs, offline", GroupID: "check", Args: noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(packVerify("verify PACK", "Verify an evidence pack offline",
		`Verify what 'writ export' wrote: that every receipt is signed, that the checkpoint covers it, that none
is missing of what the pack says it holds, that evidence and policies are those receipts state, and, if
all that holds, the rules between receipts: time, parents, and every move of every object.
`, `  writ pack verify pack.tar --log-key log.vkey --key receipt.pub
  writ pack verify pack -o json`, false, false))
	return cmd
}

func runVerifyCommand() *cobra.Command {
	return packVerify("verify PACK", "Verify the receipts of a run offline",
		`Verify a pack, then the chain of one run: it begins with its creation, its own sequence has no gap,
every parent comes before, its states and those of its tasks move as they may and on from where they
were, nothing moves after its end, and a run that is done has no task that is not. The report says who
ended it. A run that has not ended is incomplete: what came after the pack is not in it.
`, `  writ run verify pack.tar --run run_01M89R8763R5PGQGSMXGFWBA4N --log-key log.vkey --key receipt.pub`, true, false)
}

func closeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "close", Short: "Verify who closed a run, offline", GroupID: "check", Args: noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(packVerify("verify PACK", "Verify offline that a run was closed by somebody who may",
		`Verify a pack and the chain of a run, then every verdict in it, by who is named in what was signed and
not by the gateway's word: whoever judged was a verifier, and had no part in the run, neither in that session nor
as that agent, with none of the keys of who had one, neither answering for nor having opened the session of one,
nor with a session that one opened. Every task that asks for a verdict has one, every verdict follows from, and
names, the last change of what it judges, and says that each check passed which the task asks for. Where several
verdicts are asked for there are as many, of verifiers who are told apart.

An agent that has registered keys must have signed its verdict with one of them, which the gateway never has: that
signature is checked, and that it is about this receipt and its artifacts, and says what the call does. The report says in
'word' whose word the end of the run rests on: such a verdict, or the gateway's only, or that it is not to be said,
since what one needs to check it is not in the pack. Who runs the gateway can register keys too: --verifier-key is
one you have from the verifier, and then the run must end by a verdict signed with it.

It wants the evidence of receipts, which says who a session is for and what a verdict names. Of a run that began
before the receipts in the pack it says nothing but that: export the run, or the whole log.
`, `  writ close verify pack.tar --run run_01M89R8763R5PGQGSMXGFWBA4N --log-key log.vkey --key receipt.pub`, true, true))
	return cmd
}

// packVerify is a command that checks a pack: by itself, the chain of a run, or who closed it.
func packVerify(use, short, long, example string, ofRun, closed bool) *cobra.Command {
	var logKey, run, format string
	var keys, verifiers []string
	var file, root string
	var witnesses witnessFlags
	cmd := &cobra.Command{
		Use: use, Short: short, Args: oneArg, Annotations: verifies, Example: example, Long: long + packTrust,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			if ofRun && !writ.RunID(run).Valid() {
				return usageError{errors.New("--run must be the id of a run, run_…"), c.CommandPath()}
			}
			trust, err := packKeys(logKey, keys, file, root)
			if err == nil {
				trust.Verifiers, err = readAll(verifiers)
			}
			if err == nil {
				trust.Need = witnesses.need
				trust.Witnesses, err = witnesses.read(c)
			}
			if err != nil {
				return err
			}
			p, err := pack.Open(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = p.Close() }()
			report, err := pack.Verify(p, trust, pack.Ask{Run: writ.RunID(run), Close: closed})
			if err != nil {
				return err
			}
			if err := printPack(c, format, report); err != nil {
				return err
			}
			return exitWith(report.Exit)
		},
	}
	cmd.Flags().StringVar(&logKey, "log-key", "", "note verifier key of the log, or a file with it")
	cmd.Flags().StringArrayVar(&keys, "key", nil, "receipt key to trust, a PEM file; again for each")
	cmd.Flags().StringVar(&file, "keys", "", "file of keys from outside, from 'writ key manifest': what it says of keys counts too, and the pack must have what it says of its time")
	cmd.Flags().StringVar(&root, "root", "", "public key of a root that must have signed the manifest in --keys, PEM; --key is not needed then")
	witnesses.flags(cmd)
	if ofRun {
		cmd.Flags().StringVar(&run, "run", "", "the run (required)")
		_ = cmd.MarkFlagRequired("run")
	}
	if closed {
		cmd.Flags().StringArrayVar(&verifiers, "verifier-key", nil, "verifier's key that must have signed the verdict which ends the run, a PEM file; again for others of which one must")
	}
	outputFlag(cmd, &format)
	return cmd
}

// packKeys reads the keys a pack is checked with. Half of them would leave the other half
// to the pack.
func packKeys(logKey string, paths []string, file, root string) (t pack.Trust, err error) {
	if (logKey == "") != (len(paths) == 0 && root == "") {
		return t, errors.New("give --log-key and --key: one without the other proves nothing")
	}
	if logKey == "" && file != "" {
		return t, errors.New("--keys says more of keys that are trusted: give --log-key, and --key or --root, too")
	}
	if logKey == "" {
		return t, nil
	}
	if t.LogKey, err = readLogKey(logKey); err != nil {
		return t, err
	}
	if t.Keys, err = readAll(paths); err != nil {
		return t, err
	}
	for path, text := range map[string]*[]byte{file: &t.KeysFile, root: &t.Root} {
		if path == "" {
			continue
		}
		if *text, err = os.ReadFile(path); err != nil {
			return t, err
		}
	}
	return t, nil
}

func readAll(paths []string) (out [][]byte, err error) {
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}

// readLogKey takes a verifier key, or the name of a file with one.
func readLogKey(given string) (string, error) {
	text := []byte(given)
	if _, err := os.Stat(given); err == nil || !strings.Contains(given, "+") {
		var err error
		if text, err = os.ReadFile(given); err != nil {
			return "", fmt.Errorf("the log's key: %w", err)
		}
	}
	key, err := tlog.ReadVerifier(text)
	if name, _, _ := strings.Cut(key, "+"); err == nil && !receipts.ValidOrigin(name) {
		err = errors.New("its name is not that of a host: take verifier_key of writ log head")
	}
	if err != nil {
		return "", fmt.Errorf("the log's key: %w", err)
	}
	return key, nil
}

func printPack(c *cobra.Command, format string, r pack.Report) error {
	if format == "json" {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return render(c.OutOrStdout(), format, b)
	}
	w := c.OutOrStdout()
	say := func(name string, v any) { fmt.Fprintf(w, "%-10s %s\n", name, shown(fmt.Sprint(v))) }
	say("verdict", r.Verdict)
	say("trust", r.Trust)
	if r.Log != "" {
		say("log", fmt.Sprintf("%s, %d receipts", r.Log, r.Size))
	}
	for _, w := range r.Witnesses {
		say("witness", w.Name+", "+w.At)
	}
	if r.Earlier != nil {
		say("earlier", fmt.Sprintf("the log begins with the %d receipts of %s: compare that with the one you kept", *r.Earlier, pack.FileEarlier))
	}
	switch s := r.Scope; s.Kind {
	case pack.ScopeRange:
		say("scope", fmt.Sprintf("receipts %d to %d", s.First, s.Last))
	case pack.ScopeRun:
		say("scope", string(s.Run))
	case pack.ScopeLog:
		say("scope", "the whole log")
	}
	say("good", fmt.Sprintf("%d receipts, %d of them with evidence, %d policy bundles", r.Receipts, r.Evidence, r.Policies))
	if r.Scope.Kind != "" {
		say("promised", r.Promised)
	}
	if !r.Rules {
		say("rules", "not looked at: single receipts are bad, or missing")
	}
	if f := r.Run; f != nil && f.Receipts > 0 {
		say("run", fmt.Sprintf("%s: %d receipts, %d tasks, %s", f.Run, f.Receipts, f.Tasks, f.State))
		if f.By != nil {
			say("ended by", strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s", f.By.Transition, f.By.Role, f.By.Agent, f.By.Session)), ", "))
		}
		for _, v := range f.Verdicts {
			logged := ""
			if v.Logged != nil {
				logged = fmt.Sprintf("logged at %d", *v.Logged)
			}
			say("judged", strings.Join(strings.Fields(fmt.Sprintf("%s→%s by %s %s %s %s", v.Object, v.To, v.By.Agent, v.By.Session, v.Key, logged)), " "))
		}
		if f.Word != "" {
			say("word", f.Word)
		}
		say("parts", f.Tree)
	}
	for _, f := range r.Findings {
		at := ""
		if f.Seq >= 0 {
			at = fmt.Sprintf(" at %d", f.Seq)
		}
		if f.Receipt != "" {
			at += " " + string(f.Receipt)
		}
		say(f.Verdict, fmt.Sprintf("%s%s: %s", f.Code, at, f.Text))
	}
	return nil
}
