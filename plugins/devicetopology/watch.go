package devicetopology

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// watchState says how far the watch of one resource has come.
type watchState int32

const (
	watchStarting watchState = iota
	// watchAbsent: the API server does not serve the resource.
	watchAbsent
	// watchSynced: the first list has been taken over.
	watchSynced
)

// source watches one cluster-scoped resource of ours and feeds a store. Unlike
// a shared informer it keeps no objects, and it waits patiently for a resource
// that is not served yet.
type source struct {
	resource string
	example  runtime.Object
	set      func(obj any)
	remove   func(name string)
	keepOnly func(names map[string]bool)
	notify   func()

	state   atomic.Int32
	lastErr atomic.Pointer[error]
}

// settled reports whether scheduling may go on: the resource was listed, or the
// cluster does not have it.
func (s *source) settled() bool { return watchState(s.state.Load()) != watchStarting }

// err is the last error while starting, nil when there was none.
func (s *source) err() error {
	if e := s.lastErr.Load(); e != nil {
		return *e
	}
	return nil
}

// run watches until ctx is done. retry is the time between two looks for a
// resource that is not there.
func (s *source) run(ctx context.Context, client rest.Interface, retry time.Duration) {
	logger := klog.FromContext(ctx).WithValues("resource", s.resource)
	lw := cache.NewListWatchFromClient(client, s.resource, metav1.NamespaceAll, fields.Everything())
	last := ""
	for ctx.Err() == nil {
		err := client.Get().Resource(s.resource).VersionedParams(&metav1.ListOptions{Limit: 1}, metav1.ParameterCodec).Do(ctx).Error()
		if err == nil {
			break
		}
		if apierrors.IsNotFound(err) {
			s.state.CompareAndSwap(int32(watchStarting), int32(watchAbsent))
		}
		s.lastErr.Store(&err)
		if last != err.Error() && !errors.Is(err, context.Canceled) {
			last = err.Error()
			logger.Info("Waiting for a KubeVFIO resource: install its CRDs and RBAC", "reason", last)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
	r := cache.NewReflectorWithOptions(lw, s.example, s, cache.ReflectorOptions{Name: "devicetopology/" + s.resource})
	r.RunWithContext(ctx)
}

// Add implements [cache.ReflectorStore].
func (s *source) Add(obj any) error {
	s.set(obj)
	s.notify()
	return nil
}

// Update implements [cache.ReflectorStore].
func (s *source) Update(obj any) error { return s.Add(obj) }

// Delete implements [cache.ReflectorStore].
func (s *source) Delete(obj any) error {
	m, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("watch %s: deleted object is a %T", s.resource, obj)
	}
	s.remove(m.GetName())
	s.notify()
	return nil
}

// Replace implements [cache.ReflectorStore].
func (s *source) Replace(objs []any, _ string) error {
	keep := make(map[string]bool, len(objs))
	for _, o := range objs {
		m, ok := o.(metav1.Object)
		if !ok {
			return fmt.Errorf("list %s: object is a %T", s.resource, o)
		}
		s.set(o)
		keep[m.GetName()] = true
	}
	s.keepOnly(keep)
	s.state.Store(int32(watchSynced))
	s.notify()
	return nil
}

// Resync implements [cache.ReflectorStore]; there is nothing to do.
func (s *source) Resync() error { return nil }

// newClient is a REST client for our API group, from the scheduler's own
// connection settings.
func newClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register kubevfio.io types: %w", err)
	}
	c := rest.CopyConfig(config)
	// The scheduler's configuration asks for protobuf, which custom resources
	// do not have.
	c.ContentType = runtime.ContentTypeJSON
	c.AcceptContentTypes = runtime.ContentTypeJSON
	c.APIPath = "/apis"
	c.GroupVersion = &v1alpha1.GroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", v1alpha1.GroupVersion, err)
	}
	return client, nil
}

// notifier calls fn soon after notify, at most once per interval.
type notifier struct {
	interval time.Duration
	fn       func()

	mu      sync.Mutex
	pending bool
	last    time.Time
}

func (n *notifier) notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pending {
		return
	}
	n.pending = true
	time.AfterFunc(max(time.Millisecond, time.Until(n.last.Add(n.interval))), func() {
		n.mu.Lock()
		n.pending = false
		n.last = time.Now()
		n.mu.Unlock()
		n.fn()
	})
}
