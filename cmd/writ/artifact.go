package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// artifactCommands adds to the verbs made from the capabilities those that move
// bytes.
func artifactCommands(group *cobra.Command) {
	group.Long = `Store and read what tasks make.

The holder of a task stores each artifact the task declares, and completes the task with them:

  writ artifact put site.zip --task-id tsk_… --lease-id lse_… --fence 9 --name bundle
  writ task complete tsk_… --lease-id lse_… --fence 9 --artifacts '[{"name":"bundle","digest":"sha256:…"}]'

Who is given it, or may read the run, names a task and the digest:

  writ artifact get sha256:… --task-id tsk_… --out site.zip`
	group.AddCommand(artifactPut(), artifactContent())
	for _, c := range group.Commands() {
		if c.Name() == "get" {
			andBytes(c)
		}
	}
}

func artifactPut() *cobra.Command {
	var connect connection
	var format, task, lease, name, label, key string
	var fence int64
	cmd := &cobra.Command{
		Use: "put FILE", Short: "Store an artifact of a task one holds",
		Long: `Store an artifact of a task one holds.

FILE: what to store, at most 64 MiB; - for standard input

The name is one the task declares in produces. The same name again replaces what was put before. It is of
the task once the task is completed with it.

Capability artifact.put (mutating).`,
		Example: "  writ artifact put site.zip --task-id tsk_01M89R8776FSMT3FKAH3617HBC --lease-id lse_01M89R87A1XW9VX2J6QY4SBD3M --fence 9 --name bundle --token-file builder.token",
		Args:    func(c *cobra.Command, rest []string) error { return usage(c, cobra.ExactArgs(1)(c, rest)) },
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			for flag, v := range map[string]string{"task-id": task, "lease-id": lease, "name": name} {
				if v == "" {
					return usageError{fmt.Errorf("--%s is required", flag), c.CommandPath()}
				}
			}
			in := c.InOrStdin()
			if rest[0] != "-" {
				f, err := os.Open(rest[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				in = f
			} else {
				in = struct{ io.Reader }{in} // a pipe cannot be read twice, whatever it says
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			held := &client.Claimed{Task: client.Task{ID: writ.TaskID(task)}, Lease: client.Lease{ID: writ.LeaseID(lease), Fence: fence}}
			a, err := cl.PutArtifact(c.Context(), held, name, writ.Label(label), in, client.WithIdempotencyKey(key))
			if err != nil {
				return err
			}
			raw, err := json.Marshal(a)
			if err != nil {
				return err
			}
			return show(c, format, raw, client.Meta{})
		},
	}
	f := cmd.Flags()
	f.StringVar(&task, "task-id", "", "the task; tsk_… (required)")
	f.StringVar(&lease, "lease-id", "", "lease the claim gave; lse_… (required)")
	f.Int64Var(&fence, "fence", 0, "fence the claim gave (required)")
	f.StringVar(&name, "name", "", "its name, as the task declares it (required)")
	f.StringVar(&label, "label", "", "kind of data it carries; default: what the task declares for it")
	f.StringVar(&key, "idempotency-key", "", "repeat a call safely under the same key; one is made up when left out")
	f.StringVarP(&format, "output", "o", "table", "table or json")
	connect.flags(cmd)
	return cmd
}

func artifactContent() *cobra.Command {
	var connect connection
	var task, out string
	cmd := &cobra.Command{
		Use: "content DIGEST", Short: "Read the bytes of an artifact",
		Long:    "Read the bytes of an artifact.\n\nDIGEST: SHA-256 of its bytes, which are checked against it\n\nCapability artifact.content (read-only).",
		Example: "  writ artifact content sha256:4ca9f4fc0a9cdcf5a4b2bb9f3d8b8b1e6f7d2c0a9e5b4c3d2e1f0a9b8c7d6e5f --task-id tsk_01M89R8776FSMT3FKAH3617HBC --out site.zip",
		Args:    func(c *cobra.Command, rest []string) error { return usage(c, cobra.ExactArgs(1)(c, rest)) },
		RunE: func(c *cobra.Command, rest []string) error {
			cl, err := connect.open()
			if err != nil {
				return err
			}
			return saveArtifact(c.Context(), c, cl, task, rest[0], out)
		},
	}
	cmd.Flags().StringVar(&task, "task-id", "", "a task that made it or is given it; tsk_… (required)")
	cmd.Flags().StringVar(&out, "out", "", "write the bytes to this new file instead of printing them")
	connect.flags(cmd)
	return cmd
}

// andBytes lets a command that shows an artifact save its bytes too.
func andBytes(cmd *cobra.Command) {
	var out string
	cmd.Flags().StringVar(&out, "out", "", "write the bytes to this new file; they are checked against the digest")
	inner := cmd.RunE
	cmd.RunE = func(c *cobra.Command, rest []string) error {
		if err := inner(c, rest); err != nil || out == "" {
			return err
		}
		if len(rest) != 1 {
			return usageError{errors.New("--out wants the digest as an argument"), c.CommandPath()}
		}
		var connect connection
		for flag, to := range map[string]*string{"url": &connect.url, "token-file": &connect.tokenFile, "data": &connect.data} {
			*to = c.Flags().Lookup(flag).Value.String()
		}
		cl, err := connect.open()
		if err != nil {
			return err
		}
		return saveArtifact(c.Context(), c, cl, c.Flags().Lookup("task-id").Value.String(), rest[0], out)
	}
}

// saveArtifact writes bytes to a new file, which is there only once they were
// found to be what their digest names; or to standard output.
func saveArtifact(ctx context.Context, c *cobra.Command, cl *client.Client, task, digest, out string) (err error) {
	if out == "" {
		_, err := cl.ReadArtifact(ctx, writ.TaskID(task), digest, c.OutOrStdout())
		return err
	}
	if _, err := os.Lstat(out); err == nil {
		return fmt.Errorf("--out: %s is there already", out)
	}
	f, err := os.CreateTemp(filepath.Dir(out), ".writ-*") // mode 0600
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = cl.ReadArtifact(ctx, writ.TaskID(task), digest, f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), out); err != nil { // never over another file
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}
