// Package keys plans the life of the keys that receipts are signed with: one is
// introduced, made the signing one, which retires the one before in the same commit,
// and may be revoked later. At any index of the log exactly one key signs: the one the
// gate names, which every commit re-checks.
//
// It holds no key. Which replicas hold the private half of one they say themselves.
package keys

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// Config is what the room needs of others.
type Config struct {
	// Parse reads a public key that may sign receipts: its SPKI digest, key id and one
	// form of PEM.
	Parse func(pem string) (spki, keyID, text string, err error)
	// Public gives the public half, in PEM, of the key a log began with.
	Public func(keyID string) (pem string, ok bool)
	// Manifest makes the file of keys of their public halves, in PEM, the first of the
	// log first, and of the receipts that say something of them, in the order of the log.
	Manifest func(public []string, receipts []writ.Receipt) (Manifest, error)
}

// Room plans the life of keys.
type Room struct{ cfg Config }

// New makes a Room.
func New(cfg Config) Room { return Room{cfg} }

// Capabilities are the verbs of this room.
func (r Room) Capabilities() []*writ.Capability {
	return []*writ.Capability{r.introduce(), r.activate(), r.retire(), r.revoke(), r.list(), r.report()}
}

var (
	all      = writ.Range{Index: writ.IndexKeys, ByScore: true, Max: writ.MaxAmount, Limit: writ.MaxKeys + 1}
	replicas = writ.Range{Index: writ.IndexReplicas, Limit: writ.MaxReplicas}
)

func held(spki string) writ.Range {
	return writ.Range{Index: writ.HeldKey(spki), Limit: writ.MaxReplicas}
}

// reads are what every verb reads: all keys there are, which are few, the gate, and who
// is alive.
func reads(s writ.Snapshot) writ.ReadSet {
	rs := writ.ReadSet{Docs: []writ.Key{writ.GateKey}, Ranges: []writ.Range{all, replicas}}
	for _, m := range s.Ranges[all].Members {
		rs.Docs = append(rs.Docs, writ.SigningKeyKey(m.Name))
		rs.Ranges = append(rs.Ranges, held(m.Name))
	}
	return rs
}

// keysIn lists the keys there are, in the order they were introduced.
func keysIn(s writ.Snapshot) (out []writ.SigningKey, err error) {
	for _, m := range s.Ranges[all].Members {
		k, _, ok, err := writ.Get[writ.SigningKey](s, writ.SigningKeyKey(m.Name))
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, k)
		}
	}
	return out, nil
}

// find is a key by the id a caller gave.
func find(op string, s writ.Snapshot, keyID string) (writ.SigningKey, error) {
	list, err := keysIn(s)
	if err != nil {
		return writ.SigningKey{}, err
	}
	for _, k := range list {
		if k.KeyID == keyID {
			return k, nil
		}
	}
	return writ.SigningKey{}, writ.Refuse(writ.CodeNotFound, op, "there is no such key", "key.list shows the ones there are; a log that never changed its key has nothing to retire")
}

func gateOf(s writ.Snapshot) (writ.Gate, error) {
	gate, _, ok, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err == nil && !ok {
		err = writ.Refuse(writ.CodeNotReady, "keys", "the gateway is starting", "repeat the call")
	}
	return gate, err
}

// alive lists the replicas that have said so lately, sorted, by whether they hold a key.
func alive(s writ.Snapshot, spki string) (have, missing []string) {
	have, missing = []string{}, []string{}
	for _, m := range s.Ranges[replicas].Members {
		if m.Score < s.Now {
			continue
		}
		if slices.ContainsFunc(s.Ranges[held(spki)].Members, func(h writ.Member) bool { return h.Name == m.Name }) {
			have = append(have, m.Name)
		} else {
			missing = append(missing, m.Name)
		}
	}
	slices.Sort(have)
	slices.Sort(missing)
	return have, missing
}

// move writes a key that was in state from.
func move(c *writ.Call, s writ.Snapshot, tx *writ.Tx, k *writ.SigningKey, from writ.KeyState) error {
	if !writ.KeyMoves.May(from, k.State) {
		return writ.IllegalMove("keys", writ.ObjectKey, string(from), string(k.State))
	}
	if from == "" {
		k.CreatedAt = s.Now
		tx.Index(writ.IndexKeys, k.SPKI, s.Now)
	}
	k.UpdatedAt, k.Receipt = s.Now, receipt(c)
	tx.Move(writ.ObjectKey, k.SPKI, string(from), string(k.State))
	return tx.PutDoc(s, writ.SigningKeyKey(k.SPKI), writ.ObjectKey, *k)
}

func receipt(c *writ.Call) writ.ReceiptID { return writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0)) }

// about makes the receipt say which key it is about.
func about(tx *writ.Tx, k writ.SigningKey, since int64) {
	tx.Key = writ.KeyFact{ID: k.KeyID, Purpose: k.Purpose, SPKI: k.SPKI, Since: since}
}

func done(s writ.Snapshot, k writ.SigningKey) writ.Reply {
	return writ.Reply{Outcome: writ.OutcomeDone, Body: view(s, k), Versioned: []string{"version"}}
}

// KeyView is a receipt key as people see it.
type KeyView struct {
	KeyID   string          `json:"key_id" doc:"Fingerprint, as receipts name it."`
	SPKI    string          `json:"spki" doc:"SHA-256 of the public key (DER, PKIX), hex."`
	Purpose writ.KeyPurpose `json:"purpose" doc:"What it signs." enum:"receipt"`
	State   writ.KeyState   `json:"state" doc:"Where it stands." enum:"introduced,active,retired,revoked"`
	Ready   []string        `json:"ready" doc:"Replicas that are alive and hold its private half."`
	Waiting []string        `json:"waiting" doc:"Replicas that are alive and do not."`
	Receipt writ.ReceiptID  `json:"receipt" doc:"Receipt of the last change."`
	Version int64           `json:"version" doc:"Version of the key's document."`
}

func view(s writ.Snapshot, k writ.SigningKey) KeyView {
	v := KeyView{
		KeyID: k.KeyID, SPKI: k.SPKI, Purpose: k.Purpose, State: k.State, Receipt: k.Receipt,
		Version: s.Docs[writ.SigningKeyKey(k.SPKI)].Version,
	}
	v.Ready, v.Waiting = alive(s, k.SPKI)
	return v
}

func notReady(op string, have, missing []string) *writ.Error {
	e := writ.Refuse(writ.CodeIllegal, op, "these replicas do not hold the key: "+strings.Join(missing, ", "),
		"give them its file and wait until key.list shows them as ready, or use force if they are not coming").
		With("kind", writ.ObjectKey).With("not_ready", strings.Join(missing, ","))
	if len(have) == 0 {
		e.Msg = "no replica holds the key yet"
		e.Hint = "put its file into their directory of keys and wait until key.list shows one as ready; not even force makes a key sign that nobody has"
	}
	return e
}
