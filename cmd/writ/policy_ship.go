package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/policies/author"
)

func policyDiffCommand() *cobra.Command {
	var format string
	var exit bool
	cmd := &cobra.Command{
		Use: "diff OLD NEW", Short: "Show what changes between two sources", Args: twoArgs,
		Long: `Show which packs, versions, rules, values of data.yaml and rows of roles one source adds to,
removes from or changes in another. Each is a directory, or a bundle file; bundles have no roles.
Exits with 0, or with --exit-code with 1 when there is a difference.`,
		Example: `  writ policy diff main/policies policies
  writ policy diff released.tar.gz policies -o json`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(c, format, plainFormats...); err != nil {
				return err
			}
			var trees [2]*author.Tree
			for i, name := range args {
				t, err := openEither(c, name)
				if err != nil {
					return usageError{err, c.CommandPath()}
				}
				defer func() { _ = t.Close() }()
				trees[i] = t
			}
			changes, err := author.Diff(c.Context(), trees[0], trees[1])
			if err != nil {
				return err
			}
			if err := author.ReportChanges(c.OutOrStdout(), format, changes); err != nil {
				return err
			}
			if exit && len(changes) > 0 {
				return exitStatus(exitError)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&exit, "exit-code", false, "exit with 1 when there is a difference")
	outputFlag(cmd, &format, plainFormats...)
	return cmd
}

// openEither opens a directory or a bundle file.
func openEither(c *cobra.Command, name string) (*author.Tree, error) {
	if st, err := os.Stat(name); err == nil && !st.IsDir() {
		b, err := readArgument(c, name, maxFile)
		if err != nil {
			return nil, err
		}
		return author.OpenBundle(name, b)
	}
	return author.Open(name)
}

func twoArgs(c *cobra.Command, args []string) error { return usage(c, cobra.ExactArgs(2)(c, args)) }

func policyBundleCommand() *cobra.Command {
	var out string
	var packs []string
	cmd := &cobra.Command{
		Use: "bundle [DIR]", Short: "Write packs as an OPA bundle", Args: maxOneArg,
		Long: `Write packs as an OPA bundle (tar.gz with .manifest and roots), which plain OPA loads too
(opa eval -b FILE 'data.packs'). It holds rules, data.yaml and pack.yaml; tests, fixtures, prose and
roles stay at home. The same files always give the same bytes.`,
		Example: `  writ policy bundle policies --pack protected_paths -o protected_paths.tar.gz`,
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return usageError{errors.New("-o says which file to write"), c.CommandPath()}
			}
			return withTree(c, args, author.FormatText, plainFormats, func(t *author.Tree) error {
				b, err := t.Bundle(c.Context(), packs)
				if err != nil {
					return err
				}
				return writeWhole(out, b)
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write")
	cmd.Flags().StringSliceVar(&packs, "pack", nil, "only these packs")
	return cmd
}

func policySignCommand() *cobra.Command {
	var key, id, out string
	cmd := &cobra.Command{
		Use: "sign FILE", Short: "Sign a bundle", Args: oneArg,
		Long: `Add .signatures.json to a bundle, in OPA's own format: a signature over the digest of every file,
with ES256 (EC P-256) or EdDSA (Ed25519) by the kind of key. A signature that is there is replaced.
Make a key with:  openssl genpkey -algorithm ed25519 -out team-a.pem
and its public half:  openssl pkey -in team-a.pem -pubout -out team-a.pub`,
		Example: `  writ policy sign --key team-a.pem --key-id team-a protected_paths.tar.gz`,
		RunE: func(c *cobra.Command, args []string) error {
			if key == "" {
				return usageError{errors.New("--key says which private key to sign with"), c.CommandPath()}
			}
			pem, err := os.ReadFile(key)
			if err != nil {
				return err
			}
			b, err := readArgument(c, args[0], maxFile)
			if err != nil {
				return err
			}
			signed, err := author.SignBundle(b, pem, id)
			if err != nil {
				return err
			}
			if out == "" {
				out = args[0]
			}
			return writeWhole(out, signed)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "private key, PEM")
	cmd.Flags().StringVar(&id, "key-id", "default", "name of the key, by which it is trusted")
	cmd.Flags().StringVar(&out, "out", "", "file to write (default: FILE itself)")
	return cmd
}

func policyVerifyCommand() *cobra.Command {
	var key, id, trust, format string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Verify a signed bundle", Args: oneArg,
		Long: `Verify a bundle: its form, the signature and what it is for, the digest of every file, and that its
packs load. Either against one public key, or against a trust file that says which key may ship
which packs:

  keys:
    team-a:
      public_key: team-a.pub
      packs: [protected_paths]

Exits with 1 for anything that is not signed, changed, signed with another key, or not that key's
to ship.`,
		Example: `  writ policy verify --key team-a.pub protected_paths.tar.gz
  writ policy verify --trust trust.yaml protected_paths.tar.gz`,
		RunE: func(c *cobra.Command, args []string) error {
			if (key == "") == (trust == "") {
				return usageError{errors.New("give either --key or --trust"), c.CommandPath()}
			}
			if err := checkFormat(c, format, plainFormats...); err != nil {
				return err
			}
			b, err := readArgument(c, args[0], maxFile)
			if err != nil {
				return err
			}
			got, err := verifyBundle(c, b, key, id, trust)
			if err != nil {
				return err
			}
			return author.ReportContents(c.OutOrStdout(), format, got)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "public key, PEM")
	cmd.Flags().StringVar(&id, "key-id", "", "the only key id to accept (default: the one the bundle names)")
	cmd.Flags().StringVar(&trust, "trust", "", "file that says which key may ship which packs")
	outputFlag(cmd, &format, plainFormats...)
	return cmd
}

func verifyBundle(c *cobra.Command, bundle []byte, key, id, trust string) (author.Contents, error) {
	if key != "" {
		pem, err := os.ReadFile(key)
		if err != nil {
			return author.Contents{}, err
		}
		return author.Verify(c.Context(), bundle, pem, id)
	}
	b, err := os.ReadFile(trust)
	if err != nil {
		return author.Contents{}, err
	}
	t, err := author.ReadTrust(b, os.DirFS(filepath.Dir(trust)))
	if err != nil {
		return author.Contents{}, err
	}
	return t.Verify(c.Context(), bundle)
}
