package gateway

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-gateway/writ"
)

func validator(t testing.TB) (*Validator, *writ.Registry) {
	t.Helper()
	reg := testRegistry(t)
	v, err := NewValidator(reg)
	if err != nil {
		t.Fatal(err)
	}
	return v, reg
}

func TestDecodeRefuses(t *testing.T) {
	v, reg := validator(t)
	base := `"run_id":"` + testRun + `","key":"build"`
	for _, c := range []struct {
		name, raw string
		code      writ.Code
		pointer   string
		msg       string
	}{
		{"no object", `[]`, writ.CodeMalformed, "", ""},
		{"null", `null`, writ.CodeMalformed, "", ""},
		{"cut off", `{` + base, writ.CodeMalformed, "", "not well-formed"},
		{"two values", `{` + base + `}{}`, writ.CodeMalformed, "", "not well-formed"},
		{"duplicate name", `{` + base + `,"key":"other"}`, writ.CodeMalformed, "/key", "twice"},
		{"duplicate inside a raw object", `{` + base + `,"args":{"a":1,"a":2}}`, writ.CodeMalformed, "/args", "twice"},
		{"duplicate by escape", `{` + base + `,"k\u0065y":"other"}`, writ.CodeMalformed, "/key", "twice"},
		{"case variant", `{` + base + `,"Labels":["public"]}`, writ.CodeMalformed, "", "unknown member"},
		{"case variant of a sent name", `{` + base + `,"KEY":"NOT valid !!"}`, writ.CodeMalformed, "", "unknown member"},
		{"unknown member", `{` + base + `,"actor":"me"}`, writ.CodeMalformed, "", "unknown member"},
		{"unknown member inside", `{` + base + `,"steps":[{"name":"a"},{"name":"b","x":1}]}`, writ.CodeMalformed, "/steps/1", "name, tries"},
		{"invalid UTF-8", `{` + base + `,"tags":{"a":"` + "\xff" + `"}}`, writ.CodeMalformed, "", ""},
		{"lone surrogate", `{` + base + `,"tags":{"a":"\ud800"}}`, writ.CodeMalformed, "/tags", ""},
		{"huge number", `{` + base + `,"args":{"n":1e999}}`, writ.CodeMalformed, "/args", "out of range"},
		{"too deep", `{` + base + `,"args":` + strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 100) + `}`, writ.CodeMalformed, "", ""},
		{"missing", `{"key":"build"}`, writ.CodeInputInvalid, "/run_id", "is required"},
		{"null for a required member", `{"run_id":null,"key":"build"}`, writ.CodeInputInvalid, "/run_id", "expected string"},
		{"pattern", `{"run_id":"` + testRun + `","key":"Not A Slug"}`, writ.CodeInputInvalid, "/key", "pattern"},
		{"wrong type", `{` + base + `,"priority":"9"}`, writ.CodeInputInvalid, "/priority", "expected integer"},
		{"over maximum", `{` + base + `,"priority":10}`, writ.CodeInputInvalid, "/priority", "<= 9"},
		{"fraction", `{` + base + `,"priority":1.5}`, writ.CodeInputInvalid, "/priority", "expected integer"},
		{"integer as float", `{` + base + `,"priority":1.0}`, writ.CodeInputInvalid, "/priority", "64-bit integer"},
		{"integer by exponent", `{` + base + `,"retry":1e3}`, writ.CodeInputInvalid, "/retry", "64-bit integer"},
		{"over 64 bits", `{` + base + `,"retry":9223372036854775808}`, writ.CodeInputInvalid, "/retry", "64-bit integer"},
		{"array where an object is due", `{` + base + `,"args":[1]}`, writ.CodeInputInvalid, "/args", "expected object"},
		{"map value", `{` + base + `,"tags":{"a":1}}`, writ.CodeInputInvalid, "/tags", "expected string"},
		{"null item", `{` + base + `,"domains":[null]}`, writ.CodeInputInvalid, "/domains/0", "expected string"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := v.Decode(reg.Get("task.enqueue"), []byte(c.raw))
			e, ok := errors.AsType[*writ.Error](err)
			if !ok || e.Code != c.code {
				t.Fatalf("got %v, want %s", err, c.code)
			}
			if c.pointer == "" && c.msg == "" {
				return
			}
			for _, f := range e.Fields {
				if f.Pointer == c.pointer && strings.Contains(f.Msg, c.msg) {
					return
				}
			}
			t.Fatalf("no field %q with %q in %+v", c.pointer, c.msg, e.Fields)
		})
	}
}

func TestDecodeCollectsEverything(t *testing.T) {
	v, reg := validator(t)
	_, err := v.Decode(reg.Get("task.enqueue"), []byte(`{"priority":12,"labels":"x","steps":[{}]}`))
	e := writ.AsError("", err)
	var at []string
	for _, f := range e.Fields {
		at = append(at, f.Pointer)
	}
	if want := []string{"/key", "/labels", "/priority", "/run_id", "/steps/0/name"}; !reflect.DeepEqual(at, want) {
		t.Errorf("fields %v, want %v", at, want)
	}
	if want := []string{"key", "run_id", "steps/0/name"}; !reflect.DeepEqual(e.Missing, want) {
		t.Errorf("missing %v, want %v", e.Missing, want)
	}
}

// Decoding refuses case variants too; the switch makes them all reported.
func TestHumaIsStrictAboutCase(t *testing.T) {
	if !huma.ValidateStrictCasing {
		t.Error("huma.ValidateStrictCasing is off")
	}
}

// A required array that is null would pass minItems and enum unseen.
func TestNullArrayIsRefused(t *testing.T) {
	v, reg := validator(t)
	_, err := v.Decode(reg.Get("agent.register"), []byte(`{"agent_id":"plug-editor","archetypes":null}`))
	if writ.CodeOf(err) != writ.CodeInputInvalid {
		t.Fatalf("got %v", err)
	}
}

// Huma compares the items of such an array with ==, which panics for objects.
func TestDistinctItemsThatCannotBeCompared(t *testing.T) {
	v, reg := validator(t)
	_, err := v.Decode(reg.Get("task.claim"), []byte(`{"domains":[{},{}]}`))
	if writ.CodeOf(err) != writ.CodeInputInvalid {
		t.Fatalf("got %v", err)
	}
}

func TestDecodeDefaults(t *testing.T) {
	v, reg := validator(t)
	decode := func(raw string) *enqueueArgs {
		t.Helper()
		got, err := v.Decode(reg.Get("task.enqueue"), []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		return got.(*enqueueArgs)
	}
	base := `"run_id":"` + testRun + `","key":"build"`
	a := decode(`{` + base + `,"steps":[{"name":"a"},{"name":"b","tries":0}],"first":{"name":"c"}}`)
	if a.Priority != 5 || a.Retry == nil || *a.Retry != 7 || !reflect.DeepEqual(a.Domains, []string{"web", "ops"}) {
		t.Errorf("defaults are missing: %+v", a)
	}
	if a.Steps[0].Tries != 3 || a.Steps[1].Tries != 0 || a.First.Tries != 3 {
		t.Errorf("defaults inside: %+v %+v", a.Steps, a.First)
	}
	b := decode(`{` + base + `,"priority":0,"domains":[],"retry":null}`)
	if b.Priority != 0 || len(b.Domains) != 0 || *b.Retry != 7 {
		t.Errorf("a sent value was replaced, or a null was not: %+v", b)
	}
	*b.Retry, a.Domains[0] = 99, "changed"
	c := decode(`{` + base + `}`)
	if *c.Retry != 7 || c.Domains[0] != "web" {
		t.Error("calls share a default")
	}
}

func TestRawObjectsKeepTheirBytes(t *testing.T) {
	v, reg := validator(t)
	raw := `{ "n": 9007199254740993 , "f":1.50, "s":"\u0041", "e":{} }`
	got, err := v.Decode(reg.Get("task.enqueue"), []byte(`{"run_id":"`+testRun+`","key":"build","args":`+raw+`}`))
	if err != nil {
		t.Fatal(err)
	}
	if s := string(got.(*enqueueArgs).Args); s != raw {
		t.Errorf("got %s, want %s", s, raw)
	}
	got, err = v.Decode(reg.Get("task.enqueue"), []byte(`{"run_id":"`+testRun+`","key":"build","retry":9007199254740993}`))
	if err != nil || *got.(*enqueueArgs).Retry != 9007199254740993 {
		t.Errorf("a large integer changed: %v %v", got, err)
	}
}

func TestEmptyInputIsAnEmptyObject(t *testing.T) {
	v, reg := validator(t)
	for _, raw := range []string{"", "  ", "{}"} {
		got, err := v.Decode(reg.Get("session.open"), []byte(raw))
		if _, ok := got.(*noArgs); err != nil || !ok {
			t.Errorf("%q: %T %v", raw, got, err)
		}
	}
}

// Formats whose checkers quote the value must not do so here.
func TestFormatsDoNotEcho(t *testing.T) {
	v, reg := validator(t)
	for name, value := range map[string]string{
		"home": "http://[canary", "wait": "canary", "rule": "canary(", "mail": "canary", "uuid": "canary-canary",
	} {
		_, err := v.Decode(reg.Get("run.create"), []byte(`{"budget":{},"`+name+`":"`+value+`"}`))
		e := writ.AsError("", err)
		if e == nil || e.Code != writ.CodeInputInvalid || len(e.Fields) != 1 || e.Fields[0].Pointer != "/"+name {
			t.Errorf("%s: %+v", name, e)
			continue
		}
		if strings.Contains(e.Fields[0].Msg, "canary") || e.Fields[0].Msg == "not valid" {
			t.Errorf("%s: message %q", name, e.Fields[0].Msg)
		}
	}
}

func TestFieldsAreBounded(t *testing.T) {
	v, reg := validator(t)
	raw := `{"run_id":"` + testRun + `","key":"build","steps":[` + strings.TrimSuffix(strings.Repeat(`{},`, 1000), ",") + `]}`
	e := writ.AsError("", func() error { _, err := v.Decode(reg.Get("task.enqueue"), []byte(raw)); return err }())
	if len(e.Fields) != maxFields || len(e.Missing) != maxFields {
		t.Errorf("%d fields, %d missing", len(e.Fields), len(e.Missing))
	}
}

// What a body costs does not grow with what is wrong in it: the errors stop,
// and what is too long is not looked into.
func TestWorkIsBounded(t *testing.T) {
	v, reg := validator(t)
	fill := func(unit string) string {
		n := (127 << 10) / len(unit)
		return strings.TrimSuffix(strings.Repeat(unit, n), ",")
	}
	var names strings.Builder
	for i := range 6_000 {
		fmt.Fprintf(&names, `"n%d":0,`, i)
	}
	members := strings.TrimSuffix(names.String(), ",")
	base := `{"run_id":"` + testRun + `","key":"build",`
	for _, c := range []struct {
		name string
		id   writ.CapabilityID
		raw  string
		code writ.Code
	}{
		{"items over the most", "task.enqueue", base + `"labels":[` + strings.TrimSuffix(strings.Repeat("0,", 19_000), ",") + `]}`, writ.CodeInputInvalid},
		{"more items than are read", "task.enqueue", base + `"labels":[` + fill("0,") + `]}`, writ.CodeMalformed},
		{"items without a bound", "task.enqueue", base + `"steps":[` + strings.TrimSuffix(strings.Repeat("{},", 9_000), ",") + `]}`, writ.CodeInputInvalid},
		{"objects over the most", "agent.register", `{"agent_id":"a","archetypes":["executor"],"tools":[` + strings.TrimSuffix(strings.Repeat("{},", 9_000), ",") + `]}`, writ.CodeInputInvalid},
		{"items of the wrong type", "agent.register", `{"agent_id":"a","archetypes":[` + strings.TrimSuffix(strings.Repeat("{},", 9_000), ",") + `]}`, writ.CodeInputInvalid},
		{"unknown members", "task.enqueue", base + members + `}`, writ.CodeMalformed},
		{"unknown members inside", "task.enqueue", base + `"first":{` + members + `}}`, writ.CodeMalformed},
		{"entries of a map", "task.enqueue", base + `"tags":{` + members + `}}`, writ.CodeInputInvalid},
		{"values nobody looks into", "task.enqueue", base + `"args":{"a":[` + fill("0,") + `]}}`, writ.CodeMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if len(c.raw) > 128<<10 {
				t.Fatalf("%d bytes are more than a body may have", len(c.raw))
			}
			k, raw := reg.Get(c.id), []byte(c.raw)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := v.Decode(k, raw)
			runtime.ReadMemStats(&after)
			e := writ.AsError("", err)
			if writ.CodeOf(err) != c.code || len(e.Fields) > maxFields {
				t.Errorf("got %v with %d fields", err, len(e.Fields))
			}
			if b := after.TotalAlloc - before.TotalAlloc; b > 4<<20 {
				t.Errorf("%d bytes of input cost %d bytes", len(raw), b)
			}
		})
	}
	if _, err := v.Decode(reg.Get("task.enqueue"), []byte(base+`"args":{"a":[`+strings.TrimSuffix(strings.Repeat("0,", 19_000), ",")+`]}}`)); err != nil {
		t.Errorf("values nobody looks into: %v", err)
	}
}

func TestBadTagsAreAnError(t *testing.T) {
	type args struct {
		N int64 `json:"n" minimum:"many"`
	}
	type defaults struct {
		N int64 `json:"n" default:"1.5"`
	}
	for _, c := range []*writ.Capability{stub[args]("bad.tag", writ.SafetyReadOnly), stub[defaults]("bad.default", writ.SafetyReadOnly)} {
		reg, err := writ.NewRegistry(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewValidator(reg); err == nil {
			t.Errorf("%s was accepted", c.ID)
		}
	}
}

// Two packages may use one type name; local types stand in for them here.
func TestEqualTypeNamesDoNotClash(t *testing.T) {
	a := func() *writ.Capability {
		type Inner struct{ A string }
		type args struct{ In Inner }
		return stub[args]("one.a", writ.SafetyReadOnly)
	}()
	reg, err := writ.NewRegistry(a, stub[outerArgs]("two.b", writ.SafetyReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewValidator(reg); err != nil {
		t.Fatal(err)
	}
}

type (
	Inner     struct{ B int64 }
	outerArgs struct{ In Inner }
)

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"run_id":"` + testRun + `","key":"build","args":{"n":1}}`))
	f.Add([]byte(`{"domains":[{},{}]}`))
	f.Add([]byte(`{"steps":[{"name":null}],"first":null}`))
	v, reg := validator(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, id := range []writ.CapabilityID{"task.enqueue", "task.claim", "agent.register", "run.create"} {
			got, err := v.Decode(reg.Get(id), raw)
			if (got == nil) == (err == nil) {
				t.Fatalf("%s: %v and %v", id, got, err)
			}
			switch writ.CodeOf(err) {
			case "", writ.CodeMalformed, writ.CodeInputInvalid:
			default:
				t.Fatalf("%s: %v", id, err)
			}
		}
	})
}
