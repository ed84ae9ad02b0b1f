package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Unit is a line of the units gauge.
type Unit struct {
	Pool, Resource, State string
	NUMA                  int
}

// CountUnits makes the units gauge, counted anew at each scrape: units change
// hands far more often than somebody looks.
func (m *Metrics) CountUnits(count func() map[Unit]int) {
	m.Registry.MustRegister(unitCounter{count, prometheus.NewDesc("kubevfio_agent_units",
		"Isolation units by pool, state (free, held, not_ready) and NUMA node (-1: unknown).",
		[]string{"pool", "resource", "state", "numa"}, nil)})
}

type unitCounter struct {
	count func() map[Unit]int
	desc  *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c unitCounter) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

// Collect implements prometheus.Collector.
func (c unitCounter) Collect(out chan<- prometheus.Metric) {
	for u, n := range c.count() {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), u.Pool, u.Resource, u.State, strconv.Itoa(u.NUMA))
	}
}
