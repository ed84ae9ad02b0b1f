package supervisor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"

	agentrpcv1 "github.com/kubevfio/kubevfio/api/agentrpc/v1"
	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/launcher/domain"
	"github.com/kubevfio/kubevfio/launcher/failure"
	"github.com/kubevfio/kubevfio/launcher/podinfo"
	"github.com/kubevfio/kubevfio/launcher/preflight"
	"github.com/kubevfio/kubevfio/launcher/volumes"
	"github.com/kubevfio/kubevfio/topology"
)

// defaultGrace is how long a guest may take to shut down when its spec does not
// say.
const defaultGrace = 30

// maxName is the longest domain name: libvirt makes file names of it.
const maxName = 60

// plan is what the inputs add up to.
type plan struct {
	spec     *v1alpha1.VirtualMachineInstanceSpec
	host     *topology.Host
	given    preflight.Given
	requests []vmspec.Request
	units    map[string]topology.Unit // by the name of the spec's entry
	input    domain.Input
	grace    int64
	// nccl is the content of the NCCL topology file, empty when not asked for.
	nccl string
	// vfs are the settings that the agent makes before the start.
	vfs []domain.VFSettings
	// huge is the guest's memory by cell, bound where its vCPUs are pinned.
	huge []preflight.HugeMemory
}

// readInputs decodes the spec and the environment and lets them agree with the
// scheduler's decision.
func (s *Supervisor) readInputs(info podinfo.Info) (*plan, error) {
	if strings.TrimSpace(info.VM) == "" {
		return nil, failure.Field("metadata.annotations['"+v1alpha1.VMAnnotation+"']",
			fmt.Errorf("no VM spec: annotate the pod with %s and mount it as the downward API file %s", v1alpha1.VMAnnotation, v1alpha1.PodInfoVM))
	}
	spec, err := vmspec.Decode([]byte(info.VM))
	if err != nil {
		return nil, fromBuild(err)
	}
	if err := vmspec.Validate(spec); err != nil {
		return nil, fromBuild(err)
	}
	env, err := podinfo.ParseEnv(s.Environ)
	if err != nil {
		return nil, failure.New(launcherrpcv1.ReasonAssignment, err)
	}
	p := &plan{spec: spec, requests: vmspec.Requests(spec), grace: defaultGrace}
	if g := spec.TerminationGracePeriodSeconds; g != nil {
		p.grace = *g
	}
	given, err := env.ByResource(knownResources(p.requests, info.Assignment))
	if err != nil {
		return nil, failure.New(launcherrpcv1.ReasonAssignment, err)
	}
	if p.given, err = preflight.Agree(info.Assignment, given, s.ContainerName); err != nil {
		return nil, err
	}
	p.input.Spec = spec
	p.input.Name, p.input.UUID, err = identity(info)
	return p, err
}

func knownResources(requests []vmspec.Request, a *v1alpha1.Assignment) []string {
	known := map[string]bool{}
	for _, r := range requests {
		if r.Resource != "" {
			known[r.Resource] = true
		}
	}
	if a != nil {
		for _, resources := range a.Containers {
			for r := range resources {
				known[r] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(known))
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// identity names the domain after the pod; outside Kubernetes it makes a UUID up.
func identity(info podinfo.Info) (name, uuid string, err error) {
	name = info.Name
	if name == "" {
		name = "guest"
	}
	name = name[:min(len(name), maxName)]
	if uuidForm.MatchString(info.UID) {
		return name, info.UID, nil
	}
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", "", fmt.Errorf("make a UUID: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return name, fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16]), nil
}

// readHost reads /sys and the cpuset and finds the units of the given devices.
func (s *Supervisor) readHost(ctx context.Context, p *plan) error {
	h, err := host.Read(ctx, s.Host)
	if err != nil {
		return fmt.Errorf("read this host: %w", err)
	}
	p.host, p.input.Host = h, h
	if p.input.CPUs, p.input.MemNodes, err = s.cpuset(); err != nil {
		return err
	}
	if err := preflight.Viable(h, p.given); err != nil {
		return err
	}
	return s.matchUnits(p)
}

// matchUnits gives the k-th unit of a resource to the k-th entry of the spec
// that asks for it.
func (s *Supervisor) matchUnits(p *plan) error {
	byMember := map[topology.Address]topology.Unit{}
	for _, u := range topology.Units(p.host) {
		for _, m := range u.Members {
			byMember[m] = u
		}
	}
	// A plugin may list all functions of a unit; count units.
	units := map[string][]topology.Unit{}
	for r, addresses := range p.given {
		seen := map[topology.Address]bool{}
		for _, a := range addresses {
			u, ok := byMember[a]
			if !ok {
				return failure.Address(launcherrpcv1.ReasonDeviceNotViable, a.String(), fmt.Errorf("device %s (resource %s) is in no unit that can be passed through", a, r))
			}
			if u.Blocked != "" {
				return failure.Address(launcherrpcv1.ReasonDeviceNotViable, a.String(), fmt.Errorf("device %s (resource %s): %s", a, r, u.Blocked))
			}
			if !seen[u.ID] {
				seen[u.ID] = true
				units[r] = append(units[r], u)
			}
		}
	}
	p.units = map[string]topology.Unit{}
	next := map[string]int{}
	for _, r := range p.requests {
		if r.Resource == "" {
			return failure.Field(r.Field(), fmt.Errorf("%s: no resource: name it in sriov.deviceName", r.Field()))
		}
		k := next[r.Resource]
		next[r.Resource]++
		if k >= len(units[r.Resource]) {
			return failure.Field(r.Field(), fmt.Errorf("%s (%s) wants a %s, and the container was given %d of them (looked for %s%s and %s%[6]s in the environment); request as many in the pod's limits",
				r.Field(), r.Name, r.Resource, len(units[r.Resource]), v1alpha1.EnvKubeVirtPrefix, v1alpha1.EnvName(r.Resource), v1alpha1.EnvSRIOVPrefix))
		}
		u := units[r.Resource][k]
		p.units[r.Name] = u
		p.input.Devices = append(p.input.Devices, domain.Device{Name: r.Name, Members: u.Members})
	}
	for r, us := range units {
		if next[r] < len(us) {
			return failure.Newf(launcherrpcv1.ReasonBadSpec, "the container was given %d of %s, the VM spec uses %d: name the others in gpus, hostDevices or interfaces, or request fewer", len(us), r, next[r])
		}
	}
	return nil
}

// cpuset reads which CPUs and memory nodes this process may use.
func (s *Supervisor) cpuset() (cpus, mems []int, err error) {
	f, err := s.Host.Open("proc/self/status")
	if err != nil {
		return nil, nil, fmt.Errorf("read the cpuset: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, nil, fmt.Errorf("read the cpuset: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "Cpus_allowed_list":
			cpus, err = host.ParseList(strings.TrimSpace(value))
		case "Mems_allowed_list":
			mems, err = host.ParseList(strings.TrimSpace(value))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read the cpuset: %s: %w", key, err)
		}
	}
	return cpus, mems, nil
}

// build makes the domain and gives its XML, the lock limit that libvirt will
// want, and the number of devices behind a virtual IOMMU.
func (s *Supervisor) build(p *plan) (xml string, lock uint64, viommu uint32, err error) {
	state, err := s.stateFolder(p.spec)
	if err != nil {
		return "", 0, 0, err
	}
	p.input.Paths = domain.Paths{
		Emulator:      s.Emulator,
		ConsoleSocket: s.consoleSocket(),
		VNCSocket:     s.vncSocket(),
		AgentSocket:   s.agentSocket(),
		PasstLog:      filepath.Join(s.RunDir, "passt.log"),
		NVRAM:         filepath.Join(state, "nvram.fd"),
		TPMState:      filepath.Join(state, "tpm"),
		NCCLTopology:  filepath.Join(s.RunDir, "nccl-topology.xml"),
	}
	if p.input.Volumes, err = domain.PlaceVolumes(p.spec, s.RunDir, volumes.Files{Root: "/"}); err != nil {
		return "", 0, 0, fromBuild(err)
	}
	dom, report, err := domain.Build(p.input)
	if err != nil {
		return "", 0, 0, fromBuild(err)
	}
	p.nccl, p.vfs = report.NCCLTopology, report.VFs
	if p.huge, err = hugeMemory(report); err != nil {
		return "", 0, 0, err
	}
	s.Log.Info("domain", "memoryLockBytes", report.MemoryLockBytes, "notes", report.Notes)
	if s.Emulate {
		emulate(dom)
	}
	if p.spec.Domain.Devices.IOMMU != nil {
		for _, u := range p.units {
			viommu += uint32(len(u.Members))
		}
	}
	xml, err = dom.Marshal()
	if err != nil {
		return "", 0, 0, fmt.Errorf("write the domain's XML: %w", err)
	}
	return xml, report.MemoryLockBytes, viommu, nil
}

// hugeMemory is the memory of a domain's cells. Memory is only bound to its
// nodes where vCPUs are pinned; elsewhere it prefers them.
func hugeMemory(report *domain.Report) ([]preflight.HugeMemory, error) {
	bound := slices.ContainsFunc(report.Cells, func(c domain.CellReport) bool { return len(c.Pins) > 0 })
	var out []preflight.HugeMemory
	for _, c := range report.Cells {
		m := preflight.HugeMemory{Bytes: c.MemoryBytes}
		if bound {
			var err error
			if m.Nodes, err = host.ParseList(c.MemoryNodes); err != nil {
				return nil, fmt.Errorf("memory nodes of guest cell %d: %w", c.Cell, err)
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// persistentState is the volume that keeps the firmware's variables and the TPM.
const persistentState = "persistent-state"

// stateFolder is where the state of firmware and TPM is: on a volume where the
// spec wants it kept, else in the run folder.
func (s *Supervisor) stateFolder(spec *v1alpha1.VirtualMachineInstanceSpec) (string, error) {
	isOn := func(b *bool) bool { return b != nil && *b }
	field := ""
	if f := spec.Domain.Firmware; f != nil && f.Bootloader != nil && f.Bootloader.EFI != nil && isOn(f.Bootloader.EFI.Persistent) {
		field = "spec.domain.firmware.bootloader.efi.persistent"
	}
	if t := spec.Domain.Devices.TPM; t != nil && isOn(t.Persistent) {
		field = "spec.domain.devices.tpm.persistent"
	}
	if field == "" {
		return s.stateDir(), nil
	}
	dir := filepath.Join(domain.VolumesDir, persistentState)
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return "", failure.Field(field, fmt.Errorf("%s: the volume %s must be mounted at %s", field, persistentState, dir))
	}
	return dir, nil
}

// makeFiles makes the files that the domain names and that the launcher owns.
func (s *Supervisor) makeFiles(ctx context.Context, p *plan) error {
	if err := os.MkdirAll(s.stateDir(), 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	if p.nccl != "" {
		if err := os.WriteFile(p.input.Paths.NCCLTopology, []byte(p.nccl), 0o600); err != nil {
			return fmt.Errorf("write the NCCL topology: %w", err)
		}
	}
	hostname := p.spec.Hostname
	if hostname == "" {
		hostname = p.input.Name
	}
	id := volumes.Identity{InstanceID: p.input.UUID, Hostname: hostname}
	if err := volumes.Prepare(ctx, p.spec, p.input.Volumes, id, "/", volumes.DefaultTools()); err != nil {
		return fromBuild(err)
	}
	return volumes.Share(ctx, p.spec, p.input.Volumes, s.RunDir, volumes.DefaultTools())
}

// emulate turns a KVM domain into one for QEMU's own emulation: other CPU model
// and nothing that only KVM has.
func emulate(dom *libvirtxml.Domain) {
	dom.Type = "qemu"
	if c := dom.CPU; c != nil {
		c.Mode, c.Check, c.Migratable, c.Model = "maximum", "none", "", nil
		c.Cache, c.MaxPhysAddr = nil, nil
	}
	if f := dom.Features; f != nil {
		f.KVM, f.IOAPIC = nil, nil
	}
}

// fromBuild classes the errors of spec and domain.
func fromBuild(err error) error {
	var (
		spec   *vmspec.Error
		device *domain.DeviceError
		hosts  *domain.HostError
	)
	switch {
	case errors.As(err, &spec):
		return failure.Field(spec.Field, err)
	case errors.As(err, &device):
		return &failure.Error{Reason: launcherrpcv1.ReasonDeviceNotViable, Field: device.Field, Address: device.Address, Err: err}
	case errors.As(err, &hosts):
		return &failure.Error{Reason: launcherrpcv1.ReasonHostCannotHold, Field: hosts.Field, Err: err}
	case errors.Is(err, vmspec.ErrInvalid):
		return failure.New(launcherrpcv1.ReasonBadSpec, err)
	default:
		return err
	}
}

// configureVFs asks the agent for the settings that the domain's report names:
// of every virtual function but those that a CNI plugin sets up.
func (s *Supervisor) configureVFs(ctx context.Context, p *plan) error {
	for i := range p.vfs {
		v := &p.vfs[i]
		if _, err := s.Agent.ConfigureVF(ctx, vfRequest(v)); err != nil {
			field := "spec.domain.devices.interfaces"
			if n := slices.IndexFunc(p.spec.Domain.Devices.Interfaces, func(in v1alpha1.Interface) bool { return in.Name == v.Interface }); n >= 0 {
				field = fmt.Sprintf("%s[%d]", field, n)
			}
			return &failure.Error{
				Reason: launcherrpcv1.ReasonDeviceNotViable, Address: v.Address, Field: field,
				Err: fmt.Errorf("interface %s: set up virtual function %s: %w", v.Interface, v.Address, err),
			}
		}
	}
	return nil
}

// vfRequest is the agent's call for one function. What the spec does not set
// stays as it is, but the MAC address: unset it would be another at each start.
func vfRequest(v *domain.VFSettings) *agentrpcv1.ConfigureVFRequest {
	req := &agentrpcv1.ConfigureVFRequest{Address: v.Address, Mac: &v.MAC, Trust: v.Trust, SpoofCheck: v.SpoofCheck}
	if v.VLAN != nil {
		vlan := uint32(*v.VLAN)
		req.Vlan = &vlan
	}
	if v.VLANQoS != nil {
		qos := uint32(*v.VLANQoS)
		req.Qos = &qos
	}
	if v.LinkState != "" {
		l := map[string]agentrpcv1.LinkState{
			"auto":    agentrpcv1.LinkState_LINK_STATE_AUTO,
			"enable":  agentrpcv1.LinkState_LINK_STATE_ENABLE,
			"disable": agentrpcv1.LinkState_LINK_STATE_DISABLE,
		}[v.LinkState]
		req.LinkState = &l
	}
	return req
}

// devices lists the given units for RPC and record.
func (p *plan) devices() []launcherrpcv1.Device {
	var out []launcherrpcv1.Device
	for _, r := range p.requests {
		out = append(out, launcherrpcv1.Device{Name: r.Name, Resource: r.Resource, Host: p.units[r.Name].ID.String()})
	}
	return out
}
