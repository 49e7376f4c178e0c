package dial

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Grants are the addresses an operator lets be dialled although they are no
// hosts of the internet. The zero value grants nothing.
type Grants struct {
	nets  []netip.Prefix
	hosts map[string]bool // "host:port"
}

// ParseGrants reads grants: a network (10.1.0.0/16), an address, or a host and a
// port (health.internal:8080), which are granted whatever address the host has.
func ParseGrants(list []string) (Grants, error) {
	var g Grants
	for _, s := range list {
		s = strings.TrimSpace(s)
		if p, err := netip.ParsePrefix(s); err == nil && !p.Addr().Is4In6() && p == p.Masked() { // 10.1.2.3/8 would be more than it looks
			g.nets = append(g.nets, p)
			continue
		}
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
			g.nets = append(g.nets, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		host, port, err := net.SplitHostPort(s)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || n == 0 || !ValidHost(host) {
			return Grants{}, errors.New("want networks such as 10.1.0.0/16, addresses, or host:port")
		}
		if g.hosts == nil {
			g.hosts = map[string]bool{}
		}
		g.hosts[target(host, strconv.FormatUint(n, 10))] = true
	}
	return g, nil
}

// target is the one way a host and a port are written.
func target(host, port string) string {
	return net.JoinHostPort(strings.TrimSuffix(strings.ToLower(host), "."), port)
}

// May says whether an address, found for a host and port, may be dialled: one of the
// internet, or one that is named.
func (g Grants) May(host, port string, a netip.Addr) bool {
	return Public(a) || g.Names(host, port, a)
}

// Names says whether the grants name an address, found for a host and port: one of the
// internet is not named by being that.
func (g Grants) Names(host, port string, a netip.Addr) bool {
	if a.Is4In6() || a.Zone() != "" { // ::/0 would grant all of IPv4 with the first
		return false
	}
	return g.hosts[target(host, port)] && a.IsValid() ||
		slices.ContainsFunc(g.nets, func(p netip.Prefix) bool { return p.Contains(a) })
}
