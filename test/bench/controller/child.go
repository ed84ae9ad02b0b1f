package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kubevfio/kubevfio/controller/app"
)

// envChild has the kubeconfig of the process that is the controller.
const envChild = "KUBEVFIO_BENCH_CONTROLLER"

// Account is what the controller's process knows of itself.
type Account struct {
	// Requests by verb and resource; watches are those that began.
	Requests map[string]int `json:"requests"`
	// Reconciles by controller.
	Reconciles map[string]Latency `json:"reconciles"`
	// Resident and peak memory of the process and Go's heap in use, in MiB.
	ResidentMiB float64 `json:"residentMiB"`
	PeakMiB     float64 `json:"peakMiB"`
	HeapMiB     float64 `json:"heapMiB"`
}

// Latency is a distribution in milliseconds, from a histogram: within a bucket it
// is interpolated.
type Latency struct {
	Count  uint64  `json:"count"`
	P50    float64 `json:"p50ms"`
	P99    float64 `json:"p99ms"`
	Errors uint64  `json:"errors"`
}

// counter counts requests on their way out; all transports of a process share one.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) count(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[kindOf(r)]++
}

// counted is a transport whose requests are counted.
type counted struct {
	*counter
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	t.count(r)
	return t.next.RoundTrip(r)
}

// kindOf is "verb resource[/subresource]".
func kindOf(r *http.Request) string {
	if r.URL.Query().Get("watch") == "true" {
		return "watch"
	}
	var parts []string
	for _, p := range strings.Split(strings.Trim(r.URL.Path, "/"), "/") {
		if p != "" {
			parts = append(parts, p)
		}
	}
	// /api/v1/namespaces/NS/pods/NAME/status, /apis/GROUP/VERSION/namespaces/NS/…
	skip := 2
	if len(parts) > 0 && parts[0] == "apis" {
		skip = 3
	}
	if len(parts) <= skip {
		return strings.ToLower(r.Method) + " discovery"
	}
	rest := parts[skip:]
	if rest[0] == "namespaces" && len(rest) > 2 {
		rest = rest[2:]
	}
	name := rest[0]
	if len(rest) > 2 {
		name += "/" + rest[2]
	}
	return strings.ToLower(r.Method) + " " + name
}

// child is the controller's process: it answers each line of its standard input
// with an [Account].
func child(ctx context.Context, kubeconfig string) error {
	ctrl.SetLogger(klog.Background())
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	requests := &counter{n: map[string]int{}}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &counted{counter: requests, next: next}
	})
	o := app.DefaultOptions()
	// No lease: its renewals are no work for machines.
	o.MetricsAddress, o.HealthAddress, o.LeaderElection, o.WebhookPort = "0", "0", false, 0
	c, err := app.New(cfg, o)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	lines := make(chan string)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- in.Text()
		}
		close(lines)
	}()
	for {
		select {
		case err := <-done:
			return err
		case _, ok := <-lines:
			if !ok {
				return nil
			}
			a, err := account(requests)
			if err != nil {
				return err
			}
			if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
				return err
			}
		}
	}
}

func account(requests *counter) (*Account, error) {
	a := &Account{Requests: map[string]int{}, Reconciles: map[string]Latency{}}
	requests.mu.Lock()
	for k, n := range requests.n {
		a.Requests[k] = n
	}
	requests.mu.Unlock()
	families, err := metrics.Registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			name := label(m, "controller")
			l := a.Reconciles[name]
			switch f.GetName() {
			case "controller_runtime_reconcile_time_seconds":
				l.Count, l.P50, l.P99 = m.Histogram.GetSampleCount(), quantile(m.Histogram, 0.5), quantile(m.Histogram, 0.99)
			case "controller_runtime_reconcile_errors_total":
				l.Errors = uint64(m.Counter.GetValue())
			default:
				continue
			}
			a.Reconciles[name] = l
		}
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	a.HeapMiB = float64(mem.HeapInuse) / (1 << 20)
	a.ResidentMiB, a.PeakMiB = status("VmRSS"), status("VmHWM")
	return a, nil
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// quantile interpolates within a bucket, in milliseconds.
func quantile(h *dto.Histogram, q float64) float64 {
	want := q * float64(h.GetSampleCount())
	lower, below := 0.0, 0.0
	for _, b := range h.Bucket {
		n := float64(b.GetCumulativeCount())
		if n >= want && n > below {
			return 1000 * (lower + (b.GetUpperBound()-lower)*(want-below)/(n-below))
		}
		lower, below = b.GetUpperBound(), n
	}
	return 1000 * lower
}

// status is a size of this process in MiB, 0 where the kernel does not say.
func status(field string) float64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				return 0
			}
			return kib / 1024
		}
	}
	return 0
}

// since is seconds with one digit.
func since(t time.Time) float64 { return float64(time.Since(t).Milliseconds()/100) / 10 }
