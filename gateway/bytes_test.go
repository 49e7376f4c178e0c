package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

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
func (s shelf) Open(context.Context, string) (io.ReadCloser, int64, error) {
	r := io.Reader(bytes.NewReader(s.body))
	if s.end != nil {
		r = io.MultiReader(r, broken{s.end})
	}
	return io.NopCloser(r), int64(len(s.body)), nil
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
			w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Content-Disposition") != "attachment" || w.Header().Get("Content-Length") != strconv.Itoa(n) {
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
		err := copyWhole(t.Context(), out, io.MultiReader(bytes.NewReader(make([]byte, n)), broken{errors.New("damaged")}))
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

// Whoever sends little for long keeps nobody's place: what comes must come with a
// least rate, and no pause may be long.
func TestBodiesComeWithARate(t *testing.T) {
	start := time.Unix(1000, 0)
	p := &patient{each: 10 * time.Second, start: start}
	for _, tt := range []struct {
		n    int64
		at   time.Duration
		want time.Duration
	}{
		{0, 0, 10 * time.Second},
		{1, 9 * time.Second, 10 * time.Second}, // a byte buys next to nothing
		{20 * leastRate, 9 * time.Second, 19 * time.Second},
		{20 * leastRate, 25 * time.Second, 30 * time.Second},
		{writ.MaxArtifactBytes, time.Hour, time.Hour + 10*time.Second},
	} {
		p.n = tt.n
		if got := p.until(start.Add(tt.at)).Sub(start).Round(time.Millisecond); got.Truncate(time.Second) != tt.want {
			t.Errorf("%d bytes after %v: until %v, want %v", tt.n, tt.at, got, tt.want)
		}
	}
}

// takes has the door of a test take the body of a call in, as the real one does.
func takes(door *fakeDoor) {
	door.answer = func(c *writ.Call) (writ.Reply, *writ.Receipt, error) {
		_, err := c.Body.Receive(context.Background(), writ.MaxArtifactBytes)
		return writ.Reply{Outcome: writ.OutcomeCreated, JSON: []byte(`{}`)}, nil, err
	}
}

// half begins an upload and sends no more than half of it.
func half(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprintf(conn, "PUT /v1/artifacts?task_id=%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 8\r\n\r\nhalf", testTask, testToken)
	return conn
}

// A body that stops coming is refused, and the caller hears it.
func TestSlowUploadIsRefused(t *testing.T) {
	addr, door := serve(t, func(c *Config) { c.Blobs, c.Limits.BodyTime = shelf{}, 100*time.Millisecond })
	takes(door)
	res, err := http.ReadResponse(bufio.NewReader(half(t, addr)), nil)
	if err != nil || res.StatusCode != http.StatusBadRequest {
		t.Fatalf("%v, %v", res, err)
	}
	if b, _ := io.ReadAll(res.Body); !strings.Contains(string(b), "too slowly") {
		t.Errorf("got %s", b)
	}
}

// A gateway that stops does not wait for what is on its way.
func TestStoppingEndsTransfers(t *testing.T) {
	stopping, stop := context.WithCancel(t.Context())
	began := make(chan struct{})
	addr, door := serve(t, func(c *Config) {
		c.Blobs, c.Stopping, c.Limits.BodyTime = signals{shelf{}, began}, stopping, time.Hour
	})
	takes(door)
	conn := half(t, addr)
	<-began
	stop()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("%v, %v", res, err)
	}
	if b, _ := io.ReadAll(res.Body); !strings.Contains(string(b), "is stopping") {
		t.Errorf("got %s", b)
	}

	out := &recorded{h: http.Header{}}
	if err := copyWhole(stopping, out, bytes.NewReader(make([]byte, 3*chunkBytes))); err == nil || out.n > 0 {
		t.Errorf("sent %d bytes, %v", out.n, err)
	}
}

// signals tells when the first bytes of a body have come.
type signals struct {
	shelf
	began chan struct{}
}

func (s signals) Stage(ctx context.Context, r io.Reader, max int64) (Staged, error) {
	if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
		return nil, err
	}
	close(s.began)
	return s.shelf.Stage(ctx, r, max)
}

// What a caller signs is what it says itself: the length its transport states is none
// of it. And the size of what is sent is known before any of it is.
func TestTheLengthIsNotSigned(t *testing.T) {
	h, door := newFake(t, func(c *Config) { c.Blobs = shelf{body: []byte("site"), state: writ.BlobIntact} })
	if w := send(h, "PUT", "/v1/artifacts?task_id="+testTask, "site"); w.Code >= 300 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if sent := string(door.last(t).Sent); sent != `{"task_id":"`+testTask+`"}` {
		t.Errorf("signed: %s", sent)
	}
	w := send(h, "HEAD", "/v1/artifacts/"+testDigest+"/content?task_id="+testTask, "")
	if w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "4" {
		t.Errorf("got %d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
}
