package pack

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-gateway/writ/receipts/tlog"
	"github.com/writ-gateway/writ/receipts/tlog/witnesstest"
)

// Who must have cosigned the checkpoint of a pack has, or it is found: missing, or wrong.
func TestWitnessesOfACheckpoint(t *testing.T) {
	o := node(t)
	l, c := story(t)
	var all []*tlog.WitnessKey
	var lines []string
	for i, name := range []string{"one.example", "two.example", "three.example"} {
		w := witnesstest.New(name, byte(i+1))
		w.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, httptest.NewRequest("POST", "/add-checkpoint", bytes.NewReader(append([]byte("old 0\n\n"), l.checkpoint(len(l.list))...))))
		key, err := tlog.NewWitnessKey(w.Key())
		if err != nil || rec.Code != 200 {
			t.Fatal(rec.Code, err)
		}
		all, lines = append(all, key), append(lines, rec.Body.String())
	}
	one, two, three := all[0], all[1], all[2]
	// spoiled is a line of a key that changes what it signed.
	spoiled := func(line string) string {
		name, sig, _ := bytes.Cut([]byte(line[len("— "):len(line)-1]), []byte(" "))
		raw, err := base64.StdEncoding.DecodeString(string(sig))
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)-1] ^= 1
		return "— " + string(name) + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
	}
	short := func(w *tlog.WitnessKey) string {
		return "— " + w.Name() + " " + base64.StdEncoding.EncodeToString(append(binary.BigEndian.AppendUint32(nil, w.KeyHash()), 1, 2, 3)) + "\n"
	}
	list := func(w ...*tlog.WitnessKey) []*tlog.WitnessKey { return w }
	for name, x := range map[string]struct {
		has    []string // lines of the checkpoint
		by     []*tlog.WitnessKey
		need   int
		want   string
		signed int
	}{
		"nobody asked for":               {lines, nil, 0, "", 0},
		"each of them":                   {lines, all, 0, "", 3},
		"some of them":                   {lines, list(three, one), 0, "", 2},
		"two of three":                   {lines[:2], all, 2, "", 2},
		"one of three":                   {lines[1:2], all, 1, "", 1},
		"two of three, one has":          {lines[:1], all, 2, "witness_missing", 1},
		"each, one has not":              {lines[:2], all, 0, "witness_missing", 2},
		"nobody has":                     {nil, list(one), 0, "witness_missing", 0},
		"one twice":                      {lines[:1], list(one, one), 2, "witness_missing", 1},
		"one twice, each":                {lines[:1], list(one, one), 0, "", 1},
		"one wrong":                      {[]string{spoiled(lines[0]), lines[1]}, list(one, two), 0, "witness_signature", 0},
		"one wrong, though one would do": {[]string{spoiled(lines[0]), lines[1]}, list(one, two), 1, "witness_signature", 0},
		"one wrong, whom nobody asks":    {[]string{spoiled(lines[0]), lines[1]}, list(two), 0, "", 1},
		"one too short":                  {[]string{short(one)}, list(one), 0, "witness_signature", 0},
		"wrong and right":                {[]string{spoiled(lines[0]), lines[0]}, list(one), 0, "witness_signature", 0},
		"right and wrong":                {[]string{lines[0], spoiled(lines[0])}, list(one), 0, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			cp := l.checkpoint(len(l.list))
			for _, line := range x.has {
				cp = append(cp, line...)
			}
			f := l.export(Options{Checkpoint: cp})
			trust := l.trust()
			trust.Witnesses, trust.Need = x.by, x.need
			a := both(t, o, name, f, f, trust, Ask{Run: c.run, Close: true})
			if got := a.each(); got != x.want || len(a.Witnesses) != x.signed || !a.Rules {
				t.Errorf("got %q by %v, want %q", got, a.Witnesses, x.want)
			}
			for _, w := range a.Witnesses {
				if w.At != "2023-11-14T22:13:20Z" {
					t.Errorf("%s signed at %s", w.Name, w.At)
				}
			}
		})
	}
	// A signature of the log's own key is no witness', whatever it is called.
	key, err := note.NewEd25519VerifierKey("one.example", ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize)).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tlog.NewWitnessKey(key); err == nil {
		t.Error("a key of another kind is taken")
	}
}

// Lines of others in a checkpoint are under no signature: both verifiers read them in the one form
// there is of them, or say that the checkpoint is none.
func TestLinesOfOthersInACheckpoint(t *testing.T) {
	o := node(t)
	l, c := story(t)
	f := l.export(Options{})
	for name, x := range map[string]struct {
		line string
		exit int
	}{
		"none":                         {"", 0},
		"somebody else's":              {"— other.example AAAAAAE=\n", 0},
		"with a name of other letters": {"— öther.example AAAAAAE=\n", 0},
		"base64 of its own":            {"— other.example AAAAAAB=\n", 1},
		"a name with a hard space":     {"— other\u00a0example AAAAAAE=\n", 1},
		"a name that is no text":       {"— other\xff AAAAAAE=\n", 1},
		"longer than anybody needs":    {"— other.example " + strings.Repeat("AAAA", 5000) + "\n", 1},
	} {
		changed := f.with(func(p files) {
			was := p[FileCheckpoint]
			now := append(bytes.Clone(was), x.line...)
			in := func(text []byte) []byte { return bytes.ReplaceAll(text, []byte("\n"), []byte(`\n`)) } // as bundles have it
			for name, text := range p {
				if receiptPath.MatchString(name) {
					p[name] = bytes.Replace(text, in(was), in(now), 1)
				}
			}
			p[FileCheckpoint] = now
		})
		if a := both(t, o, name, f, changed, l.trust(), Ask{Run: c.run, Close: true}); a.Exit != x.exit {
			t.Errorf("%s: got %v, want exit %d", name, a.Codes, x.exit)
		}
	}
}
