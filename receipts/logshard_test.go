package receipts

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-gateway/writ"
)

func TestOfLog(t *testing.T) {
	for _, origin := range []string{"writ.local", "s2.example.org"} {
		for _, n := range []int{1, 2, 10, 9999} {
			if name := ShardName(origin, n); !OfLog(name, origin) || !ValidOrigin(name) {
				t.Errorf("%s is not of %s", name, origin)
			}
		}
	}
	for _, name := range []string{"", "s.writ.local", "s1.writ.local", "s02.writ.local", "s10000.writ.local", "s-2.writ.local", "s+2.writ.local", "s2.s3.writ.local", "s2writ.local", "other.local"} {
		if OfLog(name, "writ.local") {
			t.Errorf("%q is of it", name)
		}
	}
}

// A shard has the key of the one before it unless it was begun with its own; what was made
// for a shard that never began is no key of the log.
func TestTheKeyOfAShard(t *testing.T) {
	dir := t.TempDir()
	open := func() []byte {
		t.Helper()
		key, err := OpenLogKey(t.Context(), dir, "", KeyOptions{}, false)
		if err == nil {
			err = KeepLogKey(dir, key)
		}
		if err != nil {
			t.Fatal(err)
		}
		pub, err := PublicPEM(key.Public())
		if text, _, rerr := ReadLogPublic(dir); err != nil || rerr != nil || !bytes.Equal(text, pub) {
			t.Fatalf("the public half is %s, %v, %v", text, err, rerr)
		}
		return pub
	}
	at := func(n int) {
		t.Helper()
		if err := SetLogShard(dir, n); err != nil {
			t.Fatal(err)
		}
		if got, err := LogShard(dir); err != nil || got != n {
			t.Fatalf("it is at %d, %v", got, err)
		}
	}
	first := open()
	if _, err := NewLogKey(t.Context(), dir, "", KeyOptions{}, 2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(open(), first) {
		t.Error("the key of a shard that is not begun is the log's")
	}
	if err := NoLogKey(dir, 2); err != nil {
		t.Fatal(err)
	}
	if err := NoLogKey(dir, 2); err != nil { // there is none
		t.Fatal(err)
	}
	at(2)
	if !bytes.Equal(open(), first) {
		t.Error("the second shard has another key")
	}
	third, err := NewLogKey(t.Context(), dir, "", KeyOptions{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewLogKey(t.Context(), dir, "", KeyOptions{}, 3) // after a crash
	if err != nil {
		t.Fatal(err)
	}
	at(3)
	pub, err := PublicPEM(third.Public())
	if twice, terr := PublicPEM(again.Public()); err != nil || terr != nil || !bytes.Equal(twice, pub) || !bytes.Equal(open(), pub) || bytes.Equal(pub, first) {
		t.Errorf("the third shard has the key %s, and not %s (%v, %v)", open(), pub, err, terr)
	}
	at(4)
	if !bytes.Equal(open(), pub) {
		t.Error("the fourth shard has not the key of the third")
	}
	if _, err := NewLogKey(t.Context(), dir, filepath.Join(dir, "log-3.key"), KeyOptions{}, 5); writ.CodeOf(err) != writ.CodeNotReady {
		t.Errorf("the key it has, as a new one: %v", err)
	}
	// Until the shard is begun another may be chosen.
	elsewhere := filepath.Join(t.TempDir(), "elsewhere.key")
	if text, err := os.ReadFile(filepath.Join(dir, FileLogKey)); err != nil || os.WriteFile(elsewhere, text, 0o600) != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"", elsewhere, ""} {
		key, err := NewLogKey(t.Context(), dir, where, KeyOptions{}, 5)
		if err != nil {
			t.Fatalf("%q: %v", where, err)
		}
		pub, err := PublicPEM(key.Public())
		if text, _, rerr := ReadShardPublic(dir, 5); err != nil || rerr != nil || !bytes.Equal(text, pub) {
			t.Errorf("%q: the public half is %s, %v, %v", where, text, err, rerr)
		}
	}
	if err := NoLogKey(dir, 5); err != nil {
		t.Fatal(err)
	}
	if lost, err := LogKeyLost(dir, ""); lost || err != nil {
		t.Errorf("lost %v, %v", lost, err)
	}
	if err := os.Remove(filepath.Join(dir, "log-3.key")); err != nil {
		t.Fatal(err)
	}
	if lost, err := LogKeyLost(dir, ""); !lost || err != nil {
		t.Errorf("lost %v, %v", lost, err)
	}
	if _, err := OpenLogKey(t.Context(), dir, "", KeyOptions{}, true); writ.CodeOf(err) != writ.CodeNotReady {
		t.Errorf("a key that is gone: %v", err)
	}
	for _, bad := range []string{"", "1\n", "0\n", "x\n", "10000\n"} {
		if err := os.WriteFile(filepath.Join(dir, FileLogShard), []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if n, err := LogShard(dir); err == nil {
			t.Errorf("%q is %d", bad, n)
		}
	}
	if err := SetLogShard(dir, 10000); err == nil {
		t.Error("there is no end")
	}
}
