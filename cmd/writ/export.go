package main

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/pack"
	"github.com/writ-gateway/writ/receipts/tlog"
)

func packExportCommand() *cobra.Command {
	var connect connection
	var out, run, checkpoint, since string
	var first, last int64
	var bare, offline bool
	cmd := &cobra.Command{
		Use: "export", Short: "Write an evidence pack that others verify offline", GroupID: "check", Args: noArgs,
		Example: `  writ export --out pack.tar
  writ export --run run_01M89R8763R5PGQGSMXGFWBA4N --out pack
  writ export --since kept.checkpoint --out pack.tar`,
		Long: `Write an evidence pack: receipts, each as a Sigstore bundle with the proof that one checkpoint
covers it, that checkpoint, the evidence of each receipt as far as you may read it (it may hold
personal data: --no-evidence leaves it out), which receipt key signs from where in the log and until
where, the policy bundles with the packs that receipts name, and a README with the exact commands. Without --run or --first all receipts are in it. The pack of a run has, beside
the receipts of that run, how every session and agent came to be that acted in it, and how the tasks of other runs were made that were revived in it.

--out is a new directory, or a file that ends with .tar; with evidence, only you may read it. The log is read from its beginning whatever
the pack is to hold, and kept in a temporary directory meanwhile (about 2 KB a receipt): so it is
proved on the way that it gives the root its checkpoint states. Two exports at one checkpoint are the
same bytes; --checkpoint FILE makes one at an earlier checkpoint.

--offline reads the data directory of a gateway that does not run. Where several replicas shared a store, the
policy bundles are there that this one had.

--since FILE is a checkpoint kept from before: the pack then proves that the log still begins with it.

Whoever gets the pack checks it with 'writ pack verify', 'writ run verify' and 'writ close verify',
with verify/js or verify.html of the sources, or receipt by receipt with cosign.`,
		RunE: func(c *cobra.Command, _ []string) error {
			o := pack.Options{Scope: pack.Scope{Kind: pack.ScopeLog}, Evidence: !bare}
			var err error
			for _, f := range []struct {
				path string
				text *[]byte
			}{{checkpoint, &o.Checkpoint}, {since, &o.Earlier}} {
				if f.path == "" {
					continue
				}
				if *f.text, err = readCheckpoint(f.path); err != nil {
					return usageError{err, c.CommandPath()}
				}
			}
			if otherArchive.MatchString(out) {
				return usageError{errors.New("--out is a new directory, or a file that ends with .tar: nothing is compressed"), c.CommandPath()}
			}
			src, head, done, err := openSource(c, connect, offline, &o)
			if e, ok := errors.AsType[*writ.Error](err); ok && e.Code == writ.CodeNotReady && !offline {
				stopped := *e
				stopped.Hint += "; of one that is stopped --offline reads the files"
				return &stopped
			}
			if err != nil {
				return err
			}
			defer done()
			if o.LogKey = head.Key; o.Checkpoint == nil {
				o.Checkpoint = []byte(head.Checkpoint)
			}
			switch {
			case run != "" && (c.Flags().Changed("first") || c.Flags().Changed("last")):
				return usageError{errors.New("--run and --first or --last are two kinds of pack"), c.CommandPath()}
			case run != "" && !writ.RunID(run).Valid():
				return usageError{errors.New("--run must be the id of a run, run_…"), c.CommandPath()}
			case run != "":
				o.Scope = pack.Scope{Kind: pack.ScopeRun, Run: writ.RunID(run)}
			case c.Flags().Changed("first") || c.Flags().Changed("last"):
				if !c.Flags().Changed("last") {
					last = head.Size - 1
				}
				o.Scope = pack.Scope{Kind: pack.ScopeRange, First: first, Last: last}
			}
			told := time.Now()
			o.Progress = func(done, of int64, what string) {
				if time.Since(told) > 2*time.Second {
					told = time.Now()
					fmt.Fprintf(c.ErrOrStderr(), "writ: %d of %d receipts %s\n", done, of, what)
				}
			}
			leftovers(c.ErrOrStderr(), out)
			err = writePack(c.Context(), out, src, o)
			if errors.Is(err, pack.ErrNoRun) {
				return writ.Refuse(writ.CodeNotFound, "export", pack.ErrNoRun.Error(), "check the id; what was done a moment ago is in the log about a second later")
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "writ: %s; check it with: writ pack verify %s --log-key %s --key receipt.pub\n", shown(out), shown(out), shown(o.LogKey))
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "new directory, or a file that ends with .tar (required)")
	cmd.Flags().StringVar(&run, "run", "", "only this run, and what it rests on")
	cmd.Flags().Int64Var(&first, "first", 0, "only receipts from this sequence on")
	cmd.Flags().Int64Var(&last, "last", 0, "only receipts up to this sequence; the last one there is when left out")
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "checkpoint to prove receipts by, a file; the latest when left out")
	cmd.Flags().StringVar(&since, "since", "", "earlier checkpoint, a file, to be consistent with")
	cmd.Flags().BoolVar(&offline, "offline", false, "read the files in --data, whose gateway does not run")
	cmd.Flags().BoolVar(&bare, "no-evidence", false, "leave evidence out")
	connect.flags(cmd)
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// openSource opens the gateway, or with offline the files of one, and says whether evidence
// can be read.
func openSource(c *cobra.Command, connect connection, offline bool, o *pack.Options) (pack.Source, logHead, func(), error) {
	if offline {
		data, _ := dataDir(connect.data, os.Getenv)
		s, head, err := openFiles(data, o.Evidence, c.ErrOrStderr())
		if err != nil {
			return nil, head, nil, err
		}
		if o.Evidence && s.keys == nil {
			fmt.Fprintln(c.ErrOrStderr(), "writ: evidence is left out: its key is not there")
		}
		o.Evidence = s.keys != nil
		return s, head, func() { _ = s.close() }, nil
	}
	cl, err := connect.open()
	if err != nil {
		return nil, logHead{}, nil, err
	}
	s := &gatewaySource{cl: cl, warn: c.ErrOrStderr()}
	head, err := s.head(c.Context())
	if err == nil && o.Evidence {
		o.Evidence, err = s.mayReadEvidence(c.Context())
	}
	return s, head, func() {}, err
}

// otherArchive are names that one would not give a directory.
var otherArchive = regexp.MustCompile(`(?i)\.(zip|t?gz|tar\..*)$`)

// leftover is what is beside a pack while it is made, and behind it where the export was killed.
const leftover = ".writ-pack-*"

// leftovers names what exports that were killed may have left: evidence in clear. One that
// still runs has the same, so nothing is removed.
func leftovers(w io.Writer, out string) {
	for _, pattern := range []string{filepath.Join(filepath.Dir(out), leftover), filepath.Join(os.TempDir(), pack.Spool)} {
		found, _ := filepath.Glob(pattern)
		for _, path := range found {
			fmt.Fprintf(w, "writ: %s is of another export and may hold evidence: remove it unless that one still runs\n", shown(path))
		}
	}
}

// writePack makes a pack beside its place, and puts it there when it is whole.
func writePack(ctx context.Context, out string, src pack.Source, o pack.Options) error {
	if _, err := os.Lstat(out); err == nil {
		return fmt.Errorf("there is something at %s already: name another place", shown(out))
	}
	dir, err := os.MkdirTemp(filepath.Dir(out), leftover)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	made := filepath.Join(dir, "pack")
	if !strings.HasSuffix(out, ".tar") {
		sink, err := pack.Directory(made, o.Evidence)
		if err != nil {
			return err
		}
		if err := pack.Write(ctx, sink, src, o); err != nil {
			return err
		}
		return os.Rename(made, out)
	}
	mode := os.FileMode(0o644)
	if o.Evidence {
		mode = 0o600
	}
	f, err := os.OpenFile(made, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if err := errors.Join(pack.Write(ctx, pack.Tar(f), src, o), f.Close()); err != nil {
		return err
	}
	return os.Rename(made, out)
}

// gatewaySource reads a log through the API.
type gatewaySource struct {
	cl   *client.Client
	warn io.Writer
}

type logHead struct {
	Size       int64  `json:"size"`
	Checkpoint string `json:"checkpoint"`
	Key        string `json:"verifier_key"`
}

func (g *gatewaySource) head(ctx context.Context) (h logHead, err error) {
	if _, err := g.cl.Invoke(ctx, "log.head", struct{}{}, &h); err != nil {
		return h, err
	}
	if h.Size == 0 {
		return h, writ.Refuse(writ.CodeReceiptPending, "writ.Export", "the log has no checkpoint yet", "try again in a moment")
	}
	return h, nil
}

func (g *gatewaySource) Receipts(ctx context.Context) iter.Seq2[writ.Receipt, error] {
	return func(yield func(writ.Receipt, error) bool) {
		seq := int64(0)
		for piece, err := range g.cl.Exports(ctx, -1) {
			if err != nil {
				yield(writ.Receipt{}, err)
				return
			}
			for _, text := range piece.Receipts {
				r, _, err := receipts.OpenLine(text)
				if r.Kind() == writ.FactForeign {
					r.Seq = seq // it states none
				}
				seq++
				if !yield(r, err) || err != nil {
					return
				}
			}
		}
	}
}

// Key is out of the entry the log has of the receipt: if it is another one, the root
// that follows is not the one the checkpoint states.
func (g *gatewaySource) Key(ctx context.Context, _ string, signed writ.ReceiptID) (*ecdsa.PublicKey, error) {
	var got struct {
		Bundle struct {
			Material struct {
				Entries []struct {
					Body []byte `json:"canonicalizedBody"`
				} `json:"tlogEntries"`
			} `json:"verificationMaterial"`
		} `json:"bundle"`
	}
	if _, err := g.cl.Invoke(ctx, "receipt.get", map[string]any{"receipt_id": signed, "wait": "included"}, &got); err != nil {
		return nil, err
	}
	if len(got.Bundle.Material.Entries) != 1 {
		return nil, writ.Refuse(writ.CodeReceiptPending, "writ.Export", "no checkpoint of the log covers the receipt yet", "try again in a moment")
	}
	return tlog.LeafKey(got.Bundle.Material.Entries[0].Body)
}

// mayReadEvidence says whether the caller may read evidence at all.
func (g *gatewaySource) mayReadEvidence(ctx context.Context) (bool, error) {
	for r, err := range g.Receipts(ctx) {
		if err != nil {
			return false, err
		}
		_, _, err = g.Evidence(ctx, r.ID)
		if exitOf(err) == exitDenied {
			fmt.Fprintln(g.warn, "writ: evidence is left out: your role may not read it")
			return false, nil
		}
		return err == nil, err
	}
	return false, nil
}

func (g *gatewaySource) Evidence(ctx context.Context, id writ.ReceiptID) ([]byte, bool, error) {
	var got struct {
		Text string `json:"text"`
	}
	_, err := g.cl.Invoke(ctx, "receipt.evidence", map[string]any{"receipt_id": id}, &got)
	switch writ.CodeOf(err) {
	case writ.CodeNotFound, writ.CodeShredded:
		return nil, false, nil
	}
	return []byte(got.Text), err == nil, err
}

func (g *gatewaySource) Policies(ctx context.Context, digests []string, want func([]writ.PackVer) bool) iter.Seq2[[]byte, error] {
	type view struct {
		Packs   []writ.PackVer `json:"packs"`
		Content []byte         `json:"content"`
	}
	one := func(digest string, content bool) (v view, err error) {
		var page struct {
			Bundles []view `json:"bundles"`
		}
		if _, err = g.cl.Invoke(ctx, "policy.list", map[string]any{"digest": digest, "content": content}, &page); err == nil && len(page.Bundles) == 1 {
			v = page.Bundles[0]
		}
		return v, err
	}
	return func(yield func([]byte, error) bool) {
		for _, digest := range digests {
			b, err := one(digest, false)
			if exitOf(err) == exitDenied {
				fmt.Fprintln(g.warn, "writ: policy bundles are left out: your role may not read them")
				return
			}
			if err == nil {
				if !want(b.Packs) {
					continue
				}
				b, err = one(digest, true)
			}
			var text []byte
			if err == nil {
				if b.Content == nil { // of a version that did not keep them
					fmt.Fprintf(g.warn, "writ: the gateway has policy bundle %s no more\n", shown(digest))
					continue
				}
				text, err = policies.Unpack(b.Content, digest)
			}
			if !yield(text, err) || err != nil {
				return
			}
		}
	}
}
