package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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
				fmt.Fprintf(c.OutOrStdout(), "%s: %d steps, nothing wrong\n", shown(rest[0]), len(w.Steps))
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
		fmt.Fprintf(out, "%s: %s%s: %s\n", shown(file), kind, shown(p.Pointer), shown(p.Text()))
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
	var format, key string
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
			made, err := submit(c.Context(), cl, w, text, open, key)
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
	cmd.Flags().StringVar(&key, "idempotency-key", "", "submit a workflow safely again under the same key; one is made up when left out")
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
func submit(ctx context.Context, cl *client.Client, w workflow.Workflow, text []byte, open bool, key string) (made submitted, err error) {
	graph, err := workflow.Graph(text)
	if err != nil {
		return made, err
	}
	r, err := cl.CreateRun(ctx, client.RunOptions{Title: w.Title, Goal: w.Goal, ClosePolicy: w.ClosePolicy, CloseQuorum: w.CloseQuorum, Budget: w.Budget, Workflow: graph, Open: open}, client.WithIdempotencyKey(key))
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
