package daemon

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// A second gateway on an address leaves nothing behind.
func TestATakenAddressComesFirst(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := filepath.Join(t.TempDir(), "data")
	cfg, err := Load("", noEnv, map[string]string{"data": data, "listen": l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	err = New(cfg, slog.New(slog.DiscardHandler)).Start(t.Context())
	if e := writ.AsError("", err); err == nil || e.Code != writ.CodeNotReady || !strings.Contains(e.Hint, "--listen") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the data directory was made: %v", err)
	}
}

// On every address the gateway still says one that can be reached, and warns.
func TestListeningOnEveryAddress(t *testing.T) {
	for listen, want := range map[string]string{"0.0.0.0:0": "http://127.0.0.1:", ":0": "http://127.0.0.1:"} {
		var d *Daemon
		var logged *logs
		d, _, logged = start(t, t.TempDir(), func(c *Config) { c.Listen = listen })
		b, err := os.ReadFile(filepath.Join(d.cfg.Data, urlFile))
		url := strings.TrimSpace(string(b))
		if err != nil || !strings.HasPrefix(url, want) || url != d.URL() {
			t.Fatalf("%s: the address is %q: %v", listen, url, err)
		}
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := c.Get(url + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		stopDaemon(t, d)
		if !strings.Contains(logged.String(), "plain text") {
			t.Errorf("%s: no warning in %s", listen, logged)
		}
	}
	d, _, logged := start(t, t.TempDir())
	stopDaemon(t, d)
	if strings.Contains(logged.String(), "plain text") {
		t.Errorf("a warning on loopback: %s", logged)
	}
}
