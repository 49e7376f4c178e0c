package jcs

import (
	"bytes"
	"math/rand"
	"strings"
	"testing"

	reference "github.com/gowebpki/jcs"
)

func TestMarshal(t *testing.T) {
	for _, c := range []struct {
		v    Value
		want string
	}{
		{Object{}, `{}`},
		{Array{}, `[]`},
		{Object{"b": Int(2), "a": Int(-1), "": Bool(true)}, `{"":true,"a":-1,"b":2}`},
		{Array{String("é\u2028<>&/"), Bool(false)}, "[\"é\u2028<>&/\",false]"},
		{String("\x00\x1f\b\t\n\f\r\"\\\x7f"), `"\u0000\u001f\b\t\n\f\r\"\\` + "\x7f\""},
		{Int(MaxInt), `9007199254740991`},
		// RFC 8785 3.2.3: U+1F600 (surrogates D83D DE00) sorts before U+FB33.
		{Object{"\ufb33": Int(1), "\U0001f600": Int(2), "\u20ac": Int(3), "1": Int(4)}, "{\"1\":4,\"\u20ac\":3,\"\U0001f600\":2,\"\ufb33\":1}"},
	} {
		got, err := Marshal(c.v)
		if err != nil || string(got) != c.want {
			t.Errorf("Marshal(%#v) = %s, %v; want %s", c.v, got, err, c.want)
		}
		if err := Check(got); err != nil {
			t.Errorf("Check(%s): %v", got, err)
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	deep := Value(Int(1))
	for range MaxDepth + 1 {
		deep = Array{deep}
	}
	for name, v := range map[string]Value{
		"nil": nil, "nil in an array": Array{nil}, "nil in an object": Object{"a": nil},
		"large": Int(MaxInt + 1), "small": Int(-MaxInt - 1),
		"bytes": String("\xff"), "name bytes": Object{"\xff": Int(1)}, "surrogate": String("\xed\xa0\x80"), "deep": deep,
	} {
		if got, err := Marshal(v); err == nil {
			t.Errorf("%s: got %s, want an error", name, got)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": ``, "space before": ` {}`, "space after": `{} `, "space inside": `{"a": 1}`, "newline": "{}\n",
		"two values": `{}{}`, "unsorted": `{"b":1,"a":2}`, "duplicate": `{"a":1,"a":1}`, "duplicate by escape": `{"a":1,"\u0061":1}`,
		"fraction": `1.5`, "fraction zero": `1.0`, "exponent": `1e3`, "minus zero": `-0`, "leading zero": `01`, "plus": `+1`, "minus": `-`,
		"past double": `9007199254740992`, "past int64": `9223372036854775808`, "null": `null`, "nan": `NaN`,
		"bytes": "\"\xff\"", "overlong": "\"\xc0\xaf\"", "raw surrogate": "\"\xed\xa0\x80\"",
		"high surrogate": `"\ud800"`, "low surrogate": `"\udc00"`, "two high": `"\ud800\ud800"`, "high then text": `"\ud800x"`,
		"needless escape": `"\u0061"`, "escaped slash": `"\/"`, "upper hex": `"\u001F"`, "long escape": `"\u000a"`, "escaped pair": `"\ud83d\ude00"`,
		"control": "\"\x01\"", "open string": `"a`, "open escape": `"\`, "short escape": `"\u00"`, "wrong escape": `"\u+123"`, "unknown escape": `"\x"`,
		"open object": `{`, "open array": `[`, "no colon": `{"a"1}`, "no comma": `[1 2]`, "trailing comma": `[1,]`, "object comma": `{"a":1,}`,
		"name": `{a:1}`, "true": `tru`, "comment": `/**/1`, "deep": strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
		"very deep": strings.Repeat("[", 1<<20),
	} {
		if err := Check([]byte(text)); err == nil {
			t.Errorf("%s: %.40q passed", name, text)
		}
	}
}

// random makes a value of the given depth.
func random(r *rand.Rand, depth int) Value {
	text := func() string {
		var b strings.Builder
		for range r.Intn(6) {
			b.WriteRune([]rune{rune(r.Intn(128)), rune(r.Intn(0xd800)), 0x1f600 + rune(r.Intn(50)), 0xfb00 + rune(r.Intn(80)), '"', '\\'}[r.Intn(6)])
		}
		return b.String()
	}
	kinds := 5
	if depth == 0 {
		kinds = 3
	}
	switch r.Intn(kinds) {
	case 0:
		return String(text())
	case 1:
		return Int(r.Int63n(2*MaxInt+1) - MaxInt)
	case 2:
		return Bool(r.Intn(2) == 0)
	case 3:
		a := Array{}
		for range r.Intn(5) {
			a = append(a, random(r, depth-1))
		}
		return a
	}
	o := Object{}
	for range r.Intn(6) {
		o[text()] = random(r, depth-1)
	}
	return o
}

// An independent implementation must find nothing to change in what we write.
func TestAgainstReference(t *testing.T) {
	seed := rand.Int63()
	r := rand.New(rand.NewSource(seed))
	for range 2000 {
		v := Value(Object{"v": random(r, 4)})
		got, err := Marshal(v)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		want, err := reference.Transform(got)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("seed %d: wrote %s, reference %s, %v", seed, got, want, err)
		}
		if err := Check(got); err != nil {
			t.Fatalf("seed %d: %s: %v", seed, got, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":[1,true,"x"],"b":{}}`, `"\ud83d\ude00"`, `{"a":1,"a":2}`, `-0`, `[1.5]`, "\"\u2028\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Marshal(v)
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("accepted %q, wrote %q, %v", text, again, err)
		}
		// The reference reads objects and arrays only.
		if text[0] != '{' && text[0] != '[' {
			return
		}
		if want, err := reference.Transform(text); err != nil || !bytes.Equal(want, text) {
			t.Fatalf("accepted %q, reference %q, %v", text, want, err)
		}
	})
}
