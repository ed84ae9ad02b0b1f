package cluster

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/kubevfio/kubevfio/test/lab/nodeapi"
)

// The node's machine. Each NUMA node has two PCIe root complexes of its own (expander buses), as servers have; devices for
// the tests sit below them, everything that the node itself needs sits on the built-in bus pcie.0.
//
//	NUMA node 0: pxb0 (bus 32)  igb PF0, NVMe controller
//	             pxb1 (bus 64)  igb PF1
//	NUMA node 1: pxb2 (bus 96)  igb PF2
//	             pxb3 (bus 128) "GPU" (display + audio function), edu device
const (
	// PFsPerNode is the number of SR-IOV network cards of a node.
	PFsPerNode = 3
	// VFsPerPF is how many VFs each of them can have (QEMU's igb).
	VFsPerPF = 7
)

// machine is what the command line of a node's QEMU depends on.
type machine struct {
	cfg    Config
	node   nodeSpec
	accel  string // AccelKVM or AccelTCG
	dir    string // the node's folder: disks and sockets
	logs   string
	kernel string
	initrd string
	bin    string // disk of binaries
	// console is the file that gets the serial console's output.
	console string
}

func (m machine) tap() string                { return fmt.Sprintf("n%d", m.node.Index) }
func (m machine) pfTap(pf int) string        { return fmt.Sprintf("n%dpf%d", m.node.Index, pf) }
func (m machine) qmpSocket() string          { return filepath.Join(m.dir, "qmp.sock") }
func (m machine) file(name string) string    { return filepath.Join(m.dir, name) }
func (m machine) pfMAC(pf int) string        { return fmt.Sprintf("52:54:00:89:%02x:%02x", m.node.Index, pf) }
func nodeLog(logs, node, what string) string { return filepath.Join(logs, node+"-"+what+".log") }

// ownDevice makes a virtio device on the built-in bus.
func ownDevice(kind string, props ...string) []string {
	return []string{"-device", strings.Join(append([]string{kind, "bus=pcie.0", "disable-legacy=on"}, props...), ",")}
}

// args is QEMU's command line without the program's name.
func (m machine) args() []string {
	half, cpus := m.cfg.MemoryMiB/2, m.cfg.CPUs
	var a []string
	add := func(args ...string) { a = append(a, args...) }
	// The processors' state at every reset: what a machine that reset itself died of ("Triple fault"). And a line at each entry
	// to and exit from a guest (in_asm, without any code): as long as they are written, guests do not get lost (docs/dev/lab.md).
	add("-d", "cpu_reset,in_asm", "-dfilter", "0x0+0x1", "-D", nodeLog(m.logs, m.node.Name, "cpu"))
	add("-name", m.node.Name, "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none")
	add("-machine", "q35,kernel-irqchip=split")
	if m.accel == AccelKVM {
		add("-accel", "kvm", "-cpu", "host")
	} else {
		add("-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm,+npt")
	}
	add("-m", fmt.Sprintf("%dM", m.cfg.MemoryMiB), "-smp", fmt.Sprintf("%d,sockets=2,cores=%d,threads=1", cpus, cpus/2))
	for i := range 2 {
		add("-object", fmt.Sprintf("memory-backend-ram,id=mem%d,size=%dM", i, half))
		add("-numa", fmt.Sprintf("node,nodeid=%d,cpus=%d-%d,memdev=mem%d", i, i*cpus/2, (i+1)*cpus/2-1, i))
	}
	add("-numa", "dist,src=0,dst=1,val=20")
	add("-device", "intel-iommu,intremap=on,caching-mode=on")

	add("-kernel", m.kernel, "-initrd", m.initrd, "-append", m.cmdline())
	add("-chardev", "file,id=console,append=on,path="+m.console, "-serial", "chardev:console")
	add("-qmp", "unix:"+m.qmpSocket()+",server=on,wait=off")

	// The node's own devices.
	for _, d := range []struct{ serial, file, format, opts string }{
		{nodeapi.DiskRoot, m.file("root.qcow2"), "qcow2", ""},
		{nodeapi.DiskImages, m.file("images.qcow2"), "qcow2", ""},
		{nodeapi.DiskBin, m.bin, "raw", ",read-only=on"},
		{nodeapi.DiskConfig, m.file("config.tar"), "raw", ",read-only=on"},
	} {
		add("-drive", fmt.Sprintf("if=none,id=%s,file=%s,format=%s,cache=unsafe%s", d.serial, d.file, d.format, d.opts))
		add(ownDevice("virtio-blk-pci", "drive="+d.serial, "serial="+d.serial)...)
	}
	add("-netdev", fmt.Sprintf("tap,id=net,ifname=%s,script=no,downscript=no", m.tap()))
	add(ownDevice("virtio-net-pci", "netdev=net", "mac="+m.node.MAC, "romfile=")...)
	add(ownDevice("virtio-rng-pci")...)
	add(ownDevice("virtio-serial-pci")...)
	for _, p := range []string{Containerd, Kubelet, KubeProxy} {
		add("-chardev", fmt.Sprintf("file,id=log-%s,append=on,path=%s", p, nodeLog(m.logs, m.node.Name, p)))
		add("-device", fmt.Sprintf("virtserialport,chardev=log-%s,name=%s%s", p, nodeapi.LogPortPrefix, p))
	}
	return append(a, m.testDevices()...)
}

func (m machine) cmdline() string {
	// A stall is told early: waitForNode resets a node whose boot hangs for want of timer interrupts.
	args := []string{"rcupdate.rcu_cpu_stall_timeout=10", "console=ttyS0", "printk.devkmsg=on", "intel_iommu=on", "iommu=nopt", "loglevel=5", "panic=-1", "tsc=reliable", "mitigations=off"}
	if m.cfg.HugePages2M > 0 {
		args = append(args, "hugepagesz=2M", fmt.Sprintf("hugepages=%d", m.cfg.HugePages2M))
	}
	return strings.Join(args, " ")
}

// testDevices are the root complexes and what is below them.
func (m machine) testDevices() []string {
	var a []string
	add := func(args ...string) { a = append(a, args...) }
	for i := range 4 {
		add("-device", fmt.Sprintf("pxb-pcie,id=pxb%d,bus=pcie.0,bus_nr=%d,numa_node=%d", i, 32*(i+1), i/2))
	}
	chassis := 0
	rootPort := func(pxb int) string {
		chassis++
		id := fmt.Sprintf("rp%d", chassis)
		add("-device", fmt.Sprintf("pcie-root-port,id=%s,bus=pxb%d,chassis=%d,slot=%d", id, pxb, chassis, chassis))
		return id
	}
	for pf, pxb := range []int{0, 1, 2} {
		add("-netdev", fmt.Sprintf("tap,id=pf%d,ifname=%s,script=no,downscript=no", pf, m.pfTap(pf)))
		add("-device", fmt.Sprintf("igb,id=igb%d,bus=%s,netdev=pf%d,mac=%s,romfile=", pf, rootPort(pxb), pf, m.pfMAC(pf)))
	}
	add("-drive", fmt.Sprintf("if=none,id=nvme,file=%s,format=raw,cache=unsafe", m.file("nvme.raw")))
	add("-device", fmt.Sprintf("nvme,id=nvme0,bus=%s,drive=nvme,serial=kubevfio-lab-%d", rootPort(0), m.node.Index))

	gpu := rootPort(3)
	add("-device", fmt.Sprintf("bochs-display,id=gpu0,bus=%s,addr=00.0,multifunction=on", gpu))
	add("-device", fmt.Sprintf("ich9-intel-hda,id=gpu0audio,bus=%s,addr=00.1", gpu))
	add("-device", fmt.Sprintf("edu,id=edu0,bus=%s", rootPort(3)))
	return a
}
