package virt

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		o  Options
		ok bool
	}{
		"the launcher's own": {Options{Mode: Embedded, Root: "/run/kubevfio-launcher/lv"}, true},
		"daemon":             {Options{Mode: Daemon, Root: "/run/x"}, true},
		"no mode":            {Options{Root: "/run/x"}, false},
		"relative":           {Options{Mode: Embedded, Root: "run/x"}, false},
		"breaks the URI":     {Options{Mode: Embedded, Root: "/run/x?y=1"}, false},
		"too long":           {Options{Mode: Embedded, Root: "/" + strings.Repeat("x", MaxRoot)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tc.o.Validate(); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrConfig) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestOpenWithoutLibvirt(t *testing.T) {
	if Available {
		t.Skip("built with libvirt")
	}
	if _, err := Open(Options{Mode: Embedded, Root: "/run/x"}); !errors.Is(err, ErrNotSupported) {
		t.Errorf("error %v", err)
	}
}

func TestPrepare(t *testing.T) {
	root := t.TempDir()
	for _, mode := range []Mode{Embedded, Daemon} {
		if err := Prepare(root, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, kv := range Environment(root) {
		_, path, _ := strings.Cut(kv, "=")
		if !filepath.IsAbs(path) {
			continue
		}
		if st, err := os.Stat(path); err != nil || !st.IsDir() || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", kv, st, err)
		}
	}
	for _, conf := range []string{"etc/qemu.conf", "config/libvirt/qemu.conf"} {
		b, err := os.ReadFile(filepath.Join(root, conf))
		if err != nil || !strings.Contains(string(b), "max_core = 0") {
			t.Errorf("%s: %q, %v", conf, b, err)
		}
	}
	// What swtpm_setup reads names files below root, and no folder of root's.
	b, err := os.ReadFile(filepath.Join(root, "config", "swtpm_setup.conf"))
	if err != nil || !strings.Contains(string(b), "create_certs_tool_config = "+root+"/config/swtpm-localca.conf") {
		t.Errorf("swtpm_setup.conf: %q, %v", b, err)
	}
	b, err = os.ReadFile(filepath.Join(root, "config", "swtpm-localca.conf"))
	if err != nil || strings.Contains(string(b), "/var/lib") || !strings.Contains(string(b), "statedir = "+root+"/data/swtpm-localca") {
		t.Errorf("swtpm-localca.conf: %q, %v", b, err)
	}
	if st, err := os.Stat(filepath.Join(root, "data", "swtpm-localca")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the authority's folder: %v, %v", st, err)
	}
}

// TestQueue keeps the order and never makes the sender wait.
func TestQueue(t *testing.T) {
	got := make(chan EventKind, 100)
	gate := make(chan struct{})
	q := newQueue(func(e Event) {
		<-gate
		got <- e.Kind
	})
	want := []EventKind{EventStarted, EventPaused, EventResumed, EventReboot, EventShutdown, EventEnded}
	for _, k := range want {
		select {
		case q.in <- Event{Kind: k}:
		case <-time.After(10 * time.Second):
			t.Fatal("the sender waits for the handler")
		}
	}
	close(gate)
	var have []EventKind
	for range want {
		have = append(have, <-got)
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
