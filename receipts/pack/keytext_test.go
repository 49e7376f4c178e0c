package pack

import (
	"bytes"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// A key in a pack has one spelling. One that somebody gives, or an agent was registered with, may have lines before it, headers,
// and spaces where PEM has them, is in the one DER of its key, and is read by both verifiers or by none.
func TestSpellingsOfKeys(t *testing.T) {
	o := node(t)
	l, c := story(t)
	f := l.export(Options{})
	begin := []byte("-----BEGIN PUBLIC KEY-----\n")
	for _, x := range []struct {
		name   string
		change func([]byte) []byte
		reads  bool
	}{
		{"text before", func(b []byte) []byte { return append([]byte("hello\n"), b...) }, true},
		{"CRLF", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }, true},
		{"spaces", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n-----END"), []byte("  \n \n-----END")) }, true},
		{"one line", func(b []byte) []byte {
			s := strings.Split(strings.TrimSpace(string(b)), "\n")
			return []byte(s[0] + "\n" + strings.Join(s[1:len(s)-1], "") + "\n" + s[len(s)-1])
		}, true},
		{"headers", func(b []byte) []byte {
			k, _ := pem.Decode(b)
			k.Headers = map[string]string{"Note": "hello"}
			return pem.EncodeToMemory(k)
		}, true},
		{"headers, and no line between", func(b []byte) []byte {
			return bytes.Replace(b, begin, append(bytes.Clone(begin), "Note: hello-----\n:\n"...), 1)
		}, true},
		{"a header that goes on", func(b []byte) []byte {
			return bytes.Replace(b, begin, append(bytes.Clone(begin), "Note: hello,\n you\n\n"...), 1)
		}, false},
		{"a header behind a line", func(b []byte) []byte {
			return bytes.Replace(b, begin, append(bytes.Clone(begin), "\nNote: hello\n"...), 1)
		}, false},
		{"form feed behind", func(b []byte) []byte { return append(bytes.Clone(b), "\f\v\n"...) }, true},
		{"one more element", inDER(func(b []byte) []byte { return append(wider(b, 1, 2), 5, 0) }), false},
		{"one more element of the algorithm", inDER(func(b []byte) []byte {
			return slices.Insert(wider(wider(b, 1, 2), 3, 2), 4+int(b[3]), 5, 0)
		}), false},
		{"unused bits of the key", inDER(func(b []byte) []byte { // shifted by four, which is a point all the same
			b = append(bytes.Clone(b), 0)
			at := len(b) - 67
			b[at] = 4
			for i := at + 1; i < len(b)-1; i++ {
				b[i] = b[i]<<4 | b[i+1]>>4
			}
			return b[:len(b)-1]
		}), false},
		{"a length in two bytes", inDER(func(b []byte) []byte { return slices.Insert(bytes.Clone(b), 1, 0x81) }), false},
		{"no line end before END", func(b []byte) []byte { return bytes.Replace(b, []byte("\n-----END"), []byte("-----END"), 1) }, false},
		{"indented", func(b []byte) []byte { return append([]byte(" "), b...) }, false},
		{"begins twice", func(b []byte) []byte { return append(bytes.Clone(begin), b...) }, false},
		{"another kind before", func(b []byte) []byte { return append([]byte("-----BEGIN X-----\n"), b...) }, false},
		{"twice", func(b []byte) []byte { return append(bytes.Clone(b), b...) }, false},
		{"vertical tab", func(b []byte) []byte { return bytes.Replace(b, []byte("\n-----END"), []byte("\v\n-----END"), 1) }, false},
		{"a byte that is a space elsewhere", func(b []byte) []byte { return bytes.Replace(b, []byte("\n-----END"), []byte("\xa0\n-----END"), 1) }, false},
		{"a space of Unicode", func(b []byte) []byte { return append(bytes.Clone(b), "\u00a0"...) }, false},
		{"text behind", func(b []byte) []byte { return append(bytes.Clone(b), "x\n"...) }, false},
		{"unused bits", func(b []byte) []byte {
			text, rest, _ := strings.Cut(string(b[len(begin):]), "\n-----END")
			return []byte(string(begin) + loose(text) + "\n-----END" + rest)
		}, false},
		{"nothing", func([]byte) []byte { return begin }, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			inPack := f.with(put(keyName(1), x.change))
			if a := both(t, o, "spelling", f, inPack, l.trust(), Ask{}); !slices.Equal(a.Codes, []string{"key_untrusted@-1"}) {
				t.Errorf("in a pack: got %v", a.Codes)
			}
			if a := both(t, o, "spelling", f, inPack, Trust{}, Ask{}); !slices.Equal(a.Codes, []string{"pack_malformed@-1"}) {
				t.Errorf("in a pack, without others: got %v", a.Codes)
			}
			for _, trust := range []Trust{{LogKey: l.logKey(), Keys: [][]byte{x.change(l.pub())}}, {LogKey: l.logKey(), Keys: [][]byte{l.pub()}, Verifiers: [][]byte{x.change(l.pub())}}} {
				ask := Ask{Run: c.run, Close: true}
				_, err := Verify(f.pack(), trust, ask)
				if x.reads != (err == nil) {
					t.Errorf("given: got %v", err)
				} else if x.reads {
					both(t, o, "spelling", f, f, trust, ask)
				} else if o != nil && o.check("spelling", f, f, trust, ask).Exit != 4 {
					t.Errorf("given: the other verifier takes it")
				}
			}
			if bytes.Contains(x.change(l.pub()), []byte{0xa0}) {
				return // no JSON
			}
			l := world(t)
			c := l.cast()
			l.register(c.operator, string(x.change(l.pub())), "judge")
			l.begin(c)
			l.accept(c, l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", ""))
			f := l.export(Options{})
			a := both(t, o, "spelling of "+x.name, f, f, l.trust(), Ask{Run: c.run, Close: true})
			if want := "verdict_unsigned"; strings.Contains(a.each(), want) != x.reads {
				t.Errorf("registered: got %v", a.Codes)
			}
		})
	}
}

// inDER changes a key in its DER.
func inDER(change func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		k, _ := pem.Decode(b)
		return pem.EncodeToMemory(&pem.Block{Type: k.Type, Bytes: change(k.Bytes)})
	}
}

// wider adds to a length in DER.
func wider(b []byte, at int, by byte) []byte {
	b = bytes.Clone(b)
	b[at] += by
	return b
}

// A file of keys that nothing is trusted beside is not left out.
func TestAFileOfKeysAlone(t *testing.T) {
	l, _ := story(t)
	f := l.export(Options{})
	trust := Trust{KeysFile: l.keysFile(l.pub(), len(l.list), l.priv)}
	if _, err := Verify(f.pack(), trust, Ask{}); err == nil {
		t.Error("it is taken")
	}
	if o := node(t); o != nil && o.check("keys", f, f, trust, Ask{}).Exit != 4 {
		t.Error("the other verifier takes it")
	}
}
