package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
)

// serveMetrics serves /metrics, /healthz and /readyz on the pod network.
func (a *Agent) serveMetrics(ctx context.Context) error {
	if a.cfg.Metrics == "-" {
		<-ctx.Done()
		return ctx.Err()
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.readiness(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	s := &http.Server{Addr: a.cfg.Metrics, Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	failed := make(chan error, 1)
	go func() {
		if a.cfg.CertFile != "" {
			failed <- s.ListenAndServeTLS(a.cfg.CertFile, a.cfg.KeyFile)
		} else {
			failed <- s.ListenAndServe()
		}
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve metrics on %s: %w", a.cfg.Metrics, err)
	case <-ctx.Done():
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return errors.Join(ctx.Err(), s.Shutdown(stop))
	}
}

// errNotReady is the class of reasons that /readyz gives.
var errNotReady = errors.New("not ready")

// readiness: the inventory is published, the node's pods are known, and kubelet
// watches every device plugin: a pod with devices can be admitted.
func (a *Agent) readiness() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !a.ready:
		return fmt.Errorf("%w: the inventory is not published yet", errNotReady)
	case !a.pods.Synced():
		return fmt.Errorf("%w: the node's pods are not listed yet", errNotReady)
	}
	for _, p := range a.served {
		if !p.Serving() {
			return fmt.Errorf("%w: kubelet does not watch the device plugin of %s", errNotReady, p.Resource())
		}
	}
	return nil
}

// memory is what the agent remembers over restarts of its own, not of the node.
type memory struct {
	BootID string          `json:"bootID"`
	Claims []handoff.Claim `json:"claims"`
	Dirty  []string        `json:"dirty"`
}

func (a *Agent) memoryFile() string { return filepath.Join(a.cfg.StateDir, "ledger.json") }

// restore takes up what an earlier process of this boot knew, then kubelet's
// word. Units that their pods left while no agent ran are cleaned.
func (a *Agent) restore(ctx context.Context) {
	for !a.pods.Synced() && ctx.Err() == nil {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
	var m memory
	b, err := os.ReadFile(a.memoryFile())
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		a.cfg.Log.Warn("the former allocation ledger is not readable; kubelet's word counts", "err", err)
	case m.BootID == a.boot:
		a.ledger.Restore(m.Claims)
		for _, u := range m.Dirty {
			a.keeper.Soil(u)
		}
	}
	// Of whatever boot: what kubelet replays is what counts.
	if err := a.told.load(); err != nil {
		a.cfg.Log.Warn("pods that were allocated by path must be made anew when their containers are", "err", err)
	}
	if err := a.ledger.Reconcile(ctx); err != nil {
		a.cfg.Log.Warn("kubelet does not say who holds what yet", "err", err)
	}
	a.ledger.Sweep(ctx)
}

// remember keeps ledger, dirty units and pools for the next process; it does
// nothing when nothing changed.
func (a *Agent) remember(p *picture) error {
	if err := errors.Join(a.told.keep(a.held), a.early.keep(a.boot, p)); err != nil {
		return err
	}
	m := memory{BootID: a.boot, Claims: a.ledger.Claims(), Dirty: a.keeper.Dirty()}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode allocation ledger: %w", err)
	}
	if string(b) == a.remembered {
		return nil
	}
	if err := replaceFile(a.memoryFile(), b); err != nil {
		return fmt.Errorf("save allocation ledger: %w", err)
	}
	a.remembered = string(b)
	return nil
}

// replaceFile puts a file in place at once: what the next process reads is all of
// the old or all of the new one.
func replaceFile(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
