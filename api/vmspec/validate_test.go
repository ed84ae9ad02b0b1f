package vmspec

import (
	"errors"
	"strings"
	"testing"
)

// TestValidate: each text is added below "domain:" (two spaces) or, after a line
// "---", at the top; the error must start with the field.
func TestValidate(t *testing.T) {
	tests := map[string]struct{ domain, top, want string }{
		"no memory":            {"cpu: {cores: 1}", "", "spec.domain.memory.guest: is not set"},
		"little memory":        {"memory: {guest: 1Mi}", "", "spec.domain.memory.guest: is 1048576 bytes"},
		"too many vCPUs":       {"memory: {guest: 1Gi}\n  cpu: {cores: 4294967295, sockets: 4294967295, threads: 2}", "", "spec.domain.cpu: sockets x cores x threads"},
		"huge page size":       {"memory: {guest: 1Gi, hugepages: {pageSize: 4Mi}}", "", "spec.domain.memory.hugepages.pageSize"},
		"isolated not pinned":  {"memory: {guest: 1Gi}\n  cpu: {isolateEmulatorThread: true}", "", "spec.domain.cpu.isolateEmulatorThread: needs"},
		"NUMA not pinned":      {"memory: {guest: 1Gi}\n  cpu: {numa: {guestMappingPassthrough: {}}}", "", "spec.domain.cpu.numa.guestMappingPassthrough"},
		"CPU feature twice":    {"memory: {guest: 1Gi}\n  cpu: {features: [{name: a}, {name: a}]}", "", "spec.domain.cpu.features[1].name"},
		"machine":              {"memory: {guest: 1Gi}\n  machine: {type: i440fx}", "", "spec.domain.machine.type"},
		"kernel without image": {"memory: {guest: 1Gi}\n  firmware: {kernelBoot: {kernelArgs: a}}", "", "spec.domain.firmware.kernelBoot.container"},
		"relative kernel":      {"memory: {guest: 1Gi}\n  firmware: {kernelBoot: {container: {kernelPath: boot/vmlinuz}}}", "", "spec.domain.firmware.kernelBoot.container.kernelPath"},
		"kernel up and away":   {"memory: {guest: 1Gi}\n  firmware: {kernelBoot: {container: {kernelPath: /guest/../etc/passwd}}}", "", "spec.domain.firmware.kernelBoot.container.kernelPath"},
		"two firmwares":        {"memory: {guest: 1Gi}\n  firmware: {bootloader: {bios: {}, efi: {}}}", "", "spec.domain.firmware.bootloader"},
		"secure without SMM":   {"memory: {guest: 1Gi}\n  firmware: {bootloader: {efi: {}}}\n  features: {smm: {enabled: false}}", "", "spec.domain.features.smm"},
		"no state volume":      {"memory: {guest: 1Gi}\n  firmware: {bootloader: {efi: {persistent: true}}}", "", "spec.domain.firmware.bootloader.efi.persistent"},
		"two clocks":           {"memory: {guest: 1Gi}\n  clock: {utc: {}, timezone: UTC}", "", "spec.domain.clock"},
		"two of a name":        {"memory: {guest: 1Gi}\n  devices: {gpus: [{name: a, deviceName: r}], hostDevices: [{name: a, deviceName: r}]}", "", `spec.domain.devices.hostDevices[0].name: "a" is also the name of spec.domain.devices.gpus[0]`},
		"bad name":             {"memory: {guest: 1Gi}\n  devices: {gpus: [{name: a/b, deviceName: r}]}", "", "spec.domain.devices.gpus[0].name"},
		"no resource":          {"memory: {guest: 1Gi}\n  devices: {gpus: [{name: a}]}", "", "spec.domain.devices.gpus[0].deviceName"},
		"ROM twice":            {"memory: {guest: 1Gi}\n  devices: {gpus: [{name: a, deviceName: r, rom: {bar: false, file: /a}}]}", "", "spec.domain.devices.gpus[0].rom"},
		"QEMU option":          {"memory: {guest: 1Gi}\n  devices: {gpus: [{name: a, deviceName: r, qemuOptions: {host: x}}]}", "", "spec.domain.devices.gpus[0].qemuOptions"},
		"masquerade":           {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a, masquerade: {}}]}", "", "spec.domain.devices.interfaces[0].masquerade: is not supported"},
		"tap":                  {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a, tap: {}}]}", "", "spec.domain.devices.interfaces[0].tap: is not supported"},
		"bridge":               {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a, bridge: {}}]}", "", "spec.domain.devices.interfaces[0].bridge: is not supported"},
		"no binding":           {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a}]}", "", "spec.domain.devices.interfaces[0]: wants exactly one"},
		"two passt":            {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a, passt: {}}, {name: b, passt: {}}]}", "", "spec.domain.devices.interfaces[1]: is the second"},
		"multicast MAC":        {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a, passt: {}, macAddress: \"01:00:00:00:00:01\"}]}", "", "spec.domain.devices.interfaces[0].macAddress"},
		"port":                 {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a, passt: {}, ports: [{port: 65536}]}]}", "", "spec.domain.devices.interfaces[0].ports[0].port"},
		"port twice":           {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a, passt: {}, ports: [{port: 1}, {port: 1, protocol: TCP}]}]}", "", "spec.domain.devices.interfaces[0].ports[1]"},
		"VF without resource":  {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a, sriov: {}}]}", "", "spec.domain.devices.interfaces[0].sriov.deviceName"},
		"VLAN":                 {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a, sriov: {deviceName: r, vlan: 4095}}]}", "", "spec.domain.devices.interfaces[0].sriov.vlan"},
		"VF on the pod's":      {"memory: {guest: 1Gi}\n  devices: {interfaces: [{name: a, sriov: {deviceName: r}}]}", "networks: [{name: a, pod: {}}]", "spec.domain.devices.interfaces[0].sriov"},
		"lonely network":       {"memory: {guest: 1Gi}", "networks: [{name: a, pod: {}}]", "spec.networks[0]"},
		"disk without volume":  {"memory: {guest: 1Gi}\n  devices: {disks: [{name: a}]}", "", `spec.domain.devices.disks[0]: there is no volume "a"`},
		"volume without disk":  {"memory: {guest: 1Gi}", "volumes: [{name: a, emptyDisk: {capacity: 1Gi}}]", "spec.volumes[0]"},
		"two sources":          {"memory: {guest: 1Gi}\n  devices: {disks: [{name: a}]}", "volumes: [{name: a, emptyDisk: {capacity: 1Gi}, containerDisk: {}}]", "spec.volumes[0]: has 2 sources"},
		"USB disk":             {"memory: {guest: 1Gi}\n  devices: {disks: [{name: a, disk: {bus: usb}}]}", "volumes: [{name: a, emptyDisk: {capacity: 1Gi}}]", "spec.domain.devices.disks[0].disk.bus"},
		"native with cache":    {"memory: {guest: 1Gi}\n  devices: {disks: [{name: a, io: native}]}", "volumes: [{name: a, emptyDisk: {capacity: 1Gi}}]", "spec.domain.devices.disks[0].io"},
		"disk of a folder":     {"memory: {guest: 1Gi}\n  devices: {disks: [{name: a}]}", "volumes: [{name: a, emptyDir: {}}]", "spec.domain.devices.disks[0]"},
		"image path":           {"memory: {guest: 1Gi}\n  devices: {disks: [{name: a}]}", "volumes: [{name: a, containerDisk: {path: ../../etc}}]", "spec.volumes[0].containerDisk.path"},
		"cloud-init twice":     {"memory: {guest: 1Gi}\n  devices: {disks: [{name: a}]}", "volumes: [{name: a, cloudInitNoCloud: {userData: x, userDataBase64: eA==}}]", "spec.volumes[0].cloudInitNoCloud"},
		"balloon":              {"memory: {guest: 1Gi}\n  devices: {autoattachMemBalloon: true}", "", "spec.domain.devices.autoattachMemBalloon"},
		"watchdog":             {"memory: {guest: 1Gi}\n  devices: {watchdog: {name: a}}", "", "spec.domain.devices.watchdog"},
		"boot order twice":     {"memory: {guest: 1Gi}\n  devices: {gpus: [{name: a, deviceName: r, bootOrder: 1}, {name: b, deviceName: r, bootOrder: 1}]}", "", "spec.domain.devices.gpus[1].bootOrder"},
		"alignment":            {"memory: {guest: 1Gi}\n  devices: {alignment: near}", "", "spec.domain.devices.alignment"},
		"IOMMU model":          {"memory: {guest: 1Gi}\n  devices: {iommu: {model: amd}}", "", "spec.domain.devices.iommu.model"},
		"grace":                {"memory: {guest: 1Gi}", "terminationGracePeriodSeconds: -1", "spec.terminationGracePeriodSeconds"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			spec, err := Decode([]byte("domain:\n  " + tc.domain + "\n" + tc.top + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			err = Validate(spec)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
