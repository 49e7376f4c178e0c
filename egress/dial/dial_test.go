package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var addresses = []struct {
	addr   string
	public bool
}{
	{"93.184.216.34", true},
	{"1.1.1.1", true},
	{"2606:4700:4700::1111", true},
	{"2a00:1450:4001:800::200e", true},
	{"127.0.0.1", false},
	{"127.9.9.9", false},
	{"0.0.0.0", false},
	{"0.1.2.3", false},
	{"10.0.0.1", false},
	{"172.16.0.1", false},
	{"172.31.255.255", false},
	{"192.168.1.1", false},
	{"169.254.169.254", false},
	{"169.254.0.1", false},
	{"100.64.0.1", false},
	{"100.127.255.255", false},
	{"100.100.100.200", false},
	{"192.0.0.192", false},
	{"192.0.2.1", false},
	{"198.18.0.1", false},
	{"198.51.100.1", false},
	{"203.0.113.1", false},
	{"192.88.99.1", false},
	{"168.63.129.16", false},
	{"168.63.129.17", true},
	{"224.0.0.1", false},
	{"239.255.255.250", false},
	{"240.0.0.1", false},
	{"255.255.255.255", false},
	{"::", false},
	{"::1", false},
	{"::127.0.0.1", false},
	{"::ffff:127.0.0.1", false},
	{"::ffff:93.184.216.34", false},
	{"64:ff9b::7f00:1", false},
	{"64:ff9b::5db8:d822", false},
	{"64:ff9b:1::a00:1", false},
	{"2002:7f00:1::", false},
	{"2001::1", false},
	{"2001:db8::1", false},
	{"3fff::1", false},
	{"fc00::1", false},
	{"fd00:ec2::254", false},
	{"fe80::1", false},
	{"fe80::1%eth0", false},
	{"fec0::1", false},
	{"ff02::1", false},
	{"100::1", false},
	{"4000::1", false},
	{"172.15.255.255", true},
	{"172.32.0.0", true},
	{"100.63.255.255", true},
	{"100.128.0.0", true},
	{"223.255.255.255", true},
}

func TestPublic(t *testing.T) {
	for _, c := range addresses {
		if got := Public(netip.MustParseAddr(c.addr)); got != c.public {
			t.Errorf("%s: %v", c.addr, got)
		}
	}
	if Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func TestValidHost(t *testing.T) {
	for host, want := range map[string]bool{
		"example.org": true, "example.org.": true, "a_b.example": true, "127.0.0.1": true, "::1": true, "EXAMPLE.org": true,
		"": false, ".": false, "a..b": false, "-a.b": false, "a-.b": false, "a b": false, "a/b": false, "ex\u00e4mple.org": false, "a%00.b": false, "fe80::1%eth0": false,
		strings.Repeat("a", 64) + ".b": false, strings.Repeat("a.", 127) + "b": false,
	} {
		if got := ValidHost(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func TestGrants(t *testing.T) {
	g, err := ParseGrants([]string{"10.1.0.0/16", " 127.0.0.1 ", "Health.internal:8080", "fd00::/8", "[::1]:9000"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host, port, addr string
		want             bool
	}{
		{"x.org", "80", "10.1.2.3", true},
		{"x.org", "80", "10.2.0.1", false},
		{"x.org", "80", "127.0.0.1", true},
		{"x.org", "80", "127.0.0.2", false},
		{"health.internal", "8080", "192.168.0.9", true},
		{"HEALTH.INTERNAL.", "8080", "192.168.0.9", true},
		{"health.internal", "8081", "192.168.0.9", false},
		{"x.health.internal", "8080", "192.168.0.9", false},
		{"health.internal", "8080", "::ffff:192.168.0.9", false},
		{"x.org", "80", "::ffff:10.1.2.3", false},
		{"x.org", "80", "fd12::1", true},
		{"::1", "9000", "::1", true},
		{"::1", "9001", "::1", false},
		{"x.org", "80", "8.8.8.8", true},
	} {
		if got := g.May(c.host, c.port, netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	for addr, want := range map[string]bool{"10.1.2.3": true, "127.0.0.1": true, "8.8.8.8": false, "10.2.0.1": false, "::ffff:10.1.2.3": false, "2606:4700:4700::1111": false} {
		if got := g.Names("x.org", "80", netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is named: %v", addr, got)
		}
	}
	all, err := ParseGrants([]string{"::/0"})
	if err != nil || all.May("x.org", "80", netip.MustParseAddr("::ffff:127.0.0.1")) || all.May("x.org", "80", netip.MustParseAddr("127.0.0.1")) || !all.May("x.org", "80", netip.MustParseAddr("::1")) {
		t.Errorf("::/0 grants something else than IPv6: %v", err)
	}
	for _, bad := range []string{"", "example.org", "example.org:0", "example.org:99999", "10.0.0.0/33", "::ffff:10.0.0.0/104", "a b:80", "fe80::1%eth0", "*:80", "10.1.2.3/8", "fd00::1/8"} {
		if _, err := ParseGrants([]string{bad}); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// names is a name server that may say something else every time.
type names struct {
	answers [][]string
	asked   int
}

func (n *names) lookup(context.Context, string) (out []netip.Addr, err error) {
	i := min(n.asked, len(n.answers)-1)
	n.asked++
	for _, s := range n.answers[i] {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, nil
}

// A name is asked for once, and what is dialled is what was checked.
func TestWhatIsCheckedIsDialled(t *testing.T) {
	for _, c := range []struct {
		name    string
		address string
		answers [][]string
		dialled string // "": refused
	}{
		{"public", "a.example:443", [][]string{{"93.184.216.34"}}, "93.184.216.34:443"},
		{"rebinding", "a.example:443", [][]string{{"93.184.216.34"}, {"127.0.0.1"}}, "93.184.216.34:443"},
		{"private", "a.example:443", [][]string{{"10.0.0.1"}}, ""},
		{"one of them private", "a.example:443", [][]string{{"93.184.216.34", "127.0.0.1"}}, ""},
		{"IPv4 written as IPv6 by the server", "a.example:443", [][]string{{"::ffff:93.184.216.34"}}, "93.184.216.34:443"},
		{"private so written", "a.example:443", [][]string{{"::ffff:10.0.0.1"}}, ""},
		{"no address", "a.example:443", [][]string{{}}, ""},
		{"literal", "93.184.216.34:80", nil, "93.184.216.34:80"},
		{"private literal", "127.0.0.1:80", nil, ""},
		{"mapped literal", "[::ffff:93.184.216.34]:80", nil, ""},
		{"zone", "[fe80::1%25eth0]:80", nil, ""},
		{"port zero", "93.184.216.34:0", nil, ""},
		{"no port", "93.184.216.34", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, dialled := &names{answers: c.answers}, ""
			d := Dialer{Lookup: n.lookup, Connect: func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
				dialled = to.String()
				a, b := net.Pipe()
				_ = b.Close()
				return a, nil
			}}
			conn, err := d.DialContext(t.Context(), "tcp", c.address)
			if conn != nil {
				_ = conn.Close()
			}
			if dialled != c.dialled || (err == nil) != (c.dialled != "") || err != nil && !errors.Is(err, ErrRefused) {
				t.Errorf("dialled %q, %v", dialled, err)
			}
			if want := min(1, len(c.answers)); n.asked != want {
				t.Errorf("asked for the name %d times", n.asked)
			}
		})
	}
}

// No proxy, no redirect, and no certificate that nobody vouches for.
func TestTransport(t *testing.T) {
	hits := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hits++; http.Redirect(w, r, "/next", http.StatusFound) }))
	defer s.Close()
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	g, err := ParseGrants([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	get := func(d *Dialer, url string) (int, error) {
		t.Helper()
		tr := d.Transport(5 * time.Second)
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		_ = res.Body.Close()
		return res.StatusCode, nil
	}
	if code, err := get(&Dialer{Grants: g}, s.URL); code != http.StatusFound || err != nil || hits != 1 {
		t.Errorf("%d, %v, %d requests", code, err, hits)
	}
	if _, err := get(&Dialer{}, s.URL); !errors.Is(err, ErrRefused) || hits != 1 {
		t.Errorf("without a grant: %v, %d requests", err, hits)
	}
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	_, err = get(&Dialer{Grants: g}, secure.URL)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Errorf("an unknown certificate: %v", err)
	}
}

// Whatever is written as host and port, nothing but a host of the internet is
// dialled.
func FuzzNothingPrivateIsDialled(f *testing.F) {
	for _, c := range addresses {
		f.Add(net.JoinHostPort(c.addr, "80"), []byte{127, 0, 0, 1})
	}
	f.Add("a.example:443", []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1})
	f.Add("2130706433:80", []byte{93, 184, 216, 34})
	f.Fuzz(func(t *testing.T, address string, answer []byte) {
		d := Dialer{
			Lookup: func(context.Context, string) ([]netip.Addr, error) {
				a, ok := netip.AddrFromSlice(answer)
				if !ok {
					return nil, errors.New("no such host")
				}
				return []netip.Addr{a}, nil
			},
			Connect: func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
				a := to.Addr()
				if !a.IsGlobalUnicast() || a.IsPrivate() || a.Is4In6() || a.Zone() != "" || a.IsLoopback() || a.IsLinkLocalUnicast() || to.Port() == 0 {
					t.Errorf("%q with %v: dialled %s", address, answer, to)
				}
				return nil, errors.New("far away")
			},
		}
		if c, err := d.DialContext(t.Context(), "tcp", address); err == nil || c != nil {
			t.Error("connected")
		}
	})
}
