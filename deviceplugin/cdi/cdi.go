// Package cdi writes the node's CDI specification: how a container runtime gives
// a unit, or a slot of a virtual resource, to a container.
//
// It is for package agent. One file of one kind holds all units of all pools; a
// unit's name is its address, which stays the same over reboots, while the group
// node behind it does not: so a checkpointed answer of the device plugin is
// right again once the file has been written anew.
//
// Traps: the paths are the host's, though the agent sees them below /host; no
// owner is written, so that the runtime gives the nodes to the container's user;
// the agent's folder is mounted, never its socket, which a restart replaces; the
// folder /var/run/cdi is emptied by a reboot.
package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Device nodes of VFIO: the container's, and the start of a group's, which its
// number follows, and of a single device's. The kernel opens a device in one of the
// two ways at a time, so having both gives nothing away; /dev/iommu comes from the
// agent's socket (api/agentrpc/client).
const (
	ContainerNode = "/dev/vfio/vfio"
	GroupNode     = "/dev/vfio/"
	DeviceNode    = "/dev/vfio/devices/"
)

// FileName of the specification in the CDI folder.
const FileName = "kubevfio-devices.json"

// Unit is one isolation unit that can be handed out.
type Unit struct {
	// ID is the leader's address.
	ID string
	// Group is the unit's IOMMU group now.
	Group int
	// VFIODevs are the members' nodes of iommufd's way, "vfio3"; empty where the
	// kernel has none.
	VFIODevs []string
	// NoIOMMU uses the group nodes of VFIO's no-IOMMU mode. They give the guest's
	// device all of the host's memory.
	NoIOMMU bool
}

// Slot is a virtual resource.
type Slot struct {
	// Name is the resource's name without its domain: "kvm".
	Name string
	// HostPath is the character device.
	HostPath string
}

// Name is the fully qualified name of a unit or slot.
func Name(device string) string { return v1alpha1.CDIKind + "=" + device }

// SlotName is a slot's device name for a resource name.
func SlotName(resource string) string {
	_, name, _ := strings.Cut(resource, "/")
	return name
}

// Build makes the specification; the same input gives the same bytes. It is nil
// when there is nothing to offer.
func Build(units []Unit, slots []Slot) ([]byte, error) {
	spec := &specs.Spec{Kind: v1alpha1.CDIKind}
	for _, u := range units {
		group := GroupNode + strconv.Itoa(u.Group)
		if u.NoIOMMU {
			group = GroupNode + "noiommu-" + strconv.Itoa(u.Group)
		}
		nodes := []*specs.DeviceNode{node(ContainerNode), node(group)}
		for _, d := range u.VFIODevs {
			nodes = append(nodes, node(DeviceNode+d))
		}
		spec.Devices = append(spec.Devices, specs.Device{Name: u.ID, ContainerEdits: specs.ContainerEdits{
			DeviceNodes: nodes,
			Mounts:      []*specs.Mount{agentFolder()},
		}})
	}
	for _, s := range slots {
		spec.Devices = append(spec.Devices, specs.Device{Name: s.Name, ContainerEdits: specs.ContainerEdits{
			DeviceNodes: []*specs.DeviceNode{node(s.HostPath)},
		}})
	}
	if len(spec.Devices) == 0 {
		return nil, nil
	}
	sort.Slice(spec.Devices, func(i, j int) bool { return spec.Devices[i].Name < spec.Devices[j].Name })
	spec.Devices = slices.CompactFunc(spec.Devices, func(a, b specs.Device) bool { return a.Name == b.Name })
	version, err := specs.MinimumRequiredVersion(spec)
	if err != nil {
		return nil, fmt.Errorf("CDI version: %w", err)
	}
	spec.Version = version
	b, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encode CDI specification: %w", err)
	}
	return append(b, '\n'), nil
}

func node(p string) *specs.DeviceNode {
	return &specs.DeviceNode{Path: p, HostPath: p, Permissions: "rw"}
}

func agentFolder() *specs.Mount {
	return &specs.Mount{
		HostPath: v1alpha1.AgentRunDir, ContainerPath: v1alpha1.AgentRunDir,
		Options: []string{"ro", "nosuid", "nodev", "noexec", "bind"},
	}
}

// Write puts the specification into the CDI folder (normally /var/run/cdi),
// replacing the former one at once; nil removes it. It reports whether anything
// changed.
func Write(dir string, spec []byte) (changed bool, err error) {
	file := filepath.Join(dir, FileName)
	have, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read CDI specification: %w", err)
	}
	if spec == nil {
		if err != nil {
			return false, nil //nolint:nilerr // it is not there, as wanted
		}
		if err := os.Remove(file); err != nil {
			return false, fmt.Errorf("remove CDI specification: %w", err)
		}
		return true, nil
	}
	if err == nil && bytes.Equal(have, spec) {
		return false, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("make CDI folder: %w", err)
	}
	// The name's ending must not be one that runtimes read.
	tmp := file + ".new"
	if err := os.WriteFile(tmp, spec, 0o644); err != nil {
		return false, fmt.Errorf("write CDI specification: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return false, fmt.Errorf("put CDI specification in place: %w", err)
	}
	return true, nil
}

// NodePath is the place below the agent's view of the host's /dev of one of the
// host's device nodes.
func NodePath(hostDev, p string) string {
	return path.Join(hostDev, strings.TrimPrefix(p, "/dev"))
}
