package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"sync"

	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/deviceplugin/cdi"
	"github.com/kubevfio/kubevfio/topology"
)

// DeviceFiles is the way in which containers get their device nodes.
type DeviceFiles string

// The ways. Kubelet cannot tell us which its runtime understands, so the
// administrator does.
const (
	// ByCDI names the units; the runtime looks the nodes up in our specification
	// whenever it makes a container.
	ByCDI DeviceFiles = "cdi"
	// ByPath names the device nodes and the mount themselves (DeviceSpecs), for
	// runtimes without CDI.
	ByPath DeviceFiles = "paths"
)

// ErrGroupMoved: a container would get the node of an IOMMU group that is no
// longer its unit's.
var ErrGroupMoved = errors.New("the unit has another IOMMU group than when it was allocated")

// toldGroups is which IOMMU group a container was told for each unit, kept in a
// file. Kubelet keeps an Allocate answer and gives it again when it makes a
// container anew, after a reboot too; group numbers do not survive one. With CDI
// the answer has none, and there is no file. Safe for concurrent use.
type toldGroups struct {
	file string

	mu sync.Mutex
	of map[string]int
}

// load reads the file; one that is not there is empty.
func (t *toldGroups) load() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := os.ReadFile(t.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &t.of)
	}
	if err != nil {
		t.of = nil
		return fmt.Errorf("IOMMU groups that containers were told: %w", err)
	}
	return nil
}

// tell notes what a container is about to be told. It is in the file when tell
// returns: kubelet may replay the answer to the next agent.
func (t *toldGroups) tell(groups map[string]int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[string]int{}
	}
	maps.Copy(t.of, groups)
	return t.save()
}

// check fails with [ErrGroupMoved] unless a container was told just this group.
func (t *toldGroups) check(unit string, group int) error {
	t.mu.Lock()
	told, ok := t.of[unit]
	t.mu.Unlock()
	switch {
	case !ok:
		return fmt.Errorf("%w: %s: it is not known which one that was: delete the pod and make it anew", ErrGroupMoved, unit)
	case told != group:
		return fmt.Errorf("%w: %s: /dev/vfio/%d then, /dev/vfio/%d now: delete the pod and make it anew", ErrGroupMoved, unit, told, group)
	}
	return nil
}

// keep forgets the units that nobody holds.
func (t *toldGroups) keep(held func(unit string) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.of)
	maps.DeleteFunc(t.of, func(unit string, _ int) bool { return !held(unit) })
	if len(t.of) == n {
		return nil
	}
	return t.save()
}

// save needs the lock.
func (t *toldGroups) save() error {
	b, err := json.Marshal(t.of)
	if err != nil {
		return fmt.Errorf("encode IOMMU groups: %w", err)
	}
	if err := replaceFile(t.file, b); err != nil {
		return fmt.Errorf("save IOMMU groups: %w", err)
	}
	return nil
}

// groupOf is a unit's IOMMU group now.
func (a *Agent) groupOf(id string) (int, error) {
	addr, err := topology.ParseAddress(id)
	if err != nil {
		return 0, err
	}
	p := a.last()
	if p == nil || p.unitOf[addr] == nil || p.unitOf[addr].Group < 0 {
		return 0, fmt.Errorf("%s has no IOMMU group", id)
	}
	return p.unitOf[addr].Group, nil
}

// byPath turns an answer that names CDI devices into one that names their files.
func (a *Agent) byPath(r *pluginapi.ContainerAllocateResponse, units []string) error {
	groups := map[string]int{}
	r.CdiDevices, r.Devices = nil, []*pluginapi.DeviceSpec{deviceFile(cdi.ContainerNode)}
	for _, id := range units {
		group, err := a.groupOf(id)
		if err != nil {
			return err
		}
		groups[id] = group
		r.Devices = append(r.Devices, deviceFile(cdi.GroupNode+strconv.Itoa(group)))
	}
	r.Mounts = []*pluginapi.Mount{{HostPath: v1alpha1.AgentRunDir, ContainerPath: v1alpha1.AgentRunDir, ReadOnly: true}}
	return a.told.tell(groups)
}

func deviceFile(path string) *pluginapi.DeviceSpec {
	return &pluginapi.DeviceSpec{HostPath: path, ContainerPath: path, Permissions: "rw"}
}

// sameGroups fails with [ErrGroupMoved] when what a container was told by path
// is wrong by now.
func (a *Agent) sameGroups(units []string) error {
	for _, id := range units {
		group, err := a.groupOf(id)
		if err != nil {
			return err
		}
		if err := a.told.check(id, group); err != nil {
			return err
		}
	}
	return nil
}
