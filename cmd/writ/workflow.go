package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

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
what they do. "route_input: WORDS" in place of required_domain finds the agent by words, as agent.delegate does.
"outputs: {site: {from: build, name: site}}" names artifacts that are results of the run.
"sequence: [build, test, …]" with the name of every step lets each begin only when the
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
			w, _, problems, err := readWorkflow(c, rest[0])
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
		fmt.Fprintf(out, "%s: %s%s: %s\n", printable(file), kind, printable(p.Pointer), printable(p.Text()))
	}
}

// maxWorkflowBytes bounds what is read.
const maxWorkflowBytes = 8 << 20

// readWorkflow reads a file, YAML or JSON, or the standard input.
// It gives it as JSON too.
func readWorkflow(c *cobra.Command, name string) (w workflow.Workflow, text []byte, problems []workflow.Problem, err error) {
	b, err := readArgument(c, name, maxWorkflowBytes)
	if err != nil {
		return w, nil, nil, err
	}
	var any any
	if err := yaml.Unmarshal(b, &any); err != nil {
		return w, nil, []workflow.Problem{{Msg: strings.TrimPrefix(err.Error(), "yaml: ")}}, nil
	}
	text, err = json.Marshal(any)
	if err != nil {
		return w, nil, []workflow.Problem{{Msg: "holds something that JSON does not have, a number or a list as a name perhaps"}}, nil
	}
	w, problems = workflow.Parse(text)
	return w, text, problems, nil
}

// soundWorkflow reads a workflow and says what is wrong with it: with more than
// warnings it is an error.
func soundWorkflow(c *cobra.Command, name, format string) (workflow.Workflow, []byte, error) {
	w, text, problems, err := readWorkflow(c, name)
	if err != nil {
		return w, nil, err
	}
	if format != "json" {
		tellProblems(c.ErrOrStderr(), name, problems)
	}
	if !workflow.Errors(problems) {
		return w, text, nil
	}
	var wrong []writ.FieldError
	for _, p := range problems {
		if !p.Warning {
			wrong = append(wrong, writ.FieldError{Pointer: p.Pointer, Msg: p.Text()})
		}
	}
	return w, nil, unsound(c, format, "the workflow is not sound", wrong)
}

func workflowSubmitCommand() *cobra.Command {
	var connect connection
	var format string
	var open bool
	cmd := &cobra.Command{
		Use: "submit FILE|-", Short: "Create a run from a workflow",
		Long: `Create a run from a workflow, in one call. The gateway checks all of it and then makes every step a task
of the run, each as a call of the same session: judged, and with a receipt of its own. Nothing begins
before all are there, and then the run is sealed. If a step is denied the run fails, and its tasks are
cancelled; -o json has step, run and steps_made in the details of the refusal then.

It waits until all steps are tasks. If people must agree to a step first, or there is no room for it, it
says so and ends; the run goes on by itself when they have, or there is: writ workflow graph RUN-ID.
It needs the role orchestrator or operator.

` + workflowForm,
		Example: "  writ workflow submit site.yaml --token-file planner.token",
		Args:    oneArg,
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			w, text, err := soundWorkflow(c, rest[0], format)
			if err != nil {
				return err
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			made, err := submit(c.Context(), cl, w, text, open)
			if err != nil {
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

// submit creates a run of a workflow and waits until its steps are tasks.
func submit(ctx context.Context, cl *client.Client, w workflow.Workflow, text []byte, open bool) (made submitted, err error) {
	graph, err := workflow.Graph(text)
	if err != nil {
		return made, err
	}
	r, err := cl.CreateRun(ctx, client.RunOptions{Title: w.Title, Goal: w.Goal, ClosePolicy: w.ClosePolicy, CloseQuorum: w.CloseQuorum, Budget: w.Budget, Workflow: graph, Open: open})
	if err != nil {
		return made, inFile(err)
	}
	for pause := 50 * time.Millisecond; !unfolded(r); pause = min(2*pause, time.Second) {
		select {
		case <-ctx.Done():
			return made, ctx.Err()
		case <-time.After(pause):
		}
		if r, err = cl.GetRun(ctx, r.ID); err != nil {
			return made, err
		}
	}
	if !r.Workflow.Unfolded {
		return made, notMade(r)
	}
	states, err := nodesOfRun(ctx, cl, r.ID)
	if err != nil {
		return made, err
	}
	of := map[string]node{}
	for _, n := range states {
		of[n.Key] = n
	}
	made = submitted{Run: r.ID, Tasks: []madeOfStep{}}
	for _, level := range w.Levels() {
		for _, key := range level {
			made.Tasks = append(made.Tasks, madeOfStep{key, of[key].Task, of[key].State})
		}
	}
	return made, nil
}

// unfolded says whether there is nothing to wait for: all steps are tasks, or one
// cannot be made for now.
func unfolded(r client.Run) bool {
	w := r.Workflow
	return w == nil || w.Unfolded || writ.RunMoves.Terminal(r.State) || w.Code == writ.CodeApprovalRequired || w.Code == writ.CodeQuota
}

// notMade is why steps of a run are not its tasks.
func notMade(r client.Run) error {
	w := r.Workflow
	e := &writ.Error{
		Code: w.Code, Op: "gateway", Msg: "a step was not made a task, and the run has failed", Hint: "mend the step and submit the workflow again",
		Receipt: w.Denial,
	}
	switch {
	case !writ.RunMoves.Terminal(r.State):
		e.Msg, e.Hint = "a step waits to be made a task", "the run goes on by itself once people have agreed, or there is room: writ workflow graph "+string(r.ID)
	case w.Code == "":
		e.Code, e.Msg, e.Hint = writ.CodeIllegal, "the run has ended before its steps were tasks", "submit the workflow again"
	}
	for _, f := range w.Wrong {
		e.Fields = append(e.Fields, writ.FieldError{Pointer: "/steps/" + w.Step + f.Pointer, Msg: f.Msg})
	}
	e = e.With("run", string(r.ID)).With("steps_made", strconv.FormatInt(w.Made, 10))
	if w.Step != "" {
		e = e.With("step", w.Step)
	}
	return e
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
