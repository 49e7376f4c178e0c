package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

const secretsHelp = `Keep values the gateway puts into requests it makes for others, and shows to nobody.

A secret is for one host and stands in one header. Put again it has a new version, which is what the next
request is sent with. See docs/secrets.md.`

// maxSecret is how long the gateway takes one.
const maxSecret = 4096

// putSecretCommand stores a secret. Its value is read from standard input and nowhere else:
// others on the machine see arguments and environments of programs.
func putSecretCommand() *cobra.Command {
	var connect connection
	var format, host, header, key string
	cmd := &cobra.Command{
		Use: "put NAME < VALUE", Short: "Store a secret for one host, or a new version of it",
		Long: `Store a secret for one host, or a new version of it. Its value is shown to nobody again.

NAME: what people call it: a slug

The value is read from standard input, without the end of its line.

Capability secret.put (mutating).`,
		Example: `  writ secret put stripe --host api.stripe.com < stripe.key
  writ secret put search --host search.example.org:8443 --header "X-Api-Key: {{secret}}" < search.key`,
		Args: func(c *cobra.Command, rest []string) error { return usage(c, cobra.ExactArgs(1)(c, rest)) },
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			if host == "" {
				return usageError{errors.New("--host is required"), c.CommandPath()}
			}
			value, err := secretFrom(c.InOrStdin())
			if err != nil {
				return usageError{err, c.CommandPath()}
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			body := map[string]any{"name": rest[0], "host": host, "value": value}
			if header != "" {
				body["header"] = header
			}
			return invoke(c.Context(), c, cl, "secret.put", body, format, key)
		},
	}
	f := cmd.Flags()
	f.StringVar(&host, "host", "", "the one host it goes to: lower case, with a port unless that is 443 (required)")
	f.StringVar(&header, "header", "", "where it stands in a request, with {{secret}} in its place (default \"Authorization: Bearer {{secret}}\")")
	f.StringVar(&key, "idempotency-key", "", "repeat a call safely under the same key; one is made up when left out")
	outputFlag(cmd, &format)
	connect.flags(cmd)
	return cmd
}

// secretFrom reads one value. What is typed at a terminal would be seen.
func secretFrom(in io.Reader) (string, error) {
	if f, ok := in.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return "", errors.New("send the value to standard input: writ secret put NAME --host HOST < FILE")
		}
	}
	b, err := io.ReadAll(io.LimitReader(in, maxSecret+3))
	if err != nil {
		return "", errors.New("standard input cannot be read")
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case value == "":
		return "", errors.New("standard input holds no value")
	case len(value) > maxSecret:
		return "", fmt.Errorf("a value has at most %d characters", maxSecret)
	}
	return value, nil
}
