package gateway

import (
	"net/http"
	"sync"

	stdjson "encoding/json"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-gateway/writ"
)

// addOpen registers the paths in Open: what a prober, a scraper or a reader of
// the description needs, and nothing that changes or shows state.
func addOpen(mux *http.ServeMux, cfg Config) {
	handle := func(path string, h http.HandlerFunc) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			traceOf(r).operation = path
			h(w, r)
		})
	}
	// What never changes is rendered when somebody asks for it first: most gateways
	// start far more often than that.
	static := func(contentType string, render func() ([]byte, error)) http.HandlerFunc {
		once := sync.OnceValues(render)
		return func(w http.ResponseWriter, r *http.Request) {
			body, err := once()
			if err != nil {
				refuse(cfg, w, traceOf(r), writ.Fault(writ.CodeInternal, "gateway.open", err), nil)
				return
			}
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(body)
		}
	}
	handle("/healthz", static("application/json", func() ([]byte, error) { return []byte(`{"status":"ok"}` + "\n"), nil }))
	handle("/readyz", func(w http.ResponseWriter, r *http.Request) {
		report := cfg.Ready(r.Context())
		if report.Checks == nil {
			report.Checks = []ReadyCheck{}
		}
		body, err := stdjson.Marshal(report)
		if err != nil {
			refuse(cfg, w, traceOf(r), writ.Fault(writ.CodeInternal, "gateway.ready", err), nil)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if !report.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(append(body, '\n'))
	})
	var metrics http.Handler
	if cfg.Telemetry != nil {
		metrics = cfg.Telemetry.Handler()
	}
	handle("/metrics", func(w http.ResponseWriter, r *http.Request) {
		if metrics == nil {
			refuse(cfg, w, traceOf(r), noSuchPath(), nil)
			return
		}
		metrics.ServeHTTP(w, r)
	})
	described := func(render func(*huma.OpenAPI) ([]byte, error)) func() ([]byte, error) {
		return func() ([]byte, error) {
			doc, err := OpenAPI(cfg.Registry)
			if err != nil {
				return nil, err
			}
			return render(doc)
		}
	}
	handle("/openapi.json", static("application/openapi+json", described(func(doc *huma.OpenAPI) ([]byte, error) { return stdjson.Marshal(doc) })))
	handle("/openapi.yaml", static("application/openapi+yaml", described((*huma.OpenAPI).YAML)))
	handle(EnvelopePath, static("application/schema+json", func() ([]byte, error) { return TaskEnvelope(cfg.Registry) }))
	page := static("text/html; charset=utf-8", described(reference))
	handle("/docs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", docsPolicy)
		page(w, r)
	})
}
