package ledger

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "write the golden files")

// A ledger of a few records over two segments, the first closed with its
// index, byte by byte; and today's code reads what the files hold.
func TestStoredFiles(t *testing.T) {
	dir, old := t.TempDir(), t.TempDir()
	l := mustOpen(t, dir, 400)
	for _, group := range [][]Entry{entries(0, 2), entries(3, 3), entries(4, 5)} {
		if err := l.Append(group); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, glob := range []string{"*.seg", "*.idx"} {
		files, err := filepath.Glob(filepath.Join(dir, glob))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, files...)
	}
	var list strings.Builder
	for _, path := range names {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		list.WriteString(name + "\n")
		stored := writtest.GoldenBinary(t, *update, name+".hex", text)
		if err := os.WriteFile(filepath.Join(old, name), stored, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writtest.Golden(t, *update, "files.txt", []byte(list.String()))
	if len(names) != 3 {
		t.Fatalf("the golden files are %v, want two segments and an index", names)
	}
	l = mustOpen(t, old, 400)
	got, err := l.Range(-1, 100, "")
	if err != nil {
		t.Fatal(err)
	}
	var want []writ.Receipt
	for _, e := range entries(0, 5) {
		want = append(want, e.Receipt)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read back as %+v", got)
	}
}
