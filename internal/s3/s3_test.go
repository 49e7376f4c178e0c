package s3_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ/internal/s3"
	"github.com/writ-gateway/writ/internal/s3/s3test"
)

// The examples of the documentation of Signature Version 4 for S3.
func TestSignatures(t *testing.T) {
	cred := s3.Credentials{AccessKey: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	at := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	for _, v := range []struct {
		method, url, body string
		header            http.Header
		signed, want      string
	}{
		{
			"GET", "https://examplebucket.s3.amazonaws.com/test.txt", "",
			http.Header{"Range": {"bytes=0-9"}},
			"host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
		},
		{
			"PUT", "https://examplebucket.s3.amazonaws.com/test%24file.text", "Welcome to Amazon S3.",
			http.Header{"Date": {"Fri, 24 May 2013 00:00:00 GMT"}, "X-Amz-Storage-Class": {"REDUCED_REDUNDANCY"}},
			"date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
		},
		{
			"GET", "https://examplebucket.s3.amazonaws.com/?lifecycle", "", nil,
			"host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
		},
		{
			"GET", "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", "", nil,
			"host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
		},
	} {
		r, err := http.NewRequest(v.method, v.url, strings.NewReader(v.body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range v.header {
			r.Header[name] = value
		}
		r.ContentLength = 0 // which the examples do not sign
		if err := cred.Authorize(t.Context(), r, "us-east-1", sha256.Sum256([]byte(v.body)), at); err != nil {
			t.Fatal(err)
		}
		want := "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=" + v.signed + ", Signature=" + v.want
		if got := r.Header.Get("Authorization"); got != want {
			t.Errorf("%s %s:\n%s\nwant\n%s", v.method, v.url, got, want)
		}
	}
}

func open(t *testing.T, s *s3test.Server, change func(*s3.Config)) *s3.Bucket {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	cfg := s3.Config{Endpoint: srv.URL, Region: s.Region, Bucket: s.Bucket, Credentials: s.Credentials}
	if change != nil {
		change(&cfg)
	}
	b, err := s3.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBucket(t *testing.T) {
	s := s3test.New()
	s.Page = 3
	b, ctx := open(t, s, nil), t.Context()
	if _, _, err := b.Get(ctx, "a/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if _, err := b.Head(ctx, "a/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	body := bytes.Repeat([]byte("x$ ÿ\x00"), 40_000)
	const key = "a/b c+d$é~/1"
	if err := b.Put(ctx, key, body, ""); err != nil {
		t.Fatal(err)
	}
	got, tag, err := b.Get(ctx, key)
	if err != nil || !bytes.Equal(got, body) || tag == "" {
		t.Fatalf("%d bytes, %q, %v", len(got), tag, err)
	}
	if h, err := b.Head(ctx, key); err != nil || h != tag {
		t.Errorf("%q, %v", h, err)
	}
	if err := b.Put(ctx, key, []byte("2"), ""); !errors.Is(err, s3.ErrCondition) {
		t.Errorf("over it: %v", err)
	}
	if err := b.Put(ctx, key, []byte("2"), tag); err != nil {
		t.Error(err)
	}
	if err := b.Put(ctx, key, []byte("3"), tag); !errors.Is(err, s3.ErrCondition) {
		t.Errorf("over another one: %v", err)
	}
	if err := b.Put(ctx, "a/none", []byte("3"), tag); !errors.Is(err, s3.ErrCondition) {
		t.Errorf("in the place of nothing: %v", err)
	}
	for n := range 7 {
		if err := b.Put(ctx, fmt.Sprintf("l/%d", n), nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := b.List(ctx, "l/"); err != nil || strings.Join(keys, " ") != "l/0 l/1 l/2 l/3 l/4 l/5 l/6" {
		t.Errorf("%q, %v", keys, err)
	}
	if keys, err := b.List(ctx, "m +&=/"); err != nil || len(keys) != 0 {
		t.Errorf("%q, %v", keys, err)
	}
	if err := errors.Join(b.Delete(ctx, "l/3"), b.Delete(ctx, "l/3")); err != nil {
		t.Error(err)
	}
	if keys, err := b.List(ctx, "l/"); err != nil || len(keys) != 6 {
		t.Errorf("%q, %v", keys, err)
	}
	if err := errors.Join(b.Exclusive(ctx, "x/.probe"), b.Exclusive(ctx, "x/.probe")); err != nil {
		t.Error(err)
	}
	s.Careless = true
	if err := b.Exclusive(ctx, "x/.probe"); err == nil || !strings.Contains(err.Error(), "If-None-Match") {
		t.Errorf("a careless store: %v", err)
	}
}

// What goes wrong is said without the credentials, and is never taken for an absent object.
func TestWhatABucketRefuses(t *testing.T) {
	s := s3test.New()
	for name, change := range map[string]func(*s3.Config){
		"secret": func(c *s3.Config) { c.Credentials.Secret = "another secret" },
		"token":  func(c *s3.Config) { c.Credentials.Token = "" },
		"region": func(c *s3.Config) { c.Region = "us-east-1" },
		"bucket": func(c *s3.Config) { c.Bucket = "other" },
	} {
		_, _, err := open(t, s, change).Get(t.Context(), "a")
		if err == nil || errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := open(t, s, nil)
	s.Fail(func(string, string) (int, bool) { return 503, false })
	if _, _, err := b.Get(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "503 SlowDown") {
		t.Errorf("it says %v", err)
	}
	s.Fail(func(string, string) (int, bool) { return 307, false })
	if _, _, err := b.Get(t.Context(), "a"); err == nil {
		t.Error("it was sent elsewhere")
	}
	for _, bad := range []s3.Config{
		{Bucket: "A", Credentials: s.Credentials},
		{Bucket: "", Credentials: s.Credentials},
		{Bucket: "a/b", Credentials: s.Credentials},
		{Bucket: "a"},
		{Bucket: "a", Credentials: s.Credentials, Region: "x.y"},
		{Bucket: "a", Credentials: s.Credentials, Endpoint: "ftp://h"},
		{Bucket: "a", Credentials: s.Credentials, Endpoint: "https://u@h"},
		{Bucket: "a", Credentials: s.Credentials, Endpoint: "https://h?x"},
	} {
		if _, err := s3.Open(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// Where requests go is what AWS documents.
func TestAddresses(t *testing.T) {
	for _, v := range []struct{ cfg, want string }{
		{"logs", "https://logs.s3.eu-west-1.amazonaws.com/a/checkpoint"},
		{"logs.example.org", "https://s3.eu-west-1.amazonaws.com/logs.example.org/a/checkpoint"},
	} {
		var got string
		client := &http.Client{Transport: round(func(r *http.Request) (*http.Response, error) {
			got = r.URL.String()
			return nil, errors.New("no network")
		})}
		b, err := s3.Open(s3.Config{Bucket: v.cfg, Region: "eu-west-1", Credentials: s3.Credentials{AccessKey: "a", Secret: "b"}, Client: client})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Get(t.Context(), "a/checkpoint"); err == nil || got != v.want {
			t.Errorf("asked %s: %v", got, err)
		}
	}
}

type round func(*http.Request) (*http.Response, error)

func (f round) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
