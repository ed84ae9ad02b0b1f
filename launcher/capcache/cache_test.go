package capcache

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var libvirtFile = strings.Repeat("a1", 32) + ".xml"

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPublishAndFetch(t *testing.T) {
	from, into := t.TempDir(), filepath.Join(t.TempDir(), "new")
	c := Cache{Dir: t.TempDir()}
	if found, err := c.Fetch(t.Context(), "k", into); found || err != nil {
		t.Fatalf("an empty cache: %t, %v", found, err)
	}
	if found, err := (Cache{Dir: "/nonexistent"}).Fetch(t.Context(), "k", into); found || err != nil {
		t.Fatalf("no cache: %t, %v", found, err)
	}
	if _, err := c.Publish("k", from); err == nil {
		t.Error("nothing was published without an error")
	}
	write(t, filepath.Join(from, libvirtFile), "<qemuCaps/>")
	write(t, filepath.Join(from, "other.xml"), "not libvirt's")
	for i, text := range []string{"<qemuCaps/>", "<qemuCaps/>", "<qemuCaps>2</qemuCaps>"} {
		write(t, filepath.Join(from, libvirtFile), text)
		changed, err := c.Publish("k", from)
		if err != nil || changed != (i != 1) {
			t.Fatalf("publish %d: changed %t, %v", i, changed, err)
		}
		if found, err := c.Fetch(t.Context(), "k", into); !found || err != nil {
			t.Fatalf("fetch %d: %t, %v", i, found, err)
		}
		if b, err := os.ReadFile(filepath.Join(into, libvirtFile)); err != nil || string(b) != text {
			t.Errorf("fetched %q, %v", b, err)
		}
	}
	if _, err := os.Stat(filepath.Join(into, "other.xml")); err == nil {
		t.Error("a file that is not libvirt's was taken over")
	}
	// Who may read a container's /run/kubevfio may read the entry.
	st, err := os.Stat(filepath.Join(c.Dir, "k", libvirtFile))
	if err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", st, err)
	}
	if found, err := c.Fetch(t.Context(), "other", into); found || err != nil {
		t.Errorf("another key: %t, %v", found, err)
	}
}

func TestFetchRefusesHugeFiles(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	write(t, filepath.Join(c.Dir, "k", libvirtFile), strings.Repeat("x", maxBytes+1))
	into := t.TempDir()
	if found, err := c.Fetch(t.Context(), "k", into); found || err == nil {
		t.Errorf("%t, %v", found, err)
	}
}

// TestFetchWaits waits for a probe that is going on, not for one that died.
func TestFetchWaits(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	from, into := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, libvirtFile), "<qemuCaps/>")
	done, err := c.Mark("k")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan bool, 1)
	go func() {
		found, err := c.Fetch(context.Background(), "k", into)
		got <- found && err == nil
	}()
	select {
	case <-got:
		t.Fatal("did not wait for the probe")
	case <-time.After(300 * time.Millisecond):
	}
	if _, err := c.Publish("k", from); err != nil {
		t.Fatal(err)
	}
	done()
	if !<-got {
		t.Error("did not fetch what was published")
	}
	write(t, c.mark("dead"), "")
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(c.mark("dead"), old, old); err != nil {
		t.Fatal(err)
	}
	if found, err := c.Fetch(t.Context(), "dead", into); found || err != nil {
		t.Errorf("a dead probe: %t, %v", found, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if done, err = c.Mark("long"); err != nil {
		t.Fatal(err)
	}
	defer done()
	if found, err := c.Fetch(ctx, "long", into); found || err != nil {
		t.Errorf("a wait without end: %t, %v", found, err)
	}
}

func TestPrune(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	from := t.TempDir()
	write(t, filepath.Join(from, libvirtFile), "<qemuCaps/>")
	start := time.Now().Add(-time.Hour)
	for i := range keepEntries + 3 {
		key := string(rune('a' + i))
		write(t, filepath.Join(c.Dir, key, libvirtFile), "old")
		at := start.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(filepath.Join(c.Dir, key), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Publish("a", from); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if d := cmp.Diff([]string{"a", "e", "f", "g", "h", "i", "j", "k"}, names); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

const cpuinfo = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nstepping\t: 2\nmicrocode\t: 0x1000065\ncpu MHz\t\t: 2100.123\nflags\t\t: fpu svm\n\nprocessor\t: 1\nvendor_id\t: X\n"

func TestIdentify(t *testing.T) {
	qemu := filepath.Join(t.TempDir(), "qemu")
	write(t, qemu, "binary")
	id := func(info, driver string) Identity {
		t.Helper()
		i, err := Identify(qemu, driver, strings.NewReader(info))
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	first := id(cpuinfo, "embedded")
	if want := "vendor_id=AuthenticAMD;cpu family=23;model=1;model name=AMD EPYC;stepping=2;microcode=0x1000065;flags=fpu svm"; first.CPU != want {
		t.Errorf("CPU %q, want %q", first.CPU, want)
	}
	if first.Key() != id(strings.ReplaceAll(cpuinfo, "2100.123", "800.0"), "embedded").Key() {
		t.Error("the clock rate changes the key")
	}
	for name, other := range map[string]Identity{
		"microcode": id(strings.ReplaceAll(cpuinfo, "1000065", "1000066"), "embedded"),
		"driver":    id(cpuinfo, "daemon"),
	} {
		if other.Key() == first.Key() {
			t.Errorf("%s does not change the key", name)
		}
	}
	write(t, qemu, "another binary")
	if id(cpuinfo, "embedded").Key() == first.Key() {
		t.Error("another QEMU does not change the key")
	}
	if _, err := Identify(filepath.Join(t.TempDir(), "none"), "embedded", strings.NewReader(cpuinfo)); err == nil {
		t.Error("no QEMU, no error")
	}
	if _, err := Identify(qemu, "embedded", strings.NewReader("")); err == nil {
		t.Error("no CPU, no error")
	}
}

func FuzzFirstCPU(f *testing.F) {
	f.Add(cpuinfo)
	f.Add("model")
	f.Fuzz(func(t *testing.T, text string) {
		cpu, err := firstCPU(strings.NewReader(text))
		if (err == nil) != (cpu != "") {
			t.Errorf("%q, %v", cpu, err)
		}
	})
}
