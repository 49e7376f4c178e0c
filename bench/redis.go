package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// redisServer is a private redis-server on a unix socket.
type redisServer struct {
	*process
	socket string
}

func (s redisServer) url() string { return "unix://" + s.socket }

// startRedis starts a server with an append-only file; fsync is "always" or
// "everysec". The file is not rewritten: a child doing so would disturb.
func (b *bench) startRedis(ctx context.Context, fsync string) (redisServer, error) {
	binary := os.Getenv("WRIT_REDIS_SERVER")
	for _, name := range []string{"redis-server", filepath.Join(b.root, ".tools", "redis-server")} {
		if p, err := exec.LookPath(name); err == nil && binary == "" {
			binary = p
		}
	}
	if binary == "" {
		return redisServer{}, errors.New("no redis-server found: run `make deps`, or set WRIT_REDIS_SERVER to its path")
	}
	dir, err := b.scratch()
	if err != nil {
		return redisServer{}, err
	}
	s := redisServer{socket: filepath.Join(dir, "s")}
	conf := strings.Join([]string{
		"port 0", "unixsocket " + s.socket, "unixsocketperm 700", "dir " + dir, "daemonize no", `save ""`,
		"appendonly yes", "appendfsync " + fsync, "auto-aof-rewrite-percentage 0", "",
	}, "\n")
	s.process, err = spawn(ctx, dir, strings.NewReader(conf), func() bool {
		c, err := dialRedis(s.socket)
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		return c.do(command("PING")) == nil
	}, nil, binary, "-")
	return s, err
}

// redisConn speaks as much of the protocol as one command at a time needs.
type redisConn struct {
	net.Conn
	r *bufio.Reader
}

func dialRedis(socket string) (*redisConn, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	return &redisConn{c, bufio.NewReader(c)}, nil
}

// command is a command as it goes over the wire (RESP2).
func command(words ...string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b
}

// do sends a command and reads its answer, which must be a status, a number
// or one string.
func (c *redisConn) do(cmd []byte) error {
	if _, err := c.Write(cmd); err != nil {
		return err
	}
	l, err := c.r.ReadString('\n')
	if err != nil {
		return err
	}
	switch l = strings.TrimSpace(l); {
	case l[0] == '-':
		return errors.New("redis: " + l[1:])
	case l[0] == '$':
		n, err := strconv.Atoi(l[1:])
		if err != nil || n < 0 {
			return err
		}
		_, err = io.CopyN(io.Discard, c.r, int64(n)+2)
		return err
	}
	return nil
}
