package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress"
)

// trace is what the edge knows about one request. It belongs to the goroutine
// that serves it.
type trace struct {
	id        writ.CallID
	salt      [16]byte
	start     time.Time
	operation string
	via       string          // the wrapper the operation came through, if any
	code      writ.Code       // of the refusal, if any
	caller    context.Context // ends when the caller hangs up
}

type traceKey struct{}

func traceOf(r *http.Request) *trace { return r.Context().Value(traceKey{}).(*trace) }

// edge wraps the routes in what every response gets: an id, headers that tell
// browsers to keep their hands off, a clean answer to a panic, one log line
// and one observation.
func edge(cfg Config, mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		tr := &trace{start: cfg.Now(), operation: "other", caller: r.Context()}
		w := &recorder{ResponseWriter: rw}
		secure(w.Header())
		if hasBody(r) {
			// Also for bodies nobody reads: the server drains those before it
			// takes the next request. readBody lifts it. Writers without
			// deadlines (tests) refuse, and need none.
			_ = http.NewResponseController(rw).SetReadDeadline(time.Now().Add(cfg.Limits.BodyTime))
		}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				cfg.Log.Error("panic", slog.String("request_id", string(tr.id)), slog.String("operation", tr.operation),
					slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
				if w.status != 0 {
					panic(http.ErrAbortHandler) // half an answer is out: cut the connection
				}
				tr.code = writ.CodeInternal
				writeProblem(w, &writ.Error{Code: writ.CodeInternal}, tr.id)
			}
			finish(cfg, tr, w)
		}()

		var entropy [26]byte
		if _, err := io.ReadFull(cfg.Rand, entropy[:]); err != nil {
			refuse(cfg, w, tr, writ.Fault(writ.CodeInternal, "gateway.edge", err), nil)
			return
		}
		tr.id = writ.CallID(writ.MakeID(writ.PrefixCall, tr.start.UnixMilli(), [10]byte(entropy[:10])))
		copy(tr.salt[:], entropy[10:])
		w.Header().Set("Request-Id", string(tr.id))

		r = r.WithContext(context.WithValue(r.Context(), traceKey{}, tr))
		who, face := identity(r.Context())
		switch {
		case face && egress.Takes(r):
			outward(cfg, who, w, r)
			return
		case face && r.URL.Path == "/metrics": // of everybody's calls
			refuse(cfg, w, tr, noSuchPath(), nil)
			return
		case face: // it has one name, and no other listener
		case cfg.Hosts != nil && !hostAllowed(cfg.Hosts, r.Host):
			tr.code = writ.CodeMalformed
			writeProblemAs(w, http.StatusMisdirectedRequest, writ.Refuse(writ.CodeMalformed, "gateway", "this gateway does not answer to that host name",
				"use the address it listens on, or set allowed_hosts"), tr.id)
			return
		}
		if !cleanPath(r.URL.Path) {
			// ServeMux would redirect, and repeat the path in its answer.
			refuse(cfg, w, tr, noSuchPath(), nil)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// LoopbackHosts are what a gateway that listens on loopback is called; any
// loopback address is taken with them.
var LoopbackHosts = []string{"localhost", "127.0.0.1", "::1"}

// hostAllowed says whether a Host header, with any port, names one of the
// hosts.
func hostAllowed(hosts []string, header string) bool {
	host := header
	if h, _, err := net.SplitHostPort(header); err == nil {
		host = h
	} else if strings.HasPrefix(header, "[") && strings.HasSuffix(header, "]") {
		host = header[1 : len(header)-1]
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		host = "localhost"
	}
	return slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// finish writes the log line and the observation of a request.
func finish(cfg Config, tr *trace, w *recorder) {
	status := w.status
	if status == 0 {
		status = http.StatusOK
	}
	took := cfg.Now().Sub(tr.start)
	if cfg.Telemetry != nil {
		cfg.Telemetry.ObserveRequest(tr.operation, status, took.Seconds())
	}
	if slices.Contains(Open, tr.operation) {
		return // probes and scrapers would drown the log
	}
	attrs := []slog.Attr{
		slog.String("request_id", string(tr.id)), slog.String("operation", tr.operation), slog.Int("status", status),
		slog.Duration("took", took),
	}
	if tr.via != "" {
		attrs = append(attrs, slog.String("via", tr.via))
	}
	if tr.code != "" {
		attrs = append(attrs, slog.String("code", string(tr.code)))
	}
	if id := w.Header().Get("Receipt-Id"); id != "" {
		attrs = append(attrs, slog.String("receipt", id))
	}
	cfg.Log.LogAttrs(context.Background(), slog.LevelInfo, "call", attrs...)
}

// secure sets the headers of every response. The API is not for browsers; the
// reference page loosens what it needs.
func secure(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
}

// cleanPath says whether a path is already in the form ServeMux serves.
func cleanPath(p string) bool {
	if p == "" || p[0] != '/' {
		return false
	}
	c := path.Clean(p)
	return c == p || c+"/" == p
}

func noSuchPath() *writ.Error {
	return writ.Refuse(writ.CodeNotFound, "gateway", "there is nothing at this path", "GET /docs lists the operations")
}

// fallback answers what no route takes: 405 when another method would be
// taken, else 404.
func fallback(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tr := traceOf(r)
		var allowed []string
		for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
			other := r.Clone(r.Context())
			other.Method = m
			if _, pattern := mux.Handler(other); pattern != "/" && pattern != "" {
				allowed = append(allowed, m)
			}
		}
		if len(allowed) == 0 {
			tr.code = writ.CodeNotFound
			writeProblem(w, noSuchPath(), tr.id)
			return
		}
		tr.code = writ.CodeMalformed
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		writeProblemAs(w, http.StatusMethodNotAllowed,
			writ.Refuse(writ.CodeMalformed, "gateway", "this path does not take the method", "see the Allow header"), tr.id)
	}
}

// recorder remembers the status of a response.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
