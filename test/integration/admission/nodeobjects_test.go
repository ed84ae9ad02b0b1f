package admission

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

func TestAgentWritesItsOwnNodeOnly(t *testing.T) {
	agentOf := func(node string) map[string][]string {
		return map[string][]string{"authentication.kubernetes.io/node-name": {node}}
	}
	cases := map[string]struct {
		user    string
		extra   map[string][]string
		object  string
		message string // empty: accepted
	}{
		"own node":               {agentUser, agentOf("node-a"), "node-a", ""},
		"another node":           {agentUser, agentOf("node-a"), "node-b", "the agent of node node-a must not write about node node-b"},
		"a token without node":   {agentUser, nil, "node-a", "does not say on which node it runs"},
		"an admin who cleans up": {"alice", nil, "node-b", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c, err := server.As(rest.ImpersonationConfig{UserName: tc.user, Groups: []string{"system:masters"}, Extra: tc.extra})
			if err != nil {
				t.Fatal(err)
			}
			meta := metav1.ObjectMeta{Name: tc.object}
			for kind, o := range map[string]client.Object{
				"NodeInventory": &v1alpha1.NodeInventory{ObjectMeta: meta},
				"NodeUsage":     &v1alpha1.NodeUsage{ObjectMeta: meta},
			} {
				check := func(verb string, err error) {
					t.Helper()
					switch {
					case tc.message == "" && err != nil:
						t.Errorf("%s %s: %v", verb, kind, err)
					case tc.message != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), tc.message)):
						t.Errorf("%s %s: error = %v; want Forbidden with %q", verb, kind, err, tc.message)
					}
				}
				check("create", c.Create(t.Context(), o.DeepCopyObject().(client.Object), client.DryRunAll))

				there := o.DeepCopyObject().(client.Object)
				if err := server.Admin.Create(t.Context(), there); err != nil {
					t.Fatal(err)
				}
				there.SetLabels(map[string]string{"a": "b"})
				check("update", c.Update(t.Context(), there, client.DryRunAll))
				check("delete", c.Delete(t.Context(), there, client.DryRunAll))
				if err := server.Admin.Delete(t.Context(), there); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
