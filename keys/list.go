package keys

import (
	"cmp"
	"slices"

	"github.com/writ-gateway/writ"
)

// KeyListArgs are none.
type KeyListArgs struct{}

// Entry is a key with its life by index of the log.
type Entry struct {
	KeyID       string          `json:"key_id" doc:"Fingerprint, as receipts name it."`
	SPKI        string          `json:"spki" doc:"SHA-256 of the public key (DER, PKIX), hex."`
	Purpose     writ.KeyPurpose `json:"purpose" doc:"What it signs: receipts, checkpoints of the log, or key manifests." enum:"receipt,log,root"`
	State       writ.KeyState   `json:"state" doc:"Where it stands." enum:"introduced,active,retired,revoked"`
	From        *int64          `json:"from,omitempty" doc:"First index of the log it may sign."`
	Until       *int64          `json:"until,omitempty" doc:"Last index of the log it may sign; absent while it signs."`
	RevokedFrom *int64          `json:"revoked_from,omitempty" doc:"From this index on nothing it signed is to be believed; what was logged before stays valid."`
	Introduced  writ.ReceiptID  `json:"introduced,omitempty" doc:"Receipt that introduced it; none of the key the log began with."`
	Activated   writ.ReceiptID  `json:"activated,omitempty" doc:"Receipt that made it the signing one."`
	Retired     writ.ReceiptID  `json:"retired,omitempty" doc:"Receipt that retired it."`
	Revoked     writ.ReceiptID  `json:"revoked,omitempty" doc:"Receipt that revoked it."`
	PEM         string          `json:"public_key" doc:"Public key in PEM."`
	Ready       []string        `json:"ready,omitempty" doc:"Replicas that are alive and hold the private half, while it is introduced or active."`
	Waiting     []string        `json:"waiting,omitempty" doc:"Replicas that are alive and do not."`
}

// Manifest is a file of keys, taken apart.
type Manifest struct {
	Keys     []Entry         `json:"keys" doc:"Keys, receipt keys first, in the order they were introduced."`
	SignedBy writ.KeyPurpose `json:"signed_by" doc:"root: a root vouches for the keys. receipt: there is no root here, or it has not signed this yet, and the key that signs receipts says itself which ones there were." enum:"root,receipt"`
	File     writ.RawObject  `json:"file" doc:"What receipts are verified with (writ-keys/v1): the key manifest, an in-toto statement in a DSSE envelope, and the receipts it follows from."`
}

// list shows all keys with their lives, and the manifest, which is made of the receipts
// themselves and never of what the documents say.
func (r Room) list() *writ.Capability {
	const op = "keys.List"
	return writ.Define[KeyListArgs, Manifest](writ.Capability{
		ID: "key.list", Safety: writ.SafetyReadOnly, Summary: "List the keys with the indexes of the log each may sign, and the key manifest.",
		Example: `{}`,
	}, writ.Verb[KeyListArgs]{
		Reads: func(_ *writ.Call, _ *KeyListArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := reads(s)
			list, err := keysHere(s)
			if err != nil {
				return rs, err
			}
			for _, id := range said(list) {
				rs.Archive = append(rs.Archive, writ.ArchiveRead{Receipt: id, Limit: 1})
			}
			return rs, nil
		},
		Plan: func(_ *writ.Call, _ *KeyListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			if r.cfg.Manifest == nil {
				return tx, reply, writ.Refuse(writ.CodeNotReady, op, "this gateway has no keys", "ask another replica")
			}
			list, err := keysIn(s)
			if err != nil {
				return tx, reply, err
			}
			var public []string
			if len(list) == 0 {
				first, err := r.first(s)
				if err != nil {
					return tx, reply, err
				}
				public = []string{first.PEM}
			}
			for _, k := range list {
				public = append(public, k.PEM)
			}
			var receipts []writ.Receipt
			for _, id := range said(list) {
				found := s.Archive[writ.ArchiveRead{Receipt: id, Limit: 1}]
				if len(found) != 1 {
					return tx, reply, writ.Refuse(writ.CodeNotReady, op, "a receipt of a key is not at hand", "repeat the call; a replica that does not write the ledger may not have it")
				}
				receipts = append(receipts, found[0])
			}
			slices.SortFunc(receipts, func(a, b writ.Receipt) int { return cmp.Compare(a.Seq, b.Seq) })
			m, err := r.cfg.Manifest(public, receipts)
			if err != nil {
				return tx, reply, writ.AsError(op, err)
			}
			for i, e := range m.Keys {
				if e.Purpose == writ.KeyReceipt && (e.State == writ.KeyIntroduced || e.State == writ.KeyActive) && len(list) > 0 {
					m.Keys[i].Ready, m.Keys[i].Waiting = alive(s, e.SPKI)
				}
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: m}, nil
		},
	})
}

// keysHere are the keys whose documents were read.
func keysHere(s writ.Snapshot) ([]writ.SigningKey, error) {
	for _, m := range s.Ranges[all].Members {
		if !s.Has(writ.SigningKeyKey(m.Name)) {
			return nil, nil
		}
	}
	return keysIn(s)
}

// said are the receipts that say something of keys, each once.
func said(list []writ.SigningKey) (out []writ.ReceiptID) {
	for _, k := range list {
		for _, id := range []writ.ReceiptID{k.Introduced, k.Activated, k.Retired, k.Revoked} {
			if id != "" && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}
