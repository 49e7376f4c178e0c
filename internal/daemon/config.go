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
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/writ-gateway/writ"
)

// Config is everything an operator can set. The zero value runs: embedded
// store, built-in policies, loopback. A value comes from a flag, else from the
// environment (WRIT_ and the upper-case name), else from the file, else from
// the default.
type Config struct {
	Data     string   `yaml:"data" doc:"Directory for everything writ keeps: store, ledger, keys, operator token. Default: $XDG_STATE_HOME/writ, or ~/.local/state/writ."`
	Keys     string   `yaml:"keys" doc:"Directory of the keys, when several replicas share them. Default: <data>/keys."`
	Listen   string   `yaml:"listen" doc:"Address of the HTTP interface. Default: 127.0.0.1:8700."`
	Hosts    string   `yaml:"allowed_hosts" doc:"Names, separated by commas, that callers may address the gateway by (the Host header), for example behind a proxy. Default: on loopback its loopback names, which are always allowed there; elsewhere any."`
	Store    string   `yaml:"store" doc:"Where state lives: \"bolt\" (a file in data) or a URL, redis://host:6379/0 or unix:///path/to.sock. Default: bolt."`
	Policies string   `yaml:"policies" doc:"Directory with packs/ and roles/. Default: the built-in ones."`
	Activate bool     `yaml:"activate_policies" doc:"Put the policies this gateway is started with in force although others are; else they are only staged. Default: false."`
	Trust    string   `yaml:"policy_trust" doc:"File with the keys that may sign policy bundles, and which packs each may change. When it is given, unsigned bundles are not staged. Default: none."`
	Origin   string   `yaml:"origin" doc:"Name of the receipt log, a bare host name; it is signed into every receipt. Default: writ.local."`
	Ledger   string   `yaml:"ledger" doc:"Whether this replica writes the ledger: \"writer\", or \"none\" when another replica of the same store does. Default: writer." enum:"writer,none"`
	Log      string   `yaml:"log" doc:"Log level: debug, info, warn or error. Default: info." enum:"debug,info,warn,error"`
	LogForm  string   `yaml:"log_format" doc:"Form of the log: text or json. Default: text." enum:"text,json"`
	Inflight int      `yaml:"max_inflight" doc:"Calls under way at once before new ones are refused with 429. Default: 256."`
	Grace    Duration `yaml:"outage_grace" doc:"How much longer leases and sessions live after a start or an outage, since nobody could renew them. Default: 60s."`
	MinLease int      `yaml:"min_lease_seconds" doc:"Shortest lease a task may ask for, in seconds. Default: 10."`
	GCPct    int      `yaml:"gc_percent" doc:"Go garbage collector target (GOGC). Default: 400."`
	MemoryMB int      `yaml:"memory_limit_mb" doc:"Soft memory limit in MiB. Default: 80 % of the container's, when there is one."`
}

// Duration is a time span written like 60s or 5m.
type Duration time.Duration

// UnmarshalYAML reads a duration.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is not a duration such as 60s", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// Load reads a configuration file (path may be empty), lays the environment
// over it and fills defaults. set holds what flags gave, by YAML name.
func Load(path string, env func(string) string, set map[string]string) (Config, error) {
	var c Config
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return c, fmt.Errorf("configuration: %w", err)
		}
		d := yaml.NewDecoder(bytes.NewReader(b))
		d.KnownFields(true)
		if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
			return c, fmt.Errorf("configuration %s: %w", path, err)
		} else if err == nil && !errors.Is(d.Decode(new(yaml.Node)), io.EOF) {
			return c, fmt.Errorf("configuration %s: holds more than one document", path)
		}
	}
	for _, f := range fields() {
		if v := env("WRIT_" + strings.ToUpper(f.name)); v != "" {
			if err := f.set(&c, v); err != nil {
				return c, fmt.Errorf("environment WRIT_%s: %w", strings.ToUpper(f.name), err)
			}
		}
	}
	for _, f := range fields() {
		if v, ok := set[f.name]; ok {
			if err := f.set(&c, v); err != nil {
				return c, fmt.Errorf("flag --%s: %w", strings.ReplaceAll(f.name, "_", "-"), err)
			}
		}
	}
	c = c.withDefaults(env)
	return c, c.Validate()
}

func (c Config) withDefaults(env func(string) string) Config {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.Data, DefaultData(env))
	def(&c.Keys, filepath.Join(c.Data, "keys"))
	def(&c.Listen, "127.0.0.1:8700")
	def(&c.Store, "bolt")
	def(&c.Origin, "writ.local")
	def(&c.Ledger, "writer")
	def(&c.Log, "info")
	def(&c.LogForm, "text")
	if c.Inflight == 0 {
		c.Inflight = 256
	}
	if c.Grace == 0 {
		c.Grace = Duration(time.Minute)
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

// Validate names the first field that cannot be.
func (c Config) Validate() error {
	bad := func(field, why string) error { return fmt.Errorf("configuration: %s: %s", field, why) }
	if c.Data == "" {
		return bad("data", "name a directory: this user has no home to put it in")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return bad("listen", "want host:port")
	}
	for _, h := range c.hosts() {
		if h == "" || strings.Trim(strings.ToLower(h), "abcdefghijklmnopqrstuvwxyz0123456789-.:") != "" {
			return bad("allowed_hosts", "want host names without ports, separated by commas")
		}
	}
	if c.Store != "bolt" {
		u, err := url.Parse(c.Store)
		if err != nil || (u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix") {
			return bad("store", `want "bolt", redis://host:port/db, rediss://… or unix:///path`)
		}
	}
	if c.Ledger != "writer" && c.Ledger != "none" {
		return bad("ledger", `want "writer" or "none"`)
	}
	if c.Ledger == "none" && c.Store == "bolt" {
		return bad("ledger", "the embedded store has no other replica that could write it")
	}
	if c.Log != "debug" && c.Log != "info" && c.Log != "warn" && c.Log != "error" {
		return bad("log", "want debug, info, warn or error")
	}
	if c.LogForm != "text" && c.LogForm != "json" {
		return bad("log_format", "want text or json")
	}
	if !validOrigin(c.Origin) {
		return bad("origin", "want a bare host name such as receipts.example.org")
	}
	if c.Inflight < 1 || c.Inflight > 100_000 {
		return bad("max_inflight", "want 1 to 100000")
	}
	if c.MinLease < 1 || c.MinLease > 600 {
		return bad("min_lease_seconds", "want 1 to 600")
	}
	if c.Grace < 0 || c.GCPct < 0 || c.MemoryMB < 0 {
		return bad("outage_grace, gc_percent, memory_limit_mb", "may not be negative")
	}
	return nil
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
type Setting struct{ Name, Doc string }

// Settings lists the configuration keys in order.
func Settings() []Setting {
	var out []Setting
	for _, f := range fields() {
		out = append(out, Setting{Name: f.name, Doc: f.doc})
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
		props[f.name] = p
	}
	return map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "writ configuration",
		"type": "object", "additionalProperties": false, "properties": props,
	}
}

// shard is the one tenant this version serves.
const shard writ.Tenant = "default"
