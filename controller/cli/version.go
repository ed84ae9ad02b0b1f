package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// versions are those of the parts; what the caller may not read is absent.
type versions struct {
	Client string `json:"client"`
	// Kubernetes is the API server's.
	Kubernetes string `json:"kubernetes,omitempty"`
	// Agents counts nodes by the version of their agent.
	Agents map[string]int `json:"agents,omitempty"`
	// Images are those of the deployments, by name.
	Images map[string]string `json:"images,omitempty"`
}

func (s *session) versionCommand() *cobra.Command {
	var clientOnly bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this plugin and of the parts in the cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: s.version}
			if !clientOnly {
				cl, err := s.cluster()
				if err != nil {
					return err
				}
				missing := cl.versions(cmd.Context(), &v)
				s.note(missing)
			}
			if s.output == "json" {
				return s.json(v)
			}
			_, err := fmt.Fprint(s.out, v.String())
			return err
		},
	}
	c.Flags().BoolVar(&clientOnly, "client", false, "only this plugin's")
	return c
}

// String is the versions for people.
func (v versions) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kubectl-vfio  %s\n", v.Client)
	if v.Kubernetes != "" {
		fmt.Fprintf(&b, "Kubernetes    %s\n", v.Kubernetes)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Agents)) {
		fmt.Fprintf(&b, "agents        %s on %d nodes\n", cmp.Or(name, "unknown"), v.Agents[name])
	}
	for _, name := range slices.Sorted(maps.Keys(v.Images)) {
		fmt.Fprintf(&b, "%s  %s\n", name, v.Images[name])
	}
	return b.String()
}

// versions reads what it may and says in words what is missing.
func (c *cluster) versions(ctx context.Context, v *versions) (missing string) {
	var not []string
	if info, err := c.kube.Discovery().ServerVersion(); err == nil {
		v.Kubernetes = info.GitVersion
	} else {
		not = append(not, "the API server's: "+err.Error())
	}
	var list v1alpha1.NodeInventoryList
	if err := c.client.List(ctx, &list); err == nil {
		v.Agents = map[string]int{}
		for i := range list.Items {
			v.Agents[list.Items[i].Spec.AgentVersion]++
		}
	} else {
		not = append(not, "the agents': "+err.Error())
	}
	found, err := c.kube.AppsV1().Deployments(v1alpha1.SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=kubevfio"})
	if err == nil {
		v.Images = map[string]string{}
		for i := range found.Items {
			for _, ct := range found.Items[i].Spec.Template.Spec.Containers {
				v.Images[found.Items[i].Name] = ct.Image
			}
		}
	} else {
		not = append(not, "the deployments': "+err.Error())
	}
	if len(not) == 0 {
		return ""
	}
	return "these versions are not known: " + strings.Join(not, "; ")
}
