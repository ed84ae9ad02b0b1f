package app

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/kubevfio/kubevfio/controller/certs"
	"github.com/kubevfio/kubevfio/controller/eviction"
)

// Names of the eviction webhook's objects; manifests/controller has them, too.
const (
	webhookService = "kubevfio-webhook"
	webhookSecret  = "kubevfio-webhook-cert"
	webhookConfig  = "kubevfio-evictions"
)

// servingCertificate is filled in when the manager, which needs it, exists.
type servingCertificate struct{ *certs.Manager }

func (s *servingCertificate) use(c *tls.Config) {
	c.MinVersion = tls.VersionTLS13
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return s.GetCertificate(hello) }
}

// evictions adds the eviction webhook and its certificates.
func evictions(mgr ctrl.Manager, cfg *rest.Config, serving *servingCertificate, o Options) error {
	if o.WebhookPort == 0 {
		return nil
	}
	// Not by the cache: that would watch all Secrets and webhook configurations.
	live, err := client.New(cfg, client.Options{Scheme: mgr.GetScheme()})
	if err != nil {
		return fmt.Errorf("client of the webhook's certificates: %w", err)
	}
	serving.Manager = certs.New(certs.Options{
		Client: live,
		Secret: client.ObjectKey{Namespace: o.Namespace, Name: webhookSecret},
		Names:  append(certs.ServiceNames(webhookService, o.Namespace), o.WebhookNames...),
		Publish: []certs.Publisher{
			certs.ForValidatingWebhooks(live, webhookConfig),
		},
		Log: mgr.GetLogger().WithName("certificates"),
	})
	if err := mgr.Add(serving.Manager); err != nil {
		return err
	}
	mgr.GetWebhookServer().Register(eviction.Path, &webhook.Admission{Handler: eviction.New(mgr.GetClient(), o.EvictionPatience, time.Now)})
	return mgr.AddReadyzCheck("certificate", func(*http.Request) error {
		_, err := serving.GetCertificate(nil)
		return err
	})
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
