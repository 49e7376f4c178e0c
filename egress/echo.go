package egress

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// injected is what a credential added to headers, whole and in its parts: an answer
// that repeats one would hand it to the agent. Short words (Bearer, Token) say nothing.
func injected(before, after http.Header) (secrets [][]byte) {
	watch := func(v string, least int) {
		if len(v) >= least && !slices.ContainsFunc(secrets, func(s []byte) bool { return string(s) == v }) {
			secrets = append(secrets, []byte(v))
		}
	}
	for name, values := range after {
		for _, v := range values {
			if old := before.Values(name); len(old) == 1 && old[0] == v {
				continue
			}
			v = strings.TrimSpace(v)
			watch(v, 1)
			watch(v[strings.LastIndexByte(v, ' ')+1:], 4)
			for _, part := range strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(" \t,;:=\"'", r) }) {
				watch(part, 8)
			}
		}
	}
	return secrets
}

func repeats(h http.Header, secrets [][]byte) bool {
	for name, values := range h {
		for _, v := range values {
			for _, s := range secrets {
				if strings.Contains(v, string(s)) || strings.Contains(name, string(s)) {
					return true
				}
			}
		}
	}
	return false
}

func echoed() error {
	return writ.Refuse(writ.CodeEgress, "egress", "the answer repeats the credential the gateway put into the request, so it is kept back", "operators: this host is not one to trust with it; change the credential")
}

// quiet reads r and holds back as many bytes as a secret has, so that none of one
// that r repeats was passed on when it is seen.
type quiet struct {
	r       io.Reader
	secrets [][]byte
	held    []byte
	longest int
	err     error
}

func newQuiet(r io.Reader, secrets [][]byte) io.Reader {
	if len(secrets) == 0 {
		return r
	}
	q := &quiet{r: r, secrets: secrets}
	for _, s := range secrets {
		q.longest = max(q.longest, len(s))
	}
	return q
}

func (q *quiet) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		free := len(q.held) - (q.longest - 1)
		if q.err != nil {
			free = len(q.held)
		}
		if free > 0 {
			n := copy(p, q.held[:free])
			q.held = q.held[n:]
			return n, nil
		}
		if q.err != nil {
			return 0, q.err
		}
		part := make([]byte, max(len(p), 512))
		n, err := q.r.Read(part)
		q.held, q.err = append(q.held, part[:n]...), err
		for _, s := range q.secrets {
			if bytes.Contains(q.held, s) {
				q.held, q.err = nil, echoed()
				return 0, q.err
			}
		}
	}
}
