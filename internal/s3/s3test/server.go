// Package s3test is an object store in memory that speaks as much of S3 as package s3
// does, for tests. It checks signatures.
package s3test

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ/internal/s3"
)

// Server is a bucket.
type Server struct {
	Bucket, Region string
	Credentials    s3.Credentials
	Page           int  // keys per page of a list; 1000 when 0
	Careless       bool // it heeds no conditions

	mu      sync.Mutex
	objects map[string][]byte
	asked   map[string]int
	fail    func(method, key string) (status int, after bool)
}

// New makes a bucket named tiles, in eu-test-1.
func New() *Server {
	return &Server{
		Bucket: "tiles", Region: "eu-test-1", Credentials: s3.Credentials{AccessKey: "AKTEST", Secret: "not a secret", Token: "of a session"},
		objects: map[string][]byte{}, asked: map[string]int{},
	}
}

// Fail has requests answered with a status, 0: as ever. after: they take place all the
// same.
func (s *Server) Fail(f func(method, key string) (status int, after bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Object is an object as it is there.
func (s *Server) Object(key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.objects[key]
	return slices.Clone(b), ok
}

// Set puts an object there, or takes it away.
func (s *Server) Set(key string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if body == nil {
		delete(s.objects, key)
		return
	}
	s.objects[key] = body
}

// Keys are all keys, sorted.
func (s *Server) Keys() (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.objects {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Asked is how many requests there were, by method.
func (s *Server) Asked(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[method]
}

// ServeHTTP implements the store, by paths: /bucket/key.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[r.Method]++
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if why := s.unsigned(r, body); why != "" {
		refuse(w, http.StatusForbidden, why)
		return
	}
	key, ok := strings.CutPrefix(r.URL.Path, "/"+s.Bucket+"/")
	if !ok {
		refuse(w, http.StatusNotFound, "NoSuchBucket")
		return
	}
	if s.fail != nil {
		if status, after := s.fail(r.Method, key); status != 0 {
			if after {
				s.serve(discard{http.Header{}}, r, key, body)
			}
			refuse(w, status, "SlowDown")
			return
		}
	}
	s.serve(w, r, key, body)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, key string, body []byte) {
	have, there := s.objects[key]
	tag := `"` + hex.EncodeToString(sum(have)) + `"`
	switch {
	case r.Method == http.MethodGet && key == "":
		s.list(w, r)
	case r.Method == http.MethodPut:
		none, match := r.Header.Get("If-None-Match") == "*", r.Header.Get("If-Match")
		if !s.Careless && (none && there || match != "" && (!there || match != tag)) {
			refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
			return
		}
		s.objects[key] = body
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum(body))+`"`)
	case r.Method == http.MethodDelete:
		delete(s.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case !there:
		refuse(w, http.StatusNotFound, "NoSuchKey")
	default:
		w.Header().Set("ETag", tag)
		_, _ = w.Write(have)
	}
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	type object struct{ Key string }
	var page struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Contents              []object
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
	}
	limit := s.Page
	if limit == 0 {
		limit = 1000
	}
	var keys []string
	for k := range s.objects {
		if strings.HasPrefix(k, r.URL.Query().Get("prefix")) && k > r.URL.Query().Get("continuation-token") {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys[:min(limit, len(keys))] {
		page.Contents = append(page.Contents, object{k})
	}
	if len(keys) > limit {
		page.IsTruncated, page.NextContinuationToken = true, keys[limit-1]
	}
	_ = xml.NewEncoder(w).Encode(page)
}

// unsigned says why a request is not signed as it must be.
func (s *Server) unsigned(r *http.Request, body []byte) string {
	given := r.Header.Get("Authorization")
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return "AccessDenied"
	}
	_, names, _ := strings.Cut(given, "SignedHeaders=")
	names, _, _ = strings.Cut(names, ",")
	again := r.Clone(r.Context())
	again.URL.Host, again.Header = r.Host, http.Header{}
	for _, name := range strings.Split(names, ";") {
		if v := r.Header.Values(name); len(v) > 0 && name != "x-amz-date" {
			again.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	for name := range r.Header { // what matters must be signed
		if name = strings.ToLower(name); (strings.HasPrefix(name, "x-amz-") || strings.HasPrefix(name, "if-")) && !slices.Contains(strings.Split(names, ";"), name) {
			return "AccessDenied"
		}
	}
	err = s.Credentials.Authorize(r.Context(), again, s.Region, sha256.Sum256(body), at)
	if err != nil || again.Header.Get("Authorization") != given {
		return "SignatureDoesNotMatch"
	}
	return ""
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>no</Message></Error>`, code)
}

func sum(b []byte) []byte {
	h := md5.Sum(b) //nolint:gosec // what S3 has for a tag
	return h[:]
}

// discard is an answer that nobody gets.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}
