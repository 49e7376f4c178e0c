package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
)

// openListener takes the address before anything is made or opened, so that a
// second gateway leaves nothing behind. Who connects waits until openServer.
func (d *Daemon) openListener(ctx context.Context) error {
	l, err := listen(ctx, d.cfg.Listen)
	if err != nil {
		return err
	}
	d.listener = l
	d.onStop(func(context.Context) error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) { // the server may have closed it
			return err
		}
		return nil
	})
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		d.log.Warn("listening beyond this machine without TLS: tokens cross the network in plain text; put a proxy with TLS in front, or listen on loopback",
			"address", a.String())
	}
	return nil
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	why := err.Error()
	if e, ok := errors.AsType[*net.OpError](err); ok {
		why = e.Err.Error() // without the address a second time
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		why = "the address is taken, perhaps by another gateway"
	}
	return nil, &writ.Error{
		Code: writ.CodeNotReady, Op: "daemon.listen", Msg: "cannot listen on " + addr + ": " + why,
		Hint: "choose another address with --listen, for example --listen 127.0.0.1:0 for any free port",
	}
}

// URL is where the gateway answers; when it listens on every address, the one
// that reaches it from this machine.
func (d *Daemon) URL() string {
	host, port, err := net.SplitHostPort(d.listener.Addr().String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if bound, _, _ := net.SplitHostPort(d.cfg.Listen); strings.Contains(bound, ":") {
			host = "::1"
		}
	}
	return "http://" + net.JoinHostPort(host, port)
}

func (d *Daemon) openServer(ctx context.Context) error {
	hosts := d.cfg.hosts()
	if a, ok := d.listener.Addr().(*net.TCPAddr); ok && a.IP.IsLoopback() {
		hosts = append(hosts, gateway.LoopbackHosts...)
	}
	var transfers context.Context
	transfers, d.endTransfers = context.WithCancel(context.Background())
	handler, err := gateway.New(gateway.Config{
		Door: d.dispatcher, Registry: d.registry, Hosts: hosts, Telemetry: d.telemetry, Ready: d.ready, Log: d.log, Blobs: artifactStore{d.artifacts},
		Transfers:      min(32, max(2, d.cfg.Inflight/8)), // each takes a call's place for minutes
		Stopping:       transfers,
		Checkpoint:     d.checkpoint,
		PolicyRevision: func() string { policy, _ := d.engine.Revisions(); return policy },
	})
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if err := writeFile(filepath.Join(d.cfg.Data, urlFile), d.URL()+"\n"); err != nil {
		return err
	}
	d.server = gateway.Server(handler)
	d.faces.open(handler)
	go func() {
		if err := d.server.Serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
			d.served <- err
		}
	}()
	d.onStop(func(ctx context.Context) error {
		// Waiting claims and bodies on their way first: they would hold the shutdown.
		d.endTransfers()
		d.faces.close()
		d.dispatcher.Stop()
		c, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		// Effects have most of that time to end by themselves; those that are stopped then
		// still say what became of them, to the store and to who waits for it.
		ending, stop := context.WithTimeout(c, 10*time.Second)
		defer stop()
		stopped := make(chan struct{})
		go func() { d.door.StopEffects(ending); close(stopped) }()
		err := d.server.Shutdown(c)
		<-stopped
		return err
	})
	return d.openJails(ctx)
}
