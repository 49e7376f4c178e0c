package redisstore

import (
	"context"
	"net"
	"sync"
	"syscall"
)

// conns are the open connections of both pools, so that all of them can be
// dropped at once, also those that are in use.
type conns struct {
	mu   sync.Mutex
	open map[*conn]struct{}
}

type conn struct {
	net.Conn
	of *conns
}

// plainConn lets the pool look at the socket of a connection that has one of
// its own, as it does to find out which were closed.
type plainConn struct {
	*conn
	syscall.Conn
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// dial keeps what another dialer opens.
func (c *conns) dial(next dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		cn := &conn{raw, c}
		c.mu.Lock()
		if c.open == nil {
			c.open = map[*conn]struct{}{}
		}
		c.open[cn] = struct{}{}
		c.mu.Unlock()
		if sys, ok := raw.(syscall.Conn); ok {
			return plainConn{cn, sys}, nil
		}
		return cn, nil
	}
}

func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// drop closes them all. The pools notice and open new ones.
func (c *conns) drop() {
	c.mu.Lock()
	open := c.open
	c.open = nil
	c.mu.Unlock()
	for cn := range open {
		_ = cn.Conn.Close()
	}
}
