package pack

import (
	"bytes"
	"encoding/pem"
	"regexp"
)

// keyForm is a public key in PEM as both verifiers read it. Programs differ about headers, spaces and a
// second beginning, so a text with any of these has no key.
var keyForm = regexp.MustCompile(`^-----BEGIN PUBLIC KEY-----[ \t\r]*\n([A-Za-z0-9+/= \t\r\n]+?)\n-----END PUBLIC KEY-----[ \t\r\n]*$`)

// keyText is the public key in a text, with or without lines before it, in its one spelling; nil where there is none
// that both verifiers read. Of what kind it is, and whether it is a key, is not looked at.
func keyText(text []byte) []byte {
	const begin = "-----BEGIN "
	if !bytes.HasPrefix(text, []byte(begin)) {
		at := bytes.Index(text, []byte("\n"+begin))
		text = text[at+1:]
	}
	m := keyForm.FindSubmatch(text)
	if m == nil {
		return nil
	}
	der, ok := unbase64(string(bytes.Join(bytes.Fields(m[1]), nil)))
	if !ok {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}
