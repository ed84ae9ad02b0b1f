package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// pciFunction is a PCI function as sysfs shows it.
type pciFunction struct {
	address, vendor, device, class, driver string
	numa                                   int
}

func readTrimmed(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func linkBase(path string) string {
	target, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// pciFunctions reads all PCI functions, sorted by address.
func pciFunctions(sys string) []pciFunction {
	dirs, err := filepath.Glob(filepath.Join(sys, "bus/pci/devices/*"))
	if err != nil {
		return nil
	}
	sort.Strings(dirs)
	var out []pciFunction
	for _, dir := range dirs {
		f := pciFunction{
			address: filepath.Base(dir),
			vendor:  strings.TrimPrefix(readTrimmed(filepath.Join(dir, "vendor")), "0x"),
			device:  strings.TrimPrefix(readTrimmed(filepath.Join(dir, "device")), "0x"),
			class:   strings.TrimPrefix(readTrimmed(filepath.Join(dir, "class")), "0x"),
			driver:  linkBase(filepath.Join(dir, "driver")),
			numa:    -1,
		}
		if n, err := strconv.Atoi(readTrimmed(filepath.Join(dir, "numa_node"))); err == nil {
			f.numa = n
		}
		out = append(out, f)
	}
	return out
}

// netInterface is a network interface with its device.
type netInterface struct{ name, mac, driver, pci string }

// netInterfaces reads all network interfaces that have a device, sorted by name.
func netInterfaces(sys string) []netInterface {
	dirs, err := filepath.Glob(filepath.Join(sys, "class/net/*"))
	if err != nil {
		return nil
	}
	sort.Strings(dirs)
	var out []netInterface
	for _, dir := range dirs {
		device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		if err != nil {
			continue // lo and the like
		}
		n := netInterface{
			name: filepath.Base(dir), mac: readTrimmed(filepath.Join(dir, "address")), driver: linkBase(filepath.Join(device, "driver")),
		}
		// A virtio device sits below its PCI function.
		for ; device != "/" && device != "."; device = filepath.Dir(device) {
			if linkBase(filepath.Join(device, "subsystem")) == "pci" {
				n.pci = filepath.Base(device)
				break
			}
		}
		out = append(out, n)
	}
	return out
}

// report says what the guest sees.
func (g *guest) report() {
	for _, f := range pciFunctions(g.sys) {
		g.say("pci %s %s:%s class=%s numa=%d driver=%s", f.address, f.vendor, f.device, f.class, f.numa, f.driver)
	}
	for _, n := range netInterfaces(g.sys) {
		g.say("net %s mac=%s driver=%s pci=%s", n.name, n.mac, n.driver, n.pci)
	}
	cpus, err := filepath.Glob(filepath.Join(g.sys, "devices/system/cpu/cpu[0-9]*"))
	if err != nil {
		return
	}
	nodes, err := filepath.Glob(filepath.Join(g.sys, "devices/system/node/node[0-9]*"))
	if err != nil {
		return
	}
	g.say("cpu count=%d nodes=%d", len(cpus), len(nodes))
	for _, node := range nodes {
		g.say("memory node=%s kib=%d", strings.TrimPrefix(filepath.Base(node), "node"),
			nodeMemory(readTrimmed(filepath.Join(node, "meminfo"))))
	}
	g.disks()
	g.lspci()
}

// nodeMemory reads MemTotal, in KiB, from a NUMA node's meminfo.
func nodeMemory(meminfo string) int {
	for _, line := range strings.Split(meminfo, "\n") {
		f := strings.Fields(line)
		for i, word := range f {
			if word == "MemTotal:" && i+1 < len(f) {
				if n, err := strconv.Atoi(f[i+1]); err == nil {
					return n
				}
			}
		}
	}
	return 0
}

func (g *guest) disks() {
	disks, err := filepath.Glob(filepath.Join(g.sys, "block/*"))
	if err != nil {
		return
	}
	for _, dir := range disks {
		if _, err := os.Stat(filepath.Join(dir, "device")); err != nil {
			continue // loop and ram devices
		}
		sectors, err := strconv.ParseInt(readTrimmed(filepath.Join(dir, "size")), 10, 64)
		if err != nil {
			continue
		}
		model := readTrimmed(filepath.Join(dir, "device/model"))
		g.say("disk %s bytes=%d serial=%q model=%q", filepath.Base(dir), sectors*512, readTrimmed(filepath.Join(dir, "serial")), model)
	}
}

// lspci says what lspci prints; with numbers only where the list of names is absent.
func (g *guest) lspci() {
	out, err := exec.Command("/usr/bin/lspci", "-nn").Output()
	if err != nil {
		g.say("error lspci: %v", err)
		return
	}
	for _, line := range bytes.Split(bytes.TrimSpace(out), []byte("\n")) {
		g.say("lspci %s", line)
	}
}
