package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/internal/daemon"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

func receiptCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "receipt", Short: "Read, export and verify receipts", GroupID: "check", Args: noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cat := daemon.Catalog()
	cmd.AddCommand(
		verbCommand(cat.Get("receipt.list"), "list"), verbCommand(cat.Get("receipt.get"), "get"),
		verbCommand(cat.Get("receipt.evidence"), "evidence"),
		treeCommand(), exportCommand(), verifyCommand(), bundleCommand(),
	)
	return cmd
}

func exportCommand() *cobra.Command {
	var connect connection
	var path string
	var after int64
	cmd := &cobra.Command{
		Use: "export", Short: "Write all receipts to a file that verifies offline", Args: noArgs,
		Long: `Write receipts as JSON Lines: a header, one DSSE envelope a line, and last a signed
head that makes a removed end visible. Check the file with 'writ receipt verify'.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := connect.open()
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			if path != "" && path != "-" {
				f, err := os.CreateTemp(filepath.Dir(path), ".export-*")
				if err != nil {
					return err
				}
				defer func() { _ = os.Remove(f.Name()) }()
				if err := writeExport(c, cl, after, f); err != nil {
					_ = f.Close()
					return err
				}
				if err := f.Close(); err != nil {
					return err
				}
				return os.Rename(f.Name(), path)
			}
			return writeExport(c, cl, after, w)
		},
	}
	cmd.Flags().StringVar(&path, "out", "-", "file to write, - for standard output")
	cmd.Flags().Int64Var(&after, "after", -1, "only receipts after this sequence")
	connect.flags(cmd)
	return cmd
}

func writeExport(c *cobra.Command, cl *client.Client, after int64, w io.Writer) error {
	n := 0
	for piece, err := range cl.Exports(c.Context(), after) {
		if err != nil {
			return err
		}
		if _, err := piece.WriteTo(w); err != nil {
			return err
		}
		n += len(piece.Receipts)
	}
	fmt.Fprintf(c.ErrOrStderr(), "writ: %d receipts\n", n)
	return nil
}

// verdict is the report of receipt verify as JSON.
type verdict struct {
	Verdict  string         `json:"verdict"`
	Log      string         `json:"log,omitempty"`
	KeyID    string         `json:"key_id"`
	Receipts int64          `json:"receipts"`
	FirstSeq int64          `json:"first_seq"`
	LastSeq  int64          `json:"last_seq"`
	HeadAt   string         `json:"head_at,omitempty"`
	Line     int            `json:"line,omitempty"`
	Seq      *int64         `json:"seq,omitempty"`
	Receipt  writ.ReceiptID `json:"receipt,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Note     string         `json:"note,omitempty"`
}

func verifyCommand() *cobra.Command {
	var data, format, logKey string
	var keys keyFlags
	var from int64
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Verify an export, or one receipt with its proof, offline", Args: oneArg, Annotations: verifies,
		Example: `  writ receipt verify receipts.jsonl --key receipt.pub
  writ receipt verify answer.json --key receipt.pub
  writ receipt verify receipt.tlog-proof --key receipt.pub --log-key log.vkey`,
		Long: `Verify an export with nothing but the public key: strict form, signatures, a
sequence without a gap, legal transitions, and the signed head. FILE is what
'writ receipt export' wrote, or one saved answer of GET /v1/receipts/export;
- is standard input. Where the receipt key was changed, --keys has the others: what
'writ key manifest' wrote. docs/receipt-format.md has all one needs for another verifier.

FILE may also be the tlog-proof of one receipt, from 'writ receipt bundle': then its
signature, and that the log of --log-key has it.

Exit codes: 0 ok, 1 tampered (or signed by another key), 2 malformed, 3
incomplete, 4 could not verify: the export or the key cannot be read, or the
command line is wrong.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			dir, named := dataDir(data, os.Getenv)
			if keys.none() && !named {
				return errors.New("say which key to trust: --key FILE (receipt.pub of the gateway), or --data DIR")
			}
			keys.defaults(dir)
			ring, err := keys.ring()
			if bad, ok := errors.AsType[badKeys](err); ok {
				return conclude(c, format, verdict{Verdict: "tampered", Reason: bad.Error()}, int(receipts.Tampered))
			}
			if err != nil {
				return err
			}
			in := c.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				in = f
			}
			buffered := bufio.NewReaderSize(in, 4096)
			if begin, _ := buffered.Peek(len(tlog.ProofHeader) + 1); string(begin) == tlog.ProofHeader+"\n" {
				return verifyProof(c, format, buffered, logKey, ring)
			}
			if begin, _ := buffered.Peek(len(sigstoreBundle)); string(begin) == sigstoreBundle {
				return errors.New("this is a Sigstore bundle, which cosign verifies: 'writ receipt bundle' prints the line; 'writ receipt bundle --format tlog-proof' makes what is verified here")
			}
			if logKey != "" {
				return errors.New("--log-key is of a tlog-proof: an export shows nothing of the log; 'writ export' makes a pack that does")
			}
			text, err := exportText(buffered)
			if err != nil {
				return err
			}
			report, err := receipts.VerifyKeys(text, ring)
			if err != nil {
				return err
			}
			if report.Verdict == receipts.Good && report.FirstSeq != from {
				report.Verdict, report.Seq = receipts.Incomplete, report.FirstSeq
				report.Reason = fmt.Sprintf("the export begins with sequence %d and not with %d; --from says where it should", report.FirstSeq, from)
			}
			if err := printReport(c.OutOrStdout(), format, report); err != nil {
				return err
			}
			return exitWith(report.ExitCode())
		},
	}
	cmd.Flags().Int64Var(&from, "from", 0, "sequence the export must begin with")
	cmd.Flags().StringVar(&logKey, "log-key", "", "note verifier key of the log, or a file with it: of a tlog-proof")
	keys.flags(cmd)
	cmd.Flags().StringVar(&data, "data", "", "data directory of a gateway on this machine (WRIT_DATA)")
	outputFlag(cmd, &format)
	return cmd
}

// sigstoreBundle is how the other form begins that receipt bundle writes.
const sigstoreBundle = `{"mediaType":"` + tlog.BundleType

// verifyProof checks one receipt by its tlog-proof.
func verifyProof(c *cobra.Command, format string, in io.Reader, logKey string, ring *receipts.Ring) error {
	if logKey == "" {
		return errors.New("a tlog-proof is checked with the key of its log: give --log-key, verifier_key of writ log head")
	}
	key, err := readLogKey(logKey)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(in, tlog.MaxProof+1))
	if err != nil {
		return err
	}
	rec, cp, err := tlog.CheckProof(text, key, ring)
	v, code := verdict{Verdict: receipts.Good.String()}, receipts.Good
	if err != nil {
		if code = receipts.Tampered; errors.Is(err, tlog.ErrProofForm) {
			code = receipts.Malformed
		}
		return conclude(c, format, verdict{Verdict: code.String(), Reason: err.Error()}, int(code))
	}
	st := rec.Statement
	v.Log, v.KeyID, v.Receipts, v.FirstSeq, v.LastSeq, v.Receipt = st.Log, st.KeyID, 1, rec.Commit.Seq, rec.Commit.Seq, st.Receipt
	v.Note = fmt.Sprintf("a checkpoint of %d receipts covers it", cp.Size)
	return conclude(c, format, v, int(code))
}

// maxAnswer bounds a saved answer of the API, which is read whole: it holds at
// most a thousand receipts.
const maxAnswer = 256 << 20

// exportText is the text of an export. A saved answer of GET /v1/receipts/export
// becomes the lines it is made of; anything else is passed on as it is.
func exportText(r io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(r, 4096)
	begin, err := in.Peek(256)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	begin, object := bytes.CutPrefix(bytes.TrimSpace(begin), []byte("{"))
	if begin = bytes.TrimSpace(begin); !object || !bytes.HasPrefix(begin, []byte(`"head`)) {
		return in, nil
	}
	all, err := io.ReadAll(io.LimitReader(in, maxAnswer))
	if err != nil {
		return nil, err
	}
	asIs := io.MultiReader(bytes.NewReader(all), in)
	var a struct {
		Header    json.RawMessage   `json:"header"`
		Receipts  []json.RawMessage `json:"receipts"`
		Head      json.RawMessage   `json:"head"`
		NextAfter int64             `json:"next_after"`
		More      bool              `json:"more"`
	}
	d := json.NewDecoder(bytes.NewReader(all))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil || len(bytes.TrimSpace(all[d.InputOffset():])) > 0 {
		return asIs, nil
	}
	var b bytes.Buffer
	for _, line := range append(append([]json.RawMessage{a.Header}, a.Receipts...), a.Head) {
		if err := json.Compact(&b, line); err != nil {
			return asIs, nil
		}
		b.WriteByte('\n')
	}
	return &b, nil
}

func printReport(w io.Writer, format string, r receipts.Report) error {
	v := verdict{
		Verdict: r.Verdict.String(), Log: r.Log, KeyID: r.KeyID, Receipts: r.Receipts, FirstSeq: r.FirstSeq, LastSeq: r.LastSeq,
		Line: r.Line, Receipt: r.Receipt, Reason: r.Reason, Note: r.Note,
	}
	if r.HeadAt != 0 {
		v.HeadAt = writ.FormatTime(r.HeadAt)
	}
	if r.Verdict != receipts.Good {
		v.Seq = &r.Seq
	} else {
		v.Line = 0
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return render(w, format, b)
}
