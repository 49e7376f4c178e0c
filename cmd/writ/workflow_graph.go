package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/workflow"
)

var graphFormats = append(slices.Clone(commonFormats), "mermaid")

func workflowGraphCommand() *cobra.Command {
	var connect connection
	var format string
	cmd := &cobra.Command{
		Use: "graph FILE|RUN-ID", Short: "Show which step waits for which",
		Long: `Show which step waits for which: of a file, or of a run with where each task stands.

-o table lists them in an order in which each comes after those it waits for; -o mermaid is a flowchart
that Markdown viewers draw; -o json has both ends of every edge. What is said of an edge is shown with
it: "when failed" is a step that makes good what another left, "on failure: …" what becomes of a step
when the other ends without a result, if not that it fails. JOIN is how much of it must come about, if
not all.`,
		Example: "  writ workflow graph site.yaml -o mermaid\n  writ workflow graph run_01M89R8763R5PGQGSMXGFWBA4N",
		Args:    oneArg,
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format, graphFormats...); err != nil {
				return err
			}
			var nodes []node
			if id := writ.RunID(rest[0]); id.Valid() {
				cl, err := connect.open()
				if err != nil {
					return err
				}
				if nodes, err = nodesOfRun(c.Context(), cl, id); err != nil {
					return err
				}
			} else {
				w, _, err := soundWorkflow(c, rest[0], format)
				if err != nil {
					return err
				}
				nodes = nodesOf(w)
			}
			switch format {
			case "json":
				return printJSON(c, map[string]any{"steps": nodes})
			case "mermaid":
				mermaid(c.OutOrStdout(), nodes)
				return nil
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(t, "STEP\tSTATE\tAFTER\tJOIN\tVERDICT")
			for _, n := range nodes {
				var after []string
				for _, e := range n.DependsOn {
					if label := labelOf(e); label != "" {
						e.Key += " (" + label + ")"
					}
					after = append(after, e.Key)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", n.Key, orDash(string(n.State)), orDash(strings.Join(after, ", ")), orDash(n.join()), orDash(n.Verdict))
			}
			return t.Flush()
		},
	}
	outputFlag(cmd, &format, graphFormats...)
	connect.flags(cmd)
	return cmd
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// node is a step in a graph.
type node struct {
	Key       string              `json:"key"`
	Task      writ.TaskID         `json:"task_id,omitempty"`
	State     writ.TaskState      `json:"state,omitempty"`
	After     []string            `json:"after"`                // the keys of what it depends on
	DependsOn []client.Dependency `json:"depends_on,omitempty"` // the same, with what is said of each
	Join      writ.Join           `json:"join,omitempty"`       // how much of it must come about; absent: all
	Admitted  bool                `json:"admitted,omitempty"`
	Verdict   string              `json:"verdict,omitempty"` // wanted, or given
}

// waits notes what a step depends on and how. What goes without saying is left out.
func (n *node) waits(join writ.Join, on []client.Dependency) {
	n.After = []string{}
	for _, e := range on {
		if e.When == writ.EndDone {
			e.When = ""
		}
		if e.When == writ.EndFailed || e.OnFailure == writ.DependencyFail {
			e.OnFailure = ""
		}
		n.After = append(n.After, e.Key)
		n.DependsOn = append(n.DependsOn, e)
	}
	if join != writ.JoinAll {
		n.Join = join
	}
}

// join is what people read of it.
func (n *node) join() string {
	if n.Admitted {
		return string(n.Join) + ", admitted"
	}
	return string(n.Join)
}

// labelOf is what is said of an edge, if anything.
func labelOf(e client.Dependency) string {
	switch {
	case e.When == writ.EndFailed:
		return "when failed"
	case e.When == writ.EndGiven && e.OnFailure != "":
		return "when given, on failure: " + string(e.OnFailure)
	case e.When == writ.EndGiven:
		return "when given"
	case e.OnFailure != "":
		return "on failure: " + string(e.OnFailure)
	}
	return ""
}

func nodesOf(w workflow.Workflow) []node {
	out := []node{}
	for _, level := range w.Levels() {
		for _, key := range level {
			t := w.Task("", key)
			n := node{Key: key}
			n.waits(t.Join, t.DependsOn)
			if t.Verify != nil && t.Verify.Required {
				n.Verdict = "wanted"
			}
			out = append(out, n)
		}
	}
	return out
}

// nodesOfRun are the tasks of a run as they were enqueued: each after those it
// depends on.
func nodesOfRun(ctx context.Context, cl *client.Client, id writ.RunID) (out []node, err error) {
	out = []node{}
	for after := writ.TaskID(""); ; {
		page, err := cl.ListTasks(ctx, id, "", after)
		if err != nil {
			return nil, err
		}
		for _, t := range page.Tasks {
			n := node{Key: t.Key, Task: t.ID, State: t.State, Admitted: t.Admitted}
			n.waits(t.Join, t.DependsOn)
			if t.Verify != nil {
				n.Verdict = "wanted"
			}
			if t.Verified {
				n.Verdict = "accepted"
			}
			out = append(out, n)
		}
		if after = page.Next; after == "" {
			inLevels(out)
			return out, nil
		}
	}
}

// inLevels puts steps in an order that follows from them, whichever was made a task
// first: those that wait for nothing, then those that wait for these, each by key.
func inLevels(nodes []node) {
	level := map[string]int{}
	for range nodes { // as often as the longest chain at most
		moved := false
		for _, n := range nodes {
			for _, before := range n.After {
				if below := level[before] + 1; below > level[n.Key] && below <= len(nodes) {
					level[n.Key], moved = below, true
				}
			}
		}
		if !moved {
			break
		}
	}
	slices.SortStableFunc(nodes, func(a, b node) int {
		return cmp.Or(cmp.Compare(level[a.Key], level[b.Key]), cmp.Compare(a.Key, b.Key))
	})
}

// mermaid draws a flowchart. Keys are slugs, so nothing of them is taken for its
// syntax; those it does not know stand for themselves.
func mermaid(out io.Writer, nodes []node) {
	fmt.Fprintln(out, "flowchart TD")
	name := func(key string) string { return "s_" + strings.ReplaceAll(key, "-", "_") + "_" }
	known := []string{}
	for _, n := range nodes {
		label := n.Key
		if n.State != "" {
			label += "<br>" + string(n.State)
		}
		if n.Join != "" {
			label += "<br>" + n.join()
		}
		fmt.Fprintf(out, "  %s[\"%s\"]\n", name(n.Key), label)
		known = append(known, n.Key)
	}
	for _, n := range nodes {
		for _, e := range n.DependsOn {
			arrow := "-->"
			if label := labelOf(e); label != "" {
				arrow = `-->|"` + label + `"|`
			}
			if slices.Contains(known, e.Key) {
				fmt.Fprintf(out, "  %s %s %s\n", name(e.Key), arrow, name(n.Key))
			}
		}
	}
}
