package cli

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// CompletionName is the name under which kubectl looks for a plugin's completion: a
// link of that name to this program is enough.
const CompletionName = "kubectl_complete-vfio"

// Arguments are those of a process with the given command line: called as
// [CompletionName] the words are to be completed.
func Arguments(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	if strings.TrimSuffix(filepath.Base(argv[0]), ".exe") == CompletionName {
		return append([]string{cobra.ShellCompRequestCmd}, argv[1:]...)
	}
	return argv[1:]
}

// completeAll teaches commands to complete names from the cluster.
func (s *session) completeAll(root *cobra.Command) {
	kinds := map[string][]string{"explain": {"vm", "vmi", "pod", "node"}, "topology": {"node", "vmi"}}
	one := map[string]string{
		"start": "vm", "stop": "vm", "restart": "vm",
		"pause": "vmi", "unpause": "vmi", "softreboot": "vmi", "state": "vmi", "console": "vmi", "vnc": "vmi", "screenshot": "vmi",
		"guestinfo": "vmi", "log": "vmi",
	}
	for _, c := range root.Commands() {
		if c.ValidArgsFunction != nil {
			continue
		}
		if kind, ok := one[c.Name()]; ok {
			c.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
				if len(args) > 0 {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return s.names(cmd.Context(), kind, typed), cobra.ShellCompDirectiveNoFileComp
			}
		}
		if list, ok := kinds[c.Name()]; ok {
			c.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
				switch len(args) {
				case 0:
					return list, cobra.ShellCompDirectiveNoFileComp
				case 1:
					return s.names(cmd.Context(), args[0], typed), cobra.ShellCompDirectiveNoFileComp
				}
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
		}
		if c.Name() == "devices" {
			nodes := func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
				return s.names(cmd.Context(), "node", typed), cobra.ShellCompDirectiveNoFileComp
			}
			if err := c.RegisterFlagCompletionFunc("node", nodes); err != nil {
				panic(err) // the flag is the command's own
			}
		}
	}
}

// names are those of a kind that begin with what was typed. Completion is silent:
// errors give none.
func (s *session) names(ctx context.Context, kind, typed string) []string {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	cl, err := s.cluster()
	if err != nil {
		return nil
	}
	var list client.ObjectList
	var options []client.ListOption
	switch kind {
	case "vm", "kvm":
		list, options = &v1alpha1.VirtualMachineList{}, append(options, client.InNamespace(cl.namespace))
	case "vmi", "kvmi":
		list, options = &v1alpha1.VirtualMachineInstanceList{}, append(options, client.InNamespace(cl.namespace))
	case "pod":
		list, options = &corev1.PodList{}, append(options, client.InNamespace(cl.namespace))
	case "node":
		list = &v1alpha1.NodeInventoryList{}
	default:
		return nil
	}
	if cl.client.List(ctx, list, options...) != nil {
		return nil
	}
	return beginning(list, typed)
}

// beginning are the names of objects that begin with what was typed, with a word that
// tells them apart.
func beginning(list client.ObjectList, typed string) []string {
	var found []string
	add := func(name, note string) {
		if strings.HasPrefix(name, typed) {
			found = append(found, strings.TrimRight(name+"\t"+note, "\t"))
		}
	}
	switch l := list.(type) {
	case *v1alpha1.VirtualMachineList:
		for i := range l.Items {
			add(l.Items[i].Name, l.Items[i].Status.PrintableStatus)
		}
	case *v1alpha1.VirtualMachineInstanceList:
		for i := range l.Items {
			add(l.Items[i].Name, strings.TrimSpace(string(l.Items[i].Status.Phase)+" "+l.Items[i].Status.NodeName))
		}
	case *corev1.PodList:
		for i := range l.Items {
			// Other pods are of no interest here.
			if _, ok := l.Items[i].Annotations[v1alpha1.VMAnnotation]; ok {
				add(l.Items[i].Name, cmp.Or(l.Items[i].Spec.NodeName, string(l.Items[i].Status.Phase)))
			}
		}
	case *v1alpha1.NodeInventoryList:
		for i := range l.Items {
			add(l.Items[i].Name, "")
		}
	}
	slices.Sort(found)
	return found
}
