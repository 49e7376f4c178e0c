package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// obj is a JSON object to send.
type obj = map[string]any

// web is shared by all callers. It repeats nothing.
var web = &http.Client{
	Timeout:   60 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 128, DisableCompression: true},
}

// caller is one session at one gateway.
type caller struct {
	t     testing.TB
	gw    *gateway
	token string
	id    writ.SessionID
	agent writ.AgentID
}

// at is the same session at another gateway.
func (c caller) at(g *gateway) caller { c.gw = g; return c }

// in is the same session in a subtest.
func (c caller) in(t testing.TB) caller { c.t = t; return c }

// reply is an HTTP response.
type reply struct {
	call   string
	status int
	header http.Header
	body   []byte
}

func (r reply) String() string { return fmt.Sprintf("%s: %d %s", r.call, r.status, r.body) }

// at finds a value in the body, by the path of its names.
func (r reply) at(path ...string) any {
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	for _, name := range path {
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

func (r reply) str(path ...string) string { s, _ := r.at(path...).(string); return s }

func (r reply) num(path ...string) int64 {
	n, _ := r.at(path...).(json.Number)
	v, _ := n.Int64()
	return v
}

func (r reply) code() writ.Code { return writ.Code(r.str("code")) }

func (r reply) receipt() writ.ReceiptID { return writ.ReceiptID(r.header.Get("Receipt-Id")) }

// version is the ETag.
func (r reply) version() int64 {
	v, _ := strconv.ParseInt(strings.Trim(r.header.Get("ETag"), `"`), 10, 64)
	return v
}

// try makes one request. A body is sent as JSON, or as it is when it is a
// string. Headers are name, value, name, value.
func (c caller) try(method, path string, body any, headers ...string) (reply, error) {
	r := reply{call: method + " " + path}
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		text, err := json.Marshal(body)
		if err != nil {
			return r, err
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, c.gw.url+path, in)
	if err != nil {
		return r, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := web.Do(req)
	if err != nil {
		return r, err
	}
	defer func() { _ = res.Body.Close() }()
	r.status, r.header = res.StatusCode, res.Header
	r.body, err = io.ReadAll(res.Body)
	return r, err
}

// insist is try, again and again while policy runs out of time: under load and
// with the race detector an evaluation can take longer than it may. Such a call
// was refused before it did anything.
func (c caller) insist(method, path string, body any, headers ...string) (reply, error) {
	for {
		r, err := c.try(method, path, body, headers...)
		if err != nil || r.code() != writ.CodePolicyDown || !slow() {
			return r, err
		}
	}
}

// do makes one request; no answer fails the test.
func (c caller) do(method, path string, body any, headers ...string) reply {
	c.t.Helper()
	r, err := c.try(method, path, body, headers...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// ok makes a request that must succeed with a status.
func (c caller) ok(status int, method, path string, body any, headers ...string) reply {
	c.t.Helper()
	r := c.do(method, path, body, headers...)
	if r.status != status {
		c.t.Fatalf("want %d, got %s", status, r)
	}
	if method != http.MethodGet && r.status != http.StatusNoContent && r.receipt() == "" && !quiet(path) {
		c.t.Fatalf("no receipt: %s", r)
	}
	return r
}

// quiet are the changes that leave no receipt: renewals.
func quiet(path string) bool { return strings.HasSuffix(path, "/heartbeat") || path == "/v1/invoke" }

// refused makes a request that must be refused.
func (c caller) refused(status int, code writ.Code, method, path string, body any, headers ...string) reply {
	c.t.Helper()
	r := c.do(method, path, body, headers...)
	if r.status != status || r.code() != code {
		c.t.Fatalf("want %d %s, got %s", status, code, r)
	}
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		c.t.Fatalf("a refusal of type %q: %s", got, r)
	}
	return r
}

// within asks again and again until ok says yes, for things that happen by
// themselves and signal nobody outside.
func within(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}
