package writ

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

var knownFields sync.Map // reflect.Type → map[string]bool

// fieldsOf is the set of JSON names of a struct type.
func fieldsOf(t reflect.Type) map[string]bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if m, ok := knownFields.Load(t); ok {
		return m.(map[string]bool)
	}
	m := map[string]bool{}
	if t.Kind() == reflect.Struct {
		for i := 0; i < t.NumField(); i++ {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && name == "" {
				for inner := range fieldsOf(f.Type) {
					m[inner] = true
				}
			}
			if name != "" && name != "-" {
				m[name] = true
			}
		}
	}
	knownFields.Store(t, m)
	return m
}

// keepUnknown adds to body the top-level fields of the old envelope's body
// that the type of doc does not declare: a newer program may have written
// them.
func keepUnknown(oldEnvelope, body []byte, doc any) ([]byte, error) {
	var old map[string]json.RawMessage
	if _, err := decodeDoc(oldEnvelope, &old); err != nil {
		return nil, err
	}
	known := fieldsOf(reflect.TypeOf(doc))
	var extra map[string]json.RawMessage
	for name, v := range old {
		if !known[name] {
			if extra == nil {
				extra = map[string]json.RawMessage{}
			}
			extra[name] = v
		}
	}
	if extra == nil {
		return body, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, err
	}
	for name, v := range extra {
		all[name] = v
	}
	return json.Marshal(all)
}

// decodeDoc decodes the body of an envelope into doc. A schema this program
// does not know explains any error.
func decodeDoc(envelope []byte, doc any) (schema int, err error) {
	// When what stands between the brackets is one JSON text, nothing else can
	// be in the envelope; so it is parsed once, not as part of it first.
	if body, ok := ownBody(envelope); ok && json.Unmarshal(body, doc) == nil {
		return Schema, nil
	}
	var e Envelope
	if err := json.Unmarshal(envelope, &e); err != nil {
		return 0, err
	}
	return e.Schema, json.Unmarshal(e.Body, doc)
}

// ownBody cuts the body out of an envelope of the present schema written byte
// for byte as EncodeDoc does. Whether it is JSON is left to the caller.
func ownBody(envelope []byte) (body []byte, ok bool) {
	rest, ok := bytes.CutPrefix(envelope, []byte(`{"kind":"`))
	if !ok {
		return nil, false
	}
	for len(rest) > 0 && lower(rest[0]) {
		rest = rest[1:]
	}
	if rest, ok = bytes.CutPrefix(rest, ownMiddle); !ok {
		return nil, false
	}
	return bytes.CutSuffix(rest, []byte("}"))
}

var ownMiddle = []byte(`","schema":` + strconv.Itoa(Schema) + `,"body":`)
