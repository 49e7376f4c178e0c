package tlog

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// The form of a bundle and of what tells stock tools to believe the log is theirs.
func TestBundlesArePinned(t *testing.T) {
	key := testKey(t)
	l, err := Open(t.TempDir(), key)
	if err != nil {
		t.Fatal(err)
	}
	r := writ.Receipt{Seq: 1, KeyID: "SHA256:k", Payload: []byte(`{"a":1}`), Sig: []byte("sig")}
	if err := l.Append([][]byte{leafOf(0), Leaf(r, []byte("der")), leafOf(2)}); err != nil {
		t.Fatal(err)
	}
	pretty := func(b []byte, err error) []byte {
		t.Helper()
		var v any
		if err == nil {
			err = json.Unmarshal(b, &v)
		}
		if err != nil {
			t.Fatal(err)
		}
		out, _ := json.MarshalIndent(v, "", "  ")
		return append(out, '\n')
	}
	writtest.GoldenFile(t, *update, "testdata/bundle-not-included.json", pretty(Bundle(r)))
	if _, err := l.Publish(); err != nil {
		t.Fatal(err)
	}
	p, ok, err := l.Include(1)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	r.Inclusion = p.Receipt()
	writtest.GoldenFile(t, *update, "testdata/bundle.json", pretty(Bundle(r)))
	writtest.GoldenFile(t, *update, "testdata/trusted_root.json", pretty(TrustedRoot(key.Name(), key.Public(), time.Unix(0, 0))))
}
