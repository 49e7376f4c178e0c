package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/receipts"
)

// Made says what Init made or found.
type Made struct{ PublicKey, KeyID string }

// Init makes the data directory and its keys.
func Init(cfg Config) (Made, error) {
	if err := makeData(cfg.Data, slog.New(slog.DiscardHandler)); err != nil {
		return Made{}, err
	}
	keys, err := receipts.LoadOrCreate(cfg.Keys, keyOptions(cfg))
	if err != nil {
		return Made{}, err
	}
	if _, err := loadSecret(filepath.Join(cfg.Keys, sessionKeyFile)); err != nil {
		return Made{}, err
	}
	return Made{PublicKey: filepath.Join(cfg.Keys, receipts.FilePublic), KeyID: keys.KeyID}, nil
}

// Sample is a configuration file with every setting at its default, commented
// out.
func Sample() string {
	var b strings.Builder
	b.WriteString("# Configuration of writ. Every line shows a setting; uncomment to change it.\n")
	for _, s := range Settings() {
		fmt.Fprintf(&b, "\n# %s\n# %s:\n", s.Doc, s.Name)
	}
	return b.String()
}

// Finding is one thing the doctor looked at.
type Finding struct {
	What, Detail string
	Err          error
}

// Examine looks at everything a start would need, without starting. If a
// gateway runs on the data directory it is asked how it is instead of opening
// its store.
func Examine(ctx context.Context, cfg Config) []Finding {
	var out []Finding
	note := func(what, detail string, err error) { out = append(out, Finding{what, detail, err}) }

	info, err := os.Stat(cfg.Data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		note("data", cfg.Data+" will be made at the first start", nil)
	case err != nil:
		note("data", cfg.Data, err)
	case info.Mode().Perm()&0o077 != 0:
		note("data", cfg.Data, fmt.Errorf("the directory is open to others (mode %04o): chmod 700 it", info.Mode().Perm()))
	default:
		note("data", cfg.Data, nil)
	}

	if _, err := os.Stat(filepath.Join(cfg.Keys, receipts.FilePublic)); errors.Is(err, fs.ErrNotExist) {
		note("keys", cfg.Keys+": will be made at the first start", nil)
	} else if keys, err := receipts.LoadOrCreate(cfg.Keys, keyOptions(cfg)); err != nil {
		note("keys", cfg.Keys, err)
	} else {
		note("keys", keys.KeyID+" for "+keys.Origin, nil)
	}

	src, from := policies.Shipped(), "built in"
	if cfg.Policies != "" {
		src, from = policies.Directory(cfg.Policies), cfg.Policies
	}
	if engine, err := policies.Load(ctx, src, policies.Options{Capabilities: IDs(Catalog()), Tenants: []writ.Tenant{shard}}); err != nil {
		note("policies", from, err)
	} else {
		revision, _ := engine.Revisions()
		note("policies", from+", revision "+revision, nil)
	}

	if at, ok := running(cfg); ok {
		detail, err := askReady(ctx, at)
		note("gateway", at+": "+detail, err)
		return out
	}
	note("gateway", "not running", nil)
	if cfg.Store == "bolt" && errors.Is(err, fs.ErrNotExist) {
		note("store", "bolt: will be made at the first start", nil)
		return out
	}
	st, err := openStore(ctx, cfg)
	if err != nil {
		note("store", storeName(cfg.Store), err)
		return out
	}
	defer func() { _ = st.Close() }()
	i, err := st.Info(ctx)
	note("store", i.Kind+", a reply means "+string(i.Durability), err)
	return out
}

// storeName is a store's setting without what may be secret in it: user,
// password and parameters.
func storeName(setting string) string {
	if setting == "bolt" {
		return setting
	}
	u, err := url.Parse(setting)
	if err != nil {
		return "a URL that is not well formed"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// running finds the gateway that last said it serves this data directory.
func running(cfg Config) (string, bool) {
	b, err := os.ReadFile(filepath.Join(cfg.Data, urlFile))
	if err != nil {
		return "", false
	}
	at := strings.TrimSpace(string(b))
	c := http.Client{Timeout: 2 * time.Second}
	res, err := c.Get(at + "/healthz")
	if err != nil {
		return "", false
	}
	_ = res.Body.Close()
	return at, res.StatusCode == http.StatusOK
}

func askReady(ctx context.Context, at string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/readyz", nil)
	if err != nil {
		return "", err
	}
	c := http.Client{Timeout: 5 * time.Second}
	res, err := c.Do(req)
	if err != nil {
		return "does not answer", err
	}
	defer func() { _ = res.Body.Close() }()
	var report struct {
		Checks []struct {
			Name   string `json:"name"`
			OK     bool   `json:"ok"`
			Detail string `json:"detail"`
		} `json:"checks"`
	}
	if err := json.NewDecoder(res.Body).Decode(&report); err != nil {
		return "answers something else", err
	}
	var parts []string
	for _, c := range report.Checks {
		parts = append(parts, c.Name+" "+c.Detail)
		if !c.OK {
			err = errors.Join(err, fmt.Errorf("%s: %s", c.Name, c.Detail))
		}
	}
	return strings.Join(parts, "; "), err
}
