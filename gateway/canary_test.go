package gateway

import (
	"fmt"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

const canary = "c4n4rY"

// garbage makes a body that is nearly right, with the canary somewhere in it:
// as a value, a name, a number's neighbour, or inside broken syntax.
func garbage(r *rand.Rand) string {
	var value func(depth int) string
	words := []string{canary, "key", "run_id", "labels", "steps", "name", "tries", "tags", "args", "Key", "budget", "home", "wait", "a.b", "x[0]", "domains"}
	word := func() string {
		w := words[r.Intn(len(words))]
		if r.Intn(4) == 0 {
			w += "." + canary
		}
		if r.Intn(8) == 0 {
			w += "\\u0000/~"
		}
		return w
	}
	value = func(depth int) string {
		switch n := r.Intn(9); {
		case n == 0:
			return fmt.Sprintf(`"%s"`, word())
		case n == 1:
			return fmt.Sprint(r.Int63() - r.Int63())
		case n == 2:
			return []string{"null", "true", "1e999", "-0.5", "\"\\ud800" + canary + "\"", canary, "\"\xff" + canary + "\""}[r.Intn(7)]
		case n < 5 && depth < 4:
			var items []string
			for range r.Intn(4) {
				items = append(items, value(depth+1))
			}
			return "[" + strings.Join(items, ",") + "]"
		case depth < 4:
			var members []string
			for range r.Intn(6) {
				members = append(members, fmt.Sprintf(`"%s":%s`, word(), value(depth+1)))
			}
			return "{" + strings.Join(members, ",") + "}"
		}
		return `"` + canary + `"`
	}
	s := value(0)
	switch r.Intn(8) {
	case 0:
		s = s[:r.Intn(len(s)+1)]
	case 1:
		i := r.Intn(len(s) + 1)
		s = s[:i] + canary + s[i:]
	}
	return s
}

// Whatever is sent, in whatever place, an error never repeats it, and it is
// always a problem with a status of the table.
func TestErrorsNeverEcho(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	h, _ := newFake(t, nil)
	refused := 0
	for range 5000 {
		route := Routes[r.Intn(len(Routes))]
		target := route.Path
		for _, p := range route.Params() {
			target = strings.Replace(target, "{"+p+"}", url.PathEscape([]string{canary, testTask, canary + "\xff", "plug-editor", "a/" + canary}[r.Intn(5)]), 1)
		}
		body := ""
		if route.Method != http.MethodGet {
			body = garbage(r)
			if route.Capability == capabilityInvoke && r.Intn(2) == 0 {
				body = `{"capability":"` + []string{"task.enqueue", "run.create", canary, "x." + strings.ToLower(canary)}[r.Intn(4)] + `","args":` + garbage(r) + `}`
			}
		}
		if r.Intn(3) == 0 {
			target += "?" + []string{canary + "=1", "limit=" + canary, "after=" + canary + "&after=1", "%zz" + canary, "short=" + canary, "run_id=" + canary}[r.Intn(6)]
		}
		var headers []string
		switch r.Intn(12) {
		case 0:
			headers = []string{"Idempotency-Key", canary + " x"}
		case 1:
			headers = []string{"If-Match", canary}
		case 2:
			headers = []string{"Authorization", "Bearer " + canary}
		case 3:
			headers = []string{"Content-Type", "text/" + canary}
		}
		w := send(h, route.Method, target, body, headers...)
		checkNoEcho(t, w, route.Method+" "+target+"\n"+body)
		if w.Code >= 400 {
			refused++
		}
	}
	if refused < 2500 {
		t.Errorf("only %d of 5000 were refused: the generator is too tame", refused)
	}
}

func checkNoEcho(t *testing.T, w *httptest.ResponseRecorder, input string) {
	t.Helper()
	if w.Code < 400 {
		return
	}
	if w.Code >= 500 {
		t.Fatalf("%d for\n%s\n%s", w.Code, input, w.Body)
	}
	if strings.Contains(strings.ToLower(w.Body.String()+fmt.Sprint(w.Header())), strings.ToLower(canary)) {
		t.Fatalf("the canary came back: %v %s\nfor\n%s", w.Header(), w.Body, input)
	}
	if ct := w.Header().Get("Content-Type"); ct != problemJSON {
		t.Fatalf("content type %q for\n%s", ct, input)
	}
}

func FuzzErrorsNeverEcho(f *testing.F) {
	f.Add(`{"run_id":"`+canary+`"}`, "/v1/tasks", "", "", "", "", "application/json", byte(0))
	f.Add(`{"`+canary+`":1}`, "/v1/runs", canary+"=1", canary+" x", canary, "", "application/json; charset="+canary, byte(0))
	f.Add("", "/v1/tasks/"+testTask, "limit="+canary+"&%zz", "", "", "Bearer "+canary, "", byte(1))
	f.Add(`{}`, "/v1/agents/"+canary, "after="+canary+"&after=1", "k", `"1", "`+canary+`"`, "", "text/"+canary, byte(2))
	f.Add("", "/"+canary+"//..", "", "", "", "Bearer default."+canary, "", byte(3))
	h, _ := newFake(f, nil)
	f.Fuzz(func(t *testing.T, body, path, query, key, match, auth, contentType string, method byte) {
		if auth == "" {
			auth = "Bearer " + testToken
		}
		r := &http.Request{
			Method: []string{"POST", "GET", "PUT", "DELETE"}[method%4], URL: &url.URL{Path: path, RawQuery: query}, Host: "x",
			Header: http.Header{"Authorization": {auth}, "Content-Type": {contentType}}, Body: http.NoBody,
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		}
		for name, v := range map[string]string{"Idempotency-Key": key, "If-Match": match} {
			if v != "" {
				r.Header.Set(name, v)
			}
		}
		if body != "" {
			r2 := httptest.NewRequest("POST", "/", strings.NewReader(body))
			r.Body, r.ContentLength = r2.Body, r2.ContentLength
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		checkNoEcho(t, w, strings.Join([]string{r.Method, path, query, key, match, auth, contentType, body}, "\n"))
	})
}
