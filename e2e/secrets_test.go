package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// forms are the ways a value could lie somewhere.
func forms(value string) map[string][]byte {
	sum := sha256.Sum256([]byte(value))
	out := map[string][]byte{
		"plain": []byte(value), "hex": []byte(hex.EncodeToString([]byte(value))), "escaped": []byte(url.QueryEscape(value)), "digest": []byte(hex.EncodeToString(sum[:])), "raw digest": sum[:],
	}
	// Base64 of a longer text holds one of these, whatever comes before the value.
	for lead := range 3 {
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			text := enc.EncodeToString([]byte(strings.Repeat("x", lead) + value))
			out[name+string(rune('0'+lead))] = []byte(text[4 : len(text)-4])
		}
	}
	return out
}

// Values of secrets are nowhere: in no reply, refusal, receipt or evidence, not in what the
// gateway logs and measures, and in no file of it or of its store.
func TestSecretsAreNowhere(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		planted := []string{"cnry90001q/+~plain value", "cnry90002q/+~of a second version", "cnry90003q/+~of who may not", "cnry90004q/+~in a bad place", "cnry90005q/+~by name"}
		var said bytes.Buffer
		tell := func(r reply) reply { said.Write(r.body); return r }
		put := func(who caller, name, host, header, value, key string) reply {
			body := obj{"host": host, "value": value}
			if header != "" {
				body["header"] = header
			}
			return tell(who.do("PUT", "/v1/secrets/"+name, body, "Idempotency-Key", key))
		}
		if r := put(w.op, "stripe", "api.stripe.com", "", planted[0], "k1"); r.status != 201 || r.str("header") != "Authorization: Bearer {{secret}}" {
			t.Fatal(r)
		}
		if r := put(w.op.at(w.last()), "stripe", "api.stripe.com", "", planted[0], "k1"); r.status != 201 || r.header.Get("Idempotency-Replayed") != "true" {
			t.Fatalf("the same call again: %s", r)
		}
		if r := put(w.op, "stripe", "api.stripe.com", "", planted[1], "k1"); r.status != 422 || r.code() != writ.CodeIdempotency {
			t.Fatalf("another value under the same key: %s", r)
		}
		if r := put(w.op.at(w.last()), "stripe", "api.stripe.com:8443", "X-Api-Key: {{secret}}", planted[1], "k2"); r.status != 200 {
			t.Fatal(r)
		}
		for _, who := range []caller{c.orc, c.builder, w.alice(), w.session("audrey", writ.RoleAuditor, "")} {
			if r := put(who, "stripe", "evil.example", "", planted[2], "k3"); r.status != 403 {
				t.Fatal(r)
			}
			if r := tell(who.do("GET", "/v1/secrets", nil)); r.status != 403 {
				t.Fatal(r)
			}
		}
		for n, bad := range [][2]string{{"API.stripe.com", ""}, {"https://api.stripe.com", ""}, {"api.stripe.com", "Host: {{secret}}"}, {"api.stripe.com", "nothing"}} {
			if r := put(w.op, "other", bad[0], bad[1], planted[3], "k4"+string(rune('a'+n))); r.status != 422 {
				t.Fatal(r)
			}
		}
		if r := put(w.op, "other", "api.stripe.com", "", planted[3]+"\n", "k5"); r.status != 422 {
			t.Fatal(r)
		}
		tell(w.op.do("PUT", "/v1/secrets/other", obj{"host": "a", "value": planted[3], "more": planted[3]}))
		if r := tell(w.op.do("POST", "/v1/invoke", obj{"capability": "secret.put", "args": obj{"name": "search", "host": "search.example.org", "value": planted[4]}})); r.status != 201 {
			t.Fatal(r)
		}
		if r := tell(w.op.ok(200, "GET", "/v1/secrets", nil)); strings.Count(string(r.body), `"secret_id"`) != 2 || !strings.Contains(string(r.body), `"secret_version":2`) {
			t.Fatal(r)
		}
		for _, st := range w.after(-1) {
			tell(w.op.do("GET", "/v1/receipts/"+string(st.Predicate.ReceiptID)+"/evidence", nil))
		}
		tell(w.op.ok(200, "POST", "/v1/secrets/search/delete", nil))
		w.logged()

		places := map[string][]byte{"a reply": said.Bytes()}
		path, _ := w.export()
		if b, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		} else {
			places["the export"] = b
		}
		dirs := []string{}
		for _, g := range w.gw {
			places["the log of a gateway"] = append(places["the log of a gateway"], g.log.String()...)
			dirs = append(dirs, filepath.Dir(g.data))
			res, err := http.Get(g.url + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			places["the metrics"] = append(places["the metrics"], b...)
		}
		if w.redis != nil {
			w.redis.Command("SAVE")
			dirs = append(dirs, w.redis.Dir())
		}
		size := 0
		for _, dir := range dirs {
			if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err != nil || !e.Type().IsRegular() {
					return err
				}
				b, err := os.ReadFile(path)
				places[path] = b
				size += len(b)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		if len(places) < 12 || size < 10_000 {
			t.Errorf("only %d places with %d bytes were looked at", len(places), size)
		}
		for where, text := range places {
			for _, value := range planted {
				for form, bytesOf := range forms(value) {
					if bytes.Contains(text, bytesOf) {
						t.Errorf("%s holds %s of %s", where, form, value[:10])
					}
				}
			}
		}
		// What is looked for can be found: the store does hold what secrets are called.
		found := false
		for where, text := range places {
			found = found || strings.HasPrefix(where, "/") && bytes.Contains(text, []byte("api.stripe.com"))
		}
		if !found {
			t.Error("the files of the store were not looked at")
		}
	})
}

// A gateway that lost the key of the secrets there are makes no other: it says so, stores
// none, and goes on with everything else.
func TestALostKeyOfSecrets(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.op.ok(201, "PUT", "/v1/secrets/stripe", obj{"host": "api.stripe.com", "value": "s3cret"})
		key := filepath.Join(w.keysDir(), "secrets.key")
		info, err := os.Stat(key)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", info, err)
		}
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
		g := w.last()
		g.kill()
		g.start()
		w.ready()
		if !strings.Contains(g.log.String(), "does not have the key they are sealed under") {
			t.Errorf("the log says nothing of it:\n%s", g.log)
		}
		if _, err := os.Stat(key); err == nil {
			t.Error("another key was made")
		}
		op := w.op.at(g)
		op.refused(409, writ.CodeUnavailable, "PUT", "/v1/secrets/other", obj{"host": "api.stripe.com", "value": "s3cret"})
		op.ok(200, "GET", "/v1/secrets", nil)
		op.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 1}})
		op.ok(200, "POST", "/v1/secrets/stripe/delete", nil)
	})
}
