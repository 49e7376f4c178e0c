package daemon

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/keys"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// halves remembers public halves of receipt keys, by key id, in PEM: those of the
// directory of keys and those the store names.
type halves struct {
	mu sync.Mutex
	by map[string][]byte
}

func (h *halves) get(keyID string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.by[keyID]
}

func (h *halves) put(keyID string, pem []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.by == nil {
		h.by = map[string][]byte{}
	}
	h.by[keyID] = pem
}

// publicHalf is the public half of a receipt key, of any there ever was.
func (d *Daemon) publicHalf(keyID string) (pem string, ok bool) {
	if text := d.halves.get(keyID); text != nil {
		return string(text), true
	}
	if pub := d.sealer.PublicOf(keyID); pub != nil {
		if text, err := receipts.PublicPEM(pub); err == nil {
			return string(text), true
		}
	}
	files, err := receipts.PublicKeys(d.cfg.Keys)
	for id, text := range files {
		d.halves.put(id, text)
	}
	if text := d.halves.get(keyID); err == nil && text != nil {
		return string(text), true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := d.signingKeys(ctx)
	if err != nil {
		return "", false
	}
	for _, k := range list {
		d.halves.put(k.KeyID, []byte(k.PEM))
	}
	text := d.halves.get(keyID)
	return string(text), text != nil
}

// leafKey is a receipt key as the entries of the log have it.
func (d *Daemon) leafKey(keyID string) ([]byte, bool) {
	text, ok := d.publicHalf(keyID)
	if !ok {
		return nil, false
	}
	v, err := receipts.NewVerifier([]byte(text))
	if err != nil || v.KeyID() != keyID {
		return nil, false
	}
	der, err := tlog.PublicDER(v.Public())
	return der, err == nil
}

// signingKeys reads the documents of receipt keys.
func (d *Daemon) signingKeys(ctx context.Context) ([]writ.SigningKey, error) {
	all := writ.Range{Index: writ.IndexKeys, ByScore: true, Max: writ.MaxAmount, Limit: writ.MaxKeys + 1}
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{all}})
	if err != nil || len(s.Ranges[all].Members) == 0 {
		return nil, err
	}
	var rs writ.ReadSet
	for _, m := range s.Ranges[all].Members {
		rs.Docs = append(rs.Docs, writ.SigningKeyKey(m.Name))
	}
	if s, err = d.store.Read(ctx, shard, rs); err != nil {
		return nil, err
	}
	var out []writ.SigningKey
	for _, key := range rs.Docs {
		k, _, ok, err := writ.Get[writ.SigningKey](s, key)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, k)
		}
	}
	return out, nil
}

// watchKeys takes up receipt keys that are introduced while the gateway runs, and says
// which of them this replica holds.
func (d *Daemon) watchKeys() { d.watch("receipt keys were not looked at", nil, d.lookAtKeys) }

// lookAtKeys is one look.
func (d *Daemon) lookAtKeys(ctx context.Context) error {
	list, err := d.signingKeys(ctx)
	if err != nil {
		return err
	}
	looked := false
	for _, k := range list {
		if k.State != writ.KeyIntroduced && k.State != writ.KeyActive {
			continue
		}
		if !d.sealer.Holds(k.KeyID) && !looked {
			looked = true
			later, err := receipts.LaterKeys(d.cfg.Keys, keyOptions(d.cfg))
			if err != nil {
				return err
			}
			for _, key := range later {
				if id, err := d.sealer.Hold(key); err == nil && id == k.KeyID {
					d.log.Info("this replica holds a new receipt key", "key", id, "state", k.State)
				}
			}
		}
		if !d.sealer.Holds(k.KeyID) {
			continue
		}
		mine := writ.Range{Index: writ.HeldKey(k.SPKI), From: d.replica, To: d.replica + "\x00", Limit: 1}
		s, err := d.store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{mine}})
		if err != nil {
			return err
		}
		if len(s.Ranges[mine].Members) > 0 {
			continue
		}
		if _, _, err := d.door.System(ctx, shard, "key.report", keys.KeyReportArgs{SPKI: k.SPKI, Replica: d.replica}, nil); err != nil {
			return err
		}
	}
	return nil
}

// keysConfig joins the room of keys with the ones this replica has.
func (d *Daemon) keysConfig() keys.Config {
	return keys.Config{Parse: receipts.ParseReceiptKey, Public: d.publicHalf, Manifest: d.manifest}
}

// manifest makes the file of keys out of the receipts that say something of them.
func (d *Daemon) manifest(public []string, list []writ.Receipt) (m keys.Manifest, err error) {
	const op = "daemon.Manifest"
	first, err := receipts.NewVerifier([]byte(public[0]))
	if err != nil {
		return m, writ.Fault(writ.CodeInternal, op, err)
	}
	ring, err := receipts.NewRing(first)
	if err != nil {
		return m, writ.Fault(writ.CodeInternal, op, err)
	}
	for _, text := range public {
		if err := ring.Show([]byte(text)); err != nil {
			return m, writ.Fault(writ.CodeInternal, op, err)
		}
	}
	for _, r := range list {
		if err := ring.Take(r); err != nil {
			return m, writ.Fault(writ.CodeInternal, op, err)
		}
	}
	payload, err := receipts.Manifest(ring, d.sealer.Origin(), shard, d.otherKeys()...)
	if err != nil {
		return m, writ.Fault(writ.CodeInternal, op, err)
	}
	envelope, by, err := d.signManifest(payload, ring.Signing().KeyID)
	if err != nil {
		return m, writ.Fault(writ.CodeNotReady, op, err)
	}
	m.SignedBy = by
	said, err := ring.Envelopes()
	if err != nil {
		return m, writ.Fault(writ.CodeInternal, op, err)
	}
	if m.File, err = json.Marshal(receipts.KeysFile{Format: receipts.KeysFormat, Manifest: envelope, Receipts: said}); err != nil {
		return m, writ.Fault(writ.CodeInternal, op, err)
	}
	var stated struct {
		Predicate struct {
			Keys []receipts.ManifestKey `json:"keys"`
		} `json:"predicate"`
	}
	if err := json.Unmarshal(payload, &stated); err != nil {
		return m, writ.Fault(writ.CodeInternal, op, err)
	}
	for _, k := range stated.Predicate.Keys {
		m.Keys = append(m.Keys, keys.Entry{
			KeyID: k.KeyID, SPKI: k.SPKI, Purpose: writ.KeyPurpose(k.Purpose), State: writ.KeyState(k.State), From: k.From, Until: k.Until, RevokedFrom: k.RevokedFrom,
			Introduced: writ.ReceiptID(k.Introduced), Activated: writ.ReceiptID(k.Activated), Retired: writ.ReceiptID(k.Retired), Revoked: writ.ReceiptID(k.Revoked), PEM: k.PEM,
		})
	}
	return m, nil
}

// otherKeys are those of the manifest that sign no receipts: the log's, and the root.
func (d *Daemon) otherKeys() (out []receipts.Other) {
	defer func() {
		if d.root.key != nil {
			out = append(out, receipts.Other{Purpose: writ.KeyRoot, Public: d.root.key.Public()})
		}
	}()
	if d.tlog != nil {
		return append(out, receipts.Other{Purpose: writ.KeyLog, Public: d.tlog.Key().Public()})
	}
	// Another replica writes the log; all have its public half if they share their directory.
	if text, _, err := receipts.ReadLogPublic(d.cfg.Keys); err == nil {
		if pub, err := receipts.ParsePublic(string(text)); err == nil {
			out = append(out, receipts.Other{Purpose: writ.KeyLog, Public: pub})
		}
	}
	return out
}
