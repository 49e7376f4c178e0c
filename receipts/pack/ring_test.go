package pack

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// A receipt key counts where it was the one that signs, by what receipts say from the key
// on that the log began with; that one alone is to be trusted.
func TestReceiptKeysAtTheirIndexes(t *testing.T) {
	o := node(t)
	const at = 8 // the sequence after the cast
	says := func(l *lab, c cast) { l.do(call{what: "task.get", by: c.worker, code: writ.CodeNotFound}) }
	ends := func(l *lab, c cast) { // of which the pack of a run has something
		l.begin(c)
		l.accept(c, c.judge)
	}
	seq := func(code Code, seqs ...int) string {
		var out []string
		for _, n := range seqs {
			out = append(out, fmt.Sprintf("%s@%d", code, n))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	for name, x := range map[string]struct {
		play func(l *lab, c cast)
		want string
	}{
		"one key":  {func(l *lab, c cast) { ends(l, c) }, ""},
		"two keys": {func(l *lab, c cast) { l.rotate(c.operator, 1, 3); ends(l, c) }, ""},
		"three keys": {func(l *lab, c cast) {
			l.rotate(c.operator, 1, 3)
			l.begin(c)
			l.rotate(c.operator, 3, 4)
			l.accept(c, c.judge)
		}, ""},
		"the old one again": {func(l *lab, c cast) {
			old, _ := l.rotate(c.operator, 1, 3)
			says(l, c)
			l.signs(old)
			says(l, c)
		}, seq(KeyNotThen, at+3)},
		"the new one too early": {func(l *lab, c cast) {
			old, now := l.signer(1), l.signer(3)
			l.introduce(c.operator, now, move("key", old.about.SPKI, "", "active"))
			l.signs(now)
			says(l, c)
			l.signs(old)
			l.activate(c.operator, now, old)
			l.signs(now)
			says(l, c)
		}, seq(KeyNotThen, at+1)},
		"the new one at once": {func(l *lab, c cast) { // the receipt that makes it the signing one is signed by the one before
			old, now := l.signer(1), l.signer(3)
			l.introduce(c.operator, now, move("key", old.about.SPKI, "", "active"))
			l.signs(now)
			l.activate(c.operator, now, old)
			says(l, c)
		}, seq(KeyNotThen, at+1, at+2)},
		"one that was never introduced": {func(l *lab, c cast) { l.signs(l.signer(3)); says(l, c) }, seq(KeyOther, at) + " key_untrusted@-1"},
		"one that introduces itself": {func(l *lab, c cast) {
			l.signs(l.signer(3))
			l.introduce(c.operator, l.signer(3))
		}, seq(KeyOther, at) + " key_untrusted@-1"},
		"one that was taken back": {func(l *lab, c cast) {
			now := l.signer(3)
			l.introduce(c.operator, now, move("key", l.signer(1).about.SPKI, "", "active"))
			l.ofKey(c.operator, writ.KeyRetire, now.about, move("key", now.about.SPKI, "introduced", "retired"))
			l.signs(now)
			says(l, c)
		}, seq(KeyNotThen, at+2)},
		"revoked when nothing more was signed": {func(l *lab, c cast) {
			old, _ := l.rotate(c.operator, 1, 3)
			l.revoke(c.operator, old, 0)
			ends(l, c)
		}, ""},
		"revoked since a receipt before": {func(l *lab, c cast) {
			says(l, c)
			says(l, c)
			old, now := l.rotate(c.operator, 1, 3)
			l.signs(old)
			says(l, c) // in vain: it was retired
			l.signs(now)
			l.revoke(c.operator, old, at+4)
			says(l, c)
		}, seq(KeyNotThen, at+4)},
		"revoked since before the one that follows": {func(l *lab, c cast) {
			says(l, c)
			old, _ := l.rotate(c.operator, 1, 3)
			l.revoke(c.operator, old, at+1)
			says(l, c)
		}, seq(KeyNotThen, at+1, at+2, at+3, at+4)},
		"revoked, and two that follow": {func(l *lab, c cast) {
			old, _ := l.rotate(c.operator, 1, 3)
			l.rotate(c.operator, 3, 4)
			l.revoke(c.operator, old, at+1)
			says(l, c)
		}, seq(KeyNotThen, at+1, at+2, at+3, at+4, at+5)},
		"made the signing one, and never introduced": {func(l *lab, c cast) {
			l.activate(c.operator, l.signer(3), l.signer(1))
		}, seq(KeyEvent, at)},
		"made the signing one twice": {func(l *lab, c cast) {
			old, now := l.rotate(c.operator, 1, 3)
			l.activate(c.operator, now, old)
		}, seq(KeyEvent, at+2)},
		"made the signing one beside the other": {func(l *lab, c cast) {
			now := l.signer(3)
			l.introduce(c.operator, now, move("key", l.signer(1).about.SPKI, "", "active"))
			l.ofKey(c.operator, writ.KeyActivate, now.about, move("key", now.about.SPKI, "introduced", "active"))
		}, seq(KeyEvent, at+1)},
		"introduced twice": {func(l *lab, c cast) {
			l.introduce(c.operator, l.signer(3), move("key", l.signer(1).about.SPKI, "", "active"))
			l.introduce(c.operator, l.signer(3))
		}, seq(KeyEvent, at+1)},
		"introduced under the id of another": {func(l *lab, c cast) {
			now := l.signer(3)
			now.about.ID = l.signer(1).about.ID
			l.introduce(c.operator, now)
		}, seq(KeyEvent, at)},
		"revoked while it signs": {func(l *lab, c cast) {
			old, now := l.rotate(c.operator, 1, 3)
			l.revoke(c.operator, old, 0)
			l.revoke(c.operator, now, 0)
		}, seq(KeyEvent, at+3)},
		"retired while it signs": {func(l *lab, c cast) {
			_, now := l.rotate(c.operator, 1, 3)
			l.ofKey(c.operator, writ.KeyRetire, now.about, move("key", now.about.SPKI, "active", "retired"))
		}, seq(KeyEvent, at+2)},
	} {
		t.Run(name, func(t *testing.T) {
			l := world(t)
			c := l.cast()
			trust := l.trust()
			x.play(l, c)
			f := l.export(Options{})
			a := both(t, o, name, f, f, trust, Ask{})
			if got := strings.Join(a.Codes, " "); got != x.want {
				t.Errorf("got %q, want %q", got, x.want)
			}
			if self := both(t, o, name, f, f, Trust{}, Ask{}); (self.Exit == 0) != (x.want == "") {
				t.Errorf("without keys: got %v", self.Codes)
			}
			if l.runs[c.run] == 0 {
				return
			}
			f = l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
			if a := both(t, o, name+"run", f, f, trust, Ask{Run: c.run, Close: true}); a.Exit != 0 {
				t.Errorf("of a run: got %v", a.Codes)
			}
		})
	}
}

// What is said of keys is in every pack; where it was taken out, what a later key signed is no good.
func TestWhatIsSaidOfKeysIsInEveryPack(t *testing.T) {
	o := node(t)
	l := world(t)
	c := l.cast()
	trust := l.trust()
	l.do(call{what: "approval.ask", by: c.operator, request: true, args: map[string]any{}, moves: []writ.Change{move("approval", ulid("apr", 1), "", "pending")}})
	l.begin(c)
	old, _ := l.rotate(c.operator, 1, 3)
	changed := len(l.list)
	l.accept(c, c.judge)
	ended := len(l.list) - 1
	l.do(call{what: "approval.vote", by: c.judge, args: map[string]any{}, moves: []writ.Change{move("approval", ulid("apr", 1), "pending", "approved")}})
	l.do(call{what: writ.KeyRevoke, by: c.operator, key: old.about, args: map[string]any{}, moves: []writ.Change{
		move("key", old.about.SPKI, "retired", "revoked"), move("approval", ulid("apr", 1), "approved", "consumed"),
	}})
	last := len(l.list) - 1
	both3 := Trust{LogKey: trust.LogKey, Keys: [][]byte{trust.Keys[0], l.pub()}}
	run := Scope{Kind: ScopeRun, Run: c.run}
	for name, x := range map[string]struct {
		scope  Scope
		trust  Trust
		change func(files)
		want   string
	}{
		"a run":                             {run, trust, nil, ""},
		"a run, with both":                  {run, both3, nil, ""},
		"what came before":                  {Scope{Kind: ScopeRange, Last: 8}, trust, nil, ""},
		"what came between":                 {Scope{Kind: ScopeRange, First: 2, Last: 10}, trust, nil, ""},
		"what came after":                   {Scope{Kind: ScopeRange, First: int64(changed), Last: int64(ended)}, trust, nil, ""},
		"a run, with the later one":         {run, Trust{LogKey: trust.LogKey, Keys: [][]byte{l.pub()}}, nil, "key_other key_untrusted"},
		"what came after, with the later":   {Scope{Kind: ScopeRange, First: int64(changed), Last: int64(ended)}, Trust{LogKey: trust.LogKey, Keys: [][]byte{l.pub()}}, nil, "key_other key_untrusted"},
		"a run, nothing said":               {run, trust, l.without(changed-2, changed-1, last), "key_other key_untrusted"},
		"a run, nothing said, with both":    {run, both3, l.without(changed-2, changed-1, last), "key_not_valid_then"},
		"a run, never introduced":           {run, trust, l.without(changed - 2), "key_event key_other key_untrusted"},
		"a run, never made the signing one": {run, trust, l.without(changed - 1), "key_not_valid_then"},
		"a run, the key is gone":            {run, trust, drop(keyName(2)), "key_other"},
		"a range, and one more": {Scope{Kind: ScopeRange, Last: 8}, trust, func(p files) {
			p[receiptName(9)], p[evidenceName(9)] = l.export(Options{})[receiptName(9)], l.export(Options{})[evidenceName(9)]
		}, "receipt_extra"},
	} {
		t.Run(name, func(t *testing.T) {
			f := l.export(Options{Scope: x.scope})
			changed := f
			if x.change != nil {
				changed = f.with(x.change)
			}
			ask := Ask{}
			if x.scope == run && x.want == "" {
				ask = Ask{Run: c.run, Close: true}
			}
			a := both(t, o, name, f, changed, x.trust, ask)
			if got := a.each(); got != x.want {
				t.Errorf("got %q, want %q", got, x.want)
			}
		})
	}
}

// The manifest of keys says from where in the log and until where each signs, by which receipts, whatever is asked for, and at
// an earlier checkpoint what was true there.
func TestThePackSaysWhichKeySignsWhere(t *testing.T) {
	l := world(t)
	c := l.cast()
	l.begin(c)
	before := l.checkpoint(len(l.list))
	n := len(l.list)
	old, now := l.rotate(c.operator, 1, 3)
	l.accept(c, c.judge)
	closed := l.checkpoint(len(l.list))
	l.introduce(c.operator, l.signer(4))
	l.revoke(c.operator, old, 10)
	at := func(i int) string { return string(l.list[i].ID) }
	last := len(l.list) - 1
	want := fmt.Sprintf(`{"keys":[{"from":0,"keyId":"%s","retired":"%s","revoked":"%s","revokedFrom":10,"spki":"%s","state":"revoked","until":%d},`,
		old.about.ID, at(n+1), at(last), old.about.SPKI, n+1) +
		fmt.Sprintf(`{"activated":"%s","from":%d,"introduced":"%s","keyId":"%s","spki":"%s","state":"active"},`, at(n+1), n+2, at(n), now.about.ID, now.about.SPKI) +
		fmt.Sprintf(`{"introduced":"%s","keyId":"%s","spki":"%s","state":"introduced"}],"origin":"log.example.org","size":%d}`+"\n", at(last-1), l.signer(4).about.ID, l.signer(4).about.SPKI, last+1)
	for _, s := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}, {Kind: ScopeRange, First: 2, Last: 3}} {
		if got := string(l.export(Options{Scope: s})[FileKeys]); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", s.Kind, got, want)
		}
	}
	// The README's commands name the key that signed what they show, and whose that is by whose word.
	o := node(t)
	for _, s := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}, {Kind: ScopeRange, First: int64(n) + 2, Last: int64(n) + 3}} {
		f := l.export(Options{Scope: s, Checkpoint: closed})
		shows := "a later receipt key: only `writ pack verify` shows that it is the gateway's\ncosign verify-blob-attestation --key keys/receipt-2.pub --bundle " + receiptName(int64(n)+3)
		if got := string(f[FileReadme]); !strings.Contains(got, shows) || strings.Count(got, "keys/receipt-2.pub --bundle") != 1 || strings.Count(got, "--key receipt.pub --bundle") != 1 {
			t.Errorf("%s: its README is\n%s", s.Kind, got)
		}
		if a := both(t, o, s.Kind, f, f, Trust{LogKey: l.logKey(), Keys: [][]byte{old.pem(t)}}, Ask{}); a.Exit != 0 {
			t.Errorf("%s: got %v", s.Kind, a.Codes)
		}
	}
	was := fmt.Sprintf(`{"keys":[{"from":0,"keyId":"%s","spki":"%s","state":"active"}],"origin":"log.example.org","size":%d}`+"\n", old.about.ID, old.about.SPKI, n)
	if got := string(l.export(Options{Checkpoint: before})[FileKeys]); got != was {
		t.Errorf("at an earlier checkpoint: got\n%s\nwant\n%s", got, was)
	}
	// It is nobody's word: both verifiers work it out.
	f := l.export(Options{Checkpoint: before})
	if a := both(t, o, "keys", f, f.with(put(FileKeys, replace(`"state":"active"`, `"state":"active","until":9`))), Trust{LogKey: l.logKey(), Keys: [][]byte{old.pem(t)}}, Ask{}); a.each() != "keys_differ" {
		t.Errorf("another life: got %v", a.Codes)
	}
}

// A file of keys from outside knows what a pack cannot say, and a root vouches for keys that rest on a
// stolen one.
func TestFilesOfKeysFromOutside(t *testing.T) {
	o := node(t)
	seed := sha256.Sum256([]byte("root"))
	root, ec := ed25519.NewKeyFromSeed(seed[:]), privateKey(t, 77)
	l := world(t)
	c := l.cast()
	first := l.pub()
	l.begin(c)
	old, _ := l.rotate(c.operator, 1, 3)
	rotated := len(l.list)
	l.accept(c, c.judge)
	ended := len(l.list)
	l.revoke(c.operator, old, 10)
	all := len(l.list)
	l.do(call{what: "task.get", by: c.worker, code: writ.CodeNotFound})
	other := world(t) // where the first rotation is to another key
	other.begin(other.cast())
	other.rotate(c.operator, 1, 5)
	elsewhere := newLab(t, 6, 1, "log.example.org")
	elsewhere.rotate(elsewhere.cast().operator, 6, 5)

	spki, text, err := receipts.SPKIOf(root.Public())
	if err != nil {
		t.Fatal(err)
	}
	pub, err := receipts.ParsePublicKey(string(text))
	if err != nil {
		t.Fatal(err)
	}
	ofLog := fmt.Sprintf(`{"keyId":"%s","pem":%q,"purpose":"log","spki":"%s","state":"active"}`, pub.ID, text, spki)
	run := Options{Scope: Scope{Kind: ScopeRun, Run: c.run}}
	key := func(file []byte) Trust { return Trust{LogKey: l.logKey(), Keys: [][]byte{first}, KeysFile: file} }
	rooted := func(file []byte, k crypto.Signer) Trust {
		return Trust{LogKey: l.logKey(), KeysFile: file, Root: []byte(pemOf(t, k))}
	}
	log := func(n int) Options { return Options{Checkpoint: l.checkpoint(n)} }
	for name, x := range map[string]struct {
		options Options
		trust   Trust
		change  func(files)
		want    string // codes, or an error
	}{
		"no file":                             {log(all), Trust{LogKey: l.logKey(), Keys: [][]byte{first}}, nil, "key_not_valid_then"},
		"a root":                              {log(all + 1), rooted(l.keysFile(first, all, root), root), nil, "key_not_valid_then"},
		"a root, of what is good":             {Options{Scope: Scope{Kind: ScopeRange, First: int64(rotated), Last: int64(ended)}}, rooted(l.keysFile(first, all, root), root), nil, "key_not_valid_then"},
		"another kind of root":                {log(all), rooted(l.keysFile(first, all, ec), ec), nil, "key_not_valid_then"},
		"the same, not signed by a root":      {log(all), key(l.keysFile(first, all, root)), nil, "key_not_valid_then"},
		"before the revocation":               {log(ended), Trust{LogKey: l.logKey(), Keys: [][]byte{first}}, nil, ""},
		"before it, and a file that knows":    {log(ended), key(l.keysFile(first, all, l.priv)), nil, "key_not_valid_then"},
		"before it, and a file that does not": {log(ended), key(l.keysFile(first, ended, l.priv)), nil, ""},
		"a file from before the rotation":     {log(ended), key(l.keysFile(first, rotated-2, old.priv)), nil, ""},
		"a root from before the rotation":     {log(ended), rooted(l.keysFile(first, rotated-2, root), root), nil, ""},
		"left out of the pack of a run":       {run, Trust{LogKey: l.logKey(), Keys: [][]byte{first}}, l.without(ended), ""},
		"left out, and a file that knows":     {run, key(l.keysFile(first, all, l.priv)), l.without(ended), "key_not_valid_then receipt_missing"},
		"a file of another story":             {log(ended), key(other.keysFile(first, len(other.list), other.priv)), nil, "key_event key_other key_untrusted"},
		"a file of a log with another key":    {log(ended), key(elsewhere.keysFile(elsewhere.signer(6).pem(t), len(elsewhere.list), root)), nil, "error"},
		"a root of another":                   {log(ended), rooted(l.keysFile(first, all, root), ec), nil, "error"},
		"a root, and no file":                 {log(ended), rooted(nil, root), nil, "error"},
		"a file that is none":                 {log(ended), key([]byte("{}")), nil, "error"},
		"a file that leaves something out":    {log(ended), rooted(cut(t, l.keysFile(first, all, root)), root), nil, "error"},
		"a file signed by a key that is over": {log(ended), key(l.keysFile(first, all, old.priv)), nil, "error"},
		"a file in other letters":             {log(ended), key(bytes.Replace(l.keysFile(first, ended, l.priv), []byte(`"receipts"`), []byte(`"Receipts"`), 1)), nil, "error"},
		"a file that says a thing twice":      {log(ended), key(bytes.Replace(l.keysFile(first, ended, l.priv), []byte(`{"format"`), []byte(`{"receipts":[],"format"`), 1)), nil, "error"},
		"a file that says more":               {log(ended), key(bytes.Replace(l.keysFile(first, ended, l.priv), []byte(`{"format"`), []byte(`{"more":1,"format"`), 1)), nil, "error"},
		"a file with an envelope in others":   {log(ended), key(bytes.Replace(l.keysFile(first, ended, l.priv), []byte(`"payload"`), []byte(`"Payload"`), 1)), nil, "error"},
		"a file that is laid out":             {log(ended), key(laid(t, l.keysFile(first, ended, l.priv))), nil, ""},
		"a manifest nobody need sign":         {log(ended), key(remade(t, l.keysFile(first, ended, root), "", "")), nil, ""},
		"a key of the log in it":              {log(ended), key(remade(t, l.keysFile(first, ended, root), `],"log":`, `,`+ofLog+`],"log":`)), nil, ""},
		"a key for something else":            {log(ended), key(remade(t, l.keysFile(first, ended, root), `],"log":`, `,`+strings.Replace(ofLog, `"log"`, `"x"`, 1)+`],"log":`)), nil, "error"},
		"a key of the log with more":          {log(ended), key(remade(t, l.keysFile(first, ended, root), `],"log":`, `,{"from":1,`+ofLog[1:]+`],"log":`)), nil, "error"},
		"a key of the log spelled otherwise":  {log(ended), key(remade(t, l.keysFile(first, ended, root), `],"log":`, `,`+strings.Replace(ofLog, `-----BEGIN`, `x\n-----BEGIN`, 1)+`],"log":`)), nil, "error"},
		"a key spelled otherwise":             {log(ended), key(remade(t, l.keysFile(first, ended, root), `"pem":"-----BEGIN`, `"pem":"x\n-----BEGIN`)), nil, "error"},
		"a manifest of other receipts":        {log(ended), key(remade(t, l.keysFile(first, ended, root), `"sha256":"`, `"sha256":"0`)), nil, "error"},
		"a manifest with other receipts":      {log(ended), key(remade(t, l.keysFile(first, ended, root), `"introduced":"rcp_0`, `"introduced":"rcp_1`)), nil, "error"},
		"a manifest of another tenant":        {log(ended), key(remade(t, l.keysFile(first, ended, root), `"tenant":"default"`, `"tenant":"other"`)), nil, "error"},
		"a manifest of another log":           {log(ended), key(remade(t, l.keysFile(first, ended, root), `{"origin":"log.`, `{"origin":"logs.`)), nil, "error"},
		"a manifest laid out":                 {log(ended), key(remade(t, l.keysFile(first, ended, root), `"predicate":`, `"predicate": `)), nil, "error"},
		"a file in another order":             {log(ended), key(swapped(t, l.keysFile(first, ended, l.priv))), nil, "error"},
		"a file in other escapes":             {log(ended), key(bytes.Replace(l.keysFile(first, ended, l.priv), []byte(`"writ-keys/v1"`), []byte(`"writ\u002dkeys/v1"`), 1)), nil, "error"},
		"a root with a header":                {log(all), Trust{LogKey: l.logKey(), KeysFile: l.keysFile(first, all, root), Root: bytes.Replace([]byte(pemOf(t, root)), []byte("\n"), []byte("\nNote: x\n"), 1)}, nil, "key_not_valid_then"},
		"a root that is indented":             {log(all), Trust{LogKey: l.logKey(), KeysFile: l.keysFile(first, all, root), Root: []byte(" " + pemOf(t, root))}, nil, "error"},
		"a file that says another life":       {log(ended), key(bytes.Replace(l.keysFile(first, all, l.priv), []byte(`"receipts":[{`), []byte(`"receipts":[{"x":1,`), 1)), nil, "error"},
	} {
		t.Run(name, func(t *testing.T) {
			f := l.export(x.options)
			changed := f
			if x.change != nil {
				changed = f.with(x.change)
			}
			if x.want == "error" {
				if r, err := Verify(f.pack(), x.trust, Ask{}); err == nil {
					t.Errorf("got %+v", r)
				}
				if o != nil {
					if a := o.check(name, f, changed, x.trust, Ask{}); a.Exit != 4 {
						t.Errorf("the other got %+v", a)
					}
				}
				return
			}
			a := both(t, o, name, f, changed, x.trust, Ask{})
			if got := a.each(); got != x.want {
				t.Errorf("got %q, want %q", got, x.want)
			}
			// What the second key signed rests on the first, unless a root vouches for it.
			later := slices.ContainsFunc(a.Codes, func(s string) bool { return s == fmt.Sprintf("key_not_valid_then@%d", rotated) })
			if later != (len(x.trust.Root) == 0 && strings.HasPrefix(x.want, "key_not_valid_then")) {
				t.Errorf("of what the second key signed: got %v", a.Codes)
			}
		})
	}
}

func (s signer) pem(t *testing.T) []byte {
	t.Helper()
	text, err := receipts.PublicPEM(&s.priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// laid is a file of keys with spaces and lines.
func laid(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// remade is a file of keys whose manifest says something else, signed by nobody: where no root is trusted nobody need.
func remade(t *testing.T, text []byte, old, now string) []byte {
	t.Helper()
	var f receipts.KeysFile
	var e struct{ Payload []byte }
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(f.Manifest, &e); err != nil || !bytes.Contains(e.Payload, []byte(old)) {
		t.Fatalf("%v: no %s in %s", err, old, e.Payload)
	}
	payload := bytes.Replace(e.Payload, []byte(old), []byte(now), 1)
	if strings.HasPrefix(now, `"sha256":"`) { // of as many digits
		payload = regexp.MustCompile(`("sha256":"0[0-9a-f]{63})[0-9a-f]`).ReplaceAll(payload, []byte("$1"))
	}
	env, err := receipts.Envelope(writ.Receipt{Payload: payload, KeyID: "SHA256:" + strings.Repeat("A", 43), Sig: []byte("none")})
	if err != nil {
		t.Fatal(err)
	}
	f.Manifest = env
	out, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// swapped is a file of keys with the members of its manifest's envelope in another order.
func swapped(t *testing.T, text []byte) []byte {
	t.Helper()
	out := regexp.MustCompile(`"manifest":\{("payloadType":"[^"]*"),("payload":"[^"]*")`).ReplaceAll(text, []byte(`"manifest":{$2,$1`))
	if bytes.Equal(out, text) {
		t.Fatal("nothing changed")
	}
	return out
}

// cut takes the last receipt out of a file of keys.
func cut(t *testing.T, text []byte) []byte {
	t.Helper()
	var f receipts.KeysFile
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	f.Receipts = f.Receipts[:len(f.Receipts)-1]
	out, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
