// Package telemetry holds the metrics of the gateway on a registry of its own.
//
// It is not a framework: each struct is a handful of counters with methods on
// plain types, so that the packages that report need not know Prometheus. Its
// invariant: the number of series is bounded. Those who report use closed sets
// of labels, and beyond a bound a new value is counted as "other".
package telemetry

import (
	"net/http"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Telemetry is the metrics of one gateway. All methods are safe for concurrent
// use and never block.
type Telemetry struct {
	Door     *Door
	Webhooks *Webhooks
	Health   *Health

	reg  *prometheus.Registry
	http *edge
}

// New makes the metrics, with those of the Go runtime and the process.
func New() *Telemetry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &Telemetry{Door: newDoor(reg), Webhooks: newWebhooks(reg), Health: newHealth(reg), reg: reg, http: newEdge(reg)}
}

// Handler serves the metrics in the Prometheus text format.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.reg, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
}

// Gauge adds a gauge that is read when somebody looks. name is without the
// prefix "writ_".
func (t *Telemetry) Gauge(name, help string, read func() float64) {
	t.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "writ_" + name, Help: help}, read))
}

// Counters adds counters that are read when somebody looks, one for each value
// of a label. name is without the prefix "writ_".
func (t *Telemetry) Counters(name, help, label string, read map[string]func() float64) {
	for value, f := range read {
		t.reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "writ_" + name, Help: help, ConstLabels: prometheus.Labels{label: value},
		}, f))
	}
}

// ObserveRequest counts one answered request.
func (t *Telemetry) ObserveRequest(operation string, status int, took float64) {
	t.http.observe(operation, status, took)
}

// maxLabels bounds the values of one label.
const maxLabels = 256

// labels is the values one label has had. Callers report closed sets; should
// one not, values beyond the bound are counted as "other".
type labels struct {
	mu   sync.RWMutex
	seen map[string]struct{}
}

func newLabels() *labels { return &labels{seen: map[string]struct{}{}} }

func (l *labels) of(v string) string {
	l.mu.RLock()
	_, ok := l.seen[v]
	l.mu.RUnlock()
	if ok {
		return v
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.seen[v]; ok {
		return v
	}
	if len(l.seen) >= maxLabels || len(v) > 128 || !utf8.ValidString(v) {
		return "other"
	}
	l.seen[v] = struct{}{}
	return v
}

// seconds are the buckets of durations: from a cached read to a long poll.
var seconds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// edge counts what the HTTP face serves.
type edge struct {
	operations *labels
	requests   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
}

func newEdge(reg *prometheus.Registry) *edge {
	e := &edge{
		operations: newLabels(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_http_requests_total", Help: "Requests answered, by operation and status.",
		}, []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "writ_http_request_seconds", Help: "Time from the first byte to the answer.", Buckets: seconds,
		}, []string{"operation"}),
	}
	reg.MustRegister(e.requests, e.seconds)
	return e
}

func (e *edge) observe(operation string, status int, took float64) {
	op := e.operations.of(operation)
	code := "other"
	if status >= 100 && status < 600 {
		code = strconv.Itoa(status)
	}
	e.requests.WithLabelValues(op, code).Inc()
	e.seconds.WithLabelValues(op).Observe(took)
}
