package app

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launchercall"
	"github.com/kubevfio/kubevfio/controller/page"
	"github.com/kubevfio/kubevfio/controller/subresources"
)

// Names of the aggregated API's objects; manifests/controller has them, too.
const (
	apiService       = "kubevfio-api"
	apiServiceObject = subresourcesv1alpha1.Version + "." + subresourcesv1alpha1.Group
)

// serveAPI adds the aggregated API, with the page in it.
func serveAPI(mgr ctrl.Manager, cfg *rest.Config, serving *servingCertificate, o Options) error {
	if o.APIAddress == Off {
		return nil
	}
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("client of the API: %w", err)
	}
	live, err := client.New(cfg, client.Options{Scheme: mgr.GetScheme()})
	if err != nil {
		return fmt.Errorf("client of the API: %w", err)
	}
	launchers := o.Guests
	if launchers == nil {
		if launchers, err = launchercall.New(cfg); err != nil {
			return err
		}
	}
	auth, err := subresources.NewAuth(kube)
	if err != nil {
		return err
	}
	people, err := page.New(page.Cache{Reader: mgr.GetClient()}, time.Now)
	if err != nil {
		return err
	}
	// Here, so that a port in use is told before anything starts.
	l, err := net.Listen("tcp", o.APIAddress)
	if err != nil {
		return fmt.Errorf("%w: API address: %w", ErrOptions, err)
	}
	var h http.Handler = &subresources.Handler{Client: live, Launcher: launchers, Logs: subresources.PodLogs{Client: kube}}
	return mgr.Add(&subresources.Server{
		Listener: l, Auth: auth, Handler: page.Under(page.Path, people, h), GetCertificate: serving.get,
	})
}
