package daemon

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/receipts/tlog"
	"github.com/writ-gateway/writ/store"
)

// Made says what Init made or found.
type Made struct{ PublicKey, KeyID string }

// Init makes the data directory and its keys.
func Init(cfg Config) (Made, error) {
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return Made{}, err
	}
	keys, err := receipts.LoadOrCreate(cfg.Keys, keyOptions(cfg))
	if err != nil {
		return Made{}, err
	}
	if _, _, err := loadSecret(filepath.Join(cfg.Keys, sessionKeyFile)); err != nil {
		return Made{}, err
	}
	return Made{PublicKey: filepath.Join(cfg.Keys, receipts.FilePublic), KeyID: keys.KeyID}, nil
}

// Finding is one thing the doctor looked at.
type Finding struct {
	What, Detail string
	Err          error
}

// Examine looks at everything a start would need, without starting and without
// making anything. If a gateway runs on the data directory it is asked how it
// is, and what it holds locked is left alone.
func Examine(ctx context.Context, cfg Config) []Finding {
	x := examination{cfg: cfg}
	x.data()
	x.keys()
	x.policies(ctx)
	x.webhooks()
	running := x.gateway(ctx)
	if !running {
		x.address(ctx)
	}
	if running && cfg.Store == "bolt" {
		return x.found // it has the file
	}
	x.state(ctx, running)
	return x.found
}

type examination struct {
	cfg    Config
	found  []Finding
	keyID  string   // of the receipt key, when there is one
	keyIDs []string // of all receipt keys here
	digest string   // of the policies as a bundle, when they load
	policy string   // their revision
}

func (x *examination) note(what, detail string, err error) {
	x.found = append(x.found, Finding{what, detail, err})
}

func (x *examination) data() {
	dir := x.cfg.Data
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.note("data", dir+" will be made at the first start", nil)
		return
	case err != nil:
	case !info.IsDir():
		err = errors.New("is not a directory")
	case info.Mode().Perm()&0o077 != 0:
		err = fmt.Errorf("the directory is open to others (mode %04o): chmod 700 it", info.Mode().Perm())
	default:
		err = writable(dir)
	}
	x.note("data", dir, err)
}

// writable tries to make a file.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return fmt.Errorf("nothing can be written there: let the gateway's user write to it (%w)", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func (x *examination) keys() {
	dir := x.cfg.Keys
	if _, err := os.Lstat(filepath.Join(dir, receipts.FilePublic)); errors.Is(err, fs.ErrNotExist) {
		err = nil
		if info, serr := os.Stat(dir); serr == nil {
			err = receipts.OnlyOwners(dir, info)
		}
		x.note("keys", dir+": will be made at the first start", err)
		return
	}
	o := keyOptions(x.cfg)
	later, err := receipts.LaterKeys(dir, o)
	if err == nil {
		x.keyIDs, err = keyIDs(later)
	}
	if n := len(x.keyIDs); n > 0 {
		o.InForce = x.keyIDs[n-1] // which one is, the store says; the first may be gone for good
	}
	var keys *receipts.Keys
	if err == nil {
		keys, err = receipts.LoadOrCreate(dir, o)
	}
	if err == nil {
		x.keyIDs, err = keyIDs(append(keys.Later, keys.Private))
	}
	if err != nil {
		x.note("keys", dir, err)
		return
	}
	x.keyID = keys.KeyID
	detail := keys.KeyID + " for " + keys.Origin
	path := filepath.Join(dir, sessionKeyFile)
	if _, err = os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		x.note("keys", detail+"; "+sessionKeyFile+" is missing and will be made", nil)
		return
	}
	_, _, err = loadSecret(path)
	if path := filepath.Join(dir, secretsKeyFile); err == nil {
		if _, serr := os.Lstat(path); serr == nil { // else it is made, if there are no secrets
			_, _, err = loadKey(keyOfSecrets, path)
		}
	}
	x.note("keys", detail, err)
}

func keyIDs(keys []*ecdsa.PrivateKey) (out []string, err error) {
	for _, k := range keys {
		id, err := receipts.KeyIDOf(&k.PublicKey)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

func (x *examination) policies(ctx context.Context) {
	src, from := policies.Shipped(), "built in"
	if x.cfg.Policies != "" {
		src, from = policies.Directory(x.cfg.Policies), x.cfg.Policies
	}
	engine, err := policies.Load(ctx, src, policies.Options{Capabilities: IDs(Catalog()), Tenants: []writ.Tenant{shard}})
	if err != nil {
		x.note("policies", from, err)
		return
	}
	x.policy, _ = engine.Revisions()
	_, x.digest = engine.Bundle()
	x.note("policies", from+", revision "+x.policy, nil)
}

// gateway asks the gateway that last said it serves this data directory. One
// with another receipt key is none of ours: it took the address since.
func (x *examination) gateway(ctx context.Context) (running bool) {
	b, err := os.ReadFile(filepath.Join(x.cfg.Data, urlFile))
	if err != nil {
		x.note("gateway", "not running", nil)
		return false
	}
	url := strings.TrimSpace(string(b))
	if !answers(ctx, url) {
		x.note("gateway", "not running", nil)
		return false
	}
	report, err := askReady(ctx, url)
	if other := report.otherKey(x.keyIDs); other != "" {
		x.note("gateway", "not running: at "+url+", where it last was, another gateway answers ("+other+")", nil)
		return false
	}
	x.note("gateway", url+": "+report.String(), errors.Join(err, report.trouble()))
	return true
}

func (x *examination) address(ctx context.Context) {
	l, err := listen(ctx, x.cfg.Listen)
	if err == nil {
		err = l.Close()
	}
	x.note("address", x.cfg.Listen, err)
}

// state looks at the store, and whether the ledger, the keys and the policies
// here belong to it.
func (x *examination) state(ctx context.Context, running bool) {
	if _, err := os.Stat(filepath.Join(x.cfg.Data, boltFile)); x.cfg.Store == "bolt" && errors.Is(err, fs.ErrNotExist) {
		x.note("store", "bolt: will be made at the first start", nil)
		return
	}
	st, err := openStore(ctx, x.cfg)
	if err != nil {
		x.note("store", withoutPassword(x.cfg.Store), err)
		return
	}
	defer func() { _ = st.Close() }()
	i, err := st.Info(ctx)
	x.note("store", i.Kind+", a reply means "+string(i.Durability), err)
	if err != nil {
		return
	}
	ours := x.gate(ctx, st)
	if dir := filepath.Join(x.cfg.Data, ledgerDir); x.cfg.Ledger != "none" && !running {
		detail, err := examineLedger(ctx, st, dir)
		x.note("ledger", detail, err)
		if err == nil && ours && x.cfg.Tiles == "" { // one in an object store is not looked at: that would write to it
			x.log(dir)
		}
	}
}

// gate compares what is here with what is in force, and says whether the keys here are
// those that receipts are signed with.
func (x *examination) gate(ctx context.Context, st store.Store) bool {
	gate, ok, err := readGate(ctx, st)
	switch {
	case err != nil:
	case !ok:
		x.note("gate", "nothing is in force yet", nil)
		return true
	case x.keyID == "":
		err = hasKeys(x.cfg, gate.ReceiptKeyID)
	case !slices.Contains(x.keyIDs, gate.ReceiptKeyID):
		err = otherKey(x.cfg, gate.ReceiptKeyID, "holds "+x.keyID)
	}
	x.note("gate", "receipts signed with "+gate.ReceiptKeyID, err)
	if ok && gate.Bundle != "" {
		x.inForce(ctx, st, gate)
	}
	return err == nil
}

// inForce says what is served, whatever this gateway is started with.
func (x *examination) inForce(ctx context.Context, st store.Store, gate writ.Gate) {
	detail := "bundle " + gate.Bundle.Digest() + ", revision " + gate.PolicyRevision
	if x.policy != "" && (x.policy != gate.PolicyRevision || x.digest != gate.Bundle.Digest()) {
		detail += "; the policies above are only staged"
		if x.cfg.Activate {
			detail = "bundle " + gate.Bundle.Digest() + "; the policies above take its place"
		}
	}
	b, err := stored(ctx, st, gate.Bundle)
	if err == nil && !x.cfg.Activate {
		_, err = policies.Load(ctx, policies.FromBundle(b), policies.Options{Capabilities: IDs(Catalog()), Tenants: []writ.Tenant{shard}})
	}
	x.note("in force", detail, err)
}

func examineLedger(ctx context.Context, st store.Store, dir string) (string, error) {
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		head, err := st.Head(ctx, shard)
		if err == nil && head.Trimmed >= 0 {
			err = fmt.Errorf("it is missing, and the store has handed receipts up to %d over to it: restore it from a backup", head.Trimmed)
		}
		return dir + ": will be made at the first start", err
	}
	l, err := ledger.Read(dir)
	if err != nil {
		return dir, err
	}
	defer func() { _ = l.Close() }()
	detail := fmt.Sprintf("%s, %d receipts", dir, l.Last()+1)
	if n := l.Cut(); n > 0 {
		detail += fmt.Sprintf("; its last %d bytes are the rest of a write that did not finish, which a start cuts off", n)
	}
	return detail, ledger.NewIntegrator(shard, l, st, nil).Compare(ctx)
}

// log looks whether the log is the one of its ledger.
func (x *examination) log(dir string) {
	n, err := receipts.LogShard(x.cfg.Keys)
	all := tlog.Dir(filepath.Join(x.cfg.Data, logDir))
	files := tlog.Below(all, receipts.ShardDir(n))
	if err == nil {
		err = notFrozen(all, n)
	}
	var cp tlog.Checkpoint
	if err == nil {
		cp, err = logOf(files, dir, x.cfg.Keys)
	}
	x.note("log", fmt.Sprintf("%s, %d receipts", files, cp.Size), err)
}

func logOf(files tlog.Files, dir, keys string) (cp tlog.Checkpoint, err error) {
	l, err := ledger.Read(dir)
	if err != nil {
		return cp, nil // there is none yet, or it has been said
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	public, err := leafKeys(keys)
	if err != nil {
		return cp, err
	}
	return tlog.Belongs(files, l, public)
}

// withoutPassword is a store's URL as it may be shown.
func withoutPassword(s string) string {
	if s == "bolt" {
		return s
	}
	u, err := url.Parse(s)
	if err != nil {
		return "a URL that is not well formed"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String() // user and query may hold a password
}

// answers says whether a gateway is at an address.
func answers(ctx context.Context, base string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	res, err := get(ctx, base+"/healthz")
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return c.Do(req)
}

// readiness is what /readyz answers.
type readiness []gateway.ReadyCheck

func (r readiness) String() string {
	var parts []string
	for _, c := range r {
		parts = append(parts, c.Name+" "+c.Detail)
	}
	return strings.Join(parts, "; ")
}

func (r readiness) trouble() (err error) {
	for _, c := range r {
		if !c.OK {
			err = errors.Join(err, fmt.Errorf("%s: %s", c.Name, c.Detail))
		}
	}
	return err
}

// otherKey is the receipt key of the gateway when it is not the given one.
func (r readiness) otherKey(mine []string) string {
	for _, c := range r {
		if c.Name == checkReceiptKey && !slices.ContainsFunc(mine, func(id string) bool { return strings.Contains(c.Detail, id) }) {
			return c.Detail
		}
	}
	return ""
}

func askReady(ctx context.Context, base string) (readiness, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	res, err := get(ctx, base+"/readyz")
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	var report gateway.ReadyReport
	if err := json.NewDecoder(res.Body).Decode(&report); err != nil {
		return nil, fmt.Errorf("it answers something else: %w", err)
	}
	return report.Checks, nil
}
