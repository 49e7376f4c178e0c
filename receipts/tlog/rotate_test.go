package tlog

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// Of a log that was signed with more than one key, each entry must be by the key that
// might sign it there; what is wrong is named.
func TestEveryEntryByTheKeyOfItsIndex(t *testing.T) {
	sealers, spki := make([]*receipts.Sealer, 3), make([]string, 3)
	for i := range sealers {
		priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if sealers[i], err = receipts.NewSealer(priv, "writ.local", [32]byte{1}); err != nil {
			t.Fatal(err)
		}
		if spki[i], _, err = receipts.SPKIOf(&priv.PublicKey); err != nil {
			t.Fatal(err)
		}
	}
	sealed := func(key int, seq int64, transition string, about int, moves ...writ.Change) writ.Receipt {
		st := writ.Statement{
			Receipt: writ.ReceiptID(writ.MakeID(writ.PrefixReceipt, 1, [10]byte{9: byte(seq)})), Tenant: "default", Transition: transition,
			Outcome: writ.OutcomeOfTransition, Actor: writ.Actor{Kind: writ.KindSystem, Role: writ.RoleSystem}, Changes: moves,
		}
		if len(moves) > 0 {
			st.Key = writ.KeyFact{ID: sealers[about].KeyID(), Purpose: writ.KeyReceipt, SPKI: spki[about]}
		}
		head, tail, err := sealers[key].Draft(st)
		if err != nil {
			t.Fatal(err)
		}
		r, err := sealers[key].Seal(writ.StoredFact{
			Fact: writ.Fact{ID: st.Receipt, KeyID: sealers[key].KeyID(), Head: head, Tail: tail}, Commit: writ.Committed{Epoch: "e1", Seq: seq, At: 1},
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	move := func(key int, from, to writ.KeyState) writ.Change {
		return writ.Change{Kind: writ.ObjectKey, ID: spki[key], From: string(from), To: string(to)}
	}
	good := []writ.Receipt{
		sealed(0, 0, "role.bind", 0),
		sealed(0, 1, writ.KeyIntroduce, 1, move(1, "", writ.KeyIntroduced)),
		sealed(0, 2, "role.bind", 0),
		sealed(0, 3, writ.KeyActivate, 1, move(1, writ.KeyIntroduced, writ.KeyActive), move(0, writ.KeyActive, writ.KeyRetired)),
		sealed(1, 4, "role.bind", 0),
		sealed(1, 5, writ.KeyRevoke, 0, move(0, writ.KeyRetired, writ.KeyRevoked)),
		sealed(1, 6, "role.bind", 0),
		sealed(1, 7, "role.bind", 0),
		sealed(1, 8, "role.bind", 0),
	}
	ring := ringOf(t, sealers[0].Public())
	text, err := receipts.PublicPEM(sealers[1].Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Show(text); err != nil {
		t.Fatal(err)
	}
	for _, r := range good {
		rec, err := receipts.Decode(r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if receipts.IsKeyEvent(rec) {
			if err := ring.Learn(rec, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	var told []int64
	var verifiers []crypto.PublicKey
	verify := func(change func(list []writ.Receipt)) error {
		list := append([]writ.Receipt{}, good...)
		change(list)
		told = nil
		var leaves [][]byte
		dir, key := t.TempDir(), testKey(t)
		l, err := Open(dir, key)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			for _, s := range sealers {
				if s.KeyID() != r.KeyID {
					continue
				}
				der, err := PublicDER(s.Public())
				if err == nil {
					leaves = append(leaves, Leaf(r, der))
					err = l.Append(leaves[len(leaves)-1:])
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := l.Publish(); err != nil {
			t.Fatal(err)
		}
		_, err = Verify(context.Background(), dir, Trust{Log: verifierOf(t, key), Keys: ring, Verifiers: verifiers, Foreign: func(seq int64) { told = append(told, seq) }}, nil)
		for cut := 1; cut < len(leaves); cut++ { // as where a file ends and the next begins
			s, bad := newSigners(Trust{Keys: ring, Verifiers: verifiers})
			if bad == nil {
				bad = errors.Join(s.signed(leaves[:cut], 0, nil, false), s.signed(leaves[cut:], int64(cut), leaves[cut-1], true))
			}
			if (bad == nil) != (err == nil) {
				t.Errorf("in two parts, of %d and more: %v, and in one: %v", cut, bad, err)
			}
		}
		return err
	}
	for name, c := range map[string]struct {
		change func(list []writ.Receipt)
		want   error
	}{
		"as it was":                     {func([]writ.Receipt) {}, nil},
		"by a verifier's key":           {func(l []writ.Receipt) { l[2] = sealed(2, 2, "role.bind", 0) }, nil},
		"by such a key, and no receipt": {func(l []writ.Receipt) { l[6], l[7] = sealed(2, 6, "role.bind", 0), sealed(2, 7, "role.bind", 0) }, receipts.ErrKeyUnknown},
		"by such a key at the end":      {func(l []writ.Receipt) { l[8] = sealed(2, 8, "role.bind", 0) }, receipts.ErrKeyUnknown},
		"by such a key, about keys":     {func(l []writ.Receipt) { l[5] = sealed(2, 5, "role.bind", 0) }, receipts.ErrKeyUnknown},
		"and it does not hold": {func(l []writ.Receipt) {
			l[2] = sealed(2, 2, "role.bind", 0)
			l[2].Sig = sealed(2, 3, "role.bind", 0).Sig
		}, ErrDamaged},
		"before the introduction":        {func(l []writ.Receipt) { l[0] = sealed(1, 0, "role.bind", 0) }, receipts.ErrKeyEarly},
		"before it was the signing one":  {func(l []writ.Receipt) { l[2] = sealed(1, 2, "role.bind", 0) }, receipts.ErrKeyEarly},
		"after the retirement":           {func(l []writ.Receipt) { l[4] = sealed(0, 4, "role.bind", 0) }, receipts.ErrKeyLate},
		"after the revocation":           {func(l []writ.Receipt) { l[6] = sealed(0, 6, "role.bind", 0) }, receipts.ErrKeyRevoked},
		"another receipt about keys":     {func(l []writ.Receipt) { l[5] = sealed(1, 5, "role.bind", 0) }, ErrDamaged},
		"an introduction that was moved": {func(l []writ.Receipt) { l[1], l[2] = l[2], l[1] }, ErrDamaged},
	} {
		if err := verify(c.change); !errors.Is(err, c.want) || c.want != nil && !errors.Is(err, ErrDamaged) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.want == nil && strings.Contains(name, "verifier") != slices.Equal(told, []int64{2}) {
			t.Errorf("%s: told of %v", name, told)
		}
	}
	// Whose key it is, who verifies may say.
	theirs := func(l []writ.Receipt) { l[2] = sealed(2, 2, "role.bind", 0) }
	verifiers = []crypto.PublicKey{sealers[1].Public(), sealers[2].Public()}
	if err := verify(theirs); err != nil || !slices.Equal(told, []int64{2}) {
		t.Errorf("by a verifier that is trusted: %v, told of %v", err, told)
	}
	verifiers = verifiers[:1]
	if err := verify(theirs); !errors.Is(err, ErrDamaged) || errors.Is(err, receipts.ErrKeyUnknown) || len(told) > 0 { // a file of keys would not change that
		t.Errorf("by another: %v, told of %v", err, told)
	}
	first := func(l []writ.Receipt) { l[0] = sealed(2, 0, "role.bind", 0) }
	if err := verify(first); !errors.Is(err, ErrDamaged) || errors.Is(err, receipts.ErrKeyUnknown) {
		t.Errorf("the first one by another: %v", err)
	}
	if err := verify(func([]writ.Receipt) {}); err != nil {
		t.Errorf("by none: %v", err)
	}
}
