package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/internal/daemon"
)

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "queue", Short: "Look after the queue", GroupID: "operate", Args: noCommand, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	cmd.AddCommand(queueDoctorCommand())
	return cmd
}

// queueDoctorCommand compares the indexes of the queue with its documents.
func queueDoctorCommand() *cobra.Command {
	var set settings
	var format string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Compare every index and counter of the queue with what its documents imply", Args: noArgs,
		Long: `Compare every index and counter of the queue with what its documents imply, and
say what is wrong. Nothing is changed.

On Redis it may run beside gateways. The embedded store belongs to its gateway:
stop that first.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			cfg, err := set.load(c)
			if err != nil {
				return err
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
				printIndexes(c, report)
			}
			if err == nil && !report.OK() {
				err = exitStatus(exitError)
			}
			return err
		},
	}
	outputFlag(cmd, &format)
	set.flags(cmd)
	return cmd
}

func printIndexes(c *cobra.Command, r daemon.IndexReport) {
	out := c.OutOrStdout()
	for _, w := range r.Found {
		what := "one too many in " + string(w.Entry.Index)
		switch {
		case w.Counter.Entity != "":
			what = "counter " + w.Counter.Entity + "#" + w.Counter.Field
		case w.Missing:
			what = "missing in " + string(w.Entry.Index)
		}
		fmt.Fprintf(out, "FAIL  %s  %s: %s\n", w.Task, printable(what), printable(w.Why))
	}
	for _, w := range r.Counts {
		fmt.Fprintf(out, "FAIL  %s: %d, not %d\n", printable(w.What), w.Has, w.Want)
	}
	fmt.Fprintf(out, "%d runs, %d tasks, %d things wrong\n", r.Runs, r.Tasks, len(r.Found)+len(r.Counts))
}
