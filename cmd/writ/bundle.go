package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

func bundleCommand() *cobra.Command {
	var connect connection
	var path, form string
	cmd := &cobra.Command{
		Use: "bundle RECEIPT-ID", Short: "Write a receipt with its proof, for cosign and other tools", Args: oneArg,
		Example: `  writ receipt bundle rcp_01M89R8776WWQMDZ1SS4766DAD --out receipt.sigstore.json
  writ receipt bundle rcp_01M89R8776WWQMDZ1SS4766DAD --format tlog-proof --out receipt.tlog-proof`,
		Long: `Write a receipt as a Sigstore bundle (v0.3): its signed envelope, and the proof
that the transparency log has it. It waits a moment for the log, and says how to check
the bundle with cosign, which needs no network for it. The log's key comes from
'writ log trusted-root', the receipt key is receipt.pub of the gateway, or, where that
was changed, the key of 'writ key list' that the bundle names as its hint.

--format tlog-proof writes the proof as C2SP tlog-proof, with the signed envelope as its
extra data: 'writ receipt verify' checks it with both keys, and other tools of that form
once they know the entry (docs/log.md).`,
		RunE: func(c *cobra.Command, args []string) error {
			if form != "sigstore" && form != "tlog-proof" {
				return usageError{errors.New("--format is sigstore or tlog-proof"), c.CommandPath()}
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			var got struct {
				Bundle    json.RawMessage `json:"bundle"`
				Included  bool            `json:"included"`
				Kind      string          `json:"kind"`
				Proof     string          `json:"tlog_proof"`
				Statement struct {
					Subject []struct {
						Digest map[string]string `json:"digest"`
					} `json:"subject"`
				} `json:"statement"`
			}
			if _, err := cl.Invoke(c.Context(), "receipt.get", map[string]any{"receipt_id": args[0], "wait": "included"}, &got); err != nil {
				return err
			}
			if !got.Included {
				return writ.Refuse(writ.CodeReceiptPending, "writ.Bundle", "no checkpoint of the log covers the receipt yet", "try again in a moment; readyz says how far behind the log is. A replica that does not write the ledger has no log: ask the one that does")
			}
			key, of := "receipt.pub", receipts.TransitionType
			if got.Kind == writ.FactForeign {
				key, of = "VERIFIER.pub", writ.VerdictType
			}
			if form == "tlog-proof" && got.Kind == writ.FactForeign { // who signed it is in nothing of that form
				return writ.Refuse(writ.CodeIllegal, "writ.Bundle", "it is a verdict, signed by its verifier, and a tlog-proof is of what the gateway signed", "take it without --format, and check it with cosign")
			}
			if form == "tlog-proof" {
				if err := put(c, path, []byte(strings.TrimSuffix(got.Proof, "\n"))); err != nil || path == "-" {
					return err
				}
				fmt.Fprintf(c.ErrOrStderr(), "writ receipt verify %s --key receipt.pub --log-key log.vkey\n", shown(path))
				return nil
			}
			if err := put(c, path, got.Bundle); err != nil {
				return err
			}
			if path != "-" && len(got.Statement.Subject) > 0 {
				fmt.Fprintf(c.ErrOrStderr(), "cosign verify-blob-attestation --key %s --bundle %s --trusted-root trusted_root.json \\\n  --type %s --digest %s --digestAlg sha256\n",
					key, shown(path), of, shown(got.Statement.Subject[0].Digest["sha256"]))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "out", "-", "file to write, - for standard output")
	cmd.Flags().StringVar(&form, "format", "sigstore", "sigstore or tlog-proof")
	connect.flags(cmd)
	return cmd
}

// put writes a line to a file, or to standard output where that is "-".
func put(c *cobra.Command, path string, line []byte) error {
	line = append(slices.Clip(line), '\n')
	if path == "-" {
		_, err := c.OutOrStdout().Write(line)
		return err
	}
	return os.WriteFile(path, line, 0o644)
}

func trustedRootCommand() *cobra.Command {
	var connect connection
	var path string
	cmd := &cobra.Command{
		Use: "trusted-root", Short: "Write what tells cosign to believe the log", Args: noArgs,
		Example: `  writ log trusted-root --out trusted_root.json`,
		Long: `Write the key of the transparency log as a Sigstore trusted root, for --trusted-root
of cosign. Whoever checks receipts keeps it from when there was reason to trust it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := connect.open()
			if err != nil {
				return err
			}
			var head struct {
				Root json.RawMessage `json:"trusted_root"`
			}
			if _, err := cl.Invoke(c.Context(), "log.head", struct{}{}, &head); err != nil {
				return err
			}
			return put(c, path, head.Root)
		},
	}
	cmd.Flags().StringVar(&path, "out", "-", "file to write, - for standard output")
	connect.flags(cmd)
	return cmd
}
