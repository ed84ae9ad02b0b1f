package page

import (
	"cmp"
	"slices"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/hardware"
	"github.com/kubevfio/kubevfio/topology/draw"
)

// machines joins machines with their instances by name, sorted by namespace and name.
func machines(o Objects) []Machine {
	all := map[[2]string]*Machine{}
	get := func(namespace, name string) *Machine {
		key := [2]string{namespace, name}
		if all[key] == nil {
			who := hardware.Holder{Namespace: namespace, Instance: name}
			all[key] = &Machine{Namespace: namespace, Name: name, Hue: draw.Hue(who.String())}
		}
		return all[key]
	}
	for i := range o.Machines {
		vm := &o.Machines[i]
		m := get(vm.Namespace, vm.Name)
		m.Owned = true
		m.Status = cmp.Or(vm.Status.PrintableStatus, "Unknown")
		m.Node, m.Devices = vm.Status.NodeName, vm.Status.Devices
		if out := vm.Status.LastOutcome; out != nil && vm.Status.StartFailure != nil {
			m.Message = out.Reason + ": " + out.Message
		}
	}
	for i := range o.Instances {
		vmi := &o.Instances[i]
		m := get(vmi.Namespace, vmi.Name)
		s := &vmi.Status
		m.Phase = string(s.Phase)
		m.Status = cmp.Or(m.Status, m.Phase, "Pending")
		m.Node, m.Pod = cmp.Or(s.NodeName, m.Node), s.PodName
		if s.DeviceSummary != nil {
			m.Devices, m.Alignment = cmp.Or(s.DeviceSummary.Devices, m.Devices), s.DeviceSummary.Alignment
		}
		for _, i := range s.Interfaces {
			m.IP = cmp.Or(m.IP, i.IPAddress)
		}
		switch {
		case s.Message != "":
			m.Message = s.Message
		case s.Outcome != nil && s.Phase == v1alpha1.VMIFailed:
			m.Message = s.Outcome.Reason + ": " + s.Outcome.Message
		}
		for _, d := range s.Devices {
			if d.Problem != "" {
				m.Message = cmp.Or(m.Message, d.Address+": "+d.Problem)
			}
		}
	}
	list := make([]Machine, 0, len(all))
	for _, m := range all {
		m.Level = level(m.Status)
		list = append(list, *m)
	}
	slices.SortFunc(list, func(a, b Machine) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// level is what a status means. A status that is not known is in progress.
func level(status string) string {
	switch status {
	case v1alpha1.VMRunning:
		return "ok"
	case v1alpha1.VMStopped, string(v1alpha1.VMISucceeded):
		return "off"
	case v1alpha1.VMCrashLoopBackOff, v1alpha1.VMUnschedulable, v1alpha1.VMErrImagePull, v1alpha1.VMImagePullBackOff,
		v1alpha1.VMErrorPvcNotFound, v1alpha1.VMInvalidSpec, string(v1alpha1.VMIFailed):
		return "bad"
	}
	return "busy"
}
