package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/secrets/vault"
)

const keyOfSecrets = "key of secrets"

// openVault loads the key of secrets. It is made where there are no secrets yet. Where there
// are, a new one would open none of them: the gateway goes on without, and says so.
func (d *Daemon) openVault(ctx context.Context) error {
	path := filepath.Join(d.cfg.Keys, secretsKeyFile)
	_, err := os.Lstat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	some, sealed, err := d.sealedUnder(ctx)
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	var key []byte
	if missing && some {
		d.log.Error("there are secrets in the store, and this replica does not have the key they are sealed under: requests that need one are refused here",
			"file", path, "key", sealed)
	} else if key, _, err = loadKey(keyOfSecrets, path); err != nil {
		return err
	}
	if d.vault, err = vault.New(key, d.store, shard); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	if key != nil && some && d.vault.KeyID() != sealed {
		d.log.Error("the secrets in the store are sealed under another key than this replica has: requests that need one are refused here",
			"file", path, "key", sealed, "held", d.vault.KeyID())
	}
	return nil
}

// sealedUnder is the key the secrets of the store are sealed under, if there are any.
func (d *Daemon) sealedUnder(ctx context.Context) (some bool, key string, err error) {
	first := writ.Range{Index: writ.IndexSecrets, Limit: 1}
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{first}})
	if err != nil {
		return false, "", err
	}
	if len(s.Ranges[first].Members) == 0 {
		return false, "", nil
	}
	doc := writ.SecretKey(writ.SecretID(last(s.Ranges[first].Members[0].Name)))
	if s, err = d.store.Read(ctx, shard, writ.ReadSet{Docs: []writ.Key{doc}}); err != nil {
		return false, "", err
	}
	x, _, ok, err := writ.Get[writ.Secret](s, doc)
	return ok, writ.SealedUnder(x.Sealed), err
}
