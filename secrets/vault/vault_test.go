package vault

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
)

const shard writ.Tenant = "default"

// shelf is a store of secrets.
type shelf map[writ.Key]writ.Doc

func (s shelf) Read(_ context.Context, _ writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error) {
	out := writ.Snapshot{Docs: map[writ.Key]writ.Doc{}}
	for _, k := range rs.Docs {
		out.Docs[k] = s[k]
	}
	return out, nil
}

func (s shelf) put(t *testing.T, k writ.Key, doc any) {
	t.Helper()
	b, err := writ.EncodeDoc(writ.Snapshot{}, k, "x", doc)
	if err != nil {
		t.Fatal(err)
	}
	s[k] = writ.Doc{Version: s[k].Version + 1, Body: b}
}

func newVault(t testing.TB, seed byte, s Store) *Vault {
	t.Helper()
	v, err := New(bytes.Repeat([]byte{seed}, 32), s, shard)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const id writ.SecretID = "sec_01ARYZ6S410000000000000000"

// stocked is a shelf with one secret, and the secret.
func stocked(t *testing.T, v *Vault, value string) (shelf, writ.Secret) {
	t.Helper()
	x := writ.Secret{ID: id, Name: "stripe", State: writ.SecretStored, Version: 2, Host: "api.stripe.com", Header: "Authorization", Template: "Bearer {{secret}}"}
	var err error
	if x.Sealed, err = v.Seal(writ.SecretAbout(x.Name, x.Host, x.Header, x.Template), value); err != nil {
		t.Fatal(err)
	}
	s := shelf{}
	s.put(t, writ.SecretNameKey("stripe"), writ.SecretName{ID: id})
	s.put(t, writ.SecretKey(id), x)
	v.store = s
	return s, x
}

// within is the context of an effect that may use version n of the secret.
func within(ctx context.Context, n int64) context.Context {
	return (&writ.Acting{Secrets: []writ.SecretUse{{ID: id, Version: n}}}).With(ctx)
}

func TestInject(t *testing.T) {
	v := newVault(t, 1, nil)
	stocked(t, v, "s3cret {{secret}}")
	h := http.Header{"Authorization": {"Bearer of the agent", "another"}, "Accept": {"*/*"}}
	use, err := v.Inject(within(t.Context(), 2), "stripe", "api.stripe.com", h)
	if err != nil || use != (writ.SecretUse{ID: id, Version: 2}) {
		t.Fatalf("%+v, %v", use, err)
	}
	if got := h["Authorization"]; len(got) != 1 || got[0] != "Bearer s3cret {{secret}}" || h.Get("Accept") == "" {
		t.Errorf("%q", h)
	}
}

// A secret is put into nothing but what its intent states, for its host; no refusal holds
// it, and the header that would have it is empty then.
func TestInjectRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		ctx   func(context.Context) context.Context
		name  string
		host  string
		spoil func(*testing.T, *Vault, shelf, writ.Secret)
		code  writ.Code
		held  bool // before anything is known of where it would stand
	}{
		"another host":          {host: "api.stripe.com.evil.example", code: writ.CodeEgress},
		"another port":          {host: "api.stripe.com:8443", code: writ.CodeEgress},
		"another spelling":      {host: "API.stripe.com", code: writ.CodeEgress},
		"no host":               {host: " ", code: writ.CodeEgress},
		"no effect":             {ctx: func(ctx context.Context) context.Context { return ctx }, code: writ.CodeUnavailable},
		"another version":       {ctx: func(ctx context.Context) context.Context { return within(ctx, 1) }, code: writ.CodeUnavailable},
		"no such secret":        {name: "strip", code: writ.CodeUnavailable, held: true},
		"no name":               {name: "../run", code: writ.CodeUnavailable, held: true},
		"a replica without key": {spoil: func(_ *testing.T, v *Vault, _ shelf, _ writ.Secret) { v.aead = nil }, code: writ.CodeUnavailable},
		"a replica with another key": {spoil: func(t *testing.T, v *Vault, s shelf, _ writ.Secret) {
			*v = *newVault(t, 2, s)
		}, code: writ.CodeUnavailable},
		"moved to another host": {host: "evil.example", spoil: func(t *testing.T, _ *Vault, s shelf, x writ.Secret) {
			x.Host = "evil.example"
			s.put(t, writ.SecretKey(id), x)
		}, code: writ.CodeUnavailable},
		"moved to another header": {spoil: func(t *testing.T, _ *Vault, s shelf, x writ.Secret) {
			x.Template = "{{secret}}"
			s.put(t, writ.SecretKey(id), x)
		}, code: writ.CodeUnavailable},
		"a byte changed": {spoil: func(t *testing.T, _ *Vault, s shelf, x writ.Secret) {
			x.Sealed = x.Sealed[:len(x.Sealed)-2] + "AA"
			s.put(t, writ.SecretKey(id), x)
		}, code: writ.CodeUnavailable},
		"plain": {spoil: func(t *testing.T, _ *Vault, s shelf, x writ.Secret) {
			x.Sealed = "s3cret"
			s.put(t, writ.SecretKey(id), x)
		}, code: writ.CodeUnavailable},
		"under another name": {name: "other", spoil: func(t *testing.T, _ *Vault, s shelf, _ writ.Secret) {
			s.put(t, writ.SecretNameKey("other"), writ.SecretName{ID: id})
		}, code: writ.CodeUnavailable, held: true},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t, 1, nil)
			s, x := stocked(t, v, "s3cret")
			if tt.spoil != nil {
				tt.spoil(t, v, s, x)
			}
			ctx := within(t.Context(), 2)
			if tt.ctx != nil {
				ctx = tt.ctx(t.Context())
			}
			secret, host := tt.name, tt.host
			if secret == "" {
				secret = "stripe"
			}
			if host == "" {
				host = "api.stripe.com"
			}
			h := http.Header{"Authorization": {"Bearer of the agent"}}
			use, err := v.Inject(ctx, secret, host, h)
			if writ.CodeOf(err) != tt.code || use != (writ.SecretUse{}) || strings.Contains(err.Error(), "s3cret") {
				t.Fatalf("%+v, %v", use, err)
			}
			if got := h.Get("Authorization"); got != "" && !tt.held || got != "" && got != "Bearer of the agent" {
				t.Errorf("left %q", got)
			}
		})
	}
}

// The same about the same is the same text; anything else is another, and none opens about
// something else or under another key. Sealing what is sealed changes nothing.
func TestSeal(t *testing.T) {
	v, other := newVault(t, 1, nil), newVault(t, 2, nil)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ -~]{1,60}`)
		about, value := text.Draw(t, "about"), text.Draw(t, "value")
		sealed, err := v.Seal(about, value)
		if err != nil || writ.SealedUnder(sealed) != v.KeyID() {
			t.Fatal(sealed, err)
		}
		if len(value) > 8 && strings.Contains(sealed, value) {
			t.Fatalf("%s holds its value", sealed)
		}
		for range 2 {
			if again, err := v.Seal(about, sealed); err != nil || again != sealed {
				t.Fatalf("sealed again: %s, %v", again, err)
			}
			if again, err := v.Seal(about, value); err != nil || again != sealed {
				t.Fatalf("once more: %s, %v", again, err)
			}
		}
		if got, err := v.Open(about, sealed); err != nil || got != value {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := v.Open(about+".", sealed); err == nil {
			t.Fatal("opens about something else")
		}
		if _, err := other.Open(about, sealed); err == nil {
			t.Fatal("opens under another key")
		}
		if another, err := v.Seal(about+".", value); err != nil || another == sealed {
			t.Fatal("about something else it is the same", err)
		}
	})
}

// What lies in the stores of users: it must open for ever.
func TestSealedForm(t *testing.T) {
	v := newVault(t, 1, nil)
	about := writ.SecretAbout("stripe", "api.stripe.com", "Authorization", "Bearer {{secret}}")
	const want = "sealed:fe6758be9e3940bd:4blcEIfqFl--TLKhivymtqloEiV5LWJEZ0-ZbiSXZqPHmA"
	sealed, err := v.Seal(about, "s3cret")
	if err != nil || sealed != want {
		t.Errorf("got %s, %v", sealed, err)
	}
	if got, err := v.Open(about, want); err != nil || got != "s3cret" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestKeys(t *testing.T) {
	if _, err := New(make([]byte, 16), nil, shard); err == nil {
		t.Error("a short key is taken")
	}
	v, err := New(nil, nil, shard)
	if err != nil || v.KeyID() != "" {
		t.Fatal(err)
	}
	if _, err := v.Seal("a", "s3cret"); writ.CodeOf(err) != writ.CodeUnavailable {
		t.Errorf("without a key: %v", err)
	}
}
