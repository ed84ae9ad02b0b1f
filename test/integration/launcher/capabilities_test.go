package launcher

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// TestCapabilityCache lets the node's own pod probe QEMU, then starts guests
// with what it published, and with a file that is none of libvirt's.
func TestCapabilityCache(t *testing.T) {
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 107, 107); err != nil {
			t.Fatal(err)
		}
	}
	publisher := start(t, pod{command: "capabilities --once", capabilities: dir})
	<-publisher.ended
	if code := publisher.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("capabilities: exit code %d:\n%s", code, publisher.stderr)
	}
	entries, err := filepath.Glob(filepath.Join(dir, "*", "*.xml"))
	if err != nil || len(entries) == 0 {
		t.Fatalf("published %v, %v", entries, err)
	}
	before, err := os.Stat(entries[0])
	if err != nil {
		t.Fatal(err)
	}

	seconds := map[string]float64{}
	for _, c := range []struct {
		name    string
		folder  string
		prepare func()
		found   string
	}{
		{"cold", t.TempDir(), func() {}, "onThisNode=false"},
		{"warm", dir, func() {}, "onThisNode=true"},
		{"broken", dir, func() {
			for _, e := range entries {
				if err := os.WriteFile(e, []byte("<qemuCaps><flag name='none"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}, "onThisNode=true"},
	} {
		c.prepare()
		g := start(t, pod{vm: vm("kubevfio.poweroff=0"), capabilities: c.folder})
		o := g.end(0, launcherrpcv1.ReasonGuestShutdown)
		seconds[c.name] = o.Seconds["libvirt"]
		if !strings.Contains(g.stderr.String(), c.found) {
			t.Errorf("%s: the log does not say %s:\n%s", c.name, c.found, g.stderr)
		}
	}
	t.Logf("seconds to open libvirt: %v", seconds)
	if seconds["warm"] > seconds["cold"]/2 {
		t.Errorf("libvirt opened in %.2f s with the cache, %.2f s without: it probed again", seconds["warm"], seconds["cold"])
	}
	after, err := os.Stat(filepath.Dir(entries[0]))
	if err != nil || after.ModTime().After(before.ModTime()) {
		t.Errorf("a guest's launcher changed the node's entry: %v", err)
	}
}
