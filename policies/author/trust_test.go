package author

import (
	"strings"
	"testing"
	"testing/fstest"
)

// The key of one team cannot ship the pack of another.
func TestTrust(t *testing.T) {
	a, aPub := pair(t, "ed25519")
	b, bPub := pair(t, "p256")
	dir := fstest.MapFS{"a.pub": {Data: aPub}}
	indented := strings.ReplaceAll(string(bPub), "\n", "\n      ")
	text := "keys:\n  team-a:\n    public_key: a.pub\n    packs: [protected_paths]\n  team-b:\n    packs: [budgets, lifecycle]\n    public_key: |\n      " + indented + "\n"
	trust, err := ReadTrust([]byte(text), dir)
	if err != nil {
		t.Fatal(err)
	}
	own, both := bundleOf(t, "protected_paths"), bundleOf(t, "budgets", "protected_paths")
	for _, tc := range []struct {
		name string
		b    []byte
		want string
	}{
		{"its own", signed(t, own, a, "team-a"), ""},
		{"one of two", signed(t, bundleOf(t, "budgets"), b, "team-b"), ""},
		{"another team's", signed(t, own, b, "team-b"), `key "team-b" may not ship the pack protected_paths`},
		{"its own and another team's", signed(t, both, a, "team-a"), `key "team-a" may not ship the pack budgets`},
		{"under another team's name", signed(t, bundleOf(t, "budgets"), a, "team-b"), "the wrong key"},
		{"nobody's key", signed(t, own, a, "team-c"), "not in the trust file"},
		{"unsigned", own, "not signed"},
	} {
		if _, err := trust.Verify(t.Context(), tc.b); tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
	for name, bad := range map[string]string{
		"nothing":         "",
		"no keys":         "keys: {}\n",
		"unknown field":   "keys: {a: {public_key: a.pub, packs: [x], colour: red}}\n",
		"no packs":        "keys: {a: {public_key: a.pub}}\n",
		"a pattern":       "keys: {a: {public_key: a.pub, packs: [\"*\"]}}\n",
		"no such file":    "keys: {a: {public_key: b.pub, packs: [x]}}\n",
		"a file outside":  "keys: {a: {public_key: ../a.pub, packs: [x]}}\n",
		"a strange id":    "keys: {\"a b\": {public_key: a.pub, packs: [x]}}\n",
		"not a key":       "keys: {a: {public_key: \"-----BEGIN nothing\", packs: [x]}}\n",
		"one key of many": text + "  c: {packs: [x]}\n",
	} {
		if _, err := ReadTrust([]byte(bad), dir); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
