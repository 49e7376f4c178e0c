package supervisor

import (
	"strings"
	"testing"
)

func TestScrub(t *testing.T) {
	for line, want := range map[string]string{
		"using default.ses_01ARYZ6S410000000000000000.0123456789abcdefghijABCDEFGHIJ now": "using [removed] now",
		"Authorization: Bearer abcdefgh.ijkl":                                             "Authorization: Bearer [removed]",
		`{"api_key": "abcd1234", "x": 1}`:                                                 `{"api_key": "[removed]", "x": 1}`,
		"DB_PASSWORD=hunter22 done":                                                       "DB_PASSWORD=[removed] done",
		"postgres://app:pa55@db/x":                                                        "postgres://app:[removed]@db/x",
		"ghp_0123456789abcdefghij0123":                                                    "[removed]",
		"AKIAABCDEFGHIJKLMNOP":                                                            "[removed]",
		"eyJhbGciOiJub25l.eyJzdWIiOiIx.":                                                  "[removed]",
		"-----BEGIN EC PRIVATE KEY----- MHc":                                              "[removed]",
		"built 14 pages in 0.3 s, the secret of which is patience":                        "built 14 pages in 0.3 s, the secret of which is patience",
	} {
		if got := string(new(Scrubber).Line([]byte(line))); got != want {
			t.Errorf("%q became %q, want %q", line, got, want)
		}
	}
	if long := strings.Repeat("a", 1<<16); string(new(Scrubber).Line([]byte(long))) != long {
		t.Error("a line without secrets was changed")
	}
}

// The body of a private key is nothing but letters and digits: it is known by what it
// stands between, and ends at the latest where no key is as long.
func TestScrubKeys(t *testing.T) {
	body := strings.Repeat("MHcCAQEEIBkg4LVWM9nuwNSk3yByxZpYRTBnVJk5oYtLSDY7sQ0A\n", 3)
	gone := strings.Repeat("[removed]\n", 5)
	for name, tc := range map[string]struct{ prints, want string }{
		"a key":               {"a\n-----BEGIN PRIVATE KEY-----\n" + body + "-----END PRIVATE KEY-----\nb\n", "a\n" + gone + "b\n"},
		"one of a kind":       {"-----BEGIN OPENSSH PRIVATE KEY-----\n" + body + "-----END OPENSSH PRIVATE KEY-----\n", gone},
		"with words around":   {"k=-----BEGIN RSA PRIVATE KEY-----\n" + body + "-----END RSA PRIVATE KEY----- and token=abcdefg\n", "k=" + gone[:len(gone)-1] + " and token=[removed]\n"},
		"encrypted":           {"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00FF\n\nMHcC\n-----END EC PRIVATE KEY-----\nb\n", gone + "[removed]\nb\n"},
		"shifted":             {"> -----BEGIN PRIVATE KEY-----\n> MHcC\n> -----END PRIVATE KEY-----\nb\n", "> [removed]\n[removed]\n[removed]\nb\n"},
		"in one line":         {"-----BEGIN PRIVATE KEY-----MHcC-----END PRIVATE KEY-----\nMHcC\n", "[removed]\nMHcC\n"},
		"cut off":             {"-----BEGIN PRIVATE KEY-----\nMHcC\nthat was all\nMHcC\n", "[removed]\n[removed]\nthat was all\nMHcC\n"},
		"an end alone":        {"-----END PRIVATE KEY-----\nMHcC\n", "-----END PRIVATE KEY-----\nMHcC\n"},
		"what everybody sees": {"-----BEGIN PUBLIC KEY-----\nMHcC\n", "-----BEGIN PUBLIC KEY-----\nMHcC\n"},
		"two":                 {"-----BEGIN PRIVATE KEY-----\n-----BEGIN PRIVATE KEY-----\nMHcC\n", "[removed]\n[removed]\n[removed]\n"},
		"no end": {
			"-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("MHcC\n", longestKey+2),
			strings.Repeat("[removed]\n", longestKey+1) + "MHcC\nMHcC\n",
		},
	} {
		var s Scrubber
		var got strings.Builder
		for line := range strings.Lines(tc.prints) {
			given := []byte(strings.TrimSuffix(line, "\n"))
			got.Write(s.Line(given))
			if string(given) != strings.TrimSuffix(line, "\n") {
				t.Errorf("%s: what is the caller's was written to", name)
			}
			got.WriteByte('\n')
		}
		if got.String() != tc.want {
			t.Errorf("%s: %q, want %q", name, got.String(), tc.want)
		}
	}
}
