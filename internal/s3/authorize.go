package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Credentials sign requests.
type Credentials struct {
	AccessKey, Secret string
	Token             string // of a session; empty: none
}

// Authorize adds AWS Signature Version 4 to a request, whose body has a digest. It signs every
// header that is set.
func (c Credentials) Authorize(r *http.Request, region string, digest [sha256.Size]byte, now time.Time) {
	at := now.UTC().Format("20060102T150405Z")
	scope := at[:8] + "/" + region + "/s3/aws4_request"
	r.Header.Set("X-Amz-Date", at)
	r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(digest[:]))
	if c.Token != "" {
		r.Header.Set("X-Amz-Security-Token", c.Token)
	}
	headers, names := canonicalHeaders(r)
	canonical := strings.Join([]string{r.Method, escape(r.URL.Path, true), canonicalQuery(r), headers, names, hex.EncodeToString(digest[:])}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	text := strings.Join([]string{"AWS4-HMAC-SHA256", at, scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + c.Secret)
	for _, part := range []string{at[:8], region, "s3", "aws4_request", text} {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+c.AccessKey+"/"+scope+",SignedHeaders="+names+",Signature="+hex.EncodeToString(key))
}

// canonicalHeaders are all headers and the host, sorted, and their names.
func canonicalHeaders(r *http.Request) (headers, names string) {
	values := map[string]string{"host": r.URL.Host}
	list := []string{"host"}
	for name, v := range r.Header {
		name = strings.ToLower(name)
		list = append(list, name)
		values[name] = strings.Join(strings.Fields(strings.Join(v, ",")), " ")
	}
	slices.Sort(list)
	for _, name := range list {
		headers += name + ":" + values[name] + "\n"
	}
	return headers, strings.Join(list, ";")
}

// canonicalQuery is the query, each name and value escaped, sorted.
func canonicalQuery(r *http.Request) string {
	var pairs []string
	for name, values := range r.URL.Query() {
		for _, v := range values {
			pairs = append(pairs, escape(name, false)+"="+escape(v, false))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// escape is the URI encoding of Signature Version 4.
func escape(s string, path bool) string {
	const hexadecimal = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0, path && c == '/':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hexadecimal[c>>4])
			b.WriteByte(hexadecimal[c&15])
		}
	}
	return b.String()
}
