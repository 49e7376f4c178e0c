package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/webhooks"
)

// Webhooks is the list of addresses that are told of events.
type Webhooks []Webhook

// Webhook is one of them.
type Webhook struct {
	URL        string       `yaml:"url"`
	SecretFile string       `yaml:"secret_file"`
	Events     []writ.Event `yaml:"events,flow,omitempty"` // none: all
}

// maxWebhooks bounds what one transaction queues for, and what is delivered at
// a time.
const maxWebhooks = 8

// String hides the addresses from whatever prints a configuration.
func (w Webhooks) String() string { return fmt.Sprintf("(%d webhooks)", len(w)) }

// parseWebhooks reads the setting from YAML. The error repeats nothing of it:
// an address may hold a secret.
func parseWebhooks(text string) (Webhooks, error) {
	var out Webhooks
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	err := d.Decode(&out)
	if err == nil && !errors.Is(d.Decode(new(yaml.Node)), io.EOF) || err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New("want a list of {url: https://…, secret_file: PATH, events: [approval.requested]}, and nothing else in an entry")
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// inOneLine is a node of the file as parseWebhooks takes it; nonsense when it
// stands for something elsewhere in the file.
func inOneLine(n *yaml.Node) string {
	b, err := yaml.Marshal(n)
	if err != nil {
		return "?"
	}
	return string(b)
}

// wrong says what cannot be, entry by entry.
func (w Webhooks) wrong() (out []string) {
	if len(w) > maxWebhooks {
		out = append(out, fmt.Sprintf("want at most %d", maxWebhooks))
	}
	seen := map[string]bool{}
	for i, h := range w {
		bad := func(format string, args ...any) {
			out = append(out, fmt.Sprintf("entry %d: ", i+1)+fmt.Sprintf(format, args...))
		}
		if err := webhooks.CheckURL(h.URL); err != nil {
			bad("url: %v", err)
		}
		if seen[h.URL] {
			bad("url: is there twice")
		}
		seen[h.URL] = true
		if h.SecretFile == "" {
			bad("secret_file: name a file; 'writ webhook secret FILE' makes one")
		}
		for j, e := range h.Events {
			if !slices.Contains(writ.Events(), e) || slices.Contains(h.Events[:j], e) {
				var names []string
				for _, known := range writ.Events() {
					names = append(names, string(known))
				}
				bad("events: want any of %s, each once", strings.Join(names, ", "))
				break
			}
		}
	}
	return out
}

func publicURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == ""
}

// webhooksSchema describes the setting in the file.
func webhooksSchema(p map[string]any) {
	p["type"] = "array"
	p["maxItems"] = maxWebhooks
	p["items"] = map[string]any{
		"type": "object", "additionalProperties": false, "required": []string{"url", "secret_file"},
		"properties": map[string]any{
			"url":         map[string]any{"type": "string", "description": "Where events are sent: https, or http to this machine."},
			"secret_file": map[string]any{"type": "string", "description": "File of mode 0600 with the secret; a second line is a second secret, while they are rotated."},
			"events":      map[string]any{"type": "array", "items": map[string]any{"type": "string", "enum": writ.Events()}, "description": "Which events; without it, all."},
		},
	}
}

// endpoints reads the secrets of the configured addresses.
func endpoints(cfg Config) (out []webhooks.Endpoint, err error) {
	for i, h := range cfg.Webhooks {
		e, err := h.endpoint()
		if err != nil {
			return nil, fmt.Errorf("webhooks: entry %d: %w", i+1, err)
		}
		out = append(out, e)
	}
	return out, nil
}

func (h Webhook) endpoint() (webhooks.Endpoint, error) {
	s, err := webhooks.ReadSecrets(h.SecretFile)
	return webhooks.Endpoint{URL: h.URL, Events: h.Events, Secrets: s}, err
}

// openWebhooks reads what it takes to tell others. Without webhooks nobody is
// told, and nothing is queued.
func (d *Daemon) openWebhooks(context.Context) (err error) {
	if d.endpoints, err = endpoints(d.cfg); err == nil && len(d.endpoints) > 0 {
		d.tell = webhooks.Subscribers(d.endpoints)
	}
	return err
}

// openCourier delivers what the door queues.
func (d *Daemon) openCourier() {
	life := time.Duration(0) // the default
	if d.cfg.Store == "bolt" {
		life = d.beatLife() // nobody waits for it
	}
	notices := d.door.Notices(shard, d.replica, d.cfg.Store == "bolt")
	c := webhooks.New(webhooks.Config{
		Endpoints: d.endpoints, Queue: notices, Public: d.cfg.Public, Observer: d.telemetry.Webhooks, Log: d.log, Life: life,
	})
	d.telemetry.Gauge("webhook_waiting", "Notices that wait to be delivered, at most 1000 of each endpoint counted.", gauge(func(ctx context.Context) (sum float64, err error) {
		for _, e := range d.endpoints {
			n, err := notices.Waiting(ctx, e.ID())
			if err != nil {
				return 0, err
			}
			sum += float64(n)
		}
		return sum, nil
	}))
	c.Start()
	d.onStop(func(context.Context) error { c.Stop(); return nil })
}

// webhooks looks at the secrets of each address.
func (x *examination) webhooks() {
	for _, h := range x.cfg.Webhooks {
		_, err := h.endpoint()
		events := "every event"
		if len(h.Events) > 0 {
			events = strings.Trim(fmt.Sprint(h.Events), "[]")
		}
		x.note("webhook", webhooks.Shown(h.URL)+": "+events, err)
	}
	if len(x.cfg.Webhooks) > 0 && x.cfg.Public == "" {
		x.note("webhook", "public_url is not set, so notices link nowhere", nil)
	}
}

// ProbeWebhooks sends a signed webhook.test to each configured address, or to
// one of them.
func ProbeWebhooks(ctx context.Context, cfg Config, only string) ([]Finding, error) {
	var out []Finding
	for _, h := range cfg.Webhooks {
		if only != "" && only != h.URL {
			continue
		}
		e, err := h.endpoint()
		if err == nil {
			err = webhooks.Probe(ctx, e, "test-"+consumerName())
		}
		out = append(out, Finding{What: "webhook", Detail: webhooks.Shown(h.URL), Err: err})
	}
	if len(out) == 0 {
		return nil, &writ.Error{
			Code: writ.CodeNotFound, Op: "daemon.ProbeWebhooks", Msg: "no such webhook is configured",
			Hint: "add it to webhooks in the configuration file and name that with -c",
		}
	}
	return out, nil
}

// MakeWebhookSecret makes a file with a new secret. It replaces nothing.
func MakeWebhookSecret(path string) error {
	secret, err := webhooks.NewSecret(rand.Reader)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &writ.Error{
			Code: writ.CodeExists, Op: "daemon.MakeWebhookSecret", Msg: path + " is there already; it was left alone",
			Hint: "make the new secret in another file, and put its line before the old one while the receiver still knows that",
		}
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(secret + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path) // half a file
	}
	return err
}
