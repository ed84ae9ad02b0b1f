package kubevirt

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// translate replaces in place what has an equal of another name, and takes out
// values that nothing here equals. at is the path of the spec.
func (c *conversion) translate(spec map[string]any, at string) {
	c.eviction(spec, at)
	c.values(spec, at)
	c.networks(spec, at)
	c.probeHandlers(spec, at)
	c.probePorts(spec, at)
}

// eviction: moving live becomes moving cold.
func (c *conversion) eviction(spec map[string]any, at string) {
	s, ok := spec["evictionStrategy"].(string)
	field := at + ".evictionStrategy"
	switch {
	case !ok || s == string(v1alpha1.EvictionNone) || s == string(v1alpha1.EvictionColdMove):
	case s == "LiveMigrate" || s == "LiveMigrateIfPossible":
		spec["evictionStrategy"] = string(v1alpha1.EvictionColdMove)
		c.change(field, "is ColdMove now: a drained guest is shut down and started on another node, whose devices are taken first")
	default:
		delete(spec, "evictionStrategy")
		c.lose(field, fmt.Sprintf("%q is not supported; ColdMove is the default", s))
	}
}

// values takes out what our enumerations do not have.
func (c *conversion) values(spec map[string]any, at string) {
	domain := asMap(spec["domain"])
	only := func(m map[string]any, key, field string, ok func(string) bool, instead string) {
		if v, is := m[key].(string); is && v != "" && !ok(v) {
			delete(m, key)
			c.lose(field+"."+key, fmt.Sprintf("%q is not supported; %s", v, instead))
		}
	}
	in := func(words ...string) func(string) bool {
		return func(s string) bool { return slices.Contains(words, s) }
	}
	only(asMap(domain["machine"]), "type", at+".domain.machine", regexp.MustCompile(`^(q35|pc-q35-[0-9]+\.[0-9]+)$`).MatchString, "q35 is used")
	only(domain, "ioThreadsPolicy", at+".domain", in("shared", "auto"), "QEMU's main loop does the I/O")
	devices := asMap(domain["devices"])
	for i, v := range asList(devices["disks"]) {
		d, field := asMap(v), fmt.Sprintf("%s.domain.devices.disks[%d]", at, i)
		only(asMap(d["disk"]), "bus", field+".disk", in("virtio", "sata", "scsi"), "virtio is used")
		only(asMap(d["cdrom"]), "bus", field+".cdrom", in("sata", "scsi"), "sata is used")
		only(asMap(d["lun"]), "bus", field+".lun", in("scsi"), "scsi is used")
		only(d, "cache", field, in("none", "writethrough", "writeback"), "the default is used")
		only(d, "io", field, in("native", "threads", "io_uring"), "the default is used")
	}
	for i, v := range asList(devices["interfaces"]) {
		only(asMap(v), "model", fmt.Sprintf("%s.domain.devices.interfaces[%d]", at, i), in("virtio", "e1000e", "rtl8139"), "virtio is used")
	}
}

// networks: what KubeVirt does with privileges on the pod network is passt here,
// and a virtual function is named by its resource, not by a Multus network.
func (c *conversion) networks(spec map[string]any, at string) {
	multus := map[string]string{}
	for _, v := range asList(spec["networks"]) {
		n := asMap(v)
		if m, ok := n["multus"]; ok {
			name, _ := n["name"].(string)
			multus[name], _ = asMap(m)["networkName"].(string)
		}
	}
	resolved := map[string]bool{}
	for i, v := range asList(asMap(asMap(spec["domain"])["devices"])["interfaces"]) {
		iface := asMap(v)
		field := fmt.Sprintf("%s.domain.devices.interfaces[%d]", at, i)
		name, _ := iface["name"].(string)
		definition, onMultus := multus[name]
		for _, binding := range []string{"masquerade", "bridge", "slirp", "macvtap"} {
			if _, ok := iface[binding]; !ok {
				continue
			}
			if onMultus || binding == "macvtap" {
				c.lose(field+"."+binding, fmt.Sprintf("cannot connect to the Multus network %q: only the pod network (passt) and virtual functions (sriov) are there", definition))
				delete(iface, binding)
				continue
			}
			delete(iface, binding)
			iface["passt"] = map[string]any{}
			c.change(field+"."+binding, "is passt now, which needs no privileges")
		}
		if _, passt := iface["passt"]; passt && len(asList(iface["ports"])) == 0 {
			c.change(field+".ports", "is empty: with KubeVirt all ports lead to the guest, here none; list those that shall")
		}
		if s, ok := iface["sriov"].(map[string]any); ok && onMultus && s["deviceName"] == nil {
			if resource := c.resources[definition]; resource != "" {
				s["deviceName"], resolved[name] = resource, true
				c.change(field+".sriov", fmt.Sprintf("names the resource %s of the NetworkAttachmentDefinition %s now", resource, definition))
				continue
			}
			c.lose(field+".sriov", fmt.Sprintf("gets its virtual function by the Multus network %q: name the resource in sriov.deviceName (the annotation k8s.v1.cni.cncf.io/resourceName of that NetworkAttachmentDefinition) and take the network out", definition))
		}
	}
	c.dropNetworks(spec, resolved, multus, at)
}

// dropNetworks takes out networks whose interfaces name their resource now.
func (c *conversion) dropNetworks(spec map[string]any, resolved map[string]bool, multus map[string]string, at string) {
	if len(resolved) == 0 {
		return
	}
	var kept []any
	for i, v := range asList(spec["networks"]) {
		name, _ := asMap(v)["name"].(string)
		if !resolved[name] {
			kept = append(kept, v)
			continue
		}
		c.change(fmt.Sprintf("%s.networks[%d].multus", at, i), fmt.Sprintf("%s is left out: a virtual function needs no network; VLAN, trust and the like of its definition are fields of the interface's sriov", multus[name]))
	}
	if spec["networks"] = kept; kept == nil {
		delete(spec, "networks")
	}
}

// probeHandlers takes out probes that ask in a way that is not there: without it
// nothing would be left to ask.
func (c *conversion) probeHandlers(spec map[string]any, at string) {
	for _, probe := range []string{"readinessProbe", "livenessProbe"} {
		for _, how := range []string{"exec", "guestAgentPing"} {
			if _, ok := asMap(spec[probe])[how]; ok {
				delete(spec, probe)
				c.lose(at+"."+probe+"."+how, "is not supported: probes ask by tcpSocket or httpGet; the probe is left out")
			}
		}
	}
}

// probePorts lets the ports of probes through: KubeVirt lets all through where no
// port is listed.
func (c *conversion) probePorts(spec map[string]any, at string) {
	for _, probe := range []string{"readinessProbe", "livenessProbe"} {
		for _, how := range []string{"tcpSocket", "httpGet"} {
			port, ok := asMap(asMap(spec[probe])[how])["port"]
			if !ok {
				continue
			}
			for i, v := range asList(asMap(asMap(spec["domain"])["devices"])["interfaces"]) {
				iface := asMap(v)
				if _, passt := iface["passt"]; !passt {
					continue
				}
				ports := asList(iface["ports"])
				if !slices.ContainsFunc(ports, func(p any) bool { return fmt.Sprint(asMap(p)["port"]) == fmt.Sprint(port) }) {
					iface["ports"] = append(ports, map[string]any{"port": port})
					c.change(fmt.Sprintf("%s.domain.devices.interfaces[%d].ports", at, i), fmt.Sprintf("has %v now, for the %s", port, probe))
				}
			}
		}
	}
}

// refusedKind says what to do with an object of KubeVirt's that has no equal.
func refusedKind(kind, apiVersion string) string {
	switch kind {
	case "VirtualMachineInstanceReplicaSet", "VirtualMachinePool":
		return kind + " is not supported: there are no replicas; write a VirtualMachine for each"
	case "VirtualMachineInstanceMigration":
		return kind + " is not supported: guests move when their node is drained (evictionStrategy ColdMove)"
	case "VirtualMachineInstancetype", "VirtualMachineClusterInstancetype", "VirtualMachinePreference", "VirtualMachineClusterPreference":
		return kind + " is not supported: write its CPU and memory into the machine's template"
	case "DataVolume", "DataSource", "DataImportCron":
		return kind + " is not supported: make a PersistentVolumeClaim and fill it"
	case "VirtualMachineInstancePreset":
		return kind + " is not supported: write its fields into the machine's template"
	}
	return fmt.Sprintf("objects of %s %s are not imported", apiVersion, kind)
}

// refusedField says what to do in place of a field of a VirtualMachine's spec.
func refusedField(name string) string {
	switch name {
	case "dataVolumeTemplates":
		return "is not supported: make the PersistentVolumeClaims beforehand, with the templates' names"
	case "instancetype", "preference":
		return "is not supported: write its CPU and memory into the template"
	}
	return "is not supported"
}
