package gateway

import (
	"encoding/base64"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// preconditions reads the headers that qualify a change.
func preconditions(call *writ.Call, r *http.Request) error {
	const op = "gateway.headers"
	key, err := oneHeader(r, "Idempotency-Key")
	if err != nil {
		return err
	}
	if (key == "" && len(r.Header.Values("Idempotency-Key")) > 0) || len(key) > 128 || strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return writ.Refuse(writ.CodeMalformed, op, "the Idempotency-Key is not valid", "use 1 to 128 visible ASCII characters")
	}
	call.IdempotencyKey = key
	if call.Cosignature, err = cosignature(r); err != nil {
		return err
	}
	match, err := oneHeader(r, "If-Match")
	if err != nil || match == "" {
		return err
	}
	plain := match
	if len(match) > 2 && match[0] == '"' && match[len(match)-1] == '"' {
		plain = match[1 : len(match)-1]
	}
	v, perr := strconv.ParseInt(plain, 10, 64)
	if perr != nil || v <= 0 || strconv.FormatInt(v, 10) != plain {
		return writ.Refuse(writ.CodeMalformed, op, "If-Match is not one version", `send the ETag of a reply, for example If-Match: "42"`)
	}
	call.IfVersion = v
	return nil
}

// cosignature reads the caller's own signature of the call. It looks at the form
// only; whether one is wanted, and holds, is the door's question.
func cosignature(r *http.Request) (*writ.Cosignature, error) {
	text, err := oneHeader(r, "Cosignature")
	if err != nil || len(r.Header.Values("Cosignature")) == 0 {
		return nil, err
	}
	m := cosignatureForm.FindStringSubmatch(text)
	if m == nil {
		return nil, badCosignature()
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(m[2])
	if err != nil {
		return nil, badCosignature()
	}
	return &writ.Cosignature{KeyID: m[1], Signature: sig}, nil
}

var cosignatureForm = regexp.MustCompile(CosignaturePattern)

// CosignaturePattern is the form of the header Cosignature: version, key id, and
// the signature in base64.
const CosignaturePattern = `^v1 (SHA256:[A-Za-z0-9+/]{43}) ([A-Za-z0-9+/]{8,192}={0,2})$`

func badCosignature() error {
	return writ.Refuse(writ.CodeMalformed, "gateway.headers", "the Cosignature is not one signature", "send Cosignature: v1 KEYID SIGNATURE, the key id as in agent.info and the signature in base64")
}

// HeaderCheckpoint carries the latest checkpoint of the transparency log, base64 of the
// signed note (C2SP tlog-checkpoint). Who keeps one can show later that the log was
// changed.
const HeaderCheckpoint = "Writ-Checkpoint"

// showCheckpoint puts it on the reply to whoever has shown a valid credential.
func showCheckpoint(cfg Config, w http.ResponseWriter, err error) {
	if cfg.Checkpoint == nil || writ.CodeOf(err) == writ.CodeUnauthenticated {
		return
	}
	if c := cfg.Checkpoint(); c != "" {
		w.Header().Set(HeaderCheckpoint, c)
	}
}

func oneHeader(r *http.Request, name string) (string, error) {
	values := r.Header.Values(name)
	if len(values) > 1 {
		return "", writ.Refuse(writ.CodeMalformed, "gateway.headers", "the header "+name+" is given more than once", "send it once")
	}
	if len(values) == 0 {
		return "", nil
	}
	return values[0], nil
}
