package pack

import (
	"bytes"
	"errors"
	"slices"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// A pack has every receipt of the log that says something of a receipt key, whatever its
// scope: with the key the log began with, which is trusted, they say which key may have
// signed at which index. Each is proved like any other receipt.

// saysOfKeys is in the payload of each; more than these may have it.
var saysOfKeys = []byte(`"transition":"key.`)

// ofKey says whether a payload is of a receipt that says something of a key.
func ofKey(payload []byte) (rec receipts.Record, ok bool) {
	if !bytes.Contains(payload, saysOfKeys) {
		return rec, false
	}
	rec, err := receipts.Decode(payload)
	return rec, err == nil && receipts.IsKeyEvent(rec)
}

// ring learns what receipts say of keys, of those that are good by themselves. What is wrong
// with others is found when each is looked at.
func (c *check) ring() error {
	var said []string
	for _, name := range c.p.names {
		if !receiptPath.MatchString(name) {
			continue
		}
		text, err := c.p.read(name)
		if err != nil {
			return err
		}
		b, wrong := parse(text)
		if wrong != "" {
			continue
		}
		_, ok := ofKey(b.payload)
		if receipts.IsVerdict(b.payload) {
			continue
		}
		if c.first == "" || ok && len(said) == 0 { // who says the first of keys is the first that signs
			c.first = b.keyID
		}
		if ok {
			c.ofKeys[seqOf(name)] = true
			said = append(said, name)
		}
	}
	if err := c.learn(said); err != nil {
		return err
	}
	for _, text := range c.inPack {
		if v, err := receipts.NewVerifier(text); err != nil || !c.known(v) {
			c.find(KeyUntrusted, -1)
		}
	}
	return nil
}

func (c *check) known(v *receipts.Verifier) bool {
	k, ok := c.keys[v.KeyID()]
	return ok && k.v.Public().Equal(v.Public())
}

// learn makes the ring. Without trust in the first key there is none, and only those count
// that are trusted themselves.
func (c *check) learn(said []string) error {
	ring, told := c.fromFile, []writ.Receipt(nil)
	if ring != nil {
		told = ring.Events()
	} else if k, ok := c.keys[c.first]; !ok {
		return nil
	} else if r, err := receipts.NewRing(k.v); err != nil {
		return err
	} else {
		ring = r
	}
	for _, text := range slices.Concat(c.given, c.inPack) {
		_ = ring.Show(text) // what is no key is found, and shown by nobody
	}
	for _, name := range said {
		text, err := c.p.read(name)
		if err != nil {
			return err
		}
		rec, code := c.one(seqOf(name), text)
		if code != "" {
			continue
		}
		seq := rec.Commit.Seq
		if len(told) > 0 && seq <= told[len(told)-1].Seq { // the file has it
			payload, _, err := c.payload(seq)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(told, func(r writ.Receipt) bool { return r.Seq == seq && bytes.Equal(r.Payload, payload) }) {
				c.find(KeyEvent, seq)
			}
			continue
		}
		if err := ring.Learn(*rec, writ.Receipt{Seq: seq}); errors.Is(err, receipts.ErrKeyEvent) {
			c.find(KeyEvent, seq)
		}
		if life := ring.Get(rec.Statement.Key.ID); life != nil && life.Public != nil {
			if err := c.trusts([]byte(life.PEM)); err != nil {
				return err
			}
		}
	}
	for _, r := range told {
		if r.Seq < c.cp.Size && !c.ofKeys[r.Seq] && c.m.Scope.Kind != ScopeLog { // of the whole log scope finds it
			c.find(ReceiptMissing, r.Seq)
		}
	}
	c.lives = ring
	return nil
}

// outside reads a file of keys that does not come with the pack.
func (c *check) outside(t Trust) error {
	if len(t.KeysFile) == 0 {
		if len(t.Root) > 0 {
			return errors.New("a root vouches for keys in a manifest: give the file of keys too")
		}
		return nil
	}
	trust := receipts.Trusted{Root: t.Root}
	if len(t.Root) == 0 && len(t.Keys) > 0 {
		trust.Key = t.Keys[0]
	}
	ring, err := receipts.ReadRing(t.KeysFile, trust)
	if err != nil {
		return err
	}
	for _, life := range ring.Lives() {
		if err := c.trusts([]byte(life.PEM)); err != nil {
			return err
		}
	}
	c.fromFile = ring
	return nil
}

// trusts adds a key that is believed.
func (c *check) trusts(text []byte) error {
	v, err := receipts.NewVerifier(text)
	if err != nil {
		return err
	}
	der, err := tlog.PublicDER(v.Public())
	if err != nil {
		return err
	}
	c.keys[v.KeyID()] = trusted{v, der}
	return nil
}
