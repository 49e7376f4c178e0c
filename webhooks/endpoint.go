package webhooks

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/url"
	"slices"

	"github.com/writ-gateway/writ"
)

// Endpoint is one address that is told of events.
type Endpoint struct {
	URL     string
	Events  []writ.Event // none: all of them
	Secrets Secrets
}

// ID names the endpoint in the store.
func (e Endpoint) ID() writ.EndpointID {
	sum := sha256.Sum256([]byte(e.URL))
	return writ.EndpointID(hex.EncodeToString(sum[:8]))
}

// Subscribers says which of the endpoints are told of which events.
func Subscribers(endpoints []Endpoint) writ.Subscribers {
	out := writ.Subscribers{}
	for _, event := range writ.Events() {
		for _, e := range endpoints {
			if len(e.Events) == 0 || slices.Contains(e.Events, event) {
				out[event] = append(out[event], e.ID())
			}
		}
	}
	return out
}

// CheckURL says why an address cannot be one of an endpoint, without repeating
// it: it may hold a secret. Any host may be named, private ones too: the
// operator's own configuration is trusted to say where his notices go.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return errors.New("want a URL such as https://hooks.example.org/writ")
	case u.User != nil:
		return errors.New("want no user and no password in it: requests are signed with the secret")
	case u.Fragment != "":
		return errors.New("want no fragment (#…) in it")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("want https: plain http goes to this machine only")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("want https")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Shown is an address as it may be logged: path and query may hold a secret.
func Shown(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "(an address)"
	}
	return u.Scheme + "://" + u.Host + "/…"
}
