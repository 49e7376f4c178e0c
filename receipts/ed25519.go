package receipts

import (
	"crypto/ed25519"
	"math/big"
	"slices"
)

// holdsEd25519 says whether an Ed25519 signature is a key's over a text, as every program
// says it. They differ about points of small order, by which anybody can sign any text, and
// about coordinates of a key that are not below the prime (RFC 8032 leaves both open, and
// WebCrypto refuses the former): no honest key or signature has such, and none holds here.
func holdsEd25519(key ed25519.PublicKey, text, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && plainPoint(key) && plainPoint(sig[:32]) && ed25519.Verify(key, text, sig)
}

var (
	prime25519 = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	smallOrder = func() []*big.Int { // the y of the points whose order divides 8
		eight, _ := new(big.Int).SetString("05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826", 16)
		minus := func(n *big.Int) *big.Int { return new(big.Int).Sub(prime25519, n) }
		return []*big.Int{big.NewInt(0), big.NewInt(1), minus(big.NewInt(1)), eight, minus(eight)}
	}()
)

// plainPoint says of the 32 bytes of a point whether everybody reads them in one way.
func plainPoint(p []byte) bool {
	b := slices.Clone(p)
	b[31] &= 0x7f // the sign of x
	slices.Reverse(b)
	y := new(big.Int).SetBytes(b)
	return y.Cmp(prime25519) < 0 && !slices.ContainsFunc(smallOrder, func(s *big.Int) bool { return s.Cmp(y) == 0 })
}
