package app

import (
	"crypto/tls"
	"fmt"
	"net/http"

	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/controller/certs"
)

// servingSecret holds the certificate that the webhook and the API share;
// manifests/controller has its name, too.
const servingSecret = "kubevfio-serving-cert"

// servingCertificate is filled in when the manager, which needs it, exists.
type servingCertificate struct{ *certs.Manager }

func (s *servingCertificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.GetCertificate(hello)
}

func (s *servingCertificate) use(c *tls.Config) {
	c.MinVersion = tls.VersionTLS13
	c.GetCertificate = s.get
}

// keep adds the certificate's upkeep to the manager where anything is served.
func (s *servingCertificate) keep(mgr ctrl.Manager, cfg *rest.Config, o Options) error {
	if o.WebhookPort == 0 && o.APIAddress == Off {
		return nil
	}
	// Not by the cache: that would watch all Secrets and webhook configurations.
	live, err := client.New(cfg, client.Options{Scheme: mgr.GetScheme()})
	if err != nil {
		return fmt.Errorf("client of the serving certificate: %w", err)
	}
	names := append(certs.ServiceNames(webhookService, o.Namespace), certs.ServiceNames(apiService, o.Namespace)...)
	s.Manager = certs.New(certs.Options{
		Client: live,
		Secret: client.ObjectKey{Namespace: o.Namespace, Name: servingSecret},
		Names:  append(names, o.ServingNames...),
		Life:   o.CertificateLife,
		Publish: []certs.Publisher{
			certs.ForValidatingWebhooks(live, webhookConfig),
			certs.ForAPIService(live, apiServiceObject),
		},
		Log: mgr.GetLogger().WithName("certificates"),
	})
	if err := mgr.Add(s.Manager); err != nil {
		return err
	}
	return mgr.AddReadyzCheck("certificate", func(*http.Request) error {
		_, err := s.GetCertificate(nil)
		return err
	})
}
