package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/controller/app"
)

// ErrUsage is the class of errors about arguments.
var ErrUsage = errors.New("usage")

// session is what the commands share.
type session struct {
	flags   *genericclioptions.ConfigFlags
	in      io.Reader
	out     io.Writer
	err     io.Writer
	output  string
	version string
}

// New makes the root command.
func New(version string, in io.Reader, out, errOut io.Writer) *cobra.Command {
	s := &session{flags: genericclioptions.NewConfigFlags(true), in: in, out: out, err: errOut, version: version}
	root := &cobra.Command{
		Use:           "kubectl-vfio",
		Short:         "Virtual machines with real hardware: run them, see their devices, find out why they do not start",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl vfio"},
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version,
	}
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if s.output != "" && s.output != "json" {
			return fmt.Errorf("%w: output %q: want json, or nothing for people", ErrUsage, s.output)
		}
		return nil
	}
	s.flags.AddFlags(root.PersistentFlags())
	root.PersistentFlags().StringVarP(&s.output, "output", "o", "", "json, or nothing for people")
	root.AddCommand(s.power()...)
	root.AddCommand(s.guestCommands()...)
	root.AddCommand(s.vnc(), s.explain(), s.devices(), s.topology(), s.page(), s.importCommand(), s.versionCommand())
	s.completeAll(root)
	adviseAll(root)
	return root
}

// cluster is a connection with the caller's rights.
type cluster struct {
	client    client.Client
	kube      kubernetes.Interface
	config    *rest.Config
	namespace string
}

func (s *session) cluster() (*cluster, error) {
	cfg, err := s.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	cfg.UserAgent = "kubectl-vfio/" + s.version
	// Reading a whole cluster is a handful of large requests.
	cfg.QPS, cfg.Burst = 50, 100
	scheme, err := app.Scheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	ns, _, err := s.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, err
	}
	return &cluster{client: c, kube: kube, config: cfg, namespace: ns}, nil
}

func (s *session) json(v any) error {
	enc := json.NewEncoder(s.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table writes rows with aligned columns.
func (s *session) table(rows [][]string) error {
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				if _, err := fmt.Fprint(w, "\t"); err != nil {
					return err
				}
			}
			if _, err := fmt.Fprint(w, cell); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return w.Flush()
}
