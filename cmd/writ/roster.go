package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/roster"
)

const rosterForm = `The registry as a file, in YAML:

  agents:
    - id: site-builder
      name: Site builder
      domain: web
      archetypes: [executor]              # the default
      implementation_status: active       # planned, the default; suspended, superseded or retired
      contract: https://example.com/contracts/site-builder
      mcp_tools:
        - {name: site.build, safety: mutating, concern: pages}
        - {name: site.drop, safety: blocked}
      write_scope: [fs:site/]
      owns: [pages]
      defers: [{concern: stack-deployment, to: spine}]
      gates: [write_scopes]

Instead of mcp_tools, or beside them, "capabilities: [site.build]" (the older form) or
"capabilities_scope: {include_keys, include_prefixes, exclude_keys}" say what it can do. exclude_keys win.`

// rosterCommands are the verbs about the whole registry at once.
func rosterCommands(group *cobra.Command) {
	group.AddCommand(rosterImportCommand(), rosterExportCommand())
}

func rosterImportCommand() *cobra.Command {
	var connect connection
	var format string
	var dry bool
	cmd := &cobra.Command{
		Use: "import FILE|-", Short: "Bring the registry to what a file says",
		Long: `Bring the registry to what a file says. Everything that is wrong with the file is said first, each with
line, column and pointer (RFC 6901), and then nothing is done. Otherwise each change is a call of its own,
judged and with a receipt of its own: first what stops agents, then registrations, then activations. What
is as the file says makes no call, so the same again changes nothing. Agents that are not in the file are
left as they are; of those that are not in the registry, the ones that are suspended, superseded or retired in
the file are left out with a warning. An agent that is active and has changed is suspended for the change: its sessions end.

It needs the role operator. Exits with 1 if something is wrong with the file or a call was refused.

` + rosterForm,
		Example: "  writ agent import agents.yaml --dry-run\n  writ agent import agents.yaml",
		Args:    oneArg,
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			want, err := readRoster(c, rest[0], format)
			if err != nil {
				return err
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			have, err := registered(c.Context(), cl)
			if err != nil {
				return err
			}
			steps, absent, same, err := plan(want, have)
			if err != nil {
				return err
			}
			for _, e := range absent {
				fmt.Fprintf(c.ErrOrStderr(), "%s: warning: %s is %s and not in the registry, where no agent begins as that: it is left out\n", shown(rest[0]), e.ID, e.State)
			}
			if !dry {
				err = carryOut(c.Context(), cl, steps)
			}
			if ferr := reportImport(c, format, steps, same); ferr != nil {
				return ferr
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	outputFlag(cmd, &format)
	connect.flags(cmd)
	return cmd
}

func rosterExportCommand() *cobra.Command {
	var connect connection
	cmd := &cobra.Command{
		Use: "export", Short: "Write the registry as a file that agent import reads",
		Long: "Write the registry as a file that agent import reads, by id, to the standard output.\n\n" + rosterForm, Example: "  writ agent export > agents.yaml",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := connect.open()
			if err != nil {
				return err
			}
			have, err := registered(c.Context(), cl)
			if err != nil {
				return err
			}
			b, err := roster.Write(have)
			if err != nil {
				return err
			}
			for _, e := range have {
				if e.Watched {
					fmt.Fprintf(c.ErrOrStderr(), "warning: the endpoints and health policy of %s are left out: no file holds them\n", e.ID)
				}
			}
			_, err = c.OutOrStdout().Write(b)
			return err
		},
	}
	connect.flags(cmd)
	return cmd
}

// readRoster reads a file, or the standard input, and says all that is wrong.
func readRoster(c *cobra.Command, name, format string) ([]roster.Entry, error) {
	b, err := readArgument(c, name, roster.MaxBytes)
	if err != nil {
		return nil, err
	}
	entries, problems := roster.Read(b)
	var wrong []writ.FieldError
	for _, p := range problems {
		kind := "warning: "
		if !p.Warning {
			kind = ""
			wrong = append(wrong, writ.FieldError{Pointer: p.Pointer, Msg: fmt.Sprintf("line %d, column %d: %s", p.Line, p.Column, p.Msg)})
		}
		if format != "json" {
			fmt.Fprintf(c.ErrOrStderr(), "%s:%d:%d: %s%s: %s\n", shown(name), p.Line, p.Column, kind, shown(p.Pointer), shown(p.Msg))
		}
	}
	if !roster.Sound(problems) {
		return nil, unsound(c, format, "the file is not sound", wrong)
	}
	return entries, nil
}

// registered is the whole registry.
func registered(ctx context.Context, cl *client.Client) (out []roster.Entry, err error) {
	type shown struct {
		roster.Entry
		State        writ.AgentState  `json:"state"`
		SupersededBy writ.AgentID     `json:"superseded_by"`
		Keys         []writ.PublicKey `json:"keys"`
		Endpoints    map[string]any   `json:"endpoints"`
		Policy       any              `json:"health_policy"`
	}
	for after := ""; ; {
		args := map[string]any{"limit": 200}
		if after != "" {
			args["after"] = after
		}
		var page struct {
			Agents []shown `json:"agents"`
			Next   string  `json:"next"`
		}
		if _, err := cl.Invoke(ctx, "agent.list", args, &page); err != nil {
			return nil, err
		}
		for _, a := range page.Agents {
			e := a.Entry
			e.State, e.SupersededBy, e.Keys = a.State, a.SupersededBy, nil
			e.Watched = len(a.Endpoints) > 0 || a.Policy != nil
			for _, k := range a.Keys {
				e.Keys = append(e.Keys, k.PEM)
			}
			out = append(out, e)
		}
		if after = page.Next; after == "" {
			return out, nil
		}
	}
}

// step is one call of an import.
type step struct {
	Agent   writ.AgentID      `json:"agent_id"`
	Call    writ.CapabilityID `json:"call"`
	Done    bool              `json:"done"`
	Receipt writ.ReceiptID    `json:"receipt,omitempty"`
	args    any
}

// plan is what makes the registry what a file says: what stops agents first, so that
// what they hold is free for others, then registrations, then activations, then ends
// that name a successor. absent are those the registry does not have and that nothing
// is done about: an agent begins as planned or active.
func plan(want, have []roster.Entry) (steps []step, absent []roster.Entry, same int, err error) {
	old := map[writ.AgentID]roster.Entry{}
	for _, e := range have {
		old[e.ID] = e
	}
	var stops, registers, starts, ends []step
	id := func(e roster.Entry) map[string]any { return map[string]any{"agent_id": e.ID} }
	var wrong []error
	for _, e := range want {
		o, known := old[e.ID]
		if known && writ.AgentMoves.Terminal(o.State) && o.State != e.State {
			wrong = append(wrong, fmt.Errorf("%s is %s for good; register another agent", e.ID, o.State))
			continue
		}
		if !known && e.State != writ.AgentPlanned && e.State != writ.AgentActive {
			absent = append(absent, e)
			continue
		}
		before := len(stops) + len(registers) + len(starts) + len(ends)
		state := o.State
		changes := !roster.Same(e, o) && !writ.AgentMoves.Terminal(e.State)
		if changes && o.Watched {
			wrong = append(wrong, fmt.Errorf("%s has endpoints or a health policy, which a file does not hold and registering it from one would drop; change it with writ agent register", e.ID))
			continue
		}
		if known && state == writ.AgentActive && (changes || e.State == writ.AgentPlanned || e.State == writ.AgentSuspended) {
			stops, state = append(stops, step{Agent: e.ID, Call: "agent.suspend", args: id(e)}), writ.AgentSuspended
		}
		if known && e.State == writ.AgentRetired && state != e.State {
			stops = append(stops, step{Agent: e.ID, Call: "agent.retire", args: id(e)})
		}
		if changes || known && e.State == writ.AgentPlanned && state == writ.AgentSuspended {
			registers = append(registers, step{Agent: e.ID, Call: "agent.register", args: e})
			state = writ.AgentPlanned
		}
		if e.State == writ.AgentActive && state != writ.AgentActive {
			starts = append(starts, step{Agent: e.ID, Call: "agent.activate", args: id(e)})
		}
		if known && e.State == writ.AgentSuperseded && state != e.State {
			ends = append(ends, step{Agent: e.ID, Call: "agent.supersede", args: map[string]any{"agent_id": e.ID, "successor": e.SupersededBy}})
		}
		if len(stops)+len(registers)+len(starts)+len(ends) == before {
			same++
		}
	}
	// Who is superseded gives up its scopes before its successor takes them.
	steps = append(append(append(stops, registers...), ends...), starts...)
	return steps, absent, same, errors.Join(wrong...)
}

// endingWait is how long an activation waits for what a suspension ends.
const endingWait = 30 * time.Second

// carryOut makes the calls, until one is refused.
func carryOut(ctx context.Context, cl *client.Client, steps []step) error {
	for i := range steps {
		s := &steps[i]
		var a client.Agent
		_, err := cl.Invoke(ctx, s.Call, s.args, &a)
		for until := time.Now().Add(endingWait); s.Call == "agent.activate" && writ.CodeOf(err) == writ.CodeUnavailable && time.Now().Before(until); {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(200 * time.Millisecond):
			}
			_, err = cl.Invoke(ctx, s.Call, s.args, &a)
		}
		if err != nil {
			return fmt.Errorf("%s of %s: %w", s.Call, s.Agent, err)
		}
		s.Done, s.Receipt = true, a.Receipt
	}
	return nil
}

func reportImport(c *cobra.Command, format string, steps []step, same int) error {
	if format == "json" {
		return printJSON(c, struct {
			Steps []step `json:"steps"`
			Same  int    `json:"unchanged"`
		}{append([]step{}, steps...), same})
	}
	for _, s := range steps {
		what := "would be made"
		if s.Done {
			what = string(s.Receipt)
		}
		fmt.Fprintf(c.OutOrStdout(), "%-18s %-18s %s\n", s.Agent, s.Call, what)
	}
	fmt.Fprintf(c.OutOrStdout(), "%d calls, %d agents as they should be\n", len(steps), same)
	return nil
}
