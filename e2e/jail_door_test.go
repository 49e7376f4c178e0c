package e2e

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// grant lets an agent reach what listens on loopback.
func (c cells) grant(id string, at *httptest.Server, agent string, more obj) {
	c.t.Helper()
	body := obj{"host": "127.0.0.1", "port": at.Listener.Addr().(*net.TCPAddr).Port, "scheme": "http", "private": []string{"127.0.0.1/32", "::1/128"}, "agents": []string{agent}, "rps": 1000}
	for k, v := range more {
		body[k] = v
	}
	c.op.ok(201, "PUT", "/v1/egress/grants/"+id, body)
}

// N15, N26, N31: an agent in a jail on a gateway as it is run has one door, by TCP and by
// socket, and beyond it what is granted. It finds nothing else of the machine: no network,
// file, process or environment of it; no credential that is put in for it; and no token,
// which no process shows either.
func TestN15N26N31TheDoorIsTheOnlyWayOut(t *testing.T) {
	s := shipped(t)
	data := filepath.ToSlash(filepath.Join("packs", "egress", "data.yaml"))
	s[data] = strings.Replace(s[data], "tunnels: []", "tunnels: [site-tunnel]", 1)
	onCellsWith(t, "", func(t *testing.T, c cells) {
		const canary = "canary-3f9c1d77"
		began, let := make(chan struct{}), make(chan struct{})
		var credential string
		site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			switch r.URL.Path {
			case "/v1/x":
				credential = r.Header.Get("Authorization")
			case "/v1/y": // it is in the middle of its work
				close(began)
				<-let
			}
			_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, b)
		}))
		defer site.Close()
		tls := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n := 10
			if r.URL.Path == "/large" {
				n = 1 << 20
			}
			_, _ = w.Write(bytes.Repeat([]byte{'x'}, n))
		}))
		defer tls.Close()
		other := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Error("a tunnel that policy names no grant for was opened")
		}))
		defer other.Close()
		port := func(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }

		mark := c.caged("outer", fmt.Sprintf("outside=%d,%d,%d", port(site), port(tls), port(other)), nil)
		c.op.ok(201, "PUT", "/v1/secrets/site-token", obj{"host": site.Listener.Addr().String(), "value": canary})
		c.grant("site-api", site, "outer", obj{"methods": []string{"GET", "POST"}, "path_prefix": "/v1", "credential_ref": "site-token"})
		tunnel := obj{"mode": "tunnel", "scheme": "https", "host": "localhost", "down_bytes": 64 << 10}
		c.grant("site-tunnel", tls, "outer", tunnel)
		c.grant("other-tunnel", other, "outer", tunnel)
		task := c.enqueue("out", obj{"capability": "cage.outer", "required_domain": "cage", "produces": []obj{made("report", "application/json", nil)}})
		id := c.spawn("outer", nil)
		select {
		case <-began:
			c.noToken(id, mark)
			close(let)
		case <-time.After(60 * time.Second):
			t.Fatalf("it does not come as far: %s", c.seen(id))
		}
		session := c.ended(id, "closed exited: exited, code 0, signal 0")

		done := c.orc.ok(200, "GET", "/v1/tasks/"+task, nil)
		for way, want := range map[string][]string{
			"tcp":       {"200 ", `"principal":"outer"`, id},
			"socket":    {"200 ", `"principal":"outer"`},
			"reverse":   {"200 POST /v1/x?y=z hello"},
			"forward":   {"200 GET /v1/y "},
			"path":      {"403 ", "egress.path"},
			"ungranted": {"403 ", "egress.ungranted"},
			"tunnel":    {"200 xxxxxxxxxx"},
			"too much":  {"200, cut off"},
			"no tunnel": {"failed: ", "Forbidden"},
			"around":    {"failed: ", "permission denied"},
		} {
			for _, w := range want {
				if got := done.str("result", way); !strings.Contains(got, w) {
					t.Errorf("%s: no %q in %s", way, w, got)
				}
			}
		}
		found, _ := done.at("result", "machine").(map[string]any)
		for what, want := range map[string]string{
			"root":      "agent dev etc proc run scopes tmp workspace",
			"etc":       "group hosts nsswitch.conf passwd resolv.conf",
			"processes": "1",
			"environ":   "HOME HTTPS_PROXY HTTP_PROXY NO_PROXY PATH TMPDIR WRIT_AGENT WRIT_SESSION WRIT_URL http_proxy https_proxy no_proxy",
		} {
			if got := strings.Trim(fmt.Sprint(found[what]), "[]"); got != want {
				t.Errorf("of the machine it finds %s: %s, want %s", what, got, want)
			}
		}

		// The artifact left the jail, and is what the task was completed with. The draft beside it, which it did not put, did not.
		if r := c.op.content(task, digestOf(`{"pages":3}`)); r.status != 200 || string(r.body) != `{"pages":3}` {
			t.Errorf("the artifact: %s", r)
		}
		// The credential went to its host and nowhere else; so did no token.
		if credential != "Bearer "+canary {
			t.Errorf("the host was told %q", credential)
		}
		if strings.Contains(string(done.body), canary[:10]) {
			t.Error("the agent has the credential")
		}
		for _, g := range c.gw {
			for path := range files(t, g.data) {
				b, _ := os.ReadFile(path)
				if bytes.Contains(b, []byte(canary)) {
					t.Errorf("the credential stands in %s", path)
				}
				if bytes.Contains(b, []byte("nobody put this")) {
					t.Errorf("a file of the jail came out by itself, in %s", path)
				}
			}
			if strings.Contains(g.log.String(), canary) || tokenOf(id).MatchString(g.log.String()) {
				t.Error("the log has the credential, or a token")
			}
		}
		_, all := c.export()
		c.toldOf(all, session)
	}, "--policies", s.dir(t))
}

// tokenOf is what the token of a session looks like.
func tokenOf(session string) *regexp.Regexp {
	return regexp.MustCompile(regexp.QuoteMeta(session) + `\.[A-Za-z0-9_-]{16}`)
}

// noToken looks at all processes of this machine while an agent runs: none shows the
// token of its session, nor those of others, in arguments or environment. That of the
// agent's own session is nobody's.
func (c cells) noToken(session, mark string) {
	c.t.Helper()
	its, agent := tokenOf(session), false
	for _, what := range []string{"cmdline", "environ"} {
		all, _ := filepath.Glob("/proc/[0-9]*/" + what)
		for _, name := range all {
			b, err := os.ReadFile(name)
			if err != nil {
				continue // it has ended
			}
			agent = agent || what == "environ" && bytes.Contains(b, []byte("WRIT_SESSION="+session))
			for _, token := range []string{c.op.token, c.orc.token, c.builder.token} {
				if bytes.Contains(b, []byte(token[strings.LastIndex(token, ".")+1:])) {
					c.t.Errorf("a token stands in %s", name)
				}
			}
			if its.Match(b) {
				c.t.Errorf("the token of the session stands in %s", name)
			}
		}
	}
	if len(marked(mark)) != 1 || !agent {
		c.t.Error("the agent was not among those that were looked at")
	}
}

// toldOf checks that receipts say what held the agent of a session before it ran, and how it
// ended, as the session does: the evidence they are signed over has it.
func (c cells) toldOf(all []statement, session reply) {
	c.t.Helper()
	var told, want []string
	for range session.num("jail", "restarts") + 1 {
		want = append(want, "starting", "running")
	}
	want = append(want, "ended")
	for _, s := range all {
		p := s.Predicate
		of := slices.ContainsFunc(p.Changes, func(m writ.Change) bool { return m.ID == session.str("session_id") })
		if p.Transition != "session.jail" || !of {
			continue
		}
		r := c.op.ok(200, "GET", "/v1/receipts/"+string(p.ReceiptID)+"/evidence", nil)
		if r.str("digest") != p.Evidence {
			c.t.Errorf("the receipt is signed over %s, and its evidence has %s", p.Evidence, r.str("digest"))
		}
		state := r.str("evidence", "object", "args", "state")
		told = append(told, state)
		if what := map[string]string{"running": "features", "ended": "exit"}[state]; what != "" {
			is, got := session.at("jail", what), r.at("evidence", "object", "args", what)
			if len(told) < len(want)-1 { // of a start before the last one, which may have had another user
				is, got = but(is, "host_uid"), but(got, "host_uid")
			}
			if is == nil || !reflect.DeepEqual(got, is) {
				c.t.Errorf("%s: the receipt says of its %s %v, the session %v", state, what, got, is)
			}
		}
	}
	if !slices.Equal(told, want) {
		c.t.Errorf("receipts tell of %v, want %v", told, want)
	}
}

// but is an object without a member.
func but(o any, name string) any {
	m, ok := o.(map[string]any)
	if !ok {
		return o
	}
	m = maps.Clone(m)
	delete(m, name)
	return m
}
