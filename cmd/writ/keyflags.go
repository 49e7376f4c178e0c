package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// keyFlags say which keys receipts are verified with.
type keyFlags struct{ key, keys, root string }

func (k *keyFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.key, "key", "", "receipt key to trust, the first of the log, PEM; without it, keys/receipt.pub of --data")
	cmd.Flags().StringVar(&k.keys, "keys", "", "file with the other receipt keys and their lives, from 'writ key manifest'; it is checked, not trusted")
	cmd.Flags().StringVar(&k.root, "root", "", "public key of a root that must have signed the manifest in --keys, PEM; --key is not needed then")
}

func (k *keyFlags) none() bool { return k.key == "" && k.root == "" }

// defaults takes the key of a data directory where none was named.
func (k *keyFlags) defaults(dir string) {
	if k.none() {
		k.key = publicKey(dir)
	}
}

// ring reads the keys.
func (k *keyFlags) ring() (*receipts.Ring, error) {
	read := func(path, what, give string) ([]byte, error) {
		if path == "" {
			return nil, nil
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("no %s at %s: give %s", what, path, give)
		}
		return b, err
	}
	first, err := read(k.key, "public key", "--key FILE (receipt.pub of the gateway)")
	if err != nil {
		return nil, err
	}
	root, err := read(k.root, "root", "--root FILE")
	if err != nil {
		return nil, err
	}
	if k.keys == "" {
		if k.root != "" {
			return nil, errors.New("a root vouches for keys in a manifest: give that with --keys")
		}
		v, err := receipts.NewVerifier(first)
		if err != nil {
			return nil, err
		}
		return receipts.NewRing(v)
	}
	file, err := read(k.keys, "file of keys", "--keys FILE ('writ key manifest' writes it)")
	if err != nil {
		return nil, err
	}
	ring, err := receipts.ReadRing(file, receipts.Trusted{Key: first, Root: root})
	if errors.Is(err, receipts.ErrManifest) {
		return nil, badKeys{err}
	}
	return ring, err
}

// badKeys: the file of keys was changed, or is of another log. That is a finding like any
// other of a verification.
type badKeys struct{ error }

// witnessFlags say who must have cosigned a checkpoint that is trusted.
type witnessFlags struct {
	keys []string
	need int
}

func (w *witnessFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&w.keys, "witness", nil, "verifier key of a witness that must have cosigned the checkpoint; again for each")
	cmd.Flags().IntVar(&w.need, "witnesses", 0, "how many of them must have; all when left out")
}

// read gives the keys, each once.
func (w *witnessFlags) read(cmd *cobra.Command) (out []*tlog.WitnessKey, err error) {
	for _, text := range w.keys {
		k, err := tlog.NewWitnessKey(text)
		if err != nil {
			return nil, fmt.Errorf("--witness: %w", err)
		}
		if slices.ContainsFunc(out, func(o *tlog.WitnessKey) bool { return o.String() == k.String() }) {
			return nil, errors.New("--witness names one key twice: give each once")
		}
		out = append(out, k)
	}
	if cmd.Flags().Changed("witnesses") && (w.need < 1 || w.need > len(out)) {
		return nil, errors.New("--witnesses must be 1 to the number of keys given with --witness")
	}
	return out, nil
}
