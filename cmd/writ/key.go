package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/receipts"
)

const keysHelp = `A log of receipts is signed with one key at a time. 'writ key rotate' changes it while
the gateways run; docs/keys.md says when, and what to do with a key that leaked.`

// passwordFlag is where the password of a private key comes from: never an argument, which
// others can see.
type passwordFlag struct{ file string }

func (p *passwordFlag) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "password-file", "", "file with the password of the private key, mode 0600; without it, WRIT_KEY_PASSWORD if that is set")
}

// get is nil without a password.
func (p *passwordFlag) get() ([]byte, error) {
	if p.file == "" {
		if pw, ok := os.LookupEnv("WRIT_KEY_PASSWORD"); ok {
			if pw == "" {
				return nil, errors.New("WRIT_KEY_PASSWORD is empty: unset it, or give a password")
			}
			return []byte(pw), nil
		}
		return nil, nil
	}
	info, err := os.Stat(p.file)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s is open to others (mode %04o): chmod 600 it", p.file, info.Mode().Perm())
	}
	b, err := os.ReadFile(p.file)
	if err != nil {
		return nil, err
	}
	if b = bytes.TrimRight(b, "\r\n"); len(b) == 0 {
		return nil, errors.New("the password file is empty")
	}
	return b, nil
}

func (p *passwordFlag) options() (receipts.KeyOptions, error) {
	pw, err := p.get()
	if pw == nil || err != nil {
		return receipts.KeyOptions{}, err
	}
	return receipts.KeyOptions{Password: func() ([]byte, error) { return pw, nil }}, nil
}

// keyPage is what key.list answers, as far as it is needed here.
type keyPage struct {
	Keys []struct {
		KeyID   string          `json:"key_id"`
		Purpose writ.KeyPurpose `json:"purpose"`
		State   writ.KeyState   `json:"state"`
		Until   *int64          `json:"until"`
		Ready   []string        `json:"ready"`
		Waiting []string        `json:"waiting"`
	} `json:"keys"`
	File json.RawMessage `json:"file"`
}

func keysOf(ctx context.Context, cl *client.Client) (p keyPage, err error) {
	_, err = cl.Invoke(ctx, "key.list", struct{}{}, &p)
	return p, err
}

func rotateKeyCommand() *cobra.Command {
	var connect connection
	var password passwordFlag
	var dir, format string
	var force bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "rotate", Short: "Change the receipt key, while the gateways run", Args: noArgs,
		Example: `  writ key rotate --data ~/.local/state/writ
  writ key rotate --keys /srv/writ/keys --timeout 5m`,
		Long: `Make a new receipt key in the directory of keys, introduce it, wait until every replica
that is alive holds it, and activate it: from the next receipt on it signs, and the one
before is retired by the same commit. No call is refused for it.

Each step leaves a state to go on from. When this command was stopped, run it again: it
takes up the key it finds, made or introduced. Replicas that do not share the directory
need the new files before they are ready; with --force the ones that are not do not count,
and answer 503 until they have them.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			if dir == "" {
				data, _ := dataDir(connect.data, os.Getenv)
				if data == "" {
					return errors.New("say where the keys are: --keys DIR, or --data DIR")
				}
				dir = filepath.Join(data, "keys")
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			say := func(format string, args ...any) {
				fmt.Fprintln(c.ErrOrStderr(), "writ: "+shown(fmt.Sprintf(format, args...)))
			}
			page, err := keysOf(c.Context(), cl)
			if err != nil {
				return err
			}
			before, next := "", ""
			for _, k := range page.Keys {
				switch {
				case k.Purpose != writ.KeyReceipt:
				case k.State == writ.KeyActive:
					before = k.KeyID
				case k.State == writ.KeyIntroduced:
					next = k.KeyID
				}
			}
			if next == "" {
				if next, err = introduceNew(c.Context(), cl, page, dir, password); err != nil {
					return err
				}
				say("%s is introduced", next)
			} else {
				say("%s was introduced already; going on with it", next)
			}
			if err := awaitHeld(c.Context(), cl, next, timeout, force); err != nil {
				return err
			}
			var raw json.RawMessage
			if _, err := cl.Invoke(c.Context(), "key.activate", map[string]any{"key_id": next, "force": force}, &raw); err != nil {
				return err
			}
			say("%s signs receipts from now on; %s is retired. Keep its public half for good. Its private half can go once 'writ key list' shows until which index it signed and 'writ log head' a larger size", next, before)
			return render(c.OutOrStdout(), format, raw)
		},
	}
	cmd.Flags().StringVar(&dir, "keys", "", "directory of keys of the replicas; without it, keys in --data")
	cmd.Flags().BoolVar(&force, "force", false, "do not wait for replicas that do not hold the key")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the replicas")
	password.flags(cmd)
	outputFlag(cmd, &format)
	connect.flags(cmd)
	return cmd
}

// introduceNew introduces a key that lies in the directory and is new to the log, or else
// one that it makes there.
func introduceNew(ctx context.Context, cl *client.Client, page keyPage, dir string, password passwordFlag) (keyID string, err error) {
	there, err := receipts.PublicKeys(dir)
	if err != nil {
		return "", err
	}
	if len(there) == 0 {
		return "", fmt.Errorf("%s holds no receipt key: name the directory of keys of the gateway with --keys", dir)
	}
	for _, k := range page.Keys {
		delete(there, k.KeyID)
	}
	var public []byte
	if ids := slices.Sorted(maps.Keys(there)); len(ids) > 0 {
		public = there[ids[0]]
	} else {
		pw, err := password.get()
		if err != nil {
			return "", err
		}
		g, err := receipts.Generate(writ.KeyReceipt, pw)
		if err != nil {
			return "", err
		}
		if err := receipts.Keep(dir, g); err != nil {
			return "", err
		}
		public = g.Public
	}
	var made struct {
		KeyID string `json:"key_id"`
	}
	_, err = cl.Invoke(ctx, "key.introduce", map[string]any{"public_key": string(public)}, &made)
	return made.KeyID, err
}

// keyPause is between two looks at who holds a key.
const keyPause = 250 * time.Millisecond

// awaitHeld asks until every replica that is alive holds a key; with force, until one does.
func awaitHeld(ctx context.Context, cl *client.Client, keyID string, timeout time.Duration, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		page, err := keysOf(ctx, cl)
		if err != nil {
			return err
		}
		var waiting []string
		for _, k := range page.Keys {
			if k.KeyID != keyID {
				continue
			}
			if k.State != writ.KeyIntroduced || len(k.Ready) > 0 && (force || len(k.Waiting) == 0) {
				return nil
			}
			waiting = k.Waiting
		}
		select {
		case <-ctx.Done():
			return writ.Refuse(writ.CodeNotReady, "key.rotate", "not every replica holds the key: "+strings.Join(waiting, ", "),
				"it stays introduced: give these replicas its file, see their logs, and run 'writ key rotate' again")
		case <-time.After(keyPause):
		}
	}
}

func manifestCommand() *cobra.Command {
	var connect connection
	var keys keyFlags
	var password passwordFlag
	var path, from, signer string
	cmd := &cobra.Command{
		Use: "manifest", Short: "Write the file of keys that receipts are verified with", Args: noArgs,
		Example: `  writ key manifest --out keys.json
  writ key manifest --from keys.json --key receipt.pub --sign root.key --out keys-root.json`,
		Long: `Write the key manifest with the receipts it follows from, for --keys of 'writ receipt
verify' and 'writ log verify'. With --sign a root signs it: a private key in a file, or a
reference name://… to a key management service. It signs nothing but what follows from
the receipts, checked from the key in --key on. With --from that needs no gateway, so a
root can be kept where there is no network.`,
		RunE: func(c *cobra.Command, _ []string) error {
			var text []byte
			if from != "" {
				b, err := os.ReadFile(from)
				if err != nil {
					return err
				}
				text = bytes.TrimSpace(b)
			} else {
				cl, err := connect.open()
				if err != nil {
					return err
				}
				page, err := keysOf(c.Context(), cl)
				if err != nil {
					return err
				}
				text = page.File
			}
			if signer != "" {
				if keys.none() && from != "" {
					return errors.New("say which key the log began with: --key FILE (receipt.pub of the gateway)")
				}
				dir, _ := dataDir(connect.data, os.Getenv)
				keys.defaults(dir)
				var err error
				if text, err = rooted(c.Context(), text, keys, signer, password); err != nil {
					return err
				}
			}
			return put(c, path, text)
		},
	}
	cmd.Flags().StringVar(&path, "out", "-", "file to write, - for standard output")
	cmd.Flags().StringVar(&from, "from", "", "file of keys to sign, instead of asking a gateway")
	cmd.Flags().StringVar(&signer, "sign", "", "root that signs it: a private key file, or name://… of a key management service")
	cmd.Flags().StringVar(&keys.key, "key", "", "receipt key the log began with, PEM; without it, keys/receipt.pub of --data")
	password.flags(cmd)
	connect.flags(cmd)
	return cmd
}

// rooted has a root sign a file of keys.
func rooted(ctx context.Context, text []byte, keys keyFlags, signer string, password passwordFlag) ([]byte, error) {
	first, err := os.ReadFile(keys.key)
	if err != nil {
		return nil, err
	}
	if _, err := receipts.ReadRing(text, receipts.Trusted{Key: first}); err != nil {
		return nil, err
	}
	var f receipts.KeysFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	var envelope struct {
		Payload string `json:"payload"`
	}
	if err := json.Unmarshal(f.Manifest, &envelope); err != nil {
		return nil, err
	}
	payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
	if err != nil {
		return nil, err
	}
	o, err := password.options()
	if err != nil {
		return nil, err
	}
	key, err := receipts.OpenSigner(ctx, signer, o)
	if err != nil {
		return nil, err
	}
	if f.Manifest, err = receipts.SignManifest(payload, key); err != nil {
		return nil, err
	}
	return json.Marshal(f)
}
