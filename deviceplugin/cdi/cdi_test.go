package cdi

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	lib "tags.cncf.io/container-device-interface/pkg/cdi"
)

// TestRuntimeReads: the library that container runtimes use accepts the file and
// puts in what a launcher needs, each once.
func TestRuntimeReads(t *testing.T) {
	// Device nodes must exist where the runtime looks; /dev/null stands for all.
	spec, err := Build([]Unit{{ID: "0000:21:10.0", Group: 7}, {ID: "10000:01:00.0", Group: 8}}, []Slot{{Name: "kvm", HostPath: "/dev/null"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if changed, err := Write(dir, spec); err != nil || !changed {
		t.Fatalf("write: %v, %v", changed, err)
	}
	if changed, err := Write(dir, spec); err != nil || changed {
		t.Fatalf("the same again: %v, %v", changed, err)
	}
	cache, err := lib.NewCache(lib.WithSpecDirs(dir), lib.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	for path, errs := range cache.GetErrors() {
		t.Errorf("%s: %v", path, errs)
	}
	want := []string{"kubevfio.io/device=0000:21:10.0", "kubevfio.io/device=10000:01:00.0", "kubevfio.io/device=kvm"}
	if d := cmp.Diff(want, cache.ListDevices()); d != "" {
		t.Errorf("devices (-want +got):\n%s", d)
	}
	var container oci.Spec
	if _, err := cache.InjectDevices(&container, Name("kvm")); err != nil {
		t.Fatal(err)
	}
	if n := len(container.Linux.Devices); n != 1 || container.Linux.Devices[0].Path != "/dev/null" {
		t.Errorf("devices %+v", container.Linux.Devices)
	}
	if u := container.Linux.Devices[0].UID; u != nil && *u != 0 {
		t.Errorf("owner %d is fixed; the runtime must choose", *u)
	}
}

func TestBuild(t *testing.T) {
	spec, err := Build([]Unit{{ID: "0000:21:10.0", Group: 7, VFIODevs: []string{"vfio3"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cdiVersion":"0.5.0","kind":"kubevfio.io/device","devices":[{"name":"0000:21:10.0","containerEdits":{` +
		`"deviceNodes":[{"path":"/dev/vfio/vfio","hostPath":"/dev/vfio/vfio","permissions":"rw"},{"path":"/dev/vfio/7","hostPath":"/dev/vfio/7","permissions":"rw"},` +
		`{"path":"/dev/vfio/devices/vfio3","hostPath":"/dev/vfio/devices/vfio3","permissions":"rw"}],` +
		`"mounts":[{"hostPath":"/run/kubevfio","containerPath":"/run/kubevfio","options":["ro","nosuid","nodev","noexec","bind"]}]}}],"containerEdits":{}}` + "\n"
	if d := cmp.Diff(want, string(spec)); d != "" {
		t.Errorf("specification (-want +got):\n%s", d)
	}
	if none, err := Build(nil, nil); none != nil || err != nil {
		t.Errorf("nothing to offer: %s, %v", none, err)
	}
}

func TestWriteNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cdi")
	if changed, err := Write(dir, nil); changed || err != nil {
		t.Fatalf("nothing to remove: %v, %v", changed, err)
	}
	if _, err := Write(dir, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if changed, err := Write(dir, nil); !changed || err != nil {
		t.Fatalf("remove: %v, %v", changed, err)
	}
	if _, err := os.Stat(filepath.Join(dir, FileName)); !os.IsNotExist(err) {
		t.Errorf("file is still there: %v", err)
	}
}

func TestNames(t *testing.T) {
	if got := Name("0000:21:10.0"); got != "kubevfio.io/device=0000:21:10.0" {
		t.Error(got)
	}
	if got := SlotName("devices.kubevfio.io/vhost-net"); got != "vhost-net" {
		t.Error(got)
	}
	if got := NodePath("/host/dev", "/dev/vfio/7"); got != "/host/dev/vfio/7" {
		t.Error(got)
	}
}
