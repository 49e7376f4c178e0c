package approvals

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/writ-gateway/writ"
)

// maxArgs is how long the arguments people are shown may be. What they cannot
// be shown they cannot approve.
const maxArgs = 48 << 10

// transient are arguments that change when the same thing is tried again. A signed
// verdict says no more than the others and when it was signed.
var transient = []string{"lease_id", "fence", "wait_s", "verdict_dsse"}

// shown is what people see of a call's arguments, and the digest over all of
// them. Transient ones are in neither, secret ones only in the digest.
func shown(args any) (writ.RawObject, string, error) {
	fault := func(err error) (writ.RawObject, string, error) {
		return nil, "", writ.Fault(writ.CodeInternal, "approvals.Ask", err)
	}
	b, err := json.Marshal(args)
	if err != nil {
		return fault(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return fault(err)
	}
	for _, name := range transient {
		delete(m, name)
	}
	if b, err = json.Marshal(m); err != nil { // keys sorted
		return fault(err)
	}
	sum := sha256.Sum256(b)
	for _, name := range secrets(reflect.TypeOf(args)) {
		delete(m, name)
	}
	if b, err = json.Marshal(m); err != nil {
		return fault(err)
	}
	if len(b) > maxArgs {
		return nil, "", tooLarge()
	}
	return b, hex.EncodeToString(sum[:]), nil
}

// withTask adds to the arguments people are shown what the task is about: the
// call itself may say no more than its id.
func withTask(args writ.RawObject, t writ.Task) (writ.RawObject, error) {
	var m map[string]json.RawMessage // of which no number is changed
	err := json.Unmarshal(args, &m)
	if err == nil {
		m["task"], err = json.Marshal(map[string]any{"capability": t.Capability, "summary": t.Summary, "args": t.Args, "write_scopes": t.WriteScopes, "labels": t.Labels})
	}
	b := []byte(nil)
	if err == nil {
		b, err = json.Marshal(m)
	}
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, "approvals.Ask", err)
	}
	if len(b) > maxArgs {
		return nil, tooLarge()
	}
	return b, nil
}

func tooLarge() error {
	return writ.Refuse(writ.CodeTooLarge, "approvals.Ask", "the call needs approval and its arguments are too large to show to a person",
		"store what is large elsewhere and pass a reference")
}

// secrets are the JSON names of the fields tagged `writ:"secret"`.
func secrets(t reflect.Type) []string {
	return fields(t, func(f reflect.StructField) bool { return f.Tag.Get("writ") == "secret" })
}

// fields are the JSON names of those fields of a struct, or of a pointer to one,
// that are wanted.
func fields(t reflect.Type, wanted func(reflect.StructField) bool) (names []string) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	for _, f := range reflect.VisibleFields(t) {
		if !f.Anonymous && wanted(f) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	return names
}
