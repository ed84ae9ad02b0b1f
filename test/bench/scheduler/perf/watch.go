package perf

import (
	"cmp"
	"encoding/json"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/kubernetes/test/utils/ktesting"
)

// Sample is what one slice of pods took, from the first to the last bound pod.
type Sample struct {
	// Slice is the slice's namespace: kind-round-variant.
	Slice   string  `json:"slice"`
	Pods    int     `json:"pods"`
	Seconds float64 `json:"seconds"`
}

// clock notes when pods are bound. The sampling of scheduler_perf once a second
// is too coarse for slices of some seconds.
type clock struct {
	mu   sync.Mutex
	seen map[string]*span
}

type span struct {
	first, last time.Time
	pods        int
}

func newClock() *clock { return &clock{seen: map[string]*span{}} }

// start watches bound pods until the context ends. What an earlier run of the
// same workload bound is forgotten.
func (c *clock) start(tCtx ktesting.TContext) error {
	c.mu.Lock()
	clear(c.seen)
	c.mu.Unlock()
	w, err := tCtx.Client().CoreV1().Pods("").Watch(tCtx, metav1.ListOptions{FieldSelector: "spec.nodeName!="})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && e.Type == watch.Added {
				c.bound(p.Namespace, time.Now())
			}
		}
	})
	tCtx.Cleanup(func() { w.Stop(); wg.Wait() })
	return nil
}

func (c *clock) bound(namespace string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen[namespace]
	if s == nil {
		s = &span{first: at}
		c.seen[namespace] = s
	}
	s.last = at
	s.pods++
}

// save writes the slices' samples in the order in which they ran. Slices that
// are not complete are left out.
func (c *clock) save(path string, want map[string]int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for ns := range c.seen {
		if c.seen[ns].pods == want[ns] {
			names = append(names, ns)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Compare(c.seen[a].first.UnixNano(), c.seen[b].first.UnixNano())
	})
	out := make([]Sample, 0, len(names))
	for _, ns := range names {
		s := c.seen[ns]
		out = append(out, Sample{Slice: ns, Pods: s.pods - 1, Seconds: s.last.Sub(s.first).Seconds()})
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}
