package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// adviseAll wraps every command so that errors of the API server say what to do.
func adviseAll(c *cobra.Command) {
	for _, sub := range c.Commands() {
		adviseAll(sub)
	}
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error { return advise(run(cmd, args)) }
	}
}

// advise adds to an error what a person can do about it. The error stays in the chain.
func advise(err error) error {
	if err == nil {
		return nil
	}
	with := func(text string) error { return fmt.Errorf("%w\n%s", err, text) }
	var noGroup *discovery.ErrGroupDiscoveryFailed
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("stopped")
	case clientcmd.IsEmptyConfig(err):
		return with("no cluster is configured: set KUBECONFIG, or give --kubeconfig or --context")
	case meta.IsNoMatchError(err), errors.As(err, &noGroup), typeMissing(err):
		return with("KubeVFIO is not installed in this cluster, or this plugin is of another version: kubectl get crd | grep " + v1alpha1.Group)
	case apierrors.IsUnauthorized(err):
		return with("your credentials were refused: log in again, or check the context: kubectl config current-context")
	case apierrors.IsForbidden(err):
		return with("ask for a role: " + roleFor(err))
	case apierrors.IsNotFound(err):
		return with(lookFor(err))
	case utilnet.IsConnectionRefused(err), utilnet.IsConnectionReset(err), utilnet.IsTimeout(err):
		return with("the API server does not answer: check the context (kubectl config current-context) and the network")
	case apierrors.IsServiceUnavailable(err):
		return with("a part of the API is not ready: kubectl get apiservice v1alpha1.subresources." + v1alpha1.Group)
	}
	return err
}

func details(err error) metav1.StatusDetails {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		return *status.Status().Details
	}
	return metav1.StatusDetails{}
}

// typeMissing tells a missing resource from a missing object: the latter has a name.
func typeMissing(err error) bool {
	return apierrors.IsNotFound(err) && details(err).Name == "" && strings.Contains(err.Error(), "could not find the requested resource")
}

// roleFor names the ClusterRole of the manifests that allows what was refused.
func roleFor(err error) string {
	for _, word := range []string{"/console", "/vnc", "/screenshot"} {
		if strings.Contains(err.Error(), v1alpha1.Group) && strings.Contains(err.Error(), "virtualmachineinstances"+word) {
			return "ClusterRole kubevfio-console in the namespace"
		}
	}
	switch d := details(err); d.Kind {
	case "nodeinventories", "nodeusages", "devicepools":
		return "ClusterRole kubevfio-hardware-view, for the whole cluster"
	case "virtualmachines", "virtualmachineinstances":
		if strings.Contains(err.Error(), "cannot patch") || strings.Contains(err.Error(), "cannot update") {
			return "ClusterRole edit (which includes kubevfio-edit) in the namespace"
		}
		return "ClusterRole view (which includes kubevfio-view) in the namespace"
	case "pods":
		if strings.Contains(err.Error(), "pods/exec") {
			return "the right to exec into pods, such as ClusterRole edit, in the namespace"
		}
	}
	return "kubectl auth can-i --list shows what you have"
}

// lookFor says where to look for an object that is not there.
func lookFor(err error) string {
	short := map[string]string{"virtualmachines": "kvm", "virtualmachineinstances": "kvmi"}
	d := details(err)
	switch kind := short[d.Kind]; {
	case kind == "kvmi":
		return "see kubectl get kvmi,kvm -A; a machine that is switched off has no instance: kubectl vfio explain vm " + d.Name
	case kind != "":
		return "see kubectl get " + kind + " -A; is the namespace right (-n)?"
	case d.Kind == "nodes", d.Kind == "nodeinventories":
		return "see kubectl get nodes,nodeinventories"
	}
	return "are name and namespace (-n) right?"
}
