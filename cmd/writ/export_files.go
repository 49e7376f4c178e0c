package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/daemon"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/receipts/shred"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// fileSource reads a log in the data directory of a gateway that does not run.
type fileSource struct {
	data    string
	ledger  *ledger.Ledger
	publics map[string][]byte // receipt keys by id, PEM
	secret  [32]byte          // of evidence
	keys    *shred.Keys       // of evidence in the ledger; nil: it cannot be read, or is not wanted
	warn    io.Writer
}

// openFiles opens a data directory, to read evidence too or not. Nothing in it is changed. Whoever writes the ledger has
// it alone, so a gateway that runs is not read beside.
func openFiles(data string, evidence bool, warn io.Writer) (*fileSource, logHead, error) {
	var h logHead
	keys := filepath.Join(data, "keys")
	text, err := os.ReadFile(publicKey(data))
	if err != nil {
		return nil, h, fmt.Errorf("no gateway has served from %s: %w", shown(data), err)
	}
	s := &fileSource{data: data, warn: warn}
	if _, err = receipts.NewVerifier(text); err != nil {
		return nil, h, err
	}
	if s.publics, err = receipts.PublicKeys(keys); err != nil {
		return nil, h, err
	}
	log, err := logIn(data)
	if err != nil {
		return nil, h, err
	}
	cp, err := os.ReadFile(filepath.Join(log, tlog.CheckpointPath))
	if err != nil {
		return nil, h, fmt.Errorf("there is no transparency log: %w", err)
	}
	h.Checkpoint = string(cp)
	if h.Key, err = logKeyIn(keys, cp); err != nil {
		return nil, h, err
	}
	parsed, err := tlog.ParseCheckpoint(cp, h.Key)
	if err != nil {
		return nil, h, err
	}
	h.Size = parsed.Size
	if s.ledger, err = ledger.Read(filepath.Join(data, "ledger")); err != nil {
		return nil, h, err
	}
	if evidence {
		if err := s.openEvidence(data); err != nil {
			return nil, h, errors.Join(err, s.ledger.Close())
		}
	}
	return s, h, nil
}

// openEvidence takes the keys that evidence is sealed with, if they are there.
func (s *fileSource) openEvidence(data string) error {
	text, err := os.ReadFile(filepath.Join(data, "keys", receipts.FileEvidence))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if n, err := hex.Decode(s.secret[:], bytes.TrimSpace(text)); err != nil || n != len(s.secret) {
		return fmt.Errorf("%s is damaged: restore it from a backup, or give --no-evidence", receipts.FileEvidence)
	}
	s.keys, err = shred.Read(filepath.Join(data, "ledger", shred.Dir), s.secret, s.ledger)
	return err
}

// logIn is where the log in a data directory is that its gateway goes on with.
func logIn(data string) (string, error) {
	n, err := receipts.LogShard(filepath.Join(data, "keys"))
	return filepath.Join(data, "log", receipts.ShardDir(n)), err
}

// logKeyIn is the verifier key of the log whose checkpoint this is.
func logKeyIn(keys string, checkpoint []byte) (string, error) {
	text, path, err := receipts.ReadLogPublic(keys)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", fmt.Errorf("%s is damaged: restore it from a backup", filepath.Base(path))
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := public.(ed25519.PublicKey)
	if err != nil || !ok {
		return "", fmt.Errorf("%s is no Ed25519 key: restore it from a backup", filepath.Base(path))
	}
	name, _, _ := bytes.Cut(checkpoint, []byte("\n"))
	return note.NewEd25519VerifierKey(string(name), key)
}

func (s *fileSource) close() error {
	if s.keys == nil {
		return s.ledger.Close()
	}
	return errors.Join(s.keys.Close(), s.ledger.Close())
}

func (s *fileSource) Receipts(ctx context.Context) iter.Seq2[writ.Receipt, error] {
	return func(yield func(writ.Receipt, error) bool) {
		for after := int64(-1); ; {
			page, err := s.ledger.Range(after, ledger.MaxPage, "")
			if err = errors.Join(err, ctx.Err()); err != nil {
				yield(writ.Receipt{}, err)
				return
			}
			if len(page) == 0 {
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
				after = r.Seq
			}
		}
	}
}

func (s *fileSource) Key(_ context.Context, keyID string, _ writ.ReceiptID) (*ecdsa.PublicKey, error) {
	text, ok := s.publics[keyID]
	if !ok {
		return nil, errors.New("a receipt is signed by a key whose public half is not among the keys: restore receipt-*.pub of it from a backup, or start the gateway and export without --offline")
	}
	v, err := receipts.NewVerifier(text)
	if err != nil {
		return nil, err
	}
	return v.Public(), nil
}

func (s *fileSource) Evidence(_ context.Context, id writ.ReceiptID) ([]byte, bool, error) {
	r, ok, err := s.ledger.ByID(id)
	if err != nil || !ok || len(r.Evidence) == 0 || s.keys == nil {
		return nil, false, err
	}
	sealed, err := s.keys.Sealed(r)
	if err != nil {
		return nil, false, err
	}
	text, err := receipts.OpenEvidence(s.secret, id, sealed)
	return text, err == nil, err
}

// Policies are those this replica compiled once: it kept each beside the store, which only a gateway reads.
func (s *fileSource) Policies(ctx context.Context, digests []string, want func([]writ.PackVer) bool) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, digest := range digests {
			text, err := daemon.KeptBundle(ctx, s.data, digest)
			if writ.CodeOf(err) == writ.CodeNotFound {
				fmt.Fprintf(s.warn, "writ: policy bundle %s is left out: this replica never had it. Export from another, or without --offline\n", digest)
				continue
			}
			var c policies.Contents
			if err == nil {
				c, err = policies.OpenCanonical(text)
			}
			if err == nil && !want(c.Packs) {
				continue
			}
			if !yield(text, err) || err != nil {
				return
			}
		}
	}
}
