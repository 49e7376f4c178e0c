package pack

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// judgedBy is a run that is closed by verdicts of a key, each logged itself.
func judgedBy(t *testing.T, key crypto.Signer) (*lab, cast, writ.Actor) {
	t.Helper()
	l := world(t)
	l.logs = true
	c := l.cast()
	l.register(c.operator, "", "planner", "worker")
	l.register(c.operator, pemOf(t, key), "judge")
	judge := l.open(c.operator, ses(9), "judge", writ.KindAgent, writ.RoleVerifier, "judge", "vera")
	l.begin(c)
	l.verdict(c, judge, key, "task/"+c.task, acceptsLinted, call{
		what: "task.verify", args: map[string]any{"receipt_id": l.last["task/"+c.task], "gates": []any{map[string]any{"gate": "lint", "status": "pass"}}},
		moves: []writ.Change{move("task", c.task, "verifying", "done"), move("run", string(c.run), "active", "verifying")},
	})
	return l, c, judge
}

// verdict is one that a key signs on the last change of an object.
func (l *lab) verdict(c cast, judge writ.Actor, key crypto.Signer, on string, says []string, x call) {
	want := l.wants(on, says)
	want.Now += 1000 // the verdict takes a place of its own
	x.by, x.run, x.policy, x.signed = judge, c.run, inForce, signs(l.t.(*testing.T), key, l.statement(want))
	l.do(x)
}

func (l *lab) closes(c cast, judge writ.Actor, key crypto.Signer) {
	l.verdict(c, judge, key, "run/"+string(c.run), accepts, call{
		what: "run.close", args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]}, moves: []writ.Change{move("run", string(c.run), "verifying", "done")},
	})
}

// Each verdict is in the pack as its verifier signed it, before the receipt that rests on it,
// whatever the pack is of; and the report says where.
func TestVerdictsAreLoggedThemselves(t *testing.T) {
	o := node(t)
	for name, key := range map[string]crypto.Signer{"P-256": privateKey(t, 9), "Ed25519": ed25519.NewKeyFromSeed(make([]byte, 32))} {
		l, c, judge := judgedBy(t, key)
		l.closes(c, judge, key)
		end := int64(len(l.list)) - 1
		for which, scope := range map[string]Scope{
			"log": {Kind: ScopeLog}, "run": {Kind: ScopeRun, Run: c.run},
			"ends with it": {Kind: ScopeRange, First: 1, Last: end - 1}, "begins behind it": {Kind: ScopeRange, First: end, Last: end}, "begins with it": {Kind: ScopeRange, First: end - 1, Last: end},
		} {
			f := l.export(Options{Scope: scope})
			ask := Ask{Run: c.run, Close: true}
			if scope.Kind == ScopeRange {
				ask = Ask{}
			}
			a := both(t, o, name+which, f, f, l.trust(), ask)
			if a.Exit != 0 {
				t.Errorf("%s, %s: got %+v", name, which, a)
			}
			if b := both(t, o, name+which, f, f, Trust{}, Ask{}); b.Exit != 0 {
				t.Errorf("%s, %s, without keys: got %+v", name, which, b)
			}
			if ask.Close {
				v := a.Run.Verdicts
				if len(v) != 2 || v[0].Logged == nil || v[1].Logged == nil || *v[1].Logged != end-1 || *v[0].Logged != v[0].Seq-1 || a.Run.Links != 0 || !strings.HasPrefix(a.Run.Word, WordOfKey) {
					t.Errorf("%s, %s: got %+v", name, which, a.Run)
				}
			}
		}
		f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: c.run}})
		a := both(t, o, name+"run", f, f.with(l.without(int(end)-1)), l.trust(), Ask{Run: c.run, Close: true})
		if a.each() != "parent_missing" || a.Exit != int(receipts.Incomplete) {
			t.Errorf("%s: without the verdict of a run: got %+v", name, a)
		}
		f = l.export(Options{})
		if a := both(t, o, name+"log", f, f.with(l.without(int(end)-1)), l.trust(), Ask{Run: c.run, Close: true}); a.each() != "receipt_missing" {
			t.Errorf("%s: without the verdict of a log: got %+v", name, a)
		}
	}
}

// Not a byte of a verdict's bundle can be another: some are tried, since of receipts each is.
func TestBytesOfAVerdictCount(t *testing.T) {
	o := node(t)
	for name, key := range map[string]crypto.Signer{"P-256": privateKey(t, 9), "Ed25519": ed25519.NewKeyFromSeed(make([]byte, 32))} {
		l, _, _ := judgedBy(t, key)
		l.denied = true
		at := int64(len(l.list)) - 2
		f := l.export(Options{Scope: Scope{Kind: ScopeRange, First: at - 1, Last: at + 1}})
		file := receiptName(at)
		for i := 0; i < len(f[file]); i += 31 {
			changed := f.with(func(f files) {
				f[file] = bytes.Clone(f[file])
				f[file][i] ^= 1
			})
			a := both(t, o, name, f, changed, l.trust(), Ask{})
			if a.Exit == 0 || len(a.Codes) != 1 || !strings.HasSuffix(a.Codes[0], fmt.Sprintf("@%d", at)) || t.Failed() {
				t.Fatalf("%s: byte %d (%q): got %+v", name, i, f[file][max(i-10, 0):min(i+10, len(f[file]))], a)
			}
		}
	}
}

// What whoever has all keys of the gateway could log, and an honest gateway never does.
func TestVerdictsLoggedOtherwise(t *testing.T) {
	o := node(t)
	key, other := privateKey(t, 9), privateKey(t, 8)
	// last has the run closed, and changes what is logged of it.
	last := func(change func(l *lab, c cast, judge writ.Actor)) func() (*lab, cast) {
		return func() (*lab, cast) {
			l, c, judge := judgedBy(t, key)
			change(l, c, judge)
			return l, c
		}
	}
	again := func(l *lab, c cast, judge writ.Actor) *writ.Receipt {
		want := l.wants("run/"+string(c.run), accepts)
		want.Now += 1000
		return signs(t, key, l.statement(want))
	}
	ends := func(l *lab, c cast, judge writ.Actor, x call) {
		x.what, x.by, x.run, x.policy = "run.close", judge, c.run, inForce
		x.args = map[string]any{"receipt_id": l.last["run/"+string(c.run)]}
		x.moves = []writ.Change{move("run", string(c.run), "verifying", "done")}
		l.do(x)
	}
	for name, x := range map[string]struct {
		play func() (*lab, cast)
		want string
	}{
		"as it should be": {last(func(l *lab, c cast, judge writ.Actor) { l.closes(c, judge, key) }), ""},
		"not at all":      {last(func(l *lab, c cast, judge writ.Actor) { l.logs = false; l.closes(c, judge, key) }), ""}, // as before they were
		"named, and not logged": {last(func(l *lab, c cast, judge writ.Actor) {
			l.logs = false
			v := again(l, c, judge)
			ends(l, c, judge, call{signed: v, before: writ.VerdictID(fmt.Sprintf("%x", sha256Of(v.Payload)))})
		}), "parent_unknown"},
		"and nothing rests on it": {last(func(l *lab, c cast, judge writ.Actor) {
			l.theirs(call{signed: again(l, c, judge)})
			l.do(call{what: "role.bind", by: c.operator, args: map[string]any{}})
			l.closes(c, judge, key)
		}), "verdict_alone"},
		"logged, and not named as logged": {last(func(l *lab, c cast, judge writ.Actor) {
			v := again(l, c, judge)
			l.theirs(call{signed: v})
			l.logs = false
			ends(l, c, judge, call{signed: v})
		}), "verdict_alone"},
		"twice": {last(func(l *lab, c cast, judge writ.Actor) {
			l.theirs(call{signed: again(l, c, judge)})
			l.closes(c, judge, key)
		}), "verdict_alone"},
		"long before": {last(func(l *lab, c cast, judge writ.Actor) {
			v := again(l, c, judge)
			id := l.theirs(call{signed: v})
			l.do(call{what: "role.bind", by: c.operator, args: map[string]any{}})
			l.logs = false
			ends(l, c, judge, call{signed: v, before: id})
		}), "verdict_alone"},
		"by another's key": {last(func(l *lab, c cast, judge writ.Actor) {
			v := again(l, c, judge)
			theirs := signs(t, other, v.Payload)
			id := l.theirs(call{signed: theirs})
			l.logs = false
			ends(l, c, judge, call{signed: v, before: id})
		}), "verdict_alone"},
		"at the end": {last(func(l *lab, c cast, judge writ.Actor) {
			l.closes(c, judge, key)
			want := l.wants("run/"+string(c.run), accepts)
			l.theirs(call{signed: signs(t, key, l.statement(want))})
		}), "verdict_alone"},
	} {
		l, c := x.play()
		f := l.export(Options{})
		if a := both(t, o, name, f, f, l.trust(), Ask{Run: c.run, Close: true}); a.each() != x.want {
			t.Errorf("%s: got %q (%v), want %q", name, a.each(), a.Codes, x.want)
		}
	}
}

// What counts as a verdict is the same for both verifiers, whatever JSON the verifier signed.
func TestFormsOfALoggedVerdict(t *testing.T) {
	o, key := node(t), ed25519.NewKeyFromSeed(make([]byte, 32))
	instead := func(old, new string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Fatalf("%s is not in %s", old, s)
			}
			return strings.Replace(s, old, new, 1)
		}
	}
	lists := func(name string) func(string) string {
		return func(s string) string {
			from := strings.Index(s, `"`+name+`":[`) + len(name) + 3
			return s[:from] + "null" + s[from+strings.Index(s[from:], "]")+1:]
		}
	}
	verdicts := []string{"as it is", "a space behind it", "a name", "a name of bytes", "a name of a receipt", "a slash"}
	for name, change := range map[string]func(string) string{
		"as it is":               func(s string) string { return s },
		"no subjects":            lists("subject"),
		"no policies":            lists("policies"),
		"no properties":          lists("properties"),
		"a mark of its bytes":    func(s string) string { return "\xef\xbb\xbf" + s },
		"a space behind it":      func(s string) string { return s + " \n\t\r" },
		"a member twice":         instead(`{"_type"`, `{"_type":"x","_type"`),
		"a member in capitals":   instead(`"_type"`, `"_Type"`),
		"a member more":          instead(`{"_type"`, `{"__proto__":{},"_type"`),
		"a name":                 instead(`{"digest"`, `{"name":"\ud83d\ude00","digest"`),
		"a name of bytes":        instead(`{"digest"`, `{"name":"\u0000\u2028\u007f","digest"`),
		"a name that is half":    instead(`{"digest"`, `{"name":"\ud83d","digest"`),
		"a name that is no text": instead(`{"digest"`, "{\"name\":\"\xff\",\"digest\""),
		"a name that is null":    instead(`{"digest"`, `{"name":null,"digest"`),
		"a name of a receipt":    instead(`{"digest"`, `{"name":"\"predicateType\":\"`+receipts.TransitionType+`\"","digest"`),
		"no digest":              instead(`{"digest":{`, `{"digest":null,"uri":{`),
		"a subject that is null": instead(`"subject":[`, `"subject":[null,`),
		"a slash":                instead("https://in-toto.io/Statement/v1", `https:\/\/in-toto.io\/Statement\/v1`),
	} {
		l, c, judge := judgedBy(t, key)
		want := l.wants("run/"+string(c.run), accepts)
		want.Now += 1000
		l.do(call{
			what: "run.close", by: judge, run: c.run, policy: inForce, signed: signs(t, key, []byte(change(string(l.statement(want))))),
			args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]}, moves: []writ.Change{move("run", string(c.run), "verifying", "done")},
		})
		f := l.export(Options{})
		a := both(t, o, name, f, f, l.trust(), Ask{Run: c.run, Close: true})
		if good := slices.Contains(verdicts, name); good != (a.each() == "") || !good && a.each() != "key_other" {
			t.Errorf("%s: got %q", name, a.each())
		}
	}
}

// A signature that one program takes and another does not is none for both: by a point of small order, or
// one that is written otherwise.
func TestPointsOfALoggedVerdict(t *testing.T) {
	o, identity := node(t), slices.Concat([]byte{1}, make([]byte, 31))
	for name, key := range map[string][]byte{
		"small": identity, "with a sign": slices.Concat(identity[:31], []byte{0x80}),
		"beyond the prime": slices.Concat([]byte{0xee}, bytes.Repeat([]byte{0xff}, 30), []byte{0x7f}),
	} {
		l, c, judge := judgedBy(t, ed25519.NewKeyFromSeed(make([]byte, 32)))
		der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(key))
		if err != nil {
			t.Fatal(err)
		}
		id, err := dsse.SHA256KeyID(ed25519.PublicKey(key))
		if err != nil {
			t.Fatal(err)
		}
		want := l.wants("run/"+string(c.run), accepts)
		want.Now += 1000
		l.do(call{
			what: "run.close", by: judge, run: c.run, policy: inForce, args: map[string]any{"receipt_id": l.last["run/"+string(c.run)]},
			signed: &writ.Receipt{Payload: l.statement(want), Sig: slices.Concat(identity, make([]byte, 32)), KeyID: id, Public: der},
			moves:  []writ.Change{move("run", string(c.run), "verifying", "done")},
		})
		f := l.export(Options{})
		if a := both(t, o, name, f, f, l.trust(), Ask{}); a.each() != "signature" {
			t.Errorf("%s: got %v", name, a.Codes)
		}
	}
}
