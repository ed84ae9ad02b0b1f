package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/kubevfio/kubevfio/topology"
)

// withGroups is an agent that sees units in IOMMU groups and has what agents before
// it have left in a folder.
func withGroups(t *testing.T, state string, groups map[string]int) *Agent {
	t.Helper()
	p := &picture{unitOf: map[topology.Address]*topology.Unit{}}
	for id, group := range groups {
		addr, err := topology.ParseAddress(id)
		if err != nil {
			t.Fatal(err)
		}
		p.unitOf[addr] = &topology.Unit{ID: addr, Group: group}
	}
	a := &Agent{picture: p, cfg: Config{DeviceFiles: ByPath}}
	a.told.file = filepath.Join(state, "groups.json")
	if err := a.told.load(); err != nil {
		t.Fatal(err)
	}
	return a
}

// What kubelet gives the container runtime without CDI, and what becomes of it when
// the next agent, perhaps after a reboot, sees other group numbers.
func TestByPath(t *testing.T) {
	const one, two = "0000:21:10.0", "0000:21:10.2"
	state := t.TempDir()
	a := withGroups(t, state, map[string]int{one: 7, two: 8})
	r := Response("kubevfio.io/vf", []string{one, two}, func(string) []string { return nil })
	if err := a.byPath(r, []string{one, two}); err != nil {
		t.Fatal(err)
	}
	want := &pluginapi.ContainerAllocateResponse{
		Envs: r.Envs,
		Devices: []*pluginapi.DeviceSpec{
			{HostPath: "/dev/vfio/vfio", ContainerPath: "/dev/vfio/vfio", Permissions: "rw"},
			{HostPath: "/dev/vfio/7", ContainerPath: "/dev/vfio/7", Permissions: "rw"},
			{HostPath: "/dev/vfio/8", ContainerPath: "/dev/vfio/8", Permissions: "rw"},
		},
		Mounts: []*pluginapi.Mount{{HostPath: "/run/kubevfio", ContainerPath: "/run/kubevfio", ReadOnly: true}},
	}
	if diff := cmp.Diff(want.String(), r.String()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if err := a.sameGroups([]string{one, two}); err != nil {
		t.Errorf("nothing moved: %v", err)
	}

	next := withGroups(t, state, map[string]int{one: 7, two: 9})
	if err := next.sameGroups([]string{one}); err != nil {
		t.Errorf("%s stayed where it was: %v", one, err)
	}
	if err := next.sameGroups([]string{one, two}); !errors.Is(err, ErrGroupMoved) {
		t.Errorf("%s moved: %v", two, err)
	}
	if err := next.told.keep(func(unit string) bool { return unit == two }); err != nil {
		t.Fatal(err)
	}
	last := withGroups(t, state, map[string]int{one: 7, two: 8})
	if err := last.sameGroups([]string{two}); err != nil {
		t.Errorf("%s is back where it was: %v", two, err)
	}
	if err := last.sameGroups([]string{one}); !errors.Is(err, ErrGroupMoved) {
		t.Errorf("%s was forgotten: %v", one, err)
	}
}

func TestByPathWithoutGroup(t *testing.T) {
	a := withGroups(t, t.TempDir(), map[string]int{"0000:21:10.0": -1})
	r := &pluginapi.ContainerAllocateResponse{}
	if err := a.byPath(r, []string{"0000:21:10.0"}); err == nil {
		t.Errorf("a unit without a group got %v", r)
	}
}

// A file that cannot be read costs the pods it speaks of their next container, not
// the agent its start.
func TestToldGroupsBadFile(t *testing.T) {
	g := toldGroups{file: filepath.Join(t.TempDir(), "groups.json")}
	if err := os.WriteFile(g.file, []byte(`{"0000:21:10.0": "seven"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.load(); err == nil {
		t.Fatal("a torn file was read")
	}
	if err := g.check("0000:21:10.0", 7); !errors.Is(err, ErrGroupMoved) {
		t.Errorf("check = %v", err)
	}
}

func TestDeviceFilesSetting(t *testing.T) {
	_, err := New(t.Context(), Config{Node: "n", REST: &rest.Config{}, DeviceFiles: "both", WriteCommand: []string{"x"}})
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), `"both"`) {
		t.Errorf("error = %v", err)
	}
}
