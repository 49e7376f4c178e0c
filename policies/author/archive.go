package author

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// An archive is the tarball of an OPA bundle: sorted names that begin with a
// slash, mode 0644, no owner, no time, gzip without a name. The same content
// always gives the same bytes, and bytes in any other form are not read: what
// the signature covers, what OPA loads and what is looked at here are one.

const (
	manifestFile   = "/.manifest"
	signaturesFile = "/.signatures.json"
	maxArchive     = 8 << 20 // compressed
	maxEntries     = 4096
)

var errForm = errors.New("the bundle is not in the form 'writ policy bundle' writes; make it again")

// writeArchive is deterministic.
func writeArchive(content map[string][]byte) ([]byte, error) {
	plain, err := writeTar(content)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = z.Write(plain)
	if err := errors.Join(err, z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func writeTar(content map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(content)) {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content[name])), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := w.Write(content[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// readArchive takes what writeArchive could have written: plain files of packs
// with the manifest and perhaps signatures, each once and in order.
func readArchive(b []byte) (map[string][]byte, error) {
	if len(b) > maxArchive {
		return nil, fmt.Errorf("the bundle has more than %d bytes", maxArchive)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, errors.New("this is no bundle: it is not a tar.gz file")
	}
	z.Multistream(false)
	out, total, last, r := map[string][]byte{}, 0, "", tar.NewReader(io.LimitReader(z, 2*maxTotal))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.New("this is no bundle: the tar archive is broken")
		}
		switch {
		case h.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("%q: a bundle holds plain files only, no links and no directories", h.Name)
		case !bundled(h.Name):
			return nil, fmt.Errorf("%q: a bundle holds /.manifest, /.signatures.json and /<pack>/ with pack.yaml, data.yaml, .rego files and vendor/, no tests", h.Name)
		case h.Name <= last:
			return nil, fmt.Errorf("%q is there twice or out of order", h.Name)
		case h.Size > maxFile || len(out) == maxEntries:
			return nil, fmt.Errorf("%q: the bundle is over its limits: %d bytes a file, %d files", h.Name, maxFile, maxEntries)
		}
		body, err := io.ReadAll(io.LimitReader(r, maxFile+1))
		if err != nil {
			return nil, errors.New("this is no bundle: the tar archive is broken")
		}
		if total += len(body); total > maxTotal {
			return nil, fmt.Errorf("the bundle holds more than %d bytes", maxTotal)
		}
		out[h.Name], last = body, h.Name
	}
	// What is compressed is compared: another compressor may make other bytes of it.
	plain, err := unzip(b)
	if again, errTar := writeTar(out); err != nil || errTar != nil || !bytes.Equal(again, plain) {
		return nil, errForm
	}
	return out, nil
}

// unzip takes one gzip member without a name, and nothing after it.
func unzip(b []byte) ([]byte, error) {
	in := bytes.NewReader(b)
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	out, err := io.ReadAll(io.LimitReader(z, 3*maxTotal))
	if err == nil && (in.Len() > 0 || z.Name != "" || z.Comment != "" || len(z.Extra) > 0) {
		err = errForm
	}
	return out, err
}

var packDir = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

func bundled(name string) bool {
	if name == manifestFile || name == signaturesFile {
		return true
	}
	dir, base := path.Split(name)
	top, vendored := strings.CutSuffix(dir, "/vendor/")
	if top == "" {
		top, vendored = dir, false // a pack of that name
	}
	id := strings.Trim(top, "/")
	switch {
	case strings.TrimSuffix(top, "/") != "/"+id || !packDir.MatchString(id) || strings.HasPrefix(base, "."):
		return false
	case !vendored && (base == "pack.yaml" || base == "data.yaml"):
		return true
	}
	return strings.HasSuffix(base, ".rego") && !strings.HasSuffix(base, "_test.rego")
}
