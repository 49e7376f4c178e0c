package main

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

func generateKeyCommand() *cobra.Command {
	var purpose, name, dir, format string
	var password passwordFlag
	cmd := &cobra.Command{
		Use: "generate", Short: "Make a key pair", Args: noArgs,
		Example: `  writ key generate --purpose receipt --dir ~/.local/state/writ/keys
  writ key generate --purpose root --dir /media/offline --password-file root.password
  writ key generate --purpose verifier --dir ~/checker
  writ key generate --purpose witness --name witness.example.org --password-file witness.password`,
		Long: `Make a key pair: for receipts or a verifier's verdicts (ECDSA P-256), for checkpoints of
the log, a root or a witness (Ed25519). It writes <purpose>-<fingerprint>.key, mode 0600,
and .pub, replaces nothing, and says where the public half is to be registered. With a
password the private half is encrypted as cosign does it; without, it is PKCS #8 in PEM.

A receipt key in the directory of keys of the replicas is taken up by 'writ key rotate';
so is a pair that 'cosign generate-key-pair' made, as receipt-*.key and receipt-*.pub.
Keys of verifiers and witnesses are made where they are used, and never on the gateway:
what these sign is worth something because who runs it cannot.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			if (purpose == string(writ.KeyWitness)) != (name != "") {
				return usageError{errors.New("--name goes with a witness, which has one: give both or neither"), c.CommandPath()}
			}
			if err := there(dir); err != nil {
				return usageError{err, c.CommandPath()}
			}
			pw, err := password.get()
			if err != nil {
				return err
			}
			g, err := receipts.Generate(writ.KeyPurpose(purpose), pw)
			if err != nil {
				return usageError{err, c.CommandPath()}
			}
			witness, err := witnessKey(name, g.Public)
			if err != nil {
				return usageError{err, c.CommandPath()}
			}
			path := filepath.Join(dir, purpose+"-"+g.SPKI[:16])
			if err := errors.Join(receipts.Write(path+".key", g.Private, true), receipts.Write(path+".pub", g.Public, false)); err != nil {
				return err
			}
			b, err := json.Marshal(struct {
				KeyID     string `json:"key_id"`
				Purpose   string `json:"purpose"`
				SPKI      string `json:"spki"`
				Private   string `json:"private"`
				Public    string `json:"public"`
				Encrypted bool   `json:"encrypted"`
				Verifier  string `json:"verifier_key,omitempty"`
			}{g.KeyID, purpose, g.SPKI, path + ".key", path + ".pub", pw != nil, witness})
			if err != nil {
				return err
			}
			fmt.Fprintln(c.ErrOrStderr(), "writ: "+shown(registerKey(writ.KeyPurpose(purpose), path, witness)))
			return render(c.OutOrStdout(), format, b)
		},
	}
	cmd.Flags().StringVar(&purpose, "purpose", "", "what it is to sign for: receipt, log, root, verifier or witness (required)")
	cmd.Flags().StringVar(&name, "name", "", "name of the witness, like a host's: part of its key, and for good")
	cmd.Flags().StringVar(&dir, "dir", ".", "directory to write the files to")
	password.flags(cmd)
	outputFlag(cmd, &format)
	_ = cmd.MarkFlagRequired("purpose")
	return cmd
}

// witnessKey is the verifier key of a witness of that name, which must read as one; "" without a name.
func witnessKey(name string, publicPEM []byte) (string, error) {
	if name == "" {
		return "", nil
	}
	public, err := receipts.ParsePublic(string(publicPEM))
	key, ok := public.(ed25519.PublicKey)
	if err != nil || !ok {
		return "", errors.New("the key of a witness is Ed25519")
	}
	text := tlog.NewEd25519Witness(name, key).String()
	if _, err := tlog.NewWitnessKey(text); err != nil || !receipts.ValidOrigin(name) {
		return "", errors.New("--name must be like that of a host: witness.example.org")
	}
	return text, nil
}

// registerKey says who must be told of a new key.
func registerKey(purpose writ.KeyPurpose, path, witness string) string {
	switch purpose {
	case writ.KeyReceipt:
		return "put both files into the directory of keys of every replica and run 'writ key rotate': it introduces the key and makes it the signing one"
	case writ.KeyLog:
		return "a log has one key for its life: start a new gateway with log_key: " + path + ".key, or have 'writ log next --new-key --log-key " + path + ".key' begin the next log with it; 'writ log head' then has the verifier key for those who check"
	case writ.KeyRoot:
		return "give auditors " + path + ".pub, and sign each manifest with 'writ key manifest --from keys.json --key receipt.pub --sign " + path + ".key'"
	case writ.KeyVerifier:
		return "have an operator register the public half with the verifier's agent: writ agent register ID --archetypes verifier … --keys \"$(jq -Rs '[.]' " + path + ".pub)\"; " +
			"sign with 'writ verdict sign --key " + path + ".key'; give auditors the public half for --verifier-key"
	case writ.KeyWitness:
		return "whoever runs the log starts it with --witness 'URL " + witness + "'; whoever checks gives --witness " + witness
	}
	return ""
}
