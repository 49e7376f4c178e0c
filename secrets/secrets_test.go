package secrets

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

func TestHosts(t *testing.T) {
	for _, good := range []string{
		"api.example.com", "localhost", "a", "api.example.com:8443", "10.0.0.1", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:8443", "xn--bcher-kva.example", "a--b.c", "3com.example",
	} {
		if !spelled(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{
		"", ".", "Api.example.com", "api.example.com.", "api..example.com", ".example.com", "api.example.com:443", "api.example.com:0443", "api.example.com:0", "api.example.com:65536", "api.example.com:",
		"https://api.example.com", "api.example.com/", "user@api.example.com", "api.example.com ", " api.example.com", "api_example.com", "-a.example", "a-.example", "2130706433", "127.1", "0x7f.0.0.1", "127.0.0.01",
		"256.0.0.1", "::1", "[::1", "[0:0::1]", "[::ffff:127.0.0.1]", "[fe80::1%eth0]", "[127.0.0.1]", "büch.example", "a\x00b", "a\nb", "*.example.com", strings.Repeat("a", 64), strings.Repeat("a.", 130) + "a",
	} {
		if spelled(bad) {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestPlaces(t *testing.T) {
	for text, want := range map[string]string{
		"Authorization: Bearer {{secret}}": "Authorization|Bearer {{secret}}", "x-api-key:{{secret}}": "X-Api-Key|{{secret}}", "Cookie: a={{secret}}; b=c": "Cookie|a={{secret}}; b=c",
		"Authorization: Bearer": "", "Authorization": "", "{{secret}}": "", ": {{secret}}": "", "Host: {{secret}}": "", "hOST: {{secret}}": "", "Content-Length: {{secret}}": "", "Transfer-encoding: {{secret}}": "",
		"Proxy-Authorization: {{secret}}": "", "A: {{secret}}{{secret}}": "", "A: {{secret}}\r\nB: c": "", "A b: {{secret}}": "", "A: é{{secret}}": "", "A\x00: {{secret}}": "",
	} {
		header, template, ok := place(text)
		if got := header + "|" + template; ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", text, got, ok)
		}
	}
}

// lab is a world with this room.
type lab struct {
	*writtest.World
	t    *testing.T
	caps map[writ.CapabilityID]*writ.Capability
	op   writ.Caller
	key  string
}

func newLab(t *testing.T) *lab {
	l := &lab{World: writtest.New(), t: t, caps: map[writ.CapabilityID]*writ.Capability{}, key: "00ff"}
	for _, k := range Capabilities() {
		l.caps[k.ID] = k
	}
	l.op = l.Open(writ.RoleOperator, "operator", "")
	return l
}

// seal stands for the vault.
func (l *lab) seal(about, value string) (string, error) {
	return writ.SealedPrefix + l.key + ":" + strings.ReplaceAll(about, "\x00", ",") + "=" + value, nil
}

func (l *lab) do(id writ.CapabilityID, args any) (writ.Reply, writ.Tx, error) {
	if a, ok := args.(writ.Concealing); ok {
		if err := a.Conceal(l.seal); err != nil {
			return writ.Reply{}, writ.Tx{}, err
		}
	}
	k := l.caps[id]
	return l.Do(k, l.NewCall(k, l.op, args))
}

func (l *lab) put(name, host, value string) (SecretView, error) {
	r, _, err := l.do("secret.put", &SecretPutArgs{Name: name, Host: host, Header: "Authorization: Bearer {{secret}}", Value: value})
	v, _ := r.Body.(SecretView)
	return v, err
}

func TestPutListDelete(t *testing.T) {
	l := newLab(t)
	one, err := l.put("stripe", "api.stripe.com", "one")
	if err != nil || one.Version != 1 || !one.ID.Valid() || one.KeyID != "00ff" {
		t.Fatalf("%+v, %v", one, err)
	}
	two, err := l.put("stripe", "api.stripe.com", "two")
	if err != nil || two.Version != 2 || two.ID != one.ID || two.CreatedAt != one.CreatedAt {
		t.Fatalf("%+v, %v", two, err)
	}
	if _, err := l.put("search", "search.example.org:8443", "three"); err != nil {
		t.Fatal(err)
	}
	r, _, err := l.do("secret.list", &SecretListArgs{Limit: 1})
	page := r.Body.(SecretList)
	if err != nil || len(page.Secrets) != 1 || page.Secrets[0].Name != "search" || page.Next != "search" {
		t.Fatalf("%+v, %v", page, err)
	}
	r, _, err = l.do("secret.list", &SecretListArgs{Limit: 1, After: page.Next})
	if page = r.Body.(SecretList); err != nil || len(page.Secrets) != 1 || page.Secrets[0] != two || page.Next != "" {
		t.Fatalf("%+v, %v", page, err)
	}
	text, _ := json.Marshal(page)
	if strings.Contains(string(text), "sealed:") || strings.Contains(string(text), "two") {
		t.Errorf("shown: %s", text)
	}
	_, tx, err := l.do("secret.delete", &SecretDeleteArgs{Name: "stripe"})
	if err != nil || tx.Changes[0] != (writ.Change{Kind: writ.ObjectSecret, ID: string(one.ID), From: "stored", To: "deleted"}) {
		t.Fatalf("%+v, %v", tx.Changes, err)
	}
	if _, _, err := l.do("secret.delete", &SecretDeleteArgs{Name: "stripe"}); writ.CodeOf(err) != writ.CodeNotFound {
		t.Errorf("twice: %v", err)
	}
	three, err := l.put("stripe", "api.stripe.com", "four")
	if err != nil || three.Version != 1 || three.ID == one.ID {
		t.Errorf("the name again: %+v, %v", three, err)
	}
}

// All secrets of a store are sealed under one key.
func TestOneKey(t *testing.T) {
	l := newLab(t)
	if _, err := l.put("stripe", "api.stripe.com", "one"); err != nil {
		t.Fatal(err)
	}
	l.key = "11ff"
	for _, name := range []string{"stripe", "search"} {
		if _, err := l.put(name, "api.stripe.com", "two"); writ.CodeOf(err) != writ.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is not sealed is not stored, what cannot stand in a header is not sealed, and no
// refusal says what was sent.
func TestRefused(t *testing.T) {
	l := newLab(t)
	k := l.caps["secret.put"]
	plain := &SecretPutArgs{Name: "stripe", Host: "api.stripe.com", Header: "A: {{secret}}", Value: "s3cret"}
	if _, _, err := l.Do(k, l.NewCall(k, l.op, plain)); writ.CodeOf(err) != writ.CodeInputInvalid {
		t.Fatalf("plain: %v", err)
	}
	for name, a := range map[string]SecretPutArgs{
		"/host":   {Name: "stripe", Host: "API.stripe.com", Header: "A: {{secret}}", Value: "s3cret"},
		"/header": {Name: "stripe", Host: "api.stripe.com", Header: "Host: {{secret}}", Value: "s3cret"},
		"/value":  {Name: "stripe", Host: "api.stripe.com", Header: "A: {{secret}}", Value: "s3cret\r\nB: c"},
		"/value ": {Name: "stripe", Host: "api.stripe.com", Header: "A: {{secret}}", Value: strings.Repeat("s3cret", 1000)},
	} {
		err := a.Conceal(l.seal)
		e := writ.AsError("", err)
		if e == nil || e.Code != writ.CodeInputInvalid || len(e.Fields) != 1 || e.Fields[0].Pointer != strings.TrimSpace(name) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text, _ := json.Marshal(e); strings.Contains(string(text), "s3cret") || strings.Contains(e.Error(), "s3cret") {
			t.Errorf("%s echoes: %s", name, text)
		}
	}
}

func TestEvidenceHasNoValue(t *testing.T) {
	a := &SecretPutArgs{Name: "stripe", Host: "api.stripe.com", Value: "sealed:00:s3cret"}
	text, err := json.Marshal(a.Witnessed())
	if err != nil || strings.Contains(string(text), "s3cret") || !strings.Contains(string(text), "api.stripe.com") || a.Value != "sealed:00:s3cret" {
		t.Errorf("%s, %v", text, err)
	}
}
