package main

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/internal/daemon"
)

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "queue", Short: "Look after the queue", GroupID: "operate", Args: noCommand, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	cmd.AddCommand(queueDoctorCommand())
	return cmd
}

// queueDoctorCommand holds the indexes of the queue against its documents.
func queueDoctorCommand() *cobra.Command {
	var set settings
	var format string
	var repair bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Compare every index, lane and counter of the queue with what its documents imply", Args: noArgs,
		Long: `Compare every index, lane and counter of the queue with what its documents imply,
and say what is wrong. Without --repair nothing is changed.

With --repair indexes, lanes and counters are put back to what the documents
imply. Documents are not touched: one that contradicts itself is named and left.
Every commit has a receipt that says what kinds of things it mended and how many.
It is signed with the gateway's keys, so name its --data, or --keys.

On Redis it may run beside gateways. The embedded store belongs to its gateway:
stop that first.

The exit code is 0 when nothing is wrong, or all of it was mended, and 1 when
something is.`,
		Example: `  writ queue doctor --data /var/lib/writ
  writ queue doctor --data /var/lib/writ --repair -o json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			cfg, err := set.load(c)
			if err != nil {
				return err
			}
			if repair {
				return queueRepair(c, cfg, format)
			}
			report, err := daemon.ExamineQueue(c.Context(), cfg)
			if err != nil {
				return err
			}
			if format == "json" {
				err = printJSON(c, struct {
					OK bool `json:"ok"`
					daemon.IndexReport
				}{report.OK(), report})
			} else {
				printIndexes(c, "FAIL", report)
				printLooked(c, report)
			}
			if err == nil && !report.OK() {
				err = exitStatus(exitError)
			}
			return err
		},
	}
	outputFlag(cmd, &format)
	cmd.Flags().BoolVar(&repair, "repair", false, "put indexes, lanes and counters back to what the documents imply")
	set.flags(cmd)
	return cmd
}

// queueRepair mends what is wrong, and says what that was.
func queueRepair(c *cobra.Command, cfg daemon.Config, format string) error {
	report, err := daemon.RepairQueue(c.Context(), cfg, slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	switch {
	case format == "json":
		err = printJSON(c, struct {
			OK bool `json:"ok"`
			daemon.RepairReport
		}{report.Left.OK(), report})
	case report.Before.OK() && report.Left.OK():
		fmt.Fprintln(out, "Nothing is wrong, and nothing was changed.")
		printLooked(c, report.Left)
	default:
		printIndexes(c, "was", report.Before)
		for _, kind := range slices.Sorted(maps.Keys(report.Mended)) {
			fmt.Fprintf(out, "mended  %s: %d\n", shown(kind), report.Mended[kind])
		}
		for _, id := range report.Receipts {
			fmt.Fprintf(out, "receipt  %s\n", id)
		}
		printIndexes(c, "LEFT", report.Left)
		printLooked(c, report.Left)
	}
	if err == nil && !report.Left.OK() {
		err = exitStatus(exitError)
	}
	return err
}

// printIndexes names what is wrong, or was.
func printIndexes(c *cobra.Command, word string, r daemon.IndexReport) {
	out := c.OutOrStdout()
	for _, w := range r.Found {
		what := "one too many in " + string(w.Entry.Index)
		switch {
		case w.Left:
			what = "document"
		case w.Counter.Entity != "":
			what = "counter " + w.Counter.Entity + "#" + w.Counter.Field
		case w.Lane != "" && w.Missing:
			what = "missing in lane " + string(w.Lane)
		case w.Lane != "":
			what = "one too many in lane " + string(w.Lane)
		case w.Missing:
			what = "missing in " + string(w.Entry.Index)
		case w.Moved:
			what = "at another time or place in " + string(w.Entry.Index)
		}
		fmt.Fprintf(out, "%s  %s  %s: %s\n", word, shown(string(w.Document)), shown(what), shown(w.Why))
	}
	for _, w := range r.Counts {
		fmt.Fprintf(out, "%s  %s: %d, not %d\n", word, shown(w.What), w.Has, w.Want)
	}
}

func printLooked(c *cobra.Command, r daemon.IndexReport) {
	fmt.Fprintf(c.OutOrStdout(), "%d runs, %d tasks, %d things wrong\n", r.Runs, r.Tasks, len(r.Found)+len(r.Counts))
}
