package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/kubevfio/kubevfio/host/hosttest"
)

// TestRunWithoutAPIServer: an agent that starts before the API server answers waits
// for it and does not end.
func TestRunWithoutAPIServer(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := hosttest.Write(at("host"), hosttest.Desktop()); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"dev", "plugins", "seccomp", "cdi", "run"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(at("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	const plan = `{"bootID":"another","pools":[{"name":"p","spec":{"resourceName":"example.com/gpu","selectors":[{"vendors":["10de"]}]}}]}`
	if err := os.WriteFile(at("state/pools.json"), []byte(plan), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(at("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	said := func(text string) bool {
		b, err := os.ReadFile(log.Name())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(b), text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a, err := New(ctx, Config{
		Node: "n", REST: &rest.Config{Host: "https://127.0.0.1:1"}, WriteCommand: []string{"/nonexistent"},
		HostRoot: at("host"), HostDev: at("dev"), PluginDir: at("plugins"), PodResources: at("none.sock"), SeccompDir: at("seccomp"),
		CDIDir: at("cdi"), RunDir: at("run"), StateDir: at("state"), Metrics: "-", Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	// Its node was prepared in an earlier boot: that begins at once.
	for deadline := time.Now().Add(20 * time.Second); !said("preparing its devices"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the node is not prepared")
		}
	}
	select {
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	case <-time.After(time.Second):
	}
	if err := a.readiness(); !errors.Is(err, errNotReady) {
		t.Errorf("ready: %v", err)
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
