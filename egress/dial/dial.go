package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// ErrRefused says that a host is, or resolves to, an address that may not be
// dialled. It names neither.
var ErrRefused = errors.New("the address may not be dialled")

// Dialer dials what Grants allow. The zero value dials hosts of the internet.
type Dialer struct {
	Grants Grants
	// Inside keeps it from hosts of the internet: only what Grants name is dialled.
	Inside bool
	// Lookup resolves a name; nil asks the system.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Connect connects to a checked address; nil does.
	Connect func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// DialContext connects to host:port. All addresses of the host must be allowed:
// one that is not says what the others are worth.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, ErrRefused
	}
	host, portName, err := net.SplitHostPort(address)
	if err != nil || !ValidHost(host) {
		return nil, ErrRefused
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", portName)
	if err != nil || port == 0 {
		return nil, ErrRefused
	}
	addrs, err := d.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	may := d.Grants.May
	if d.Inside {
		may = d.Grants.Names
	}
	for _, a := range addrs {
		if !may(host, portName, a) {
			return nil, ErrRefused
		}
	}
	connect := d.Connect
	if connect == nil {
		connect = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to.String())
		}
	}
	err = ErrRefused // a name without addresses
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		var c net.Conn
		if c, err = connect(ctx, netip.AddrPortFrom(a, uint16(port))); err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// maxAddrs bounds how many addresses of one name are tried.
const maxAddrs = 8

// resolve gives the addresses of a host. What a name server gives as IPv4 may
// come written as IPv6; what the caller wrote is left as it is.
func (d *Dialer) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	lookup := d.Lookup
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	addrs, err := lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	out := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.Unmap())
	}
	return out, nil
}
