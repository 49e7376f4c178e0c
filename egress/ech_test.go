package egress

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
)

func ecdhKey() ([]byte, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return k.PublicKey().Bytes(), nil
}

// echList is an ECHConfigList with one configuration, as a name server would give it.
func echList(public string, key []byte) []byte {
	u16 := func(b []byte, n int) []byte { return binary.BigEndian.AppendUint16(b, uint16(n)) }
	body := []byte{1}                             // config id
	body = u16(body, 0x0020)                      // DHKEM(X25519, HKDF-SHA256)
	body = append(u16(body, len(key)), key...)    // public key
	body = u16(u16(u16(body, 4), 0x0001), 0x0001) // HKDF-SHA256, AES-128-GCM
	body = append(body, 0, byte(len(public)))     // maximum name length 0
	body = append(body, public...)
	body = u16(body, 0) // extensions
	config := append(u16(u16(nil, extECH), len(body)), body...)
	return append(u16(nil, len(config)), config...)
}
