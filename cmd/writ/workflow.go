package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/workflow"
)

const workflowForm = `A workflow is a YAML or JSON file:

  version: 1
  title: publish the site
  close_policy: verifier            # auto, the default; or manual
  budget: {steps: 40}               # two for each attempt at a step, one for each artifact it stores
  steps:
    build:   {capability: site.build, required_domain: web, write_scopes: [fs:site/dist/],
              produces: [{name: site, media_type: application/zip, required: true}]}
    test:    {capability: site.test, required_domain: web, depends_on: [build], consumes: [{name: site, from: build}]}
    docs:    {capability: site.docs, required_domain: web, depends_on: [{key: build, on_failure: continue}]}
    publish: {capability: site.publish, required_domain: web, depends_on: [test, docs],
              verify: {required: true, gates: [links]}, deadline_s: 86400}
    restore: {capability: site.restore, required_domain: web, depends_on: [{key: publish, when: failed}]}

A step has the members of task.enqueue, "join: any_of" and "when: failed" among them; docs/work.md says
what they do. "sequence: [build, test, …]" with the name of every step lets each begin only when the
one before has ended.`

func workflowCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "workflow", Short: "Check, submit and show work that consists of steps", GroupID: "call", Args: noCommand,
		Long: "Check, submit and show work that consists of steps.\n\n" + workflowForm,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	group.AddCommand(workflowValidateCommand(), workflowSubmitCommand(), workflowGraphCommand())
	return group
}

func workflowValidateCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "validate FILE|-", Short: "Say everything that is wrong with a workflow",
		Long: `Say everything that is wrong with a workflow, each with where it stands (RFC 6901), without a gateway:
unknown members, steps that name no step, circles, names and numbers that no gateway takes, a budget
that is too small. Steps that may run at the same time and write to one place are a warning.

Exits with 0, or 1 if something is wrong. Whether an agent can run a step, and whether policy lets it,
the gateway says when it is submitted.

` + workflowForm,
		Example: "  writ workflow validate site.yaml\n  writ workflow validate - -o json < site.yaml",
		Args:    oneArg,
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			w, problems, err := readWorkflow(c, rest[0])
			if err != nil {
				return err
			}
			if format == "json" {
				err = printJSON(c, struct {
					Steps    int                `json:"steps"`
					Problems []workflow.Problem `json:"problems"`
				}{len(w.Steps), append([]workflow.Problem{}, problems...)})
			} else {
				tellProblems(c.OutOrStdout(), rest[0], problems)
			}
			if err == nil && workflow.Errors(problems) {
				return exitStatus(exitError)
			}
			if err == nil && format != "json" {
				fmt.Fprintf(c.OutOrStdout(), "%s: %d steps, nothing wrong\n", printable(rest[0]), len(w.Steps))
			}
			return err
		},
	}
	outputFlag(cmd, &format)
	return cmd
}

func tellProblems(out io.Writer, file string, problems []workflow.Problem) {
	for _, p := range problems {
		kind := ""
		if p.Warning {
			kind = "warning: "
		}
		fmt.Fprintf(out, "%s: %s%s: %s\n", printable(file), kind, printable(p.Pointer), printable(p.Msg))
	}
}

// maxWorkflowBytes bounds what is read.
const maxWorkflowBytes = 8 << 20

// readWorkflow reads a file, YAML or JSON, or the standard input.
func readWorkflow(c *cobra.Command, name string) (w workflow.Workflow, problems []workflow.Problem, err error) {
	b, err := readArgument(c, name, maxWorkflowBytes)
	if err != nil {
		return w, nil, err
	}
	var any any
	if err := yaml.Unmarshal(b, &any); err != nil {
		return w, []workflow.Problem{{Msg: strings.TrimPrefix(err.Error(), "yaml: ")}}, nil
	}
	text, err := json.Marshal(any)
	if err != nil {
		return w, []workflow.Problem{{Msg: "holds something that JSON does not have, a number or a list as a name perhaps"}}, nil
	}
	w, problems = workflow.Parse(text)
	return w, problems, nil
}

// soundWorkflow reads a workflow and says what is wrong with it: with more than
// warnings it is an error.
func soundWorkflow(c *cobra.Command, name, format string) (workflow.Workflow, error) {
	w, problems, err := readWorkflow(c, name)
	if err != nil {
		return w, err
	}
	if format != "json" {
		tellProblems(c.ErrOrStderr(), name, problems)
	}
	if !workflow.Errors(problems) {
		return w, nil
	}
	var wrong []writ.FieldError
	for _, p := range problems {
		if !p.Warning {
			wrong = append(wrong, writ.FieldError{Pointer: p.Pointer, Msg: p.Msg})
		}
	}
	return w, unsound(c, format, "the workflow is not sound", wrong)
}

func workflowSubmitCommand() *cobra.Command {
	var connect connection
	var format, run string
	var open bool
	cmd := &cobra.Command{
		Use: "submit FILE|-", Short: "Create a run and its tasks from a workflow",
		Long: `Create a run and its tasks from a workflow, in an order in which each comes after those it waits for, and
seal it. Every task is a call of its own: judged, and with a receipt of its own. What is wrong with the
workflow itself is said before anything is done.

If it ends in between, it says at which step, and the same again with --run RUN-ID goes on: tasks that
are there are left as they are. With -o json the refusal has step, run and steps_made in its details.
It needs the role orchestrator or operator.

` + workflowForm,
		Example: "  writ workflow submit site.yaml --token-file planner.token\n  writ workflow submit site.yaml --run run_01M89R8763R5PGQGSMXGFWBA4N",
		Args:    oneArg,
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			if run != "" && !writ.RunID(run).Valid() {
				return usageError{errors.New("--run wants the id of a run (run_…)"), c.CommandPath()}
			}
			w, err := soundWorkflow(c, rest[0], format)
			if err != nil {
				return err
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			made, err := submit(c.Context(), cl, w, writ.RunID(run), open)
			if err != nil {
				if e, ok := errors.AsType[*writ.Error](err); ok && made.Run != "" && format == "json" {
					return e.With("run", string(made.Run)).With("steps_made", strconv.Itoa(len(made.Tasks)))
				}
				if made.Run != "" && format != "json" {
					fmt.Fprintf(c.ErrOrStderr(), "writ: %d of %d steps are in %s; to go on: writ workflow submit %s --run %s\n",
						len(made.Tasks), len(w.Steps), made.Run, printable(rest[0]), made.Run)
				}
				return err
			}
			if format == "json" {
				return printJSON(c, made)
			}
			fmt.Fprintf(c.OutOrStdout(), "run: %s\n\n", made.Run)
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(t, "STEP\tTASK\tSTATE")
			for _, x := range made.Tasks {
				fmt.Fprintf(t, "%s\t%s\t%s\n", x.Key, x.Task, x.State)
			}
			return t.Flush()
		},
	}
	outputFlag(cmd, &format)
	cmd.Flags().StringVar(&run, "run", "", "go on with a run that was begun")
	cmd.Flags().BoolVar(&open, "open", false, "do not seal the run: more tasks will be added to it")
	connect.flags(cmd)
	return cmd
}

// submitted is what a submission made.
type submitted struct {
	Run   writ.RunID   `json:"run_id"`
	Tasks []madeOfStep `json:"tasks"`
}

type madeOfStep struct {
	Key   string         `json:"key"`
	Task  writ.TaskID    `json:"task_id"`
	State writ.TaskState `json:"state"`
}

// submit creates what a workflow asks for, in an order in which each task finds
// those it depends on. What it returns with an error is what is there.
func submit(ctx context.Context, cl *client.Client, w workflow.Workflow, run writ.RunID, open bool) (made submitted, err error) {
	if run == "" {
		r, err := cl.CreateRun(ctx, client.RunOptions{Title: w.Title, Goal: w.Goal, ClosePolicy: w.ClosePolicy, CloseQuorum: w.CloseQuorum, Budget: w.Budget})
		if err != nil {
			return made, err
		}
		run = r.ID
	}
	made = submitted{Run: run, Tasks: []madeOfStep{}}
	for _, level := range w.Levels() {
		for _, key := range level {
			t, err := cl.Enqueue(ctx, w.Task(run, key))
			if err != nil {
				return made, inStep(key, err)
			}
			made.Tasks = append(made.Tasks, madeOfStep{key, t.ID, t.State})
		}
	}
	if open {
		return made, nil
	}
	if r, err := cl.GetRun(ctx, run); err != nil || r.Sealed {
		return made, err
	}
	_, err = cl.SealRun(ctx, run)
	return made, err
}

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
				w, err := soundWorkflow(c, rest[0], format)
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
			return out, nil
		}
	}
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
