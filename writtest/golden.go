package writtest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Golden compares with testdata/stored/<name> of the package under test, or
// writes the file when update is set. What is in these files lies in the stores
// of users: a difference is a migration, not an edit.
func Golden(t testing.TB, update bool, name string, got []byte) {
	t.Helper()
	GoldenFile(t, update, filepath.Join("testdata", "stored", name), got)
}

// GoldenFile is Golden for a file at another path.
func GoldenFile(t testing.TB, update bool, path string, got []byte) {
	t.Helper()
	if update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs.\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// GoldenDoc is Golden for a document as the store holds it.
func GoldenDoc(t testing.TB, update bool, name string, doc []byte) {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, doc, "", "  "); err != nil {
		t.Fatal(err)
	}
	out.WriteByte('\n')
	Golden(t, update, name, out.Bytes())
}

// GoldenBinary is Golden for bytes, kept as lines of hexadecimal digits. It
// returns what the file holds, for a test that today's code still reads it.
func GoldenBinary(t testing.TB, update bool, name string, got []byte) []byte {
	t.Helper()
	var b strings.Builder
	for rest := got; len(rest) > 0; {
		n := min(32, len(rest))
		b.WriteString(hex.EncodeToString(rest[:n]) + "\n")
		rest = rest[n:]
	}
	Golden(t, update, name, []byte(b.String()))
	text, err := os.ReadFile(filepath.Join("testdata", "stored", name))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return stored
}
