package app

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/kubevfio/kubevfio/controller/eviction"
)

// Names of the eviction webhook's objects; manifests/controller has them, too.
const (
	webhookService = "kubevfio-webhook"
	webhookConfig  = "kubevfio-evictions"
)

// evictions adds the eviction webhook.
func evictions(mgr ctrl.Manager, o Options) error {
	if o.WebhookPort == 0 {
		return nil
	}
	mgr.GetWebhookServer().Register(eviction.Path, &webhook.Admission{Handler: eviction.New(mgr.GetClient(), o.EvictionPatience, time.Now)})
	return nil
}

// lightNode drops what nobody here reads of nodes; the lists of images are most of
// their size.
func lightNode(o any) (any, error) {
	if n, ok := o.(*corev1.Node); ok {
		n.ManagedFields, n.Annotations = nil, nil
		n.Status.Images, n.Status.VolumesInUse, n.Status.VolumesAttached = nil, nil, nil
	}
	return o, nil
}
