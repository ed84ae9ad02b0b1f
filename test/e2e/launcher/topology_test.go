package launcher

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/overhead"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/scenario"
)

// topologySpec has devices of both NUMA nodes and of several root complexes.
const topologySpec = `  devices:
    gpus:
    - {name: gpu0, deviceName: kubevfio.io/gpu}
    hostDevices:
    - {name: nvme0, deviceName: kubevfio.io/nvme}
    interfaces:
    - {name: vf0, sriov: {deviceName: kubevfio.io/igb-vf}, macAddress: "02:00:00:0a:0a:01"}
    - {name: vf1, sriov: {deviceName: kubevfio.io/igb-vf}, macAddress: "02:00:00:0a:0a:02"}
    - {name: vf2, sriov: {deviceName: kubevfio.io/igb-vf}, macAddress: "02:00:00:0a:0a:03"}
    - {name: vf3, sriov: {deviceName: kubevfio.io/igb-vf}, macAddress: "02:00:00:0a:0a:04"}`

// TestTopology gives one guest a graphics card with its audio function, an NVMe
// controller and four virtual functions: what the guest sees is the host's shape.
// The same guest's memory is compared with the overhead formula.
func TestTopology(t *testing.T) {
	name := "topology"
	spec := guest("384Mi", "", topologySpec)
	create(t, scenario.VMPod{
		Name: name, Spec: spec, Memory: "768Mi",
		Limits: map[string]string{vfResource: "4", "kubevfio.io/gpu": "1", "kubevfio.io/nvme": "1"},
	})
	g := up(t, name)
	p, err := env.Pod(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	report, err := env.Report(t.Context(), lab, namespace, name, vfID, &scenario.Guest{})
	if report == nil {
		t.Fatal(err)
	}
	pairs := pairUp(t, g, report.Assigned)
	for i, a := range pairs {
		t.Logf("%s (NUMA node %d, %s) is %s (NUMA node %d) in the guest", a.host.Address, a.host.NUMA, a.host.Root, a.guest.Address, a.guest.NUMA)
		if a.guest.NUMA != a.host.NUMA {
			t.Errorf("%s: NUMA node %d in the guest, %d on the host", a.guest.Address, a.guest.NUMA, a.host.NUMA)
		}
		for _, b := range pairs[:i] {
			same := guestRoot(a.guest.Address, g) == guestRoot(b.guest.Address, g)
			if same != (a.host.Root == b.host.Root) {
				t.Errorf("%s and %s: one root complex on the host: %t, in the guest (%s, %s): %t",
					a.host.Address, b.host.Address, a.host.Root == b.host.Root, a.guest.Address, b.guest.Address, same)
			}
		}
	}
	// Companions share a slot, as functions 0 and 1.
	gpu, audio := g.WithID("1234:1111"), g.WithID("8086:293e")
	if len(gpu) != 1 || len(audio) != 1 || strings.TrimSuffix(gpu[0].Address, ".0") != strings.TrimSuffix(audio[0].Address, ".1") {
		t.Errorf("graphics %v and audio %v are not functions of one slot", gpu, audio)
	}
	// The lab's nodes are 20 apart.
	typed(t, name, `for n in 0 1; do echo distance-$n-$(cat /sys/devices/system/node/node$n/distance | tr ' ' -); done`)
	says(t, name, "distance-0-10-20")
	says(t, name, "distance-1-20-10")

	checkOverhead(t, name, spec, 384<<20)
	checkPSS(t, name)
	ps, err := scenario.Processes(t.Context(), lab, p)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range ps {
		t.Logf("pid %d: PSS %d KiB, RSS %d KiB: %.60s", x.PID, x.PSS>>10, x.RSS>>10, x.Command)
	}
}

// pair is a function on the host and in the guest.
type pair struct {
	host  scenario.HostDevice
	guest scenario.GuestPCI
}

// pairUp finds each assigned function in the guest: VFs by the MAC address that
// the host's driver holds for them, the others by their identity.
func pairUp(t *testing.T, g *scenario.Guest, assigned []string) []pair {
	t.Helper()
	hosts, err := scenario.HostDevices(t.Context(), lab, node(), assigned)
	if err != nil {
		t.Fatal(err)
	}
	var out []pair
	for _, h := range hosts {
		id, err := scenario.NodeOutput(t.Context(), lab, node(), "sh", "-c",
			fmt.Sprintf("cd /sys/bus/pci/devices/%s; echo $(cut -c3- vendor):$(cut -c3- device)", h.Address))
		if err != nil {
			t.Fatal(err)
		}
		found := g.WithID(strings.TrimSpace(id))
		if strings.TrimSpace(id) == vfID || len(found) > 1 {
			mac, err := scenario.HostVFMAC(t.Context(), lab, node(), h.Address)
			if err != nil {
				t.Fatal(err)
			}
			found = slices.DeleteFunc(found, func(f scenario.GuestPCI) bool { return g.MACOf(f.Address) != mac })
		}
		if len(found) != 1 {
			t.Errorf("%s (%s): the guest has %v", h.Address, strings.TrimSpace(id), found)
			continue
		}
		out = append(out, pair{h, found[0]})
	}
	if len(out) != len(assigned) {
		t.Fatalf("found %d of %d devices in the guest: %+v", len(out), len(assigned), g.PCI)
	}
	return out
}

// guestRoot is the bus number of the expander that a guest's function is below:
// the nearest bus at or below its own that has root ports.
func guestRoot(address string, g *scenario.Guest) string {
	root := ""
	for _, port := range g.WithID("1b36:000c") {
		if bus := port.Address[5:7]; bus <= address[5:7] && bus > root {
			root = bus
		}
	}
	return root
}

// checkOverhead compares the cgroup's peak with the formula.
func checkOverhead(t *testing.T, name, text string, memory uint64) {
	t.Helper()
	var spec v1alpha1.VirtualMachineInstanceSpec
	if err := yaml.UnmarshalStrict([]byte(text), &spec); err != nil {
		t.Fatal(err)
	}
	in, err := overhead.FromSpec(&spec)
	if err != nil {
		t.Fatal(err)
	}
	p, err := env.Pod(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	peak, err := scenario.CgroupBytes(t.Context(), lab, p, "memory.peak")
	if err != nil {
		t.Fatal(err)
	}
	huge := in.HugepageBytes > 0
	measured := peak
	if !huge {
		measured -= min(peak, memory)
	}
	formula := overhead.Total(overhead.Items(in))
	t.Logf("overhead: formula %d MiB, cgroup's peak less the guest's memory %d MiB: error %+.0f %% of the overhead, %+.1f %% of the pod's memory",
		formula>>20, measured>>20, 100*(float64(formula)-float64(measured))/float64(measured), 100*(float64(formula)-float64(measured))/float64(memory+measured))
	for _, i := range overhead.Items(in) {
		t.Logf("  formula: %-12s %4d MiB, %s", i.Name, i.Bytes>>20, i.Why)
	}
	ps, err := scenario.Processes(t.Context(), lab, p)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range ps {
		t.Logf("  process: PSS %4d MiB, RSS %4d MiB  %.60s", x.PSS>>20, x.RSS>>20, x.Command)
	}
	stat, err := scenario.NodeOutput(t.Context(), lab, node(), "grep", "-E", "^(anon|file|shmem|kernel|sock|pagetables|sec_pagetables|kernel_stack|slab|percpu) ", "/sys/fs/cgroup"+ps[0].Cgroup+"/memory.stat")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("  cgroup: %s", strings.Join(strings.Fields(stat), " "))
	if formula < measured {
		t.Errorf("the formula gives %d MiB, %d MiB were used: the pod would be killed", formula>>20, measured>>20)
	}
}

// checkPSS sums up everything in the pod beside QEMU.
func checkPSS(t *testing.T, name string) {
	t.Helper()
	p, err := env.Pod(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	ps, err := scenario.Processes(t.Context(), lab, p)
	if err != nil {
		t.Fatal(err)
	}
	var pss, rss uint64
	for _, x := range ps {
		if strings.Contains(x.Command, "kubevfio-launcher run") || strings.Contains(x.Command, "supervise") {
			pss, rss = pss+x.PSS, rss+x.RSS
		}
	}
	t.Logf("PID 1 and supervisor: PSS %.1f MiB, RSS %.1f MiB", float64(pss)/(1<<20), float64(rss)/(1<<20))
	if pss == 0 || pss > 40<<20 {
		t.Errorf("PID 1 and supervisor take %d KiB PSS, want at most 40 MiB", pss>>10)
	}
}
