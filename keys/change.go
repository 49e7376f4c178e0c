package keys

import (
	"strconv"

	"github.com/writ-gateway/writ"
)

// KeyIntroduceArgs are the public half of a new receipt key.
type KeyIntroduceArgs struct {
	PublicKey string `json:"public_key" doc:"Public key in PEM (PKIX), ECDSA P-256. Its private half lies in the directory of keys of the replicas." maxLength:"1000"`
}

// introduce makes a key known. It signs nothing yet. The first time, the key the log
// began with gets its document too.
func (r Room) introduce() *writ.Capability {
	const op = "keys.Introduce"
	parse := func(a *KeyIntroduceArgs) (spki, keyID, text string, err error) {
		if spki, keyID, text, err = r.cfg.Parse(a.PublicKey); err != nil {
			err = &writ.Error{
				Code: writ.CodeInputInvalid, Op: op, Msg: "the public key cannot be used", Hint: "send one ECDSA P-256 key in PEM, as 'writ key generate --purpose receipt' makes it",
				Fields: []writ.FieldError{{Pointer: "/public_key", Msg: "is not one P-256 public key in PEM (BEGIN PUBLIC KEY)"}},
			}
		}
		return spki, keyID, text, err
	}
	return writ.Define[KeyIntroduceArgs, KeyView](writ.Capability{
		ID: writ.KeyIntroduce, Safety: writ.SafetyMutating, Summary: "Introduce a new receipt key, which signs nothing until it is activated.",
		Example: `{"public_key":"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE9sbmmJp0ds4tIgvhCHKQNQdRNPan\n2kTgN2uLQoAu0QxOXqcVHhmQ0lzQrW7jzyLqFrGfIqcYQaYF3yZcQqHE2Q==\n-----END PUBLIC KEY-----\n"}`,
	}, writ.Verb[KeyIntroduceArgs]{
		Locks: func(*writ.Call, *KeyIntroduceArgs) []writ.Key { return []writ.Key{writ.GateKey} },
		Reads: func(_ *writ.Call, a *KeyIntroduceArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := reads(s)
			spki, _, _, err := parse(a)
			if err != nil {
				return rs, err
			}
			rs.Docs = append(rs.Docs, writ.SigningKeyKey(spki))
			rs.Ranges = append(rs.Ranges, held(spki))
			if !s.Has(writ.GateKey) {
				return rs, nil
			}
			first, err := r.first(s)
			if err == nil && first.SPKI != "" {
				rs.Docs = append(rs.Docs, writ.SigningKeyKey(first.SPKI))
			}
			return rs, err
		},
		Plan: func(c *writ.Call, a *KeyIntroduceArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			spki, keyID, text, err := parse(a)
			if err != nil {
				return tx, reply, err
			}
			list, err := keysIn(s)
			if err != nil {
				return tx, reply, err
			}
			first, err := r.first(s)
			if err != nil {
				return tx, reply, err
			}
			if first.KeyID == keyID {
				return tx, reply, writ.IllegalMove(op, writ.ObjectKey, string(writ.KeyActive), string(writ.KeyIntroduced))
			}
			for _, k := range list {
				switch {
				case k.KeyID == keyID && k.State == writ.KeyIntroduced:
					return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(s, k)}, nil
				case k.KeyID == keyID:
					return tx, reply, writ.IllegalMove(op, writ.ObjectKey, string(k.State), string(writ.KeyIntroduced))
				case k.State == writ.KeyIntroduced:
					return tx, reply, writ.Refuse(writ.CodeIllegal, op, "another key was introduced and is not in use yet", "activate or retire that one first").
						With("kind", writ.ObjectKey).With("key_id", k.KeyID)
				}
			}
			if len(list) >= writ.MaxKeys-1 {
				return tx, reply, writ.Refuse(writ.CodeIllegal, op, "this log has had as many receipt keys as one may have", "begin a new log under another origin").With("kind", writ.ObjectKey)
			}
			k := writ.SigningKey{SPKI: spki, KeyID: keyID, Purpose: writ.KeyReceipt, PEM: text, State: writ.KeyIntroduced, Introduced: receipt(c)}
			if err := move(c, s, &tx, &k, ""); err != nil {
				return tx, reply, err
			}
			if first.KeyID != "" {
				first.State = writ.KeyActive
				if err := move(c, s, &tx, &first, ""); err != nil {
					return tx, reply, err
				}
				tx.Index(writ.IndexKeys, first.SPKI, s.Now-1) // it was there before
			}
			about(&tx, k, 0)
			reply = done(s, k)
			reply.Outcome = writ.OutcomeCreated
			return tx, reply, nil
		},
	})
}

// first is the key the log began with, as long as it has no document; else it is empty.
func (r Room) first(s writ.Snapshot) (k writ.SigningKey, err error) {
	gate, err := gateOf(s)
	if err != nil || len(s.Ranges[all].Members) > 0 {
		return k, err
	}
	text, ok := r.cfg.Public(gate.ReceiptKeyID)
	if !ok {
		return k, writ.Refuse(writ.CodeNotReady, "keys.Introduce", "this replica does not have the public half of the key in force", "give it receipt.pub of the gateway, or ask another replica")
	}
	k.Purpose = writ.KeyReceipt
	k.SPKI, k.KeyID, k.PEM, err = r.cfg.Parse(text)
	return k, err
}

// KeyActivateArgs name the key that is to sign.
type KeyActivateArgs struct {
	KeyID string `json:"key_id" doc:"Fingerprint of a key that was introduced." pattern:"^SHA256:[A-Za-z0-9+/]{43}$"`
	Force bool   `json:"force,omitempty" doc:"Do not wait for replicas that do not hold it: they answer 503 until they do. One must hold it all the same."`
}

// activate makes a key the signing one, in the commit that retires the one before. The
// receipt of that is the last the old key signs.
func (r Room) activate() *writ.Capability {
	const op = "keys.Activate"
	return writ.Define[KeyActivateArgs, KeyView](writ.Capability{
		ID: writ.KeyActivate, Safety: writ.SafetyMutating, Summary: "Make an introduced receipt key the signing one on every replica, and retire the one before, in one commit.",
		Example: `{"key_id":"SHA256:hfuNWmjIYvsBGZ6dpCLTTAEa5LxbZABRHHVoynAxFlo"}`,
	}, writ.Verb[KeyActivateArgs]{
		Locks: func(*writ.Call, *KeyActivateArgs) []writ.Key { return []writ.Key{writ.GateKey} },
		Reads: func(_ *writ.Call, _ *KeyActivateArgs, s writ.Snapshot) (writ.ReadSet, error) { return reads(s), nil },
		Plan: func(c *writ.Call, a *KeyActivateArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			k, err := find(op, s, a.KeyID)
			if err != nil {
				return tx, reply, err
			}
			gate, err := gateOf(s)
			if err != nil {
				return tx, reply, err
			}
			if gate.ReceiptKeyID == k.KeyID {
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(s, k)}, nil
			}
			if k.State != writ.KeyIntroduced {
				return tx, reply, writ.IllegalMove(op, writ.ObjectKey, string(k.State), string(writ.KeyActive))
			}
			if have, missing := alive(s, k.SPKI); len(have) == 0 || len(missing) > 0 && !a.Force {
				return tx, reply, notReady(op, have, missing)
			}
			old, err := find(op, s, gate.ReceiptKeyID)
			if err != nil {
				return tx, reply, err
			}
			k.State, k.Activated = writ.KeyActive, receipt(c)
			if err := move(c, s, &tx, &k, writ.KeyIntroduced); err != nil {
				return tx, reply, err
			}
			old.State, old.Retired = writ.KeyRetired, receipt(c)
			if err := move(c, s, &tx, &old, writ.KeyActive); err != nil {
				return tx, reply, err
			}
			gate.ReceiptKeyID, gate.Receipt = k.KeyID, receipt(c)
			tx.Move(writ.ObjectGate, "gate", string(gate.State), string(gate.State))
			if err := tx.PutDoc(s, writ.GateKey, writ.ObjectGate, gate); err != nil {
				return tx, reply, err
			}
			about(&tx, k, 0)
			return tx, done(s, k), nil
		},
	})
}

// KeyRetireArgs name a key that is never to sign.
type KeyRetireArgs struct {
	KeyID string `json:"key_id" doc:"Fingerprint of a key that was introduced." pattern:"^SHA256:[A-Za-z0-9+/]{43}$"`
}

// retire takes back an introduction. The signing key is retired by the activation of
// another one and in no other way: something must sign.
func (r Room) retire() *writ.Capability {
	const op = "keys.Retire"
	return writ.Define[KeyRetireArgs, KeyView](writ.Capability{
		ID: writ.KeyRetire, Safety: writ.SafetyMutating, Summary: "Retire a receipt key that was introduced and is not in use.",
		Example: `{"key_id":"SHA256:hfuNWmjIYvsBGZ6dpCLTTAEa5LxbZABRHHVoynAxFlo"}`,
	}, writ.Verb[KeyRetireArgs]{
		Locks: func(*writ.Call, *KeyRetireArgs) []writ.Key { return []writ.Key{writ.GateKey} },
		Reads: func(_ *writ.Call, _ *KeyRetireArgs, s writ.Snapshot) (writ.ReadSet, error) { return reads(s), nil },
		Plan: func(c *writ.Call, a *KeyRetireArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			k, err := find(op, s, a.KeyID)
			switch {
			case err != nil:
				return tx, reply, err
			case k.State == writ.KeyRetired:
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(s, k)}, nil
			case k.State == writ.KeyActive:
				return tx, reply, writ.Refuse(writ.CodeIllegal, op, "the key signs receipts", "activate another one: that retires it").With("kind", writ.ObjectKey).With("state", string(k.State))
			}
			from := k.State
			k.State, k.Retired = writ.KeyRetired, receipt(c)
			if err := move(c, s, &tx, &k, from); err != nil {
				return tx, reply, err
			}
			about(&tx, k, 0)
			return tx, done(s, k), nil
		},
	})
}

// KeyRevokeArgs say which key is not to be believed, and from when on.
type KeyRevokeArgs struct {
	KeyID     string `json:"key_id" doc:"Fingerprint of a retired key." pattern:"^SHA256:[A-Za-z0-9+/]{43}$"`
	Since     int64  `json:"since,omitempty" doc:"Index of the log from which nothing it signed is to be believed: where it may have been in other hands first. Default: the index of this call's receipt." minimum:"1" maximum:"100000000000000"`
	ReachBack bool   `json:"reach_back,omitempty" doc:"Since is before another key was made the signing one, and is meant: then nothing signed from there on is believed, by the keys that followed neither, unless a root vouches for those."`
}

// revoke says from which index on nothing that a key signed is to be believed.
func (r Room) revoke() *writ.Capability {
	const op = "keys.Revoke"
	return writ.Define[KeyRevokeArgs, KeyView](writ.Capability{
		ID: writ.KeyRevoke, Safety: writ.SafetyMutating, Summary: "Revoke a retired receipt key: nothing it signed from an index of the log on is to be believed.",
		Example: `{"key_id":"SHA256:hfuNWmjIYvsBGZ6dpCLTTAEa5LxbZABRHHVoynAxFlo","since":20481}`,
	}, writ.Verb[KeyRevokeArgs]{
		Locks: func(*writ.Call, *KeyRevokeArgs) []writ.Key { return []writ.Key{writ.GateKey} },
		Reads: func(_ *writ.Call, _ *KeyRevokeArgs, s writ.Snapshot) (writ.ReadSet, error) { return reads(s), nil },
		Plan: func(c *writ.Call, a *KeyRevokeArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			k, err := find(op, s, a.KeyID)
			switch {
			case err != nil:
				return tx, reply, err
			case k.State == writ.KeyRevoked && k.Since == a.Since:
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(s, k)}, nil
			case k.State == writ.KeyActive:
				return tx, reply, writ.Refuse(writ.CodeIllegal, op, "the key signs receipts, this one too", "activate another one first, then revoke it").With("kind", writ.ObjectKey).With("state", string(k.State))
			case k.State == writ.KeyIntroduced:
				return tx, reply, writ.Refuse(writ.CodeIllegal, op, "the key was never in use", "retire it first").With("kind", writ.ObjectKey).With("state", string(k.State))
			}
			// The key that followed rests on the last receipt of this one.
			if last := s.Docs[writ.SigningKeyKey(k.SPKI)].Version - 1; k.State == writ.KeyRetired && k.WasActive() && a.Since > 0 && a.Since <= last && !a.ReachBack {
				return tx, reply, writ.Refuse(writ.CodeIllegal, op, "the key that followed rests on this one: nothing signed from that index on would be believed, unless a root vouches for it",
					"name an index after the one the key signed last, or say reach_back, which cannot be taken back; docs/keys.md").With("kind", writ.ObjectKey).With("signed_last", strconv.FormatInt(last, 10))
			}
			from := k.State
			k.State, k.Revoked, k.Since = writ.KeyRevoked, receipt(c), a.Since
			if err := move(c, s, &tx, &k, from); err != nil {
				return tx, reply, err
			}
			about(&tx, k, a.Since)
			return tx, done(s, k), nil
		},
	})
}

// KeyReportArgs are what a replica says of a key.
type KeyReportArgs struct {
	SPKI    string `json:"spki" doc:"SHA-256 of the public key." pattern:"^[0-9a-f]{64}$"`
	Replica string `json:"replica" doc:"The replica; it holds the private half." pattern:"^[a-z0-9-]{1,64}$"`
}

// Noted says that it is.
type Noted struct{}

// report notes that a replica holds the private half of a key, which is an entry of an
// index and no fact.
func (r Room) report() *writ.Capability {
	return writ.Define[KeyReportArgs, Noted](writ.Capability{
		ID: "key.report", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Note that a replica holds the private half of a receipt key.",
	}, writ.Verb[KeyReportArgs]{
		Reads: func(_ *writ.Call, a *KeyReportArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.SigningKeyKey(a.SPKI)}, Ranges: []writ.Range{replicas, held(a.SPKI)}}, nil
		},
		Plan: func(_ *writ.Call, a *KeyReportArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			tx.Mandate = true
			reply = writ.Reply{Outcome: writ.OutcomeDone, Body: Noted{}}
			_, _, ok, err := writ.Get[writ.SigningKey](s, writ.SigningKeyKey(a.SPKI))
			if err != nil || !ok {
				return tx, reply, err
			}
			living := map[string]bool{a.Replica: true}
			for _, m := range s.Ranges[replicas].Members {
				living[m.Name] = true
			}
			for _, m := range s.Ranges[held(a.SPKI)].Members {
				if !living[m.Name] {
					tx.Unindex(writ.HeldKey(a.SPKI), m.Name)
				}
			}
			tx.Index(writ.HeldKey(a.SPKI), a.Replica, 0)
			return tx, reply, nil
		},
	})
}
