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
		if got := string(Scrub([]byte(line))); got != want {
			t.Errorf("%q became %q, want %q", line, got, want)
		}
	}
	if long := strings.Repeat("a", 1<<16); string(Scrub([]byte(long))) != long {
		t.Error("a line without secrets was changed")
	}
}
