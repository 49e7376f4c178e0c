package gateway

import (
	"bytes"
	"strings"
	"testing"

	stdjson "encoding/json"

	"github.com/writ-gateway/writ"
)

// What policy changed about a call is told in the headers of every face, and in
// the envelope.
func TestWhatPolicyChangedIsTold(t *testing.T) {
	h, door := newFake(t, nil)
	reply := writ.Reply{
		Outcome: writ.OutcomeCreated, JSON: stdjson.RawMessage(`{}`), Redacted: []string{"/args", "/a b/*/c,d"},
		Limited: []writ.Limit{{Argument: "lease_ttl_s", Max: 60}, {Argument: "wait_s", Max: 0}},
	}
	door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) { return reply, nil, nil }
	const body = `{"run_id":"` + testRun + `","key":"build"}`
	for _, tt := range []struct{ path, body, envelope string }{
		{"/v1/tasks", body, ""},
		{"/v1/invoke", `{"capability":"task.enqueue","args":` + body + `}`, `"redacted":["/args","/a b/*/c,d"],"limited":[{"argument":"lease_ttl_s","max":60},{"argument":"wait_s","max":0}]`},
	} {
		w := send(h, "POST", tt.path, tt.body)
		if got, want := w.Header().Get("Policy-Redacted"), `"/args", "/a b/*/c,d"`; got != want {
			t.Errorf("%s: got %s, want %s", tt.path, got, want)
		}
		if got, want := w.Header().Get("Policy-Limited"), `lease_ttl_s=60, wait_s=0`; got != want {
			t.Errorf("%s: got %s, want %s", tt.path, got, want)
		}
		if !strings.Contains(w.Body.String(), tt.envelope) {
			t.Errorf("%s: %s is not in %s", tt.path, tt.envelope, w.Body)
		}
	}
	reply.Redacted, reply.Limited = nil, nil
	for _, path := range []string{"/v1/tasks", "/v1/invoke"} {
		w := send(h, "POST", path, map[string]string{"/v1/tasks": body, "/v1/invoke": `{"capability":"task.enqueue","args":` + body + `}`}[path])
		if w.Header().Values("Policy-Redacted") != nil || w.Header().Values("Policy-Limited") != nil || strings.Contains(w.Body.String(), "redacted") {
			t.Errorf("%s: told of nothing: %v %s", path, w.Header(), w.Body)
		}
	}
}

const testCosignature = "v1 SHA256:tAXFyTXI8xtDaujAEcwJslAYc9/6FKcUkd2Lw0xDhPo AAAAAAAAAAAAAAAAAAAAAA=="

func TestCosignatureIsRead(t *testing.T) {
	h, door := newFake(t, nil)
	for _, path := range []string{"/v1/sessions", "/v1/invoke"} {
		body := map[string]string{"/v1/invoke": `{"capability":"task.claim"}`}[path]
		send(h, "POST", path, body, "Cosignature", testCosignature)
		if c := door.last(t).Cosignature; c == nil || c.KeyID != strings.Fields(testCosignature)[1] || !bytes.Equal(c.Signature, make([]byte, 16)) {
			t.Errorf("%s: got %+v", path, c)
		}
		if send(h, "POST", path, body); door.last(t).Cosignature != nil {
			t.Errorf("%s: a signature out of nothing", path)
		}
	}
}
