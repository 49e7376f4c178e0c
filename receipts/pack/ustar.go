package pack

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// An archive is read by its blocks, as POSIX has them for ustar, and by nothing that
// other forms of tar add: what one reader takes for a name, or for the end, another might
// not, and somebody would check other files than the next one unpacks.
const (
	block     = 512
	ustar     = "ustar\x0000"
	regular   = '0'
	directory = '5'
)

var octal = regexp.MustCompile(`^ *([0-7]+)[ \x00]*$`)

// place is where a file is in an archive.
type place struct{ at, size int64 }

// entry is what a header says.
type entry struct {
	name string
	kind byte
	size int64
}

// header reads a block; ok is false for one that is no header of ustar.
func header(b []byte) (e entry, ok bool) {
	sum := int64(0)
	for i, c := range b {
		if 148 <= i && i < 156 { // the sum itself counts as spaces
			c = ' '
		}
		sum += int64(c)
	}
	stated, ok := inOctal(b[148:156])
	size, good := inOctal(b[124:136])
	name := text(b[:100])
	if prefix := text(b[345:500]); prefix != "" {
		name = prefix + "/" + name
	}
	e = entry{strings.TrimPrefix(name, "./"), b[156], size}
	return e, ok && good && stated == sum && string(b[257:265]) == ustar && (e.kind == regular || e.kind == directory && size == 0)
}

func inOctal(field []byte) (int64, bool) {
	m := octal.FindSubmatch(field)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(m[1]), 8, 64)
	return n, err == nil
}

func text(field []byte) string {
	s, _, _ := bytes.Cut(field, []byte{0})
	return string(s)
}

// padded is how much room a file takes.
func padded(size int64) int64 { return (size + block - 1) / block * block }

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// placesIn reads where the files of an archive are, as far as it is sound, and says what is
// wrong with it.
func placesIn(f io.ReaderAt, size int64) (names []string, places map[string]place, bad []Code, err error) {
	places = map[string]place{}
	var b [block]byte
	for at := int64(0); at < size; {
		if size-at < block {
			return names, places, append(bad, PackMalformed), nil
		}
		if _, err := f.ReadAt(b[:], at); err != nil {
			return nil, nil, nil, err
		}
		if zero(b[:]) {
			if ended, err := ends(f, at, size); err != nil || ended {
				return names, places, bad, err
			}
			return names, places, append(bad, PackMalformed), nil
		}
		e, ok := header(b[:])
		if !ok || e.size > limit(e.name) || e.size > size-at-block || padded(e.size) > size-at-block {
			return names, places, append(bad, PackMalformed), nil
		}
		at += block
		if rest := b[:padded(e.size)-e.size]; len(rest) > 0 {
			if _, err := f.ReadAt(rest, at+e.size); err != nil {
				return nil, nil, nil, err
			}
			if !zero(rest) {
				return names, places, append(bad, PackMalformed), nil
			}
		}
		_, twice := places[e.name]
		switch {
		case e.kind == directory:
		case twice:
			bad = append(bad, FileTwice)
		case len(places) == maxFiles:
			return nil, nil, nil, errors.New("more files than any pack has")
		default:
			places[e.name] = place{at, e.size}
			names = append(names, e.name)
		}
		at += padded(e.size)
	}
	return names, places, bad, nil
}

// ends says whether an archive ends here: with two blocks of zeros, and no more than that
// but zeros.
func ends(f io.ReaderAt, at, size int64) (bool, error) {
	if size-at < 2*block {
		return false, nil
	}
	in := io.NewSectionReader(f, at, size-at)
	for b := make([]byte, 64<<10); ; {
		n, err := in.Read(b)
		if !zero(b[:n]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}
