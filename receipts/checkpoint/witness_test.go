package checkpoint_test

import (
	"encoding/base64"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-gateway/writ/receipts/checkpoint"
	"github.com/writ-gateway/writ/receipts/tlog/witnesstest"
)

// What a witness signs and its key are as C2SP has them: changed, no other program finds
// its signature. Pinned of the key of 32 times 07.
const (
	pinnedKey  = "witness.example+d831bcf1+BOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"
	pinnedLine = "— witness.example 2DG88QAAAABlU/EAPqhjuRYzLhi2WB0e2gEh+Mwk8uziahMLHtjQgCFBQw/L04GZlNwk5G4OMjq+TBE8/N6rv5P4wg3Q7kQebaiRCw==\n"
)

func TestCosignatureIsPinned(t *testing.T) {
	w := witnesstest.New("witness.example", 7)
	w.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
	if w.Key() != pinnedKey {
		t.Fatalf("the key is %s", w.Key())
	}
	text := "writ.local\n3\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n\n— writ.local AAAAAAA=\n"
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, httptest.NewRequest("POST", "/add-checkpoint", strings.NewReader("old 0\n\n"+text)))
	if rec.Code != 200 || rec.Body.String() != pinnedLine {
		t.Fatalf("%d %q", rec.Code, rec.Body)
	}
	key, err := checkpoint.NewWitness(pinnedKey)
	if err != nil || key.String() != pinnedKey || key.Name() != "witness.example" {
		t.Fatal(key, err)
	}
	whole, err := key.Keep([]byte(text), []byte("— somebody.else AAAAAAA=\n"+pinnedLine))
	if err != nil || string(whole) != text+pinnedLine {
		t.Fatalf("%q, %v", whole, err)
	}
	if at, err := key.At(whole); err != nil || at.Unix() != 1_700_000_000 {
		t.Errorf("%v, %v", at, err)
	}
	if _, err := key.At([]byte(text)); !errors.Is(err, checkpoint.ErrNotCosigned) {
		t.Errorf("without its line: %v", err)
	}
	if _, err := key.Keep([]byte(text), []byte("— somebody.else AAAAAAA=\n")); !errors.Is(err, checkpoint.ErrNotCosigned) {
		t.Errorf("of another: %v", err)
	}
	// Anything that is changed shows: what is signed, when, and by whom.
	raw, err := base64.StdEncoding.DecodeString(strings.Fields(pinnedLine)[2])
	if err != nil || len(raw) != 4+8+64 {
		t.Fatal(len(raw), err)
	}
	for i := 4; i < len(raw); i++ {
		c := append([]byte{}, raw...)
		c[i] ^= 1
		if at, err := key.At([]byte(text + "— witness.example " + base64.StdEncoding.EncodeToString(c) + "\n")); !errors.Is(err, checkpoint.Err) {
			t.Fatalf("byte %d: %v, %v", i, at, err)
		}
	}
	if _, err := key.At([]byte(strings.Replace(string(whole), "\n3\n", "\n4\n", 1))); !errors.Is(err, checkpoint.Err) {
		t.Errorf("of another checkpoint: %v", err)
	}
}

// Of several witnesses as many must have signed as are asked for; what one of them has not
// signed and names its key is wrong however many others have.
func TestSoManyWitnesses(t *testing.T) {
	text := []byte("writ.local\n3\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n\n— writ.local AAAAAAA=\n")
	var keys []*checkpoint.Witness
	for i, name := range []string{"one.example", "two.example", "three.example"} {
		w := witnesstest.New(name, byte(i+1))
		key, err := checkpoint.NewWitness(w.Key())
		if err != nil {
			t.Fatal(err)
		}
		if keys = append(keys, key); i == 2 {
			break
		}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, httptest.NewRequest("POST", "/add-checkpoint", strings.NewReader("old 0\n\n"+string(text))))
		if text, err = key.Keep(text, rec.Body.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	one, two, three := keys[0], keys[1], keys[2]
	for _, c := range []struct {
		by   []*checkpoint.Witness
		need int
		want int
		err  error
	}{
		{nil, 0, 0, nil},
		{[]*checkpoint.Witness{one, two}, 0, 2, nil},
		{[]*checkpoint.Witness{one, one}, 0, 1, nil},
		{[]*checkpoint.Witness{one, one}, 2, 1, checkpoint.ErrNotCosigned},
		{keys, 2, 2, nil},
		{keys, 1, 2, nil},
		{keys, 0, 2, checkpoint.ErrNotCosigned},
		{keys, 3, 2, checkpoint.ErrNotCosigned},
		{[]*checkpoint.Witness{three}, 1, 0, checkpoint.ErrNotCosigned},
	} {
		if got, err := checkpoint.Cosignatures(text, c.by, c.need); len(got) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%d of %d: got %v, %v", c.need, len(c.by), got, err)
		}
	}
	if _, err := checkpoint.Cosignatures(text, keys, 0); !strings.Contains(err.Error(), "three.example") {
		t.Errorf("it does not name who is missing: %v", err)
	}
	wrong := []byte(strings.Replace(string(text), "\n3\n", "\n4\n", 1))
	if _, err := checkpoint.Cosignatures(wrong, keys, 1); !errors.Is(err, checkpoint.Err) {
		t.Errorf("of another checkpoint: %v", err)
	}
}

func TestKeysOfWitnesses(t *testing.T) {
	_, ed, err := note.GenerateKey(nil, "witness.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "x", "a+b+c", ed, "witness.example+00000000+" + strings.Split(pinnedKey, "+")[2], strings.Replace(pinnedKey, "witness", "other", 1), pinnedKey + "AAAA", "+" + pinnedKey,
		strings.Replace(pinnedKey, "witness.", "witness ", 1), strings.Replace(pinnedKey, "+d831bcf1+", "+zzzzzzzz+", 1),
	} {
		if _, err := checkpoint.NewWitness(bad); err == nil || strings.Contains(err.Error(), "example+") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
