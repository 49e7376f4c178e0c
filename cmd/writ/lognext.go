package main

import (
	"encoding/base64"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/internal/daemon"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// shownOrphans is how many orphans are listed for people.
const shownOrphans = 20

func nextLogCommand() *cobra.Command {
	var set settings
	var o daemon.NextLogOptions
	var format string
	cmd := &cobra.Command{
		Use: "next", Short: "Freeze a log that cannot go on, and begin the next", Args: noArgs,
		Example: `  writ log next --data /var/lib/writ --dry-run
  writ log next --data /var/lib/writ
  writ log next --data /var/lib/writ --new-key -o json`,
		Long: `Freeze the transparency log of a gateway that does not run, and have it go on in the next
shard: a log of its own with another name (s2.writ.local after writ.local), which has all
receipts of the ledger again, each under its sequence.

It is the way out where the ledger was restored from an earlier time or is another one, so
that the log has published what the ledger does not have, and where the private half of the
log's key is lost. First it says what is wrong: both are read, entry by entry. With --dry-run
that is all, and nothing is changed.

The frozen log stays where it is, to the byte, and verifies as before with its key: it is the
evidence of what was published. The next one is below it (s2/), with previous.json, its last
checkpoint and how much the two have in common, and orphans.jsonl, what it published and the
ledger does not have: the index of each entry, and the SHA-256 of what was signed. Whoever has
such a receipt can show that you signed and published it; what it stands for is not in the
gateway's records any more. Tell who trusts you: nobody takes the next log for the one before.

--new-key gives the next log another key, made beside the keys (log-2.key), or the one that
--log-key names, and is how the log's key is changed where nothing is wrong at all. --force
freezes a log with which nothing is wrong here, where a witness or an auditor saw another.

Stop the gateway first. Killed at any moment, run it again. The settings are those of 'writ
serve'. Exit codes: 0 done, or nothing is wrong (--dry-run); 1 something is wrong (--dry-run).`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			cfg, err := set.load(c)
			if err != nil {
				return err
			}
			r, err := daemon.NextLog(c.Context(), cfg, o)
			if err != nil {
				return err
			}
			if format == "json" {
				err = printJSON(c, r)
			} else {
				printFrozen(c.OutOrStdout(), r)
			}
			if err == nil && o.DryRun && (len(r.Wrong) > 0 || r.Incomplete != "") {
				err = exitStatus(exitError)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "say what is wrong and what would be done, and change nothing")
	cmd.Flags().BoolVar(&o.NewKey, "new-key", false, "the next log has another key")
	cmd.Flags().BoolVar(&o.Force, "force", false, "also when nothing is wrong with the log here")
	outputFlag(cmd, &format)
	set.flags(cmd)
	return cmd
}

// printFrozen says what was wrong with a log, what became of it, and what others see.
func printFrozen(w io.Writer, r daemon.FrozenLog) {
	root := base64.StdEncoding.EncodeToString
	for _, why := range r.Wrong {
		fmt.Fprintf(w, "wrong   %s\n", shown(why))
	}
	if len(r.Wrong) == 0 && r.Incomplete == "" {
		fmt.Fprintln(w, "Nothing is wrong: the log is the one of its ledger.")
	}
	state, next := "frozen", "next"
	if !r.Done {
		state, next = "log", "would be"
	}
	fmt.Fprintf(w, "%-7s %s, %d receipts, root %s, in %s\n", state, r.Frozen.Log, r.Size, root(r.Root), shown(r.Frozen.Where))
	if r.Frozen.Key != "" {
		fmt.Fprintf(w, "        verifies with %s\n", shown(r.Frozen.Key))
	}
	fmt.Fprintf(w, "common  the first %d receipts\n", r.Common)
	for _, o := range r.Orphans[:min(len(r.Orphans), shownOrphans)] {
		fmt.Fprintf(w, "orphan  %s\n", orphan(o))
	}
	if more := len(r.Orphans) - shownOrphans; more > 0 {
		fmt.Fprintf(w, "        and %d more, all of them with -o json\n", more)
	}
	if r.Incomplete != "" && r.Common < r.Size {
		fmt.Fprintf(w, "        there may be more: %s\n", shown(r.Incomplete))
	} else if r.Incomplete != "" {
		fmt.Fprintf(w, "damaged %s\n", shown(r.Incomplete))
	}
	fmt.Fprintf(w, "%-7s %s, in %s\n", next, r.Next.Log, shown(r.Next.Where))
	if r.Next.Key != "" {
		fmt.Fprintf(w, "        verifies with %s\n", shown(r.Next.Key))
	}
	if r.Done {
		fmt.Fprintf(w, `
Start the gateway: it publishes all receipts of the ledger in %s.
Whoever kept a checkpoint of %s sees another log with another name, and no proof from the
one to the other: give them both verifier keys, and the frozen log with %s and %s.
Witnesses have to be told of the new log's key. Commands that saw the old log say so until
log-seen.json is removed.
`, r.Next.Log, r.Frozen.Log, tlog.PreviousPath, tlog.OrphansPath)
	}
}

func orphan(o tlog.Orphan) string {
	what := "the ledger has none"
	if o.Other {
		what = "the ledger has another"
	}
	return fmt.Sprintf("%d  sha256:%s  %s", o.Index, o.Digest, what)
}
