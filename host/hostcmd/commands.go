package hostcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/host/snapshot"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Commands are all subcommands of this package.
func Commands() []*cobra.Command {
	return []*cobra.Command{NewInventoryCommand(), NewSnapshotCommand(), NewPoolFromSRIOVDPCommand(), NewWriteAttrCommand()}
}

// ErrFormat is the class of errors about an unknown output format.
var ErrFormat = errors.New("unknown output format")

// NewInventoryCommand prints what a host has.
func NewInventoryCommand() *cobra.Command {
	var root, format string
	c := &cobra.Command{
		Use:   "inventory",
		Short: "Print the PCI functions, isolation units and NUMA shape of a host",
		Long: `Print the PCI functions, isolation units and NUMA shape of the running host, or
of a captured tree: a directory or an archive (.tar, .tar.gz) that holds sys/
and optionally proc/. Nothing is changed and no cluster is needed.`,
		Example: `  kubevfio-agent inventory
  kubevfio-agent inventory --root node7.tar.gz -o svg > node7.svg
  kubevfio-agent inventory -o json | jq '.units[] | select(.blocked)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			write, ok := map[string]func(io.Writer, *Report) error{
				"json": writeJSON, "yaml": writeYAML, "tree": writeTree, "svg": writeSVG,
			}[format]
			if !ok {
				return fmt.Errorf("%w: %q: want tree, json, yaml or svg", ErrFormat, format)
			}
			fsys, err := host.Open(root)
			if err != nil {
				return fmt.Errorf("open host tree: %w", err)
			}
			h, err := host.Read(cmd.Context(), fsys)
			if err != nil {
				return err
			}
			r := NewReport(h)
			if format == "tree" || format == "svg" {
				r.names = productNames()
				r.holders = host.VFIOUsers(fsys)
			}
			return write(cmd.OutOrStdout(), r)
		},
	}
	c.Flags().StringVar(&root, "root", "/", "directory or archive that holds sys/ and optionally proc/")
	c.Flags().StringVarP(&format, "output", "o", "tree", "tree, json, yaml or svg")
	return c
}

func writeJSON(w io.Writer, r *Report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func writeYAML(w io.Writer, r *Report) error {
	b, err := yaml.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode inventory: %w", err)
	}
	_, err = w.Write(b)
	return err
}

// NewSnapshotCommand captures a host.
func NewSnapshotCommand() *cobra.Command {
	var root, out string
	c := &cobra.Command{
		Use:   "snapshot -o FILE.tar.gz",
		Short: "Capture what inventory reads of a host into an archive without identities",
		Long: `Capture what "inventory" reads of a host into an archive that "inventory --root"
and tests read. The archive has no serial numbers, MAC addresses, host names,
VPD, DMI, UUIDs or boot ID in it; it tells device models, drivers, places and
sizes. Nothing on the host is changed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cmd.SilenceUsage = true
			fsys, err := host.Open(root)
			if err != nil {
				return fmt.Errorf("open host tree: %w", err)
			}
			h, err := host.Read(cmd.Context(), fsys)
			if err != nil {
				return err
			}
			if out == "-" {
				return snapshot.Write(cmd.OutOrStdout(), h)
			}
			tmp, err := os.CreateTemp(filepath.Dir(out), ".snapshot-*")
			if err != nil {
				return fmt.Errorf("write snapshot: %w", err)
			}
			err = snapshot.Write(tmp, h)
			if cerr := tmp.Close(); err == nil {
				err = cerr
			}
			if err == nil {
				err = os.Rename(tmp.Name(), out)
			}
			if err != nil {
				return errors.Join(fmt.Errorf("write snapshot: %w", err), os.Remove(tmp.Name()))
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s: %d functions, %d skipped\n", out, len(h.Functions), len(h.Skipped))
			return err
		},
	}
	c.Flags().StringVar(&root, "root", "/", "directory or archive that holds sys/ and optionally proc/")
	c.Flags().StringVarP(&out, "output", "o", "", `archive to write, "-" for standard output`)
	if err := c.MarkFlagRequired("output"); err != nil {
		panic(err) // the flag is defined two lines above
	}
	return c
}

// NewPoolFromSRIOVDPCommand converts a configuration of the SR-IOV network
// device plugin.
func NewPoolFromSRIOVDPCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pool-from-sriovdp FILE",
		Short: "Convert the SR-IOV network device plugin's configuration to DevicePools",
		Long: `Convert the SR-IOV network device plugin's configuration (its JSON, or the
ConfigMap that holds it; "-" reads standard input) to DevicePool objects on
standard output. What cannot be carried over is an error that names the field.`,
		Example: `  kubectl -n kube-system get cm sriovdp-config -o yaml | kubevfio-agent pool-from-sriovdp - | kubectl apply -f -`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			var b []byte
			var err error
			if args[0] == "-" {
				b, err = io.ReadAll(cmd.InOrStdin())
			} else {
				b, err = os.ReadFile(args[0])
			}
			if err != nil {
				return fmt.Errorf("read configuration: %w", err)
			}
			pools, err := pool.FromSRIOVDP(b)
			if err != nil {
				return err
			}
			return pool.WriteYAML(cmd.OutOrStdout(), pools)
		},
	}
}

// NewWriteAttrCommand is the hidden verb of [host.ProcessWriter].
func NewWriteAttrCommand() *cobra.Command {
	return &cobra.Command{
		Use:    host.WriteAttrCommand,
		Hidden: true,
		Args:   cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			os.Exit(host.WriteAttrMain(cmd.InOrStdin(), cmd.OutOrStdout()))
		},
	}
}
