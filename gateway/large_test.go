package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// many is the arguments of run.create with n members, of about 16 bytes each.
func many(n int) string {
	var b strings.Builder
	b.WriteString(`{"budget":{"steps":9},"flow":{"first":0`)
	for i := range n {
		fmt.Fprintf(&b, `,"dim-%07d":%d`, i, i%10)
	}
	return b.String() + "}}"
}

// Bodies of calls whose arguments may be large may be, through the wrapper too, and no
// other's; what is one thing too much is refused before it reaches the door.
func TestLargeBodies(t *testing.T) {
	h, door := newFake(t, func(c *Config) { c.Registry.Get("run.create").Large = true })
	large := many(40_000)
	if len(large) < 4*128<<10 {
		t.Fatal(len(large))
	}
	for _, r := range [][2]string{{"/v1/runs", large}, {"/v1/invoke", `{"capability":"run.create","args":` + large + `}`}} {
		if w := send(h, "POST", r[0], r[1]); w.Code != http.StatusOK {
			t.Errorf("%s: %d %.200s", r[0], w.Code, w.Body)
		}
		if got := door.last(t); got.Capability != "run.create" || len(got.Raw) != len(large) {
			t.Errorf("%s: %s, %d bytes", r[0], got.Capability, len(got.Raw))
		}
	}
	n := door.count()
	over := strings.Repeat(" ", writ.MaxWorkflowBytes+64<<10)
	for _, r := range [][2]string{
		{"/v1/tasks", `{"x":"` + large[:200<<10] + `"}`},
		{"/v1/runs", over + "{}"},
		{"/v1/invoke", over + "{}"},
		{"/v1/invoke", `{"capability":"session.open","args":{}` + strings.Repeat(" ", 128<<10) + `}`},
	} {
		wantProblem(t, send(h, "POST", r[0], r[1]), http.StatusRequestEntityTooLarge, writ.CodeTooLarge)
		chunked := httptest.NewRequest("POST", r[0], strings.NewReader(r[1]))
		chunked.ContentLength = -1
		chunked.Header.Set("Authorization", "Bearer "+testToken)
		chunked.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, chunked)
		wantProblem(t, w, http.StatusRequestEntityTooLarge, writ.CodeTooLarge)
	}
	if door.count() != n {
		t.Error("a body that is too large reached the door")
	}
	// Memory goes by values, not by bytes alone.
	wantProblem(t, send(h, "POST", "/v1/runs", `{"budget":[`+strings.Repeat("0,", manyValues)+`0]}`), http.StatusBadRequest, writ.CodeMalformed)
	wantProblem(t, send(h, "POST", "/v1/sessions", `{"budget":[`+strings.Repeat("0,", maxValues)+`0]}`), http.StatusBadRequest, writ.CodeMalformed)
}

// Few large bodies are held at a time, of one session fewer; small ones need no place.
func TestLargeBodiesAreFew(t *testing.T) {
	h, door := newFake(t, func(c *Config) { c.Registry.Get("run.create").Large = true })
	large, inside := many(20_000), 0
	door.answer = func(call *writ.Call) (writ.Reply, *writ.Receipt, error) {
		if len(call.Raw) == len(large) {
			inside++
			want := http.StatusOK
			if inside == 2 {
				want = http.StatusTooManyRequests
			}
			if w := send(h, "POST", "/v1/runs", large); w.Code != want {
				t.Errorf("beside %d: %d", inside, w.Code)
			}
			if w := send(h, "POST", "/v1/runs", many(2)); w.Code != http.StatusOK {
				t.Errorf("a small one beside %d: %d", inside, w.Code)
			}
			inside--
		}
		return writ.Reply{Outcome: writ.OutcomeDone, JSON: []byte(`{}`)}, nil, nil
	}
	for range 3 { // places are given back
		if w := send(h, "POST", "/v1/runs", large); w.Code != http.StatusOK {
			t.Errorf("%d", w.Code)
		}
	}
}
