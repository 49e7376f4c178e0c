package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// Config is everything an operator can set. The zero value runs: embedded
// store, built-in policies, loopback. A value comes from a flag, else from the
// environment (WRIT_ and the upper-case name), else from the file, else from
// the default.
type Config struct {
	Data          string   `yaml:"data" doc:"Directory for everything writ keeps: store, ledger, keys, operator token. Default: $XDG_STATE_HOME/writ, or ~/.local/state/writ."`
	Keys          string   `yaml:"keys" doc:"Directory of the keys, when several replicas share them. Default: <data>/keys."`
	Listen        string   `yaml:"listen" doc:"Address of the HTTP interface. Default: 127.0.0.1:8700."`
	Hosts         string   `yaml:"allowed_hosts" doc:"Names, separated by commas, that callers may address the gateway by (the Host header), for example behind a proxy. Default: on loopback its loopback names, which are always allowed there; elsewhere any."`
	Store         string   `yaml:"store" doc:"Where state lives: \"bolt\" (a file in data) or a URL, redis://host:6379/0 or unix:///path/to.sock. Default: bolt."`
	Blobs         string   `yaml:"blobs" doc:"Directory of the bytes of artifacts. Replicas of one store need the same one, for example on a shared file system; a replica with another one does not start. Default: <data>/artifacts."`
	ArtifactDays  int      `yaml:"artifact_days" doc:"Days the bytes of artifacts are kept after they were put; those of a run that has not ended are kept longer. Default: 30."`
	ArtifactTotal int      `yaml:"artifact_total_mb" doc:"MiB of artifacts the gateway keeps at most; more are refused with 429. Default: 10240."`
	Policies      string   `yaml:"policies" doc:"Directory with packs/ and roles/; it is only proposed, and so is what changes in it while the gateway runs. Default: the built-in ones."`
	Activate      bool     `yaml:"activate_policies" doc:"Put the policies this gateway is started with in force although others are; else they are only staged. Default: false."`
	Trust         string   `yaml:"policy_trust" doc:"File with the keys that may sign policy bundles, and which packs each may change. When it is given, unsigned bundles are not staged. Default: none."`
	Origin        string   `yaml:"origin" doc:"Name of the receipt log, a bare host name; it is signed into every receipt. Default: writ.local."`
	LogKey        string   `yaml:"log_key" doc:"Key that checkpoints of the log are signed with, Ed25519: a file, or a reference name://… that the program sigstore-kms-name on the PATH answers for. Default: log.key in keys, made at the first start."`
	RootKey       string   `yaml:"root_key" doc:"Key that key manifests are signed with, Ed25519 or P-256: a reference name://… as of log_key, or a file. Default: none; a root that is kept offline signs with 'writ key manifest --sign'."`
	Ledger        string   `yaml:"ledger" doc:"Whether this replica writes the ledger: \"writer\", or \"none\" when another replica of the same store does. Default: writer." enum:"writer,none"`
	Checkpoint    Duration `yaml:"checkpoint_every" doc:"How often the transparency log gets a new checkpoint while receipts come; at least 100ms. Default: 1s."`
	Tiles         string   `yaml:"tiles" doc:"Where the files of the transparency log are: empty, log in data; or s3://bucket/prefix, in an object store that heeds If-Match and If-None-Match, perhaps with ?region=… and endpoint=…. Default: none."`
	TilesKey      string   `yaml:"tiles_credentials" doc:"File with aws_access_key_id and aws_secret_access_key for tiles, mode 0600. Default: none; they are taken from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."`
	LogMLDSA      bool     `yaml:"log_mldsa" doc:"Sign checkpoints of the log with ML-DSA-44 too, for the time when Ed25519 can be forged; the key follows from the log's key, which must not be with a key management service. Default: false."`
	Witness       string   `yaml:"witness" doc:"Witnesses that cosign each checkpoint before it is published (C2SP tlog-witness): address and verifier key of each, with a space between, and a comma between two. Default: none."`
	WitnessFail   string   `yaml:"witness_fail" doc:"When a witness does not cosign a checkpoint: \"closed\", it is not published until it does, and what waits for the log waits; or \"open\", it is published without. Default: closed." enum:"closed,open"`
	Log           string   `yaml:"log" doc:"Log level: debug, info, warn or error. Default: info." enum:"debug,info,warn,error"`
	LogForm       string   `yaml:"log_format" doc:"Form of the log: text or json. Default: text." enum:"text,json"`
	Inflight      int      `yaml:"max_inflight" doc:"Calls under way at once before new ones are refused with 429; a sixteenth of them of one session, and an eighth is kept for operators and approvers. Default: 256."`
	Grace         Duration `yaml:"outage_grace" doc:"How much longer leases and sessions live after a start or an outage, since nobody could renew them. Default: 60s."`
	MinLease      int      `yaml:"min_lease_seconds" doc:"Shortest lease a task may ask for, in seconds. Default: 10."`
	Public        string   `yaml:"public_url" doc:"URL people reach the gateway by; notices link to it. Default: none, and no links."`
	Webhooks      Webhooks `yaml:"webhooks" doc:"Addresses that are told of approvals and of calls policy wants known: a list of {url, secret_file, events}, in a flag or variable as one line of YAML. url is https, or http to this machine. events is any of approval.requested, approval.decided, approval.expired and policy.notify; without it, all. Every replica wants the same list. Default: none."`
	Grants        string   `yaml:"egress_grants" doc:"Private addresses the gateway may call although others named them, for example endpoints of agents that it asks for their health: networks (10.1.0.0/16), addresses, or host:port, separated by commas. Every replica wants the same. Default: none, so only hosts of the internet are called."`
	Jails         string   `yaml:"jails" doc:"File with the programs agents may be run with in jails on this machine, and the directories of their write scopes; only its owner and root may write to it. Default: none, and this gateway runs no agents."`
	GCPct         int      `yaml:"gc_percent" doc:"Go garbage collector target (GOGC). Default: 400."`
	MemoryMB      int      `yaml:"memory_limit_mb" doc:"Soft memory limit in MiB. Default: 80 % of the container's, when there is one."`

	file string // it was read from; empty: none was
}

// Duration is a time span written like 60s or 5m.
type Duration time.Duration

// Load reads a configuration file (path may be empty), lays the environment
// over it and fills defaults. set holds what flags gave, by YAML name. The
// error names everything that is wrong, a line each, and where it was said.
func Load(path string, env func(string) string, set map[string]string) (Config, error) {
	l := loading{said: map[string]string{}, c: Config{file: path}}
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return l.c, fmt.Errorf("configuration: %w", err)
		}
		l.file(path, b)
	}
	for _, f := range fields() {
		name := EnvName(f.name)
		if v := env(name); v != "" {
			l.set(f, "environment "+name, v)
		}
	}
	for _, f := range fields() {
		if v, ok := set[f.name]; ok {
			l.set(f, "flag --"+strings.ReplaceAll(f.name, "_", "-"), v)
		}
	}
	l.c = l.c.withDefaults(env)
	for _, w := range l.c.wrong() {
		where, ok := l.said[w.field]
		if l.failed[w.field] {
			continue // said already, with the value as it stands there
		}
		if !ok {
			where = "configuration: " + w.field
		}
		l.errs = append(l.errs, fmt.Errorf("%s: %s", where, w.why))
	}
	return l.c, errors.Join(l.errs...)
}

// loading is a configuration in the making.
type loading struct {
	c      Config
	said   map[string]string // where a setting got its value, by name
	failed map[string]bool   // settings whose value did not even parse
	errs   []error
}

func (l *loading) set(f field, where, value string) {
	l.said[f.name] = where
	if err := f.set(&l.c, value); err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", where, err))
		if l.failed == nil {
			l.failed = map[string]bool{}
		}
		l.failed[f.name] = true
	}
}

// file reads settings from YAML, one at a time, so that each error has its line
// and none names a type of this program.
func (l *loading) file(path string, b []byte) {
	bad := func(line int, format string, args ...any) {
		where := "configuration " + path
		if line > 0 {
			where += fmt.Sprintf(": line %d", line)
		}
		l.errs = append(l.errs, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) {
			bad(0, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		return
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		bad(0, "holds more than one document")
	}
	top := doc.Content[0]
	if top.Tag == "!!null" {
		return
	}
	if top.Kind != yaml.MappingNode {
		bad(top.Line, "want settings, each as name: value")
		return
	}
	all := map[string]field{}
	for _, f := range fields() {
		all[f.name] = f
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		f, ok := all[key.Value]
		_, again := l.said[key.Value]
		switch {
		case !ok:
			bad(key.Line, "field %s not found: 'writ config schema' lists the settings", key.Value)
		case again:
			bad(key.Line, "%s is set a second time", key.Value)
		case value.Tag == "!!null":
		case f.kind == reflect.TypeFor[Webhooks]():
			l.set(f, fmt.Sprintf("configuration %s: line %d: %s", path, key.Line, key.Value), inOneLine(value))
		case value.Kind != yaml.ScalarNode:
			bad(value.Line, "%s: want one value", key.Value)
		default:
			l.set(f, fmt.Sprintf("configuration %s: line %d: %s", path, key.Line, key.Value), value.Value)
		}
	}
}

// EnvName is the variable that gives a setting.
func EnvName(setting string) string { return "WRIT_" + strings.ToUpper(setting) }

// otherEnv are variables beside the settings: those of the commands that call a
// gateway, the password of the receipt key, and those of the tests.
var otherEnv = []string{"WRIT_URL", "WRIT_TOKEN_FILE", "WRIT_COSIGN_KEY", "WRIT_KEY_PASSWORD", "WRIT_REDIS_SERVER", "WRIT_SOAK", "WRIT_SEED"}

// CheckEnv refuses variables that look like settings and are none: a misspelt
// one would be a default in force that nobody wanted. Kubernetes sets some of
// its own for a service named writ.
func CheckEnv(environ []string) error {
	known := map[string]bool{}
	var names []string
	for _, s := range Settings() {
		known[EnvName(s.Name)] = true
		names = append(names, EnvName(s.Name))
	}
	for _, n := range otherEnv {
		known[n] = true
	}
	var unknown []string
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if value != "" && strings.HasPrefix(name, "WRIT_") && !known[name] && !strings.HasPrefix(name, "WRIT_SERVICE_") && !strings.HasPrefix(name, "WRIT_PORT") {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("environment: there is no setting %s\nthere are %s", strings.Join(unknown, ", "), strings.Join(names, ", "))
}

func (c Config) withDefaults(env func(string) string) Config {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.Data, DefaultData(env))
	def(&c.Keys, filepath.Join(c.Data, "keys"))
	def(&c.Blobs, filepath.Join(c.Data, "artifacts"))
	def(&c.Listen, "127.0.0.1:8700")
	def(&c.Store, "bolt")
	def(&c.Origin, "writ.local")
	def(&c.Ledger, "writer")
	def(&c.WitnessFail, "closed")
	def(&c.Log, "info")
	def(&c.LogForm, "text")
	if c.Inflight == 0 {
		c.Inflight = 256
	}
	if c.Checkpoint == 0 {
		c.Checkpoint = Duration(tlog.Every)
	}
	if c.Grace == 0 {
		c.Grace = Duration(time.Minute)
	}
	if c.ArtifactDays == 0 {
		c.ArtifactDays = 30
	}
	if c.ArtifactTotal == 0 {
		c.ArtifactTotal = 10 << 10
	}
	if c.MinLease == 0 {
		c.MinLease = 10
	}
	if c.GCPct == 0 {
		c.GCPct = 400
	}
	return c
}

// DefaultData is where data goes when nothing says otherwise; empty when the
// user has no home. It never depends on the working directory.
func DefaultData(env func(string) string) string {
	if d := env("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "writ")
	}
	if h := env("HOME"); filepath.IsAbs(h) {
		return filepath.Join(h, ".local", "state", "writ")
	}
	return ""
}

// Validate names the fields that cannot be.
func (c Config) Validate() error {
	var errs []error
	for _, w := range c.wrong() {
		errs = append(errs, fmt.Errorf("configuration: %s: %s", w.field, w.why))
	}
	return errors.Join(errs...)
}

// wrongField says why a field cannot be as it is.
type wrongField struct{ field, why string }

func (c Config) wrong() (out []wrongField) {
	must := func(ok bool, field, why string) {
		if !ok {
			out = append(out, wrongField{field, why})
		}
	}
	_, port, err := net.SplitHostPort(c.Listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	must(err == nil, "listen", "want host:port, for example 127.0.0.1:8700")
	if c.Store != "bolt" {
		u, err := url.Parse(c.Store)
		must(err == nil && (u.Scheme == "redis" || u.Scheme == "rediss" || u.Scheme == "unix"),
			"store", `want "bolt", redis://host:port/db, rediss://… or unix:///path`)
	}
	must(c.Data != "", "data", "name a directory: this user has no home to put it in")
	for _, h := range c.hosts() {
		must(h != "" && strings.Trim(strings.ToLower(h), "abcdefghijklmnopqrstuvwxyz0123456789-.:") == "",
			"allowed_hosts", "want host names without ports, separated by commas")
	}
	must(c.Public == "" || publicURL(c.Public), "public_url", "want https://host or http://host, perhaps with a path, without user, query or fragment")
	for _, why := range c.Webhooks.wrong() {
		must(false, "webhooks", why)
	}
	_, err = c.grants()
	must(err == nil, "egress_grants", "want networks such as 10.1.0.0/16, addresses, or host:port, separated by commas")
	must(validOrigin(c.Origin), "origin", "want a bare host name such as receipts.example.org")
	must(c.Ledger == "writer" || c.Ledger == "none", "ledger", `want "writer" or "none"`)
	must(c.Ledger != "none" || c.Store != "bolt", "ledger", "the embedded store has no other replica that could write it")
	_, err = c.tilesAt()
	must(err == nil, "tiles", "want s3://bucket/prefix, perhaps with ?region=eu-west-1 and endpoint=https://…, and no credentials in it")
	_, err = c.witnesses()
	must(err == nil, "witness", "want address and verifier key of each, such as 'https://witness.example.org witness.example.org+1a2b3c4d+BAbC…', and a comma between two, each key once")
	must(c.WitnessFail == "closed" || c.WitnessFail == "open", "witness_fail", "want closed or open")
	must(slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log), "log", "want debug, info, warn or error")
	must(c.LogForm == "text" || c.LogForm == "json", "log_format", "want text or json")
	must(c.Inflight >= 1 && c.Inflight <= 100_000, "max_inflight", "want 1 to 100000")
	must(c.MinLease >= 1 && c.MinLease <= 600, "min_lease_seconds", "want 1 to 600")
	must(c.ArtifactDays >= 1 && c.ArtifactDays <= 3660, "artifact_days", "want 1 to 3660")
	must(c.ArtifactTotal >= 1 && c.ArtifactTotal <= 1<<30, "artifact_total_mb", "want 1 to 1073741824")
	must(c.Grace >= 0, "outage_grace", "may not be negative")
	must(time.Duration(c.Checkpoint) >= tlog.MinEvery, "checkpoint_every", "want 100ms or more")
	must(c.GCPct >= 0, "gc_percent", "may not be negative")
	must(c.MemoryMB >= 0, "memory_limit_mb", "may not be negative")
	return out
}

// witnesses are those of witness.
func (c Config) witnesses() (out []*tlog.Witness, err error) {
	if c.Witness == "" {
		return nil, nil
	}
	seen := map[string]bool{}
	for _, one := range strings.Split(c.Witness, ",") {
		address, key, _ := strings.Cut(strings.TrimSpace(one), " ")
		w, err := tlog.NewWitness(address, strings.TrimSpace(key))
		if err != nil || seen[w.Key().String()] {
			return nil, errors.Join(err, errors.New("not witnesses, each once"))
		}
		seen[w.Key().String()] = true
		out = append(out, w)
	}
	return out, nil
}

// hosts are the names of allowed_hosts.
func (c Config) hosts() []string {
	if c.Hosts == "" {
		return nil
	}
	out := strings.Split(c.Hosts, ",")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}

func validOrigin(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || label[0] == '-' {
			return false
		}
	}
	return true
}

// field is one setting, found by reflection so that file, environment, flags,
// schema and documentation cannot differ.
type field struct {
	name, doc string
	enum      []string
	index     int
	kind      reflect.Type
}

func fields() []field {
	t := reflect.TypeFor[Config]()
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		var enum []string
		if e := f.Tag.Get("enum"); e != "" {
			enum = strings.Split(e, ",")
		}
		out = append(out, field{name: f.Tag.Get("yaml"), doc: f.Tag.Get("doc"), enum: enum, index: i, kind: f.Type})
	}
	return out
}

func (f field) set(c *Config, s string) error {
	v := reflect.ValueOf(c).Elem().Field(f.index)
	switch {
	case f.kind == reflect.TypeFor[Duration]():
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 60s", s)
		}
		v.SetInt(int64(d))
	case f.kind == reflect.TypeFor[Webhooks]():
		w, err := parseWebhooks(s)
		if err != nil {
			return err
		}
		v.Set(reflect.ValueOf(w))
	case f.kind.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		v.SetBool(b)
	case f.kind.Kind() == reflect.Int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		v.SetInt(int64(n))
	default:
		v.SetString(s)
	}
	return nil
}

// Setting describes one configuration key, for flags and documentation.
type Setting struct {
	Name, Doc string
	Bool      bool // true or false, nothing else
}

// Settings lists the configuration keys in order.
func Settings() []Setting {
	var out []Setting
	for _, f := range fields() {
		out = append(out, Setting{Name: f.name, Doc: f.doc, Bool: f.kind.Kind() == reflect.Bool})
	}
	return out
}

// Schema is the JSON Schema (2020-12) of the configuration file.
func Schema() map[string]any {
	props := map[string]any{}
	for _, f := range fields() {
		p := map[string]any{"description": f.doc, "type": "string"}
		if f.kind.Kind() == reflect.Int {
			p["type"] = "integer"
		}
		if f.kind.Kind() == reflect.Bool {
			p["type"] = "boolean"
		}
		if f.kind == reflect.TypeFor[Duration]() {
			p["pattern"] = `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
		}
		if f.enum != nil {
			p["enum"] = f.enum
		}
		if f.kind == reflect.TypeFor[Webhooks]() {
			webhooksSchema(p)
		}
		props[f.name] = p
	}
	return map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "writ configuration",
		"type": "object", "additionalProperties": false, "properties": props,
	}
}

// shard is the one tenant this version serves.
const shard writ.Tenant = "default"
