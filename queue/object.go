package queue

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/writ-gateway/writ"
)

// canonicalObject checks that o is one JSON object of at most MaxArgsBytes as
// stored, and renders it with sorted keys, so that equal objects have equal
// digests. Nothing gives "{}".
func canonicalObject(op, pointer string, o writ.RawObject) (writ.RawObject, error) {
	if len(o) == 0 {
		return writ.RawObject("{}"), nil
	}
	if !isObject(o) {
		return nil, invalid(op, pointer, "must be a JSON object")
	}
	var v map[string]any
	dec := json.NewDecoder(bytes.NewReader(o))
	dec.UseNumber() // numbers keep the digits they were sent with
	if err := dec.Decode(&v); err != nil {
		return nil, invalid(op, pointer, "must be a JSON object")
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, op, err)
	}
	if len(out) > MaxArgsBytes {
		return nil, invalid(op, pointer, "is over 48 KiB; store it elsewhere and pass a reference")
	}
	return out, nil
}

// isObject says whether o is one JSON object.
func isObject(o writ.RawObject) bool {
	trimmed := bytes.TrimLeft(o, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(trimmed)
}

// digestOf is the SHA-256 of a request in canonical form.
func digestOf(op string, request any) (string, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return "", writ.Fault(writ.CodeInternal, op, err)
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
