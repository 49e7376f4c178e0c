package pack

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What an archive holds is what its blocks say, to both verifiers, byte by byte.
func TestArchivesAreReadOneWay(t *testing.T) {
	o := node(t)
	l, _ := story(t)
	l.list, l.denied = l.list[:3], true
	var b bytes.Buffer
	if err := Write(context.Background(), Tar(&b), l, Options{Checkpoint: l.checkpoint(3), LogKey: l.logKey(), Scope: Scope{Kind: ScopeLog}}); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	end := len(whole) - 2*block
	// head changes the first header, and states its sum again.
	head := func(at int, with string) func([]byte) []byte {
		return func(b []byte) []byte {
			copy(b[at:], with)
			copy(b[148:156], "        ")
			sum := 0
			for _, c := range b[:block] {
				sum += int(c)
			}
			copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
			return b
		}
	}
	before := func(h tar.Header, text string) func([]byte) []byte {
		return func(b []byte) []byte {
			var out bytes.Buffer
			w := tar.NewWriter(&out)
			if h.Size = int64(len(text)); h.ModTime.IsZero() {
				h.Mode = 0o644
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			return append(out.Bytes(), b...)
		}
	}
	zeros := func(n int) []byte { return make([]byte, n) }
	wrong := "pack_malformed@-1"
	for name, x := range map[string]struct {
		change func([]byte) []byte
		want   string // is found; nothing where it is empty
	}{
		"as it is":                         {func(b []byte) []byte { return b }, ""},
		"without an end":                   {func(b []byte) []byte { return b[:end] }, ""},
		"with a longer end":                {func(b []byte) []byte { return append(b, zeros(8000)...) }, ""},
		"with half an end":                 {func(b []byte) []byte { return b[:end+block] }, wrong},
		"with most of an end":              {func(b []byte) []byte { return b[:end+2*block-1] }, wrong},
		"with some of an end":              {func(b []byte) []byte { return b[:end+1] }, wrong},
		"with more behind the end":         {func(b []byte) []byte { return append(b, b[:2*block]...) }, wrong},
		"with one byte behind the end":     {func(b []byte) []byte { return append(b, 1) }, wrong},
		"with a block of zeros inside":     {func(b []byte) []byte { return slices.Concat(zeros(block), b) }, wrong},
		"with two blocks of zeros first":   {func(b []byte) []byte { return slices.Concat(zeros(2*block), b) }, wrong},
		"cut in the last file":             {func(b []byte) []byte { return b[:end-1] }, wrong},
		"cut in a header":                  {func(b []byte) []byte { return b[:100] }, wrong},
		"something behind a file":          {func(b []byte) []byte { b[2*block-1] = 'x'; return b }, wrong},
		"another sum":                      {func(b []byte) []byte { b[0] ^= 1; return b }, wrong},
		"the magic of GNU":                 {head(257, "ustar  \x00"), wrong},
		"no magic":                         {head(257, strings.Repeat("\x00", 8)), wrong},
		"another version":                  {head(263, "01"), wrong},
		"a kind of old":                    {head(156, "\x00"), wrong},
		"a link":                           {head(156, "2"), wrong},
		"a directory with something":       {head(156, "5"), wrong},
		"a size in base 256":               {head(124, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10"), wrong},
		"a size of no number":              {head(124, "0000000008x\x00"), wrong},
		"a size that is not there":         {head(124, strings.Repeat("\x00", 12)), wrong},
		"a size below nothing":             {head(124, "-0000000001\x00"), wrong},
		"a size beyond the end":            {head(124, "00000777777\x00"), wrong},
		"a file larger than any in a pack": {before(tar.Header{Name: "x", Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}, strings.Repeat("x", maxFile+1)), wrong},
		"a file as large as there are":     {before(tar.Header{Name: "x", Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}, strings.Repeat("x", maxFile)), "file_extra@-1"},
		"a size with spaces":               {head(124, "        143 "), "file_missing@-1"},
		"names of PAX":                     {before(tar.Header{Name: "x", Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{"WRIT.x": "y"}}, ""), wrong},
		"long names of GNU":                {before(tar.Header{Name: strings.Repeat("x", 200), Typeflag: tar.TypeReg, Format: tar.FormatGNU}, ""), wrong},
		"a directory":                      {before(tar.Header{Name: "receipts/", Typeflag: tar.TypeDir, Format: tar.FormatUSTAR}, ""), ""},
		"a file of that name":              {before(tar.Header{Name: "pack.json", Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}, "{}"), "file_twice@-1"},
		"a file by a path to that name":    {before(tar.Header{Name: "./pack.json", Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}, "{}"), "file_twice@-1"},
		"a file in a long way":             {before(tar.Header{Name: strings.Repeat("d/", 60) + "pack.json", Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}, "{}"), "file_extra@-1"},
		"a name after its end":             {head(len("pack.json")+1, "behind"), ""},
		"nothing":                          {func([]byte) []byte { return nil }, "file_missing@-1"},
	} {
		t.Run(name, func(t *testing.T) {
			text := x.change(bytes.Clone(whole))
			p, err := archiveIn(bytes.NewReader(text), int64(len(text)))
			if err != nil {
				t.Fatal(err)
			}
			r, err := Verify(p, l.trust(), Ask{})
			if err != nil {
				t.Fatal(err)
			}
			if a := answerOf(r); x.want == "" && a.Exit != 0 || x.want != "" && !slices.Contains(a.Codes, x.want) {
				t.Errorf("got %v, want %s", a.Codes, x.want)
			}
			if o != nil {
				agree(t, answerOf(r), o.ask(map[string]any{"base": "", "tar": text, "ask": map[string]any{}}, l.trust()))
			}
		})
	}
	// Whatever byte of a header is another one, both say the same.
	for i := range block {
		text := bytes.Clone(whole)
		text[i] ^= 0x15
		p, err := archiveIn(bytes.NewReader(text), int64(len(text)))
		if err != nil {
			t.Fatal(err)
		}
		r, err := Verify(p, l.trust(), Ask{})
		if err != nil {
			t.Fatal(err)
		}
		if r.Exit == 0 {
			t.Errorf("byte %d: nothing is found", i)
		}
		if o != nil {
			agree(t, answerOf(r), o.ask(map[string]any{"base": "", "tar": text, "ask": map[string]any{}}, l.trust()))
		}
	}
}
