package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Produce declares an artifact a task is to make.
type Produce struct {
	Name      string       `json:"name"`
	MediaType string       `json:"media_type"`
	Schema    any          `json:"schema,omitempty"` // JSON Schema, an object
	Labels    []writ.Label `json:"labels,omitempty"` // the most it may carry
	MaxBytes  int64        `json:"max_bytes,omitempty"`
	Required  bool         `json:"required,omitempty"`
}

// Consume declares an artifact a task is given.
type Consume struct {
	Name      string `json:"name"`
	From      string `json:"from"` // key of a task it depends on
	MediaType string `json:"media_type,omitempty"`
	Optional  bool   `json:"optional,omitempty"`
}

// Artifact is what a task has made. From is set where it may be another task
// than the one at hand.
type Artifact struct {
	Name      string       `json:"name"`
	Digest    string       `json:"digest"`
	MediaType string       `json:"media_type"`
	Size      int64        `json:"size"`
	Labels    []writ.Label `json:"labels"`
	From      writ.TaskID  `json:"from_task_id,omitempty"`
}

// transferTime is how long one artifact may take.
const transferTime = 10 * time.Minute

// PutArtifact stores an artifact of a claimed task under a name the task declares;
// label may be empty. What can be read twice (an io.Seeker) is sent with its
// digest and, where that is safe, sent again; anything else is streamed, once.
func (c *Client) PutArtifact(ctx context.Context, t *Claimed, name string, label writ.Label, r io.Reader, opts ...Option) (a Artifact, err error) {
	const op = "client.PutArtifact"
	o := options{key: rand.Text()}
	for _, f := range opts {
		f(&o)
	}
	args := map[string]any{"task_id": t.Task.ID, "lease_id": t.Lease.ID, "fence": t.Lease.Fence, "name": name}
	if label != "" {
		args["label"] = label
	}
	size, start := int64(-1), int64(0)
	seeker, twice := r.(io.ReadSeeker)
	if twice {
		h := sha256.New()
		if start, err = seeker.Seek(0, io.SeekCurrent); err == nil {
			size, err = io.Copy(h, seeker)
		}
		if err != nil {
			return a, &writ.Error{Code: writ.CodeMalformed, Op: op, Msg: "what is to be sent cannot be read", Err: err}
		}
		args["digest"], args["size"] = "sha256:"+hex.EncodeToString(h.Sum(nil)), size
		if size == 0 { // which is the default
			delete(args, "size")
		}
	}
	query, err := c.signed(&o, "artifact.put", args)
	if err != nil {
		return a, err
	}
	defer c.tend(ctx)
	for n := 1; ; n++ {
		if twice {
			if _, err := seeker.Seek(start, io.SeekStart); err != nil {
				return a, &writ.Error{Code: writ.CodeMalformed, Op: op, Msg: "what is to be sent cannot be read", Err: err}
			}
		}
		a, err = c.put(ctx, "/v1/artifacts?"+query, r, size, o)
		if err == nil || !twice || n > c.cfg.Retries || !again(err) {
			return a, err
		}
		timer := time.NewTimer(pause(n, err))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return a, err
		}
	}
}

// put makes one try.
func (c *Client) put(ctx context.Context, path string, r io.Reader, size int64, o options) (a Artifact, err error) {
	body := &lent{r: r}
	defer body.takeBack()
	answer, err := c.bytes(ctx, http.MethodPut, path, body, size, o)
	if err != nil {
		return a, err
	}
	defer func() { _ = answer.Close() }()
	if err := json.NewDecoder(io.LimitReader(answer, maxAnswer)).Decode(&a); err != nil {
		return a, &writ.Error{Code: writ.CodeInternal, Op: "client.PutArtifact", Msg: "the answer is not that of a gateway", Hint: "check the URL", Err: err}
	}
	return a, nil
}

// lent is a reader that a try has until it is over: the transport may go on
// reading a body after it has given the answer.
type lent struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lent) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.r == nil {
		return 0, io.ErrClosedPipe
	}
	return l.r.Read(b)
}

func (l *lent) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.r = nil
}

// signed renders arguments as a query, and has them signed if the client signs.
func (c *Client) signed(o *options, capability writ.CapabilityID, args map[string]any) (string, error) {
	q := url.Values{}
	for name, v := range args {
		switch v := v.(type) {
		case int64:
			q.Set(name, strconv.FormatInt(v, 10))
		case writ.TaskID:
			q.Set(name, string(v))
		case writ.LeaseID:
			q.Set(name, string(v))
		case writ.Label:
			q.Set(name, string(v))
		case string:
			q.Set(name, v)
		}
	}
	if c.cfg.Cosign != nil && o.key != "" {
		sent, err := json.Marshal(args)
		if err != nil {
			return "", writ.Fault(writ.CodeInternal, "client.signed", err)
		}
		o.sign = func(who identity) (string, error) {
			return c.cfg.Cosign(writ.Cosigned{Capability: capability, IdempotencyKey: o.key, Session: who.session, Tenant: who.tenant}, sent)
		}
	}
	return q.Encode(), nil
}

// ReadArtifact writes the bytes of an artifact to w, of a task that made it or is
// given it. It fails with CodeArtifact when what came is not what the digest
// names: what was written by then is worth nothing.
func (c *Client) ReadArtifact(ctx context.Context, task writ.TaskID, digest string, w io.Writer) (n int64, err error) {
	const op = "client.ReadArtifact"
	if !writ.ValidDigest(digest) {
		return 0, writ.Refuse(writ.CodeMalformed, op, "not a digest", `it is "sha256:" and 64 lower-case hex digits`)
	}
	defer c.tend(ctx) // when the body is closed
	body, err := c.bytes(ctx, http.MethodGet, "/v1/artifacts/"+url.PathEscape(digest)+"/content?task_id="+url.QueryEscape(string(task)), nil, 0, options{})
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }()
	h := sha256.New()
	if n, err = io.Copy(io.MultiWriter(w, h), io.LimitReader(body, writ.MaxArtifactBytes+1)); err != nil {
		return n, unreachable(op, err)
	}
	if "sha256:"+hex.EncodeToString(h.Sum(nil)) != digest {
		return n, writ.Refuse(writ.CodeArtifact, op, "what came is not what the digest names", "check what lies between this program and the gateway")
	}
	return n, nil
}

// GetArtifact shows an artifact of a task that made it or is given it.
func (c *Client) GetArtifact(ctx context.Context, task writ.TaskID, digest string) (a Artifact, err error) {
	_, err = c.Invoke(ctx, "artifact.get", struct {
		Digest string      `json:"digest"`
		Task   writ.TaskID `json:"task_id"`
	}{digest, task}, &a)
	return a, err
}

// ArtifactPage is a page of artifacts, by task.
type ArtifactPage struct {
	Artifacts []Artifact  `json:"artifacts"`
	Next      writ.TaskID `json:"next,omitempty"`
}

// ListArtifacts shows the artifacts of a run; after is the page's Next.
func (c *Client) ListArtifacts(ctx context.Context, run writ.RunID, after writ.TaskID) (page ArtifactPage, err error) {
	_, err = c.Invoke(ctx, "artifact.list", struct {
		Run   writ.RunID  `json:"run_id"`
		After writ.TaskID `json:"after,omitempty"`
	}{run, after}, &page)
	return page, err
}

// bytes makes one exchange whose body, or answer, is bytes. The caller closes the
// answer.
func (c *Client) bytes(ctx context.Context, method, path string, body io.Reader, size int64, o options) (io.ReadCloser, error) {
	const op = "client.bytes"
	if err := c.LogError(); err != nil {
		return nil, err
	}
	who, err := c.identity()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, transferTime)
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		cancel()
		return nil, writ.Fault(writ.CodeInternal, op, err)
	}
	who.authorize(req)
	if body != nil {
		req.ContentLength = size
		if size == 0 {
			req.Body = http.NoBody
		}
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("Expect", "100-continue") // a refusal comes before the bytes go
		if o.key != "" {
			req.Header.Set("Idempotency-Key", o.key)
		}
	}
	if o.sign != nil {
		header, err := o.sign(who)
		if err != nil {
			cancel()
			return nil, writ.AsError(op, err)
		}
		req.Header.Set("Cosignature", header)
	}
	res, err := c.http.Do(req)
	if err != nil {
		cancel()
		return nil, unreachable(op, err)
	}
	c.noteLog(res.Header)
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusCreated {
		return &answer{res.Body, cancel}, nil
	}
	defer cancel()
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, unreachable(op, err)
	}
	if res.StatusCode == http.StatusAccepted {
		return nil, pending(text, metaOf(res.Header).Receipt)
	}
	return nil, refusal(res, text)
}

// answer is a body that ends its exchange when it is closed.
type answer struct {
	io.ReadCloser
	end context.CancelFunc
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.end()
	return err
}
