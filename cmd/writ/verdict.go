package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

func verdictCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verdict", Short: "Sign verdicts with the verifier's own key", GroupID: "check", Args: noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(verdictSignCommand(), verdictStatementCommand(), verdictGetCommand())
	return cmd
}

// judgement is what a verdict says, by flags.
type judgement struct {
	connect                              connection
	task, run, verdict, receiptKey, path string
	gates, reasons                       []string
	names                                bool
}

func (j *judgement) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&j.task, "task", "", "the task that is judged; tsk_…")
	f.StringVar(&j.run, "run", "", "or the run; run_…")
	f.StringVar(&j.verdict, "verdict", "", "accept or reject (required)")
	f.StringArrayVar(&j.gates, "gate", nil, "what a check gave, for example tests=pass; again for each")
	f.StringArrayVar(&j.reasons, "reason", nil, "why, in a short name; a rejection gives one; again for each")
	f.StringVar(&j.receiptKey, "receipt-key", "", "receipt.pub of the gateway: the receipt that is judged must be signed with it")
	f.BoolVar(&j.names, "names", false, "sign the names of artifacts, too: what is signed is logged for good, and read by all who may read receipts")
	f.StringVar(&j.path, "out", "-", "file to write, - for standard output")
	j.connect.flags(c)
}

// statement reads what the verdict is about and renders what is to be signed.
func (j *judgement) statement(c *cobra.Command) ([]byte, error) {
	v := writ.Verdict(j.verdict)
	wrong := func(msg string) ([]byte, error) { return nil, usageError{errors.New(msg), c.CommandPath()} }
	switch {
	case (j.task == "") == (j.run == ""):
		return wrong("say what is judged: --task or --run")
	case v != writ.VerdictAccept && v != writ.VerdictReject:
		return wrong("--verdict is accept or reject")
	case v == writ.VerdictReject && len(j.reasons) == 0:
		return wrong("a rejection gives at least one --reason")
	case j.run != "" && len(j.gates) > 0:
		return wrong("--gate goes with --task: runs have no checks of their own")
	}
	var gates []client.Gate
	for _, g := range j.gates {
		name, status, ok := strings.Cut(g, "=")
		if !ok || status != "pass" && status != "fail" {
			return wrong("--gate is NAME=pass or NAME=fail")
		}
		gates = append(gates, client.Gate{Name: name, Status: status})
	}
	var trusted *receipts.Verifier
	if j.receiptKey != "" {
		pub, err := os.ReadFile(j.receiptKey)
		if err != nil {
			return nil, err
		}
		if trusted, err = receipts.NewVerifier(pub); err != nil {
			return nil, err
		}
	}
	cl, err := j.connect.open()
	if err != nil {
		return nil, err
	}
	var about client.Judged
	if j.task != "" {
		about, err = cl.JudgedTask(c.Context(), writ.TaskID(j.task), v, gates, j.reasons)
	} else {
		about, err = cl.JudgedRun(c.Context(), writ.RunID(j.run), v, j.reasons)
	}
	if err != nil {
		return nil, err
	}
	if trusted != nil {
		if _, err := trusted.Envelope(about.Receipt.Envelope); err != nil {
			return nil, fmt.Errorf("the receipt that is judged: %w", err)
		}
	}
	about.Want.Now = time.Now().UnixMilli()
	names := about.Names
	if !j.names {
		names = map[string]string{}
	}
	for _, sum := range about.Want.Subjects { // whoever signs compares digests, and what is signed need not say of what they are
		if name := about.Names[sum]; name != "" {
			fmt.Fprintf(c.ErrOrStderr(), "writ: %s is %s\n", shown(sum), shown(name))
		}
		if strings.HasPrefix(about.Names[sum], "receipt/") { // its id
			names[sum] = about.Names[sum]
		}
	}
	return receipts.VerdictStatement(about.Want, names)
}

func verdictStatementCommand() *cobra.Command {
	var j judgement
	cmd := &cobra.Command{
		Use: "statement", Short: "Write what a verdict signs, for cosign attest-blob", Args: noArgs,
		Example: `  writ verdict statement --task tsk_01M89R8776FSMT3FKAH3617HBC --verdict accept --out statement.json --token-file checker.token`,
		Long: `Write the in-toto statement that a verdict on a task or run signs: the digests of
the receipt it is about and of every artifact, the policies in force, and what it says.
Compare the digests with what you looked at (of which artifact each is goes to standard
error), and sign it with 'cosign attest-blob --statement'. It is logged for good, with the
names of checks and reasons in it, and with --names those of artifacts.`,
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := j.statement(c)
			if err != nil {
				return err
			}
			return put(c, j.path, text)
		},
	}
	j.flags(cmd)
	return cmd
}

func verdictSignCommand() *cobra.Command {
	var j judgement
	var key string
	cmd := &cobra.Command{
		Use: "sign", Short: "Sign a verdict on a task or run", Args: noArgs,
		Example: `  writ verdict sign --task tsk_01M89R8776FSMT3FKAH3617HBC --verdict accept --gate tests=pass --key checker.key --out verdict.sigstore.json --token-file checker.token
  writ verdict sign --run run_01M89R8763R5PGQGSMXGFWBA4N --verdict reject --reason incomplete --key checker.key --out verdict.sigstore.json`,
		Long: `Read what a verdict on a task or run is about, print the statement, and sign it with
the verifier's own key, which is used here and sent nowhere. What is written is a
Sigstore bundle, for --verdict-file of 'writ task verify' and 'writ run close'; it
counts for an hour. The password of an encrypted key, as cosign makes them, is in
COSIGN_PASSWORD. What is signed is logged for good, with the names of checks and reasons in
it, and with --names those of artifacts.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if key == "" {
				return usageError{errors.New("--key is required"), c.CommandPath()}
			}
			if there(key) != nil {
				return absent{fmt.Errorf("there is no key %s to sign with: make it with cosign generate-key-pair, or openssl genpkey -algorithm ed25519 -out FILE, and chmod 600 it", key)}
			}
			signer, err := receipts.LoadVerdictKey(key, func() ([]byte, error) { return []byte(os.Getenv("COSIGN_PASSWORD")), nil })
			if err != nil {
				return err
			}
			text, err := j.statement(c)
			if err != nil {
				return err
			}
			signed, err := signer.SignVerdict(text)
			if err != nil {
				return err
			}
			out, err := tlog.Bundle(signed)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "writ: signed: %s\n", text)
			return put(c, j.path, out)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "the verifier's private key in PEM, mode 0600: one its agent has registered (required)")
	j.flags(cmd)
	return cmd
}

func verdictGetCommand() *cobra.Command {
	var connect connection
	var path, keyOut string
	cmd := &cobra.Command{
		Use: "get RECEIPT-ID", Short: "Write the signed verdict a receipt rests on", Args: oneArg,
		Example: `  writ verdict get rcp_01M89R8776WWQMDZ1SS4766DAD --out verdict.sigstore.json --key-out checker.pub`,
		Long: `Write the signed verdict that a receipt of task.verify or run.close rests on, as a
Sigstore bundle with the proof that the transparency log has it. Where the log has only the
receipt (of earlier versions), or is written by another replica, it is taken from the evidence,
without that proof; the roles operator and auditor may. It is checked first that the receipt
names this verdict and this key.`,
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := connect.open()
			if err != nil {
				return err
			}
			r, err := cl.GetReceipt(c.Context(), writ.ReceiptID(args[0]))
			if err != nil {
				return err
			}
			var says struct {
				Predicate struct {
					Parents []writ.ReceiptID `json:"parents"`
					Verdict namedVerdict     `json:"verdict"`
				} `json:"predicate"`
			}
			if err := json.Unmarshal(r.Statement, &says); err != nil {
				return err
			}
			named := says.Predicate.Verdict
			if named.Digest == "" {
				return writ.Refuse(writ.CodeNotFound, "writ.Verdict", "the receipt rests on no signed verdict", "name the receipt of a task.verify or run.close whose verdict was signed")
			}
			out, public, err := loggedVerdict(c.Context(), cl, named, says.Predicate.Parents)
			if err == nil && out == nil {
				out, public, err = keptVerdict(c.Context(), cl, named, r.ID)
			}
			if err != nil {
				return err
			}
			if keyOut != "" {
				if err := os.WriteFile(keyOut, public, 0o644); err != nil {
					return err
				}
			}
			return put(c, path, out)
		},
	}
	cmd.Flags().StringVar(&path, "out", "-", "file to write, - for standard output")
	cmd.Flags().StringVar(&keyOut, "key-out", "", "file to write the public key to, as the agent had registered it")
	connect.flags(cmd)
	return cmd
}

// namedVerdict is how a receipt names the signed verdict it rests on.
type namedVerdict struct {
	Digest string `json:"digest"`
	KeyID  string `json:"keyId"`
}

var errOtherVerdict = writ.Refuse(writ.CodeInternal, "writ.Verdict", "the gateway has another verdict, or of another key, than the receipt names", "keep both, and tell who runs the gateway")

// loggedVerdict is a verdict out of the log, and the key in its entry; nil where it is not there.
func loggedVerdict(ctx context.Context, cl *client.Client, named namedVerdict, parents []writ.ReceiptID) (bundle, public []byte, err error) {
	id := writ.VerdictID(named.Digest)
	if !slices.Contains(parents, id) {
		return nil, nil, nil
	}
	var got struct {
		Bundle   json.RawMessage `json:"bundle"`
		Included bool            `json:"included"`
	}
	if _, err := cl.Invoke(ctx, "receipt.get", map[string]any{"receipt_id": id, "wait": "included"}, &got); writ.CodeOf(err) == writ.CodeNotFound || err == nil && !got.Included {
		return nil, nil, nil // another replica has it
	} else if err != nil {
		return nil, nil, err
	}
	var b struct {
		Material struct {
			Entries []struct {
				Body []byte `json:"canonicalizedBody"`
			} `json:"tlogEntries"`
		} `json:"verificationMaterial"`
		Envelope struct {
			Payload    []byte `json:"payload"`
			Signatures []struct {
				Sig   []byte `json:"sig"`
				KeyID string `json:"keyid"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(got.Bundle, &b); err != nil || len(b.Material.Entries) != 1 || len(b.Envelope.Signatures) != 1 {
		return nil, nil, errOtherVerdict
	}
	r := writ.Receipt{Payload: b.Envelope.Payload, Sig: b.Envelope.Signatures[0].Sig, KeyID: b.Envelope.Signatures[0].KeyID}
	if r.Public, err = tlog.LeafPublic(b.Material.Entries[0].Body); err != nil {
		return nil, nil, errOtherVerdict
	}
	if f, err := receipts.OpenForeign(r); err != nil || f.Digest != named.Digest || f.KeyID != named.KeyID || !bytes.Equal(tlog.Leaf(r, nil), b.Material.Entries[0].Body) {
		return nil, nil, errOtherVerdict
	}
	return got.Bundle, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: r.Public}), nil
}

// keptVerdict is a verdict out of the evidence of the receipt that rests on it, and the key as
// the agent had registered it.
func keptVerdict(ctx context.Context, cl *client.Client, named namedVerdict, id writ.ReceiptID) (bundle, public []byte, err error) {
	var got struct {
		Evidence struct {
			Object struct {
				Verdict struct {
					Envelope json.RawMessage `json:"envelope"`
					Key      writ.PublicKey  `json:"key"`
				} `json:"verdict"`
			} `json:"object"`
		} `json:"evidence"`
	}
	if _, err := cl.Invoke(ctx, "receipt.evidence", map[string]any{"receipt_id": id}, &got); err != nil {
		return nil, nil, err
	}
	kept := got.Evidence.Object.Verdict
	signed, err := receipts.OpenVerdict(kept.Envelope, kept.Key)
	if err != nil {
		return nil, nil, err
	}
	if sum, err := (receipts.Verdicts{}).Digest(string(kept.Envelope)); err != nil || sum != named.Digest || signed.KeyID != named.KeyID {
		return nil, nil, errOtherVerdict
	}
	out, err := tlog.Bundle(signed)
	if err != nil {
		return nil, nil, err
	}
	return out, []byte(kept.Key.PEM), nil
}

// verdictFile lets a command that gives a verdict read its signature from a file.
func verdictFile(cmd *cobra.Command) {
	var path string
	cmd.Flags().StringVar(&path, "verdict-file", "", "file with the signed verdict: what writ verdict sign or cosign attest-blob wrote")
	inner := cmd.RunE
	cmd.RunE = func(c *cobra.Command, rest []string) error {
		if path != "" {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			text, err := io.ReadAll(io.LimitReader(f, writ.MaxVerdictBytes+1))
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
			if err := c.Flags().Set("verdict-dsse", string(text)); err != nil {
				return err
			}
		}
		return inner(c, rest)
	}
}
