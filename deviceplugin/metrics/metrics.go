// Package metrics holds the agent's Prometheus metrics.
//
// It is for package agent. Names begin with kubevfio_agent_; labels are bounded:
// pools, reasons and methods, never pods or addresses.
package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/status"
)

// Metrics is one agent's set.
type Metrics struct {
	Registry *prometheus.Registry

	rpcs          *prometheus.HistogramVec
	registrations *prometheus.CounterVec
	handoffs      *prometheus.CounterVec
	resets        *prometheus.HistogramVec
	changes       *prometheus.CounterVec
	rescans       *prometheus.HistogramVec
	publishes     *prometheus.CounterVec
	calls         *prometheus.HistogramVec
	paused        prometheus.Gauge
}

// New makes the metrics with a registry of their own.
func New(version string) *Metrics {
	const ns, sub = "kubevfio", "agent"
	name := func(n, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: ns, Subsystem: sub, Name: n, Help: help}
	}
	hist := func(n, help string, buckets ...float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: n, Help: help, Buckets: buckets}
	}
	fast := []float64{.0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30}
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		rpcs:     prometheus.NewHistogramVec(hist("rpc_seconds", "Time of kubelet's calls.", fast...), []string{"resource", "method", "result"}),
		registrations: prometheus.NewCounterVec(prometheus.CounterOpts(name("registrations_total", "Registrations with kubelet.")),
			[]string{"resource", "result"}),
		handoffs: prometheus.NewCounterVec(prometheus.CounterOpts(name("handoffs_total",
			"Allocations by outcome: assigned, unassigned, adopted, refused, mismatch.")), []string{"resource", "outcome"}),
		resets: prometheus.NewHistogramVec(hist("reset_seconds", "Resets between tenants.", .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30),
			[]string{"result"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts(name("host_changes_total", "Driver bindings and VF counts set.")), []string{"kind", "result"}),
		rescans: prometheus.NewHistogramVec(hist("rescan_seconds", "Readings of the host.", fast...), []string{"kind"}),
		publishes: prometheus.NewCounterVec(prometheus.CounterOpts(name("publishes_total", "Writes to the API server.")),
			[]string{"object", "result"}),
		calls:  prometheus.NewHistogramVec(hist("socket_call_seconds", "Launchers' calls by method and gRPC code.", fast...), []string{"method", "code"}),
		paused: prometheus.NewGauge(prometheus.GaugeOpts(name("paused", "1 while the node's annotation kubevfio.io/pause stops changes."))),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "build_info", Help: "The agent's version.",
		ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	m.Registry.MustRegister(m.rpcs, m.registrations, m.handoffs, m.resets, m.changes, m.rescans, m.publishes, m.calls, m.paused, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

// RPC implements plugin.Observer.
func (m *Metrics) RPC(resource, method string, d time.Duration, err error) {
	m.rpcs.WithLabelValues(resource, method, result(err)).Observe(d.Seconds())
}

// Registered implements plugin.Observer.
func (m *Metrics) Registered(resource string, err error) {
	m.registrations.WithLabelValues(resource, result(err)).Inc()
}

// Handoff counts an allocation's outcome.
func (m *Metrics) Handoff(resource, outcome string) {
	m.handoffs.WithLabelValues(resource, strings.ToLower(outcome)).Inc()
}

// Reset observes a reset between tenants.
func (m *Metrics) Reset(_ string, d time.Duration, err error) {
	m.resets.WithLabelValues(result(err)).Observe(d.Seconds())
}

// Change counts a change of the host.
func (m *Metrics) Change(kind string, err error) { m.changes.WithLabelValues(kind, result(err)).Inc() }

// Rescan observes a reading of the host; kind is full or partial.
func (m *Metrics) Rescan(kind string, d time.Duration) {
	m.rescans.WithLabelValues(kind).Observe(d.Seconds())
}

// Publish counts a write to the API server.
func (m *Metrics) Publish(object string, err error) {
	m.publishes.WithLabelValues(object, result(err)).Inc()
}

// Call observes a launcher's call.
func (m *Metrics) Call(method string, d time.Duration, err error) {
	m.calls.WithLabelValues(method[strings.LastIndex(method, "/")+1:], status.Code(err).String()).Observe(d.Seconds())
}

// Pause shows whether changes are stopped.
func (m *Metrics) Pause(on bool) {
	m.paused.Set(0)
	if on {
		m.paused.Set(1)
	}
}
