package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/internal/daemon"
	"github.com/writ-gateway/writ/receipts"
)

// connection is how a command finds the gateway and who it acts as. Flags win
// over the environment. Nothing is looked for in the working directory: whoever
// made that could otherwise choose where a token goes.
type connection struct {
	url, tokenFile, data, cosignKey string
	logKey                          string         // of the log, when the caller named one
	checks                          bool           // the log: what is kept of it must be there
	cmd                             *cobra.Command // whose flags these are
}

func (n *connection) flags(c *cobra.Command) {
	n.cmd = c
	c.Flags().StringVar(&n.url, "url", "", "gateway, for example http://127.0.0.1:8700; wants --token-file (WRIT_URL)")
	c.Flags().StringVar(&n.tokenFile, "token-file", "", "file with the session token, mode 0600; wants --url or --data (WRIT_TOKEN_FILE)")
	c.Flags().StringVar(&n.cosignKey, "cosign-key", "", "private key in PEM, mode 0600, that signs every change: one the agent has registered (WRIT_COSIGN_KEY)")
	c.Flags().StringVar(&n.data, "data", "", "data directory of a gateway on this machine (WRIT_DATA; default: writ serve's)")
}

func (n *connection) open() (*client.Client, error) {
	url, tokenFile, err := n.where(os.Getenv)
	if err != nil {
		return nil, err
	}
	token, err := readToken(tokenFile)
	if err != nil {
		return nil, err
	}
	cfg := client.Config{URL: url, Token: token}
	if path := first(n.cosignKey, os.Getenv("WRIT_COSIGN_KEY")); path != "" {
		if there(path) != nil {
			return nil, absent{fmt.Errorf("there is no key %s to sign calls with: make it with openssl genpkey -algorithm ed25519 -out FILE, and chmod 600 it", path)}
		}
		key, err := receipts.LoadCosignKey(path)
		if err != nil {
			return nil, err
		}
		cfg.Cosign = key.Header
	}
	dir, _ := dataDir(n.data, os.Getenv)
	here := n.url == "" && (n.data != "" || os.Getenv("WRIT_URL") == "") // as where has it
	file := seenFile(seenPath(url, dir, here))
	cfg.Log = client.LogConfig{Key: n.logKey, Keep: file}
	var news *logNews
	if n.cmd != nil {
		if news, _ = n.cmd.Context().Value(logNewsKey{}).(*logNews); news != nil {
			cfg.Log.Found = func(err error) { news.finds(err, string(file)) }
		}
	}
	c, err := client.New(cfg)
	if damaged, ok := errors.AsType[damagedFile](err); ok && news != nil && !n.checks {
		news.found = damaged // said at the end: the command does what it was told
		cfg.Log.Keep = nil
		return client.New(cfg)
	}
	if err == nil && news != nil {
		news.clients = append(news.clients, c)
		if wrong := c.LogSeen().Wrong(); wrong != nil && !n.checks { // said at the end, each time
			news.finds(wrong, string(file))
		}
	}
	return c, err
}

// where says which gateway to call and where its token lies. A token that was
// found is only ever sent to the gateway that was found beside it: both come
// from one data directory, or whoever calls named the place of each.
func (n *connection) where(env func(string) string) (url, tokenFile string, err error) {
	url, tokenFile = first(n.url, env("WRIT_URL")), first(n.tokenFile, env("WRIT_TOKEN_FILE"))
	data, named := dataDir(n.data, env)
	if n.data != "" { // the flag is meant, not what the environment says
		url, tokenFile = n.url, n.tokenFile
	}
	switch {
	case url != "" && tokenFile != "":
		return url, tokenFile, nil
	case url != "":
		return "", "", errors.New("--url wants --token-file: the token of a data directory belongs to its own gateway")
	case tokenFile != "" && !named:
		return "", "", errors.New("--token-file wants --url, or the --data directory of the gateway the token is for")
	case data == "":
		return "", "", errors.New("no data directory is known: give --data, or --url and --token-file")
	}
	b, err := os.ReadFile(filepath.Join(data, "gateway.url"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", absent{fmt.Errorf("no gateway has served from %s: start one with 'writ serve', or name another directory with --data or WRIT_DATA", data)}
	}
	if err != nil {
		return "", "", err
	}
	return strings.TrimSpace(string(b)), first(tokenFile, daemon.OperatorToken(data)), nil
}

// dataDir is the data directory, and whether it was named rather than the
// default one.
func dataDir(flag string, env func(string) string) (data string, named bool) {
	if data = first(flag, env("WRIT_DATA")); data != "" {
		return data, true
	}
	return daemon.DefaultData(env), false
}

// readToken reads a file that nobody but its owner may read, and that is what
// its name says: not a link to a secret somewhere else.
func readToken(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("token file %s is a link or no plain file: name the file itself", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	defer func() { _ = f.Close() }()
	opened, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !os.SameFile(info, opened) {
		return "", fmt.Errorf("token file %s was replaced while it was opened", path)
	}
	if opened.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("token file %s is open to others (mode %04o): chmod 600 it", path, opened.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("token file %s does not hold one token", path)
	}
	return token, nil
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
