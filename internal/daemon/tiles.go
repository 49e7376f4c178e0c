package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/s3"
	"github.com/writ-gateway/writ/receipts/tlog"
	"github.com/writ-gateway/writ/receipts/tlog/bucket"
)

// tilesAt is the setting tiles, taken apart.
type tilesAt struct{ bucket, prefix, region, endpoint string }

// tilesAt reads tiles; it is zero where the log is in the data directory.
func (c Config) tilesAt() (t tilesAt, err error) {
	if c.Tiles == "" {
		return t, nil
	}
	u, err := url.Parse(c.Tiles)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return t, errors.New("not s3://bucket/prefix")
	}
	t.bucket = u.Host
	if t.prefix = strings.Trim(u.Path, "/"); t.prefix != "" {
		t.prefix += "/"
	}
	if strings.Trim(t.prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") != "" || strings.Contains(t.prefix, "//") {
		return t, errors.New("a prefix has letters, digits, -, _, . and single slashes")
	}
	for name, values := range u.Query() {
		switch {
		case len(values) == 1 && name == "region":
			t.region = values[0]
		case len(values) == 1 && name == "endpoint":
			t.endpoint = values[0]
		default:
			return t, errors.New("it takes region and endpoint, each once")
		}
	}
	_, err = s3.Open(t.config(s3.Credentials{AccessKey: "x", Secret: "x"}))
	return t, err
}

func (t tilesAt) config(by s3.Credentials) s3.Config {
	return s3.Config{Bucket: t.bucket, Region: t.region, Endpoint: t.endpoint, Credentials: by}
}

// openTiles opens the files of the log, wherever they are.
func (d *Daemon) openTiles(ctx context.Context) (tlog.Files, error) {
	if d.cfg.Tiles == "" {
		dir := filepath.Join(d.cfg.Data, logDir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, notReadyTiles("the directory of the log cannot be made", "choose one the gateway's user can write to", err)
		}
		return tlog.Dir(dir), nil
	}
	at, err := d.cfg.tilesAt()
	if err != nil {
		return nil, err
	}
	by, err := tilesCredentials(d.cfg.TilesKey, os.Getenv)
	if err != nil {
		return nil, err
	}
	b, err := s3.Open(at.config(by))
	if err != nil {
		return nil, err
	}
	files, err := bucket.Open(ctx, b, "s3://"+at.bucket+"/"+at.prefix, at.prefix)
	if err != nil {
		return nil, notReadyTiles("the object store of the log cannot be used",
			"check tiles and the credentials: they must allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket; and the store must know If-Match and If-None-Match", err)
	}
	return files, nil
}

func notReadyTiles(msg, hint string, err error) error {
	return &writ.Error{Code: writ.CodeNotReady, Op: "daemon.tiles", Msg: msg, Hint: hint, Err: err}
}

// tilesCredentials are those of a file, as the tools of AWS keep them, or of the
// environment, as they do, too. They are never in a setting.
func tilesCredentials(file string, env func(string) string) (c s3.Credentials, err error) {
	get := env
	if file != "" {
		info, err := os.Stat(file)
		if err != nil {
			return c, fmt.Errorf("tiles_credentials: %w", err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return c, fmt.Errorf("tiles_credentials: %s is open to others (mode %04o): chmod 600 it", file, info.Mode().Perm())
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return c, fmt.Errorf("tiles_credentials: %w", err)
		}
		said := map[string]string{}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), "=")
			if name = strings.ToUpper(strings.TrimSpace(name)); said[name] == "" { // of the first profile
				said[name] = strings.TrimSpace(value)
			}
		}
		get = func(name string) string { return said[name] }
	}
	c = s3.Credentials{AccessKey: get("AWS_ACCESS_KEY_ID"), Secret: get("AWS_SECRET_ACCESS_KEY"), Token: get("AWS_SESSION_TOKEN")}
	if c.AccessKey == "" || c.Secret == "" {
		return s3.Credentials{}, errors.New("tiles: there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file that has them in tiles_credentials")
	}
	return c, nil
}
