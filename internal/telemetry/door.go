package telemetry

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Door counts what the door decides.
type Door struct {
	capabilities, outcomes, guards, codes, reasons, packs, effects *labels

	calls     *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	tries     prometheus.Histogram
	conflicts *prometheus.CounterVec
	denials   *prometheus.CounterVec
	shed      *prometheus.CounterVec
	shadow    *prometheus.CounterVec
	lost      *prometheus.CounterVec
	inflight  prometheus.Gauge
	warnings  *prometheus.CounterVec
	quotas    *prometheus.CounterVec
}

func newDoor(reg *prometheus.Registry) *Door {
	d := &Door{
		capabilities: newLabels(), outcomes: newLabels(), guards: newLabels(), codes: newLabels(), reasons: newLabels(),
		packs: newLabels(), effects: newLabels(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_door_calls_total", Help: "Calls the door answered, by capability and outcome.",
		}, []string{"capability", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "writ_door_call_seconds", Help: "Time a call spent inside the door, waiting for work included.", Buckets: seconds,
		}, []string{"capability"}),
		tries: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "writ_door_tries", Help: "Commits tried per call.", Buckets: []float64{0, 1, 2, 3, 4, 5, 6, 7, 8},
		}),
		conflicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_door_conflicts_total", Help: "Commits refused because a guard no longer held, by kind of guard.",
		}, []string{"guard"}),
		denials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_door_denials_total", Help: "Calls refused, by code.",
		}, []string{"code"}),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_door_shed_total", Help: "Calls refused for want of room, by reason: inflight, session, memory, backlog or age.",
		}, []string{"reason"}),
		warnings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_budget_warnings_total", Help: "Runs that reached a mark of their budget, by dimension and percent.",
		}, []string{"dimension", "percent"}),
		quotas: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_quota_refused_total", Help: "Calls refused over a quota, by what it counts.",
		}, []string{"metric"}),
		shadow: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_policy_shadow_total", Help: "Decisions a pack in shadow was asked about, by what was enforced (from) and what it had been with the pack enforced as well (to).",
		}, []string{"pack", "from", "to"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_policy_shadow_lost_total", Help: "Decisions that packs in shadow were not asked about because too many waited (queue), or that one had no answer to (error).",
		}, []string{"reason"}),
		inflight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "writ_door_inflight", Help: "Calls inside the door now.",
		}),
	}
	reg.MustRegister(d.calls, d.seconds, d.tries, d.conflicts, d.denials, d.shed, d.shadow, d.lost, d.inflight, d.warnings, d.quotas)
	return d
}

// ObserveCall counts one finished call: what became of it, the seconds it took
// and how many commits it tried.
func (d *Door) ObserveCall(capability, outcome string, took float64, tries int) {
	c := d.capabilities.of(capability)
	d.calls.WithLabelValues(c, d.outcomes.of(outcome)).Inc()
	d.seconds.WithLabelValues(c).Observe(took)
	d.tries.Observe(float64(tries))
}

// Conflict counts one commit refused by a guard of a kind.
func (d *Door) Conflict(guard string) { d.conflicts.WithLabelValues(d.guards.of(guard)).Inc() }

// Denial counts one refusal.
func (d *Door) Denial(code string) { d.denials.WithLabelValues(d.codes.of(code)).Inc() }

// Shed counts one call that was refused for want of room.
func (d *Door) Shed(reason string) { d.shed.WithLabelValues(d.reasons.of(reason)).Inc() }

// Shadow counts one decision a pack in shadow had an answer to.
func (d *Door) Shadow(pack, from, to string) {
	d.shadow.WithLabelValues(d.packs.of(pack), d.effects.of(from), d.effects.of(to)).Inc()
}

// ShadowLost counts one it had none to.
func (d *Door) ShadowLost(reason string) { d.lost.WithLabelValues(d.reasons.of(reason)).Inc() }

// Inflight moves the number of calls inside the door.
func (d *Door) Inflight(delta int) { d.inflight.Add(float64(delta)) }

// QuotaRefused counts one call refused over a quota.
func (d *Door) QuotaRefused(metric string) { d.quotas.WithLabelValues(metric).Inc() } // from a closed set

// BudgetWarning counts a run that reached a mark of its budget.
func (d *Door) BudgetWarning(dimension string, percent int64) {
	d.warnings.WithLabelValues(dimension, strconv.FormatInt(percent, 10)).Inc() // both from closed sets
}
