package dial

import (
	"net/netip"
	"strings"
)

// refused are the networks nobody is dialled in without a grant: those of this
// machine and of private networks, those that lead to either by another name,
// and those that are no single host.
var refused = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
	"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32", // what Azure tells its own machines, secrets among it
	"2001::/23",        // Teredo, benchmarks, ORCHID and the like
	"2001:db8::/32",    // documentation
	"2002::/16",        // 6to4 holds an IPv4 address
	"3fff::/20",        // documentation
)

// global is where addresses of the internet lie in IPv6. All else is refused,
// which takes in loopback, link-local, unique local, multicast, IPv4 mapped or
// compatible, and NAT64.
var global = netip.MustParsePrefix("2000::/3")

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Public says whether an address is a host of the internet. An IPv4 address
// written as an IPv6 one is not: nothing needs that but to slip through.
func Public(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.Is6() && !global.Contains(a) {
		return false
	}
	for _, p := range refused {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// ValidHost says whether a host is an IP address or a name that can be asked
// for: letters, digits, hyphens and dots.
func ValidHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Zone() == ""
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			switch c := label[i]; {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return true
}
