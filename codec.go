package writ

import (
	"encoding/json"
	"reflect"
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
	var e Envelope
	if err := json.Unmarshal(oldEnvelope, &e); err != nil {
		return nil, err
	}
	var old map[string]json.RawMessage
	if err := json.Unmarshal(e.Body, &old); err != nil {
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
