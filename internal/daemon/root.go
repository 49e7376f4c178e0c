package daemon

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/receipts"
)

// root is the key that signs manifests, if there is one here. It may be far away, slow or
// gone: nobody who asks for the manifest waits for it, and no call makes it sign more than
// once what it has signed.
type root struct {
	key    crypto.Signer // nil: there is none
	wanted chan []byte   // the manifest to sign next

	mu      sync.Mutex
	payload []byte // what it signed last
	signed  []byte
}

// rootAgain is when a root that did not sign is asked again.
const rootAgain = 10 * time.Second

func (d *Daemon) openRoot(ctx context.Context) (err error) {
	if d.cfg.RootKey == "" {
		return nil
	}
	d.root.wanted = make(chan []byte, 1)
	if d.root.key, err = receipts.OpenSigner(ctx, d.cfg.RootKey, keyOptions(d.cfg)); err != nil {
		return fmt.Errorf("root_key: %w", err)
	}
	return nil
}

// of is the envelope of a manifest the root has signed, nil of any other.
func (r *root) of(payload []byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.key == nil || !bytes.Equal(r.payload, payload) {
		return nil
	}
	return r.signed
}

// want has a manifest signed in a moment, in the place of one that was to be.
func (r *root) want(payload []byte) {
	select {
	case <-r.wanted:
	default:
	}
	select {
	case r.wanted <- payload:
	default: // somebody else wants one
	}
}

// signManifest gives a manifest with the root's signature where the root has signed it;
// until then, and where there is none, it is signed with the receipt key that signs.
func (d *Daemon) signManifest(payload []byte, keyID string) (envelope []byte, by writ.KeyPurpose, err error) {
	if d.root.key != nil {
		if envelope = d.root.of(payload); envelope != nil {
			return envelope, writ.KeyRoot, nil
		}
		d.root.want(payload)
	}
	envelope, err = d.sealer.SignManifest(payload, keyID)
	return envelope, writ.KeyReceipt, err
}

// signManifests asks the root for what is wanted.
func (d *Daemon) signManifests() {
	if d.root.key == nil {
		return
	}
	var trouble guard.Trouble
	for {
		var payload []byte
		select {
		case <-d.stopping:
			return
		case payload = <-d.root.wanted:
		}
		if d.root.of(payload) != nil {
			continue
		}
		envelope, err := receipts.SignManifest(payload, d.root.key)
		trouble.Note(d.log, err, "the root does not sign the key manifest, which goes out signed by the receipt key", "the root signs the key manifest again")
		if err == nil {
			d.root.mu.Lock()
			d.root.payload, d.root.signed = payload, envelope
			d.root.mu.Unlock()
			continue
		}
		select {
		case <-d.stopping:
			return
		case <-time.After(rootAgain):
		}
	}
}
