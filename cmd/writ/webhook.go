package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/internal/daemon"
)

func webhookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "webhook", Short: "Set up and test what tells others of approvals", GroupID: "operate", Args: noCommand,
		Long: `Set up and test webhooks: signed requests that tell others when somebody is asked for approval,
when that is decided or lapses, and of calls that policy wants known.

  writ webhook secret hooks.secret
  writ webhook test -c writ.yaml

with, in writ.yaml,

  public_url: https://writ.example.org
  webhooks:
    - url: https://hooks.example.org/writ
      secret_file: hooks.secret
      events: [approval.requested, approval.expired]`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(webhookSecretCommand(), webhookTestCommand())
	return cmd
}

func webhookSecretCommand() *cobra.Command {
	return &cobra.Command{
		Use: "secret FILE", Short: "Make a file of mode 0600 with a new secret", Args: oneArg,
		Long: `Make a file of mode 0600 with a new secret, for secret_file and for the receiver.
Nothing that exists is replaced. To rotate a secret put the new line before the
old one in the file and restart: requests carry both signatures until the old
line is taken out.`,
		Example: "  writ webhook secret hooks.secret",
		RunE: func(c *cobra.Command, args []string) error {
			if err := daemon.MakeWebhookSecret(args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "secret     %s\nnext       give the receiver the line in it; name the file as secret_file of the webhook\n", args[0])
			return err
		},
	}
}

func webhookTestCommand() *cobra.Command {
	var set settings
	var only string
	cmd := &cobra.Command{
		Use: "test", Short: "Send a signed webhook.test from this machine", Args: noArgs,
		Long: `Send a signed webhook.test from this machine to each configured address, or to the
one given with --url, and say what came back. No gateway is asked; the configuration is
read as 'writ serve' reads it.`,
		Example: "  writ webhook test -c writ.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := set.load(c)
			if err != nil {
				return err
			}
			found, err := daemon.ProbeWebhooks(c.Context(), cfg, only)
			if err != nil {
				return err
			}
			bad := false
			for _, f := range found {
				mark := "ok  "
				if f.Err != nil {
					mark, bad = "FAIL", true
				}
				fmt.Fprintf(c.OutOrStdout(), "%s  %s\n", mark, shown(f.Detail))
				if f.Err == nil {
					continue
				}
				for _, line := range explain(f.Err) {
					fmt.Fprintf(c.OutOrStdout(), "      %s\n", shown(line))
				}
			}
			if bad {
				return exitStatus(exitError)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&only, "url", "", "send to this configured address only")
	set.flags(cmd)
	return cmd
}
