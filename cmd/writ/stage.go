package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/policies"
)

// stageCommands puts what people type in the place of the verb that takes a
// bundle in base64.
func stageCommands(group *cobra.Command) {
	group.Long += `

In a running gateway:

  writ policy stage ./policies --wait     # brought in, compiled by every replica
  writ policy activate sha256:…           # in force everywhere, in one commit
  writ policy rollback                    # what was in force before
  writ policy list                        # all of them, and who is ready`
	for _, c := range group.Commands() {
		if c.Name() == "stage" {
			group.RemoveCommand(c)
		}
	}
	group.AddCommand(stageCommand())
}

// stagePause is how often --wait asks.
const stagePause = 300 * time.Millisecond

func stageCommand() *cobra.Command {
	var connect connection
	var format, note, key string
	var wait, activate, add bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "stage DIR|FILE", Short: "Bring policies into a running gateway; nothing is put in force", Args: oneArg,
		Long: `Pack a directory (packs/<id>/…, and perhaps roles/…) or take a bundle file, and stage it:
every replica compiles it beside the rules in force and says whether it is ready. Without
roles/ the roles in force are kept.

A bundle that does not compile is refused with what the compiler said; --wait prints it.
--activate waits, then puts the bundle in force.`,
		Example: "  writ policy stage ./policies --note \"no runs on Fridays\" --wait",
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			st, err := os.Stat(rest[0])
			if err != nil {
				return usageError{err, c.CommandPath()}
			}
			pack := policies.PackFile
			if st.IsDir() {
				pack = policies.PackDirectory
			}
			packed, err := pack(rest[0])
			if err != nil {
				return err
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			body := map[string]any{"bundle": base64.StdEncoding.EncodeToString(packed)}
			if add {
				body["add"] = true
			}
			if note != "" {
				body["note"] = note
			}
			var raw json.RawMessage
			meta, err := cl.Invoke(c.Context(), "policy.stage", body, &raw, client.WithIdempotencyKey(key))
			if err != nil {
				return err
			}
			if meta.Receipt != "" {
				fmt.Fprintf(c.ErrOrStderr(), "writ: receipt: %s\n", meta.Receipt)
			}
			if wait || activate {
				if raw, err = awaitReady(c.Context(), cl, raw, timeout); err != nil {
					return err
				}
			}
			if activate {
				v, err := stagedOf(raw)
				if err != nil {
					return err
				}
				return invoke(c.Context(), c, cl, "policy.activate", map[string]any{"digest": v.Digest}, format, "")
			}
			return render(c.OutOrStdout(), format, raw)
		},
	}
	f := cmd.Flags()
	f.StringVar(&note, "note", "", "what it is for, for those who read it later")
	f.BoolVar(&add, "add", false, "keep the packs in force that the bundle does not hold; signed bundles always do")
	f.BoolVar(&wait, "wait", false, "wait until every replica is ready, or the bundle is refused")
	f.BoolVar(&activate, "activate", false, "wait, then put it in force")
	f.DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	outputFlag(cmd, &format)
	f.StringVar(&key, "idempotency-key", "", "repeat a call safely under the same key; one is made up when left out")
	connect.flags(cmd)
	return cmd
}

// stagedBundle is the part of a bundle's view that waiting looks at.
type stagedBundle struct {
	Digest  string           `json:"digest"`
	State   writ.BundleState `json:"state"`
	Reason  string           `json:"reason"`
	Replica string           `json:"replica"`
	Ready   []string         `json:"ready"`
	Waiting []string         `json:"waiting"`
}

func stagedOf(raw json.RawMessage) (v stagedBundle, err error) {
	err = json.Unmarshal(raw, &v)
	return v, err
}

// awaitReady asks until every replica that is alive is ready for a bundle. A
// bundle that is refused is an error with the reason.
func awaitReady(ctx context.Context, cl *client.Client, raw json.RawMessage, timeout time.Duration) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		v, err := stagedOf(raw)
		switch {
		case err != nil:
			return nil, err
		case v.State == writ.BundleRefused || v.State == writ.BundleWithdrawn:
			e := writ.Refuse(writ.CodePolicy, "policy.stage", "the bundle is "+string(v.State)+"; what was in force stays", "mend it and stage it again; --add keeps the packs in force that it does not hold")
			if v.Reason != "" {
				e.Err = fmt.Errorf("%s", v.Reason)
			}
			return nil, e
		case v.State != writ.BundleStaged || len(v.Ready) > 0 && len(v.Waiting) == 0:
			return raw, nil
		}
		select {
		case <-ctx.Done():
			return nil, writ.Refuse(writ.CodeNotReady, "policy.stage", "not every replica is ready: "+strings.Join(v.Waiting, ", "),
				"the bundle stays staged: see policy.list, and the logs of these replicas")
		case <-time.After(stagePause):
		}
		var page struct {
			Bundles []json.RawMessage `json:"bundles"`
		}
		if _, err := cl.Invoke(ctx, "policy.list", map[string]any{"digest": v.Digest}, &page); err != nil {
			return nil, err
		}
		if len(page.Bundles) == 1 {
			raw = page.Bundles[0]
		}
	}
}
