package main

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// logVerdict is the report of log verify as JSON.
type logVerdict struct {
	Verdict  string `json:"verdict"`
	Size     int64  `json:"receipts"`
	Foreign  int64  `json:"foreign,omitempty"` // of them, what no receipt key signed
	Root     []byte `json:"root,omitempty"`
	Reason   string `json:"reason,omitempty"`
	RootAt   []byte `json:"root_at,omitempty"`
	Duration string `json:"took"`

	Witnesses []cosigned `json:"witnesses,omitempty"`
}

// cosigned is a witness that signed the checkpoint.
type cosigned struct {
	Name string `json:"name"`
	At   string `json:"at"`
}

func verifyLogCommand() *cobra.Command {
	var logKey, data, format string
	var at int64
	var witnesses witnessFlags
	var verifiers []string
	var keys keyFlags
	cmd := &cobra.Command{
		Use: "verify [DIR]", Aliases: []string{"fsck"}, Short: "Read a whole log again, offline", Args: maxOneArg, Annotations: verifies,
		Example: `  writ log verify --data ~/.local/state/writ --log-key writ.local+8d2c3e1f+AX8…
  writ log verify ./log --log-key log.vkey --key receipt.pub -o json`,
		Long: `Verify the transparency log in a directory: that its entries give its tiles, those
the root its checkpoint states, that the log's key signed that, and that each
entry was signed by the receipt key; or by a verifier's own, which is counted as
foreign, and a receipt follows. DIR is a copy of the directory log in the data
directory of a gateway, or what a web server gives of one (C2SP tlog-tiles).

--log-key is verifier_key of 'writ log head', kept from when you had reason to
trust it, or a file with it. Where the receipt key was changed, --keys has the others:
what 'writ key manifest' wrote. Nothing here trusts what lies in the directory.

Whose key a foreign entry has the log alone does not say: with --verifier-key there may be
none by any other. Of an entry by an Ed25519 key it does not show either whether the signature
holds; 'writ close verify' looks at both.

--witness is the key of a witness, from itself: the log is then the one the witness has
seen, and was there at the time it says. Each that is given must have signed, or as many
as --witnesses says.

--at N says the root of its first N entries, too: two logs in which it is the same begin with the
same N entries, for example a frozen log and the next one ('writ log next'), N being 'common' in
previous.json of that.

Exit codes: 0 ok, 1 tampered (or signed by another key), 3 incomplete: a file, or the
signature of a witness, is missing, or a receipt key is not known without --keys, 4 could
not verify.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			dir, named := dataDir(data, os.Getenv)
			keys.defaults(dir)
			switch {
			case len(args) > 0:
				dir = args[0]
			case !named:
				return errors.New("say which log to verify: a directory, or --data DIR")
			default:
				var err error
				if dir, err = logIn(dir); err != nil {
					return err
				}
			}
			trust, err := trusted(logKey, keys)
			if bad, ok := errors.AsType[badKeys](err); ok {
				return conclude(c, format, logVerdict{Verdict: "tampered", Reason: bad.Error()}, 1)
			}
			if err != nil {
				return err
			}
			if trust.Verifiers, err = publicKeys(verifiers); err != nil {
				return err
			}
			if trust.Witnesses, err = witnesses.read(c); err != nil {
				return err
			}
			trust.Need = witnesses.need
			var foreign atomic.Int64
			trust.Foreign = func(int64) { foreign.Add(1) }
			begun, told := time.Now(), time.Now()
			cp, err := tlog.Verify(c.Context(), dir, trust, func(done, of int64) {
				if time.Since(told) > 2*time.Second {
					told = time.Now()
					fmt.Fprintf(c.ErrOrStderr(), "writ: %d of %d receipts\n", done, of)
				}
			})
			v, code := logVerdict{Verdict: "ok", Size: cp.Size, Duration: time.Since(begun).Round(time.Millisecond).String()}, 0
			switch {
			case err == nil:
				v.Root, v.Foreign = cp.Root[:], foreign.Load()
				if at != 0 {
					root, err := tlog.RootAt(dir, cp, at)
					if err != nil {
						return err
					}
					v.RootAt = root[:]
				}
				signed, err := tlog.Cosignatures(cp.Text, trust.Witnesses, trust.Need)
				if err != nil {
					return err
				}
				for _, w := range signed {
					v.Witnesses = append(v.Witnesses, cosigned{w.Name, w.At.UTC().Format(time.RFC3339)})
				}
			case errors.Is(err, tlog.ErrNotCosigned):
				v.Verdict, v.Reason, code = "incomplete", err.Error(), 3
			case errors.Is(err, fs.ErrNotExist) && cp.Size > 0:
				v.Verdict, v.Reason, code = "incomplete", "a file of the log is missing: "+err.Error(), 3
			case errors.Is(err, receipts.ErrKeyUnknown) && keys.keys == "":
				why := strings.TrimPrefix(err.Error(), tlog.ErrDamaged.Error()+": ")
				v.Verdict, v.Reason, code = "incomplete", why+", as far as one knows without --keys: if the receipt key was changed, give what 'writ key manifest' wrote", 3
			case errors.Is(err, tlog.ErrCheckpoint):
				v.Verdict, v.Reason, code = "tampered", err.Error()+otherLog(dir, trust.Log), 1
			case errors.Is(err, tlog.ErrDamaged):
				v.Verdict, v.Reason, code = "tampered", err.Error(), 1
			default:
				return err
			}
			return conclude(c, format, v, code)
		},
	}
	cmd.Flags().StringVar(&logKey, "log-key", "", "note verifier key of the log, or a file with it (required)")
	witnesses.flags(cmd)
	keys.flags(cmd)
	cmd.Flags().StringArrayVar(&verifiers, "verifier-key", nil, "key of a verifier, a PEM file; again for others: foreign entries must be by one of them")
	cmd.Flags().Int64Var(&at, "at", 0, "say the root of the first so many entries, too")
	cmd.Flags().StringVar(&data, "data", "", "data directory of a gateway on this machine (WRIT_DATA)")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	_ = cmd.MarkFlagRequired("log-key")
	return cmd
}

// otherLog says of a checkpoint that is not signed by a log's key whether it states another log: one that could not go
// on has another name, and another key, in its next shard.
func otherLog(dir, key string) string {
	text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return ""
	}
	states, _, err := tlog.Unverified(text)
	name, _, _ := strings.Cut(key, "+")
	if err != nil || !receipts.ValidOrigin(states) || states == name {
		return ""
	}
	return fmt.Sprintf("; it states the log %s, and the key given is of %s: a log that could not go on has another name, and perhaps another key, in its next shard", states, name)
}

// publicKeys reads keys of verifiers.
func publicKeys(paths []string) (out []crypto.PublicKey, err error) {
	texts, err := readAll(paths)
	for i, text := range texts {
		key, err := receipts.ParsePublic(string(text))
		if err != nil {
			return nil, fmt.Errorf("--verifier-key: %s %w", paths[i], err)
		}
		out = append(out, key)
	}
	return out, err
}

// trusted reads the keys a log is checked with.
func trusted(logKey string, keys keyFlags) (t tlog.Trust, err error) {
	if t.Log, err = readLogKey(logKey); err != nil {
		return t, err
	}
	t.Keys, err = keys.ring()
	return t, err
}
