package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/eviction"
	"github.com/kubevfio/kubevfio/controller/instance"
	"github.com/kubevfio/kubevfio/controller/launchercall"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
	"github.com/kubevfio/kubevfio/controller/machine"
	"github.com/kubevfio/kubevfio/controller/subresources"
)

// ErrOptions is the class of errors about options.
var ErrOptions = errors.New("invalid option")

// Off as an address switches what is served there off.
const Off = "0"

// Options of the controller.
type Options struct {
	// Pod says how launcher pods are made.
	Pod launcherpod.Options
	// MetricsAddress serves Prometheus metrics and the page for people, HealthAddress
	// /healthz and /readyz; "0" switches one off.
	MetricsAddress, HealthAddress string
	// LeaderElection lets one of several replicas act; its lease is in Namespace.
	LeaderElection bool
	Namespace      string
	// Workers is how many objects of a kind are worked on at the same time.
	Workers int
	// QPS and Burst bound the requests to the API server.
	QPS   float32
	Burst int
	// WebhookPort serves the eviction webhook; 0 switches it off.
	WebhookPort int
	// APIAddress serves the aggregated API; [Off] switches it off.
	APIAddress string
	// ServingNames are further names by which the API server calls webhook and API,
	// for a controller outside the cluster. Their certificate is kept in Namespace.
	ServingNames []string
	// CertificateLife of that certificate, 90 days when 0; it is renewed when a
	// third is left.
	CertificateLife time.Duration
	// EvictionPatience is how long evictions of a guest's pod are put off at most
	// while the guest is moved.
	EvictionPatience time.Duration
	// Launcher talks to standby launchers, Guests for the API to all of them; by
	// pods/exec when nil.
	Launcher instance.Launcher
	Guests   subresources.Launcher
	// SkipNameValidation lets several managers live in one process (tests).
	SkipNameValidation bool
}

// DefaultOptions are those of the shipped manifests.
func DefaultOptions() Options {
	return Options{
		Pod:            launcherpod.Options{Image: "localhost/kubevfio/launcher:dev"},
		MetricsAddress: ":8443",
		HealthAddress:  ":8081",
		LeaderElection: true,
		Namespace:      v1alpha1.SystemNamespace,
		Workers:        8,
		// Kubernetes' own controllers are given as much or more; priority and
		// fairness in the API server bound all of them together.
		QPS: 100, Burst: 200,
		WebhookPort:      9443,
		APIAddress:       ":6443",
		EvictionPatience: eviction.DefaultPatience,
	}
}

// Scheme knows what the controller reads and writes.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(s); err != nil {
		return nil, err
	}
	return s, v1alpha1.AddToScheme(s)
}

// Controller is a configured controller.
type Controller struct{ manager ctrl.Manager }

// New builds a controller; it does not talk to the API server yet, except to
// learn its resources.
func New(cfg *rest.Config, o Options) (*Controller, error) {
	if o.Pod.Image == "" {
		return nil, fmt.Errorf("%w: launcher image: is empty", ErrOptions)
	}
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.Burst = o.QPS, o.Burst
	if o.Launcher == nil {
		if o.Launcher, err = launchercall.New(cfg); err != nil {
			return nil, err
		}
	}
	selector, err := labels.Parse(launcherpod.LabelInstanceUID)
	if err != nil {
		return nil, err
	}
	serving := &servingCertificate{}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme,
		// Only launcher pods: a cluster has many others.
		Cache: cache.Options{
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Pod{}:  {Label: selector},
				&corev1.Node{}: {Transform: lightNode},
			},
			DefaultTransform: cache.TransformStripManagedFields(),
		},
		// Metrics name people's machines: only for whom RBAC lets read /metrics.
		Metrics: metricsserver.Options{
			BindAddress: o.MetricsAddress, SecureServing: true,
			FilterProvider: filters.WithAuthenticationAndAuthorization,
		},
		HealthProbeBindAddress:        o.HealthAddress,
		LeaderElection:                o.LeaderElection,
		LeaderElectionID:              "kubevfio-controller",
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		WebhookServer:                 webhook.NewServer(webhook.Options{Port: o.WebhookPort, TLSOpts: []func(*tls.Config){serving.use}}),
		Controller:                    config.Controller{SkipNameValidation: &o.SkipNameValidation},
	})
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	recorder := mgr.GetEventRecorder("kubevfio-controller")
	instances := &instance.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Recorder: recorder, Pod: o.Pod, Launcher: o.Launcher, Now: time.Now,
	}
	machines := &machine.Reconciler{Client: mgr.GetClient(), Recorder: recorder, Now: time.Now}
	if err := errors.Join(
		instances.Setup(mgr, options(o)),
		machines.Setup(mgr, options(o)),
		serving.keep(mgr, cfg, o),
		evictions(mgr, o),
		serveAPI(mgr, cfg, serving, o),
		servePage(mgr),
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("ping", healthz.Ping),
	); err != nil {
		return nil, err
	}
	return &Controller{manager: mgr}, nil
}

// options of a reconciler: what fails is tried again after 50 ms, and then ever
// later up to a minute.
func options(o Options) controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: max(o.Workers, 1),
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](50*time.Millisecond, time.Minute),
	}
}

// Run works until the context ends.
func (c *Controller) Run(ctx context.Context) error { return c.manager.Start(ctx) }
