package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Health counts what endpoints of agents say.
type Health struct {
	results *labels
	probes  *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newHealth(reg *prometheus.Registry) *Health {
	h := &Health{
		results: newLabels(),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_health_probes_total",
			Help: "Looks at endpoints of agents by this replica, by result: pass, or why it did not.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "writ_health_probe_seconds", Help: "Time from asking an endpoint of an agent to its answer, or to giving up.", Buckets: seconds,
		}),
	}
	reg.MustRegister(h.probes, h.seconds)
	return h
}

// Probe counts one look.
func (h *Health) Probe(result string, took float64) {
	h.probes.WithLabelValues(h.results.of(result)).Inc()
	h.seconds.Observe(took)
}
