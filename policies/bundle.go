package policies

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// A bundle is the loaded sources as one tar (POSIX ustar): sorted names, mode
// 0644, no owner, no time. The same sources always give the same bytes, so the
// digest names them.

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	out := [7 + 2*sha256.Size]byte{'s', 'h', 'a', '2', '5', '6', ':'} // one allocation: every decision has a digest
	hex.Encode(out[7:], sum[:])
	return string(out[:])
}

func writeBundle(f files) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range f.names() {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(f[name])), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := w.Write(f[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// readBundle is the inverse of writeBundle and takes nothing else: bytes that
// would be written differently are refused, so no two bundles hold one source.
func readBundle(b []byte) (files, error) {
	if len(b) > 2*maxTotalBytes {
		return nil, fmt.Errorf("more than %d bytes", 2*maxTotalBytes)
	}
	out, total, r := files{}, 0, tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if !bundled(h.Name) {
			return nil, errors.New("the bundle holds a file that is neither a pack's nor the roles'")
		}
		body, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		if total += len(body); len(body) > maxFileBytes || total > maxTotalBytes || len(out) == maxFiles {
			return nil, fmt.Errorf("%s: the bundle is over its limits", h.Name)
		}
		out[h.Name] = body
	}
	again, err := writeBundle(out)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, errors.New("the bundle is not in its canonical form")
	}
	return out, nil
}

func bundled(name string) bool {
	if name == modelFile || name == rowsFile {
		return true
	}
	id, base, ok := inPackDir(name)
	if !ok || !packID.MatchString(id) {
		return false
	}
	wanted, err := decides(base)
	return wanted && err == nil
}
