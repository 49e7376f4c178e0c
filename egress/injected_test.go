package egress

import (
	"net/http"
	"testing"
)

// Whatever the template of a secret is, its value is watched for.
func TestInjected(t *testing.T) {
	for header, want := range map[string]string{
		"Bearer S3CRETVALUE":        "S3CRETVALUE",
		"Token token=S3CRETVALUE":   "S3CRETVALUE",
		"ApiKey S3CRETVALUE v1":     "S3CRETVALUE",
		"S3CRETVALUE ":              "S3CRETVALUE",
		`Digest user="S3CRETVALUE"`: "S3CRETVALUE",
		"abcd":                      "abcd",
	} {
		found := false
		for _, s := range injected(http.Header{}, http.Header{"Authorization": {header}}) {
			found = found || string(s) == want
			if string(s) == "Bearer" || string(s) == "Token" {
				t.Errorf("%q: %q would be in many answers", header, s)
			}
		}
		if !found {
			t.Errorf("%q: nobody watches for %q", header, want)
		}
	}
	same := http.Header{"Accept": {"text/plain"}}
	if got := injected(same, same); len(got) != 0 {
		t.Errorf("what was there before is no secret: %q", got)
	}
}
