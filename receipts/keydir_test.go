package receipts

import (
	"bytes"
	"os"
	"testing"

	"github.com/writ-gateway/writ"
)

// A name without a directory is a file of the one the program runs in.
func TestWriteHere(t *testing.T) {
	t.Chdir(t.TempDir())
	g, err := Generate(writ.KeyRoot, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Write("root.key", g.Private, true); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("root.key"); err != nil || !bytes.Equal(got, g.Private) {
		t.Errorf("got %q, %v", got, err)
	}
	if list, err := os.ReadDir("."); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
}
