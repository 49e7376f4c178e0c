package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/internal/daemon"
)

func initCommand() *cobra.Command {
	var set settings
	cmd := &cobra.Command{
		Use: "init", Short: "Make keys and a sample configuration", GroupID: "operate", Args: noArgs,
		Long: `Make the data directory with its keys, and writ.yaml in this directory: the
settings given here, and every other commented out at its default. Nothing that
exists is replaced.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := set.load(c)
			if err != nil {
				return err
			}
			made, err := daemon.Init(cfg)
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "keys       %s\npublic key %s\nkey id     %s\n", cfg.Keys, made.PublicKey, made.KeyID)
			// The URL of the store may come to hold a password.
			f, err := os.OpenFile("writ.yaml", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			switch {
			case errors.Is(err, fs.ErrExist):
				_, err := fmt.Fprintf(w, "config     writ.yaml is there already; it was left alone\nnext       writ serve -c writ.yaml%s\n", set.repeat())
				return err
			case err != nil:
				return err
			}
			text, err := daemon.Sample(cfg, set.given, os.Getenv)
			if err == nil {
				_, err = f.WriteString(text)
			}
			if cerr := f.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				_ = os.Remove("writ.yaml") // half a file
			}
			if err == nil {
				fmt.Fprintln(w, "config     writ.yaml\nnext       writ serve -c writ.yaml")
			}
			return err
		},
	}
	set.flags(cmd)
	return cmd
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Describe the configuration", GroupID: "operate", Args: noCommand, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	var file string
	check := &cobra.Command{
		Use: "check FILE", Short: "Check a configuration file", Args: oneArg,
		RunE: func(c *cobra.Command, args []string) error {
			file = args[0]
			// The file is checked, not who checks it: nothing of this environment.
			if _, err := daemon.Load(file, func(string) string { return "" }, map[string]string{"data": "anywhere"}); err != nil {
				return usageError{err, c.CommandPath()}
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "ok")
			return err
		},
	}
	schema := &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the configuration file", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e := json.NewEncoder(c.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(daemon.Schema())
		},
	}
	cmd.AddCommand(check, schema)
	return cmd
}

func openapiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "openapi", Short: "Print the OpenAPI 3.1 description", GroupID: "call", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := gateway.OpenAPIYAML(daemon.Catalog())
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(b)
			return err
		},
	}
}

// finding is one thing doctor looked at, as JSON.
type finding struct {
	What   string   `json:"what"`
	OK     bool     `json:"ok"`
	Detail string   `json:"detail,omitempty"`
	Errors []string `json:"errors,omitempty"`
}

func doctorCommand() *cobra.Command {
	var set settings
	var format string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what would keep the gateway from working", GroupID: "operate", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			cfg, err := set.load(c)
			if err != nil {
				return err
			}
			bad := 0
			found := []finding{}
			for _, f := range daemon.Examine(c.Context(), cfg) {
				if format == "json" {
					one := finding{What: f.What, OK: f.Err == nil, Detail: f.Detail}
					if f.Err != nil {
						one.Errors = explain(f.Err)
						bad++
					}
					found = append(found, one)
					continue
				}
				mark := "ok  "
				if f.Err != nil {
					mark = "FAIL"
					bad++
				}
				fmt.Fprintf(c.OutOrStdout(), "%s  %-9s %s\n", mark, f.What, shown(f.Detail))
				if f.Err != nil {
					for _, line := range explain(f.Err) {
						fmt.Fprintf(c.OutOrStdout(), "                %s\n", shown(line))
					}
				}
			}
			if format == "json" {
				if err := printJSON(c, struct {
					OK       bool      `json:"ok"`
					Findings []finding `json:"findings"`
				}{bad == 0, found}); err != nil {
					return err
				}
			}
			if bad > 0 {
				return exitStatus(exitError)
			}
			return nil
		},
	}
	outputFlag(cmd, &format)
	set.flags(cmd)
	return cmd
}

// explain is what a finding is about and what to do, line by line.
func explain(err error) []string {
	e, ok := errors.AsType[*writ.Error](err)
	if !ok {
		return linesOf(err)
	}
	var out []string
	if e.Msg != "" {
		out = append(out, e.Msg)
	}
	if e.Err != nil {
		out = append(out, linesOf(e.Err)...)
	}
	if e.Hint != "" {
		out = append(out, "hint: "+e.Hint)
	}
	return out
}

// publicKey is where the receipts of a data directory are verified with.
func publicKey(data string) string { return filepath.Join(data, "keys", "receipt.pub") }
