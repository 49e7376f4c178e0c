package probes

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// network are ways to anybody but the gateway.
var network = []Probe{
	{Name: "net_tcp_loopback", Try: func(w *World) error { return dial(w.TCP4) }},
	{Name: "net_tcp_host", Try: func(w *World) error { return dial(w.TCPHost) }},
	{Name: "net_tcp_ipv6", Lacks: true, Try: func(w *World) error { return dial(w.TCP6) }},
	{Name: "net_tcp_mapped", Lacks: true, Try: func(w *World) error { return dialMapped(w.TCP4) }},
	{Name: "net_tcp_fastopen", Try: fastOpen},
	{Name: "net_udp", Try: func(w *World) error { return asks(w.UDP4) }},
	{Name: "net_udp6", Lacks: true, Try: func(w *World) error { return asks(w.UDP6) }},
	{Name: "net_unix", Try: func(w *World) error { return connectUnix(unix.SOCK_STREAM, w.Unix) }},
	{Name: "net_unix_proc_root", Other: true, Control: Root, Try: func(w *World) error {
		return anyOf(connectUnix(unix.SOCK_STREAM, proc(w.Victim, "root")+w.Unix), connectUnix(unix.SOCK_STREAM, "/proc/1/root"+w.Unix))
	}},
	{Name: "net_unix_in_scope", Try: func(w *World) error { return connectUnix(unix.SOCK_STREAM, w.ReadScope+"/host.sock") }},
	{Name: "net_abstract", Try: func(w *World) error { return connectUnix(unix.SOCK_STREAM, "@"+w.Abstract) }},
	{Name: "net_abstract_datagram", Try: func(w *World) error { return connectUnix(unix.SOCK_DGRAM, "@"+w.Datagram) }},
	{Name: "net_gateway_socket_replace", Try: func(w *World) error {
		name := w.Run + "/gateway.sock"
		if err := unix.Rename(name, w.Run+"/other"); err == nil {
			return unix.Rename(w.Run+"/other", name)
		}
		return anyOf(unix.Unlink(name), unix.Chmod(name, 0))
	}},
	{Name: "net_bind_in_run", Try: func(w *World) error { return bindUnix(w.Run + "/mine.sock") }},
	{Name: "net_bind_privileged", Control: Own, Try: func(*World) error { return listens(unix.AF_INET, [4]byte{127, 0, 0, 2}, 81) }},
	{Name: "net_bind_gateway_port", Control: Own, Try: func(*World) error { return listens(unix.AF_INET, [4]byte{127, 0, 0, 3}, 80) }},
	{Name: "net_listen", Try: func(*World) error { return listens(unix.AF_INET, [4]byte{127, 0, 0, 1}, 0) }},
	{Name: "net_listen_any", Try: func(*World) error { return listens(unix.AF_INET, [4]byte{}, 0) }},
	{Name: "net_listen_ipv6", Lacks: true, Try: func(*World) error { return listens(unix.AF_INET6, [4]byte{}, 0) }},
	{Name: "net_unix_datagram", Try: func(*World) error { return opened(unix.AF_UNIX, unix.SOCK_DGRAM, 0) }},
	{Name: "net_unix_seqpacket", Try: func(*World) error { return opened(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0) }},
	{Name: "net_unix_raw", Try: func(*World) error { return opened(unix.AF_UNIX, unix.SOCK_RAW, 0) }},
	{Name: "net_udp_socket", Try: func(*World) error { return opened(unix.AF_INET, unix.SOCK_DGRAM, 0) }},
	{Name: "net_udp_by_number", Try: func(*World) error { return opened(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP) }},
	{Name: "net_family_high_bits", Try: func(*World) error { // a filter that compares 64 bits sees another family
		return try(unix.SYS_SOCKET, unix.AF_INET|high, unix.SOCK_DGRAM|high, 0|high)
	}},
	{Name: "net_icmp", Control: Own, Try: func(*World) error { return opened(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
	{Name: "net_icmp6", Control: Own, Lacks: true, Try: func(*World) error { return opened(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6) }},
	{Name: "net_ping", Control: Root, Try: func(*World) error {
		_ = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 4294967294"), 0)
		return opened(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	}},
	{Name: "net_raw_ip", Control: Own, Try: func(*World) error { return opened(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW) }},
	{Name: "net_packet", Control: Own, Lacks: true, Try: func(*World) error { return opened(unix.AF_PACKET, unix.SOCK_RAW, 0x0300) }},
	{Name: "net_netlink_route", Try: func(*World) error { return opened(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE) }},
	{Name: "net_netlink_generic", Try: func(*World) error { return opened(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC) }},
	{Name: "net_netlink_diag", Lacks: true, Try: func(*World) error { return opened(unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_INET_DIAG) }},
	{Name: "net_netlink_filter", Lacks: true, Try: func(*World) error { return opened(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER) }},
	{Name: "net_netlink_events", Try: func(*World) error { return opened(unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_KOBJECT_UEVENT) }},
	{Name: "net_netlink_audit", Lacks: true, Try: func(*World) error { return opened(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT) }},
	{Name: "net_netlink_ipsec", Lacks: true, Try: func(*World) error { return opened(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM) }},
	{Name: "net_vsock", Lacks: true, Try: func(*World) error { return opened(unix.AF_VSOCK, unix.SOCK_STREAM, 0) }},
	{Name: "net_crypto", Lacks: true, Try: func(*World) error { return opened(unix.AF_ALG, unix.SOCK_SEQPACKET, 0) }},
	{Name: "net_mptcp", Lacks: true, Try: func(*World) error { return opened(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP) }},
	{Name: "net_sctp", Lacks: true, Try: func(*World) error { return opened(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP) }},
	{Name: "net_udplite", Lacks: true, Try: func(*World) error { return opened(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE) }},
	{Name: "net_smc", Lacks: true, Try: func(*World) error { return opened(unix.AF_SMC, unix.SOCK_STREAM, 0) }},
	{Name: "net_xdp", Control: Own, Lacks: true, Try: func(*World) error { return opened(unix.AF_XDP, unix.SOCK_RAW, 0) }},
	{Name: "net_tipc", Lacks: true, Try: func(*World) error { return opened(unix.AF_TIPC, unix.SOCK_RDM, 0) }},
	{Name: "net_bluetooth", Lacks: true, Try: func(*World) error { return opened(unix.AF_BLUETOOTH, unix.SOCK_SEQPACKET, 0) }},
	{Name: "net_can", Control: Own, Lacks: true, Try: func(*World) error { return opened(unix.AF_CAN, unix.SOCK_RAW, 1) }},
	{Name: "net_pair_datagram", Try: func(*World) error { // only families of the inside may come as pairs, and TIPC has them too
		return reached(pair(unix.AF_INET), unix.EOPNOTSUPP)
	}},
	{Name: "net_interface_down", Control: Own, Try: interfaceDown},
	{Name: "net_mark", Control: Own, Try: func(*World) error { return onTCP(unix.SOL_SOCKET, unix.SO_MARK, 7) }},
	{Name: "net_transparent", Control: Own, Try: func(*World) error { return onTCP(unix.SOL_IP, unix.IP_TRANSPARENT, 1) }},
	{Name: "net_repair", Control: Own, Lacks: true, Try: func(*World) error { return onTCP(unix.SOL_TCP, unix.TCP_REPAIR, 1) }},
	{Name: "net_attach_filter", Try: attachFilter},
	{Name: "net_attach_reuseport", Try: func(*World) error {
		return reached(onTCP(unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, 0), unix.EFAULT, unix.EINVAL)
	}},
	{Name: "net_attach_bpf", Try: func(*World) error {
		return reached(onTCP(unix.SOL_SOCKET, unix.SO_ATTACH_BPF, -1), unix.EBADF, unix.EINVAL)
	}},
	{Name: "net_upper_protocol", Lacks: true, Try: upperProtocol},
	{Name: "net_tun", Control: Root, Lacks: true, Try: func(*World) error { return opens("/dev/net/tun", unix.O_RDWR) }},
	{Name: "net_pretend_credentials", Control: Root, Try: pretend},
	{Name: "net_enter", Other: true, Control: Root, Try: func(w *World) error { return entersNamespace(w, "net", unix.CLONE_NEWNET) }},
}

const high = 1 << 40

// wait is for those who do not answer.
const wait = 2 * time.Second

func dial(address string) error {
	if address == "" {
		return cannot{syscall.EADDRNOTAVAIL}
	}
	c, err := net.DialTimeout("tcp", address, wait)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return answered(c)
}

func answered(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("probe")); err != nil {
		return err
	}
	var b [5]byte
	_, err := c.Read(b[:])
	return err
}

func asks(address string) error {
	if address == "" {
		return cannot{syscall.EADDRNOTAVAIL}
	}
	c, err := net.DialTimeout("udp", address, wait)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return answered(c)
}

func port(address string) (net.IP, int, error) {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, 0, cannot{err}
	}
	return a.IP, a.Port, nil
}

// dialMapped is an address of one family inside the other.
func dialMapped(address string) error {
	ip, port, err := port(address)
	if err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	return unix.Connect(s, &unix.SockaddrInet6{Port: port, Addr: [16]byte(ip.To16())})
}

// fastOpen connects by sending.
func fastOpen(w *World) error {
	ip, port, err := port(w.TCP4)
	if err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	if err := unix.Sendto(s, []byte("probe"), unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL, &unix.SockaddrInet4{Port: port, Addr: [4]byte(ip.To4())}); err != nil {
		return err
	}
	_, err = unix.Getpeername(s)
	return err
}

func connectUnix(kind int, name string) error {
	s, err := unix.Socket(unix.AF_UNIX, kind, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	return unix.Connect(s, &unix.SockaddrUnix{Name: name})
}

func bindUnix(name string) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	return unix.Bind(s, &unix.SockaddrUnix{Name: name})
}

func listens(family int, ip [4]byte, port int) error {
	s, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	var at unix.Sockaddr = &unix.SockaddrInet4{Port: port, Addr: ip}
	if family == unix.AF_INET6 {
		at = &unix.SockaddrInet6{Port: port}
	}
	if err := unix.Bind(s, at); err != nil {
		return err
	}
	return unix.Listen(s, 1)
}

func opened(family, kind, proto int) error {
	s, err := unix.Socket(family, kind, proto)
	if err == nil {
		_ = unix.Close(s)
	}
	return err
}

func pair(family int) error {
	fds, err := unix.Socketpair(family, unix.SOCK_DGRAM, 0)
	if err == nil {
		_, _ = unix.Close(fds[0]), unix.Close(fds[1])
	}
	return err
}

func onTCP(level, option, v int) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = unix.Close(s) }()
	return unix.SetsockoptInt(s, level, option, v)
}

func interfaceDown(*World) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = unix.Close(s) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return cannot{err}
	}
	lo.SetUint16(unix.IFF_LOOPBACK)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

func attachFilter(*World) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = unix.Close(s) }()
	all := []unix.SockFilter{{Code: unix.BPF_RET, K: 1}}
	return unix.SetsockoptSockFprog(s, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &all[0]})
}

// upperProtocol asks for a protocol for which the kernel would load a module.
func upperProtocol(*World) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = unix.Close(s) }()
	return reached(unix.SetsockoptString(s, unix.SOL_TCP, unix.TCP_ULP, "tls"), unix.ENOTCONN)
}

// pretend sends another's process number and user along.
func pretend(*World) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return cannot{err}
	}
	defer func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) }()
	return unix.Sendmsg(fds[0], []byte("x"), unix.UnixCredentials(&unix.Ucred{Pid: 1, Uid: 0, Gid: 0}), nil, unix.MSG_NOSIGNAL)
}

// entersNamespace joins that of a process of the host.
func entersNamespace(w *World, kind string, flag int) error {
	f, err := unix.Open(proc(w.Victim, "ns/"+kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer func() { _ = unix.Close(f) }()
		return inChild([4]uintptr{unix.SYS_SETNS, uintptr(f), uintptr(flag)})
	}
	p, other := unix.PidfdOpen(w.Victim, 0)
	if other == nil {
		defer func() { _ = unix.Close(p) }()
		return inChild([4]uintptr{unix.SYS_SETNS, uintptr(p), uintptr(flag)})
	}
	// There is nobody of the host to join: our own first process, then.
	if p, other = unix.PidfdOpen(1, 0); other == nil {
		defer func() { _ = unix.Close(p) }()
		return inChild([4]uintptr{unix.SYS_SETNS, uintptr(p), uintptr(flag)})
	}
	return errors.Join(err, other)
}

func pointer[T any](v *T) uintptr { return uintptr(unsafe.Pointer(v)) }
