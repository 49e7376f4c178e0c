package gateway

import (
	"net/http"

	stdjson "encoding/json"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-gateway/writ"
)

// addOpen registers the paths in Open: what a prober, a scraper or a reader of
// the description needs, and nothing that changes or shows state.
func addOpen(mux *http.ServeMux, cfg Config, doc *huma.OpenAPI) error {
	asJSON, err := stdjson.Marshal(doc)
	if err != nil {
		return err
	}
	asYAML, err := doc.YAML()
	if err != nil {
		return err
	}
	envelope, err := TaskEnvelope(cfg.Registry)
	if err != nil {
		return err
	}
	page, err := reference(doc)
	if err != nil {
		return err
	}
	handle := func(path string, h http.HandlerFunc) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			traceOf(r).operation = path
			h(w, r)
		})
	}
	static := func(contentType string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(body)
		}
	}
	handle("/healthz", static("application/json", []byte(`{"status":"ok"}`+"\n")))
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
	handle("/openapi.json", static("application/openapi+json", asJSON))
	handle("/openapi.yaml", static("application/openapi+yaml", asYAML))
	handle(EnvelopePath, static("application/schema+json", envelope))
	handle("/docs", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", docsPolicy)
		_, _ = w.Write(page)
	})
	return nil
}
