package jail

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// A first process that ends before it read all it was told has said why, and is heard.
func TestHeardAfterAReset(t *testing.T) {
	mine, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mine.Close() }()
	if _, err := mine.Write([]byte("never read")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Send(int(theirs.Fd()), []byte("why"), 0); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if b, _, err := readMessage(mine, buf, nil); string(b) != "why" {
		t.Errorf("it said %q: %v", b, err)
	}
	if _, _, err := readMessage(mine, buf, nil); !errors.Is(err, io.EOF) {
		t.Errorf("then %v", err)
	}
}
