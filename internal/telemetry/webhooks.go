package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Webhooks counts what becomes of notices.
type Webhooks struct {
	events, outcomes *labels
	deliveries       *prometheus.CounterVec
}

func newWebhooks(reg *prometheus.Registry) *Webhooks {
	w := &Webhooks{
		events: newLabels(), outcomes: newLabels(),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_webhook_deliveries_total",
			Help: "Deliveries of notices, by event and outcome: delivered, failed (and tried again), gone (the endpoint said 410) or given_up.",
		}, []string{"event", "outcome"}),
	}
	reg.MustRegister(w.deliveries)
	return w
}

// Delivery counts one delivery.
func (w *Webhooks) Delivery(event, outcome string) {
	w.deliveries.WithLabelValues(w.events.of(event), w.outcomes.of(outcome)).Inc()
}
