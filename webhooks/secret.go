package webhooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// Secrets are the keys an endpoint knows the gateway by: one, or several while
// they are rotated. The zero value signs nothing.
type Secrets struct{ keys [][]byte }

// String and GoString keep secrets out of whatever prints what holds them.
func (Secrets) String() string   { return "(secrets)" }
func (Secrets) GoString() string { return "(secrets)" }

const (
	secretPrefix = "whsec_"
	// Bounds of a key, those of Standard Webhooks.
	minKey, maxKey = 24, 64
	maxSecrets     = 4
	maxSecretFile  = 4 << 10
)

// NewSecret makes a secret as it stands in a file.
func NewSecret(random io.Reader) (string, error) {
	var key [32]byte
	if _, err := io.ReadFull(random, key[:]); err != nil {
		return "", err
	}
	return secretPrefix + base64.StdEncoding.EncodeToString(key[:]), nil
}

// ReadSecrets reads the secrets of a file that its owner alone may read.
func ReadSecrets(path string) (Secrets, error) {
	bad := func(msg, hint string) (Secrets, error) {
		return Secrets{}, &writ.Error{Code: writ.CodeNotReady, Op: "webhooks.ReadSecrets", Msg: "webhook secret " + path + " " + msg, Hint: hint}
	}
	f, err := os.Open(path)
	if err != nil {
		return bad("cannot be read", "make it with 'writ webhook secret FILE', or let the gateway's user read it")
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return bad("is no plain file", "make one with 'writ webhook secret FILE'")
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return bad(fmt.Sprintf("is open to others (mode %04o)", mode), "chmod 600 it, and consider whether it is still secret")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return bad("cannot be read", "let the gateway's user read it")
	}
	s, err := parseSecrets(string(b))
	if err != nil {
		return bad("is damaged: "+err.Error(), "make another with 'writ webhook secret FILE' and give it to the receiver")
	}
	return s, nil
}

// parseSecrets reads secrets, one a line. The error repeats nothing of them.
func parseSecrets(text string) (Secrets, error) {
	var s Secrets
	if len(text) > maxSecretFile {
		return s, fmt.Errorf("it is longer than %d bytes", maxSecretFile)
	}
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		encoded, ok := strings.CutPrefix(strings.TrimSpace(line), secretPrefix)
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(key) < minKey || len(key) > maxKey {
			return Secrets{}, fmt.Errorf("line %d: want %s and %d to %d bytes in base64", i+1, secretPrefix, minKey, maxKey)
		}
		s.keys = append(s.keys, key)
	}
	if len(s.keys) > maxSecrets {
		return Secrets{}, fmt.Errorf("want at most %d secrets, one a line", maxSecrets)
	}
	return s, nil
}

// signature is the value of webhook-signature: one for every secret.
func (s Secrets) signature(id string, at int64, body []byte) string {
	var out []string
	for _, key := range s.keys {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(id + "." + strconv.FormatInt(at, 10) + "."))
		h.Write(body)
		out = append(out, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(out, " ")
}
