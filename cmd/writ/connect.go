package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/internal/daemon"
)

// connection is how a command finds the gateway and who it acts as: flags, then
// WRIT_URL and WRIT_TOKEN_FILE, then the data directory of a gateway on this
// machine (./.writ, else the default one).
type connection struct{ url, tokenFile, data string }

func (n *connection) flags(c *cobra.Command) {
	c.Flags().StringVar(&n.url, "url", "", "gateway, for example http://127.0.0.1:8700 (WRIT_URL)")
	c.Flags().StringVar(&n.tokenFile, "token-file", "", "file with the session token (WRIT_TOKEN_FILE)")
	c.Flags().StringVar(&n.data, "data", "", "data directory of a gateway on this machine (WRIT_DATA)")
}

func (n *connection) open() (*client.Client, error) {
	data := n.data
	if data == "" {
		data = os.Getenv("WRIT_DATA")
	}
	if data == "" {
		data = daemon.DefaultData(os.Getenv)
		if _, err := os.Stat(".writ"); err == nil {
			data = ".writ"
		}
	}
	url := first(n.url, os.Getenv("WRIT_URL"))
	if url == "" {
		b, err := os.ReadFile(filepath.Join(data, "gateway.url"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("no gateway is known here: start one with 'writ serve', or give --url")
		}
		if err != nil {
			return nil, err
		}
		url = strings.TrimSpace(string(b))
	}
	token := first(n.tokenFile, os.Getenv("WRIT_TOKEN_FILE"), filepath.Join(data, "operator.token"))
	return client.New(client.Config{URL: url, TokenFile: token})
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
