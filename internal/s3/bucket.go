// Package s3 makes the few calls of an object store that a log needs: read, write on a
// condition, list and delete (Amazon S3, and what speaks like it), signed by the library
// of AWS. It is not a client for everything else.
package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/smithy-go/encoding/httpbinding"
)

// Config says where a bucket is, and who asks.
type Config struct {
	Endpoint    string // http or https; empty: that of AWS in the region
	Region      string // us-east-1 when empty
	Bucket      string
	Credentials Credentials

	Client *http.Client     // nil: one with a timeout
	Now    func() time.Time // nil: time.Now
}

// Bucket is a bucket.
type Bucket struct {
	cfg  Config
	base *url.URL
}

// wait is how long one request may take.
const wait = 30 * time.Second

// maxObject is the largest object that is read, maxAnswer the largest other answer.
const (
	maxObject = 64 << 20
	maxAnswer = 4 << 20
)

// ErrCondition: an object was not as the condition of a write has it, and nothing was
// written.
var ErrCondition = errors.New("the object has changed")

// Open makes a Bucket. It asks nothing.
func Open(cfg Config) (*Bucket, error) {
	if cfg.Bucket == "" || strings.Trim(cfg.Bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return nil, errors.New("the name of a bucket has small letters, digits, dots and hyphens")
	}
	if cfg.Credentials.AccessKey == "" || cfg.Credentials.Secret == "" {
		return nil, errors.New("there are no credentials for the bucket")
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if strings.Trim(cfg.Region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, errors.New("not the name of a region")
	}
	at := cfg.Endpoint
	switch {
	case at != "":
		at = strings.TrimSuffix(at, "/") + "/" + cfg.Bucket
	case strings.Contains(cfg.Bucket, "."): // no certificate covers it as a host name
		at = "https://s3." + cfg.Region + ".amazonaws.com/" + cfg.Bucket
	default:
		at = "https://" + cfg.Bucket + ".s3." + cfg.Region + ".amazonaws.com"
	}
	base, err := url.Parse(at)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("the endpoint is https://host or http://host, perhaps with a port and a path")
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{Timeout: wait, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Bucket{cfg: cfg, base: base}, nil
}

// Get reads an object, with its tag; fs.ErrNotExist where there is none.
func (b *Bucket) Get(ctx context.Context, key string) (body []byte, tag string, err error) {
	res, body, err := b.do(ctx, http.MethodGet, key, nil, nil, nil, maxObject)
	if err != nil {
		return nil, "", err
	}
	return body, res.Header.Get("ETag"), nil
}

// Head gives the tag of an object; fs.ErrNotExist where there is none.
func (b *Bucket) Head(ctx context.Context, key string) (tag string, err error) {
	res, _, err := b.do(ctx, http.MethodHead, key, nil, nil, nil, 0)
	if err != nil {
		return "", err
	}
	return res.Header.Get("ETag"), nil
}

// Put writes an object in the place of the one with a tag; empty: where there is none. It
// is ErrCondition when something else is there.
func (b *Bucket) Put(ctx context.Context, key string, body []byte, tag string) error {
	condition := http.Header{"If-None-Match": {"*"}}
	if tag != "" {
		condition = http.Header{"If-Match": {tag}}
	}
	_, _, err := b.do(ctx, http.MethodPut, key, nil, condition, body, maxAnswer)
	return err
}

// Delete removes an object, if there is one.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	_, _, err := b.do(ctx, http.MethodDelete, key, nil, nil, nil, maxAnswer)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List gives the keys of all objects that begin with a prefix.
func (b *Bucket) List(ctx context.Context, prefix string) (keys []string, err error) {
	for next := ""; ; {
		q := url.Values{"list-type": {"2"}, "prefix": {prefix}}
		if next != "" {
			q.Set("continuation-token", next)
		}
		_, body, err := b.do(ctx, http.MethodGet, "", q, nil, nil, maxAnswer)
		if err != nil {
			return nil, err
		}
		var page struct {
			Contents []struct{ Key string }
			Next     string `xml:"NextContinuationToken"`
			More     bool   `xml:"IsTruncated"`
		}
		if err := xml.Unmarshal(body, &page); err != nil {
			return nil, fmt.Errorf("the object store lists what is no list: %w", err)
		}
		for _, o := range page.Contents {
			keys = append(keys, o.Key)
		}
		if !page.More || page.Next == "" || page.Next == next {
			return keys, nil
		}
		next = page.Next
	}
}

// do makes one signed request.
func (b *Bucket) do(ctx context.Context, method, key string, q url.Values, header http.Header, body []byte, limit int64) (*http.Response, []byte, error) {
	u := *b.base
	u.Path += "/" + key
	u.RawPath = httpbinding.EscapePath(u.Path, false) // as it is signed
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	for name, v := range header {
		r.Header[name] = v
	}
	if err := b.cfg.Credentials.Authorize(ctx, r, b.cfg.Region, sha256.Sum256(body), b.cfg.Now()); err != nil {
		return nil, nil, err
	}
	res, err := b.cfg.Client.Do(r)
	if err != nil {
		return nil, nil, fmt.Errorf("the object store does not answer: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, max(limit, 64<<10)+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("the object store does not answer: %w", err)
	case res.StatusCode == http.StatusNotFound && key != "" && code(answer) != "NoSuchBucket":
		return nil, nil, &fs.PathError{Op: strings.ToLower(method), Path: key, Err: fs.ErrNotExist}
	case res.StatusCode == http.StatusPreconditionFailed:
		return nil, nil, fmt.Errorf("%w: %s", ErrCondition, key)
	case res.StatusCode < 200 || res.StatusCode > 299:
		return nil, nil, fmt.Errorf("the object store answers %s %s with HTTP %d %s", method, key, res.StatusCode, code(answer))
	case int64(len(answer)) > max(limit, 64<<10):
		return nil, nil, fmt.Errorf("%s is larger than anything the log has", key)
	}
	return res, answer, nil
}

// code is the error code in an answer, if there is one that can be shown.
func code(answer []byte) string {
	var e struct{ Code string }
	if xml.Unmarshal(answer, &e) != nil || len(e.Code) > 64 || strings.Trim(e.Code, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return ""
	}
	return e.Code
}

// Exclusive says whether the store heeds the conditions of writes, which not all that
// speak like S3 do. It leaves one small object under a key.
func (b *Bucket) Exclusive(ctx context.Context, key string) error {
	body := []byte("writes on a condition are tried here\n")
	if err := b.Put(ctx, key, body, ""); err != nil && !errors.Is(err, ErrCondition) {
		return err
	}
	for _, tag := range []string{"", `"00000000000000000000000000000000"`} {
		err := b.Put(ctx, key, body, tag)
		if err == nil {
			return errors.New("the object store overwrites what it was told to leave: it does not know If-None-Match or If-Match")
		}
		if !errors.Is(err, ErrCondition) {
			return err
		}
	}
	return nil
}
