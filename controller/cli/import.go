package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/kubevfio/kubevfio/controller/kubevirt"
)

func (s *session) importCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Turn KubeVirt's VirtualMachine and VirtualMachineInstance manifests into ours; - reads standard input",
		Long: "Turn KubeVirt's VirtualMachine and VirtualMachineInstance manifests into ours.\n\n" +
			"The result goes to standard output. What could not be carried is listed on standard error, by field, and makes the exit\n" +
			"code 1: nothing is dropped silently.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var (
				text []byte
				err  error
			)
			if args[0] == "-" {
				text, err = io.ReadAll(s.in)
			} else {
				text, err = os.ReadFile(args[0])
			}
			if err != nil {
				return err
			}
			out, notes, err := kubevirt.Import(text)
			if err != nil {
				return err
			}
			if _, err := s.out.Write(out); err != nil {
				return err
			}
			lost := 0
			for _, n := range notes {
				word := "changed"
				if n.Lost {
					word = "not carried"
					lost++
				}
				fmt.Fprintf(s.err, "%s: %s\n", word, n)
			}
			if lost > 0 {
				return fmt.Errorf("%d fields were not carried", lost)
			}
			return nil
		},
	}
}
