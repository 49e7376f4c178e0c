package receipts

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"math/big"
	"slices"
	"testing"
)

// little is a number as Ed25519 writes it.
func little(n *big.Int) []byte {
	b := n.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return b
}

// What stock programs do not agree about is no signature: a key that anybody signs by, and a
// signature of a good key that begins with such a point. The standard library takes each of these.
func TestEd25519SignaturesHoldEverywhereOrNowhere(t *testing.T) {
	text := []byte("text")
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public := key.Public().(ed25519.PublicKey)
	good := ed25519.Sign(key, text)
	if !holdsEd25519(public, text, good) || holdsEd25519(public, []byte("other"), good) || holdsEd25519(public, text, good[:63]) {
		t.Fatal("a signature as usual")
	}
	identity := little(big.NewInt(1))
	// With the nonce 0 the signature is the identity and k·a.
	h := sha512.Sum512(key.Seed())
	h[0], h[31] = h[0]&248, h[31]&63|64
	number := func(le []byte) *big.Int { le = bytes.Clone(le); slices.Reverse(le); return new(big.Int).SetBytes(le) }
	order, _ := new(big.Int).SetString("27742317777372353535851937790883648493", 10)
	order.Add(order, new(big.Int).Lsh(big.NewInt(1), 252))
	k := sha512.Sum512(slices.Concat(identity, public, text))
	s := new(big.Int).Mul(number(k[:]), number(h[:32]))
	small := slices.Concat(identity, little(s.Mod(s, order)))
	beyond := little(new(big.Int).Add(prime25519, big.NewInt(1))) // the identity, in other bytes
	negative := bytes.Clone(identity)
	negative[31] |= 0x80
	zero := slices.Concat(identity, make([]byte, 32))
	base := append([]byte{0x58}, bytes.Repeat([]byte{0x66}, 31)...) // the point that is once itself
	for name, x := range map[string]struct {
		key ed25519.PublicKey
		sig []byte
	}{
		"the identity":           {identity, zero},
		"it, and a good point":   {identity, slices.Concat(base, little(big.NewInt(1)))},
		"it in other bytes":      {beyond, zero},
		"it with a sign":         {negative, zero},
		"a signature of nonce 0": {public, small},
	} {
		if !ed25519.Verify(x.key, text, x.sig) {
			t.Fatalf("%s: it is no case of this", name)
		}
		if holds(x.key, text, x.sig) {
			t.Errorf("%s: it holds", name)
		}
	}
	for _, y := range []string{ // the other points of small order, as libsodium lists them
		"0000000000000000000000000000000000000000000000000000000000000000", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		if b, err := hex.DecodeString(y); err != nil || plainPoint(b) {
			t.Errorf("%s counts", y)
		}
	}
}
