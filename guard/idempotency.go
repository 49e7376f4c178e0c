package guard

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// kept is what is stored under an Idempotency-Key: the reply without the
// values the commit gave, which the record's own version adds again, and
// without secrets.
type kept struct {
	Digest     string          `json:"digest"`
	Outcome    writ.Outcome    `json:"outcome"`
	Body       json.RawMessage `json:"body"`
	Versioned  []string        `json:"versioned,omitempty"`
	ETag       int64           `json:"etag,omitempty"`
	Withheld   bool            `json:"withheld,omitempty"` // the reply held a secret
	Redacted   []string        `json:"redacted,omitempty"`
	Limited    []writ.Limit    `json:"limited,omitempty"`
	Receipt    writ.ReceiptID  `json:"receipt"`
	Durability writ.Durability `json:"durability,omitempty"` // what the answer must mean
	Effect     writ.EffectID   `json:"effect,omitempty"`     // that was begun; what became of it says its own document
}

// replay answers a call whose key has committed before.
func (t *try) replay() (writ.Reply, *writ.Receipt, bool, error) {
	if t.call.IdempotencyKey == "" || t.k.ReadOnly() {
		return writ.Reply{}, nil, false, nil
	}
	rec, version, ok, err := writ.Get[kept](t.snap, writ.IdempotencyDoc(t.call.Caller, t.call.IdempotencyKey))
	if err != nil || !ok {
		return writ.Reply{}, nil, err != nil, err
	}
	if rec.Digest != t.call.Digest {
		return writ.Reply{}, nil, true, writ.Refuse(writ.CodeIdempotency, "guard.replay",
			"this Idempotency-Key belongs to another request", "use a new key for a new request")
	}
	if rec.Outcome == writ.OutcomePending {
		return writ.Reply{}, nil, false, nil // people were asked; the call is judged again
	}
	if rec.Effect != "" {
		return t.replayEffect(rec)
	}
	if rec.Withheld {
		return writ.Reply{}, nil, true, &writ.Error{
			Code: writ.CodeTokenIssued, Op: "guard.replay", Receipt: rec.Receipt,
			Msg: "the token of this request was shown once and is not kept", Hint: "revoke the session and open another",
		}
	}
	reply := writ.Reply{Outcome: rec.Outcome, Body: rec.Body, Versioned: rec.Versioned, ETag: rec.ETag, Replayed: true, Redacted: rec.Redacted, Limited: rec.Limited, Durability: rec.Durability}
	if err := finish(&reply, writ.Committed{Seq: version - 1}); err != nil {
		return writ.Reply{}, nil, true, err
	}
	return reply, &writ.Receipt{ID: rec.Receipt, Seq: version - 1}, true, nil
}

// remember stores the reply under the call's key in the same transaction. The
// read of the absent record is guarded, so one of two racing callers replays.
func (t *try) remember(tx *writ.Tx, reply writ.Reply) error {
	if t.call.IdempotencyKey == "" {
		return nil
	}
	if t.intent != nil && reply.Outcome != writ.OutcomePending {
		key := writ.IdempotencyDoc(t.call.Caller, t.call.IdempotencyKey)
		doc, err := writ.EncodeDoc(t.snap, key, "idem", kept{Digest: t.call.Digest, Body: json.RawMessage("null"), Receipt: tx.Fact.ID, Effect: t.intent.doc.ID})
		if err == nil {
			tx.PutFor(key, doc, keyKeptFor.Milliseconds())
		}
		return err
	}
	body, withheld, err := withoutSecrets(reply.Body)
	if err != nil {
		return writ.Fault(writ.CodeInternal, "guard.remember", err)
	}
	body, redacted, err := redact(body, t.hidden(reply))
	if err != nil {
		return writ.Fault(writ.CodeInternal, "guard.remember", err)
	}
	// A replay must not write the version where it was redacted.
	versioned := slices.DeleteFunc(slices.Clone(reply.Versioned), func(path string) bool { return covers(t.hidden(reply), strings.Split(path, ".")) })
	key := writ.IdempotencyDoc(t.call.Caller, t.call.IdempotencyKey)
	doc, err := writ.EncodeDoc(t.snap, key, "idem", kept{
		Digest: t.call.Digest, Outcome: reply.Outcome, Body: body, Versioned: versioned,
		ETag: reply.ETag, Withheld: withheld, Redacted: redacted, Limited: t.limited, Receipt: tx.Fact.ID, Durability: reply.Durability,
	})
	if err != nil {
		return err
	}
	tx.PutFor(key, doc, keyKeptFor.Milliseconds())
	return nil
}

// withoutSecrets renders a body without the fields tagged `writ:"secret"`.
func withoutSecrets(body any) (json.RawMessage, bool, error) {
	b, err := json.Marshal(body)
	if err != nil || body == nil {
		return b, false, err
	}
	v := reflect.ValueOf(body)
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return b, false, nil
	}
	var secret []string
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.Tag.Get("writ") == "secret" && !v.Field(i).IsZero() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			secret = append(secret, name)
		}
	}
	if secret == nil {
		return b, false, nil
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, false, err
	}
	for _, name := range secret {
		delete(m, name)
	}
	b, err = json.Marshal(m)
	return b, true, err
}

// finish renders the body and sets the version the commit gave where the plan
// asked for it. A reply without a commit (Seq -1) keeps what the plan wrote.
func finish(r *writ.Reply, c writ.Committed) error {
	b, err := json.Marshal(r.Body)
	if err != nil {
		return writ.Fault(writ.CodeInternal, "guard.finish", err)
	}
	if r.ETag < 0 {
		r.ETag = c.Version()
	}
	if c.Seq >= 0 {
		for _, path := range r.Versioned {
			if b, err = splice(b, strings.Split(path, "."), c.Version()); err != nil {
				return writ.Fault(writ.CodeInternal, "guard.finish", err)
			}
		}
	}
	r.JSON = b
	return nil
}

// splice replaces the value at a path of object members by a number and leaves
// every other byte as it is. b is JSON as encoding/json writes it: well formed,
// without space, and names of ours without escapes.
func splice(b []byte, path []string, n int64) ([]byte, error) {
	at := 0
	for _, name := range path {
		if at = member(b, at, name); at < 0 {
			return nil, fmt.Errorf("the reply has no member %s", strings.Join(path, "."))
		}
	}
	end := valueEnd(b, at)
	out := strconv.AppendInt(b[:at:at], n, 10)
	return append(out, b[end:]...), nil
}

// member is where the value of a member of the object at b[i] begins; -1 when
// there is none.
func member(b []byte, i int, name string) int {
	if b[i] != '{' {
		return -1
	}
	for i++; b[i] == '"'; i++ {
		colon := valueEnd(b, i)
		if string(b[i+1:colon-1]) == name {
			return colon + 1
		}
		if i = valueEnd(b, colon+1); b[i] == '}' {
			break
		}
	}
	return -1
}

// valueEnd is where the value, or the name, that begins at b[i] ends.
func valueEnd(b []byte, i int) int {
	for depth := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']', ',', ':':
			if depth == 0 {
				return i
			}
			if b[i] == '}' || b[i] == ']' {
				depth--
			}
		}
	}
	return i
}
