package checkpoint

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// body is what a checkpoint of three receipts says.
const body = "writ.local\n3\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n"

func signer(t *testing.T, name string) (note.Signer, string) {
	t.Helper()
	secret, key, err := note.GenerateKey(nil, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return s, key
}

func sign(t *testing.T, says string, by ...note.Signer) []byte {
	t.Helper()
	text, err := note.Sign(&note.Note{Text: says}, by...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What replies carry is the note with the log's signature alone, and reads as the whole does.
func TestCompact(t *testing.T) {
	log, key := signer(t, "writ.local")
	witness, _ := signer(t, "witness.example")
	alone := sign(t, body, log)
	whole := append(append([]byte{}, alone...), sign(t, body, witness)[len(body)+1:]...)
	c, err := Parse(whole, key)
	if err != nil || c.Size != 3 || c.Root != tlog.Hash([]byte(strings.Repeat("\x03", 32))) {
		t.Fatalf("%+v, %v", c, err)
	}
	if want := base64.StdEncoding.EncodeToString(alone); c.Compact() != want {
		t.Errorf("got %s, want %s", c.Compact(), want)
	}
	text, err := FromCompact(c.Compact())
	if err != nil || string(text) != string(alone) {
		t.Errorf("%q, %v", text, err)
	}
	if n := len((Checkpoint{Text: sign(t, strings.Repeat("a", 253)+"\n100000000000000\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n", log)}).Compact()); n > 1024 {
		t.Errorf("%d bytes do not fit where other replicas find it", n)
	}
	for _, bad := range []string{"%", "AB", strings.Repeat("A", MaxText+4)} {
		if _, err := FromCompact(bad); !errors.Is(err, Err) {
			t.Errorf("%.9q: %v", bad, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	log, key := signer(t, "writ.local")
	other, otherKey := signer(t, "other.example")
	if _, err := Parse(sign(t, body, log), otherKey); !errors.Is(err, Err) {
		t.Errorf("of another key: %v", err)
	}
	if _, err := Parse(sign(t, body, other), otherKey); !errors.Is(err, Err) {
		t.Errorf("of another log: %v", err)
	}
	for _, bad := range []string{
		"writ.local\n3\n", "writ.local\n03\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n", "writ.local\n-3\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n",
		"writ.local\n3\nAwMD\n", "\n3\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n", "writ.local\n3\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwN=\n",
	} {
		text := sign(t, bad, log)
		if _, err := Parse(text, key); !errors.Is(err, Err) {
			t.Errorf("%q: %v", bad, err)
		}
		if _, _, err := Unverified(text); !errors.Is(err, Err) {
			t.Errorf("%q unverified: %v", bad, err)
		}
	}
	if origin, c, err := Unverified(sign(t, body, other)); err != nil || origin != "writ.local" || c.Size != 3 || !strings.HasPrefix(c.String(), "3 receipts, root AwMD") {
		t.Errorf("%q, %v, %v", origin, c, err)
	}
	if _, err := Parse(nil, "nonsense"); err == nil {
		t.Error("no key is a key")
	}
}

func TestConsistent(t *testing.T) {
	at := func(size int64, b byte) Checkpoint {
		return Checkpoint{Size: size, Root: tlog.Hash([]byte(strings.Repeat(string([]byte{b}), 32)))}
	}
	one, two := tlog.RecordHash([]byte("1")), tlog.RecordHash([]byte("2"))
	older, newer := Checkpoint{Size: 1, Root: one}, Checkpoint{Size: 2, Root: tlog.NodeHash(one, two)}
	for _, v := range []struct {
		name         string
		older, newer Checkpoint
		hashes       []tlog.Hash
		want         bool
	}{
		{"grew", older, newer, []tlog.Hash{two}, true},
		{"another proof", older, newer, []tlog.Hash{one}, false},
		{"no proof", older, newer, nil, false},
		{"back", newer, older, []tlog.Hash{two}, false},
		{"the same", older, older, nil, true},
		{"the same size", at(5, 1), at(5, 2), nil, false},
		{"of nothing", Checkpoint{}, newer, nil, true},
	} {
		if got := Consistent(v.older, v.newer, v.hashes); got != v.want {
			t.Errorf("%s: %v", v.name, got)
		}
	}
}
