package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// shelf is a store of blobs with one body, which may end in damage.
type shelf struct {
	body  []byte
	state writ.BlobState
	end   error // instead of io.EOF
}

func (s shelf) Stage(_ context.Context, r io.Reader, max int64) (Staged, error) {
	b, err := io.ReadAll(io.LimitReader(r, max))
	return &shelved{b}, err
}
func (s shelf) Examine(context.Context, string) (writ.BlobState, error) { return s.state, nil }
func (s shelf) Get(context.Context, string) (io.ReadCloser, error) {
	r := io.Reader(bytes.NewReader(s.body))
	if s.end != nil {
		r = io.MultiReader(r, broken{s.end})
	}
	return io.NopCloser(r), nil
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

type shelved struct{ b []byte }

func (s *shelved) Digest() string             { return testDigest }
func (s *shelved) Size() int64                { return int64(len(s.b)) }
func (s *shelved) Small() []byte              { return s.b }
func (s *shelved) Keep(context.Context) error { return nil }
func (s *shelved) Discard()                   {}

const testDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Bytes are sent whole and as nothing a browser runs; what is damaged is refused,
// and what becomes damaged while it is sent never arrives whole.
func TestContent(t *testing.T) {
	const path = "/v1/artifacts/" + testDigest + "/content?task_id=" + testTask
	at := func(s shelf) http.Handler {
		h, _ := newFake(t, func(c *Config) { c.Blobs = s })
		return h
	}
	for _, n := range []int{0, 1, chunkBytes - 1, chunkBytes, chunkBytes + 1, 3*chunkBytes + 7} {
		body := bytes.Repeat([]byte("<script>"), n/8+1)[:n]
		w := send(at(shelf{body: body, state: writ.BlobIntact}), "GET", path, "")
		if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), body) || w.Header().Get("Content-Type") != octetStream ||
			w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Content-Disposition") != "attachment" {
			t.Errorf("%d bytes: %d, %d bytes, %v", n, w.Code, w.Body.Len(), w.Header())
		}
	}
	for state, want := range map[writ.BlobState]int{writ.BlobDamaged: 409, writ.BlobAbsent: 404} {
		if w := send(at(shelf{body: []byte("site"), state: state}), "GET", path, ""); w.Code != want || strings.Contains(w.Body.String(), "site") {
			t.Errorf("%s: %d %s", state, w.Code, w.Body)
		}
	}
	for _, n := range []int{1, chunkBytes, 2*chunkBytes + 1} {
		out := &recorded{h: http.Header{}}
		err := copyWhole(out, io.MultiReader(bytes.NewReader(make([]byte, n)), broken{errors.New("damaged")}))
		if err == nil || out.n >= n {
			t.Errorf("%d of %d bytes were sent, %v", out.n, n, err)
		}
	}
}

// recorded counts what is written.
type recorded struct {
	h http.Header
	n int
}

func (r *recorded) Header() http.Header         { return r.h }
func (r *recorded) WriteHeader(int)             {}
func (r *recorded) Write(b []byte) (int, error) { r.n += len(b); return len(b), nil }

// One session has a share of the transfers, and all of them have an end.
func TestTransfersAreShared(t *testing.T) {
	x := newTransfers(20)
	mine, yours := writ.Credential{Session: "a"}, writ.Credential{Session: "b"}
	for range 2 {
		if err := x.enter(mine); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.enter(mine); writ.CodeOf(err) != writ.CodeBackpressure {
		t.Errorf("got %v", err)
	}
	if err := x.enter(yours); err != nil {
		t.Errorf("got %v", err)
	}
	for range 2 {
		x.leave(mine)
	}
	x.leave(yours)
	if len(x.under) != 0 || x.all != 0 {
		t.Errorf("left %v", x.under)
	}
	for i := range 20 {
		if err := x.enter(writ.Credential{Session: writ.SessionID(strings.Repeat("x", i))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.enter(yours); writ.CodeOf(err) != writ.CodeBackpressure {
		t.Errorf("got %v", err)
	}
}

// The length of a body is among the arguments, unless they say one; a body that is
// encoded, or larger than any artifact, is refused unread.
func TestUploads(t *testing.T) {
	h, door := newFake(t, func(c *Config) { c.Blobs = shelf{} })
	path := "/v1/artifacts?task_id=" + testTask
	for query, want := range map[string]string{"": `"size":4`, "&size=9": `"size":9`} {
		if w := send(h, "PUT", path+query, "site", "Content-Type", "text/html"); w.Code >= 300 {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
		if raw := string(door.last(t).Raw); !strings.Contains(raw, want) || strings.Count(raw, "size") != 1 || door.last(t).Body == nil {
			t.Errorf("%s: %s", query, raw)
		}
	}
	if w := send(h, "PUT", path, "site", "Content-Encoding", "gzip"); w.Code != 400 {
		t.Errorf("encoded: %d", w.Code)
	}
}
