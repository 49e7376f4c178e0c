package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// approvalCommands adds to the verbs made from the capabilities what people
// type: approve, modify, deny, and watch.
func approvalCommands(group *cobra.Command) {
	group.Long = `See and decide what people must agree to.

A call that policy allows only with approval answers 202 and has not happened. Somebody with the
role approver, who does not stand behind the call, decides:

  writ approval list --state pending
  writ approval get apr_…
  writ approval approve apr_… --reason "looked at the target" --token-file alice.token
  writ approval modify apr_… --args '{"title":"a smaller run"}' --reason "not so much at once"
  writ approval deny apr_…

Then the caller makes the same call again, with the same Idempotency-Key, and it happens once. After
modify the same call is refused and names the successor: the caller reads its args and makes that
call, once, with another Idempotency-Key.`
	group.AddCommand(decision("approve", "Agree to a call"), decision("modify", "Agree to a call with other arguments"),
		decision("deny", "Refuse a call; one denial is enough"), watchApprovals())
}

func decision(word, short string) *cobra.Command {
	var connect connection
	var format, reason, scope, args string
	var uses int64
	flags, long := "", ""
	if word == "modify" {
		flags = ` --args '{"title":"a smaller run"}'`
		long = short + `.

The arguments are all of the call's, not only those that change: take args of writ approval get, without
task if it is there, and change them. run_id, parent_run_id, task_id and capability stay as they are; lease_id, fence and
wait_s are left out. What is left out else gets its default. The approval is superseded by one of the new
call, which counts your vote; others who must agree are asked about that one. It goes with approvals of
scope call whose arguments people are shown completely.`
	}
	cmd := &cobra.Command{
		Use: word + " APPROVAL-ID", Short: short, Long: long,
		Example: "  writ approval " + word + " apr_01M85DS6ADY7YHVBWVGXH347C2" + flags + " --reason \"checked\" --token-file alice.token",
		Args:    func(c *cobra.Command, rest []string) error { return usage(c, cobra.ExactArgs(1)(c, rest)) },
		RunE: func(c *cobra.Command, rest []string) error {
			body := map[string]any{"approval_id": rest[0], "decision": word}
			if word == "modify" && args == "" {
				return usageError{errors.New("--args is required: the arguments you agree to"), c.CommandPath()}
			}
			if word == "modify" {
				v, err := parseJSON(args, exampleOf(reflect.TypeFor[writ.RawObject]()))
				if err != nil {
					return usageError{fmt.Errorf("--args: %w", err), c.CommandPath()}
				}
				body["args"] = v
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			if reason != "" {
				body["reason"] = reason
			}
			if scope != "" {
				body["remember"] = map[string]any{"scope": scope, "max_uses": uses}
			}
			return invoke(c.Context(), c, cl, "approval.decide", body, format, "")
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who read it later")
	if word == "modify" {
		cmd.Flags().StringVar(&args, "args", "", "the arguments you agree to: JSON, or @FILE")
	}
	if word == "approve" {
		cmd.Flags().StringVar(&scope, "remember", "", "let it hold for the rest of the run or session, if policy allows that")
		cmd.Flags().Int64Var(&uses, "max-uses", 1, "with --remember: how often it may be used")
	}
	outputFlag(cmd, &format)
	connect.flags(cmd)
	return cmd
}

// watchPause is how often watch asks.
const watchPause = 2 * time.Second

func watchApprovals() *cobra.Command {
	var connect connection
	cmd := &cobra.Command{
		Use: "watch", Short: "Print requests for approval as they come, one JSON object a line, until interrupted",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := connect.open()
			if err != nil {
				return err
			}
			ctx := c.Context()
			after := ""
			for {
				if after, err = printPending(ctx, c, cl, after); err != nil {
					if ctx.Err() != nil {
						return nil
					}
					return err
				}
				select {
				case <-time.After(watchPause):
				case <-ctx.Done():
					return nil
				}
			}
		},
	}
	connect.flags(cmd)
	return cmd
}

// printPending prints the pending approvals after one and says which was last.
func printPending(ctx context.Context, c *cobra.Command, cl *client.Client, after string) (string, error) {
	for {
		args := map[string]any{"state": writ.ApprovalPending}
		if after != "" {
			args["after"] = after
		}
		var page struct {
			Approvals []json.RawMessage `json:"approvals"`
			Next      string            `json:"next"`
		}
		if _, err := cl.Invoke(ctx, "approval.list", args, &page); err != nil {
			return after, err
		}
		for _, raw := range page.Approvals {
			var a struct {
				ID string `json:"approval_id"`
			}
			if err := json.Unmarshal(raw, &a); err != nil {
				return after, err
			}
			after = a.ID
			fmt.Fprintln(c.OutOrStdout(), string(escaped(bytes.TrimSpace(raw))))
		}
		if page.Next == "" {
			return after, nil
		}
		after = page.Next
	}
}
