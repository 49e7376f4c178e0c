package target

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// Spellings of hosts and ports that programs read differently, or take for another:
// each is refused, whatever one of them would make of it.
var refusedSpellings = []string{
	"", ":", ":443", "a.example", "a.example:", "a.example:443:443", // no host, no port, too many
	"a.example:0", "a.example:0443", "a.example:+443", "a.example:-1", "a.example:65536", "a.example:99999999999", "a.example:https", "a.example:4 43", "a.example:0x1bb", "a.example:٤٤٣", // ports
	"A.example:443", "a.EXAMPLE:443", // case
	"a.example.:443", "a..example:443", ".a.example:443", "..:443", ".:443", // dots
	"a\u3002example:443", "a\uff0eexample:443", "a\uff61example:443", // dots of other scripts
	"a.example\x00:443", "evil.test\x00.a.example:443", "a.example%00:443", "a.example%00.evil.test:443", "%61.example:443", "a%2eexample:443", // NUL and escapes
	"user@a.example:443", "user:pw@a.example:443", "a.example@evil.test:443", "a.example:443@evil.test", "a.example:80@evil.test:443", // users
	"a.example/:443", "a.example\\:443", "a.example?:443", "a.example#:443", "a.example#@evil.test:443", // other parts of a URL
	" a.example:443", "a.example :443", "a.example: 443", "a.example:443 ", "a.example\t:443", "a.example\r\nHost: b:443", "a.example:443\n", // white space
	"-a.example:443", "a-.example:443", "a_b.example:443", "*.example:443", "a,b:443", "a;b:443", "a'b:443", // characters
	"ex\u00e4mple.test:443", "\u0430.example:443", "a\u200b.example:443", "\uff41.example:443", "fa\u00df.test:443", // not ASCII: IDNA maps these to other names
	strings.Repeat("a", 64) + ".example:443", strings.Repeat("a.", 127) + "b:443", strings.Repeat("a", 5000) + ":443", // too long
	"2130706433:80", "017700000001:80", "0x7f000001:80", "0x7f.1:80", "127.1:80", "127.0.1:80", "0177.0.0.1:80", "127.0.0.01:80", "127.0.0.0x1:80", "0x7f.0.0.1:80", "127.0.0.1.:80", "127.0.0.256:80", "1.2.3.4.5:80", "0:80", "00:80", "0x:80", "0x0:80", "a.1:80", "a.0x1f:80", // IPv4 in other bases, and what ends in a number
	"::1:80", "[::1]", "[::1]:", "[::1:80", "::1]:80", "[[::1]]:80", "[127.0.0.1]:80", "[a.example]:80", "[]:80", // brackets
	"[::ffff:127.0.0.1]:80", "[::ffff:7f00:1]:80", "[0:0:0:0:0:ffff:7f00:1]:80", // IPv4 as IPv6
	"[0:0:0:0:0:0:0:1]:80", "[::0001]:80", "[2001:DB8::1]:80", "[2001:db8:0:0:0:0:0:1]:80", "[::127.0.0.1]:80", // IPv6 in other spellings
	"[fe80::1%eth0]:80", "[fe80::1%25eth0]:80", "[::1%]:80", // zones
}

var acceptedSpellings = []string{
	"a.example:443", "a:80", "localhost:8080", "xn--bcher-kva.example:443", "1a.example:443", "3com.example:1", "a.b-c.d0:65535",
	"127.0.0.1:80", "93.184.216.34:443", "[::1]:80", "[2606:4700:4700::1111]:443", "[::7f00:1]:80", "0xa.example:443", "1.2.example:443", strings.Repeat("a", 63) + ".example:443",
	strings.Repeat("a.", 126) + "b:443", "0xfg:80",
}

func TestOneSpelling(t *testing.T) {
	if len(refusedSpellings) < 100 {
		t.Errorf("only %d spellings", len(refusedSpellings))
	}
	for _, s := range refusedSpellings {
		if got, err := Parse(s); err == nil {
			t.Errorf("%q is taken for %s", s, got)
		} else if s != "" && len(s) > 3 && strings.Contains(err.Error(), s) {
			t.Errorf("%q is repeated", s)
		}
	}
	for _, s := range acceptedSpellings {
		got, err := Parse(s)
		if err != nil || got.String() != s {
			t.Errorf("%q: %s, %v", s, got, err)
		}
		again, err := New(got.Host, int64(got.Port))
		if err != nil || again != got {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	}
	for _, port := range []int64{-1, 0, 65536, 1 << 40} {
		if _, err := New("a.example", port); err == nil {
			t.Errorf("port %d", port)
		}
	}
	if a, ok := (Target{"::1", 80}).Addr(); !ok || a != netip.MustParseAddr("::1") {
		t.Error("an address is one")
	}
	if _, ok := (Target{"a.example", 80}).Addr(); ok {
		t.Error("a name is no address")
	}
}

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]string{
		"https://a.example":              "https a.example:443 / ",
		"https://a.example/":             "https a.example:443 / ",
		"http://a.example/x/y?z=1&z=%20": "http a.example:80 /x/y z=1&z=%20",
		"https://a.example:8443?q":       "https a.example:8443 / q",
		"https://[::1]/x":                "https [::1]:443 /x ",
		"https://[::1]:80/x":             "https [::1]:80 /x ",
		"https://127.0.0.1/x":            "https 127.0.0.1:443 /x ",
		"https://a.example/x?u=http://b": "https a.example:443 /x u=http://b",
	} {
		scheme, to, path, query, err := ParseURL(raw)
		if got := scheme + " " + to.String() + " " + path + " " + query; err != nil || got != want {
			t.Errorf("%q: %q, %v", raw, got, err)
		}
	}
	for _, raw := range []string{
		"", "a.example", "//a.example/", "ftp://a.example/", "HTTPS://a.example/", "file:///etc/passwd", "https:a.example", "https:/a.example", "https:///a.example",
		"https://a.example#x", "https://a.example/#x", "https://u@a.example/", "https://a.example\\@b.example/", "https://a.example\\/", "https://A.example/",
		"https://a.example/ x", "https://a.example/x y", "https://a.example/\x00", "https://a.example?a b", "https://a.example?%0d%0a", "https://a.example?%zz", "https://a.example/%", "https://a.example/%4",
		"https://a.example:/", "https://a.example:443:443/", "https://[::1/", "https://", "https://?x", "https://a.example/" + strings.Repeat("a", 9000),
		"javascript://a.example/%0aalert(1)", " https://a.example/", "https ://a.example/",
	} {
		if _, to, path, _, err := ParseURL(raw); err == nil {
			t.Errorf("%q is taken for %s%s", raw, to, path)
		}
	}
}

func TestValidPath(t *testing.T) {
	for _, p := range []string{"/", "/a", "/a/", "/a/b.c", "/a/..b", "/a/b..", "/...", "/a;v=1/b", "/a%20b", "/caf%C3%A9", "/a:b@c", "/~a/-_", "/a%25b", "/.well-known/x"} {
		if !ValidPath(p) {
			t.Errorf("%q is refused", p)
		}
	}
	for _, p := range []string{
		"", "a", "//", "//a", "/a//b", "/./a", "/a/.", "/..", "/a/../b", "/a/..", "/..;/a", "/a/..;x=1/b", "/.;/a", "/;/a", "/a/;x/b", "/a/;x",
		"/%2e%2e/a", "/a/%2E./b", "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/a%0d%0aX: y", "/a%7f", "/a%3bb", "/%61dmin", "/a%", "/a%2", "/a%zz",
		"/a b", "/a\x00", "/a\r\n", "/a#b", "/a?b", "/caf\u00e9", "/a\"b", "/a<b>", "/a|b", "/a^b", "/a`b", "/{a}",
	} {
		if ValidPath(p) {
			t.Errorf("%q is taken", p)
		}
	}
}

func TestUnder(t *testing.T) {
	for _, c := range []struct {
		path, prefix string
		want         bool
	}{
		{"/v1", "/v1", true},
		{"/v1/x", "/v1", true},
		{"/v10", "/v1", false},
		{"/v1", "/v1/", false},
		{"/v1/", "/v1/", true},
		{"/v1/x", "/v1/", true},
		{"/v2/x", "/v1", false},
		{"/x/v1", "/v1", false},
		{"/V1/x", "/v1", false},
		{"/x", "", true},
		{"/x", "/", true},
	} {
		if got := Under(c.path, c.prefix); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// Whatever is accepted is written as it came, and every other reader we know of
// reads the same host and port out of it.
func FuzzOneSpelling(f *testing.F) {
	for _, s := range append(refusedSpellings, acceptedSpellings...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		if err != nil {
			return
		}
		if got.String() != s || strings.ToLower(s) != s {
			t.Errorf("%q comes back as %q", s, got)
		}
		u, err := url.Parse("https://" + s + "/")
		if err != nil || u.Hostname() != got.Host || u.Port()+"" == "" || u.User != nil || u.Host != s {
			t.Errorf("%q: net/url reads %v, %v", s, u, err)
		}
		if ap, err := netip.ParseAddrPort(s); err == nil && (ap.Addr().String() != got.Host || ap.Port() != got.Port) {
			t.Errorf("%q: netip reads %s", s, ap)
		}
		for _, c := range s {
			if c > '~' || c <= ' ' || strings.ContainsRune("@/\\?#%*_", c) {
				t.Errorf("%q has %q", s, c)
			}
		}
	})
}

// A path that is accepted is what servers make of it: cleaning and decoding change
// nothing that separates.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "/a/../b", "/%2e%2e/", "/a%2fb", "/..;/x", "//a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !ValidPath(s) {
			return
		}
		u, err := url.Parse("https://a.example" + s)
		if err != nil || u.EscapedPath() != s {
			t.Errorf("%q: %v, %v", s, u, err)
			return
		}
		clean := u.JoinPath(".").EscapedPath()
		if strings.TrimSuffix(clean, "/") != strings.TrimSuffix(s, "/") {
			t.Errorf("%q is cleaned to %q", s, clean)
		}
		if strings.Count(u.Path, "/") != strings.Count(s, "/") || strings.Contains(u.Path, "\\") {
			t.Errorf("%q decodes to %q", s, u.Path)
		}
	})
}
