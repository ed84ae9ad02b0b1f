package rendercmd

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/launcher/domain"
)

// placeholderUUID stands for the identity that a running VM gets from its UID.
const placeholderUUID = "00000000-0000-4000-8000-000000000000"

type options struct {
	spec, inventory, hostFile string
	devices                   []string
	output                    string
	name, uuid                string
	cpus, mems                string
	libvirt                   string
}

// NewCommand is the render subcommand.
func NewCommand() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "render --spec FILE --inventory FILE --devices NAME=ADDRESS,…",
		Short: "Show the domain that a VM would get on a host, without touching the host",
		Long: `Show the libvirt domain that a VM would get on a host, without touching that host.

--spec is a VirtualMachineInstance, a VirtualMachine, a Pod with the annotation kubevfio.io/vm, or a bare
spec, YAML or JSON.
--inventory is the host: what "kubevfio-agent inventory -o json" (or yaml) prints, a NodeInventory object, a
folder with sys/ (and proc/), or such a folder as .tar or .tar.gz. A NodeInventory has neither BARs nor
CPU cores; give one of the other forms as --host to have the MMIO window and thread pinning right.
--devices gives entries of the spec their units: NAME=ADDRESS for an entry, RESOURCE=ADDRESS,ADDRESS for
all entries of a resource in their order; mdev:UUID and usb:BUS:DEVICE for such devices.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd)
		},
	}
	f := c.Flags()
	f.StringVar(&o.spec, "spec", "", "file of the VM (required); - is standard input")
	f.StringVar(&o.inventory, "inventory", "", "file or folder of the host (required unless --host is given)")
	f.StringVar(&o.hostFile, "host", "", "file or folder with the host's full topology")
	f.StringSliceVar(&o.devices, "devices", nil, "units by entry or resource")
	f.StringVarP(&o.output, "output", "o", "xml", "xml, report, json or svg")
	f.StringVar(&o.name, "name", "", "the domain's name (default: that of the object)")
	f.StringVar(&o.uuid, "uuid", "", "the domain's UUID (default: the object's UID, else zeros)")
	f.StringVar(&o.cpus, "cpus", "", "the pod's cpuset in list form, such as 0-7,16-23 (default: all CPUs)")
	f.StringVar(&o.mems, "mems", "", "the pod's memory nodes in list form (default: all)")
	f.StringVar(&o.libvirt, "libvirt-version", "", "libvirt in the image, such as 12.2.0 (default: that of the launcher image)")
	return c
}

func (o *options) run(cmd *cobra.Command) error {
	if o.spec == "" || (o.inventory == "" && o.hostFile == "") {
		return fmt.Errorf("--spec and --inventory are required")
	}
	in, notes, err := o.input(cmd)
	if err != nil {
		return err
	}
	dom, report, err := domain.Build(*in)
	if err != nil {
		return err
	}
	report.Notes = append(report.Notes, notes...)
	w := cmd.OutOrStdout()
	switch o.output {
	case "xml":
		xml, err := dom.Marshal()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, xml)
		return err
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(report)
	case "report":
		return writeReport(w, in, report)
	case "svg":
		return writeSVG(w, in, report)
	}
	return fmt.Errorf("--output %q: want xml, report, json or svg", o.output)
}

// input gathers what Build wants from the files, with notes on the devices that
// the host would not hand out now.
func (o *options) input(cmd *cobra.Command) (in *domain.Input, notes []string, err error) {
	text, err := readFile(cmd.InOrStdin(), o.spec)
	if err != nil {
		return nil, nil, fmt.Errorf("--spec: %w", err)
	}
	obj, err := vmspec.DecodeObject(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", o.spec, err)
	}
	l, err := o.load(cmd)
	if err != nil {
		return nil, nil, err
	}
	in = &domain.Input{Spec: obj.Spec, Name: firstOf(o.name, obj.Name, "vm"), UUID: firstOf(o.uuid, obj.UID, placeholderUUID), Host: l.host}
	if in.Devices, err = devices(o.devices, obj.Spec, l); err != nil {
		return nil, nil, err
	}
	if in.CPUs, err = host.ParseList(o.cpus); err != nil {
		return nil, nil, fmt.Errorf("--cpus: %w", err)
	}
	if in.MemNodes, err = host.ParseList(o.mems); err != nil {
		return nil, nil, fmt.Errorf("--mems: %w", err)
	}
	if in.Libvirt.LibvirtVersion, err = libvirtVersion(o.libvirt); err != nil {
		return nil, nil, err
	}
	in.Paths = DefaultPaths(v1alpha1.LauncherRunDir)
	in.Volumes, err = domain.PlaceVolumes(obj.Spec, v1alpha1.LauncherRunDir, nil)
	for _, d := range in.Devices {
		if len(d.Members) > 0 && l.blocked[d.Members[0]] != "" {
			notes = append(notes, d.Name+" would not be handed out now: "+l.blocked[d.Members[0]])
		}
	}
	return in, notes, err
}

// load reads the host; a full one takes the place of an inventory's.
func (o *options) load(cmd *cobra.Command) (*loaded, error) {
	var l *loaded
	for i, name := range []string{o.inventory, o.hostFile} {
		flag := []string{"--inventory", "--host"}[i]
		if name == "" {
			continue
		}
		next, err := load(cmd.Context(), name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		if l != nil && next.partial {
			return nil, fmt.Errorf("--host %s: is a NodeInventory; want the host's full topology", name)
		}
		l = next
	}
	return l, nil
}

// DefaultPaths are the launcher's own places below its run folder.
func DefaultPaths(runDir string) domain.Paths {
	return domain.Paths{
		Emulator:      "/usr/bin/qemu-system-x86_64",
		ConsoleSocket: runDir + "/console.sock",
		VNCSocket:     runDir + "/vnc.sock",
		AgentSocket:   runDir + "/agent.sock",
		PasstLog:      runDir + "/passt.log",
		NVRAM:         runDir + "/state/nvram.fd",
		TPMState:      runDir + "/state/tpm",
		NCCLTopology:  runDir + "/nccl-topology.xml",
	}
}

func readFile(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// libvirtVersion reads MAJOR.MINOR[.RELEASE] into libvirt's own number.
func libvirtVersion(s string) (uint32, error) {
	if s == "" {
		return 0, nil
	}
	parts := strings.Split(s, ".")
	var v [3]uint32
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 10)
		if err != nil || i >= len(v) || len(parts) < 2 || n > 999 {
			return 0, fmt.Errorf("--libvirt-version %q: want a version such as 12.2.0", s)
		}
		v[i] = uint32(n)
	}
	return v[0]*1_000_000 + v[1]*1_000 + v[2], nil
}
