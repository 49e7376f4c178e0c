package pack

import (
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"testing"

	"github.com/writ-gateway/writ/receipts/tlog"
)

// The next shard of a log has the receipts of the one before, which name the log and not
// the shard; a log with any other name has not.
func TestReceiptsInALaterShard(t *testing.T) {
	o := node(t)
	l, c := story(t)
	seed := sha256.Sum256([]byte{1, 1})
	for name, want := range map[string]string{
		"s2.log.example.org": "", "s9999.log.example.org": "", "log.example.org": "",
		"s1.log.example.org": "origin@0", "s02.log.example.org": "origin@0", "s10000.log.example.org": "origin@0", "x2.log.example.org": "origin@0",
		"s2.s2.log.example.org": "origin@0", "s2-log.example.org": "origin@0", "example.org": "origin@0", "s.log.example.org": "origin@0",
	} {
		l.log = tlog.NewKey(name, ed25519.NewKeyFromSeed(seed[:]))
		f := l.export(Options{})
		a := both(t, o, name, f, f, l.trust(), Ask{Run: c.run, Close: true})
		if want == "" && (a.Exit != 0 || a.Receipts != int64(len(l.list))) || want != "" && (a.Exit != 1 || !slices.Contains(a.Codes, want)) {
			t.Errorf("%s: got %+v", name, a)
		}
	}
}
